"""Whether an export answers as PyTorch does, row by row.

Knows: outputs of two modules. Does not know: file formats, where rows come from, how right a model is.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_distill.export.format import TOLERANCE
from hf_distill.export.plan import Plan
from hf_distill.models.texts import IDS, MASK


@dataclass
class Difference:
    """How far an export is from the model that it was made of.

    Args:
        largest: of all outputs of all rows, for each 1 that the largest output of a row is above 1.
        row: where.
        output: in which output.
        rows: how many were compared.
    """

    largest: float = 0.0
    row: int = 0
    output: str = ""
    rows: int = 0

    def add(self, output: str, ours: Tensor, theirs: Tensor, before: int) -> None:
        """Look at one batch.

        Args:
            output: its name.
            ours: of the export, [B, ...].
            theirs: of the model, the same.
            before: rows that were looked at before.
        """
        ours, theirs = ours.flatten(1).double().cpu(), theirs.flatten(1).double().cpu()
        size = theirs.abs().nan_to_num(posinf=0.0).amax(1).clamp(min=1.0)
        far = ((ours - theirs).abs().amax(1) / size).nan_to_num(nan=float("inf"))
        if (worst := int(far.argmax())) is not None and float(far[worst]) >= self.largest:
            self.largest, self.row, self.output = float(far[worst]), before + worst, output

    def check(self, name: str) -> None:
        """Refuse an export that is not equal.

        Args:
            name: of its format.

        Raises:
            ValueError: says where, and by how much.
        """
        if self.largest > TOLERANCE:
            raise ValueError(
                f"{name} shall answer as PyTorch does, within {TOLERANCE:g}, and {self.output} of row {self.row} is "
                f"{self.largest:.2g} off: use PyTorch, or another version of torch or of the runtime."
            )


def columns_for(model: nn.Module, batch: Mapping[str, Any], labels: Iterable[str] = ("labels",)) -> dict[str, Tensor]:
    """Return what of a batch a model is called with, for its outputs alone.

    Args:
        model: of transformers.
        batch: as a collator makes it.
        labels: the names of what it would compute a loss of.
    """
    takes, drop = inspect.signature(model.forward).parameters, {"labels", *labels}
    return {n: one for n, one in batch.items() if n in takes and n not in drop and isinstance(one, Tensor)}


def compared(
    model: nn.Module, exports: Mapping[str, nn.Module], batches: Iterable[Mapping[str, Tensor]], plan: Plan
) -> dict[str, Difference]:
    """Let a model and its exports answer the same rows.

    Args:
        model: in eval mode.
        exports: by their names.
        batches: columns that the model takes.
        plan: names the outputs.

    Returns:
        name -> how far they are from the model's.
    """
    found, before = {name: Difference() for name in exports}, 0
    with torch.no_grad():
        for batch in batches:
            theirs = model(**batch)
            for name, export in exports.items():
                ours = export(**batch)
                for output in plan.outputs:
                    found[name].add(output, ours[output], theirs[output], before)
            before += len(theirs[plan.outputs[0]])
    for one in found.values():
        one.rows = before
    return found


def random_batches(model: nn.Module, plan: Plan) -> list[dict[str, Tensor]]:
    """Make random rows of other sizes than those that were exported.

    Args:
        model: of transformers.
        plan: with the example.
    """
    if IDS not in plan.example:
        return [{name: torch.cat((one, one[:1])) for name, one in plan.example.items()}]
    draw, made = torch.Generator().manual_seed(0), []
    words = getattr(model.config, "vocab_size", 100)
    for rows, tokens in ((1, 5), (3, 12)):
        ids = torch.randint(min(5, words - 1), words, (rows, tokens), generator=draw)
        batch = {name: torch.zeros_like(ids) for name in plan.example}
        mask = torch.ones_like(ids)
        mask[-1, tokens // 2 + 1 :] = 0
        made.append({**batch, IDS: ids, **({MASK: mask} if MASK in batch else {})})
    return made
