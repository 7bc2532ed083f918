"""Of which layers a model's are copies: composed over the steps in which it was made, and only where it is known."""

import pytest
import tiny
from transformers import AlbertConfig, AlbertModel, BartConfig, BartForConditionalGeneration, CLIPConfig, CLIPModel

from hf_distill.models.copies import copied_layers
from hf_distill.models.facts import Facts
from hf_distill.students import fresh_student, keep_layers, trim_vocabulary


def kept(*layers, **more):
    return {"step": "keep_layers", "layers": list(layers), **more}


UNKNOWN = None, None


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], UNKNOWN),
        ([kept(1, 3, depth=4)], ((1, 3), 4)),
        ([kept(1, 3)], ((1, 3), None)),  # of an earlier version
        ([kept(0, 2, 5, depth=6), kept(1, 2, depth=3)], ((2, 5), 6)),
        ([kept(0, 2, 5, depth=6), {"step": "shrink_width"}, kept(0, 1, depth=3)], ((0, 2), 6)),
        ([{"step": "shrink_width"}, kept(0, 3, depth=4)], ((0, 3), 4)),
        ([{"step": "trim_vocabulary"}], ((0, 1), 2)),
        ([kept(0, 2, 5, depth=6)], UNKNOWN),  # the model has two layers: somebody changed it afterwards
        ([kept(0, depth=6), kept(0, 1, depth=2)], UNKNOWN),
        ([kept(0, 1, depth=2), {"step": "fresh_student"}], UNKNOWN),
        ([{"step": "fresh_student"}, kept(0, 2, depth=3)], ((0, 2), 3)),
        ([kept(0, 1, depth=2), {"step": "dreamt"}], UNKNOWN),
        ([{"step": "keep_layers"}], UNKNOWN),
        ([kept("0", "1")], UNKNOWN),
        ([kept(0, 1, depth=6, shared=True)], UNKNOWN),
    ],
)
def test_steps_are_composed(steps, expected):
    assert copied_layers(steps, None, 2) == expected


def test_a_copy_of_a_copy_finds_its_layers_in_either_and_in_a_model_as_deep():
    teacher = tiny.bert(layers=6)
    first = keep_layers(teacher, 3)
    second, _ = trim_vocabulary(keep_layers(first, [1, 2]), tiny.tokenizer(), ["w1 w2"])
    of = Facts.of(second)
    assert (of.copies, of.copied_from) == ((2, 5), 6)
    assert of.origins(Facts.of(teacher)) == of.origins(Facts.of(tiny.bert(width=24, layers=6, seed=3))) == (2, 5)
    assert of.origins(Facts.of(first)) == (1, 2)
    assert of.origins(Facts.of(tiny.bert(layers=4))) is None
    assert Facts.of(teacher).origins(of) is None
    assert Facts.of(fresh_student(first, num_hidden_layers=3)).origins(Facts.of(first)) is None


def test_a_student_of_another_model_that_is_as_deep_as_a_copy():
    teacher, base = keep_layers(tiny.bert(layers=4), [0, 3]), tiny.bert(layers=2)
    assert Facts.of(keep_layers(base, [1])).origins(Facts.of(teacher)) == (1,)


def test_where_the_depth_was_not_written_down_the_layers_must_be_there():
    of = Facts(num_layers=2, copies=(1, 3))
    assert of.origins(Facts(num_layers=4)) == of.origins(Facts(num_layers=6)) == (1, 3)
    assert of.origins(Facts(num_layers=3)) is None


def test_an_encoder_decoder_has_copies_on_both_sides():
    sizes = {"d_model": 8, "encoder_attention_heads": 1, "decoder_attention_heads": 1, "vocab_size": 9}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    deep = BartConfig(encoder_layers=4, decoder_layers=3, encoder_ffn_dim=8, decoder_ffn_dim=8, **sizes, **ids)
    teacher = BartForConditionalGeneration(deep)
    of, whole = Facts.of(keep_layers(teacher, [0, 3], decoder_layers=[2])), Facts.of(teacher)
    assert of.origins(whole) == of.stream("decoder").origins(whole.stream("decoder")) == (2,)
    assert of.stream("encoder").origins(whole.stream("encoder")) == (0, 3)


def test_a_tower_that_was_left_whole_is_a_copy_of_itself():
    sizes = {"num_hidden_layers": 3, "num_attention_heads": 1, "intermediate_size": 8, "hidden_size": 8}
    text = {"vocab_size": 9, "bos_token_id": 1, "eos_token_id": 2, **sizes}
    teacher = CLIPModel(CLIPConfig(text_config=text, vision_config={"image_size": 8, "patch_size": 4, **sizes}))
    whole = Facts.of(teacher)
    for vision, expected in ((None, (0, 1, 2)), ([0, 2], (0, 2))):
        of = Facts.of(keep_layers(teacher, [2], vision_layers=vision))
        assert of.stream("vision").origins(whole.stream("vision")) == expected
        assert of.origins(whole) == of.stream("text").origins(whole.stream("text")) == (2,)


def test_the_stages_of_a_model_stay_and_one_layer_passed_several_times_is_no_copy_of_one():
    assert copied_layers([kept([0], [0, 2], depth=[2, 3])], "encoder", 2) == ((0, 1), 2)
    albert = AlbertConfig(hidden_size=8, num_hidden_layers=4, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    assert Facts.of(keep_layers(AlbertModel(albert), 2)).copies is None
