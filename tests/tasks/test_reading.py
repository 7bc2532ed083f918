"""What a student's forward names of its teacher: read from words, taken out of Signals, refused in one sentence."""

import pytest
import torch
from torch import nn

from hf_distill import DenseLogits, Head, SequenceClassification, Signals, Value
from hf_distill.signals import Stream
from hf_distill.tasks.reading import Place, TeacherReading

MULTI = "multi_label_classification"
STATES = tuple(torch.full((2, 3, 4), float(i)) for i in range(3))
MASK = torch.tensor([[True, True, True], [True, False, False]])
SHOWN = Signals(
    {"logits": Head(DenseLogits(torch.arange(6.0).view(2, 3)), torch.ones(2, dtype=torch.bool))},
    hidden=STATES,
    attention=(torch.ones(2, 1, 3, 3),),
    taps={"encoder.layer.0": torch.ones(2, 5)},
    mask=MASK,
    streams={"vision": Stream(hidden=(torch.full((2, 7, 6), 9.0),))},
    values={"depth": Value(torch.ones(2, 3, 1), MASK)},
    vectors={"image": torch.full((2, 8), 2.0)},
)


class Told(nn.Linear):
    def __init__(self):
        super().__init__(2, 2)

    def forward(self, input, told, hint=None): ...


@pytest.mark.parametrize(
    ("words", "need", "shape", "first"),
    [
        ("hidden[-1]", "hidden", (2, 3, 4), 2.0),
        ("hidden[0]", "hidden", (2, 3, 4), 0.0),
        ("attention[0]", "attention", (2, 1, 3, 3), 1.0),
        ("logits", "heads", (2, 3), 0.0),
        ("heads[logits]", "heads", (2, 3), 0.0),
        ("vectors[image]", "vectors", (2, 8), 2.0),
        ("values[depth]", "values", (2, 3, 1), 1.0),
        ("taps[encoder.layer.0]", "tap:encoder.layer.0", (2, 5), 1.0),
        ("streams[vision][-1]", "hidden:vision", (2, 7, 6), 9.0),
        ("streams[text][1]", "hidden", (2, 3, 4), 1.0),
    ],
)
def test_a_part_of_what_a_teacher_shows_is_named_in_words(words, need, shape, first):
    place = Place.of(words, "a test reads")
    assert place.need(("text", "vision")) == need
    assert place._replace(who="big").need(("text", "vision")) == f"{need}@big"
    found = place.take(SHOWN, SequenceClassification(3))
    assert found.shape == shape
    assert found.flatten()[0] == first
    assert (
        Place.of(f"{words}@big", "").take(Signals({}, named={"big": SHOWN}), SequenceClassification(3)).shape == shape
    )


def test_what_stands_at_padding_is_zero():
    shown = Place.of("hidden[2]", "").take(SHOWN, SequenceClassification(3))
    assert shown[..., 0].tolist() == [[2.0, 2.0, 2.0], [2.0, 0.0, 0.0]]


def test_several_classes_a_sample_are_one_logit_each():
    logits = torch.tensor([[0.5, -1.0]])
    pairs = torch.stack((torch.zeros_like(logits), logits), dim=-1)
    shown = Signals({"logits": Head(DenseLogits(pairs), torch.ones(1, 2, dtype=torch.bool))})
    assert torch.equal(Place.of("logits", "").take(shown, SequenceClassification(2, MULTI)), logits)


@pytest.mark.parametrize(
    "words", ["hidden", "hidden[a]", "hidden[1][2]", "state[1]", "vectors", "streams[vision]", "logits[0]", "", 3]
)
def test_words_that_name_nothing_are_refused(words):
    with pytest.raises(ValueError, match=r"reads_teacher gives told .*, which is nothing that a teacher shows: use"):
        TeacherReading({"told": words})


def test_a_place_is_written_as_it_was_named():
    for words in ("hidden[-1]@big", "logits", "heads[start]", "streams[vision][2]", "vectors[image]"):
        assert str(Place.of(words, "")) == words


def test_what_is_read_has_the_students_dtype():
    given = TeacherReading({"told": "hidden[1]"}).given(SHOWN, SequenceClassification(3), Told().bfloat16())
    assert given["told"].dtype == torch.bfloat16


def test_the_argument_comes_before_the_students_own_word():
    student = Told()
    student.reads_teacher = {"told": "hidden[1]"}
    args = type("Args", (), {"reads_teacher": {"hint": "logits"}})
    assert str(TeacherReading.of(args, student)) == "logits"
    assert str(TeacherReading.of(None, student)) == "hidden[1]"
    assert TeacherReading.of(None, Told()) is None
    assert TeacherReading({"told": "logits", "hint": "logits"}).required(student) == ["told"]


def test_a_forward_must_name_what_it_reads():
    student = Told()
    student.reads_teacher = {"tolt": "hidden[1]"}
    with pytest.raises(ValueError, match=r"gives Told tolt, its forward takes input, told, hint: name one of these"):
        TeacherReading.of(None, student)
