"""Rows of hidden states with padding on either side, for terms that compare one vector of each row."""

import torch

from hf_distill.models.facts import Facts
from hf_distill.signals import Signals

MASK = torch.tensor([
    [False, True, True, True], [True, True, False, False], [True, True, True, True], [False, False, True, False],
])  # fmt: skip


def states(width, seed=0):
    return torch.randn(*MASK.shape, width, generator=torch.Generator().manual_seed(seed))


def built(cls, widths=(3, 6), **options):
    torch.manual_seed(0)
    term = cls(**options)
    term.build(*(Facts(name="m", hidden_size=width, num_layers=1) for width in widths))
    return term


def compared(term, student, teacher, mask=MASK):
    """What a term says of the states of the last layer."""
    return term(*(Signals({}, hidden=(torch.zeros_like(one), one), mask=mask) for one in (student, teacher)), {})


def of_rows(term, student, teacher):
    """What a term says of vectors [B, H]: rows of one token."""
    return compared(term, student[:, None], teacher[:, None], mask=None)


def same_gradient(ours, theirs, inputs):
    """Whether two values have the same gradients, and whether there are any."""
    both = [torch.autograd.grad(value, inputs, retain_graph=True) for value in (ours, theirs)]
    assert any(one.abs().max() > 1e-3 for one in both[1])
    return all(torch.allclose(a, b.to(a.dtype), rtol=1e-4, atol=1e-6) for a, b in zip(*both, strict=True))
