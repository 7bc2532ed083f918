from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hf_distill.cache.encoding import Encoding

LOGITS = 4 * torch.randn(64, 10, generator=torch.Generator().manual_seed(0))


def back(encoding, values, head=True):
    keys, offsets = [bytes([i]) * 16 for i in range(len(values))], np.arange(len(values) + 1)
    held = encoding.encode(values, head, keys, offsets)
    found = encoding.decode(held, head, values.shape[-1])
    return found.chunk(0, len(values)) if head else found


@pytest.mark.parametrize(
    ("values", "mean", "most"),
    [("float32", 0.0, 0.0), ("float16", 3e-7, 5e-6), ("bfloat16", 2e-5, 1.2e-4), ("int8", 6e-5, 3e-4)],
)
def test_the_kl_that_narrow_values_cost(values, mean, most):
    found = back(Encoding(values), LOGITS)
    p, q = (F.log_softmax(x.double(), -1) for x in (LOGITS, found))
    kl = (p.exp() * (p - q)).sum(-1)
    assert mean / 20 <= kl.mean() <= mean + 1e-12
    assert kl.max() <= most + 1e-12


def test_int8_keeps_the_ends_and_constant_rows():
    rows = torch.tensor([[2.5, 2.5, 2.5], [-1e6, 0.0, 1e6], [0.0, 0.0, 1e-30]])
    found = back(Encoding("int8"), rows)
    assert torch.equal(found[0], rows[0])
    assert torch.allclose(found[1, [0, 2]], rows[1, [0, 2]])
    assert found.isfinite().all()


def test_exact_values_keep_their_type():
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        held = Encoding().encode(LOGITS.to(dtype), True, [], np.array([0]))
        assert held[""].dtype == dtype


def test_hidden_states_beside_few_ids_are_held_whole():
    encoding = Encoding("float16", top=3, tail=2, temperature=1.0)
    hidden = torch.randn(4, 8)
    assert torch.allclose(back(encoding, hidden, head=False).float(), hidden, atol=1e-2)
    assert "/tail_ids" in encoding.encode(LOGITS[:1], True, [b"k" * 16], np.array([0, 1]))


def test_classes_that_are_no_tokens_are_not_held():
    few, values = Encoding(top=3, tail=2, temperature=1.0, tokens=8), LOGITS + torch.tensor([0.0] * 8 + [9.0] * 2)
    keys, offsets = [bytes([i]) * 16 for i in range(64)], np.arange(65)
    kept, cut = (
        one.decode(one.encode(some, True, keys, offsets), True, size)
        for one, some, size in ((few, values, 10), (replace(few, tokens=None), values[:, :8], 8))
    )
    assert kept.shape == (64, 10)
    for name in ("ids", "tail_ids", "log_p", "tail", "entropy"):
        assert torch.equal(getattr(kept, name), getattr(cut, name))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"values": "int3"}, "values='int3' is not known"),
        ({"tail": 4, "temperature": 1.0}, "hold at least one highest id"),
        ({"top": 4}, "give both or neither"),
        ({"temperature": 2.0}, "give both or neither"),
        ({"tokens": 9}, "tokens=9 and top=0 were given"),
        ({"top": 4, "temperature": 1.0, "tokens": 0}, "tokens=0 and top=4 were given"),
    ],
)
def test_what_cannot_be_held_is_refused(options, told):
    with pytest.raises(ValueError, match=told):
        Encoding(**options)
