"""A collator for generators: draws latents for each row, or hands on those that rows have, with real ones beside.

Knows: rows, chance that hangs on a row and the epoch alone. Does not know: models, losses, trainers.
"""

from __future__ import annotations

import copy
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xxhash
from datasets import Dataset
from torch import Tensor

from hf_distill.augmentation.denoising_collator import FIXED, pixels_of

TARGET = "target"
ROW = "row"


class LatentCollator:
    """Makes batches of latents: the same for the teacher and the student, drawn or read.

    In training (``for_training``, which the trainer asks for its training batches) what is drawn hangs on ``seed``,
    the row's ``by`` and the epoch: not on ranks, workers, the order of the rows or the step at which a run was
    resumed. With ``recurring=K`` only on the epoch modulo K: each row then has K latents, and a teacher whose answers
    are kept is asked K times for it. In evaluation a row has one, of its own.

    Args:
        draws: what the forward calls it -> the shape of one row, drawn from a normal distribution:
            ``{"z": (128,)}`` of a GAN, ``{"latents": (4, 8, 8)}`` of a decoder without any image,
            ``{"noise_sequence": (40, 64)}`` of UnivNet.
        columns: what the forward calls it -> the column of the data set: ``{"latents": "latents"}``,
            ``{"spectrogram": "mel"}``, ``{"class_labels": "label"}``.
        target: the column of real images or waves; of pictures, or bytes [height, width] and [height, width, C],
            which then go from -1 to 1. A row that has None there is taught and not supervised. None: there is none.
        by: the column that names a row where something is drawn; see ``latent_rows``.
        recurring: how many latents a row has; None: a new one in every epoch.
        seed: of what is drawn.

    Raises:
        ValueError: nothing that a model could read, a shape that is none; rows without a column, or of several shapes.

    Example:
        >>> collate = LatentCollator({"z": (3,)}, {"class_labels": "label"})
        >>> {name: list(one.shape) for name, one in collate(latent_rows(2, classes=2)).items()}
        {'z': [2, 3], 'class_labels': [2]}
    """

    copies = 0

    def __init__(
        self,
        draws: Mapping[str, Sequence[int]] | None = None,
        columns: Mapping[str, str] | None = None,
        target: str | None = None,
        by: str = ROW,
        recurring: int | None = None,
        seed: int = 0,
    ) -> None:
        if recurring is not None and (isinstance(recurring, bool) or not isinstance(recurring, int) or recurring < 1):
            raise ValueError(f"recurring={recurring!r} was given: give how many latents a row has, at least 1.")
        self.draws = {name: tuple(shape) for name, shape in (draws or {}).items()}
        for name, shape in self.draws.items():
            if not shape or not all(type(size) is int and size > 0 for size in shape):
                raise ValueError(f"the shape {shape} was given for {name}: give the sizes of one row, such as (128,).")
        self.read = dict(columns or {})
        if not (self.draws or self.read):
            raise ValueError(
                "LatentCollator was given neither draws nor columns: say what the generator reads, such as "
                'draws={"z": (128,)}.'
            )
        if both := sorted(self.draws.keys() & self.read.keys()):
            raise ValueError(f"{', '.join(both)} was to be drawn and to be read of a column: leave one out.")
        self.target, self.by, self.recurring, self.seed = target, by, recurring, seed
        self.epoch, self.training = 0, False

    @property
    def columns(self) -> frozenset[str]:
        """The columns of the data set that it reads."""
        own = {self.by} if self.draws else set()
        return frozenset({*self.read.values(), *own, *({self.target} if self.target else ())})

    @property
    def always_new(self) -> bool:
        """Whether no row comes twice, but for those that recur."""
        return bool(self.draws)

    def for_training(self, taught: bool = True) -> LatentCollator:
        """Return the collator of training batches.

        Args:
            taught: whether a teacher is heard; without one no answers are kept, and nothing recurs.
        """
        changing = copy.copy(self)
        changing.training, changing.recurring = True, self.recurring if taught and self.draws else None
        return changing

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make a batch.

        Args:
            rows: what the data set gave for one micro-batch.

        Returns:
            What is drawn and what is read under the forward's names [B, ...], and ``target``, where there is one.
        """
        rows = list(rows)
        batch: dict[str, Tensor] = {}
        if self.draws:
            chances = [torch.Generator().manual_seed(self._chance(row, number)) for number, row in enumerate(rows)]
            for name, shape in sorted(self.draws.items()):
                batch[name] = torch.stack([torch.randn(shape, generator=chance) for chance in chances])
        for name, column in self.read.items():
            found = [pixels_of(_at(row, column, number), "", False) for number, row in enumerate(rows)]
            batch[name] = _stacked(found, column)
        if self.target is not None:
            batch[TARGET] = self._targets(rows)
        return batch

    def _targets(self, rows: Sequence[Mapping[str, Any]]) -> Tensor:
        """Real images or waves, NaN where a row has none; of a batch without any it does not matter how many."""
        found = [
            None if row.get(self.target) is None else pixels_of(row[self.target], f"row {number} of a batch").float()
            for number, row in enumerate(rows)
        ]
        known = [one for one in found if one is not None]
        nothing = torch.full_like(known[0], torch.nan) if known else torch.tensor(torch.nan)
        return _stacked([nothing if one is None else one for one in found], self.target)

    def _chance(self, row: Mapping[str, Any], number: int) -> int:
        if self.by not in row:
            raise ValueError(
                f"row {number} of a batch has no {self.by!r}, by which its latents are drawn, only {sorted(row)}: "
                "make rows with latent_rows(n), or name a column that differs from row to row (by=)."
            )
        epoch = (self.epoch if self.recurring is None else self.epoch % self.recurring) if self.training else FIXED
        own = np.ascontiguousarray(np.array(row[self.by]))
        content = array("q", [self.seed, epoch, *own.shape]).tobytes() + own.tobytes()
        return xxhash.xxh3_64_intdigest(content) >> 1  # as a generator takes it


def latent_rows(count: int, classes: int | None = None) -> Dataset:
    """Make rows for latents that are drawn: each has a number, and a class in turn.

    Args:
        count: how many; an epoch is once through them.
        classes: how many classes there are; None: none.

    Raises:
        ValueError: fewer than one.

    Example:
        >>> latent_rows(3, classes=2)[:]
        {'row': [0, 1, 2], 'label': [0, 1, 0]}
    """
    if count < 1 or (classes is not None and classes < 1):
        raise ValueError(f"{count} rows of {classes} classes were asked for: ask for one at least.")
    labels = {} if classes is None else {"label": [number % classes for number in range(count)]}
    return Dataset.from_dict({ROW: list(range(count)), **labels})


def _at(row: Mapping[str, Any], column: str, number: int) -> Any:
    if row.get(column) is None:
        raise ValueError(f"row {number} of a batch has no {column!r}, only {sorted(row)}: name its column (columns=).")
    return row[column]


def _stacked(found: Sequence[Tensor], column: str) -> Tensor:
    if len(forms := sorted({tuple(one.shape) for one in found})) > 1:
        raise ValueError(
            f"{column!r} has the shapes {', '.join(str(list(form)) for form in forms)} in one batch: cut rows to one "
            "size, as generators are trained."
        )
    stacked = torch.stack(list(found))
    return stacked.float() if stacked.is_floating_point() else stacked
