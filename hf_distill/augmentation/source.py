"""Batches with augmented copies behind their rows, in training only.

Knows: when a training starts and an epoch begins, what can be augmented at all. Does not know: how a row is changed,
how a loss is computed, where a teacher's answers are kept.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from transformers import TrainerCallback, TrainingArguments

from hf_distill.augmentation.collator import AugmentingCollator, check_columns
from hf_distill.augmentation.settings import augmentations_of

logger = logging.getLogger(__name__)
LEFT_OUT = "augmentation=%r is left out: only a teacher can speak about a row without a label, and none is heard."


class Epochs(TrainerCallback):
    """Tells a collator which epoch begins, before the epoch's first batch is made or a worker is started.

    A stream does not know how long it is, so its epochs are counted; a resumed run counts on from the epoch it is in.
    """

    def __init__(self) -> None:
        self.collator: AugmentingCollator | None = None
        self.next = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start at the epoch that the run starts in."""
        self.next = int(state.epoch or 0)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell the collator."""
        if self.collator is not None:
            self.collator.epoch = self.next
        self.next += 1


class Augmenting:
    """Makes the collator of training batches; it reads ``args.augmentation``, see ``TransferArguments``.

    Args:
        task: how the student is read.
        taught: whether there is a teacher, who alone can speak about a row without a label.
        args: the run's arguments, read anew each time.
        tokenizer: the run's tokenizer, a processor, or None.
        own_loss: whether the user has a loss function of their own.
    """

    def __init__(self, task: Any, taught: bool, args: TrainingArguments, tokenizer: Any, own_loss: bool) -> None:
        self.task, self.taught, self.args, self.tokenizer, self.own_loss = task, taught, args, tokenizer, own_loss
        self.epochs = Epochs()
        self._made: tuple[Any, AugmentingCollator | None] | None = None

    def collator(self, alpha: float, inner: Any, columns: Iterable[str]) -> AugmentingCollator | None:
        """Return the collator of training batches; None where nothing is augmented.

        Args:
            alpha: the teacher's share of the loss.
            inner: the run's own collator.
            columns: those of the training set.

        Raises:
            ValueError: in one sentence, what was asked for cannot be done.
        """
        asked = getattr(self.args, "augmentation", None)
        if asked is None:
            return None
        if not self.taught or alpha == 0:
            if self._made is None or self._made[0] != "told":
                logger.warning(LEFT_OUT, asked)
                self._made = ("told", None)
            return None
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        key = (asked, alpha < 1, seed, id(inner))
        if self._made is None or self._made[0] != key:
            self._made = (key, self._make(*augmentations_of(asked), seed, alpha, inner, columns))
        return self._made[1]

    def _make(
        self, augmentations: list[Any], copies: int, seed: int, alpha: float, inner: Any, columns: Iterable[str]
    ) -> AugmentingCollator:
        # Only a task whose samples have one label each can say what a sample without one looks like.
        if (no_label := getattr(self.task, "no_label", None)) is None:
            raise ValueError(
                f"augmentation adds samples without a label, which {type(self.task).__name__} cannot read: its "
                "labels go with the tokens: leave augmentation out."
            )
        args, workers = self.args, self.args.dataloader_num_workers
        own = "a compute_loss_func" if self.own_loss else "a loss of its own"
        if alpha < 1 and (self.own_loss or self.task.own_loss):
            raise ValueError(
                f"augmentation adds rows without a label, and {own} may count them: set alpha=1, or leave "
                "augmentation out."
            )
        if workers and args.dataloader_persistent_workers:
            raise ValueError(
                "augmentation differs from epoch to epoch, and dataloader_persistent_workers keeps workers that know "
                "only the first: set dataloader_persistent_workers=False."
            )
        here = next((type(one).__name__.lower() for one in augmentations if one.here), None)
        if workers and here:
            raise ValueError(
                f"augmentation {here} runs a model while batches are made, dataloader_num_workers={workers} makes "
                "them in other processes: set dataloader_num_workers=0."
            )
        known = (self.tokenizer, getattr(inner, "tokenizer", None))
        tokenizer = next((one for one in known if hasattr(one, "all_special_ids")), None)
        if tokenizer is None:
            raise ValueError(
                "augmentation must know which tokens are special, and no tokenizer was given: pass processing_class=."
            )
        check_columns(columns)
        for one in augmentations:
            if one.here:
                one.load(tokenizer, args.device)
        return AugmentingCollator(inner, augmentations, copies, seed=seed, tokenizer=tokenizer, no_label=no_label)
