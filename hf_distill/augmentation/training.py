"""The part of the trainer that augments training rows, and only those.

Knows: when a training starts and an epoch begins, what can be augmented at all. Does not know: how a row is changed,
how a loss is computed, where a teacher's answers are kept.
"""

from __future__ import annotations

import logging
from typing import Any

from torch.utils.data import DataLoader
from transformers import TrainerCallback

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


class TransferMixin:
    """The part of the trainer that makes transfer data; it reads ``args.augmentation``, see ``TransferArguments``."""

    teacher: Any
    task: Any
    _epochs: Epochs | None = None
    _augmenting: tuple[Any, AugmentingCollator] | None = None

    def get_train_dataloader(self) -> DataLoader:
        """Return Trainer's own loader, whose collator adds the augmented copies; no other loader has them.

        Raises:
            ValueError: the rows cannot be augmented, or a loader of the user's own has another collator.
        """
        collator = self.augmenting()
        if self._epochs is not None:
            self._epochs.collator = collator
        if collator is None:
            return super().get_train_dataloader()
        if self._epochs is None:
            self._epochs = Epochs()
            self._epochs.collator = collator
            self.add_callback(self._epochs)
        self.data_collator = collator  # for the one call that makes the training loader
        try:
            loader = super().get_train_dataloader()
        finally:
            self.data_collator = collator.collator
        held = getattr(loader, "collate_fn", collator)
        if held is not collator and getattr(held, "data_collator", None) is not collator:
            raise ValueError(
                "augmentation was asked for, but get_train_dataloader() made a loader with another collator than "
                "self.data_collator: use that one, or wrap yours in AugmentingCollator and leave augmentation out."
            )
        return loader

    @property
    def copies(self) -> int:
        """How many augmented copies follow the rows of a training batch."""
        collator = self.augmenting()
        return 0 if collator is None else collator.copies

    def augmenting(self) -> AugmentingCollator | None:
        """Return the collator of training batches; None where nothing is augmented.

        Raises:
            ValueError: in one sentence, what was asked for cannot be done.
        """
        asked = getattr(self.args, "augmentation", None)
        if asked is None:
            return None
        if self.teacher is None or self.alpha == 0:
            if self._augmenting is None or self._augmenting[0] != "told":
                logger.warning(LEFT_OUT, asked)
                self._augmenting = ("told", None)
            return None
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        key = (asked, self.alpha < 1, seed, id(self.data_collator))
        if self._augmenting is None or self._augmenting[0] != key:
            self._augmenting = (key, self._make(*augmentations_of(asked), seed))
        return self._augmenting[1]

    def _make(self, augmentations: list[Any], copies: int, seed: int) -> AugmentingCollator:
        # Only a task whose samples have one label each can say what a sample without one looks like.
        if (no_label := getattr(self.task, "no_label", None)) is None:
            raise ValueError(
                f"augmentation adds samples without a label, which {type(self.task).__name__} cannot read: its "
                "labels go with the tokens: leave augmentation out."
            )
        args, workers = self.args, self.args.dataloader_num_workers
        own = "a compute_loss_func" if self.compute_loss_func is not None else "a loss of its own"
        if self.alpha < 1 and (self.compute_loss_func is not None or self.task.own_loss):
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
        known = (self.processing_class, getattr(self.data_collator, "tokenizer", None))
        tokenizer = next((one for one in known if hasattr(one, "all_special_ids")), None)
        if tokenizer is None:
            raise ValueError(
                "augmentation must know which tokens are special, and no tokenizer was given: pass processing_class=."
            )
        check_columns(getattr(self.train_dataset, "column_names", None) or ())
        for one in augmentations:
            if one.here:
                one.load(tokenizer, args.device)
        return AugmentingCollator(
            self.data_collator, augmentations, copies, seed=seed, tokenizer=tokenizer, no_label=no_label
        )
