"""What a class makes of a layer's position: compared between the old and the new depth, and set right in a student.

Knows: two models that were built without weights, the old and the new depth. Does not know: what the positions mean.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from hf_distill.students.stages import drops_paths


@dataclass(frozen=True)
class Moves:
    """Which old layer stands at each new position.

    Args:
        lists: path of a list of layers -> its old layers, in the new order.

    Example:
        >>> moves = Moves({"encoder.layer": [0, 3]})
        >>> moves.old("encoder.layer.1.output"), moves.old("pooler")
        ('encoder.layer.3.output', 'pooler')
    """

    lists: Mapping[str, Sequence[int]]

    def old(self, path: str, first: bool = False) -> str:
        """Return where the module or parameter at a new path was.

        Args:
            path: in the student.
            first: for one at position 0, its place in the old first layer instead.
        """
        where = self.place(path)
        if where is None:
            return path
        name, position, rest = where
        return f"{name}.{0 if first and not position else self.lists[name][position]}{rest}"

    def place(self, path: str) -> tuple[str, int, str] | None:
        """Split a path into its list, its position there and the rest; None: it is in no list.

        Args:
            path: in the student.
        """
        for name in self.lists:
            if path.startswith(f"{name}."):
                position, dot, rest = path[len(name) + 1 :].partition(".")
                return name, int(position), dot + rest
        return None


def check(before: PreTrainedModel, after: PreTrainedModel, moves: Moves) -> None:
    """Refuse layers that the class would build differently in their new place: loading would give another model.

    Args:
        before: the teacher, without weights.
        after: the student, without weights.
        moves: where layers went.

    Raises:
        ValueError: in one sentence, which layer, and what differs.
    """
    old, new, listed = _tensors(before), _tensors(after), entries(before, after, moves)
    gone = {name for name in old if any(name.startswith(f"{path}.") for path in moves.lists)}
    for name, shape in new.items():
        was = moves.old(name)
        gone.discard(was)
        if name in listed:
            if not listed[name]:
                raise ValueError(
                    f"one layer of {type(before).__name__} was to be kept, whose {name} has an entry between each two "
                    "layers: keep 2 layers or more."
                )
            continue
        if (old[was] if was in old else old.get(moves.old(name, first=True))) != shape:
            what = f"{name} would be {_shape(shape)}, it is {_shape(old.get(was))}"
            if moves.place(name) is None:
                raise ValueError(
                    f"{type(before).__name__} was asked to keep some of its layers, but {what}, a size that follows "
                    "from their number: use a class without that part."
                )
            _refuse(before, name, moves, what)
    for name, _ in before.named_parameters():
        if name not in new and not any(name.startswith(f"{path}.") for path in moves.lists):
            raise ValueError(
                f"{type(before).__name__} was asked to keep some of its layers, but its class builds no {name} beside "
                "them then: keep other layers, or make its student by hand."
            )
    stay = tuple(f"{path}.{layer}." for path, layers in moves.lists.items() for layer in layers)
    for name in sorted(name for name in gone if name.startswith(stay)):
        raise ValueError(
            f"a layer of {type(before).__name__} was to be kept with its {name}, which the class does not build in "
            "the layer's new place: keep other layers, whose kinds come in the same order."
        )
    theirs = dict(before.named_modules())
    for path, module in after.named_modules():
        if moves.place(path) is None or (was := theirs.get(moves.old(path))) is None:
            continue
        if type(was) is not type(module):
            if drops_paths(was) and drops_paths(module):
                continue
            _refuse(before, path, moves, f"{path} would be a {type(module).__name__}, it is a {type(was).__name__}")
        first = theirs.get(moves.old(path, first=True))
        for name, value in vars(module).items():
            if name.startswith("_") or not isinstance(value, (bool, str, type(None))) or not hasattr(was, name):
                continue
            if _plain(held := getattr(was, name)) and held != value and getattr(first, name, held) != value:
                _refuse(before, path, moves, f"{path}.{name} would be {value!r}, it is {held!r}")


def entries(before: PreTrainedModel, after: PreTrainedModel, moves: Moves) -> dict[str, list[int]]:
    """Find tensors outside of the layers that have an entry for each layer, or between each two, as YOLOS has.

    Args:
        before: the teacher, without weights.
        after: the student, without weights.
        moves: where layers went.

    Returns:
        Name -> which of its entries stay.
    """
    old, new, found = _tensors(before), _tensors(after), {}
    stacks = {(len(before.get_submodule(path)), tuple(layers)) for path, layers in moves.lists.items()}
    if len(stacks) != 1:
        return {}
    ((depth, kept),) = stacks
    for name, shape in new.items():
        was = old.get(name)
        if moves.place(name) or was in (None, shape, ()) or was[1:] != shape[1:]:
            continue
        if (was[0], shape[0]) == (depth, len(kept)):
            found[name] = list(kept)
        elif (was[0], shape[0]) == (depth - 1, len(kept) - 1):  # what follows the last layer is none of them
            found[name] = list(kept[:-1])
    return found


def carry(after: PreTrainedModel, path: str, first: nn.Module, into: nn.Module) -> None:
    """Give the new first layer what only a first layer has.

    Args:
        after: the student, without weights: it says what a first layer has.
        path: the list of layers.
        first: the old first layer.
        into: the layer that is first now.
    """
    for name, _ in after.get_submodule(f"{path}.0").named_modules():
        parent, _, leaf = name.rpartition(".")
        if name and name not in dict(into.named_modules()):
            into.get_submodule(parent).add_module(leaf, first.get_submodule(name))


def settle(student: PreTrainedModel, before: PreTrainedModel, after: PreTrainedModel, moves: Moves) -> None:
    """Give every module of a student the configuration and the numbers of its new place.

    Only what differs between the two depths is touched, so that what somebody set by hand in the teacher stays.

    Args:
        student: with its layers in place.
        before: the teacher, without weights.
        after: the student, without weights.
        moves: where layers went.
    """
    theirs, ours = dict(before.named_modules()), dict(student.named_modules())
    for path, module in after.named_modules():
        was, mine = theirs.get(moves.old(path)), ours.get(path)
        if was is None or mine is None:
            continue
        if type(was) is not type(module) and drops_paths(was) and drops_paths(mine):
            parent, _, leaf = path.rpartition(".")
            setattr(student.get_submodule(parent), leaf, copy.deepcopy(module))
            continue
        for name, value in vars(module).items():
            if isinstance(value, PretrainedConfig):
                setattr(mine, name, value)
            elif _plain(value) and (not name.startswith("_") or name == "_tied_weights_keys"):
                if vars(was).get(name, value) != value:
                    setattr(mine, name, value)


def _plain(value: Any) -> bool:
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(_plain(one) for one in value)
    if isinstance(value, dict):
        return all(_plain(one) for one in value.values())
    return isinstance(value, (bool, int, float, str, type(None)))


def _tensors(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for one in (model.named_parameters, model.named_buffers) for name, value in one()}


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else str(list(shape))


def _refuse(model: PreTrainedModel, path: str, moves: Moves, what: str) -> None:
    kept = {name: list(layers) for name, layers in moves.lists.items()}
    raise ValueError(
        f"layers {kept} of {type(model).__name__} were asked for, but its class builds a layer by its position, and "
        f"{what}: keep other layers, whose kinds come in the same order."
    )
