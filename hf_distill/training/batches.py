"""The part of the trainer that draws batches: each step draws, rewrites, counts and lets the teacher see them.

Knows: the order in which a step's batches come to be. Does not know: losses, what a source does to a row.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from hf_distill.augmentation import AugmentingCollator
from hf_distill.augmentation.source import Augmenting
from hf_distill.models.facts import Facts
from hf_distill.models.outputs import core_of
from hf_distill.rollouts.source import Rollouts
from hf_distill.rollouts.writers import Now
from hf_distill.signals import Signals
from hf_distill.tasks.layout import LAYOUT, STEP, Layout
from hf_distill.tasks.supervision import STUDENT_WROTE, supervised
from hf_distill.training.checks import check_pair
from hf_distill.training.data_checks import TRAINING
from hf_distill.training.distillation import Distillation
from hf_distill.training.image_checks import naming_bad_images
from hf_distill.training.label_checks import check_batch, wanted_of
from hf_distill.training.recording_checks import naming_bad_recordings
from hf_distill.training.whole_step import check_company, see_whole_step
from hf_distill.training.window import Window


class BatchMixin:
    """The part of the trainer that draws batches."""

    teacher: Any
    task: Any
    distillation: Distillation | None
    rollouts: Rollouts
    augmentation: Augmenting
    shared_draw: Callable[[int, list, Any], Any] | None = None  # makes the batches those of another training
    _window: Window | None

    # ---- Columns ----

    def _set_signature_columns_if_needed(self) -> None:
        """Keep the teacher's columns in the data set beside the student's, and those that a collator says it reads."""
        super()._set_signature_columns_if_needed()
        theirs = frozenset() if self.distillation is None else self.distillation.columns
        extra = theirs | getattr(self.data_collator, "columns", frozenset())
        self._signature_columns += sorted(extra - set(self._signature_columns))

    def _kept_columns(self) -> list[str] | None:
        """The columns that Trainer leaves in a row; None: all of them."""
        if not self.args.remove_unused_columns:
            return None
        self._set_signature_columns_if_needed()
        return self._signature_columns

    @property
    def foreign(self) -> set[str]:
        """The columns that the student does not read."""
        ours = set(inspect.signature(core_of(self.model).forward).parameters)
        theirs = () if self.distillation is None else self.distillation.columns
        return {STUDENT_WROTE, LAYOUT, STEP} | (set(theirs) - ours)

    # ---- Augmentation ----

    def augmenting(self) -> AugmentingCollator | Any | None:
        """Return the collator of training batches; None where they are made as all others are.

        It is the one that adds copies, or what the run's own collator names ``for_training``.
        """
        columns = getattr(self.train_dataset, "column_names", None) or ()
        own_loss = self.compute_loss_func is not None
        made = self.augmentation.collator(
            self.args, self.alpha, self.data_collator, columns, self.processing_class, own_loss
        )
        if made is None and hasattr(self.data_collator, "for_training"):
            return self.data_collator.for_training(taught=self.teacher is not None and self.alpha > 0)
        return made

    @property
    def copies(self) -> int:
        """How many augmented copies follow the rows of a training batch."""
        collator = self.augmenting()
        return 0 if collator is None else collator.copies

    def get_train_dataloader(self) -> DataLoader:
        """Return Trainer's own loader, whose collator adds the augmented copies; no other loader has them.

        Raises:
            ValueError: the rows cannot be augmented, or a loader of the user's own has another collator.
        """
        if self.task is not None and self.task.paired:
            check_company(self.args, self.data_ranks())
        collator, epochs = self.augmenting(), self.augmentation.epochs
        epochs.collator = collator
        if collator is None:
            return super().get_train_dataloader()
        if epochs not in self.callback_handler.callbacks:
            self.add_callback(epochs)
        self.augmentation.check_workers(self.args)
        own, self.data_collator = self.data_collator, collator  # for the one call that makes the training loader
        try:
            loader = super().get_train_dataloader()
        finally:
            self.data_collator = own
        held = getattr(loader, "collate_fn", collator)
        if held is not collator and getattr(held, "data_collator", None) is not collator:
            raise ValueError(
                "augmentation was asked for, but get_train_dataloader() made a loader with another collator than "
                "self.data_collator: use that one, or wrap yours in AugmentingCollator and leave augmentation out."
            )
        return loader

    # ---- The batches of a step ----

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor | int | None]:
        """Take the micro-batches of one optimizer step, and count what all their losses are divided by.

        Args:
            epoch_iterator: the batches of the epoch.
            num_batches: how many the step takes.
            device: the trainer's device.

        Returns:
            The batches, and Trainer's own count of labels.
        """
        with naming_bad_images(self.train_dataset, TRAINING), naming_bad_recordings(self.train_dataset, TRAINING):
            batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.shared_draw is not None:
            num_items = self.shared_draw(self.state.global_step, batches, num_items)
        if self.rollouts.asked(self.alpha) is not None:
            step, ranks = self.state.global_step, self.data_ranks()
            batches = self.rollouts.rewrite(batches, num_batches, step, self.alpha, ranks, self._now())
            num_items = self._get_num_items_in_batch([supervised(batch) for batch in batches], device)
        if self.task is not None:
            self._window = self._count(batches, device)
        if self.distillation is not None and self.distillation.asks:
            self.teacher.prefetch(batches, self.distillation.teacher_needs)
        if self.task is not None and self.task.paired and getattr(self.args, "accumulate_negatives", False):
            batches = self._seen_together(batches)
        return batches, num_items

    def _seen_together(self, batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Let each micro-batch know what the others show, where there are several; see ``see_whole_step``."""
        if len(batches) < 2:
            return batches
        batches = [self._prepare_inputs(batch) for batch in batches]
        core = self._unwrapped(self.model)
        core.train()

        def shown(batch: Mapping[str, Any]) -> Signals:
            with self.compute_loss_context_manager():
                fed = self.task.inputs(core, self._student_columns(batch), batch)
                return self.task.read(core, batch, core(**fed))

        def taught(batch: Mapping[str, Any]) -> Signals:
            return self.distillation.ask(batch, False, self.state)

        asks = self.distillation is not None and self.alpha > 0
        see_whole_step(batches, self.task, shown, taught if asks else None, self.data_ranks())
        return batches

    def _count(self, batches: list[Mapping[str, Any]], device: torch.device) -> Window:
        """Count the micro-batches of a step, over all ranks."""
        total = torch.zeros(len(self.task.units), dtype=torch.int64, device=device)
        for batch in batches:
            layout = self._layout(batch)
            if self.distillation is not None:  # otherwise the base trainer may hand the whole batch to its model
                batch[LAYOUT] = layout
            total += layout.units(self.task.units).to(device)
            self._note_rows(layout)
        everywhere = self.accelerator.reduce(total, reduction="sum")
        self._training.weight += 1
        everywhere = everywhere // (self.accelerator.num_processes // self.data_ranks())
        return Window.of(everywhere, self.task.units, self.data_ranks())

    def _layout(self, batch: Mapping[str, Any]) -> Layout:
        """Say what a batch holds, once it is known to hold nothing wrong; it travels in the batches of a step."""
        if batch.get(LAYOUT) is not None:
            return batch[LAYOUT]
        if self.distillation is not None and self.alpha < 1:
            check_batch(batch, self.label_names, wanted_of(self.task, self.compute_loss_func is not None))
            self.task.check_batch(batch)
        if self.distillation is not None:
            self.task.check_inputs(batch)
        if self.task.infer_from_batch(self.model, batch) and self.distillation is not None:
            check_pair(self.task, Facts.of(self.model), self.teacher)
        return self.task.layout(batch)

    def data_ranks(self) -> int:
        """How many ranks hold different data; the ranks of a tensor-parallel group share theirs."""
        config = getattr(self.accelerator, "parallelism_config", None)
        return self.accelerator.num_processes // (getattr(config, "tp_size", 1) or 1)

    def _now(self) -> Now:
        """Who writes rollouts at this step."""
        return Now(self._unwrapped(self.model), self.accelerator, self.compute_loss_context_manager)
