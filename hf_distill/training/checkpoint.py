"""What a checkpoint holds beside the student, and which checkpoint is whole.

Knows: where the objective's parameters are saved, the order in which a checkpoint is written. Does not know: losses,
tasks, what a teacher or a term is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import SAFE_WEIGHTS_NAME

from hf_distill.models.computed_weights import computed_weights, recompute, split_state
from hf_distill.models.decoders import VAEDecoder, save_whole
from hf_distill.models.denoisers import of_diffusers, save_config
from hf_distill.models.outputs import core_of
from hf_distill.models.sharding import whole_state
from hf_distill.objectives.objective import CHILD, Objective
from hf_distill.training.renamed_weights import is_renamed, load_renamed

DIFFUSERS = "diffusion_pytorch_model.safetensors"
"""What diffusers calls a model's weights."""
FILE = "distillation.safetensors"
"""The objective's parameters, beside the student's in a checkpoint; never in a published folder."""
MASKS = "masked_weights.safetensors"
"""What a masked student's weights are computed from, beside them in a checkpoint; see ``models/computed_weights``."""


def last_whole_checkpoint(folder: str | Path) -> Path | None:
    """Find the newest checkpoint that was written to its end.

    ``trainer_state.json`` is the last file of a checkpoint, written when all ranks have written theirs; a run that
    was killed while saving leaves a folder without it, or with half of it.

    Args:
        folder: the run's output folder.

    Returns:
        The checkpoint's folder; None where there is none.

    Example:
        >>> import tempfile
        >>> print(last_whole_checkpoint(tempfile.mkdtemp()))
        None
    """
    found = (path for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if is_whole(path))
    steps = {int(p.name.rpartition("-")[2]): p for p in found if p.name.rpartition("-")[2].isdecimal()}
    return steps[max(steps)] if steps else None


def is_whole(checkpoint: str | Path) -> bool:
    """Say whether a checkpoint was written to its end; see ``last_whole_checkpoint``.

    Args:
        checkpoint: its folder.
    """
    try:
        json.loads((Path(checkpoint) / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


class CheckpointMixin:
    """The part of the trainer that saves and loads; it keeps the objective's parameters out of every export."""

    distillation: Any
    teacher: Any
    _in_checkpoint = False
    _renamed: Any = None  # what a file's names did not fit, until it is loaded again
    _unmasked = False  # whether the student's masks were not in that file
    uploads_checkpoints: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        masked = computed_weights(self.model) if self.is_fsdp_enabled or self.is_deepspeed_enabled else {}
        if masked:
            raise ValueError(
                f"the student computes {next(iter(masked))} from others (a mask or a parametrization), which FSDP and "
                "DeepSpeed would spread over ranks apart: train it with DDP."
            )

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train as Trainer does; ``True`` resumes from the newest checkpoint that was written to its end.

        Args:
            resume_from_checkpoint: a checkpoint's folder, or True for the newest whole one of ``args.output_dir``.
            *args: as in ``Trainer.train``.
            **kwargs: as in ``Trainer.train``.

        Returns:
            As ``Trainer.train``.

        Raises:
            ValueError: there is no whole checkpoint, or the one that was named is not whole.
        """
        if resume_from_checkpoint:
            named = resume_from_checkpoint is not True
            last = last_whole_checkpoint(Path(resume_from_checkpoint).parent if named else self.args.output_dir)
            if named and Path(resume_from_checkpoint).is_dir() and not is_whole(resume_from_checkpoint):
                raise ValueError(
                    f"{resume_from_checkpoint} was not written to its end, the newest whole checkpoint there is "
                    f"{last}: resume from that one, or start anew."
                )
            if not named and last is None:
                raise ValueError(
                    # Trainer's own words come first: scripts look for them.
                    f"No valid checkpoint found in output directory ({self.args.output_dir}), of which one was to be "
                    "resumed: start without resume_from_checkpoint."
                )
            resume_from_checkpoint = resume_from_checkpoint if named else str(last)
            if self.teacher is not None:
                self.teacher.load(resume_from_checkpoint)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    # ---- Saving ----

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self._in_checkpoint = True
        try:
            super()._save_checkpoint(*args, **kwargs)
        finally:
            self._in_checkpoint = False

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the student as Trainer does; under FSDP also when checkpoints are sharded.

        Args:
            output_dir: where to; None takes ``args.output_dir``.
            _internal_call: Trainer's own.
        """
        folder = output_dir or self.args.output_dir
        beside = self._carried and not self.is_deepspeed_enabled  # DeepSpeed's own checkpoint has it
        if beside and self._in_checkpoint:
            state = whole_state(self.distillation.objective)
            if self.args.should_save:
                Path(folder).mkdir(parents=True, exist_ok=True)
                save_file(state, Path(folder) / FILE)
        plugin = self.accelerator.state.fsdp_plugin if self.is_fsdp_enabled else None
        if plugin is None or self._in_checkpoint or "FULL" in str(plugin.state_dict_type):
            super().save_model(output_dir, _internal_call)
            return
        asked = plugin.state_dict_type
        plugin.set_state_dict_type("FULL_STATE_DICT")  # Trainer writes nothing under another type
        try:
            super().save_model(output_dir, _internal_call)
        finally:
            plugin.set_state_dict_type(asked)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        masked = not hasattr(self.model, "peft_config") and bool(computed_weights(self.model))
        if masked or (self._carried and (state_dict is not None or not isinstance(self.model, PreTrainedModel))):
            state = self.model.state_dict() if state_dict is None else state_dict
            state_dict = {name: value for name, value in state.items() if not name.startswith(f"{CHILD}.")}
        if masked:  # whatever folder it is, `from_pretrained` reads it
            state_dict, parts = split_state(self.model, state_dict)
            if self._in_checkpoint and self.args.should_save:
                Path(output_dir).mkdir(parents=True, exist_ok=True)
                save_file({name: value.contiguous() for name, value in parts.items()}, Path(output_dir) / MASKS)
        super()._save(output_dir, state_dict)
        if not self.args.should_save:  # every rank comes here, one writes
            return
        folder, core = Path(output_dir or self.args.output_dir), self._core
        if isinstance(core, VAEDecoder):
            if not self._in_checkpoint:
                save_whole(core, folder / SAFE_WEIGHTS_NAME, folder / DIFFUSERS)
        elif of_diffusers(self.model) and not hasattr(self.model, "get_base_model"):
            self._as_diffusers(folder)
        if not self._in_checkpoint:
            self._save_quantized(core, folder)

    def _as_diffusers(self, folder: Path) -> None:
        """Let diffusers load what was saved; in a checkpoint the weights keep the name that Trainer resumes from."""
        save_config(self._core, folder)
        if not self._in_checkpoint:
            (folder / SAFE_WEIGHTS_NAME).replace(folder / DIFFUSERS)

    def _save_rng_state(self, output_dir: str) -> None:
        """The last files of a rank; then wait, so that `trainer_state.json` follows everybody's."""
        super()._save_rng_state(output_dir)
        if self.teacher is not None:
            self.teacher.save(output_dir, self.args.process_index, answers=not self.uploads_checkpoints)
        self.accelerator.wait_for_everyone()

    # ---- Loading ----

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.teacher is not None:
            self._equip()  # the student that is loaded into must carry what the checkpoint holds
        self._renamed = None
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_renamed(resume_from_checkpoint)
        self._load_masks(resume_from_checkpoint)
        self._load_objective(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        self._renamed = None
        super()._load_best_model()
        self._load_renamed(self.state.best_model_checkpoint)
        self._load_masks(self.state.best_model_checkpoint)
        self._load_objective(self.state.best_model_checkpoint)

    def _load_renamed(self, checkpoint: str | Path) -> None:
        if self._renamed is not None:
            if not load_renamed(self._core, checkpoint):
                super()._issue_warnings_after_load(self._renamed)

    def _load_masks(self, checkpoint: str | Path) -> None:
        if hasattr(self.model, "peft_config"):
            return
        path = Path(checkpoint) / MASKS
        state = load_file(path) if path.is_file() else {}
        ours = {part for parts in computed_weights(self.model).values() for part in parts}
        if ours != state.keys() and not (ours and not state and not self._unmasked):
            odd = sorted(ours ^ state.keys())
            raise ValueError(
                f"the student has {len(ours)} parts of masked weights, {path} holds {len(state)} (they differ in "
                f"{odd[0]}): resume with a student that is masked as the checkpoint's was."
            )
        self.model.load_state_dict(state, strict=False)
        recompute(self.model)

    def _load_objective(self, checkpoint: str | Path) -> None:
        if not self._carried or self.is_deepspeed_enabled:  # DeepSpeed has loaded all that it trains
            return
        path, ours = Path(checkpoint) / FILE, self.distillation.objective.state_dict()
        state = load_file(path) if path.is_file() else {}
        found, wanted = ({name: list(value.shape) for name, value in held.items()} for held in (state, ours))
        if found != wanted:
            raise ValueError(
                f"the objective trains {wanted}, {path} holds {found or 'nothing'}: resume with the objective that "
                "the checkpoint was made with."
            )
        with torch.no_grad():
            for name, value in ours.items():
                whole = state[name].to(value.device, value.dtype)
                if isinstance(value, DTensor):
                    whole = distribute_tensor(whole, value.device_mesh, value.placements)
                value.copy_(whole)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        if self._carried:  # they come from a file of their own
            missing = [name for name in load_result.missing_keys if not name.startswith(f"{CHILD}.")]
            load_result = type(load_result)(missing, load_result.unexpected_keys)
        masked = {} if hasattr(self.model, "peft_config") else computed_weights(self.model)
        parts = {part for some in masked.values() for part in some}
        self._unmasked = bool(parts & {*load_result.missing_keys})
        if masked:  # they come from a file of their own, too
            missing = [name for name in load_result.missing_keys if name not in parts]
            over = [name for name in load_result.unexpected_keys if name not in masked]
            load_result = type(load_result)(missing, over)
        self._renamed = load_result if is_renamed(load_result) and not self.is_fsdp_enabled else None
        if self._renamed is None:
            super()._issue_warnings_after_load(load_result)

    # ---- Attaching ----

    @property
    def _core(self) -> nn.Module:
        """What is inside of the student's wrappers."""
        return core_of(self._unwrapped(self.model))

    @property
    def _carried(self) -> bool:
        """Whether the student carries an objective with parameters."""
        return isinstance(getattr(self._unwrapped(self.model), CHILD, None), Objective)
