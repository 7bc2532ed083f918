"""An export that is run as the module that it was: columns in, a ``ModelOutput`` out.

Knows: columns and outputs by name. Does not know: file formats, runtimes, tasks, how models are measured.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from hf_distill.models.texts import MASK


class Exported(nn.Module):
    """A model that another runtime runs, on the processor.

    Args:
        run: column -> array in, the outputs out, in their order.
        names: of the columns that it takes; others of a batch are left out, a missing mask is all ones, and any other
            missing column is all zeros.
        outputs: their names.
        config: the model's.

    Example:
        >>> twice = Exported(lambda fed: [2.0 * fed["input_ids"]], ["input_ids"], ["logits"], config=None)
        >>> twice(input_ids=torch.tensor([[1, 2]])).logits.tolist()
        [[2.0, 4.0]]
    """

    def __init__(
        self,
        run: Callable[[dict[str, np.ndarray]], Sequence[np.ndarray]],
        names: Sequence[str],
        outputs: Sequence[str],
        config: Any,
    ) -> None:
        super().__init__()
        self.run, self.names, self.outputs, self.config = run, list(names), list(outputs), config
        self.place = nn.Parameter(torch.zeros(()), requires_grad=False)  # whoever asks where a model is asks for this
        self.forward = _signed(self.answer, [*self.names, "labels"])

    def answer(self, *given: Tensor, **batch: Any) -> ModelOutput:
        """Run it.

        Args:
            *given: columns, in the order of ``names``.
            **batch: columns by their names.

        Returns:
            The outputs, on the device of the columns; with labels a loss of 0, which nobody has computed.
        """
        columns = {**dict(zip(self.names, given, strict=False)), **batch}
        first = next(columns[name] for name in self.names if columns.get(name) is not None)
        fed = {name: _filled(name, columns.get(name), first) for name in self.names}
        found = self.run({name: np.ascontiguousarray(one.detach().cpu().numpy()) for name, one in fed.items()})
        shown = ModelOutput({"loss": torch.zeros(())} if columns.get("labels") is not None else {})
        for name, one in zip(self.outputs, found, strict=True):
            shown[name] = torch.from_numpy(one).to(first.device)
        return shown


def _signed(answer: Callable[..., ModelOutput], names: Sequence[str]) -> Callable[..., ModelOutput]:
    """A forward that says by its signature which columns it takes: Trainer keeps no others."""

    def forward(*given: Tensor, **batch: Any) -> ModelOutput:
        return answer(*given, **batch)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    forward.__signature__ = inspect.Signature([inspect.Parameter(name, kind, default=None) for name in names])
    return forward


def _filled(name: str, column: Tensor | None, first: Tensor) -> Tensor:
    if column is not None:
        return column
    return torch.ones_like(first) if name == MASK else torch.zeros_like(first)
