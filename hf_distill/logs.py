"""What a run tells: the parts of its loss, in training and in evaluation, and how often the teacher was spared.

Knows: tallies, Trainer's logging. Does not know: how a part is computed, tasks, where a teacher's answers come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hf_distill.tally import Tally

HITS = "teacher_cache_hits"
"""The share of the rows of training batches, since the last log, for which the teacher did not have to run."""


class LogMixin:
    """The part of the trainer that logs."""

    teacher: Any
    _training: Tally
    _evaluating: Tally | None

    def _note(self, parts: Mapping[str, Tensor], stepping: bool) -> None:
        if stepping:
            self._training.add(parts)
        elif self._evaluating is not None:
            # As Trainer treats the loss: once for each sample, without those that only fill up the last batch.
            each = torch.stack([value.detach().float() for value in parts.values()])
            each = self.accelerator.gather_for_metrics(each.repeat(self.args.eval_batch_size, 1))
            self._evaluating.add(dict(zip(parts, each.sum(dim=0), strict=True)))
            self._evaluating.weight += len(each)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the training loss, each normalised as in the loss and before alpha and weights.

        Args:
            logs: what Trainer logs; ``loss/hard``, ``loss/forward_kl``, ... are added to its training entries, and
                ``teacher_cache_hits`` where the teacher's answers are kept.
            start_time: when training started.
        """
        if "loss" in logs:
            parts = self._training.drain(lambda totals: self.accelerator.reduce(totals, reduction="mean"))
            logs.update({f"loss/{name}": value for name, value in parts.items()})
            if hasattr(self.teacher, "drain"):
                counted = torch.tensor(self.teacher.drain(), device=self.args.device)
                hits, rows = self.accelerator.reduce(counted, reduction="sum").tolist()
                logs.update({HITS: hits / rows} if rows else {})
        super().log(logs, start_time)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate as Trainer does; ``eval_loss`` is the same blend, its parts are ``eval_loss/hard``, ...

        Args:
            *args: as in ``Trainer.evaluation_loop``.
            **kwargs: as in ``Trainer.evaluation_loop``.

        Returns:
            Trainer's own output; predictions hold what they would hold without a teacher.
        """
        self._evaluating = Tally()
        try:
            output = super().evaluation_loop(*args, **kwargs)
            parts = self._evaluating.drain()
        finally:
            self._evaluating = None
        prefix = kwargs.get("metric_key_prefix", "eval")
        output.metrics.update({f"{prefix}_loss/{name}": value for name, value in parts.items()})
        return output
