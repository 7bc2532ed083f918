"""A teacher that is the student's own past: the moving average of its weights.

Knows: the student's parameters, when an optimizer step ends. Does not know: batches, terms, optimizers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import broadcast
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import TrainerCallback

from hf_distill.models.facts import Facts
from hf_distill.objectives.objective import CHILD
from hf_distill.tasks import Task
from hf_distill.teachers.changes import local_of
from hf_distill.teachers.live import LiveTeacher

if TYPE_CHECKING:
    from transformers import Trainer

FILE = "ema_teacher{}.safetensors"
NAME = "the moving average of the student's weights"


class EMATeacher(LiveTeacher):
    """The exponential moving average of the student's weights, which is better than any of them ("mean teacher").

    After each optimizer step ``t`` every parameter becomes ``d * average + (1 - d) * student``, with
    ``d = min(decay, (1 + t) / (10 + t))``, so that a short run does not stay with the weights it began with. Buffers,
    such as a batch norm's statistics, are the student's. What the student trains is averaged in float32. The average
    begins as a copy of the student, follows it on all ranks, goes into each checkpoint, and is never answered from
    memory. Trained to its end, it may be what you want to keep: ``trainer.teacher.model.save_pretrained(folder)``.

    Args:
        decay: d, in [0, 1): the share that stays.
        task: how to read its outputs; None takes the trainer's.
        warmup: whether d begins smaller; otherwise it is ``decay`` from the first step on.

    Raises:
        ValueError: a decay outside of [0, 1); when the trainer is made, DeepSpeed ZeRO-3, whose ranks have no whole
            student to follow.

    Reference:
        Tarvainen, Valpola: arXiv:1703.01780, equation 1 and section 3.4. The smaller first decays are those of
        TensorFlow's ``ExponentialMovingAverage(num_updates)``.

    Example:
        >>> EMATeacher(decay=0.99).facts.name  # trainer = DistillationTrainer(model, ..., teacher_model=this)
        "the moving average of the student's weights"
    """

    moves = True

    def __init__(self, decay: float = 0.999, task: Task | None = None, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay} was asked for: give a number from 0 to below 1, such as 0.999.")
        super().__init__(nn.Identity(), task)
        self.facts = Facts(name=NAME)
        self.decay, self.warmup = decay, warmup
        self.wide: dict[str, Tensor] = {}  # the averages of parameters that are narrower than float32
        self._trainer: Trainer | None = None
        self._saved: tuple[Path, str] | None = None

    def prepare(self, trainer: Trainer) -> None:
        """Copy the student, and follow the trainer's steps; see ``Teacher.prepare``."""
        plugin = trainer.accelerator.state.deepspeed_plugin if trainer.is_deepspeed_enabled else None
        if plugin is not None and plugin.hf_ds_config.is_zero3():
            raise ValueError(
                "EMATeacher was asked for under DeepSpeed ZeRO-3, where no rank has the student's weights after a "
                "step: use ZeRO-2 or FSDP."
            )
        if trainer.is_fsdp_enabled and trainer.accelerator.state.fsdp_plugin.fsdp_version == 1:
            raise ValueError(
                "EMATeacher was asked for under FSDP1, whose student has no parameters: set fsdp_version to 2."
            )
        self._trainer = trainer
        self._copy()
        if not any(isinstance(one, _Steps) and one.teacher is self for one in trainer.callback_handler.callbacks):
            trainer.add_callback(_Steps(self))

    @property
    def student(self) -> nn.Module:
        """The student, without what wraps it."""
        return self._trainer.accelerator.unwrap_model(self._trainer.model, keep_torch_compile=False)

    def _copy(self) -> None:
        """Become another model than before: the student's twin."""
        self.model, self._run = copy.deepcopy(self.student), None
        if hasattr(self.model, CHILD):  # what an objective trains beside the student
            delattr(self.model, CHILD)
        self._read(self.model)
        self.facts = replace(self.facts, name=NAME)
        super().prepare(self._trainer)

    # ---- Following ----

    def begin(self, step: int) -> None:
        """Begin a training: as the student is, or as the average was when the checkpoint was written.

        Args:
            step: the optimizer step that it goes on from; 0: it does not go on.

        Raises:
            ValueError: the checkpoint has no average, or one of another student.
        """
        theirs, ours = _state(self.student), _state(self.model)
        if _shapes(theirs) != _shapes(ours):  # `model_init` has made another one
            self._copy()
            ours = _state(self.model)
        self.wide = {}
        with torch.no_grad():
            for name, value in ours.items():
                local_of(value).copy_(local_of(theirs[name]))
        if step and self._saved is not None:
            self._restore(*self._saved)

    def follow(self, step: int) -> None:
        """Move towards the student.

        Args:
            step: how many optimizer steps there were, from 1.
        """
        share = 1 - (min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay)
        learning = {_plain(name) for name, p in self.student.named_parameters() if p.requires_grad}
        theirs, ours = _state(self.student), _state(self.model)
        parameters = {_plain(name) for name, _ in self.model.named_parameters()}
        with torch.no_grad():
            for name in sorted(ours.keys() & (learning | self.wide.keys())):
                average = local_of(self._average(name, ours[name]))
                average.lerp_(local_of(theirs[name]).to(average), share)
                if name in self.wide:
                    local_of(ours[name]).copy_(average)
            for name in sorted(ours.keys() - parameters):  # of ranks that differ, the first one's, as DDP has it
                local_of(ours[name]).copy_(broadcast(local_of(theirs[name]).clone()))

    def _average(self, name: str, value: Tensor) -> Tensor:
        """The average of a parameter: itself, or a wider one beside it."""
        if value.dtype not in (torch.bfloat16, torch.float16):
            return value
        return self.wide.setdefault(name, value.float())

    # ---- Checkpoints ----

    def save(self, checkpoint: str | Path, rank: int, name: str = "", answers: bool = True) -> None:
        """Write the average beside a checkpoint; all ranks call it together.

        Args:
            checkpoint: its folder.
            rank: of this process; the first one writes.
            name: tells the teacher from others of the same run.
            answers: not looked at; these are weights.
        """
        averages = {n: self.wide.get(n, value) for n, value in _state(self.model).items()}
        whole = {n: v.full_tensor() if isinstance(v, DTensor) else v for n, v in averages.items()}
        if rank == 0:
            save_file({n: v.detach().cpu().clone() for n, v in whole.items()}, Path(checkpoint) / FILE.format(name))

    def load(self, checkpoint: str | Path, name: str = "") -> None:
        """Go on from a checkpoint, when its training begins.

        Args:
            checkpoint: its folder.
            name: as it was written under.
        """
        self._saved = (Path(checkpoint), name)

    def _restore(self, checkpoint: Path, name: str) -> None:
        path, ours = checkpoint / FILE.format(name), _state(self.model)
        saved = load_file(path) if path.is_file() else {}
        if _shapes(saved) != _shapes(ours):
            raise ValueError(
                f"EMATeacher was to go on from {path}, which is {'of another student' if saved else 'not there'}: "
                "resume from a checkpoint that was made with it, or start anew."
            )
        with torch.no_grad():
            for one, value in ours.items():
                whole = saved[one].to(value.device)
                if whole.dtype != value.dtype:
                    self.wide[one] = _as(whole, value)
                local_of(value).copy_(local_of(_as(whole, value)))


class _Steps(TrainerCallback):
    """Tells the teacher when a training begins and when an optimizer step ends, however many batches that took."""

    def __init__(self, teacher: EMATeacher) -> None:
        self.teacher = teacher

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.teacher.begin(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.teacher.follow(state.global_step)


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and persistent buffer by its name, in place; not what an objective trains beside a student."""
    kept = {**dict(model.named_parameters()), **dict(_buffers(model))}
    named = {_plain(name): value.detach() for name, value in kept.items()}
    return {name: value for name, value in named.items() if not name.startswith(f"{CHILD}.")}


def _buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                yield f"{path}.{name}" if path else name, buffer


def _plain(name: str) -> str:
    """A parameter's name without the wrappers that compile or checkpoint a part of the student."""
    return name.replace("_orig_mod.", "").replace("_checkpoint_wrapped_module.", "")


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}


def _as(whole: Tensor, value: Tensor) -> Tensor:
    """Spread a whole tensor as another one is."""
    return distribute_tensor(whole, value.device_mesh, value.placements) if isinstance(value, DTensor) else whole
