"""What a run tells: the parts of its loss, in training and in evaluation, and how often the teacher was spared.

Knows: tallies, Trainer's logging. Does not know: how a part is computed, tasks, where a teacher's answers come from.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from hf_distill.signals import Signals
from hf_distill.tasks.layout import LAYOUT, Layout
from hf_distill.training.image_checks import naming_bad_images
from hf_distill.training.judge import Judge
from hf_distill.training.recording_checks import naming_bad_recordings
from hf_distill.training.tally import Tally
from hf_distill.training.window import Window

logger = logging.getLogger(__name__)

WITHOUT_LABELS = "rows_without_labels"
"""The share of the rows of training batches, since the last log, that have no label at any position, where there are
some: neither the labels nor the teacher teach anything there."""
WITHOUT_LABEL = (
    "%d of %d training rows have no label at any position, so nobody learns from them: a prompt has no answer, or was "
    "cut before it (max_length); leave such rows out; rows_without_labels in the log says how many there are."
)
BLEND = (
    "%s_loss is a blend with the teacher's loss (alpha=%g), so exp(%s_loss) is no perplexity: take %s_perplexity "
    "(%.4g), or %s_loss/hard, the supervised loss."
)
HITS = "teacher_cache_hits"
"""The share of the rows of training batches, since the last log, for which the teacher did not have to run."""


def of_recordings(logits: Any, mask: Tensor | None) -> Any:
    """Fill with -100 what was predicted behind the end of a recording.

    Args:
        logits: [B, T, V], others, or several.
        mask: bool [B, T], the frames that are no padding.

    Example:
        >>> of_recordings(torch.zeros(1, 2, 1), torch.tensor([[True, False]])).tolist()
        [[[0.0], [-100.0]]]
    """
    if isinstance(logits, (tuple, list)):
        return type(logits)(of_recordings(one, mask) for one in logits)
    if mask is None or not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[:2] != mask.shape:
        return logits
    return logits.masked_fill(~mask.to(logits.device).unsqueeze(-1), -100)


class LogMixin:
    """The part of the trainer that logs."""

    teacher: Any
    task: Any
    distillation: Any
    rollouts: Any
    _training: Tally
    _fidelity: Tally
    _evaluating: Tally | None
    _rows: Tensor | None = None
    _warned: bool = False
    _blended: bool = False

    @cached_property
    def _judge(self) -> Judge:
        """What is found of the teacher."""
        return Judge()

    def _note_rows(self, layout: Layout) -> None:
        """Count the rows of a training batch in which no position counts, and all of them."""
        rows = layout.rows
        if rows.ndim > 1:
            counts = torch.stack(((~rows.flatten(1).any(dim=1)).sum(), rows.sum().new_tensor(len(rows))))
            self._rows = counts if self._rows is None else self._rows + counts

    def _drain_rows(self) -> dict[str, float]:
        """Return the share of rows without a label since the last time, where there are some; tell it once."""
        beyond = self.distillation is not None and self.distillation.needs_hidden
        if self.task is None or not self.task.positions or beyond:  # a hidden state is taught without a label too
            return {}
        counts = torch.zeros(2, dtype=torch.int64) if self._rows is None else self._rows
        none, every = self.accelerator.reduce(counts.to(self.args.device), reduction="sum").tolist()
        self._rows = None
        if none and not self._warned:
            self._warned = True
            logger.warning(WITHOUT_LABEL, none, every)
        return {WITHOUT_LABELS: none / every} if none else {}

    def _note(self, parts: Mapping[str, Tensor], window: Window, stepping: bool) -> None:
        if stepping:
            self._training.add(parts)
        elif self._evaluating is not None:
            if "hard" in parts and self.task.linear:
                labels = window.counts["labels"].float()  # perplexity is that of all labels, not a mean over batches
                self._fidelity.add({"nats": parts["hard"] * labels, "labels": labels})
            # As Trainer treats the loss: once for each sample, without those that only fill up the last batch.
            each = torch.stack([value.detach().float() for value in parts.values()])
            each = self.accelerator.gather_for_metrics(each.repeat(self.args.eval_batch_size, 1))
            self._evaluating.add(dict(zip(parts, each.sum(dim=0), strict=True)))
            self._evaluating.weight += len(each)

    def _note_fidelity(self, both: tuple[Signals, Signals], batch: Mapping[str, Any]) -> None:
        """Add up how close the student comes to its teacher, row by row, and how right both are."""
        student, teacher = both
        heads = bool(teacher.heads) and "heads" in self.distillation.objective.needs
        if self._evaluating is None:
            if heads and not self.teacher.moves:
                self._judge.hear_early(self.task, both, batch, self.is_world_process_zero())
            return
        both = student, self.task.telling(student, teacher) if teacher.heads else teacher
        found = self._judge.hear(self.task, both, batch, self._own_samples(batch))
        if found:
            self._fidelity.add({"rows": found["kl"].count.float(), **{name: one.total for name, one in found.items()}})

    def _own_samples(self, batch: Mapping[str, Any]) -> Tensor:
        """Which samples of an evaluation batch are rows, and not there to fill up the ranks' last one: bool [B]."""
        state, count = self.accelerator.gradient_state, len(batch[LAYOUT].rows)
        place = torch.arange(count) + self.accelerator.process_index * count
        filled = self.accelerator.num_processes > 1 and state.end_of_dataloader and state.remainder > 0
        return place < state.remainder if filled else place >= 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the training loss, each normalised as in the loss and before alpha and weights.

        Args:
            logs: what Trainer logs; ``loss/hard``, ``loss/forward_kl``, ... are added to its training entries,
                ``teacher_cache_hits`` where the teacher's answers are kept, ``rows_without_labels`` where rows have no
                label at any position, and what ``Rollouts.drain`` names.
            start_time: when training started.
        """
        if "loss" in logs:
            parts = self._training.drain(lambda totals: self.accelerator.reduce(totals, reduction="mean"))
            logs.update({f"loss/{name}": value for name, value in parts.items()} | self._drain_rows())
            if self.task is not None:
                logs.update(self.task.noted())
            if self.distillation is not None:
                self.distillation.check_counts()
            if self.teacher is not None and (counted := self.teacher.cache_hits()) is not None:
                counted = torch.tensor(counted, device=self.args.device)
                hits, rows = self.accelerator.reduce(counted, reduction="sum").tolist()
                logs.update({HITS: hits / rows} if rows else {})
            if self.rollouts.asked(self.alpha) is not None:
                logs.update(self.rollouts.drain(self.accelerator))
        super().log(logs, start_time)

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, *args: Any, **kwargs: Any
    ) -> tuple[Tensor | None, Any, Any]:
        """Predict as Trainer does; frames behind the end of a recording are -100, as what Trainer pads with.

        Otherwise what is read off them would be words, and more of them the longer the other rows of a batch are.

        Args:
            model: the student, wrapped or not.
            inputs: one batch.
            prediction_loss_only: whether to return the loss alone.
            *args: as in ``Trainer.prediction_step``.
            **kwargs: as in ``Trainer.prediction_step``.

        Returns:
            Loss, logits and labels, each where there are some.
        """
        loss, logits, labels = super().prediction_step(model, inputs, prediction_loss_only, *args, **kwargs)
        if isinstance(logits, tuple):  # a tower's own outputs, or keys and values of a text, are nothing to gather
            kept = tuple(one for one in logits if not isinstance(one, (Mapping, Cache)))
            logits = kept[0] if len(kept) == 1 < len(logits) else kept
        nothing = labels is None or (isinstance(labels, tuple) and not labels)  # () where no column holds them
        if nothing and not prediction_loss_only and self.task is not None:
            stand_in = self.task.references(self._prepare_inputs(inputs))
            labels = labels if stand_in is None else stand_in  # () lets Trainer compute metrics without labels
        if logits is not None and self.task is not None and self.task.frames:
            logits = of_recordings(logits, self.task.mask(self._prepare_inputs(inputs)))
        return loss, logits, labels

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate as Trainer does; ``eval_loss`` is the same blend, its parts are ``eval_loss/hard``, ...

        With a teacher also ``eval_agreement``, the share of rows in which both choose the same class, and ``eval_kl``,
        KL(teacher, student) at temperature 1; for language models ``eval_perplexity``, of all labels together
        (``eval_loss/hard`` is a mean over batches, as Trainer's loss is). With a ``reader`` these are of the student
        by itself; all of them once more while every row reads are ``eval_read_loss``, ``eval_read_agreement``, ...

        Args:
            *args: as in ``Trainer.evaluation_loop``.
            **kwargs: as in ``Trainer.evaluation_loop``.

        Returns:
            Trainer's own output; predictions hold what they would hold without a teacher.
        """
        output = self._evaluated(*args, **kwargs)
        reader = None if self.distillation is None else self.distillation.reader
        writes = getattr(self.args, "predict_with_generate", False)
        if reader is None or writes or kwargs.get("description") != "Evaluation":
            return output
        prefix, reader.in_evaluation = f"{kwargs.get('metric_key_prefix', 'eval')}_read", True
        try:
            read = self._evaluated(*args, **{**kwargs, "metric_key_prefix": prefix}).metrics
        finally:
            reader.in_evaluation = False
        apart = ("_time", "_teacher_accuracy", "_teacher_perplexity", "_teacher_mse")  # the teacher reads nothing more
        output.metrics.update({name: value for name, value in read.items() if not name.endswith(apart)})
        return output

    def _evaluated(self, *args: Any, **kwargs: Any) -> Any:
        self._follow_args()
        self._evaluating, self._fidelity, self._judge.worth = Tally(), Tally(), None
        try:
            rows = getattr(args[0] if args else kwargs["dataloader"], "dataset", None)
            with naming_bad_images(rows, "the evaluation set"), naming_bad_recordings(rows, "the evaluation set"):
                output = super().evaluation_loop(*args, **kwargs)
            parts = self._evaluating.drain()
        finally:
            self._evaluating = None
        prefix = kwargs.get("metric_key_prefix", "eval")
        close = self._fidelity.drain(lambda totals: self.accelerator.reduce(totals, reduction="sum"))
        rows, nats, labels = (close.pop(name, 0.0) for name in ("rows", "nats", "labels"))
        output.metrics.update({f"{prefix}_{name}": total / max(1.0, rows) for name, total in close.items()})
        if labels:
            perplexity = output.metrics[f"{prefix}_perplexity"] = math.exp(min(nats / labels, 700.0))
            if self.alpha > 0 and not self._blended:
                self._blended = True  # stock scripts print exp(eval_loss)
                logger.warning(BLEND, prefix, self.alpha, prefix, prefix, perplexity, prefix)
        output.metrics.update({f"{prefix}_loss/{name}": value for name, value in parts.items()})
        self._note_worth(prefix, output.metrics)
        return output

    def _note_worth(self, prefix: str, metrics: dict[str, float]) -> None:
        """Add how right the teacher is beside its student, under names that nobody else took; warn where it is not."""
        if self._judge.worth is None:
            return
        worth = self._judge.worth.gather(lambda sums: self.accelerator.reduce(sums, reduction="sum"))
        for name, value in worth.figures().items():
            if f"{prefix}_{name.removeprefix('student_')}" not in metrics:  # that is the student's own
                metrics.setdefault(f"{prefix}_{name}", value)
        if not self.teacher.moves and "heads" in self.distillation.objective.needs:
            nothing, behind = worth.no_lead(prefix), worth.behind(prefix)
            self._judge.say("no lead", nothing, self.is_world_process_zero())
            self._judge.say("behind", None if nothing else behind, self.is_world_process_zero())
