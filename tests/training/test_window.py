"""One division: whatever a step is cut into, its parts add up to the whole."""

import pytest
import torch

from hf_distill.training.window import Window


def test_a_step_adds_up_however_it_is_cut():
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    window, ranked = (Window({"rows": torch.tensor(5)}, ranks) for ranks in (1, 3))
    whole = window.divide(values.sum(), "rows")
    cut = sum(window.divide(part.sum(), "rows") for part in values.split(2))
    ranks = sum(ranked.divide(part.sum(), "rows") for part in values.split(2)) / 3
    assert whole == 3.0
    assert torch.allclose(cut, whole)
    assert torch.allclose(ranks, whole)


def test_an_empty_window_divides_by_one():
    assert Window.of(torch.zeros(2, dtype=torch.int64), ["rows", "labels"]).divide(torch.tensor(0.0), "labels") == 0.0


def test_means_of_unequal_micro_batches_are_weighed_by_their_samples():
    window = Window({"samples": torch.tensor(5)})
    means = [window.weigh(torch.tensor(m), torch.tensor(n)) for m, n in ((1.0, 2), (4.0, 3))]
    assert sum(means).item() == pytest.approx((1.0 * 2 + 4.0 * 3) / 5)


def test_what_one_of_each_unit_is_divided_by():
    shares = Window({"rows": torch.tensor(4), "labels": torch.tensor(0)}, 2).shares()
    assert {unit: share.item() for unit, share in shares.items()} == {"rows": 0.5, "labels": 2.0}
