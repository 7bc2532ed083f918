"""Two models of a task that says nothing of its own about them."""

import pytest
import torch

from hf_distill import DenseLogits, Head, Signals, Sum, Task


class Plain(Task):
    auto_class, pipeline_tag = "AutoModel", "none"

    @classmethod
    def from_model(cls, model):
        return None

    def rows(self, batch):
        return torch.ones(len(batch["x"]), dtype=torch.bool)

    def labels(self, batch):
        return None

    def hard(self, outputs, batch):
        return Sum(outputs.sum(), torch.tensor(1))

    def signals(self, model, batch, outputs, captured=None):
        return Signals({"logits": Head(DenseLogits(outputs), self.rows(batch))})


def test_heads_of_one_shape_are_compared_as_they_are_and_others_are_refused():
    task, batch = Plain(), {"x": torch.zeros(2, 3)}
    ours, theirs, other = (task.signals(None, batch, torch.zeros(2, n)) for n in (4, 4, 5))
    assert task.match(ours, theirs, batch)[1].heads == theirs.heads
    with pytest.raises(ValueError, match=r"the teacher gave logits of shape \[2, 5\], the student \[2, 4\]"):
        task.match(ours, other, batch)
    with pytest.raises(ValueError, match="the teacher gave logits of shape none"):
        task.match(ours, Signals({"another": theirs.heads["logits"]}), batch)
