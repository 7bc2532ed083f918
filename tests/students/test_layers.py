"""Students from their teacher's layers."""

import copy

import pytest
import tiny
import tiny_language
import torch
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AutoModelForSequenceClassification,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    DistilBertConfig,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    JambaConfig,
    JambaForCausalLM,
    LlamaConfig,
    ModernBertConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from hf_distill.students import keep_layers, lineage


def test_the_kept_layers_are_copies_in_order(tmp_path):
    teacher = tiny.bert(layers=4).requires_grad_(False)
    before = copy.deepcopy(teacher.state_dict())
    student = keep_layers(teacher, [0, 2, 3])
    for new, old in enumerate([0, 2, 3]):
        ours, theirs = student.bert.encoder.layer[new].state_dict(), teacher.bert.encoder.layer[old].state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(p.requires_grad for p in student.parameters())
    with torch.no_grad():
        for p in student.parameters():
            p.add_(1.0)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    student.save_pretrained(tmp_path)
    loaded, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert loaded.config.num_hidden_layers == 3


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (2, [0, 11]), (4, [0, 4, 7, 11]), (12, list(range(12)))])
def test_a_number_of_layers_is_spread_evenly(count, expected):
    teacher = tiny.bert(layers=12)
    student = keep_layers(teacher, count)

    def same(one, other):
        return torch.equal(one.output.dense.weight, other.output.dense.weight)

    layers = teacher.bert.encoder.layer
    kept = [next(i for i in range(12) if same(layers[i], new)) for new in student.bert.encoder.layer]
    assert kept == expected


def test_all_layers_are_the_teacher_itself():
    teacher = tiny.bert(layers=3).eval()
    inputs = {"input_ids": torch.tensor([[1, 2, 3]])}
    assert torch.equal(keep_layers(teacher, 3).eval()(**inputs).logits, teacher(**inputs).logits)


SMALL = dict(vocab_size=32, pad_token_id=0)
LLAMA = dict(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16)
CONFIGS = [
    DistilBertConfig(dim=16, n_layers=4, n_heads=2, hidden_dim=16, **SMALL),
    GPT2Config(n_embd=16, n_layer=4, n_head=2, **SMALL),
    LlamaConfig(**LLAMA, **SMALL),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_other_architectures(config):
    student = keep_layers(AutoModelForSequenceClassification.from_config(config), 2).eval()
    assert student.config.num_hidden_layers == 2
    cache = {} if config.model_type == "distilbert" else {"use_cache": True}  # decoders count their layers for it
    assert student(input_ids=torch.tensor([[1, 2, 3]]), **cache).logits.isfinite().all()
    assert student(input_ids=torch.tensor([[1, 2, 3]])).logits.shape == (1, 2)


@pytest.mark.parametrize("layers", [0, 5, [], [4], [1, 1], [2, 0], [-1, 0]])
def test_layers_that_are_not_there_are_refused(layers):
    with pytest.raises(ValueError, match="were asked of a model with 4"):
        keep_layers(tiny.bert(layers=4), layers)


@pytest.mark.parametrize(("preset", "expected"), [("uniform", [0, 2, 5]), ("top", [3, 4, 5]), ("lowest", [0, 1, 2])])
def test_presets(preset, expected):
    teacher = tiny.bert(layers=6)
    student = keep_layers(teacher, 3, preset=preset)
    assert student.config.distillation[0]["layers"] == expected
    for new, old in enumerate(expected):
        ours, theirs = student.bert.encoder.layer[new], teacher.bert.encoder.layer[old]
        assert torch.equal(ours.output.dense.weight, theirs.output.dense.weight)


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="preset='odd' was asked for: use uniform, top, lowest"):
        keep_layers(tiny.bert(layers=2), 1, preset="odd")


def bart(encoder=4, decoder=4):
    torch.manual_seed(0)
    sizes = dict(encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16)
    made = BartConfig(
        vocab_size=32, d_model=16, encoder_layers=encoder, decoder_layers=decoder, init_std=0.5, dropout=0.0,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2, **sizes,
    )  # fmt: skip
    return BartForConditionalGeneration(made)


def whisper():
    torch.manual_seed(0)
    return WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=32, d_model=16, encoder_layers=4, decoder_layers=4, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, num_mel_bins=8, init_std=0.3,
            max_source_positions=8, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2,
        )
    )  # fmt: skip


def t5():
    return tiny_language.t5(layers=4)


def written(model):
    read = (
        torch.arange(128.0).view(1, 8, 16).sin()
        if hasattr(model.config, "num_mel_bins")
        else torch.tensor([[5, 6, 7]])
    )
    with torch.no_grad():
        return model.eval()(read, decoder_input_ids=torch.tensor([[2, 9, 8]])).logits


@pytest.mark.parametrize("make", [bart, t5, whisper])
def test_encoder_decoders(make, tmp_path):
    teacher = make()
    assert torch.equal(written(keep_layers(teacher, [0, 1, 2, 3])), written(teacher))
    student = keep_layers(teacher, [1, 3], decoder_layers=1)
    step = student.config.distillation[0]
    assert (step["layers"], step["decoder_layers"]) == ([1, 3], [0])
    shown = written(student)
    assert not torch.allclose(shown, written(teacher))
    student.save_pretrained(tmp_path)
    loaded, info = type(student).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(written(loaded), shown)
    assert keep_layers(teacher, 2).config.distillation[0]["decoder_layers"] == [0, 3]
    student.generate(
        torch.zeros(1, 8, 16) if make is whisper else torch.tensor([[5, 6]]), max_new_tokens=3, use_cache=True
    )


def test_the_table_of_positions_of_t5_goes_to_the_new_first_block():
    teacher = t5()
    student = keep_layers(teacher, [2], decoder_layers=[1, 3])
    for name in ("encoder", "decoder"):
        ours, theirs = (
            getattr(m, name).block[0].layer[0].SelfAttention.relative_attention_bias.weight for m in (student, teacher)
        )
        assert torch.equal(ours, theirs)
        assert ours is not theirs


def test_depths_that_differ_need_two_choices():
    with pytest.raises(ValueError, match="encoder has 2 layers and whose decoder has 3: say with decoder_layers"):
        keep_layers(bart(2, 3), 1)
    for whole in (2, None):
        student = keep_layers(bart(2, 3), whole, decoder_layers=1)
        assert (student.config.encoder_layers, student.config.decoder_layers) == (2, 1)
    with pytest.raises(ValueError, match="decoder_layers=1 was asked of BertForSequenceClassification, which has one"):
        keep_layers(tiny.bert(layers=2), 1, decoder_layers=1)
    with pytest.raises(ValueError, match="4 layers were asked of a model's decoder with 3: ask for 1 to 3"):
        keep_layers(bart(2, 3), 1, decoder_layers=4)


def test_an_encoder_and_a_decoder_of_other_makers():
    parts = BertConfig(**LLAMA, **SMALL), BertConfig(**LLAMA, **SMALL)
    config = EncoderDecoderConfig.from_encoder_decoder_configs(*parts)
    config.decoder_start_token_id, config.pad_token_id = 1, 0
    teacher = EncoderDecoderModel(config)
    student = keep_layers(teacher, 3, decoder_layers=1)
    assert (student.config.encoder.num_hidden_layers, student.config.decoder.num_hidden_layers) == (3, 1)
    assert len(student.encoder.encoder.layer) == 3
    assert written(student).isfinite().all()


def test_one_layer_that_is_passed_several_times(tmp_path):
    sizes = dict(embedding_size=8, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16)
    teacher = AlbertForSequenceClassification(AlbertConfig(initializer_range=0.5, **sizes, **SMALL)).eval()
    read = torch.tensor([[3, 4, 5]])
    assert torch.equal(keep_layers(teacher, 4).eval()(read).logits, teacher(read).logits)
    student = keep_layers(teacher, 2).eval()
    deep = teacher.albert(read, output_hidden_states=True).hidden_states
    assert torch.equal(student.albert(read).last_hidden_state, deep[2])
    student.save_pretrained(tmp_path)
    again = AlbertForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(again(read).logits, student(read).logits)
    assert lineage(student) == ["The one layer of `AlbertForSequenceClassification` is passed 2 times."]


def test_what_a_configuration_says_layer_by_layer():
    kinds = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    wide = dict(LLAMA, num_key_value_heads=2, sliding_window=4, max_window_layers=3)
    student = keep_layers(Qwen2ForCausalLM(Qwen2Config(layer_types=kinds, **wide, **SMALL)), [0, 1, 3])
    assert student.config.layer_types == [kinds[0], kinds[1], kinds[3]]
    assert student.config.max_window_layers == 2  # of the first three, two are left
    assert [layer.self_attn.layer_idx for layer in student.model.layers] == [0, 1, 2]
    heads = dict(q_lora_rank=8, kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8)
    routed = dict(n_routed_experts=2, num_experts_per_tok=1, n_group=1, topk_group=1, moe_intermediate_size=8)
    sparse = DeepseekV3Config(first_k_dense_replace=3, **heads, **routed, **LLAMA, **SMALL)
    assert keep_layers(DeepseekV3ForCausalLM(sparse), [0, 1, 3]).config.first_k_dense_replace == 2
    runs = dict(hidden_size=16, num_layers=4, num_heads=2, attention_types=[[["global", "local"], 2]])
    student = keep_layers(GPTNeoForCausalLM(GPTNeoConfig(**runs, **SMALL)), [0, 2, 3])
    assert student.config.attention_types == [[["global", "global", "local"], 1]]
    assert GPTNeoConfig.from_dict(student.config.to_dict()).attention_layers == ["global", "global", "local"]
    experts = dict(wide, num_experts=4, num_experts_per_tok=1, moe_intermediate_size=8, mlp_only_layers=[0, 3])
    student = keep_layers(Qwen3MoeForCausalLM(Qwen3MoeConfig(**experts, **SMALL)), [1, 3])
    assert student.config.mlp_only_layers == [1]
    assert type(student.model.layers[1].mlp).__name__ == "Qwen3MoeMLP"


def test_tables_that_a_class_builds_for_kinds_that_are_gone_are_no_weights():
    kinds = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    sizes = dict(LLAMA, layer_types=kinds, cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2)
    teacher = AutoModelForSequenceClassification.from_config(ModernBertConfig(**sizes, **SMALL)).eval()
    student = keep_layers(teacher, [0, 3]).eval()
    assert student.config.layer_types == ["full_attention", "full_attention"]
    assert student(input_ids=torch.tensor([[3, 4, 5]])).logits.isfinite().all()


def test_a_layer_whose_kind_follows_from_its_place_is_refused():
    sizes = dict(LLAMA, num_key_value_heads=2, attn_layer_period=2, attn_layer_offset=1, use_mamba_kernels=False)
    jamba = JambaForCausalLM(JambaConfig(**sizes, num_experts=2, num_experts_per_tok=1, mamba_dt_rank=4, **SMALL))
    keep_layers(jamba, [0, 1])
    with pytest.raises(ValueError, match=r"its class builds a layer by its position, and .* keep other layers, whose"):
        keep_layers(jamba, [1, 2])


def test_what_was_set_by_hand_in_the_teacher_stays():
    teacher = tiny.bert(layers=3)
    teacher.dropout.p = 0.7
    teacher.bert.encoder.layer[2].intermediate.note = "mine"
    student = keep_layers(teacher, [0, 2])
    assert student.dropout.p == 0.7
    assert student.bert.encoder.layer[1].intermediate.note == "mine"


def test_nothing_is_drawn_from_the_random_generator():
    teacher = tiny.bert(layers=3)
    state = torch.get_rng_state()
    keep_layers(teacher, 2)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_precision_and_attention_are_the_teachers(dtype):
    teacher = tiny.bert(layers=3, attn_implementation="eager").to(dtype)
    student = keep_layers(teacher, 2)
    assert student.dtype == dtype
    assert student.config._attn_implementation == "eager"
    assert student.bert.encoder.layer[0].attention.self.config is student.config
