"""Hidden states: the textbook formula, the layers that are paired, the positions that count."""

import json
import re
from functools import partial

import pytest
import reference
import torch

from hf_distill.models.facts import Facts
from hf_distill.objectives import build
from hf_distill.objectives.attention import AttentionKL
from hf_distill.objectives.hidden import HiddenCosine, HiddenMSE
from hf_distill.objectives.layers import uniform_pairs
from hf_distill.objectives.pkd import PKD
from hf_distill.signals import Signals

NARROW, WIDE = Facts(name="s", hidden_size=4, num_layers=2), Facts(name="t", hidden_size=6, num_layers=4)


def shown(width, layers, mask=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Signals(
        {}, hidden=tuple(torch.randn(2, 3, width, generator=generator) for _ in range(layers + 1)), mask=mask
    )


def built(student=NARROW, teacher=WIDE, cls=HiddenMSE, **options):
    torch.manual_seed(0)
    term = cls(**options)
    term.build(student, teacher)
    return term


def textbook(term, student, teacher, mask):
    total = 0.0
    for ours, theirs in term.pairs:
        h, t = student.hidden[ours].double(), teacher.hidden[theirs].double()
        if f"{ours}_{theirs}" in term.projections:
            h = h @ term.projections[f"{ours}_{theirs}"].weight.double().T
        for sample, position in mask.nonzero().tolist():
            total = total + (h[sample, position] - t[sample, position]).pow(2).sum() / t.shape[-1]
    return total / len(term.pairs)


@pytest.mark.parametrize("layers", [None, {0: 0}, {1: [2, 3], 2: 4}])
@pytest.mark.parametrize("teacher", [WIDE, Facts(name="t", hidden_size=4, num_layers=4)])
def test_values_agree_with_float64(layers, teacher):
    mask = torch.tensor([[True, True, False], [True, False, False]])
    term, student = built(teacher=teacher, layers=layers), shown(4, 2, mask)
    taught = shown(teacher.hidden_size, 4, mask, seed=1)
    total, count = term(student, taught, {})
    assert count == 3
    assert total.item() == pytest.approx(textbook(term, student, taught, mask).item(), rel=1e-6)
    several = {"1_2", "1_3"} if layers == {1: [2, 3], 2: 4} else set()  # none where the widths agree, but for these
    assert set(term.projections) == ({f"{a}_{b}" for a, b in term.pairs} if teacher is WIDE else several)


@pytest.mark.parametrize("cls", [HiddenMSE, HiddenCosine, PKD, partial(PKD, token="all"), partial(PKD, token="last")])
def test_padding_has_no_value_and_no_gradient_even_where_it_is_not_a_number(cls):
    mask = torch.tensor([[True, True, False], [True, False, False]])
    student, taught = shown(4, 2, mask), shown(6, 4, mask, seed=1)
    for state in (*student.hidden, *taught.hidden):
        state[~mask] = float("nan")
        state.requires_grad_()
    term = built(cls=cls, layers={0: 0, 1: 2, 2: 4})
    total, _ = term(student, taught, {})
    total.backward()
    assert total.isfinite()
    assert all(p.grad.isfinite().all() for p in term.parameters())
    for state in student.hidden:
        assert (state.grad[~mask] == 0).all()
        assert (state.grad[mask] != 0).any()


def test_where_no_batch_counts_positions_samples_count_and_each_has_the_mean_over_its_own():
    whole = torch.ones(2, 3, dtype=torch.bool)
    positions, samples = (built()(shown(4, 2, mask), shown(6, 4, mask), {}) for mask in (whole, None))
    assert (positions.count, samples.count) == (6, 2)
    assert torch.allclose(samples.mean(), positions.mean())


def test_layers_are_paired_by_relative_depth():
    assert uniform_pairs(2, 4) == [(0, 0), (1, 2), (2, 4)]
    assert uniform_pairs(3, 2) == [(0, 0), (1, 1), (2, 1), (3, 2)]
    assert built().pairs == uniform_pairs(2, 4)


MASK = torch.tensor([[False, True, True], [True, False, False]])


@pytest.mark.parametrize(("cls", "token", "naive"), [
    (HiddenCosine, None, "hidden_cosine"), (PKD, "first", "pkd"), (PKD, "last", "pkd"), (PKD, "all", "pkd"),
])  # fmt: skip
@pytest.mark.parametrize("width", [4, 6])
def test_directions_agree_with_float64(cls, token, naive, width):
    """The same values as the textbook's, and the same gradients, through the projections too."""
    term = built(
        cls=cls, teacher=Facts(name="t", hidden_size=width, num_layers=4), **({"token": token} if token else {})
    )
    student, taught = shown(4, 2, MASK), shown(width, 4, MASK, seed=1)
    for state in student.hidden:
        state.requires_grad_()
    total, count = term(student, taught, {})
    ours = torch.autograd.grad(total, student.hidden, allow_unused=True)
    naive = getattr(reference, naive)
    wanted = sum(
        naive(projected(term, pair, student), taught.hidden[pair[1]].double(), MASK, *([token] if token else []))
        for pair in term.pairs
    ) / len(term.pairs)  # fmt: skip
    theirs = torch.autograd.grad(wanted, student.hidden, allow_unused=True)
    assert count == (2 if token else 3)
    assert total.item() == pytest.approx(wanted.item(), rel=1e-6)
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other.float(), rtol=1e-4, atol=1e-6)


def projected(term, pair, student):
    state = student.hidden[pair[0]].double()
    if term.projections:
        state = state @ term.projections[f"{pair[0]}_{pair[1]}"].weight.double().T
    return state


def test_the_default_layers_are_the_papers():
    assert built(cls=PKD).pairs == [(1, 2), (2, 4)]
    assert built(cls=HiddenCosine).pairs == uniform_pairs(2, 4)
    assert built(layers="last").pairs == [(1, 3), (2, 4)]


def test_one_layer_learns_from_several_by_a_projection_each():
    term = built(student=NARROW, teacher=Facts(name="t", hidden_size=4, num_layers=6), layers={-1: [2, 4, -1]})
    assert term.pairs == [(2, 2), (2, 4), (2, 6)]
    assert list(term.projections) == ["2_2", "2_4", "2_6"]
    spec = json.loads('{"hidden_mse": {"layers": {"-1": [1, "-2"]}}}')
    read = build(spec).terms["hidden_mse"]
    read.build(NARROW, WIDE)
    assert read.pairs == [(2, 1), (2, 3)]
    assert built(layers="thirds").pairs == [(2, 1), (2, 3), (2, 4)]


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        ({-4: 1}, r"layer -4 of the student s was asked for by hidden_mse, it has the layers 0 \(embeddings\) to 2"),
        ({1: [2, -6]}, r"layer -6 of the teacher t was asked for by hidden_mse"),
        ({-1: [4, -1]}, "layers name 2 -> 4 twice for hidden_mse: name each pair once"),
        ({"last": 4}, "give student layer -> teacher layer, numbers from 0"),
        ({1: [2, 1.5]}, "give student layer -> teacher layer, numbers from 0"),
    ],
)
def test_layers_that_are_not_there_are_refused(layers, told):
    with pytest.raises(ValueError, match=told):
        built(layers=layers)


def test_an_unknown_map_and_an_unknown_token_are_refused():
    maps = "use uniform, last, skip, thirds, lineage, or"
    with pytest.raises(ValueError, match=f"layers='top' was given to hidden_mse: {maps}"):
        HiddenMSE("top")
    with pytest.raises(ValueError, match="token='middle' was given to pkd: use first, last, all"):
        PKD(token="middle")


COPIED = Facts(name="s", hidden_size=4, num_layers=2, copies=(0, 2), copied_from=4)


def test_copies_learn_from_the_layers_that_they_are_copies_of():
    assert built(student=COPIED, layers="lineage").pairs == [(0, 0), (1, 1), (2, 3)]
    assert built(student=COPIED).pairs == [(0, 0), (1, 2), (2, 4)]
    maps = AttentionKL("lineage")
    maps.build(COPIED, WIDE)
    assert maps.pairs == [(1, 1), (2, 3)]


@pytest.mark.parametrize(
    ("student", "teacher"),
    [(NARROW, WIDE), (COPIED, Facts(name="t", hidden_size=6, num_layers=6))],
    ids=["nothing is known", "another depth"],
)
def test_where_nobody_knows_what_was_copied_lineage_is_refused(student, teacher):
    told = (
        rf"layers='lineage' was given to hidden_mse, and the configuration of the student s does not tell which of "
        rf"the teacher t's {teacher.num_layers} layers its 2 are copies of: make it with keep_layers, or use uniform\."
    )
    with pytest.raises(ValueError, match=told):
        built(student=student, teacher=teacher, layers="lineage")


def test_a_student_deeper_than_its_teacher_has_only_the_uniform_map():
    deep = Facts(name="deep", hidden_size=4, num_layers=6)
    assert len(built(student=deep).pairs) == 7
    with pytest.raises(ValueError, match=r"deep has 6 layers, the teacher t has 4; use uniform.*\n  student  0 1 2 3"):
        built(student=deep, layers="last")


def test_a_map_from_json_has_strings_as_keys():
    term = build(json.loads('{"hidden_mse": {"layers": {"1": 2, "2": [3, 4]}}}')).terms["hidden_mse"]
    term.build(NARROW, WIDE)
    assert term.pairs == [(1, 2), (2, 3), (2, 4)]
    assert "1_2" in term.projections


@pytest.mark.parametrize("layers", [{"top": 2}, {"--1": 2}, {1: 2.5}, {1: True}])
def test_layers_that_are_no_numbers_are_refused(layers):
    with pytest.raises(ValueError, match="give student layer -> teacher layer, numbers from 0"):
        HiddenMSE(layers=layers)


def test_no_layer_at_all_is_refused():
    with pytest.raises(ValueError, match="name a pair, or leave layers out"):
        HiddenMSE(layers={})


@pytest.mark.parametrize(("layers", "message"), [
    ({3: 1}, "layer 3 of the student s was asked for by hidden_mse, it has the layers 0 (embeddings) to 2: name one "
             "of those.\n  student  0 . 1 . 2 3?\n  teacher  0 1 2 3 4"),
    ({1: 9}, "layer 9 of the teacher t was asked for by hidden_mse, it has the layers 0 (embeddings) to 4: name one "
             "of those.\n  student  0 . 1 . 2\n  teacher  0 1 2 3 4 9?"),
])  # fmt: skip
def test_a_layer_that_is_not_there_is_refused_when_it_is_built(layers, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        built(layers=layers)


def test_a_model_that_says_nothing_of_itself_is_refused():
    with pytest.raises(ValueError, match="the teacher look_up has no config that gives its hidden_size"):
        built(teacher=Facts(name="look_up"))


def test_other_positions_and_missing_states_are_refused():
    states = tuple(torch.zeros(2, 5, 6) for _ in range(5))
    with pytest.raises(ValueError, match=r"for \[2, 3\] positions, the teacher for \[2, 5\]: hidden_mse needs one"):
        built()(shown(4, 2, torch.ones(2, 3, dtype=torch.bool)), Signals({}, hidden=states), {})
    with pytest.raises(ValueError, match="the student shows 3 and the teacher 5, which are no square grids"):
        built()(shown(4, 2), Signals({}, hidden=states), {})
    with pytest.raises(ValueError, match="layer 0 of the teacher was asked for, it showed 0 hidden states"):
        built()(shown(4, 2), Signals({}), {})
