"""Models as they are published: whole, quantised if they learned to be, without the autocast of their training.

Knows: what Accelerate and Trainer put around a model. Does not know: how a model is measured.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from transformers import Trainer

from hf_distill import LiveTeacher
from hf_distill.models.sharding import unsharded

HALF = {"bf16_full_eval": False, "fp16_full_eval": False}
"""Trainer's arguments that would cast a model in its place before it predicts."""


@contextmanager
def as_published(reference: Trainer, trainers: Mapping[str, Trainer]) -> Iterator[dict[str, nn.Module]]:
    """While open, trainers predict and a teacher answers as for a user who loads their models plainly.

    Under bfloat16 autocast a model is another one: of weak models a third of the figures change.

    Args:
        reference: a trainer with the teacher.
        trainers: of the students, by their names; the first may be one of them.

    Yields:
        ``teacher`` and each name: the whole model.
    """
    asked = reference.teacher
    live = getattr(asked, "teacher", asked)  # kept answers were given under autocast, and perhaps as a few ids
    with ExitStack() as stack:
        teacher = _placed(stack.enter_context(_plain(unsharded(live.model))), reference.args.device)
        models = {"teacher": teacher}
        students = {one: stack.enter_context(plainly(one)) for one in dict.fromkeys([reference, *trainers.values()])}
        reference.teacher = LiveTeacher(teacher, live.task, live.tokenizer)
        try:
            yield models | {name: students[one] for name, one in trainers.items()}
        finally:
            reference.teacher = asked


@contextmanager
def plainly(trainer: Trainer) -> Iterator[nn.Module]:
    """While open, a trainer predicts with its whole model, and asks no teacher for a loss.

    Args:
        trainer: trained or not.

    Yields:
        The model.
    """
    accelerator, args = trainer.accelerator, trainer.args
    before = (trainer.model, trainer.model_wrapped, accelerator.native_amp)
    quiet = {**HALF, **({"alpha": 0.0} if getattr(args, "alpha", None) else {})}
    kept = {name: getattr(args, name) for name in quiet}
    whole = unsharded(trainer.model)
    if (quantization := getattr(trainer, "quantization", None)) is not None:
        whole = quantization.convert(copy.deepcopy(whole))
    with _plain(whole) as model:
        trainer.model = trainer.model_wrapped = _placed(model, args.device)
        accelerator.native_amp = False
        accelerator._models.append(model)  # with none, an evaluation prepares its model as training does
        vars(args).update(quiet)
        try:
            yield model
        finally:
            accelerator._models.remove(model)
            trainer.model, trainer.model_wrapped, accelerator.native_amp = before
            vars(args).update(kept)


def precision(models: Mapping[str, nn.Module]) -> str:
    """Say in what models compute that are run plainly.

    Args:
        models: by their names.

    Example:
        >>> precision({"teacher": nn.Linear(1, 1).half(), "distilled": nn.Linear(1, 1)})
        'float32 (the teacher float16), without autocast'
    """
    kinds = {name: dtype_of(model) for name, model in models.items()}
    shown = {name: str(kind).removeprefix("torch.") for name, kind in kinds.items()}
    usual = shown[next(reversed(shown))]
    others = [f"{'the ' if name == 'teacher' else ''}{name} {kind}" for name, kind in shown.items() if kind != usual]
    return usual + (f" ({', '.join(others)})" if others else "") + ", without autocast"


def dtype_of(model: nn.Module) -> torch.dtype:
    """The dtype of a model's weights, whatever is packed beside them.

    Args:
        model: any.
    """
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


@contextmanager
def _plain(model: Any) -> Iterator[Any]:
    """Take Accelerate's autocast off a model's forward."""
    own = {name: vars(model)[name] for name in ("forward", "_original_forward") if name in vars(model)}
    if "_original_forward" in own:
        vars(model)["forward"] = vars(model).pop("_original_forward")
    try:
        yield model
    finally:
        vars(model).update(own)


def _placed(model: Any, device: torch.device) -> Any:
    """Bring a model to a device, unless it is where it must be: quantised, or spread over several."""
    stays = getattr(model, "quantization_method", None) or getattr(model, "hf_device_map", None)
    return model if stays else model.to(device)
