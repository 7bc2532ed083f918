"""Denoising: a model is given latents with noise in them and says what the noise, or what lies under it, is.

Knows: how models of diffusers show it, that their learned variance lies behind it. Does not know: schedules of noise,
how a batch got its noise, what a term compares, teachers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hf_distill.models.denoisers import (
    DENOISERS,
    IDS,
    check_latents,
    class_in,
    config_of,
    learns_variance,
    noisy_in,
    noisy_name,
    quieten,
)
from hf_distill.models.outputs import core_of
from hf_distill.signals import HeadSpec, Signals, Sum, Value
from hf_distill.tasks.task import Task

PREDICTION, VARIANCE, TARGET = "prediction", "variance", "target"


class Denoising(Task):
    """What a denoiser of diffusers predicts of latents at a time: the noise, a velocity, or what is under the noise.

    It is the value ``prediction`` [B, C, height * width], of tokens [B, T, C]: which of the three it is, is said by
    the scheduler that noised the batch, see ``DenoisingCollator``, and must be the same for both models. The
    supervised loss is its mean square distance from the column ``target``, each row weighs the same.

    A model with a learned variance gives twice as many channels. Those behind the prediction are the value
    ``variance``: nothing but a teacher teaches it.

    Args:
        variance: whether the student's learned variance is compared too.

    Reference:
        Ho et al.: Denoising Diffusion Probabilistic Models, arXiv:2006.11239, equation 14; Kim et al.: BK-SDM,
        arXiv:2305.15798, equations 2 and 3.

    Example:
        >>> batch = {"sample": torch.zeros(2, 1, 4, 4), "target": torch.ones(2, 1, 4, 4)}
        >>> task = Denoising()
        >>> {unit: n.item() for unit, n in task.counts(batch).items()}
        {'rows': 2, 'tokens': 2, 'samples': 2, 'labels': 2}
        >>> task.hard(batch["target"] * 3, batch)
        Sum(total=tensor(8.), count=tensor(2))
    """

    library: ClassVar[str] = "diffusers"
    auto_class: ClassVar[str] = "AutoModel"
    pipeline_tag: str = "unconditional-image-generation"
    processor_class: ClassVar[str] = ""
    noun: ClassVar[str] = "images"
    example: ClassVar[str] = ""
    default_objective: ClassVar[str] = "value_mse"
    plain_labels: ClassVar[bool] = False
    label_names: ClassVar[tuple[str, ...]] = (TARGET,)
    streams: ClassVar[tuple[str, ...]] = ("vision",)
    heads: ClassVar[tuple[HeadSpec, ...]] = ()

    def __init__(self, variance: bool = False) -> None:
        self.values = (PREDICTION, VARIANCE) if variance else (PREDICTION,)

    @classmethod
    def from_model(cls, model: nn.Module) -> Denoising | None:
        """Return the task for a denoiser, None for any other model; see ``Task.from_model``."""
        if not class_in(model, DENOISERS):
            return None
        task = cls(learns_variance(model))
        config = config_of(model)
        prompted = any(config.get(name) for name in ("cross_attention_dim", "joint_attention_dim"))
        task.pipeline_tag = "text-to-image" if prompted else cls.pipeline_tag
        return task

    def infer_from_batch(self, model: nn.Module, batch: Mapping[str, Any]) -> bool:
        """Let the student drop no conditions by itself, unlike its teacher; see ``Task.infer_from_batch``."""
        quieten(model)
        return False

    def asked(self, needs: frozenset[str]) -> frozenset[str]:
        """Refuse terms on what models of diffusers do not show; see ``Task.asked``.

        Raises:
            ValueError: in one sentence.
        """
        kinds = sorted({need.partition(":")[0].partition("@")[0] for need in needs} & {"hidden", "attention", "qkv"})
        if kinds:
            raise ValueError(
                f"the objective compares {' and '.join(kinds)}, which models of diffusers do not show: use tap_mse "
                'on one of their modules, such as {"tap_mse": {"path": "transformer_blocks.1"}}.'
            )
        return needs

    def check_batch(self, batch: Mapping[str, Any]) -> None:
        """Refuse targets of another form than the latents; see ``Task.check_batch``."""
        target, noisy = batch.get(TARGET), noisy_in(batch)
        if target is None or noisy is None:
            return
        there = list(target.shape) if isinstance(target, Tensor) else f"a {type(target).__name__}"
        # Beside the noisy latents some models read a mask and an image, in channels behind them.
        fits = isinstance(target, Tensor) and target.ndim == noisy.ndim and target.shape[2:] == noisy.shape[2:]
        if not fits or len(target) != len(noisy):
            raise ValueError(
                f"the target is {there}, the noisy latents {list(noisy.shape)}: let DenoisingCollator make both."
            )

    def rows(self, batch: Mapping[str, Any]) -> Tensor:
        """Every row counts, bool [B]; see ``Task.rows``."""
        found = _first(batch)
        return torch.ones(len(found), dtype=torch.bool, device=found.device)

    def labels(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Every row with a target, bool [B]; see ``Task.labels``."""
        target = batch.get(TARGET)
        return None if target is None else torch.ones(len(target), dtype=torch.bool, device=target.device)

    def mask(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Say that positions are not known before a forward; see ``Task.mask``."""
        return None

    def inputs(
        self, model: nn.Module, fed: dict[str, Any], batch: Mapping[str, Any], teacher: Signals | None = None
    ) -> dict[str, Any]:
        """Refuse latents that the model cannot read, and give it the places of tokens as it takes them."""
        if not class_in(model, DENOISERS) or (noisy := fed.get(noisy_name(model))) is None:
            return fed  # a function has none, a user's own model its own rules
        check_latents(model, type(core_of(model)).__name__, tuple(noisy.shape[1:]))
        places = {name: fed[name][0] for name in IDS if name in fed}  # a table for all rows
        sized = {"resolution": None, "aspect_ratio": None}  # PixArt reads these where it was trained with them
        more = {} if type(core_of(model)).__name__ != "PixArtTransformer2DModel" else {"added_cond_kwargs": sized}
        return {**more, **fed, **places}

    def hard(self, outputs: Any, batch: Mapping[str, Any], shown: Signals | None = None) -> Sum:
        """Sum over rows the mean square distance from the target; see ``Task.hard``."""
        target = batch[TARGET].float()
        predicted = _tensor(outputs, "the student").float()
        if predicted.ndim > 3:
            predicted = predicted[:, : target.shape[1]]  # a learned variance lies behind it
        if predicted.shape != target.shape:
            raise ValueError(
                f"the student predicted {list(predicted.shape)}, the target is {list(target.shape)}: use latents that "
                "it was made for."
            )
        each = (predicted - target).square().flatten(1).mean(dim=1)
        return Sum(each.sum(), torch.tensor(len(each), device=each.device))

    def signals(self, model: nn.Module, batch: Mapping[str, Any], outputs: Any, captured: Any = None) -> Signals:
        """Read the prediction, and a variance behind it; see ``Task.signals``."""
        name = "the teacher" if model is None else type(core_of(model)).__name__  # a function has no model
        shown, noisy = _tensor(outputs, name), noisy_in(batch)
        channels = None if noisy is None or shown.ndim < 4 else noisy.shape[1]
        values = {PREDICTION: shown}
        if channels is not None and shown.shape[1] == 2 * channels:
            values = dict(zip((PREDICTION, VARIANCE), shown.split(channels, dim=1), strict=True))
        return Signals({}, values={name: _value(one) for name, one in values.items() if name in self.values})

    def align(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Signals:
        """Refuse a teacher of other latents, or without a variance; see ``Task.align``."""
        for name, value in student.values.items():
            ours = list(value.tensor.shape)
            theirs = list(teacher.values[name].tensor.shape) if name in teacher.values else "none"
            if ours != theirs:
                way = "use a teacher of the same latents"
                if theirs == "none" and name == VARIANCE:
                    way = "pass task=Denoising(), which leaves it out"
                raise ValueError(f"the teacher gave a {name} of shape {theirs}, the student {ours}: {way}.")
        return replace(teacher, values={name: teacher.values[name] for name in student.values})


def _first(batch: Mapping[str, Any]) -> Tensor:
    noisy = noisy_in(batch)
    return noisy if noisy is not None else next(one for one in batch.values() if isinstance(one, Tensor))


def _tensor(outputs: Any, name: str) -> Tensor:
    """Find the prediction in what a model returned: its ``sample``, the first of a tuple, or all of it."""
    found = outputs
    if isinstance(outputs, Mapping):
        found = outputs.get("sample")
    elif isinstance(outputs, (tuple, list)):
        found = outputs[0] if outputs else None
    if not isinstance(found, Tensor) or found.ndim < 3:
        what = f"a tensor of shape {list(found.shape)}" if isinstance(found, Tensor) else f"a {type(outputs).__name__}"
        raise ValueError(
            f"a prediction was asked of {name}, it returned {what}: Denoising needs [B, C, height, width], as "
            "denoisers of diffusers give it under sample."
        )
    return found


def _value(shown: Tensor) -> Value:
    """[B, C, height * width], of which every channel counts; of tokens every token."""
    flat = shown.flatten(2)
    return Value(flat, torch.ones(flat.shape[:2], dtype=torch.bool, device=flat.device))
