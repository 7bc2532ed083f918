"""Logits of which a few ids are kept: the questions that every form answers, and the one that it refuses."""

import pytest
import torch

from hf_distill.models.topk_logits import TopKLogits
from hf_distill.signals import Logits


def kept(*lead, head=3, draws=2, classes=50):
    return TopKLogits(
        ids=torch.randint(classes, (*lead, head)),
        log_p=torch.randn(*lead, head).log_softmax(-1),
        tail_ids=torch.randint(classes, (*lead, draws)),
        tail=torch.rand(lead),
        entropy=torch.rand(lead),
        temperature=2.0,
        classes=classes,
    )


def tensors(logits):
    return logits.ids, logits.log_p, logits.tail_ids, logits.tail, logits.entropy


@pytest.mark.parametrize("lead", [(7,), (2, 5), (2, 3, 4)])
def test_shape_select_and_few_see_the_leading_shape(lead):
    logits, rows = kept(*lead), torch.rand(lead) > 0.4
    assert isinstance(logits, Logits)
    assert logits.shape == (*lead, 50)
    chosen = logits.select(rows)
    assert chosen.shape == (rows.sum(), 50)
    assert all(torch.equal(a, b[rows]) for a, b in zip(tensors(chosen), tensors(logits), strict=True))
    part = logits.few(2, 5)
    assert part.shape == (3, 50)
    flat = (tensor.reshape(-1, *tensor.shape[len(lead) :])[2:5] for tensor in tensors(logits))
    assert all(torch.equal(a, b) for a, b in zip(tensors(part), flat, strict=True))
    assert (part.temperature, chosen.temperature) == (2.0, 2.0)


def test_the_end_of_few_may_be_beyond_the_last_row():
    assert kept(4).few(3, 99).shape == (1, 50)
    assert kept(4).select(torch.zeros(4, dtype=torch.bool)).few(0, 99).shape == (0, 50)


def test_no_draws_are_allowed():
    assert kept(4, draws=0).select(torch.ones(4, dtype=torch.bool)).few(1, 3).tail_ids.shape == (2, 0)


@pytest.mark.parametrize("name", ["log_p", "tail", "entropy"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_rows_that_are_not_finite_are_found(name, value):
    logits = kept(2, 3)
    getattr(logits, name)[1, 2] = value
    assert logits.finite().tolist() == [[True, True, True], [True, True, False]]


def test_moves_with_everything_it_holds():
    assert {tensor.device.type for tensor in tensors(kept(3).to("meta"))} == {"meta"}


def test_whole_logits_are_refused_and_the_terms_named():
    with pytest.raises(TypeError, match=r"\[4, 50\] were asked .* keeps 3 ids .*: use forward_kl, top1_cross_entropy"):
        kept(4).chunk(0, 4)
