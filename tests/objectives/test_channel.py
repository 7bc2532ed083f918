"""Where each channel looks: against the paper's equation in float64, whatever the number of positions."""

import pytest
import tiny_images
import torch

from hf_distill.models.facts import Facts
from hf_distill.objectives.channel import ChannelKL
from hf_distill.signals import Signals


def built(width=5, **options):
    term = ChannelKL(layers={0: 0}, **options)
    facts = Facts(hidden_size=width, num_layers=1)
    term.build(facts, facts)
    return term


def reference(student, teacher, temperature):
    """Equation 4 of arXiv:2011.13256, sample by sample and channel by channel."""
    total = 0.0
    for ours, theirs in zip(student.double(), teacher.double(), strict=True):
        for channel in range(ours.shape[-1]):
            p = (theirs[:, channel] / temperature).softmax(0)
            q = (ours[:, channel] / temperature).softmax(0)
            total += temperature**2 / ours.shape[-1] * (p * (p / q).log()).sum()
    return total


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_it_is_the_papers(temperature):
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 7, 5), torch.randn(3, 7, 5) * 3
    found = built(temperature=temperature)(Signals({}, (student,)), Signals({}, (teacher,)), {})
    assert found.count == 3
    assert found.total.item() == pytest.approx(reference(student, teacher, temperature).item(), rel=1e-5)


def test_padding_is_no_position_and_has_no_gradient():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 6, 5, requires_grad=True), torch.randn(2, 6, 5)
    mask = torch.tensor([[True] * 4 + [False] * 2, [False] * 6])
    found = built()(Signals({}, (student,), mask=mask), Signals({}, (teacher,), mask=mask), {})
    assert found.total.item() == pytest.approx(reference(student[:1, :4], teacher[:1, :4], 4.0).item(), rel=1e-5)
    found.total.backward()
    assert student.grad[:1, :4].abs().min() > 0
    assert student.grad[:1, 4:].abs().max() == student.grad[1].abs().max() == 0


def test_how_high_a_channel_is_does_not_count():
    torch.manual_seed(0)
    states = torch.randn(2, 6, 5)
    found = built()(Signals({}, (states + torch.arange(5.0),)), Signals({}, (states,)), {})
    assert found.total.item() == pytest.approx(0.0, abs=1e-5)


def test_the_last_maps_of_two_networks_are_compared_on_the_smaller_grid():
    small, big = tiny_images.resnet(), tiny_images.resnet((2, 2), (12, 16), seed=7)
    term = ChannelKL()
    term.build(Facts.of(small), Facts.of(big))
    assert [(ours, theirs) for ours, theirs in term.pairs] == [(2, 2)]
    assert term.projections["2_2"].weight.shape == (16, 12)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf")])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(ValueError, match="give one greater than 0"):
        ChannelKL(temperature=temperature)
