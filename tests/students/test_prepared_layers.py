"""A prepared layer gives the digits of the quantised one, and gradients as if nothing were rounded."""

import pytest
import torch
from torch import nn

from hf_distill.students.prepared_layers import Int8Linear


def test_the_gradient_passes_the_rounding():
    pytest.importorskip("torchao")
    torch.manual_seed(0)
    layer, x = Int8Linear(8, 4), torch.randn(3, 8, requires_grad=True)
    y, plain = layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias)
    assert 0 < (y - plain).abs().max() < 0.03
    upstream = torch.randn(3, 4)
    found = torch.autograd.grad(y, (x, layer.weight, layer.bias), upstream)
    expected = torch.autograd.grad(plain, (x, layer.weight, layer.bias), upstream)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() < 0.02 * other.abs().max()
    assert torch.equal(layer(x[1:]), y[1:])  # no token looks at another one


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 96), (2, 3, 96)], ids=str)
def test_integers_are_summed_to_the_digits_of_the_kernel(shape, bias):
    """The sums of a token whose largest value is negative too, which lies half-way between -127 and -128."""
    quantization = pytest.importorskip("torchao").quantization
    torch.manual_seed(0)
    layer, x = Int8Linear(96, 16, bias), -torch.rand(shape)
    plain = nn.Linear(96, 16, bias)
    plain.load_state_dict(layer.state_dict())
    quantization.quantize_(plain, quantization.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False))
    with torch.no_grad():
        assert torch.equal(layer(x), plain(x))
