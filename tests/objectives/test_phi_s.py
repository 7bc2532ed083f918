"""PHI-S: one scale for all teachers, an error as large in every direction, and the way back."""

import pytest
import torch

from hf_distill.models.facts import Facts
from hf_distill.objectives import build
from hf_distill.objectives.hidden import HiddenMSE
from hf_distill.objectives.phi_s import PhiS
from hf_distill.objectives.pooled import PooledMSE
from hf_distill.objectives.vectors import VectorMSE
from hf_distill.signals import Signals


def features(width=12, n=400, scale=30.0):
    """Correlated, of very unequal variance, far from zero."""
    generator = torch.Generator().manual_seed(width)
    mixed = torch.randn(width, width, generator=generator) * torch.logspace(0, -2, width)
    return scale * (torch.randn(n, width, generator=generator) @ mixed.T + torch.randn(width, generator=generator))


def test_every_dimension_has_mean_0_and_variance_1_for_a_teacher_of_any_scale():
    for scale in (0.01, 1.0, 300.0):
        found = PhiS.of(features(scale=scale))(features(scale=scale)).double()
        assert torch.allclose(found.mean(dim=0), torch.zeros(12, dtype=torch.float64), atol=1e-4)
        assert torch.allclose(found.var(dim=0, correction=0), torch.ones(12, dtype=torch.float64), rtol=1e-4)


def test_it_is_a_rotation_and_one_number_so_distances_keep_their_proportions():
    phi_s, rows = PhiS.of(features()), features()
    identity = phi_s.rotation.double() @ phi_s.rotation.double().T
    assert torch.allclose(identity, torch.eye(12, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(torch.pdist(phi_s(rows)) * phi_s.scale, torch.pdist(rows), rtol=1e-4)


def test_it_is_the_papers_formula():
    rows = features(4).double()
    centred = rows - rows.mean(dim=0)
    values, axes = torch.linalg.eigh(centred.T @ centred / len(rows))
    phi_s = PhiS.of(rows.float())
    assert float(phi_s.scale) == pytest.approx(values.mean().sqrt().item(), rel=1e-5)
    shares = (phi_s.rotation.double() @ axes).abs()  # H but for signs: each axis in each dimension alike
    assert torch.allclose(shares, torch.full_like(shares, 0.5), atol=1e-4)


def test_a_student_that_learned_it_gives_the_teachers_own_features(tmp_path):
    rows, phi_s = features(), PhiS.of(features())
    phi_s.save(tmp_path / "big.safetensors")
    again = PhiS.load(tmp_path / "big.safetensors")
    assert torch.equal(again(rows), phi_s(rows))
    assert torch.allclose(again.inverse(again(rows)), rows, rtol=1e-4, atol=1e-3)


def test_batches_of_any_size_measure_the_same():
    rows = features()
    whole, pieces = PhiS.of(rows), PhiS.of(rows.view(20, 20, 12).split(3))
    for name, value in whole.state_dict().items():
        assert torch.allclose(pieces.state_dict()[name], value, rtol=1e-5, atol=1e-6), name


def test_a_narrower_student_and_autocast_leave_it_exact():
    phi_s, rows = PhiS.of(features()), features()
    expected = phi_s(rows)
    phi_s.to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(phi_s(rows), expected)


def test_terms_compare_with_the_standardised_teacher_and_padding_costs_nothing():
    phi_s, mask = PhiS.of(features()), torch.tensor([[True, True, False], [True, False, False], [False] * 3])
    ours, theirs = torch.randn(3, 3, 12), features(n=9).view(3, 3, 12)
    both = [Signals({}, hidden=(one, one), mask=mask) for one in (ours, theirs)]
    facts = Facts(hidden_size=12, num_layers=1)
    for term, expected in (
        (HiddenMSE({-1: -1}, standardise=phi_s), (ours - phi_s(theirs))[mask].square().mean(-1).sum()),
        (
            PooledMSE(pool="first", standardise=phi_s),
            (ours[:2, 0] - phi_s(theirs[:2, 0])).square().mean(-1).sum(),
        ),
    ):
        term.build(facts, facts)
        assert torch.allclose(term(*both, {}).total, expected, rtol=1e-5)
    vectors = [Signals({}, vectors={"image": one[:, 0]}) for one in (ours, theirs)]
    found = VectorMSE(standardise=phi_s)(*vectors, {}).total
    assert torch.allclose(found, (ours[:, 0] - phi_s(theirs[:, 0])).square().mean(-1).sum(), rtol=1e-5)


def test_teachers_of_other_scales_weigh_the_same(tmp_path):
    """Two teachers, one 300 times the other: without it the large one is all that is learned."""
    totals = {}
    for scale in (1.0, 300.0):
        theirs = features(scale=scale)
        PhiS.of(theirs).save(tmp_path / "one.safetensors")
        for standardise in (None, str(tmp_path / "one.safetensors")):
            term = build({"vector_mse": {"standardise": standardise}}).terms["vector_mse"]
            both = [Signals({}, vectors={"image": one}) for one in (torch.zeros_like(theirs), theirs)]
            totals[scale, standardise is None] = float(term(*both, {}).mean())
    assert totals[300.0, True] > 1e4 * totals[1.0, True]
    assert totals[1.0, False] == pytest.approx(1.0, rel=1e-4) == totals[300.0, False]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (torch.ones(1, 4), "1 rows of features"),
        (torch.ones(8, 4), "all the same"),
        (torch.full((8, 4), float("nan")), "not finite"),
        (torch.randn(40, 10), "of 10 rows was asked for"),
    ],
)
def test_what_cannot_be_measured_is_refused(given, told):
    with pytest.raises(ValueError, match=told):
        PhiS.of(given)


def test_statistics_of_something_else_are_refused(tmp_path):
    phi_s = PhiS.of(features())
    narrow, wide = Facts(hidden_size=12, num_layers=2), Facts(hidden_size=16, num_layers=2)
    with pytest.raises(ValueError, match="no statistics are"):
        build({"pooled_mse": {"standardise": str(tmp_path / "none.safetensors")}})
    for term in (PooledMSE(standardise=phi_s), HiddenMSE({-1: -1}, standardise=phi_s)):
        with pytest.raises(ValueError, match="width 12, the teacher's have 16"):
            term.build(narrow, wide)
    with pytest.raises(ValueError, match=r"it compares the teacher's \[0, 1, 2\]"):
        HiddenMSE(standardise=phi_s).build(narrow, narrow)
    for term in (PooledMSE(standardise=phi_s), VectorMSE(standardise=phi_s)):
        with pytest.raises(ValueError, match="statistics of one vector"):
            term.set_vectors(["image", "text"])
    with pytest.raises(ValueError, match="width 12, the teacher's have 16"):
        VectorMSE(standardise=phi_s).build(Facts(vector_size=12), Facts(vector_size=16))
