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
    """

    def __init__(self, task: Any, taught: bool) -> None:
        self.task, self.taught = task, taught
        self.epochs = Epochs()
        self._made: tuple[Any, AugmentingCollator | None] | None = None

    def collator(
        self, args: TrainingArguments, alpha: float, inner: Any, columns: Iterable[str], tokenizer: Any, own_loss: bool
    ) -> AugmentingCollator | None:
        """Return the collator of training batches; None where nothing is augmented.

        Args:
            args: the run's arguments.
            alpha: the teacher's share of the loss.
            inner: the run's own collator.
            columns: those of the training set.
            tokenizer: the run's tokenizer, a processor, or None.
            own_loss: whether the user has a loss function of their own.

        Raises:
            ValueError: in one sentence, what was asked for cannot be done.
        """
        asked = getattr(args, "augmentation", None)
        if asked is None:
            return None
        if not self.taught or alpha == 0:
            if self._made is None or self._made[0] != "told":
                logger.warning(LEFT_OUT, asked)
                self._made = ("told", None)
            return None
        seed = args.seed if args.data_seed is None else args.data_seed
        key = (asked, alpha < 1, seed, id(inner))
        if self._made is None or self._made[0] != key:
            self._check(args, alpha, columns, own_loss)
            self._made = (key, self._make(*augmentations_of(asked), seed, args, inner, tokenizer))
        return self._made[1]

    def _check(self, args: TrainingArguments, alpha: float, columns: Iterable[str], own_loss: bool) -> None:
        # Only a task whose samples have one label each can say what a sample without one looks like.
        if getattr(self.task, "no_label", None) is None:
            raise ValueError(
                f"augmentation adds samples without a label, which {type(self.task).__name__} cannot read: its "
                "labels go with the tokens: leave augmentation out."
            )
        own = "a compute_loss_func" if own_loss else "a loss of its own"
        if alpha < 1 and (own_loss or self.task.own_loss):
            raise ValueError(
                f"augmentation adds rows without a label, and {own} may count them: set alpha=1, or leave "
                "augmentation out."
            )
        self.check_workers(args)
        check_columns(columns)

    @staticmethod
    def check_workers(args: TrainingArguments) -> None:
        """Refuse workers that outlive an epoch.

        Args:
            args: the run's arguments.

        Raises:
            ValueError: in one sentence.
        """
        if args.dataloader_num_workers and args.dataloader_persistent_workers:
            raise ValueError(
                "augmentation differs from epoch to epoch, and dataloader_persistent_workers keeps workers that know "
                "only the first: set dataloader_persistent_workers=False."
            )

    def _make(
        self, augmentations: list[Any], copies: int, seed: int, args: TrainingArguments, inner: Any, tokenizer: Any
    ) -> AugmentingCollator:
        here = next((type(one).__name__.lower() for one in augmentations if one.here), None)
        if (workers := args.dataloader_num_workers) and here:
            raise ValueError(
                f"augmentation {here} runs a model while batches are made, dataloader_num_workers={workers} makes "
                "them in other processes: set dataloader_num_workers=0."
            )
        known = (tokenizer, getattr(inner, "tokenizer", None))
        special = next((one for one in known if hasattr(one, "all_special_ids")), None)
        if special is None:
            raise ValueError(
                "augmentation must know which tokens are special, and no tokenizer was given: pass processing_class=."
            )
        for one in augmentations:
            if one.here:
                one.load(special, args.device)
        no_label = self.task.no_label
        return AugmentingCollator(inner, augmentations, copies, seed=seed, tokenizer=special, no_label=no_label)
