import numpy as np
import pytest
import torch

from hf_distill.models.hooks import LINEAR
from hf_distill.signals import Signals
from hf_distill.teachers import Teacher
from hf_distill.training.shared_answers import Answer, SharedAnswers, same
from hf_distill.training.turns import Turns

HEADS, BOTH = frozenset({"heads"}), frozenset({"heads", "hidden"})


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (torch.ones(2), torch.ones(2), True),
        (torch.ones(2), torch.ones(2, dtype=torch.int64), False),
        (torch.ones(2), torch.tensor([1.0, 2.0]), False),
        (np.ones(2), np.ones(2), True),
        (np.ones(2), np.zeros(2), False),
        ([{"boxes": torch.ones(2)}], [{"boxes": torch.ones(2)}], True),
        ([{"boxes": torch.ones(2)}], [{"boxes": torch.zeros(2)}], False),
        ([1, 2], [1], False),
        ({"a": 1}, {"b": 1}, False),
        ("a", "a", True),
        (1, 1.0, False),
    ],
)
def test_values_of_a_batch_are_compared_whatever_they_are(one, other, equal):
    assert same(one, other) is equal


def test_an_answer_serves_the_same_question_only():
    ids, read = torch.ones(2, 3), frozenset({"input_ids"})
    kept = Answer({"input_ids": ids, "labels": torch.zeros(2)}, BOTH, Signals({}))
    assert kept.serves({"input_ids": ids.clone(), "labels": torch.zeros(2)}, HEADS, read)
    assert kept.serves({"input_ids": ids, "labels": torch.zeros(2), "token_type_ids": ids}, HEADS, read)
    assert not kept.serves({"input_ids": ids, "labels": torch.ones(2)}, HEADS, read)
    assert not kept.serves({"input_ids": ids + 1, "labels": torch.zeros(2)}, HEADS, read)
    assert not kept.serves({"labels": torch.zeros(2)}, HEADS, read)  # what the teacher reads
    assert not kept.serves({"input_ids": ids, "labels": torch.zeros(2)}, BOTH | {"attention"}, read)
    assert not kept.serves({"input_ids": ids, "labels": torch.zeros(2)}, HEADS | {LINEAR}, read)  # another form


class Counting(Teacher):
    """Answers with how often it was asked."""

    columns = frozenset({"input_ids"})

    def __init__(self):
        self.asked = []

    def __call__(self, batch, needs):
        self.asked.append((batch["input_ids"], needs))
        return Signals({})


@pytest.mark.parametrize(("others", "asked", "given"), [([1, 2, 3], [3, 0], [0, 3]), ([1, 9, 3], [3, 1], [0, 2])])
def test_a_teacher_is_asked_once_for_what_all_need_and_again_for_another_batch(others, asked, given):
    turns, teacher = Turns(2), Counting()
    shared = SharedAnswers(turns, [lambda: HEADS, lambda: BOTH])

    def training(number, batches, needs):
        return [shared.answer(number, teacher, {"input_ids": b}, needs, step) for step, b in enumerate(batches)]

    found = turns.run([lambda: training(0, [1, 2, 3], HEADS), lambda: training(1, others, BOTH)])
    assert {needs for _, needs in teacher.asked} == {BOTH}
    assert (shared.asked, shared.given) == (asked, given)
    assert [one is other for one, other in zip(*found, strict=True)] == [batch < 9 for batch in others]
    assert not shared._answers or len(shared._answers) == 1  # the last one; every other one is forgotten


def test_several_questions_at_a_step_and_a_training_that_asks_more_are_kept_apart():
    """The one evaluates at step 1, with a batch of its own; from step 2 on they agree again."""
    turns, teacher = Turns(2), Counting()
    shared = SharedAnswers(turns, [lambda: HEADS] * 2)

    def training(number, questions):
        for step, batch in questions:
            shared.answer(number, teacher, {"input_ids": batch}, HEADS, step)

    one = [(0, 1), (0, 2), (1, 7), (1, 3), (2, 4)]
    other = [(0, 1), (0, 2), (1, 3), (2, 4)]
    turns.run([lambda: training(0, one), lambda: training(1, other)])
    assert [batch for batch, _ in teacher.asked] == [1, 2, 7, 3, 3, 4]


def test_who_draws_first_draws_for_all_but_what_one_alone_reads():
    shared = SharedAnswers(Turns(2), [lambda: HEADS] * 2)
    first = [{"input_ids": 1, "own": 5}]
    assert shared.draw(0, 0, first, 10) == 10
    first[0]["input_ids"] = 3  # what is done to it afterwards is its own
    second = [{"input_ids": 2, "types": 6}]
    assert shared.draw(1, 0, second, 11) == 10
    assert second == [{"input_ids": 1, "types": 6}]
    assert shared.draw(0, 0, [], 0) == shared.draw(1, 0, [], 1) == 0  # an epoch of unknown length ends between steps
