"""The moving average of a student's weights, which is what is kept of it: usual for denoisers.

Knows: the student's parameters, when an optimizer step ends. Does not know: teachers, losses, batches.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_distill.objectives.objective import CHILD

FILE = "student_ema.safetensors"


class StudentEMA(TrainerCallback):
    """Averages what the student trains over its steps, and puts the average in its place at the end of a training.

    After each optimizer step ``t`` the average becomes ``d * average + (1 - d) * weights``, with ``d = min(decay,
    (1 + t) / (10 + t))``. What an evaluation on the way and a checkpoint hold are the weights that are trained, with
    the average beside; what ``save_model`` and an evaluation after the training see is the average. ``EMATeacher`` is
    something else: there the average teaches the student.

    Args:
        decay: d, from 0 to below 1: the share that stays.

    Raises:
        ValueError: a decay outside of that; when a training begins, weights that are in pieces (FSDP, DeepSpeed), or
            ``load_best_model_at_end``, which would put other weights in the place of the average.

    Reference:
        Ho et al.: Denoising Diffusion Probabilistic Models, arXiv:2006.11239, appendix B (decay 0.9999).

    Example:
        >>> StudentEMA(0.99).decay  # trainer = DistillationTrainer(model, ..., callbacks=[this])
        0.99
    """

    def __init__(self, decay: float = 0.999) -> None:
        if isinstance(decay, bool) or not isinstance(decay, (int, float)) or not 0 <= decay < 1:
            raise ValueError(f"decay={decay!r} was asked for: give a number from 0 to below 1, such as 0.999.")
        self.decay = decay
        self.averages: dict[str, Tensor] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Begin as the student is, or as the average was when the checkpoint was written."""
        if getattr(args, "fsdp", None) or getattr(args, "deepspeed", None):
            raise ValueError(
                "StudentEMA was asked for under FSDP or DeepSpeed, whose ranks may have pieces of the weights: train "
                "with DDP, or let EMATeacher average."
            )
        if args.load_best_model_at_end:
            raise ValueError(
                "StudentEMA was asked for with load_best_model_at_end, which puts the weights of a checkpoint in the "
                "place of the average: leave one of them out."
            )
        self.averages = {name: one.detach().float().clone() for name, one in _trained(model).items()}
        if state.global_step:
            self._restore(self._folder(args, state) / FILE)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Move towards the student."""
        share = 1 - min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        with torch.no_grad():
            for name, one in _trained(model).items():
                self.averages[name].lerp_(one.float(), share)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the average beside a checkpoint."""
        if args.should_save:
            save_file({name: one.cpu() for name, one in self.averages.items()}, self._folder(args, state) / FILE)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Put the average in the student's place."""
        with torch.no_grad():
            for name, one in _trained(model).items():
                one.copy_(self.averages[name])

    @staticmethod
    def _folder(args: Any, state: Any) -> Path:
        named = args.resume_from_checkpoint
        if named and Path(named).name == f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}":
            return Path(named)
        return Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"

    def _restore(self, path: Path) -> None:
        saved = load_file(path) if path.is_file() else {}
        if {name: one.shape for name, one in saved.items()} != {n: one.shape for n, one in self.averages.items()}:
            raise ValueError(
                f"StudentEMA was to go on from {path}, which is {'of another student' if saved else 'not there'}: "
                "resume from a checkpoint of output_dir that was made with it, or start anew."
            )
        for name, one in self.averages.items():
            one.copy_(saved[name])


def _trained(model: nn.Module) -> dict[str, Tensor]:
    """What is trained of a student by its name; not what an objective trains beside it."""
    return {n: p for n, p in model.named_parameters() if p.requires_grad and not n.startswith(f"{CHILD}.")}
