"""Hidden states: the textbook formula, the layers that are paired, the positions that count."""

import json

import pytest
import torch

from hf_distill.objectives import build
from hf_distill.objectives.hidden import HiddenMSE, uniform_pairs
from hf_distill.signals import Facts, Signals

NARROW, WIDE = Facts(name="s", hidden_size=4, num_layers=2), Facts(name="t", hidden_size=6, num_layers=4)


def shown(width, layers, mask=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Signals(
        {}, hidden=tuple(torch.randn(2, 3, width, generator=generator) for _ in range(layers + 1)), mask=mask
    )


def built(student=NARROW, teacher=WIDE, **options):
    torch.manual_seed(0)
    term = HiddenMSE(**options)
    term.build(student, teacher)
    return term


def reference(term, student, teacher, mask):
    total = 0.0
    for ours, theirs in term.pairs:
        h, t = student.hidden[ours].double(), teacher.hidden[theirs].double()
        if term.projections:
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
    assert total.item() == pytest.approx(reference(term, student, taught, mask).item(), rel=1e-6)
    assert bool(term.projections) == (teacher is WIDE)  # none where the widths agree


def test_padding_has_no_value_and_no_gradient_even_where_it_is_not_a_number():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    student, taught = shown(4, 2, mask), shown(6, 4, mask, seed=1)
    for state in (*student.hidden, *taught.hidden):
        state[~mask] = float("nan")
        state.requires_grad_()
    term = built()
    total, _ = term(student, taught, {})
    total.backward()
    assert total.isfinite()
    assert all(p.grad.isfinite().all() for p in term.parameters())
    for state in student.hidden:
        assert (state.grad[~mask] == 0).all()
        assert (state.grad[mask] != 0).any()


def test_without_a_mask_every_position_counts():
    assert built()(shown(4, 2), shown(6, 4), {}).count == 6


def test_layers_are_paired_by_relative_depth():
    assert uniform_pairs(2, 4) == [(0, 0), (1, 2), (2, 4)]
    assert uniform_pairs(3, 2) == [(0, 0), (1, 1), (2, 1), (3, 2)]
    assert built().pairs == uniform_pairs(2, 4)


def test_a_map_from_json_has_strings_as_keys():
    term = build(json.loads('{"hidden_mse": {"layers": {"1": 2, "2": [3, 4]}}}')).terms["hidden_mse"]
    term.build(NARROW, WIDE)
    assert term.pairs == [(1, 2), (2, 3), (2, 4)]
    assert "1_2" in term.projections


@pytest.mark.parametrize("layers", [{"last": 2}, {-1: 2}, {1: 2.5}, {1: True}])
def test_layers_that_are_no_numbers_are_refused(layers):
    with pytest.raises(ValueError, match="give student layer -> teacher layer, numbers from 0"):
        HiddenMSE(layers=layers)


def test_no_layer_at_all_is_refused():
    with pytest.raises(ValueError, match="name a pair, or leave layers out"):
        HiddenMSE(layers={})


@pytest.mark.parametrize(("layers", "message"), [
    ({3: 1}, r"layer 3 of the student s was asked for, it has the layers 0 \(embeddings\) to 2"),
    ({1: 9}, r"layer 9 of the teacher t was asked for, it has the layers 0 \(embeddings\) to 4"),
])  # fmt: skip
def test_a_layer_that_is_not_there_is_refused_when_it_is_built(layers, message):
    with pytest.raises(ValueError, match=message):
        built(layers=layers)


def test_a_model_that_says_nothing_of_itself_is_refused():
    with pytest.raises(ValueError, match="the teacher look_up has no config that gives its hidden_size"):
        built(teacher=Facts(name="look_up"))


def test_other_positions_and_missing_states_are_refused():
    short = Signals({}, hidden=tuple(torch.zeros(2, 5, 6) for _ in range(5)))
    with pytest.raises(ValueError, match=r"for \[2, 3\] positions, the teacher for \[2, 5\]: hidden_mse needs one"):
        built()(shown(4, 2), short, {})
    with pytest.raises(ValueError, match="layer 0 of the teacher was asked for, it showed 0 hidden states"):
        built()(shown(4, 2), Signals({}), {})
