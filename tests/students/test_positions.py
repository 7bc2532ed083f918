"""What a class makes of a layer's position."""

import pytest
from torch import nn

from hf_distill.students.positions import Moves, check


def model(*widths, beside=True):
    layers = nn.ModuleList([nn.Linear(*width) for width in widths])
    return nn.ModuleDict({"layers": layers, **({"beside": nn.Linear(2, 2)} if beside else {})})


def test_a_part_that_the_class_no_longer_builds_is_refused():
    same = (2, 2), (2, 2)
    check(model(*same), model(same[0]), Moves({"layers": [1]}))
    with pytest.raises(ValueError, match=r"but its class builds no beside.weight beside them then: keep other layers"):
        check(model(*same), model(same[0], beside=False), Moves({"layers": [1]}))


def test_a_layer_of_another_size_is_refused_in_the_place_of_the_first():
    widens = (2, 4), (4, 4), (4, 4)
    check(model(*widens), model((2, 4), (4, 4)), Moves({"layers": [0, 2]}))
    with pytest.raises(ValueError, match=r"layers.0.weight would be \[4, 2\], it is \[4, 4\]"):
        check(model(*widens), model((2, 4), (4, 4)), Moves({"layers": [1, 2]}))
