"""Whether a teacher has changed since it was last looked at: one that has must not be answered from memory.

Knows: tensors, modules, what a function holds. Does not know: who changes them, what was answered, where it is kept.

A look costs less than half a millisecond for BERT: which tensors there are, how often torch saw each written to, and
the first and last values of each, because what is written to ``.data`` is not counted. That is no proof; see
``identity.weights_of`` for one, which reads every byte.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

ENDS = 8
"""How many values of each end of a tensor are looked at."""

DEPTH = 4
"""How deep functions, objects and lists in each other are searched for models."""


class Changes:
    """Looks at the same things again and again.

    Args:
        held: gives the modules and tensors; it is asked, and the parameters and persistent buffers of a module are
            found, anew each time.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> changes = Changes(lambda: [layer])
        >>> changes.found()
        False
        >>> _ = layer.weight.data.mul_(2)
        >>> changes.found(), changes.found()
        (True, False)
    """

    def __init__(self, held: Callable[[], Iterable[nn.Module | Tensor]]) -> None:
        self.held = held
        self._tensors: list[Tensor] = []
        self._ends: list[Tensor] = []
        self._places: list[int] = []
        self._seen = self._look()

    def found(self) -> bool:
        """Say whether anything is not as it was when this was last asked."""
        before, self._seen = self._seen, self._look()
        return before != self._seen

    def _look(self) -> tuple[Any, ...]:
        tensors = list(tensors_of(self.held()))
        shares = [local_of(tensor) for tensor in tensors]
        # The tensors are held, so that no other one takes the number of one that is gone.
        numbers = [0 if one.is_meta else id(one) for one in tensors]  # weights that are fetched to be used come and go
        places = [*numbers, *(one.data_ptr() for one in shares)]
        if places != self._places:
            self._tensors, self._places, self._ends = tensors, places, [end for one in shares for end in _ends(one)]
        written = [0 if one.is_inference() else one._version for one in shares]
        return numbers, written, _bytes(self._ends)


def tensors_of(things: Iterable[nn.Module | Tensor]) -> Iterator[Tensor]:
    """Give every parameter and persistent buffer; what a model computes anew for itself is none.

    Args:
        things: modules and tensors.

    Example:
        >>> [tuple(one.shape) for one in tensors_of([nn.Linear(3, 2), torch.ones(4)])]
        [(2, 3), (2,), (4,)]
    """
    for thing in things:
        if isinstance(thing, Tensor):
            yield thing
            continue
        for module in thing.modules():
            passing = module._non_persistent_buffers_set
            yield from (one for one in module._parameters.values() if one is not None)
            yield from (one for name, one in module._buffers.items() if one is not None and name not in passing)


def local_of(tensor: Tensor) -> Tensor:
    """Return the share of a tensor that is on this rank; writing to it writes to the tensor.

    Args:
        tensor: whole, or sharded by FSDP2 or ZeRO-3.

    Example:
        >>> whole = torch.ones(2)
        >>> local_of(whole) is whole
        True
    """
    if hasattr(tensor, "ds_tensor"):  # ZeRO-3: the parameter itself is empty until it is used
        return tensor.ds_tensor
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def held_in(function: Callable[..., Any]) -> list[nn.Module | Tensor]:
    """Find the models and tensors that a function may answer with.

    Args:
        function: any callable: what it closes over, its defaults, the globals and the attributes that it names.

    Returns:
        Each once.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> held_in(lambda batch: layer(batch["input"])), held_in(functools.partial(print, layer)), held_in(print)
        ([Linear(in_features=1, out_features=1, bias=True)], [Linear(in_features=1, out_features=1, bias=True)], [])
    """
    found: dict[int, nn.Module | Tensor] = {}
    _search(function, frozenset(), DEPTH, found, set())
    return list(found.values())


def _search(
    thing: Any, names: frozenset[str], depth: int, found: dict[int, nn.Module | Tensor], seen: set[int]
) -> None:
    """Go through what a thing holds; ``names`` are those that the function which holds it uses."""
    if isinstance(thing, (nn.Module, Tensor)):
        found[id(thing)] = thing
        return
    if depth < 0 or id(thing) in seen:
        return
    seen.add(id(thing))
    parts, names = _parts(thing, names)
    for part in parts:
        _search(part, names, depth - 1, found, seen)


def _parts(thing: Any, names: frozenset[str]) -> tuple[list[Any], frozenset[str]]:
    """What a thing holds, and the names under which that is used."""
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()], names
    if hasattr(thing, "__func__"):  # a method
        parts, used = _parts(thing.__func__, names)
        own = getattr(thing.__self__, "__dict__", {})
        return [*parts, *(value for name, value in own.items() if name in used)], used
    if hasattr(thing, "__code__"):
        used = frozenset(_names(thing.__code__))
        cells = [cell.cell_contents for cell in thing.__closure__ or () if _filled(cell)]
        named = [thing.__globals__[name] for name in sorted(used & thing.__globals__.keys())]
        wrapped = [thing.__wrapped__] if hasattr(thing, "__wrapped__") else []
        return [*cells, *named, *(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values(), *wrapped], used
    if isinstance(thing, (list, tuple)):
        return list(thing), names
    if isinstance(thing, Mapping):
        return list(thing.values()), names
    if isinstance(thing, (type, ModuleType)) or not hasattr(thing, "__dict__"):
        return [], names
    if callable(thing) and hasattr(type(thing).__call__, "__code__"):
        names |= frozenset(_names(type(thing).__call__.__code__))
    return [value for name, value in vars(thing).items() if name in names], names


def _names(code: Any) -> Iterator[str]:
    """The globals and attributes that a function names, and those of the functions inside of it."""
    yield from code.co_names
    for constant in code.co_consts:
        if hasattr(constant, "co_names"):
            yield from _names(constant)


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _ends(tensor: Tensor) -> list[Tensor]:
    """Views of a tensor's first and last values, as bytes; none of one whose values cannot be seen so."""
    if tensor.is_meta or not tensor.numel():
        return []
    try:
        flat = tensor.detach().view(-1)
        return [flat[:ENDS].view(torch.uint8), flat[-ENDS:].view(torch.uint8)]
    except (RuntimeError, NotImplementedError):  # not contiguous, or of a kind that quantises
        return []


def _bytes(views: list[Tensor]) -> list[bytes]:
    devices: dict[torch.device, list[Tensor]] = {}
    for view in views:
        devices.setdefault(view.device, []).append(view)
    return [torch.cat(some).cpu().numpy().tobytes() for some in devices.values()]
