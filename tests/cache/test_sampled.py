"""The head and a sampled tail: what is kept is close to the teacher, right on average and the same every time."""

import pytest
import reference
import torch

from hf_distill.cache import sampled
from hf_distill.cache.sampled import restore, sample
from hf_distill.objectives import topk_functional

DTYPES = {
    "ids": torch.int32, "gap": torch.uint8, "tail_ids": torch.int32, "tail": torch.float16, "entropy": torch.float16,
}  # fmt: skip


def zipf(n=64, classes=1000, spread=1.5):
    return -1.1 * (torch.arange(classes) + 2.7).log() + spread * torch.randn(n, classes)


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in DTYPES)


def test_columns_are_small_and_sorted():
    columns = sample(zipf(), 1.0, head=8, tail=6, seed=1)
    assert {name: column.dtype for name, column in columns.items()} == DTYPES
    shapes = {name: tuple(column.shape) for name, column in columns.items()}
    assert shapes == {"ids": (64, 8), "gap": (64, 8), "tail_ids": (64, 6), "tail": (64,), "entropy": (64,)}
    assert (columns["ids"][:, 1:] > 0).all()
    assert (columns["tail_ids"] >= 0).all()
    assert ((columns["gap"] == 0).sum(-1) == 1).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_what_is_restored_is_close(temperature):
    logits = zipf()
    kept = restore(sample(logits, temperature, head=8, tail=6, seed=1), temperature, 1000)
    p = reference.probabilities(logits, temperature)
    assert torch.equal(kept.ids, p.topk(8).indices.sort().values)
    assert (
        kept.log_p.exp() / p.gather(1, kept.ids) - 1
    ).abs().max() < 1 / 12  # half a step or one, and the normaliser's
    assert torch.allclose(kept.log_p.exp().sum(1) + kept.tail, torch.ones(64), atol=1e-6)
    assert torch.allclose(kept.tail.double(), p.scatter(1, kept.ids, 0.0).sum(1), rtol=1e-3)
    assert torch.allclose(kept.entropy.double(), -(p * p.log()).sum(1), rtol=1e-3)
    assert not (kept.tail_ids[:, :, None] == kept.ids[:, None]).any()
    assert (kept.temperature, kept.shape) == (temperature, (64, 1000))


def test_the_first_choice_is_kept_however_close_the_second_is():
    logits = zipf()
    logits.scatter_(1, logits.argmin(1, keepdim=True), logits.amax(1, keepdim=True) - 1e-3)
    kept = restore(sample(logits, 1.0, head=8, tail=6, seed=1), 1.0, 1000)
    assert torch.equal(kept.ids.gather(1, kept.log_p.argmax(1, keepdim=True))[:, 0], logits.argmax(1))


def test_small_columns_cost_little():
    """The same ids and draws with exact probabilities: the mean loss differs by less than 3e-4 nats."""
    logits = zipf(2000)
    student, p = logits + torch.randn(2000, 1000), reference.probabilities(logits)
    kept = restore(sample(logits, 1.0, head=28, tail=28, seed=1), 1.0, 1000)
    tail, entropy = p.scatter(1, kept.ids, 0.0).sum(1), -(p * p.log()).sum(1)
    exact = topk_functional.sampled_forward_kl(
        student, kept.ids, p.gather(1, kept.ids).log(), kept.tail_ids, tail, entropy
    )
    found = topk_functional.sampled_forward_kl(student, kept.ids, kept.log_p, kept.tail_ids, kept.tail, kept.entropy)
    assert exact.mean() > 0.3
    assert (found - exact).mean().abs() < 3e-4


def test_draws_follow_the_tail():
    """One row 20,000 times: how often each class is drawn is its share, within four standard errors."""
    logits = zipf(1, classes=30).expand(20_000, -1)
    kept = restore(sample(logits, 1.0, head=4, tail=5, seed=3), 1.0, 30)
    p = reference.probabilities(logits[:1])[0].scatter(0, kept.ids[0], 0.0)
    share, drawn = p / p.sum(), kept.tail_ids.flatten().bincount(minlength=30)
    error = (share * (1 - share) * kept.tail_ids.numel()).sqrt()
    assert ((drawn - share * kept.tail_ids.numel()).abs() <= 4 * error).all()
    assert (drawn > 0).sum() == 26


def test_the_seed_alone_decides(monkeypatch):
    logits = zipf(50)
    one = sample(logits, 2.0, 8, 6, seed=7)
    torch.rand(3)  # nobody else's random numbers matter
    assert equal(sample(logits.clone(), 2.0, 8, 6, seed=7), one)
    monkeypatch.setattr(sampled, "CHUNK_ELEMENTS", 7000)  # seven rows at a time
    assert equal(sample(logits, 2.0, 8, 6, seed=7), one)
    other = sample(logits, 2.0, 8, 6, seed=8)
    assert torch.equal(other["ids"], one["ids"])
    assert not torch.equal(other["tail_ids"], one["tail_ids"])
    before = torch.get_rng_state()
    sample(logits, 2.0, 8, 6, seed=2**127 + 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_sequence_that_is_cut_keeps_its_first_rows():
    logits = zipf(50)
    whole, cut = sample(logits, 1.0, 8, 6, seed=7), sample(logits[:21], 1.0, 8, 6, seed=7)
    assert equal({name: column[:21] for name, column in whole.items()}, cut)


def test_a_tail_without_probability_gives_valid_ids_and_no_weight():
    logits = torch.full((4, 50), -200.0)
    logits[:, :9] = torch.randn(4, 9)
    kept = restore(sample(logits, 1.0, head=9, tail=5, seed=0), 1.0, 50)
    assert (kept.tail == 0).all()
    assert ((kept.tail_ids >= 0) & (kept.tail_ids < 50)).all()
    student = torch.randn(4, 50, requires_grad=True)
    value = topk_functional.sampled_forward_kl(student, kept.ids, kept.log_p, kept.tail_ids, kept.tail, kept.entropy)
    value.sum().backward()
    assert torch.allclose(value, reference.forward_kl(student, logits).float(), atol=0.02)
    assert student.grad.isfinite().all()


def test_a_flat_teacher_leaves_the_head_some_probability():
    kept = restore(sample(torch.zeros(2, 60_000), 1.0, head=4, tail=4, seed=0), 1.0, 60_000)
    assert kept.finite().all()
    assert kept.tail[0] > 0.999


def test_no_rows_no_draws_and_other_dtypes():
    assert sample(zipf(0), 1.0, 8, 6, seed=0)["ids"].shape == (0, 8)
    assert sample(zipf(3), 1.0, 8, 0, seed=0)["tail_ids"].shape == (3, 0)
    logits = zipf(20).bfloat16()
    assert equal(sample(logits, 1.0, 8, 6, seed=0), sample(logits.float(), 1.0, 8, 6, seed=0))


def test_a_padded_batch_is_restored_with_any_leading_shape():
    columns = sample(zipf(10), 1.0, 8, 6, seed=0)
    padded = {name: torch.cat((c, torch.zeros_like(c[:2]))).view(3, 4, *c.shape[1:]) for name, c in columns.items()}
    kept, flat = restore(padded, 1.0, 1000), restore(columns, 1.0, 1000)
    assert kept.shape == (3, 4, 1000)
    assert kept.finite().all()
    assert torch.equal(kept.log_p.flatten(0, 1)[:10], flat.log_p)
    assert torch.equal(kept.tail_ids.flatten(0, 1)[:10], flat.tail_ids)


@pytest.mark.parametrize(("head", "tail"), [(28, 28), (40, 0), (50, 1)])
def test_a_small_vocabulary_is_refused(head, tail):
    with pytest.raises(ValueError, match=f"head={head} and tail={tail} ids were asked for of 40 classes: keep whole"):
        sample(torch.randn(3, 40), 1.0, head, tail, seed=0)


@pytest.mark.parametrize(
    ("head", "tail", "temperature"), [(0, 8, 1.0), (8, -1, 1.0), (8, 8, 0.0), (8, 8, float("nan"))]
)
def test_what_cannot_be_used_is_refused(head, tail, temperature):
    with pytest.raises(ValueError, match="give a head of at least 1"):
        sample(torch.randn(3, 40), temperature, head, tail, seed=0)
