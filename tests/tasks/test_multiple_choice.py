"""Multiple choice: a row is a question, and each of its texts is a row of the hidden states."""

import pytest
import tiny
import tiny_tasks
import torch
from tiny_tasks import CASES

from hf_distill import MultipleChoice
from hf_distill.models.facts import Facts
from hf_distill.objectives import build
from hf_distill.tasks import Task

CHOICE = CASES["choice"]


def test_models_are_found_by_their_class():
    assert type(Task.of(CHOICE.model())) is MultipleChoice
    own = CHOICE.model()
    assert not Task.of(own).own_loss

    class Mine(CHOICE.kind):
        def forward(self, input_ids=None, attention_mask=None, labels=None):
            return super().forward(input_ids, attention_mask, labels=labels)

    own.__class__ = Mine
    assert Task.of(own).own_loss
    assert Task.of(own).hard(None, {}) is None


def test_the_hard_loss_is_the_models_own():
    model, batch = CHOICE.model().eval(), CHOICE.batch()
    outputs, task = model(**batch), Task.of(model)
    total, count = task.hard(outputs, batch)
    assert count == task.counts(batch)["labels"] == 5
    assert (total / count).item() == pytest.approx(outputs.loss.item(), rel=1e-6)


def test_the_gradient_is_zero_exactly_where_no_label_counts():
    batch, logits = CHOICE.batch(), torch.randn(6, 4, requires_grad=True)
    MultipleChoice().hard({"logits": logits}, batch).total.backward()
    assert torch.equal((logits.grad != 0).all(-1), batch["labels"] != -100)
    assert (logits.grad[2] == 0).all()


def test_hidden_states_are_those_of_each_text():
    """What a term makes of questions is what it makes of the same texts by themselves."""
    models, batch = (CHOICE.model().eval(), CHOICE.model(seed=5).eval()), CHOICE.batch()
    flat = {n: batch[n].flatten(0, 1) for n in ("input_ids", "attention_mask")}
    shown = [
        MultipleChoice().signals(model, batch, model(**batch, output_hidden_states=True)) for model in models
    ]  # fmt: skip
    counts = MultipleChoice().counts(batch)
    task = Task.of(tiny.bert())
    for name, unit in (("hidden_mse", "tokens"), ("pooled_mse", "samples"), ("pkd", "samples")):
        objective = build(name)
        objective.build(*[Facts.of(model) for model in models])
        total, count = objective(*shown, batch)[name]
        assert count == counts[unit]
        expected = 0.0
        for one in range(24):
            alone = {n: v[one : one + 1, : flat["attention_mask"][one].sum()] for n, v in flat.items()}
            both = [task.signals(m, alone, _texts(m, alone)) for m in models]
            expected += float(objective(*both, alone)[name].total.detach())
        assert total.item() == pytest.approx(expected, rel=1e-4)


def _texts(model, batch):
    states = model.bert(**batch, output_hidden_states=True).hidden_states
    return {"logits": torch.zeros(1, 3), "hidden_states": states}


def test_bad_input_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"reads inputs \[B, choices, T\], the batch has inputs of shape \[2, 5\]"):
        MultipleChoice().counts({"input_ids": torch.ones(2, 5)})
    with pytest.raises(ValueError, match=r"reads inputs \[B, choices, T\], the batch has \['labels'\]"):
        MultipleChoice().rows({"labels": torch.ones(2)})
    with pytest.raises(ValueError, match=r"gave logits of shape \[8, 3\], the student \[8, 4\]: both must read"):
        tiny_tasks.trainer(tmp_path, "choice", teacher_model=lambda batch: torch.zeros(8, 3)).train()
