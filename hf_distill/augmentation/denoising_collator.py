"""A collator of latents: draws noise and a time for each row, and what the denoiser is to say of them.

Knows: rows with latents and conditions, schedulers of diffusers, chance that hangs on a row's content and the epoch
alone. Does not know: losses, trainers, how latents or embeddings of prompts were made.
"""

from __future__ import annotations

import copy
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor, nn

from hf_distill.augmentation.noise import Noise, check_schedulers
from hf_distill.models.denoisers import IDS, check_latents, config_of, noisy_name, reads_tokens
from hf_distill.models.outputs import core_of

FIXED = -1
"""The epoch of whatever is no training: an evaluation has the same noise each time, and never one of a training."""


class DenoisingCollator:
    """Makes batches of noisy latents: the same noise, time and dropped conditions for the teacher and the student.

    In training (``for_training``, which the trainer asks for its training batches) they hang on ``seed``, the row's
    own latents and the epoch: not on ranks, workers, the order of the rows or the step at which a run was resumed.
    With ``recurring=K`` only on the epoch modulo K: each row then has K noises, and a teacher whose answers are kept
    is asked K times for it, however long the training is. In evaluation a row has one noise, of its own.

    Args:
        model: the student, which says what it calls latents and how it reads them.
        scheduler: the student's, of diffusers: how latents are noised, and what is predicted of them
            (``prediction_type``; those that match flows predict a velocity).
        teacher_scheduler: the teacher's, which must say the same; None: it is the student's.
        latents: the column of latents [C, height, width], as an autoencoder gives them, scaled; or of pictures, or
            bytes [height, width] and [height, width, C], for a model of pixels, which then go from -1 to 1.
        conditions: what the model reads beside -> its column: ``{"class_labels": "label"}``,
            ``{"encoder_hidden_states": "prompt_embeds", "pooled_projections": "pooled"}``. A name with a dot goes into
            a mapping: ``added_cond_kwargs.text_embeds``. Such a batch has no rows that could be kept.
        nothing: what the model reads -> what stands there where a condition is dropped: the number of no class, the
            embeddings of an empty prompt. What is not named stays.
        drop: the share of training rows whose conditions are dropped, for guidance without a classifier.
        recurring: how many noises a row has; None: a new one in every epoch.
        times: ``uniform``, or of flows ``logit_normal``, which draws the middle more often.
        guidance: what a model that was distilled from its own guidance is told of it (``guidance_embeds``).
        seed: of what is drawn.

    Raises:
        ValueError: schedulers that do not agree, or say nothing that is known; a share that is none; conditions that
            would be dropped for nothing; rows without latents, or with latents that the model does not read.
        TypeError: a model that reads no latents.

    Reference:
        Ho, Salimans: Classifier-Free Diffusion Guidance, arXiv:2207.12598, algorithm 1; Esser et al.: Scaling
        Rectified Flow Transformers, arXiv:2403.03206, section 3.1 (logit_normal).
    """

    copies = 0
    always_new = True  # but for those that recur

    def __init__(
        self,
        model: nn.Module,
        scheduler: Any,
        teacher_scheduler: Any = None,
        latents: str = "latents",
        conditions: Mapping[str, str] | None = None,
        nothing: Mapping[str, Any] | None = None,
        drop: float = 0.0,
        recurring: int | None = None,
        times: str = "uniform",
        guidance: float | None = None,
        seed: int = 0,
    ) -> None:
        if recurring is not None and (isinstance(recurring, bool) or not isinstance(recurring, int) or recurring < 1):
            raise ValueError(f"recurring={recurring!r} was given: give how many noises a row has, at least 1.")
        if isinstance(drop, bool) or not isinstance(drop, (int, float)) or not 0 <= drop < 1:
            raise ValueError(f"drop={drop!r} was given: give the share of rows, from 0 to below 1.")
        self.conditions, self.nothing = dict(conditions or {}), dict(nothing or {})
        if strangers := sorted(set(self.nothing) - set(self.conditions)):
            raise ValueError(
                f"nothing was given for {', '.join(strangers)}, which is no condition: name it there too."
            )
        if drop and not self.nothing:
            raise ValueError(
                f"drop={drop:g} was given without nothing=: say what stands in the place of a dropped condition, such "
                'as {"class_labels": 10}.'
            )
        if teacher_scheduler is not None:
            check_schedulers(scheduler, teacher_scheduler)
        self.noise = Noise(scheduler, times, scaled=not reads_tokens(model))
        self.name, self.tokens, self.who = noisy_name(model), reads_tokens(model), type(core_of(model)).__name__
        self.model = model
        if self.tokens and self.noise.predicts != "flow":
            raise ValueError(
                f"{self.who} matches flows, the scheduler's prediction_type is {self.noise.predicts}: give "
                "FlowMatchEulerDiscreteScheduler."
            )
        told = bool(config_of(model).get("guidance_embeds"))
        if told != (guidance is not None):
            way = "pass guidance=, such as 3.5" if told else "leave it out"
            raise ValueError(
                f"guidance={guidance} was given for {self.who}, which {'reads' if told else 'does not read'} its "
                f"guidance (guidance_embeds): {way}."
            )
        self.latents, self.drop, self.recurring, self.guidance, self.seed = latents, drop, recurring, guidance, seed
        self.epoch, self.training = 0, False

    @property
    def columns(self) -> frozenset[str]:
        """The columns of the data set that it reads."""
        return frozenset({self.latents, *self.conditions.values()})

    def for_training(self, taught: bool = True) -> DenoisingCollator:
        """Return the collator of training batches.

        Args:
            taught: whether a teacher is heard; without one no answers are kept, and no noise recurs.
        """
        changing = copy.copy(self)
        changing.training, changing.recurring = True, self.recurring if taught else None
        return changing

    def __getstate__(self) -> dict[str, Any]:
        """Go to a worker without the model, whose latents were looked at here."""
        return {**vars(self), "model": None}

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch.

        Args:
            rows: what the data set gave for one micro-batch.

        Returns:
            The noisy latents [B, C, height, width] under the model's own name for them, ``timestep`` [B], ``target``
            as the latents, and the conditions. A model that reads tokens is given [B, T, 4 C], and their places.
        """
        clean = self._stacked([self.read(row, self.latents, number) for number, row in enumerate(rows)])
        made = {name: self._condition(name, column, rows) for name, column in self.conditions.items()}
        draws = [torch.Generator().manual_seed(self._chance(one)) for one in clean]
        noise = torch.stack([torch.randn(one.shape, generator=draw) for one, draw in zip(clean, draws, strict=True)])
        times = torch.stack([self.noise.time(draw) for draw in draws])
        if self.training and self.drop:
            gone = torch.stack([torch.rand((), generator=draw) < self.drop for draw in draws])
            for name, nothing in self.nothing.items():
                empty = torch.as_tensor(nothing, dtype=made[name].dtype).expand_as(made[name][0])
                made[name][gone] = empty
        noisy, timestep, target = self.noise(clean, noise, times)
        batch = {self.name: noisy, "timestep": timestep, "target": target}
        if self.tokens:
            height, width = noisy.shape[2:]
            batch |= {self.name: packed(noisy), "target": packed(target), IDS[0]: _places(len(rows), height, width)}
            if (prompt := made.get("encoder_hidden_states")) is not None:
                batch[IDS[1]] = torch.zeros(*prompt.shape[:2], 3)
        if self.guidance is not None:
            batch["guidance"] = torch.full((len(rows),), float(self.guidance))
        return {**batch, **_nested(made)}

    def _chance(self, latents: Tensor) -> int:
        epoch = (self.epoch if self.recurring is None else self.epoch % self.recurring) if self.training else FIXED
        content = array("q", [self.seed, epoch, *latents.shape]).tobytes() + latents.numpy().tobytes()
        return xxhash.xxh3_64_intdigest(content) >> 1  # as a generator takes it

    def read(self, row: Mapping[str, Any], column: str, number: int) -> Tensor:
        """Return a column of a row as a model reads it; of a picture its bytes, brought to -1 to 1.

        Args:
            row: of the data set.
            column: its name.
            number: of the row in its batch, for a message.

        Returns:
            [C, height, width], or as the column holds it.

        Raises:
            ValueError: the row has no such column, or its picture cannot be read.
        """
        if (found := row.get(column)) is None:
            raise ValueError(
                f"row {number} of a batch has no {column!r}, only {sorted(row)}: name the columns (latents=, "
                "conditions=), and set remove_unused_columns=False if a transform makes them."
            )
        return pixels_of(found, f"row {number} of a batch", column == self.latents)

    def _stacked(self, latents: Sequence[Tensor]) -> Tensor:
        forms = sorted({tuple(one.shape) for one in latents})
        if len(forms) > 1:
            raise ValueError(
                f"latents of the shapes {', '.join(str(list(form)) for form in forms)} are in one batch: give batches "
                "of one shape (a sampler by size), or crop the images."
            )
        form = forms[0]
        if self.model is not None and not self.tokens:
            check_latents(self.model, self.who, form)
        elif self.tokens and (len(form) != 3 or form[1] % 2 or form[2] % 2):
            raise ValueError(
                f"latents of the shape {list(form)} were given to {self.who}, which reads them in squares of 2 x 2: "
                "give channels, and even sides."
            )
        return torch.stack([one.float() for one in latents])

    def _condition(self, name: str, column: str, rows: Sequence[Mapping[str, Any]]) -> Tensor:
        found = [self.read(row, column, number) for number, row in enumerate(rows)]
        if len(forms := sorted({tuple(one.shape) for one in found})) > 1:
            raise ValueError(
                f"the condition {name} ({column!r}) has the shapes {', '.join(str(list(one)) for one in forms)} in "
                "one batch: pad embeddings of prompts to one length, as their text encoder does."
            )
        return torch.stack(found)


def pixels_of(found: Any, who: str, picture: bool = True) -> Tensor:
    """Return the numbers of what a row holds.

    Args:
        found: a tensor, an array, a list; a picture, or one that is not decoded yet.
        who: how a message names the row.
        picture: bytes are those of a picture, and go from -1 to 1 [C, height, width].

    Raises:
        ValueError: a picture that cannot be decoded.

    Example:
        >>> pixels_of(np.array([[0, 255]], dtype=np.uint8), "a row").tolist()
        [[[-1.0, 1.0]]]
    """
    if isinstance(found, Tensor):
        return found
    if isinstance(found, (Mapping, bytes)):  # as datasets holds a picture that is not decoded yet
        found = _decoded(found, who)
    values = torch.as_tensor(np.array(found))  # a copy: what a picture holds cannot be written
    if not picture or values.dtype != torch.uint8:
        return values
    values = values[None] if values.ndim == 2 else values.permute(2, 0, 1)  # a picture's bytes
    return values.float() / 127.5 - 1


def packed(latents: Tensor) -> Tensor:
    """Lay squares of 2 x 2 latents out as tokens, as Flux reads them.

    Args:
        latents: [B, C, height, width], of even sides.

    Returns:
        [B, height / 2 * width / 2, 4 C].

    Example:
        >>> packed(torch.arange(8.0).view(1, 1, 2, 4)).tolist()
        [[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]]
    """
    squares = latents.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # [B, C, h, 2, w, 2]
    return squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def _places(rows: int, height: int, width: int) -> Tensor:
    """The line and the column of each token, behind a zero: [B, T, 3]."""
    line, column = torch.meshgrid(torch.arange(height // 2), torch.arange(width // 2), indexing="ij")
    places = torch.stack((torch.zeros_like(line), line, column), dim=-1).flatten(0, 1).float()
    return places.expand(rows, -1, -1).contiguous()


def _nested(columns: Mapping[str, Tensor]) -> dict[str, Any]:
    """Put ``a.b`` into the mapping ``a``."""
    made: dict[str, Any] = {}
    for name, value in columns.items():
        outer, _, inner = name.partition(".")
        if inner:
            made.setdefault(outer, {})[inner] = value
        else:
            made[name] = value
    return made


def _decoded(found: Any, who: str) -> Any:
    from hf_distill.augmentation.image_collator import UNREADABLE, opened  # needs Pillow, as pictures do

    try:
        return np.array(opened(found))
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:80]
        raise ValueError(
            f"{who} has a picture that cannot be decoded ({reason}): correct the file, or leave the row out."
        ) from error
