"""Language models: a distribution over the vocabulary at every position that has a target.

Knows: how decoders shift their labels, how their losses are summed. Does not know: objectives, teachers' whereabouts,
trainers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from hf_distill.signals import DenseLogits, Facts, Head, Signals, Sum
from hf_distill.tasks.classes import names_in, own_loss_of
from hf_distill.tasks.outputs import core_of, logits_in
from hf_distill.tasks.task import Task

UNSHIFTED = frozenset(
    f"{name}ForCausalLM"
    for name in (
        "Bart", "BigBirdPegasus", "Blenderbot", "BlenderbotSmall", "CpmAnt", "MBart", "Marian", "Musicgen",
        "MusicgenMelody", "Mvp", "PLBart", "Pegasus", "TrOCR", "Whisper",
    )
) | {"XLNetLMHeadModel"}  # fmt: skip
"""Decoders whose own loss compares position t with label t: transformers wants their labels shifted by the user."""


class _LanguageModel(Task):
    """What decoders with and without an encoder share; a subclass says what each position should predict."""

    positions: ClassVar[bool] = True
    classes: ClassVar[frozenset[str]]
    suffix: ClassVar[str | None] = None
    hidden: ClassVar[str]

    def __init__(self, own_loss: bool = False) -> None:
        self.own_loss = own_loss

    @classmethod
    def reading(cls, model: nn.Module) -> _LanguageModel | None:
        """Return the task for a model of these classes, None for any other; see ``Task.reading``."""
        own = own_loss_of(model, cls.classes, cls.suffix)
        return None if own is None else cls(own_loss=own)

    @abstractmethod
    def targets(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Say what each position of the logits should predict.

        Args:
            batch: the batch.

        Returns:
            Token ids [B, T], -100 where nothing is asked for; None where the batch has no labels.
        """

    def check(self, student: Facts, teacher: Facts) -> None:
        """Refuse vocabularies of different sizes; see ``Task.check``."""
        sizes = (teacher.vocab_size, student.vocab_size)
        if None not in sizes and sizes[0] != sizes[1]:
            raise ValueError(
                f"the teacher {teacher.name} has a vocabulary of {sizes[0]}, the student of {sizes[1]}: use two "
                "models with the same vocabulary."
            )

    def labels(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Positions whose target is known; see ``Task.labels``."""
        targets = self.targets(batch)
        return None if targets is None else targets != -100

    def hard(self, outputs: Any, batch: Mapping[str, Any]) -> Sum | None:
        """Sum the cross-entropy over the positions whose target is known; see ``Task.hard``."""
        if self.own_loss:
            return None
        targets = self.targets(batch)
        logits, counted = self._logits(outputs, batch, "the student"), targets != -100
        loss = F.cross_entropy(logits[counted].float(), targets[counted], reduction="sum")
        return Sum(loss, counted.sum())

    def signals(self, model: nn.Module, batch: Mapping[str, Any], outputs: Any, heard: Any = None) -> Signals:
        """Read logits, and the decoder's hidden states and attention maps if they are there; see ``Task.signals``."""
        name = "the teacher" if model is None else type(core_of(model)).__name__  # a function has no model
        logits, prefix = self._logits(outputs, batch, name), self.hidden
        shown = outputs if isinstance(outputs, Mapping) else {}
        return Signals(
            heads={"logits": Head(DenseLogits(logits), self.rows(batch), self.targets(batch))},
            hidden=tuple(shown.get(f"{prefix}hidden_states") or ()),
            attention=tuple(shown.get(f"{prefix}attentions") or ()),
            mask=self.mask(batch),
        )

    def align(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Signals:
        """Refuse other positions and other vocabularies; see ``Task.align``."""
        ours, theirs = student.heads["logits"].logits, teacher.heads["logits"].logits
        if ours.shape != theirs.shape:
            raise ValueError(
                f"the teacher gave logits of shape {list(theirs.shape)}, the student {list(ours.shape)}: both must "
                "read the same positions and have the same vocabulary."
            )
        return teacher

    def _logits(self, outputs: Any, batch: Mapping[str, Any], name: str) -> Tensor:
        logits, rows = logits_in(outputs, name), self.rows(batch)
        return logits[:, -rows.shape[1] :]  # tokens that PEFT's prompts put before the text have no target


class CausalLM(_LanguageModel):
    """The next token at every position; a position counts if the token after it has a label.

    Position t predicts the label at t + 1: the labels are shifted, never the logits, so the last position has no row.
    ``shift_labels`` are taken as they are, and so are the labels of a few decoders (``UNSHIFTED``), whose own loss
    takes them so. Without labels (``alpha=1``) every token of the text is a target.

    Args:
        own_loss: the model computes a loss of its own that this class does not know.
        shifts_labels: the labels are the tokens of the text; False: they are those that follow each.

    Example:
        >>> import torch
        >>> batch = {"input_ids": torch.tensor([[5, 6, 7]]), "labels": torch.tensor([[-100, 6, 7]])}
        >>> CausalLM().rows(batch)
        tensor([[ True,  True, False]])
        >>> CausalLM().hard(torch.zeros(1, 3, 8), batch)
        Sum(total=tensor(4.1589), count=tensor(2))
    """

    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    pipeline_tag: ClassVar[str] = "text-generation"
    shifts_labels: bool = True
    classes: ClassVar[frozenset[str]] = names_in(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    hidden: ClassVar[str] = ""

    def __init__(self, own_loss: bool = False, shifts_labels: bool = True) -> None:
        super().__init__(own_loss)
        self.shifts_labels = shifts_labels

    @classmethod
    def reading(cls, model: nn.Module) -> CausalLM | None:
        """Return the task for a causal language model, None for any other; see ``Task.reading``."""
        if (task := super().reading(model)) is not None:
            task.shifts_labels = UNSHIFTED.isdisjoint(base.__name__ for base in type(core_of(model)).__mro__)
        return task

    def targets(self, batch: Mapping[str, Any]) -> Tensor | None:
        """The label of the next position; see ``_LanguageModel.targets``."""
        if (shifted := batch.get("shift_labels")) is not None:
            return shifted
        labels = batch.get("labels")
        if labels is None or not self.shifts_labels:
            return labels
        return F.pad(labels[:, 1:], (0, 1), value=-100)

    def rows(self, batch: Mapping[str, Any]) -> Tensor:
        """Positions with a target; without labels those before another token of the text. See ``Task.rows``."""
        if (known := self.labels(batch)) is not None:
            return known
        mask = self.mask(batch)
        mask = batch["input_ids"].new_ones(batch["input_ids"].shape).bool() if mask is None else mask
        return mask & F.pad(mask[:, 1:], (0, 1), value=False)


class Seq2SeqLM(_LanguageModel):
    """The label at every position of the decoder; what it reads is made of the labels, as the model itself would.

    Args:
        own_loss: the model computes a loss of its own that this class does not know.

    Example:
        >>> import torch
        >>> batch = {"input_ids": torch.tensor([[5, 6]]), "labels": torch.tensor([[7, 1, -100]])}
        >>> {unit: n.item() for unit, n in Seq2SeqLM().counts(batch).items()}
        {'rows': 2, 'tokens': 2, 'samples': 1, 'labels': 2}
    """

    auto_class: ClassVar[str] = "AutoModelForSeq2SeqLM"
    pipeline_tag: ClassVar[str] = "text2text-generation"
    reads_labels: ClassVar[bool] = True
    classes: ClassVar[frozenset[str]] = names_in(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
    hidden: ClassVar[str] = "decoder_"

    def targets(self, batch: Mapping[str, Any]) -> Tensor | None:
        """The labels as they are; see ``_LanguageModel.targets``."""
        return batch.get("labels")

    def mask(self, batch: Mapping[str, Any]) -> Tensor | None:
        """The decoder's positions that are not padding."""
        if (mask := batch.get("decoder_attention_mask")) is not None:
            return mask.bool()
        return self.labels(batch)

    def rows(self, batch: Mapping[str, Any]) -> Tensor:
        """Positions with a label; without labels those that the decoder is given. See ``Task.rows``."""
        if (known := self.mask(batch) if batch.get("labels") is None else self.labels(batch)) is not None:
            return known
        return batch["decoder_input_ids"].new_ones(batch["decoder_input_ids"].shape).bool()

    def counts(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Tokens are the decoder's, whose hidden states are compared; see ``Task.counts``."""
        mask = self.mask(batch)
        counts = super().counts(batch)
        return {**counts, "tokens": (self.rows(batch) if mask is None else mask).sum()}

    def complete(self, model: nn.Module, fed: dict[str, Any], batch: Mapping[str, Any]) -> dict[str, Any]:
        """Let the model shift the labels into what its decoder reads; see ``Task.complete``."""
        make = getattr(core_of(model), "prepare_decoder_input_ids_from_labels", None)
        if make is None or fed.get("decoder_input_ids") is not None or batch.get("labels") is None:
            return fed
        return {**fed, "decoder_input_ids": make(labels=batch["labels"])}
