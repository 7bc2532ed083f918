import pytest
import tiny
import torch

from hf_distill.tasks import CausalLM, SequenceClassification
from hf_distill.tasks.batches import take
from hf_distill.tasks.layout import LAYOUT, Layout, without_layout


class Asked(SequenceClassification):
    """Writes down what it is asked."""

    def __init__(self):
        super().__init__(num_labels=3, problem_type="single_label_classification")
        self.asked = []

    def rows(self, batch):
        self.asked.append("rows")
        return super().rows(batch)

    def mask(self, batch):
        self.asked.append("mask")
        return super().mask(batch)


BATCH = {"input_ids": torch.ones(2, 5, dtype=torch.long), "labels": torch.tensor([1, -100])}


def test_each_thing_is_worked_out_once_and_nothing_that_nobody_asks_for():
    task = Asked()
    batch = {**BATCH, LAYOUT: task.layout(BATCH)}
    assert task.asked == []
    for _ in range(2):
        assert task.layout(batch).rows.tolist() == [True, True]
        assert task.layout(batch).labels.tolist() == [True, False]
    assert task.asked == ["rows"]


def test_another_task_and_other_rows_have_a_layout_of_their_own():
    task, other = Asked(), SequenceClassification(num_labels=3)
    batch = {**BATCH, LAYOUT: task.layout(BATCH)}
    assert other.layout(batch) is not batch[LAYOUT]
    assert LAYOUT not in take(batch, [0])
    assert task.layout(take(batch, [1])).labels.tolist() == [False]


def test_a_layout_does_not_hold_the_batch_that_holds_it():
    batch = dict(BATCH)
    batch[LAYOUT] = CausalLM().layout(batch)
    assert LAYOUT not in batch[LAYOUT]._columns
    assert without_layout(batch).keys() == BATCH.keys()


def test_units_stand_in_the_order_asked():
    layout = Layout(Asked(), BATCH)
    assert layout.units(("tokens", "labels", "rows")).tolist() == [10, 1, 2]


@pytest.mark.parametrize("cache", ["auto", "off"])
def test_neither_the_student_nor_a_function_that_teaches_is_given_it(tmp_path, cache):
    seen = []

    def teach(batch):
        seen.append(set(batch))
        return torch.zeros(len(batch["input_ids"]), 3)

    run = tiny.trainer(tmp_path, teacher_model=teach, args={"teacher_cache": cache})
    run.model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(set(kwargs)), with_kwargs=True)
    run.train()
    run.evaluate(tiny.rows(4))
    assert seen
    assert not any(LAYOUT in names for names in seen)
