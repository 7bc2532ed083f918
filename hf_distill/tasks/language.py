"""Language models: a distribution over the vocabulary at every position that has a target.

Knows: how decoders shift their labels, how their losses are summed. Does not know: objectives, teachers' whereabouts,
trainers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from hf_distill.signals import DenseLogits, Head, Signals, Sum
from hf_distill.tasks.alignment import PREFIX
from hf_distill.tasks.offsets import OFFSETS
from hf_distill.tasks.outputs import core_of, logits_in
from hf_distill.tasks.settings import ALIGNMENTS
from hf_distill.tasks.spans import Tokens
from hf_distill.tasks.supervision import supervised
from hf_distill.tasks.task import Task


class _LanguageModel(Task):
    """What decoders with and without an encoder share; a subclass says what each position should predict."""

    positions: ClassVar[bool] = True
    linear: ClassVar[bool] = True
    classes: ClassVar[frozenset[str]]
    hidden: ClassVar[str]

    def __init__(self, own_loss: bool = False, align: str = "tokens") -> None:
        if align not in ALIGNMENTS:
            raise ValueError(f"align={align!r} is not known: use {', '.join(ALIGNMENTS)}.")
        self.own_loss, self.alignment = own_loss, ALIGNMENTS[align]()

    @classmethod
    def reading(cls, model: nn.Module) -> _LanguageModel | None:
        """Return the task for a model of these classes, None for any other; see ``Task.reading``."""
        core = core_of(model)
        base = next((c for c in type(core).__mro__ if c.__name__ in cls.classes), None)
        if base is None:
            return None
        # A subclass with its own forward, or an own loss function, means its own loss: it is then asked for it.
        return cls(own_loss=type(core).forward is not base.forward or "_loss_function" in vars(core))

    @abstractmethod
    def targets(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Say what each position of the logits should predict.

        Args:
            batch: the batch.

        Returns:
            Token ids [B, T], -100 where nothing is asked for; None where the batch has no labels.
        """

    @property
    def default_objective(self) -> str:
        """What the alignment makes comparable."""
        return self.alignment.objective

    @abstractmethod
    def text(self, batch: Mapping[str, Any]) -> Tokens | None:
        """Say which tokens are predicted, and where they are in the text if the batch says so.

        Args:
            batch: as the student reads it, or the teacher; see ``theirs``.

        Returns:
            The tokens, padded as the head's rows are; None where the batch does not hold them.
        """

    def theirs(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the columns ``teacher_x`` as ``x``, if there are any; see ``Task.theirs``."""
        return {name.removeprefix(PREFIX): one for name, one in batch.items() if name.startswith(PREFIX)} or batch

    def counts(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Rows are the distributions that are compared; see ``Task.counts``."""
        return {**super().counts(batch), "rows": self.alignment.count(self, batch)}

    def labels(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Positions whose target is known and is not what the student wrote; see ``Task.labels``."""
        targets = self.targets(supervised(batch))
        return None if targets is None else targets != -100

    def hard(self, outputs: Any, batch: Mapping[str, Any]) -> Sum | None:
        """Sum the cross-entropy over the positions whose target is known; see ``Task.hard``."""
        if self.own_loss:
            return None
        targets = self.targets(supervised(batch))
        logits, counted = self._logits(outputs, batch, "the student"), targets != -100
        loss = F.cross_entropy(logits[counted].float(), targets[counted], reduction="sum")
        return Sum(loss, counted.sum())

    def signals(self, model: nn.Module, batch: Mapping[str, Any], outputs: Any, heard: Any = None) -> Signals:
        """Read logits, and the decoder's hidden states and attention maps if they are there; see ``Task.signals``."""
        name = "the teacher" if model is None else type(core_of(model)).__name__  # a function has no model
        rows, prefix = self.rows(batch), self.hidden
        shown = outputs if isinstance(outputs, Mapping) else {}
        if heard is not None and heard.linear:
            logits = heard.linear[-1].last(rows.shape[1])
        else:
            logits = DenseLogits(self._logits(outputs, batch, name))
        return Signals(
            heads={"logits": Head(logits, rows, self.targets(supervised(batch)))},
            hidden=tuple(shown.get(f"{prefix}hidden_states") or ()),
            attention=tuple(shown.get(f"{prefix}attentions") or ()),
            mask=self.mask(batch),
        )

    def align(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Signals:
        """Return what is compared of the teacher; see ``Task.align``, and ``compared`` for the student's side."""
        return self.alignment.pair(self, student, teacher, batch)[1]

    def compared(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> tuple[Signals, Signals]:
        """Bring both models' heads into one form, for each teacher; see ``Task.compared``."""
        views = {n: self.alignment.pair(self, student, one, batch, n) for n, one in teacher.named.items()}
        both = self.alignment.pair(self, student, teacher, batch) if teacher.heads else (student, teacher)
        named = ({name: view[side] for name, view in views.items()} for side in (0, 1))
        return tuple(replace(one, named=own) for one, own in zip(both, named, strict=True))

    def _logits(self, outputs: Any, batch: Mapping[str, Any], name: str) -> Tensor:
        logits, rows = logits_in(outputs, name), self.rows(batch)
        return logits[:, -rows.shape[1] :]  # tokens that PEFT's prompts put before the text have no target


class CausalLM(_LanguageModel):
    """The next token at every position; a position counts if the token after it has a label.

    Position t predicts the label at t + 1: the labels are shifted, never the logits, so the last position has no row.
    ``shift_labels`` are taken as they are. Without labels (``alpha=1``) every token of the text is a target.

    Args:
        own_loss: the model computes a loss of its own that this class does not know.
        align: how two vocabularies are compared; see ``AlignmentArguments``.

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
    shifts_labels: ClassVar[bool] = True
    classes: ClassVar[frozenset[str]] = frozenset(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    hidden: ClassVar[str] = ""

    def targets(self, batch: Mapping[str, Any]) -> Tensor | None:
        """The label of the next position; see ``_LanguageModel.targets``."""
        if (shifted := batch.get("shift_labels")) is not None:
            return shifted
        labels = batch.get("labels")
        return None if labels is None else F.pad(labels[:, 1:], (0, 1), value=-100)

    def text(self, batch: Mapping[str, Any]) -> Tokens | None:
        """Every token, spoken of one position before it; see ``_LanguageModel.text``."""
        if (ids := batch.get("input_ids")) is None:
            return None
        mask, predicted = self.mask(batch), F.pad(self.rows(batch)[:, :-1], (1, 0), value=False)
        real = ids.new_ones(ids.shape).bool() if mask is None else mask
        return Tokens(ids, batch.get(OFFSETS), real, predicted, shift=1)

    def rows(self, batch: Mapping[str, Any]) -> Tensor:
        """Positions with a target; without labels those before another token of the text. See ``Task.rows``."""
        if (targets := self.targets(batch)) is not None:
            return targets != -100
        mask = self.mask(batch)
        mask = batch["input_ids"].new_ones(batch["input_ids"].shape).bool() if mask is None else mask
        return mask & F.pad(mask[:, 1:], (0, 1), value=False)


class Seq2SeqLM(_LanguageModel):
    """The label at every position of the decoder; what it reads is made of the labels, as the model itself would.

    Args:
        own_loss: the model computes a loss of its own that this class does not know.
        align: how two vocabularies are compared; see ``AlignmentArguments``.

    Example:
        >>> import torch
        >>> batch = {"input_ids": torch.tensor([[5, 6]]), "labels": torch.tensor([[7, 1, -100]])}
        >>> {unit: n.item() for unit, n in Seq2SeqLM().counts(batch).items()}
        {'rows': 2, 'tokens': 2, 'samples': 1, 'labels': 2}
    """

    auto_class: ClassVar[str] = "AutoModelForSeq2SeqLM"
    pipeline_tag: ClassVar[str] = "text2text-generation"
    reads_labels: ClassVar[bool] = True
    classes: ClassVar[frozenset[str]] = frozenset(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.values())
    hidden: ClassVar[str] = "decoder_"

    def targets(self, batch: Mapping[str, Any]) -> Tensor | None:
        """The labels as they are; see ``_LanguageModel.targets``."""
        return batch.get("labels")

    def text(self, batch: Mapping[str, Any]) -> Tokens | None:
        """The labels, each at its own position; see ``_LanguageModel.text``."""
        if (labels := batch.get("labels")) is None:
            return None
        return Tokens(labels, batch.get(OFFSETS), labels != -100, labels != -100, shift=0)

    def theirs(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the teacher's columns; its decoder reads the student's labels if it has none of its own."""
        read = super().theirs(batch)
        if read is batch or "labels" in read or "decoder_input_ids" in read or "labels" not in batch:
            return read
        return {**read, "labels": batch["labels"]}

    def mask(self, batch: Mapping[str, Any]) -> Tensor | None:
        """The decoder's positions that are not padding."""
        if (mask := batch.get("decoder_attention_mask")) is not None:
            return mask.bool()
        return None if (targets := self.targets(batch)) is None else targets != -100

    def rows(self, batch: Mapping[str, Any]) -> Tensor:
        """Positions with a label; without labels those that the decoder is given. See ``Task.rows``."""
        if (targets := self.targets(batch)) is not None:
            return targets != -100
        if (known := self.mask(batch)) is not None:
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
