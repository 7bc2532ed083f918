"""Spans: padding is no class, a position that is none is no label, and the loss is (start + end) / 2."""

import pytest
import tiny
import tiny_tasks
import torch
from tiny_tasks import CASES
from transformers import BertForQuestionAnswering

from hf_distill import QuestionAnswering
from hf_distill.cache.encoding import Encoding
from hf_distill.cache.teacher import CachedTeacher
from hf_distill.objectives import build
from hf_distill.tasks import Task
from hf_distill.teachers import LiveTeacher, Several

SPANS = CASES["spans"]
PADDED = {
    "input_ids": torch.ones(4, 5, dtype=torch.long),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 1, 0, 0, 0]]),
    "start_positions": torch.tensor([0, 3, 1, -100]),  # the second and the third are padding
    "end_positions": torch.tensor([4, 2, 4, 9]),
}


def test_models_are_found_by_their_class_and_by_what_they_take():
    assert type(Task.of(SPANS.model())) is QuestionAnswering
    assert not Task.of(SPANS.model()).own_loss

    class TreeForQuestionAnswering(torch.nn.Module):
        def forward(self, input_ids, start_positions=None, end_positions=None):
            return input_ids

    class ImageForQuestionAnswering(torch.nn.Module):
        def forward(self, pixel_values, labels=None):
            return pixel_values

    assert Task.of(TreeForQuestionAnswering()).own_loss
    assert Task.find(ImageForQuestionAnswering()) is None


def test_the_hard_loss_is_the_models_own_where_nothing_is_padded():
    ids = torch.randint(5, 29, (4, 7))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    batch |= {"start_positions": torch.tensor([0, 3, 2, 6]), "end_positions": torch.tensor([0, 5, 6, 6])}
    model = SPANS.model().eval()
    outputs, task = model(**batch), Task.of(model)
    total, count = task.hard(outputs, batch)
    assert count == task.counts(batch)["labels"] == 8
    assert (total / count).item() == pytest.approx(outputs.loss.item(), rel=1e-6)
    del batch["attention_mask"]
    assert torch.equal(task.hard(outputs, batch).total, total)
    assert task.counts(batch)["rows"] == 8


def test_padding_and_other_places_are_no_positions():
    start, end = torch.randn(2, 4, 5, dtype=torch.float64).requires_grad_()
    start.retain_grad(), end.retain_grad()
    total, count = QuestionAnswering().hard((start, end), PADDED)
    expected = 0.0
    for logits, positions in ((start, PADDED["start_positions"]), (end, PADDED["end_positions"])):
        for row, position in enumerate(positions.tolist()):
            text = PADDED["attention_mask"][row].nonzero().flatten().tolist()
            if position in text:
                expected += torch.logsumexp(logits[row, text], 0) - logits[row, position]
    assert count == 4
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    total.backward()
    text = PADDED["attention_mask"].bool()
    counted = torch.tensor([[True, False, False, False], [True, True, True, False]])
    for gradient, rows in zip((start.grad, end.grad), counted, strict=True):
        assert torch.equal(gradient != 0, text & rows.unsqueeze(-1))


def test_padding_has_no_probability_and_no_gradient_in_the_soft_loss():
    logits = [torch.randn(4, 5, requires_grad=True) for _ in range(4)]
    shown = [QuestionAnswering().signals(None, PADDED, tuple(pair)) for pair in (logits[:2], logits[2:])]
    for name in ("forward_kl", "reverse_kl", "jsd", "skew_kl", "topk_kl", "adaptive_kl", "top1_cross_entropy"):
        objective = build(name)
        objective.set_temperature(8.0)
        total, count = objective(*shown, PADDED)[name]
        assert count == QuestionAnswering().counts(PADDED)["rows"] == 8
        gradients = torch.autograd.grad(total, logits[:2], retain_graph=True)
        assert total.isfinite()
        for gradient in gradients:
            assert (gradient[~PADDED["attention_mask"].bool()] == 0).all()
            assert (gradient[0] != 0).any()
    widened = {n: torch.nn.functional.pad(v, (0, 3)) if v.ndim == 2 else v for n, v in PADDED.items()}
    wide = [
        QuestionAnswering().signals(None, widened, tuple(torch.nn.functional.pad(t, (0, 3), value=50.0) for t in pair))
        for pair in (logits[:2], logits[2:])
    ]
    for name in ("forward_kl", "reverse_kl", "jsd"):
        narrow, more = (build(name)(*both, batch)[name].total for both, batch in ((shown, PADDED), (wide, widened)))
        assert more.item() == pytest.approx(narrow.item(), rel=1e-6)


def test_the_heads_know_their_labels():
    heads = QuestionAnswering().signals(None, PADDED, (torch.zeros(4, 5), torch.zeros(4, 5))).heads
    assert {name: head.labels.tolist() for name, head in heads.items()} == {
        "start": [0, -100, -100, -100],
        "end": [4, 2, 4, -100],
    }


def test_a_subclass_by_another_name_is_evaluated_too(tmp_path):
    class Reader(BertForQuestionAnswering):
        pass

    student = SPANS.model()
    student.__class__ = Reader
    run = tiny_tasks.trainer(tmp_path, "spans", student=student, eval_dataset=SPANS.rows(5, 9))
    assert not run.task.own_loss
    assert "eval_loss/hard" in run.evaluate()

    class Own(Reader):
        def forward(self, input_ids=None, attention_mask=None, start_positions=None, end_positions=None):
            outputs = super().forward(input_ids, attention_mask)
            outputs.loss = None if start_positions is None else outputs.start_logits.sum() * 0 + 7.0
            return outputs

    own = SPANS.model()
    own.__class__ = Own
    run = tiny_tasks.trainer(tmp_path, "spans", student=own, args={"alpha": 0.3})
    run.train()
    assert tiny.losses(run, "loss/hard") == pytest.approx([7.0] * 3)


def test_the_users_own_loss_is_given_both_positions(tmp_path):
    def summed(outputs, labels, num_items_in_batch=None):
        return sum(position.clamp(0).sum() for position in labels) * outputs.start_logits.mean()

    run = tiny_tasks.trainer(tmp_path, "spans", compute_loss_func=summed)
    assert run.train().global_step == 3


def test_teachers_that_are_functions_or_several(tmp_path):
    def both(batch):
        start = torch.linspace(0, 1, batch["input_ids"].shape[1]).expand(len(batch["input_ids"]), -1)
        assert not {"start_positions", "end_positions"} & set(batch)
        return start, start

    several = Several([SPANS.teacher(), both])
    for teacher in (both, lambda batch: dict(zip(("start_logits", "end_logits"), both(batch), strict=True)), several):
        run = tiny_tasks.trainer(tmp_path, "spans", teacher_model=teacher)
        run.train()
        assert all(torch.tensor(tiny.losses(run)).isfinite())
    with pytest.raises(ValueError, match="start_logits and end_logits were asked of the teacher, it returned a Te"):
        tiny_tasks.trainer(tmp_path, "spans", teacher_model=lambda batch: torch.zeros(8, 5)).train()
    with pytest.raises(ValueError, match=r"the teacher gave start and end logits of shape \[\[8, 2\], \[8, 2\]\]"):
        tiny_tasks.trainer(tmp_path, "spans", teacher_model=lambda b: (torch.zeros(8, 2),) * 2).train()


@pytest.mark.parametrize("objective", ["logit_mse", "dist", "standardised_kl"])
def test_terms_that_weigh_all_classes_alike_are_refused(tmp_path, objective):
    with pytest.raises(ValueError, match=f"{objective} gives every class the same weight, the classes of Question"):
        tiny_tasks.trainer(tmp_path, "spans", objective=objective)


def test_bad_input_is_refused_in_a_sentence(tmp_path):
    data = [{n: v for n, v in row.items() if n != "end_positions"} for row in SPANS.rows()]
    with pytest.raises(ValueError, match="add a 'start_positions' column and a 'end_positions' column, or set alpha"):
        tiny_tasks.trainer(tmp_path, "spans", data).train()
    with pytest.raises(ValueError, match="label_smoothing_factor was given, which smooths one column of labels"):
        tiny_tasks.trainer(tmp_path, "spans", args={"label_smoothing_factor": 0.1})
    with pytest.raises(ValueError, match="label_smoothing_factor was given, which smooths one column of labels"):
        tiny_tasks.trainer(tmp_path, "spans", teacher_model=None, args={"label_smoothing_factor": 0.1})
    with pytest.raises(ValueError, match="start_logits and end_logits were asked of BertForQuestionAnswering"):
        QuestionAnswering().signals(SPANS.model(), PADDED, {"logits": 1})
    encoding = Encoding(top=2, temperature=2.0)
    kept = CachedTeacher(LiveTeacher(SPANS.teacher()), always=True, encoding=encoding)
    run = tiny_tasks.trainer(tmp_path, "spans", teacher_model=kept, args={"temperature": 2.0})
    with pytest.raises(ValueError, match="top=2 keeps a few ids of each distribution, those of heads/start are posit"):
        run.train()
