"""A discriminator behind a reversed gradient: the formula, who climbs and who descends, rows by themselves."""

import pytest
import reference
import torch
from vectors import MASK, built, compared, of_rows, same_gradient, states

from hf_distill.models.facts import Facts
from hf_distill.objectives.adversarial import Adversarial
from hf_distill.signals import Signals, Value


def scores(term, vectors):
    """The discriminator by hand, in float64."""
    first, _, second = term.discriminators["1_1"]
    inner = vectors.double() @ first.weight.double().T + first.bias.double()
    inner = inner * (1 + torch.erf(inner / 2**0.5)) / 2
    return (inner @ second.weight.double().T + second.bias.double())[:, 0]


@pytest.mark.parametrize("width", [3, 6])
@pytest.mark.parametrize("pool", ["mean", "last"])
@pytest.mark.parametrize("reversal", [1.0, 0.25])
def test_values_and_gradients_agree_with_float64(width, pool, reversal):
    """The discriminator descends what is returned; the student and its projection climb it."""
    term = built(Adversarial, (3, width), hidden=5, pool=pool, reversal=reversal)
    student, teacher = states(3).requires_grad_(), states(width, seed=1)
    total, count = compared(term, student, teacher)
    vectors = reference.pooled(student.double(), MASK, pool)
    weights = [projection.weight for projection in term.projections.values()]
    assert len(weights) == (width == 6)
    vectors = vectors @ weights[0].double().T if weights else vectors
    wanted = reference.discriminated(scores(term, vectors), scores(term, reference.pooled(teacher, MASK, pool)))
    assert count == 4
    assert total.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert same_gradient(total, wanted, list(term.discriminators.parameters()))
    assert same_gradient(total, -reversal * wanted, [student, *weights])


def test_rows_do_not_see_each_other():
    student, teacher, term = states(3)[:, 0], states(6, seed=1)[:, 0], built(Adversarial)
    whole = of_rows(term, student, teacher).total
    alone = [of_rows(term, student[i : i + 1], teacher[i : i + 1]).total for i in range(4)]
    assert sum(alone).item() == pytest.approx(whole.item(), rel=1e-6)


def test_one_optimizer_brings_the_student_to_the_teacher():
    """A student that is far away comes into the teacher's midst, while the discriminator is trained against it."""
    torch.manual_seed(0)
    term, teacher = built(Adversarial, (2, 2), hidden=16), torch.randn(32, 2)
    moved = torch.nn.Parameter(torch.tensor([3.0, -3.0]))
    optimizer, own = torch.optim.AdamW([moved, *term.parameters()], lr=0.05, weight_decay=0.0), torch.randn(32, 2)
    for _ in range(200):
        optimizer.zero_grad()
        total, count = of_rows(term, own + moved, teacher)
        (total / count).backward()
        optimizer.step()
    assert moved.norm() < 1.0


@pytest.mark.parametrize(("options", "message"), [
    ({"hidden": 0}, "hidden=0 was given to adversarial: give at least 1"),
    ({"reversal": 0.0}, "reversal=0.0 was given to adversarial: give a number greater than 0"),
    ({"reversal": float("inf")}, "reversal=inf was given to adversarial"),
])  # fmt: skip
def test_numbers_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Adversarial(**options)


def shown(made, form):
    flat = made.flatten(2)
    return Signals({}, values={"sample": Value(flat, torch.ones(flat.shape[:2], dtype=torch.bool), form=form)})


@pytest.mark.parametrize(("shape", "axes"), [((4, 3, 5, 7), 2), ((4, 1, 21), 1)])
@pytest.mark.parametrize("reversal", [1.0, 0.25])
def test_of_samples_each_patch_is_judged_and_the_mean_is_what_a_sample_costs(shape, axes, reversal):
    torch.manual_seed(0)
    term = Adversarial(on="sample", channels=shape[1], axes=axes, hidden=8, reversal=reversal)
    term.build(Facts(), Facts())
    student, teacher = torch.randn(shape).requires_grad_(), torch.randn(shape)
    total, count = term(shown(student, shape[2:]), shown(teacher, shape[2:]), {})
    judge = term.discriminators["sample"]
    each = [
        reference.discriminated(*(judge(one[None])[0].double() for one in both)) / judge(both[0][None]).numel()
        for both in zip(student, teacher, strict=True)
    ]
    assert (term.needs, term.unit, count) == ({"values"}, "samples", 4)
    assert total.item() == pytest.approx(sum(each).item(), rel=1e-5)
    total, wanted = 100 * total, 100 * sum(each)
    assert same_gradient(total, wanted, list(judge.parameters()))
    assert same_gradient(total, -reversal * wanted, [student])


def test_samples_are_judged_in_place_of_layers():
    with pytest.raises(ValueError, match="on='sample' was given to adversarial beside layers or a stream"):
        Adversarial("last", on="sample")
    with pytest.raises(ValueError, match="channels=3 and axes=3 were given to adversarial"):
        Adversarial(on="sample", axes=3)
