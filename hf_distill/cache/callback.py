"""What a cached teacher must know of a training: when an epoch ends, and whether remembering pays.

Knows: a trainer's callbacks, how many rows were remembered ones. Does not know: rows, models, where answers are kept.
"""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from transformers import TrainerCallback

from hf_distill.cache.prefill import fill
from hf_distill.tasks.supervision import STUDENT_WROTE

if TYPE_CHECKING:
    from transformers import Trainer

logger = logging.getLogger(__name__)
PATIENCE = 1000
"""How many rows of a later epoch may all be new before nothing more is kept."""


class Watch(TrainerCallback):
    """Follows a trainer for a cached teacher.

    Args:
        cached: the teacher.
        prepass: ask for all training rows before the first step.

    Attributes:
        ahead: in how many epochs rows are seen, of several trainings together; 0: this one is all.
        each_epoch: whether rows come again in the next epoch, though the collator has several views of them.
    """

    def __init__(self, cached: Any, prepass: bool = False) -> None:
        self.cached, self.prepass, self.each_epoch, self.ahead = cached, prepass, False, 0
        self.repeats = self.reevaluates = self.stopped = False
        self.device: Any = "cpu"
        self.trainer: Trainer | None = None
        self._asking = False
        self._logged = [0, 0]
        self._round = self._epoch = 1  # after how many epochs a row comes again, and in which one the run is
        self._ranks, self._before, self._rows, self._hits, self._passing = 1, 0, 0, 0, 0

    @property
    def training(self) -> bool:
        """Whether the trainer is in a training step, and not in an evaluation."""
        run = self.trainer
        return run is not None and not self._asking and run.is_in_train and run.model.training

    def follow(self, trainer: Trainer) -> None:
        """Be told of its epochs.

        Args:
            trainer: the trainer; a second one takes the first one's place.

        Raises:
            ValueError: not all training rows can be asked for before the first step.
        """
        self.trainer = trainer
        collator = trainer.data_collator
        never = sys.maxsize if getattr(collator, "always_new", False) else 1
        self._round = getattr(collator, "recurring", None) or never
        self._ranks, self.device = trainer.accelerator.num_processes, trainer.args.device
        if self.prepass and (self.cached.collective or not hasattr(trainer.train_dataset, "__len__")):
            what = "the teacher is sharded over ranks" if self.cached.collective else "the training set has no length"
            raise ValueError(
                f"teacher_prepass=True was asked, but {what}: leave it out, or fill a folder with hf-distill cache."
            )
        if self not in trainer.callback_handler.callbacks:
            trainer.callback_handler.callbacks.append(self)  # add_callback warns where another teacher has one too

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Learn whether the run sees a row more than once; a stream of unknown length does not say."""
        self._epoch, epochs = 0, max(self.ahead, state.num_train_epochs)
        self.repeats = (1 if self.each_epoch else self._round) < epochs < sys.maxsize
        steps = args.eval_strategy == "steps" and state.max_steps > 2 * max(1, state.eval_steps or 1)
        self.reevaluates = args.eval_strategy != "no" and (1 < epochs < sys.maxsize or steps)
        self.stopped, self._before, self._rows, self._hits, self._passing = False, 0, 0, 0, 0
        if self.prepass:
            self._asking = True
            try:
                self._ask_for_all()
            finally:
                self._asking = False

    def _ask_for_all(self) -> None:
        trainer = self.trainer
        rows, collator = trainer.train_dataset, trainer.data_collator
        if isinstance(rows, Dataset):
            rows = trainer._remove_unused_columns(rows, description="training")
        else:
            collator = trainer._get_collator_with_removed_columns(collator, description="training")
        rank = trainer.accelerator.process_index
        needs = frozenset(need.partition("@")[0] for need in trainer.distillation.teacher_needs)
        fill(self.cached, rows, collator, needs, device=self.device, rank=rank, ranks=self._ranks)
        self.cached.memory.share(self._ranks)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count anew, and look at all of the teacher."""
        self.cached.notice(whole=True)
        self._epoch += 1
        self._before, self._rows, self._hits, self._passing = self._rows - self._passing, 0, 0, 0

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write, and let the other ranks know: without it each would have to ask for what another one knows."""
        self._judge(last=True)
        self.cached.memory.share(self._ranks)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write what is left."""
        self.cached.memory.flush()

    def foresee(self, batches: Sequence[Mapping[str, Any]]) -> None:
        """Learn which rows of the next training step will not come again.

        They are copies, augmented anew in each epoch, and what the student writes, which is learning. In a folder
        copies are kept: the next run with the same seed makes the same ones.

        Args:
            batches: the micro-batches, with their keys; in each the rows come before their copies.
        """
        copies = getattr(self.trainer, "copies", 0) if self.cached.memory.folder is None else 0
        again, every = set(), set()
        for batch in batches:
            keys, wrote = batch[self.cached.column], batch.get(STUDENT_WROTE)
            every.update(keys)
            keys = keys[: len(keys) // (1 + copies)]
            again.update(keys if wrote is None else itertools.compress(keys, (~wrote).tolist()))
        self.cached.memory.passing = frozenset(every - again)
        self._passing += len(self.cached.memory.passing)

    def count(self, rows: int, hits: int) -> None:
        """Count the rows of a training batch.

        Args:
            rows: how many there were.
            hits: how many of them were kept ones.
        """
        self._rows, self._hits = self._rows + rows, self._hits + hits
        self._logged = [hits + self._logged[0], rows + self._logged[1]]
        if not self.cached.collective:  # ranks that ask together must stop together, at the end of the epoch
            self._judge(last=False)

    def drain(self) -> tuple[int, int]:
        """Return how many rows were kept ones, of how many, since it was last asked."""
        logged, self._logged = self._logged, [0, 0]
        return logged[0], logged[1]

    def _judge(self, last: bool) -> None:
        """Stop where a later epoch brings only new rows, as random augmentation does."""
        if self._epoch <= self._round:
            return
        rows = self._rows - self._passing  # that could have been seen before
        enough = rows >= PATIENCE or (last and rows > 0)
        new = enough and not self._hits and self._before >= min(rows, PATIENCE)
        if last:  # ranks that ask together stop together
            new = not self.cached.anywhere(not new)
        if new and not self.stopped:
            self.stopped = True
            logger.warning(
                "None of the first %d rows of an epoch were seen before: the answers of %s are no longer kept. Random "
                "augmentation does this; so does a collator that pads a model which sees padding.",
                rows,
                self.cached.facts.name,
            )
            self.cached.memory.forget()
