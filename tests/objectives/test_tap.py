"""The output of any module: tokens, samples, widths that differ."""

import pytest
import torch
from torch.nn import functional as F

from hf_distill.models.facts import Facts
from hf_distill.objectives.tap import TapMSE
from hf_distill.signals import Signals

MASK = torch.tensor([[True, True, False], [True, False, False]])


def compared(student, teacher, mask=MASK, **options):
    torch.manual_seed(0)
    term = TapMSE("a.b", **options)
    term.build(Facts(), Facts())
    shown, wanted = Signals({}, taps={"a.b": student}, mask=mask), Signals({}, taps={term.teacher_path: teacher})
    return term, term(shown, wanted, {})


def test_of_tokens_those_that_are_real_count_and_every_sample_weighs_the_same():
    student = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    teacher = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    wanted = (student - teacher)[0, :2].square().mean() + (student - teacher)[1, 0].square().mean()
    student[~MASK] = teacher[~MASK] = float("nan")
    student.requires_grad_()
    _, (total, count) = compared(student, teacher)
    total.backward()
    assert count == 2
    assert total.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert (student.grad[~MASK] == 0).all()


def test_of_anything_else_whole_samples_count():
    student, teacher = torch.zeros(2, 5, 2, 2), torch.ones(2, 5, 2, 2)
    _, (total, count) = compared(student, teacher)
    assert (total, count) == (2, 2)


def test_widths_that_differ_are_projected_if_they_are_given():
    student, teacher = torch.ones(2, 3, 4), torch.ones(2, 3, 6)
    term, (total, _) = compared(student, teacher, widths=[4, 6])
    wanted = (term.projection(student) - teacher).square().mean(-1)[0, 0] * 2
    assert total.item() == pytest.approx(wanted.item(), rel=1e-6)
    with pytest.raises(
        ValueError, match=r"of shape \[2, 3, 4\], with the teacher's a.b, of shape \[2, 3, 6\]: give wid"
    ):
        compared(student, teacher)


def test_the_teacher_may_have_another_path():
    term = TapMSE("a", "b")
    assert (term.needs, term.teacher_needs) == ({"tap:a"}, {"tap:b"})


@pytest.mark.parametrize("options", [{"path": ""}, {"path": "a", "widths": [4]}, {"path": "a", "widths": [0, 4]}])
def test_what_cannot_be_used_is_refused(options):
    with pytest.raises(ValueError, match="was given"):
        TapMSE(**options)


def test_feature_maps_are_compared_on_the_smaller_grid():
    torch.manual_seed(0)
    shown, wanted = torch.randn(2, 3, 4, 6), torch.randn(2, 5, 2, 3)
    term = TapMSE("conv", widths=(3, 5))
    term.build(Facts(), Facts())
    student, teacher = (Signals({}, taps={"conv": one}) for one in (shown, wanted))
    pooled = F.adaptive_avg_pool2d(shown, (2, 3)).permute(0, 2, 3, 1)
    value = (term.projection(pooled) - wanted.permute(0, 2, 3, 1)).square().mean(dim=(1, 2, 3)).sum()
    found = term(student, teacher, {})
    assert found.count == 2
    assert found.total.item() == pytest.approx(value.item(), rel=1e-6)


def test_feature_maps_of_one_size_are_compared_as_they_are():
    torch.manual_seed(0)
    shown, wanted = torch.randn(2, 3, 4, 6), torch.randn(2, 3, 4, 6)
    term = TapMSE("conv")
    term.build(Facts(), Facts())
    student, teacher = (Signals({}, taps={"conv": one}) for one in (shown, wanted))
    value = (shown - wanted).square().mean(dim=(1, 2, 3)).sum()
    assert term(student, teacher, {}).total.item() == pytest.approx(value.item(), rel=1e-6)
