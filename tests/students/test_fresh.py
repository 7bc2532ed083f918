"""New students of their teacher's kind."""

import pytest
import tiny
import tiny_images
import tiny_language
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
    set_seed,
)

from hf_distill.students import fresh_student, lineage
from hf_distill.students.fresh import reduced


def test_embeddings_are_copied_at_the_same_width_and_the_rest_is_new():
    teacher = tiny.bert(layers=4)
    student = fresh_student(teacher, num_hidden_layers=2)
    ours, theirs = (m.get_input_embeddings().weight for m in (student, teacher))
    assert torch.equal(ours, theirs)
    assert ours is not theirs
    layers = [m.bert.encoder.layer[0].output.dense.weight for m in (student, teacher)]
    assert not torch.equal(*layers)
    assert student.config.num_hidden_layers == len(student.bert.encoder.layer) == 2
    assert student.config.num_labels == teacher.config.num_labels == 3
    assert lineage(student) == [
        "It began as a random model of the kind of `BertForSequenceClassification` (num_hidden_layers 2); its word "
        "embeddings were copied."
    ]


def test_a_narrower_student_has_the_best_reduction():
    teacher = tiny.bert(width=16)
    student = fresh_student(teacher, hidden_size=6)
    ours, theirs = (m.get_input_embeddings().weight.double() for m in (student, teacher))
    left, values, right = torch.linalg.svd(theirs, full_matrices=False)
    best = left[:, :6] @ values[:6].diag() @ right[:6]
    assert torch.allclose(ours @ ours.T, best @ best.T, atol=1e-5)  # the same up to a rotation
    assert (student.config.num_attention_heads, student.config.intermediate_size) == (1, 12)
    wide = torch.randn(5, 4)
    assert torch.allclose(reduced(wide, 4) @ reduced(wide, 4).T, wide @ wide.T, atol=1e-5)


def test_heads_of_64_and_what_is_asked_for():
    teacher = tiny.bert(width=256, num_attention_heads=8)
    assert fresh_student(teacher, hidden_size=128).config.num_attention_heads == 2
    student = fresh_student(teacher, hidden_size=128, num_attention_heads=4, intermediate_size=100)
    assert (student.config.num_attention_heads, student.config.intermediate_size) == (4, 100)
    with pytest.raises(ValueError, match="hidden_size=130 was asked of BertForSequenceClassification with 4 heads"):
        fresh_student(teacher, hidden_size=130, num_attention_heads=4)
    with pytest.raises(ValueError, match="width=3 was asked of BertForSequenceClassification: its configuration has"):
        fresh_student(teacher, width=3)


SIZES = dict(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24)


@pytest.mark.parametrize(
    ("auto", "config"),
    [
        (AutoModelForMaskedLM, BertConfig(vocab_size=40, **SIZES)),
        (
            AutoModelForCausalLM,
            GPT2Config(n_embd=16, n_layer=3, n_head=2, vocab_size=40, bos_token_id=1, eos_token_id=2),
        ),
        (AutoModelForCausalLM, LlamaConfig(vocab_size=40, num_key_value_heads=1, tie_word_embeddings=True, **SIZES)),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_a_tied_head_stays_tied_and_all_is_loaded(auto, config, tmp_path):
    student = fresh_student(auto.from_config(config), hidden_size=8, num_hidden_layers=2).eval()
    assert student.get_output_embeddings().weight is student.get_input_embeddings().weight
    student.save_pretrained(tmp_path)
    loaded, info = type(student).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    read = torch.tensor([[3, 4, 5]])
    assert torch.equal(loaded.eval()(read).logits, student(read).logits)
    assert student.config.hidden_size == 8


def test_what_is_said_layer_by_layer_follows():
    kinds = ["sliding_attention", "full_attention", "full_attention"]
    sizes = dict(SIZES, vocab_size=40, num_key_value_heads=2, sliding_window=4, layer_types=kinds)
    student = fresh_student(Qwen2ForCausalLM(Qwen2Config(**sizes)), num_hidden_layers=2)
    assert student.config.layer_types == ["sliding_attention", "full_attention"]


def test_an_encoder_and_its_decoder():
    teacher = tiny_language.t5(layers=3)
    student = fresh_student(teacher, num_layers=2, num_decoder_layers=1, d_ff=8)
    assert (len(student.encoder.block), len(student.decoder.block)) == (2, 1)
    assert torch.equal(student.shared.weight, teacher.shared.weight)
    assert student.encoder.embed_tokens.weight is student.shared.weight


def test_a_decoders_heads_and_inside_follow_its_width():
    sizes = dict(encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2)
    teacher = BartForConditionalGeneration(
        BartConfig(vocab_size=20, d_model=128, encoder_ffn_dim=64, decoder_ffn_dim=96, **sizes)
    )
    student = fresh_student(teacher, hidden_size=64).config
    assert (student.encoder_attention_heads, student.decoder_attention_heads) == (1, 1)
    assert (student.encoder_ffn_dim, student.decoder_ffn_dim) == (32, 48)
    asked = fresh_student(teacher, hidden_size=64, num_attention_heads=4, decoder_ffn_dim=7).config
    assert (asked.encoder_attention_heads, asked.decoder_attention_heads, asked.decoder_ffn_dim) == (4, 4, 7)


def test_the_seed_decides():
    teacher = tiny.bert()
    students = []
    for seed in (0, 0, 1):
        set_seed(seed)
        students.append(fresh_student(teacher, hidden_size=8).bert.encoder.layer[0].output.dense.weight)
    assert torch.equal(students[0], students[1])
    assert not torch.equal(students[0], students[2])


def test_a_wider_student_has_words_of_its_own():
    student = fresh_student(tiny.bert(width=16), hidden_size=32)
    assert student.config.distillation[0]["embeddings"] == "none"
    assert "its word embeddings were random." in lineage(student)[0]


def test_a_model_of_images_has_no_words_to_give():
    student = fresh_student(tiny_images.vit(layers=4), hidden_size=8, num_hidden_layers=2)
    assert (student.config.hidden_size, student.config.num_hidden_layers) == (8, 2)
    assert lineage(student) == [
        "It began as a random model of the kind of `ViTForImageClassification` (hidden_size 8, num_hidden_layers 2)."
    ]
    staged = fresh_student(tiny_images.resnet((2, 3)), depths=[1, 2])
    assert [len(stage.layers) for stage in staged.resnet.encoder.stages] == [1, 2]


def test_one_depth_is_not_asked_of_a_model_in_stages():
    with pytest.raises(ValueError, match=r"num_hidden_layers was asked of ConvNextFor.*=\[1, 1\]: give depths"):
        fresh_student(tiny_images.convnext(), num_hidden_layers=1)
