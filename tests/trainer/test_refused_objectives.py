"""An objective that the two models cannot be compared by is refused in one sentence, when the trainer is made."""

import pytest
import tiny
import torch
from transformers import FNetConfig, FNetForSequenceClassification

LAYERS = "hidden_mse"


def look_up(batch):
    return torch.zeros(len(batch["input_ids"]), 3)


def fnet():
    """A model that mixes its tokens without attention."""
    torch.manual_seed(0)
    sizes = dict(vocab_size=32, hidden_size=16, num_hidden_layers=2, intermediate_size=32, max_position_embeddings=32)
    return FNetForSequenceClassification(FNetConfig(num_labels=3, tpu_short_seq_length=32, **sizes))


@pytest.mark.parametrize(
    ("objective", "teacher", "message"),
    [
        ({LAYERS: {"layers": {1: 9}}}, tiny.teacher, r"layer 9 of the teacher .* was asked for by hidden_mse, .* 0 "),
        ({LAYERS: {"layers": {4: 1}}}, tiny.teacher, r"layer 4 of the student .* was asked for by hidden_mse"),
        ({"minilm": {"layers": {0: 1}}}, tiny.teacher, r"layer 0 of the student .* it has the layers 1 to 1"),
        ({LAYERS: {"layers": "skip"}}, lambda: tiny.bert(layers=0), r"needs a teacher at least as deep"),
        ("attention_kl", fnet, r"attention maps were asked of the teacher .*, which gives none: use terms on hidden"),
        ({"minilm": {"relation_heads": 5}}, tiny.teacher, r"relation_heads=5 .*does not divide the width 16 of"),
        ("minilm", fnet, r"no projections of a known name were found"),
        ("minilm_v1", lambda: tiny.teacher(num_attention_heads=3), r"has 2 heads and the teacher .* 3: use minilm"),
        (
            {"tap_mse": {"path": "bert.nothing"}},
            tiny.teacher,
            r"no module of that path: name one of its",
        ),
        ("hidden_mse", lambda: look_up, r"needs \['hidden'\], the teacher look_up serves \['heads'\]: choose terms"),
        ("attention_mse", lambda: look_up, r"needs \['attention'\], the teacher look_up serves \['heads'\]"),
        ({"tap_mse": {"path": "bert.pooler"}}, lambda: look_up, r"needs \['tap:bert.pooler'\], the teacher look_up"),
    ],
)
def test_it_is_refused_at_construction(tmp_path, objective, teacher, message):
    with pytest.raises(ValueError, match=message) as caught:
        tiny.trainer(tmp_path, objective=objective, teacher_model=teacher())
    sentence, *drawn = str(caught.value).split("\n")
    assert sentence.endswith(".")
    assert [line.split()[0] for line in drawn] in (
        [],
        ["student", "teacher"],
    )  # the two stacks, where layers are meant
