"""TRL's SFTTrainer with a teacher: its data preparation, packing and masks, our loss.

Knows: what SFTTrainer adds to Trainer. Does not know: how a loss is blended, what a term compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

try:
    from trl import SFTConfig, SFTTrainer
except ImportError as error:
    raise ImportError('hf_distill.integrations.trl needs TRL: pip install "hf_distill[trl]".') from error

from hf_distill.arguments import DistillationArguments
from hf_distill.models.texts import text_positions
from hf_distill.tasks.supervision import supervised
from hf_distill.trainer import DistillationMixin
from hf_distill.training.signature import signature_of


@dataclass
class SFTDistillationConfig(DistillationArguments, SFTConfig):
    """TRL's ``SFTConfig`` with the fields of ``DistillationArguments``.

    Example:
        >>> SFTDistillationConfig("out", alpha=0.9, packing=True, use_cpu=True, bf16=False).alpha
        0.9
    """


class SFTDistillationTrainer(DistillationMixin, SFTTrainer):
    """``SFTTrainer`` that also listens to a teacher; see ``DistillationMixin`` for what is added.

    Data sets, chat templates, packing, assistant-only and completion-only masks are SFTTrainer's: a position counts
    for the teacher where it counts for the labels. Without a teacher it is ``SFTTrainer``.

    Args:
        *args: as ``SFTTrainer``.
        **kwargs: as ``SFTTrainer``, and ``teacher_model``, ``objective``, ``task`` and ``rollout`` as
            ``DistillationMixin``.

    Raises:
        ValueError: a loss or an extra loss of SFTTrainer that a blend with a teacher leaves out.

    Example:
        >>> import inspect
        >>> list(inspect.signature(SFTDistillationTrainer).parameters)[-4:]  # after all of SFTTrainer's
        ['teacher_model', 'objective', 'task', 'rollout']
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.teacher is None:
            self.task = None  # SFTTrainer's own loss, which needs no logits
            self.loss_is_scaled_for_ga = None
            return
        loss = getattr(self.args, "loss_type", "nll")
        if loss != "nll" and self.alpha < 1:
            raise ValueError(f"loss_type={loss!r} was given beside a teacher, which is blended with 'nll': use that.")

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Blend as ``DistillationMixin`` does, and measure what SFTTrainer logs.

        Args:
            model: the student, wrapped or not.
            inputs: one micro-batch.
            return_outputs: whether to return the student's outputs too.
            num_items_in_batch: Trainer's count of labels.

        Returns:
            The loss, and the outputs if they were asked for.
        """
        if self.teacher is None:
            return SFTTrainer.compute_loss(self, model, inputs, return_outputs, num_items_in_batch)
        inputs = {**inputs, "use_cache": False}
        self._loss_only = self._loss_only or not return_outputs  # then logits of large vocabularies are not made
        try:
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        finally:
            self._loss_only = False
        self._measure(outputs, inputs)
        return (loss, outputs) if return_outputs else loss

    def _measure(self, outputs: Any, inputs: dict[str, Any]) -> None:
        """Tokens seen and, where there are logits, token accuracy, under SFTTrainer's names."""
        mode, targets = "train" if self.model.training else "eval", self.task.targets(supervised(inputs))
        tokens = text_positions(inputs).sum()
        counts = [tokens.new_zeros(()), tokens.new_zeros(()), tokens]
        made = outputs["logits"].shape[1] > 0
        if targets is not None and made:
            logits = outputs["logits"][:, -targets.shape[1] :].detach()
            counted = targets != -100
            counts[:2] = [((logits.argmax(-1) == targets) & counted).sum(), counted.sum()]
        right, all_of_them, tokens = self.accelerator.reduce(torch.stack(counts), reduction="sum").tolist()
        if made:
            self._metrics[mode]["mean_token_accuracy"].append(right / max(all_of_them, 1))
        if mode == "train":
            self._total_train_tokens += tokens // self._tp_size
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]


SFTDistillationTrainer.__signature__ = signature_of(DistillationMixin, SFTTrainer)
