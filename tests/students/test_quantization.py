"""A student computes while it learns as its quantised copy will, and that is what its folder loads as."""

import copy
import json

import pytest
import tiny
import tiny_clip
import torch
from tiny_language import llama
from torch import nn
from transformers import AutoModelForSequenceClassification

from hf_distill import StudentQuantization
from hf_distill.students.prepared_layers import restore
from hf_distill.students.quantization import NAMES

EXACT = ("int8", "int8-int4", "int4", {"weights": "int2", "group_size": 16}, {"weights": "int8"}, {"weights": "int3"})
GROUPED = {"weights": "int8", "activations": "int8", "group_size": 8}


def bert(**changes):
    pytest.importorskip("torchao")
    return tiny.bert(width=32, **changes).eval()


def logits(model, ids=None):
    with torch.no_grad():
        return model(input_ids=torch.arange(5, 29).view(4, 6) if ids is None else ids).logits


@pytest.mark.parametrize("spec", [*EXACT, GROUPED], ids=str)
def test_a_prepared_model_gives_the_logits_of_the_converted_one(spec):
    model, asked = bert(), StudentQuantization.of(spec)
    plain, names = logits(model), set(model.state_dict())
    asked.prepare(model)
    assert set(model.state_dict()) == names
    prepared = logits(model)
    assert not torch.equal(prepared, plain)
    assert torch.equal(logits(asked.convert(model)), prepared)


@pytest.mark.parametrize("spec", ["int8", "int4"])
def test_a_folder_loads_quantised_with_the_same_digits(tmp_path, spec):
    model, asked = bert(), StudentQuantization.of(spec)
    asked.prepare(model)
    model.save_pretrained(tmp_path)
    into = asked.save(model, tmp_path)
    converted = logits(asked.convert(copy.deepcopy(model)))
    for options in ({"subfolder": "quantized"}, {"quantization_config": asked.transformers(model)}):
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, **options)
        assert torch.equal(logits(loaded), converted)
    assert torch.equal(logits(AutoModelForSequenceClassification.from_pretrained(into)), converted)
    assert (into / "model.safetensors").stat().st_size < 0.7 * (tmp_path / "model.safetensors").stat().st_size
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(logits(plain), logits(restore(model)))


def test_which_layers():
    model = bert()
    everything = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    assert StudentQuantization.of("int8").layers(model) == everything[:-1]
    assert everything[-1] == "classifier"
    assert StudentQuantization.of({"weights": "int8", "skip": []}).layers(model) == everything
    some = StudentQuantization.of({"weights": "int8", "skip": ["attention", "classifier"]}).layers(model)
    assert [name.rpartition("layer.0.")[2] for name in some] == [
        "intermediate.dense", "output.dense", "bert.pooler.dense",
    ]  # fmt: skip


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_of_a_language_model_stays(tmp_path, tied):
    pytest.importorskip("torchao")
    model, asked = llama(tie_word_embeddings=tied).eval(), StudentQuantization.of({"weights": "int4", "group_size": 8})
    layers = asked.prepare(model)
    assert layers
    assert not any("lm_head" in name for name in layers)
    model.save_pretrained(tmp_path)
    asked.save(model, tmp_path)
    ids = torch.arange(5, 11)[None]
    assert torch.equal(logits(type(model).from_pretrained(tmp_path, subfolder="quantized"), ids), logits(model, ids))


def test_a_parameter_of_the_model_itself_is_loaded_too(tmp_path):
    pytest.importorskip("torchao")
    model, asked = tiny_clip.model().eval(), StudentQuantization.of({"weights": "int4", "group_size": 8})
    asked.prepare(model)
    model.save_pretrained(tmp_path)
    asked.save(model, tmp_path)
    loaded, batch = type(model).from_pretrained(tmp_path, subfolder="quantized"), tiny_clip.batch(tiny_clip.pairs(2))
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits_per_image, model(**batch).logits_per_image)


def test_another_way_takes_the_place_of_the_first():
    model = bert()
    StudentQuantization.of("int4").prepare(model)
    StudentQuantization.of("int8").prepare(model)
    other = bert()
    StudentQuantization.of("int8").prepare(other)
    assert torch.equal(logits(model), logits(other))


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("int5", "is not known: use int8, int8-int4, int4, float8, or a mapping with weights"),
        ({"weights": "int4", "groups": 8}, "is not known"),
        (["int4"], "is not known"),
        ({"weights": "int1"}, "use weights of int2 to int8 with activations of int8 or None, or float8 for both"),
        ({"weights": "int4", "activations": "float8"}, "activations='float8': use weights of"),
        ({"weights": "float8"}, "use float8 for activations too"),
        ({"weights": "int4", "group_size": 1}, "group_size=1 for weights='int4': give how many weights"),
        ({"weights": "float8", "activations": "float8", "group_size": 32}, "null for a whole row, as float8 has it"),
        ({"weights": "int4", "skip": "classifier"}, "give a list of the names of layers"),
    ],
)
def test_a_wish_that_cannot_be_read_is_refused(spec, told):
    with pytest.raises(ValueError, match=told):
        StudentQuantization.of(spec)


def test_words_stand_for_mappings():
    assert all(StudentQuantization.of(word) == StudentQuantization.of(NAMES[word]) for word in NAMES)


@pytest.mark.parametrize(
    ("spec", "model", "told"),
    [
        ("int4", lambda: tiny.bert(width=16), r"groups of 32, into which .* \(16\), .* and 3 more cannot be cut: set "
         "group_size to 16, or name them in skip"),
        ({"weights": "int4", "skip": ["head"]}, bert, "skips head, which BertForSequenceClassification has no linear "
         "layer of: name layers that are there, such as .*, classifier"),
        ("int8", lambda: nn.Sequential(nn.Conv1d(1, 1, 1), nn.Linear(4, 4)), "Sequential, which has no linear layer "
         "to quantise beside 1: leave it out, or set skip to fewer layers"),
        ({"weights": "int8", "skip": []}, lambda: llama(tie_word_embeddings=True), r"asked for lm_head "
         r"\(model.embed_tokens\), whose weights are those of the module in brackets too"),
        ("float8", bert, "needs a GPU that multiplies float8"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_quantised_is_refused(spec, model, told):
    pytest.importorskip("torchao")
    with pytest.raises(ValueError, match=told):
        StudentQuantization.of(spec).prepare(model())


def test_without_torchao_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'which is not installed: pip install "hf_distill\[torchao\]"'):
        StudentQuantization.of("int8").prepare(tiny.bert())
