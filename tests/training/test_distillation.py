import logging

import pytest
import tiny
import torch

from hf_distill import Term
from hf_distill.signals import Sum


class Distance(Term):
    """The squared distance of logits, which counts rows as it is told."""

    needs = frozenset({"heads"})

    def __init__(self, count):
        super().__init__()
        self.count = count

    def forward(self, student, teacher, batch):
        ours, theirs = (shown.heads["logits"].logits.tensor for shown in (student, teacher))
        gap = (ours - theirs).square().sum(-1)
        return Sum(gap.sum(), torch.tensor(self.count(len(gap))))


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (lambda rows: rows, []),
        (lambda rows: 1, ["The term Distance counted 7 fewer than the rows of its batches"]),
        (lambda rows: rows + 2, ["The term Distance counted 2 more than the rows of its batches"]),
    ],
    ids=["right", "a mean", "more"],
)
def test_a_term_that_counts_otherwise_than_it_is_divided_by_is_told_once(tmp_path, caplog, count, told):
    run = tiny.trainer(
        tmp_path,
        teacher_model=tiny.teacher(),
        objective=Distance(count),
        args={"per_device_train_batch_size": 8, "max_steps": 3},
    )
    with caplog.at_level(logging.WARNING, "hf_distill"):
        run.train()
    found = [one.getMessage() for one in caplog.records if "counted" in one.getMessage()]
    assert len(found) == len(told)
    assert all(one.startswith(start) for one, start in zip(found, told, strict=True))
