"""A student says its letters where its teacher does: the sum over the spikes of the teacher."""

import pytest
import torch

from hf_distill.objectives.guided_ctc import GuidedCTC
from hf_distill.signals import DenseLogits, Head, Signals


def shown(seed, rows, blank, requires_grad=False):
    logits = 2 * torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(seed))
    return Signals({"logits": Head(DenseLogits(logits.requires_grad_(requires_grad)), rows, blank=blank)})


def reference(student, teacher, rows, blank):
    """The mask of the paper, one at the likeliest letter of a frame, and the negated sum over what it leaves."""
    total, spikes = 0.0, 0
    for b, t in rows.nonzero().tolist():
        best = max(range(5), key=lambda k, b=b, t=t: teacher[b, t, k].item())
        if best != blank:
            total, spikes = total - student[b, t].double().softmax(-1)[best], spikes + 1
    return total, spikes


@pytest.mark.parametrize("blank", [0, 3])
def test_it_is_the_papers_loss_and_one_for_each_spike(blank):
    rows = torch.arange(6) < torch.tensor([[6], [4], [1]])
    student, teacher = shown(0, rows, blank, True), shown(1, rows, None)
    total, count = GuidedCTC()(student, teacher, {})
    logits = student.heads["logits"].logits.tensor
    wanted, spikes = reference(logits, teacher.heads["logits"].logits.tensor, rows, blank)
    assert 0 < spikes < rows.sum()
    assert count == rows.sum()
    assert total.item() == pytest.approx(spikes + wanted.item(), rel=1e-6)
    ours, theirs = (torch.autograd.grad(one, logits)[0] for one in (total, wanted))
    assert torch.allclose(ours, theirs.float(), rtol=1e-5, atol=1e-7)
