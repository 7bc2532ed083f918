"""DistiLLM-2: each row by who wrote it, and a skew that follows from nothing but the sample itself."""

import copy

import pytest
import reference
import torch
from torch import nn

from hf_distill.models.linear_logits import LinearLogits
from hf_distill.objectives import build
from hf_distill.objectives.chunked import linear_pass, one_pass
from hf_distill.objectives.distillm2 import DistiLLM2
from hf_distill.signals import STUDENT_WROTE, DenseLogits, Head, Signals

WROTE = torch.tensor([False, True, True, False])
ANCHORS = [0.205, 0.25]  # two texts are adapted, one has the least skew, one the greatest


def texts(seed=0, classes=12):
    """Two models' logits of four texts, which rows count, what stands there; the student's texts are no labels."""
    generator = torch.Generator().manual_seed(seed)
    teacher = 2 * torch.randn(4, 7, classes, generator=generator)
    student = teacher + torch.randn(4, 7, classes, generator=generator)
    rows = torch.rand(4, 7, generator=generator) > 0.3
    written = torch.where(rows, teacher.argmax(-1), -100)
    written[1:3] = torch.where(rows, student.argmax(-1), -100)[1:3]
    return student, teacher, rows, written


def shown(logits, rows, written):
    labels = written.masked_fill(WROTE[:, None], -100)
    return Signals({"logits": Head(logits, rows, labels, written=written)})


def naive(student, teacher, rows, written, anchors, base=0.1):
    """Text by text in float64."""
    total = torch.zeros((), dtype=torch.float64)
    for b in range(len(rows)):
        ours, theirs, tokens = student[b, rows[b]], teacher[b, rows[b]], written[b, rows[b]]
        skew, kl = base, reference.skew_reverse_kl if WROTE[b] else reference.skew_forward_kl
        if anchors is not None:
            q, p = (
                reference.probabilities(one)[range(len(tokens)), tokens].log().mean().exp().item()
                for one in (ours, theirs)
            )
            gap, anchor = (q - p, anchors[1]) if WROTE[b] else (p - q, anchors[0])
            skew = min(max(1 - (1 - base) * anchor / (gap + 1e-5), 0.01), base)
        total = total + kl(ours, theirs, skew).sum()
    return total


@pytest.mark.parametrize("anchors", [None, ANCHORS])
def test_it_is_the_papers_in_value_and_gradient(anchors):
    student, teacher, rows, written = texts()
    ours, exact = student.clone().requires_grad_(), student.double().requires_grad_()
    both = shown(DenseLogits(ours), rows, written), shown(DenseLogits(teacher), rows, written)
    found = DistiLLM2(anchors=anchors)(*both, {STUDENT_WROTE: WROTE})
    expected = naive(exact, teacher.double(), rows, written, anchors)
    assert found.count == rows.sum()
    assert found.total.item() == pytest.approx(expected.item(), rel=1e-5)
    found.total.backward()
    expected.backward()
    assert float((ours.grad - exact.grad).abs().max() / exact.grad.abs().max()) < 1e-5


def test_the_skew_is_the_samples_own():
    student, teacher, rows, written = texts()
    whole = DistiLLM2(anchors=ANCHORS)(
        *(shown(DenseLogits(one), rows, written) for one in (student, teacher)), {STUDENT_WROTE: WROTE}
    )
    fixed = naive(student, teacher, rows, written, None).item()
    assert abs(whole.total.item() / fixed - 1) > 1e-3  # something was adapted
    parts = []
    for b in range(4):
        one = [
            Signals({"logits": Head(DenseLogits(logits[[b]]), rows[[b]], written=written[[b]])})
            for logits in (student, teacher)
        ]
        parts.append(DistiLLM2(anchors=ANCHORS)(*one, {STUDENT_WROTE: WROTE[[b]]}).total)
    assert torch.allclose(sum(parts), whole.total)


def test_where_nobody_wrote_it_is_a_skewed_kl_of_all_rows():
    student, teacher, rows, written = texts()
    both = [shown(DenseLogits(one), rows, written) for one in (student, teacher)]
    found, plain = DistiLLM2()(*both, {}), build("skew_kl").terms["skew_kl"](*both, {})
    assert torch.allclose(found.total, plain.total)


@pytest.mark.parametrize("anchors", [None, ANCHORS])
def test_a_large_vocabulary_in_one_pass_has_the_gradient_of_whole_logits(monkeypatch, anchors):
    monkeypatch.setattr(one_pass, "CHUNK_ELEMENTS", 3 * 12)
    monkeypatch.setattr(linear_pass, "BLOCK_ELEMENTS", 2 * 12)
    torch.manual_seed(0)
    _, theirs, rows, written = texts()
    head, hidden = nn.Linear(8, 12), torch.randn(4, 7, 8, requires_grad=True)
    again, objective = copy.deepcopy(head), build({"distillm2": {"anchors": anchors}})
    teacher, share = shown(DenseLogits(theirs), rows, written), {"distillm2": torch.tensor(0.4)}
    batch, found = {STUDENT_WROTE: WROTE}, []
    for logits, given, one in (
        (LinearLogits(hidden, head), share, head), (DenseLogits(again(hidden)), None, again)
    ):  # fmt: skip
        (0.4 * objective(shown(logits, rows, written), teacher, batch, given)["distillm2"].total).backward()
        found.append([hidden.grad, one.weight.grad])
        hidden.grad = None
    for linear, whole in zip(*found, strict=True):
        assert torch.allclose(linear, whole, atol=1e-6)


def test_a_text_without_tokens_and_a_batch_without_rows_cost_nothing():
    student, teacher, rows, written = texts()
    rows[1], written[1] = False, -100
    for some in (rows, torch.zeros_like(rows)):
        ours = student.clone().requires_grad_()
        both = shown(DenseLogits(ours), some, written), shown(DenseLogits(teacher), some, written)
        found = DistiLLM2(anchors=ANCHORS)(*both, {STUDENT_WROTE: WROTE})
        found.total.backward()
        assert found.count == some.sum()
        assert ours.grad.isfinite().all()
        assert not ours.grad[1].any()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"skew": 1.0}, "strictly between 0 and 1"),
        ({"anchors": [0.1]}, "two numbers greater than 0"),
        ({"anchors": [0.1, 0.0]}, "two numbers greater than 0"),
    ],
)
def test_what_cannot_be_used_is_refused(options, told):
    with pytest.raises(ValueError, match=told):
        build({"distillm2": options})


def test_a_teacher_of_a_few_ids_cannot_say_how_likely_a_text_is():
    with pytest.raises(ValueError, match="DistiLLM2 compares whole logits"):
        DistiLLM2(anchors=ANCHORS).check_few(1.0)
    DistiLLM2().check_few(1.0)


def test_rows_that_belong_to_no_text_are_refused():
    head = Head(DenseLogits(torch.randn(5, 3)), torch.ones(5, dtype=torch.bool))
    with pytest.raises(ValueError, match="belong to none: use skew_kl"):
        DistiLLM2()(Signals({"logits": head}), Signals({"logits": head}), {STUDENT_WROTE: WROTE})
    with pytest.raises(ValueError, match="nobody knows which tokens"):
        DistiLLM2(anchors=ANCHORS)(Signals({"logits": head}), Signals({"logits": head}), {})
