"""All parts of a head's loss in one pass: exact, whatever is multiplied with it, and never silently wrong."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hf_distill.cache.sampled import restore, sample
from hf_distill.models.linear_logits import LinearLogits, LogitTransform
from hf_distill.objectives import build
from hf_distill.objectives.chunked import linear_pass, one_pass
from hf_distill.signals import DenseLogits, Head, Signals

V, H = 40, 8
SHARES = {"hard": 0.3, "forward_kl": 0.5, "reverse_kl": 0.1}


@pytest.fixture(autouse=True)
def _three_rows_a_chunk(monkeypatch):
    monkeypatch.setattr(one_pass, "CHUNK_ELEMENTS", 3 * V)
    monkeypatch.setattr(linear_pass, "BLOCK_ELEMENTS", 2 * V)


class Shapes(TorchDispatchMode):
    """The shapes of the tensors that are made, forward and backward; a second name for an argument is not made."""

    def __init__(self):
        super().__init__()
        self.made = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        given = {one.data_ptr() for one in args if isinstance(one, torch.Tensor)}
        if isinstance(made, torch.Tensor) and made.data_ptr() not in given:
            self.made.add(tuple(made.shape))
        return made


def parts(dtype=torch.float32, head=None):
    torch.manual_seed(0)
    head = head or nn.Linear(H, V)
    hidden, theirs = torch.randn(2, 7, H, requires_grad=True), torch.randn(2, 7, V)
    rows = torch.rand(2, 7) > 0.3
    labels = torch.where(rows, torch.randint(V, (2, 7)), -100)
    return head, hidden, theirs, rows, labels


def totals(logits, theirs, rows, labels, shares=SHARES):
    objective = build({"forward_kl": {"temperature": 2.0}, "reverse_kl": 1.0})
    student, teacher = Signals({"logits": Head(logits, rows, labels)}), Signals({"logits": Head(theirs, rows)})
    known = {name: torch.tensor(share) for name, share in shares.items()}
    return objective(student, teacher, {}, known)


def gradients(found, inputs, factor=1.0):
    loss = factor * sum(SHARES[name] * part.total for name, part in found.items())
    return torch.autograd.grad(loss, inputs)


@pytest.mark.parametrize(
    "tail", [LogitTransform(), LogitTransform(0.5, 3.0, torch.linspace(-1, 1, V))], ids=["bare", "tail"]
)
@pytest.mark.parametrize("linear_teacher", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_sums_and_gradients_are_those_of_whole_logits(tail, linear_teacher, bias):
    head, hidden, theirs, rows, labels = parts(head=nn.Linear(H, V, bias=bias))
    teacher = DenseLogits(theirs)
    if linear_teacher:
        other = nn.Linear(5, V)
        entering = torch.randn(2, 7, 5)
        theirs = other(entering).detach()
        teacher = LinearLogits(entering, other)
    whole = totals(DenseLogits(tail(head(hidden))), DenseLogits(theirs), rows, labels)
    found = totals(LinearLogits(hidden, head, tail), teacher, rows, labels)
    for name, part in whole.items():
        assert torch.allclose(found[name].total, part.total, rtol=1e-5)
        assert found[name].count == part.count == rows.sum()
    inputs = [hidden, *head.parameters()]
    for one, other in zip(gradients(found, inputs, 7.0), gradients(whole, inputs, 7.0), strict=True):
        assert (one - other).abs().max() < 2e-6 * other.abs().max()


def test_a_frozen_head_has_no_gradient():
    head, hidden, theirs, rows, labels = parts()
    head.requires_grad_(False)
    with Shapes() as seen:
        found = totals(LinearLogits(hidden, head), DenseLogits(theirs), rows, labels)
        (ours,) = gradients(found, [hidden])
    assert (V, H) not in seen.made
    whole = totals(DenseLogits(head(hidden)), DenseLogits(theirs), rows, labels)
    assert torch.allclose(ours, *gradients(whole, [hidden]), atol=1e-6)
    head.requires_grad_(True)
    with Shapes() as seen:
        totals(LinearLogits(hidden, head), DenseLogits(theirs), rows, labels)
    assert (V, H) in seen.made  # a gradient of the head would have been seen


def test_there_is_never_more_than_a_chunk_of_either_models_logits():
    head, hidden, _, rows, labels = parts()
    taught = nn.Linear(H, V).requires_grad_(False)
    with Shapes() as seen:
        found = totals(LinearLogits(hidden, head), LinearLogits(torch.randn(2, 7, H), taught), rows, labels)
        gradients(found, [hidden, *head.parameters()])
    assert max(math.prod(shape[:-1]) for shape in seen.made if shape and shape[-1] == V) == 3


def test_a_head_that_is_called_trains_its_own_parameters():
    head, hidden, theirs, rows, labels = parts(head=nn.Sequential(nn.Linear(H, 3), nn.Linear(3, V)))
    head.out_features = V
    inputs = [hidden, *head.parameters()]
    found = gradients(totals(LinearLogits(hidden, head), DenseLogits(theirs), rows, labels), inputs)
    whole = gradients(totals(DenseLogits(head(hidden)), DenseLogits(theirs), rows, labels), inputs)
    for one, other in zip(found, whole, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_parts_that_are_weighed_otherwise_than_was_said_are_no_number():
    head, hidden, theirs, rows, labels = parts()
    found = totals(LinearLogits(hidden, head), DenseLogits(theirs), rows, labels)
    (wrong,) = torch.autograd.grad(found["hard"].total, [hidden])
    assert wrong.isnan().any()


def test_a_second_backward_is_refused():
    head, hidden, theirs, rows, labels = parts()
    loss = sum(
        SHARES[n] * p.total for n, p in totals(LinearLogits(hidden, head), DenseLogits(theirs), rows, labels).items()
    )
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="asked for twice: retain_graph cannot be used"):
        loss.backward()


def test_no_row_and_no_gradient():
    head, hidden, theirs, rows, labels = parts()
    none = torch.zeros_like(rows)
    found = totals(LinearLogits(hidden, head), DenseLogits(theirs), none, torch.full_like(labels, -100))
    gradients(found, [hidden])[0].sum()  # a zero with a graph
    assert all(part.total == 0 and part.count == 0 for part in found.values())
    with torch.no_grad():
        seen = totals(LinearLogits(hidden, head), DenseLogits(theirs), rows, labels)
    whole = totals(DenseLogits(head(hidden)), DenseLogits(theirs), rows, labels)
    assert torch.allclose(seen["hard"].total, whole["hard"].total)


def test_a_half_precision_head_sums_its_chunks_in_float32():
    """One chunk or many: bfloat16 sums of chunks would differ by a per cent."""
    head, hidden, theirs, rows, labels = parts()
    found = []
    for size in (2**20, 3 * V):
        one_pass.CHUNK_ELEMENTS = size
        ours = copy.deepcopy(head).bfloat16()
        sums = totals(LinearLogits(hidden.bfloat16(), ours), DenseLogits(theirs), rows, labels)
        found.append(gradients(sums, [ours.weight])[0].float())
    assert (found[0] - found[1]).abs().max() < 1e-2 * found[0].abs().max()


def test_a_small_divergence_of_a_large_vocabulary_is_right_to_1e_5():
    """KL = 1e-3 over 151,936 classes, against float64."""
    torch.manual_seed(0)
    classes, width = 151_936, 16
    head, hidden = nn.Linear(width, classes, bias=False), torch.randn(4, width)
    nn.init.normal_(head.weight, std=0.8)
    logits = LinearLogits(hidden, head).chunk(0, 4).detach()
    theirs = (logits.double() + 0.045 * torch.randn(4, classes).double()).float()
    p, q = theirs.double().log_softmax(-1), logits.double().log_softmax(-1)
    expected = (p.exp() * (p - q)).sum()
    assert 3e-4 < expected / 4 < 3e-3
    one = build("forward_kl")
    rows = torch.ones(4, dtype=torch.bool)
    shown = Signals({"logits": Head(LinearLogits(hidden.requires_grad_(), head), rows)})
    found = one(shown, Signals({"logits": Head(DenseLogits(theirs), rows)}), {}, {"forward_kl": torch.tensor(1.0)})
    assert found["forward_kl"].total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_teacher_of_few_ids_is_compared_block_by_block():
    head, hidden, theirs, rows, labels = parts()
    columns = sample(theirs.flatten(0, 1), temperature=1.0, head=4, tail=6, seed=5)
    columns = {name: value.view(2, 7, *value.shape[1:]) for name, value in columns.items()}
    few = Signals({"logits": Head(restore(columns, 1.0, V), rows)})
    found = {}
    for logits in (DenseLogits(head(hidden)), LinearLogits(hidden, head)):
        objective = build({"forward_kl": 1.0, "reverse_kl": 1.0})
        shares = {name: torch.tensor(share) for name, share in SHARES.items()}
        sums = objective(Signals({"logits": Head(logits, rows, labels)}), few, {}, shares)
        found[type(logits)] = gradients(sums, [hidden, head.weight])
    for one, other in zip(found[LinearLogits], found[DenseLogits], strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_terms_that_listen_to_several_teachers_share_a_chunk_of_the_student(monkeypatch):
    head, hidden, theirs, rows, labels = parts()
    passes = []
    inside = linear_pass._Pass.apply
    monkeypatch.setattr(linear_pass._Pass, "apply", lambda *args: passes.append(len(args[1])) or inside(*args))
    big, small = (Signals({"logits": Head(DenseLogits(one), rows)}) for one in (theirs, torch.randn(2, 7, V)))
    teacher = Signals(big.heads, named={"big": big, "small": small})
    spec = {"forward_kl": {"teacher": "big"}, "reverse_kl": {"teacher": "small"}}
    found = {}
    for logits in (DenseLogits(head(hidden)), LinearLogits(hidden, head)):
        shares = {name: torch.tensor(share) for name, share in SHARES.items()}
        sums = build(spec)(Signals({"logits": Head(logits, rows, labels)}), teacher, {}, shares)
        found[type(logits)] = gradients(sums, [hidden, head.weight])
    assert passes == [3]
    for one, other in zip(found[LinearLogits], found[DenseLogits], strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_row_costs_as_much_as_its_teacher_says_that_there_is_to_learn():
    generator = torch.Generator().manual_seed(5)
    ours, theirs = (torch.randn(2, 4, V, generator=generator) for _ in range(2))
    rows = torch.tensor([[True, True, False, True], [True, True, True, True]])
    weights = torch.rand(2, 4, generator=generator)
    term = build("forward_kl").terms["forward_kl"]
    head = Head(DenseLogits(ours), rows, share=0.25)
    taught = Head(DenseLogits(theirs), rows, weights=weights)
    found = build("forward_kl")(Signals({"logits": head}), Signals({"logits": taught}), {})["forward_kl"]
    each = term.divergence(ours.flatten(0, 1), theirs.flatten(0, 1)).view(2, 4)
    assert found.total.item() == pytest.approx(0.25 * (each * weights)[rows].sum().item(), rel=1e-5)
    assert found.count.item() == 2  # seven quarters


def test_weights_reach_the_gradient_of_a_head_that_is_gone_through_once():
    head, hidden, theirs, rows, labels = parts()
    weights = torch.rand(2, 7, generator=torch.Generator().manual_seed(5))
    found = []
    for logits in (DenseLogits(head(hidden)), LinearLogits(hidden, head)):
        student = Signals({"logits": Head(logits, rows, labels)})
        teacher = Signals({"logits": Head(DenseLogits(theirs), rows, weights=weights)})
        sums = build("forward_kl")(student, teacher, {}, {"forward_kl": torch.tensor(0.5)})
        found.append((sums["forward_kl"].total, *torch.autograd.grad(0.5 * sums["forward_kl"].total, [hidden])))
    assert found[1][0].item() == pytest.approx(found[0][0].item(), rel=1e-5)
    assert torch.allclose(found[1][1], found[0][1], atol=1e-6)
