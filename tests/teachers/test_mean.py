"""The mean of several models' logits, against ten lines of float64."""

import pytest
import torch
from reference import probabilities

from hf_distill.signals import DenseLogits, Logits
from hf_distill.teachers.mean import MeanLogits

SHARES = [0.5, 0.2, 0.3]


def parts(*shape):
    generator = torch.Generator().manual_seed(0)
    return [3 * torch.randn(*shape, generator=generator) for _ in SHARES]


def reference(tensors, arithmetic):
    if not arithmetic:
        return sum(share * tensor.double() for share, tensor in zip(SHARES, tensors, strict=True))
    return sum(share * probabilities(tensor) for share, tensor in zip(SHARES, tensors, strict=True)).log()


@pytest.mark.parametrize("arithmetic", [True, False])
@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 50), (4, 3, 2)])
def test_it_equals_the_textbook_in_float64(shape, arithmetic):
    tensors = parts(*shape)
    mean = MeanLogits(list(map(DenseLogits, tensors)), SHARES, arithmetic)
    assert isinstance(mean, Logits)
    assert mean.shape == shape
    torch.testing.assert_close(mean.tensor.double(), reference(tensors, arithmetic), rtol=1e-5, atol=2e-6)
    rows = torch.arange(mean.shape[:-1].numel()).view(shape[:-1]) % 2 == 0
    chosen, whole = mean.select(rows), reference(tensors, arithmetic)[rows]
    torch.testing.assert_close(chosen.chunk(1, 3).double(), whole[1:3], rtol=1e-5, atol=2e-6)  # a part of some rows


def test_the_mean_of_logits_is_the_geometric_mean_of_the_distributions():
    tensors = parts(6, 4)
    product = torch.stack([probabilities(t) ** s for s, t in zip(SHARES, tensors, strict=True)]).prod(0)
    mean = MeanLogits(list(map(DenseLogits, tensors)), SHARES, False).tensor
    torch.testing.assert_close(probabilities(mean), product / product.sum(-1, keepdim=True), rtol=1e-5, atol=1e-6)


def test_what_is_nearly_certain_stays_finite_and_right():
    far = [torch.tensor([[0.0, 500.0]]), torch.tensor([[0.0, 1000.0]])]
    mean = MeanLogits(list(map(DenseLogits, far)), [0.5, 0.5], True).tensor
    assert mean.isfinite().all()
    assert mean[0, 0].item() == pytest.approx(-500 + torch.tensor(0.5).log().item())  # exp(-500) is 0 in float32


def test_a_fault_of_one_is_a_fault_of_the_mean():
    tensors = parts(3, 4)
    tensors[1][1, 2], tensors[2][2, 0] = float("-inf"), float("nan")
    for arithmetic in (True, False):
        assert MeanLogits(list(map(DenseLogits, tensors)), SHARES, arithmetic).finite().tolist() == [
            True,
            False,
            False,
        ]


def test_half_precision_is_averaged_in_float32():
    tensors = [tensor.bfloat16() for tensor in parts(6, 4)]
    mean = MeanLogits(list(map(DenseLogits, tensors)), SHARES, True).tensor
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean.double(), reference(tensors, True), rtol=1e-5, atol=2e-6)
