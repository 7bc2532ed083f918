"""How values are held: as they come, in fewer bits, or as a head and a sampled tail of each distribution.

Knows: tensors, and what is lost by holding them in fewer bits. Does not know: models, rows, files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_distill.cache.sampled import restore, sample
from hf_distill.signals import DenseLogits, Logits

VALUES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "int8": torch.int8}
"""What values can be held in; int8 holds 256 even steps between a row's least and greatest value."""


@dataclass(frozen=True)
class Encoding:
    """What a store holds of each value.

    Args:
        values: ``float32``, ``float16``, ``bfloat16``, ``int8``, or None: as the teacher gives them, which is exact.
        top: how many of the highest ids of each distribution are held; 0 holds all logits.
        tail: how many ids are drawn from the rest.
        temperature: the one at which they are drawn; a run at another one cannot use them.
        tokens: only the first so many classes are held ids: the others only pad a head, no other model may have them,
            and of a row that holds one the rest is not known. None: all of them.

    Raises:
        ValueError: an unknown type, a tail without a head, or no tokens.

    Example:
        >>> Encoding("float16").exact, Encoding().exact, Encoding(top=28, tail=28, temperature=2.0).exact
        (False, True, False)
    """

    values: str | None = None
    top: int = 0
    tail: int = 0
    temperature: float | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        """Check what was asked."""
        if self.values is not None and self.values not in VALUES:
            raise ValueError(f"values={self.values!r} is not known: use {', '.join(VALUES)}, or None.")
        if self.top < 0 or self.tail < 0 or (self.top == 0 and self.tail):
            raise ValueError(
                f"top={self.top} and tail={self.tail} were given: hold at least one highest id, or all logits with "
                "top=0, tail=0."
            )
        if self.tokens is not None and not (self.top and self.tokens > 0):
            raise ValueError(
                f"tokens={self.tokens} and top={self.top} were given: say how many classes are tokens only where few "
                "ids are held, or leave tokens out."
            )
        if bool(self.top) != (self.temperature is not None):
            raise ValueError(
                f"top={self.top} and temperature={self.temperature} were given: a few ids are drawn at one "
                "temperature, all logits serve every one; give both or neither."
            )

    @property
    def exact(self) -> bool:
        """Whether what comes back is what the teacher gave, bit for bit."""
        return self.values is None and not self.top

    def asdict(self) -> dict[str, Any]:
        """Return the fields, for a header; ``tokens`` only where it says something, as older folders lack it."""
        return {name: value for name, value in asdict(self).items() if name != "tokens" or value is not None}

    def suffixes(self, head: bool) -> tuple[str, ...]:
        """Name what values are held as; see ``encode``.

        Args:
            head: whether they are distributions.

        Example:
            >>> Encoding().suffixes(head=True), Encoding("int8").suffixes(head=True)
            (('',), ('/steps', '/low', '/step'))
        """
        if head and self.top:
            return ("/ids", "/gap", "/tail_ids", "/tail", "/entropy")
        return ("/steps", "/low", "/step") if self.values == "int8" else ("",)

    def encode(self, tensor: Tensor, head: bool, keys: Sequence[bytes], offsets: np.ndarray) -> dict[str, Tensor]:
        """Make of values what is held.

        Args:
            tensor: [N, ..., V].
            head: whether the last axis is a distribution.
            keys: of the rows; what is drawn for a row depends on its key alone.
            offsets: int64 [n + 1], where in N each row begins and ends.

        Returns:
            suffix -> [N, ...]; the suffix of values that are held as one is empty.

        Example:
            >>> held = Encoding("int8").encode(torch.tensor([[0.0, 1.0, 255.0]]), True, [b"key"], np.array([0, 1]))
            >>> {name: value.tolist() for name, value in held.items()}
            {'/steps': [[0, 1, 255]], '/low': [0.0], '/step': [1.0]}
        """
        if head and self.top:
            flat = tensor.reshape(len(tensor), -1, tensor.shape[-1])
            if flat.shape[1] != 1:
                raise ValueError("top > 0 holds one distribution a position, these heads hold several: use top=0.")
            drawn = [
                sample(flat[start:stop, 0, : self.tokens], self.temperature, self.top, self.tail, seed=_seed(key))
                for key, start, stop in zip(keys, offsets, offsets[1:], strict=False)
            ]
            return {f"/{name}": torch.cat([one[name] for one in drawn]) for name in drawn[0]}
        if self.values == "int8":
            values = tensor.float()
            low, high = values.amin(-1), values.amax(-1)
            step = ((high - low) / 255).clamp(min=torch.finfo(torch.float32).tiny)
            steps = ((values - low.unsqueeze(-1)) / step.unsqueeze(-1)).round().clamp(0, 255)
            return {"/steps": steps.to(torch.uint8), "/low": low, "/step": step}
        return {"": tensor if self.values is None else tensor.to(VALUES[self.values])}

    def decode(self, held: dict[str, Tensor], head: bool, classes: int) -> Tensor | Logits:
        """Make of what is held what a term can use.

        Args:
            held: suffix -> [..., ...]; see ``encode``.
            head: whether the last axis is a distribution.
            classes: how many classes that has.

        Returns:
            Logits for a head, a tensor for anything else.

        Example:
            >>> Encoding().decode({"": torch.ones(2, 3)}, True, 3).shape
            torch.Size([2, 3])
        """
        if head and self.top:
            return restore({name.removeprefix("/"): value for name, value in held.items()}, self.temperature, classes)
        if self.values == "int8":
            value = held["/steps"] * held["/step"].unsqueeze(-1) + held["/low"].unsqueeze(-1)
        else:
            value = held[""]
        return DenseLogits(value) if head else value


def _seed(key: bytes) -> int:
    return int.from_bytes(key[:8], "little") >> 1  # a generator takes a signed number
