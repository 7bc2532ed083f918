"""The trainer of encoder-decoder models, which can evaluate by generating.

Knows: what ``Seq2SeqTrainer`` adds to ``Trainer``. Does not know: how a loss is blended.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Seq2SeqTrainer

from hf_distill.trainer import DistillationMixin
from hf_distill.training.signature import signature_of


class Seq2SeqDistillationTrainer(DistillationMixin, Seq2SeqTrainer):
    """``Seq2SeqTrainer`` that also listens to a teacher; see ``DistillationMixin`` for what is added."""

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, *args: Any, **kwargs: Any
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Generate as ``Seq2SeqTrainer`` does under ``predict_with_generate``; the loss is the same blend as without.

        Args:
            model: the student, wrapped or not.
            inputs: one batch.
            prediction_loss_only: whether to return the loss alone.
            *args: as in ``Seq2SeqTrainer.prediction_step``.
            **kwargs: as in ``Seq2SeqTrainer.prediction_step``, options of ``generate`` included.

        Returns:
            Loss, generated tokens and labels, each where there are some.
        """
        if self.teacher is None or prediction_loss_only or not self.args.predict_with_generate:
            return super().prediction_step(model, inputs, prediction_loss_only, *args, **kwargs)
        loss, inputs = None, self._prepare_inputs(inputs)
        if "labels" in inputs:
            with torch.no_grad(), self.compute_loss_context_manager():
                loss = self.compute_loss(model, inputs).detach()
        own = {name: value for name, value in inputs.items() if name not in self.foreign}
        return (loss, *super().prediction_step(model, own, prediction_loss_only, *args, **kwargs)[1:])


Seq2SeqDistillationTrainer.__signature__ = signature_of(DistillationMixin, Seq2SeqTrainer)
