"""Language models: a distribution over the vocabulary at every position that has a target.

Knows: how decoders shift their labels, which vocabularies are compared how. Does not know: objectives, teachers'
whereabouts, trainers.
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

from hf_distill.models.classes import names_in
from hf_distill.models.outputs import core_of
from hf_distill.models.texts import DECODER, IDS, MASK, VECTORS, text_positions
from hf_distill.signals import HeadSpec, Signals, Stream
from hf_distill.tasks.alignment.segments import Tokens
from hf_distill.tasks.alignment.settings import ALIGNMENTS
from hf_distill.tasks.alignment.spans import OFFSETS
from hf_distill.tasks.comparing import teachers_columns
from hf_distill.tasks.documents import beginnings
from hf_distill.tasks.positions import EachPosition

UNSHIFTED = frozenset(
    f"{name}ForCausalLM"
    for name in (
        "Bart", "BigBirdPegasus", "Blenderbot", "BlenderbotSmall", "CpmAnt", "MBart", "Marian", "Musicgen",
        "MusicgenMelody", "Mvp", "PLBart", "Pegasus", "ProphetNet", "TrOCR", "Whisper",
    )
) | {"XLNetLMHeadModel"}  # fmt: skip
"""Decoders whose own loss compares position t with label t: transformers wants their labels shifted by the user."""

GIVEN = (DECODER + IDS, DECODER + VECTORS)
"""What a decoder reads, beside the encoder's states."""


class LanguageModel(EachPosition):
    """What predicts tokens of a vocabulary, which may not be the teacher's.

    Args:
        own_loss: the model computes a loss of its own that this class does not know.
        align: how two vocabularies are compared; see ``AlignmentArguments``.

    Raises:
        ValueError: an alignment that is not known.
    """

    def __init__(self, own_loss: bool = False, align: str = "tokens") -> None:
        super().__init__(own_loss)
        if align not in ALIGNMENTS:
            raise ValueError(f"align={align!r} is not known: use {', '.join(ALIGNMENTS)}.")
        self.alignment = ALIGNMENTS[align]()

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """One head, the output embeddings, at each position."""
        return (HeadSpec("logits", linear=True, per_position=True),)

    @property
    def default_objective(self) -> str:
        """What the alignment makes comparable."""
        return self.alignment.objective

    @abstractmethod
    def text(self, batch: Mapping[str, Any]) -> Tokens | None:
        """Say which tokens are predicted, and where they are in the text if the batch says so.

        Args:
            batch: as the student reads it, or the teacher; see ``teacher_batch``.

        Returns:
            The tokens, padded as the head's rows are; None where the batch does not hold them.
        """

    def teacher_batch(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the columns ``teacher_x`` as ``x``, if there are any; see ``Task.teacher_batch``."""
        return teachers_columns(batch)

    def counts(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Rows are the distributions that are compared; see ``Task.counts``."""
        return {**super().counts(batch), "rows": self.alignment.count(self, batch)}

    def align(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Signals:
        """Return what is compared of the teacher; see ``Task.align``, and ``match`` for the student's side."""
        return self.alignment.pair(self, student, teacher, batch)[1]

    def truths(self, student: Signals, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The next token, where both models read the same positions and know it; see ``Task.truths``."""
        like = self.alignment.same_positions and self.alignment.same_classes
        return super().truths(student, batch) if like else {}

    def match(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> tuple[Signals, Signals]:
        """Bring both models' heads into one form, for each teacher; see ``Task.match``."""
        views = {n: self.alignment.pair(self, student, one, batch, n) for n, one in teacher.named.items()}
        both = self.alignment.pair(self, student, teacher, batch) if teacher.heads else (student, teacher)
        named = ({name: view[side] for name, view in views.items()} for side in (0, 1))
        return tuple(replace(one, named=own) for one, own in zip(both, named, strict=True))


class CausalLM(LanguageModel):
    """The next token at every position; a position counts if the token after it has a label.

    Position t predicts the label at t + 1: the labels are shifted, never the logits, so the last position has no row.
    Padding predicts nothing, so the first token of a text is no target, on whichever side the batch is padded.
    ``shift_labels`` are taken as they are, and so are the labels of a few decoders (``UNSHIFTED``), whose own loss
    takes them so. Without labels (``alpha=1``) every token of the text is a target.

    Args:
        own_loss: the model computes a loss of its own that this class does not know.
        shifts_labels: the labels are the tokens of the text; False: they are those that follow each.
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
    packs: ClassVar[bool] = True
    shifts_labels: bool = True
    classes: ClassVar[frozenset[str]] = names_in(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)

    def __init__(self, own_loss: bool = False, shifts_labels: bool = True, align: str = "tokens") -> None:
        super().__init__(own_loss, align)
        self.shifts_labels = shifts_labels

    @classmethod
    def from_model(cls, model: nn.Module) -> CausalLM | None:
        """Return the task for a causal language model, None for any other; see ``Task.from_model``."""
        if (task := super().from_model(model)) is not None:
            task.shifts_labels = UNSHIFTED.isdisjoint(base.__name__ for base in type(core_of(model)).__mro__)
        return task

    def targets(self, batch: Mapping[str, Any]) -> Tensor | None:
        """The label of the next position; see ``EachPosition.targets``."""
        if (shifted := batch.get("shift_labels")) is not None:
            return shifted
        labels = batch.get("labels")
        if labels is None or not self.shifts_labels:
            return labels
        targets, mask = F.pad(labels[:, 1:], (0, 1), value=-100), self.mask(batch)
        return targets if mask is None else targets.masked_fill(~mask, -100)

    def text(self, batch: Mapping[str, Any]) -> Tokens | None:
        """Every token, spoken of one position before it; see ``LanguageModel.text``."""
        if (ids := batch.get("input_ids")) is None:
            return None
        layout = self.layout(batch)
        predicted = F.pad(layout.rows[:, :-1], (1, 0), value=False)
        return Tokens(ids, batch.get(OFFSETS), layout.mask, predicted, shift=1)

    def rows(self, batch: Mapping[str, Any]) -> Tensor:
        """Positions with a target; without labels those before another token of the text. See ``Task.rows``."""
        if (targets := self.targets(batch)) is not None:
            return targets != -100
        mask = self.mask(batch)
        begins = beginnings(batch, mask)
        follows = mask if begins is None else mask & ~begins  # the first token of a packed text follows nothing
        return mask & F.pad(follows[:, 1:], (0, 1), value=False)


class Seq2SeqLM(LanguageModel):
    """The label at every position of the decoder; what it reads is made of the labels, as the model itself would.

    Args:
        own_loss: the model computes a loss of its own that this class does not know.
        align: how two vocabularies are compared; see ``AlignmentArguments``.

    Example:
        >>> import torch
        >>> batch = {"input_ids": torch.tensor([[5, 6]]), "labels": torch.tensor([[7, 1, -100]])}
        >>> {unit: n.item() for unit, n in Seq2SeqLM().counts(batch).items()}
        {'rows': 2, 'tokens': 2, 'samples': 1, 'labels': 2, 'tokens:decoder': 2, 'tokens:encoder': 2}
    """

    auto_class: ClassVar[str] = "AutoModelForSeq2SeqLM"
    pipeline_tag: ClassVar[str] = "text2text-generation"
    reads_labels: ClassVar[bool] = True
    sized_by: ClassVar[tuple[str, ...]] = (DECODER + MASK, "labels")
    streams: ClassVar[tuple[str, ...]] = ("decoder", "encoder")
    classes: ClassVar[frozenset[str]] = names_in(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
    hidden: ClassVar[str] = "decoder_"

    def targets(self, batch: Mapping[str, Any]) -> Tensor | None:
        """The labels as they are; see ``EachPosition.targets``."""
        return batch.get("labels")

    def text(self, batch: Mapping[str, Any]) -> Tokens | None:
        """The labels, each at its own position; see ``LanguageModel.text``."""
        if (labels := batch.get("labels")) is None:
            return None
        return Tokens(labels, batch.get(OFFSETS), labels != -100, labels != -100, shift=0)

    def teacher_batch(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the teacher's columns; its decoder reads the student's labels if it has none of its own."""
        read = super().teacher_batch(batch)
        if read is batch or "labels" in read or "decoder_input_ids" in read or "labels" not in batch:
            return read
        return {**read, "labels": batch["labels"]}

    def mask(self, batch: Mapping[str, Any]) -> Tensor | None:
        """The decoder's positions that are not padding."""
        if (mask := batch.get("decoder_attention_mask")) is not None:
            return mask.bool()
        if (targets := self.targets(batch)) is not None:
            return targets != -100
        read = next((one for name in GIVEN if (one := batch.get(name)) is not None), None)
        return None if read is None else read.new_ones(read.shape[:2]).bool()

    def rows(self, batch: Mapping[str, Any]) -> Tensor:
        """Positions with a label; without labels those that the decoder is given. See ``Task.rows``."""
        if (targets := self.targets(batch)) is not None:
            return targets != -100
        if (mask := self.mask(batch)) is None:
            raise ValueError(
                f"{type(self).__name__} compares what a decoder predicts, the batch has {sorted(batch)}: give it "
                f"labels, or {GIVEN[0]}, or let the teacher write them (rollout={{'seq_kd': 1.0}})."
            )
        return mask

    def stream_mask(self, name: str, batch: Mapping[str, Any]) -> Tensor | None:
        """The encoder's positions are those of the text that it reads; see ``Task.stream_mask``."""
        return text_positions(batch) if name == "encoder" else super().stream_mask(name, batch)

    def signals(self, model: nn.Module, batch: Mapping[str, Any], outputs: Any, captured: Any = None) -> Signals:
        """Show the encoder's hidden states and attention maps beside the decoder's; see ``Task.signals``."""
        shown = outputs if isinstance(outputs, Mapping) else {}
        encoder = Stream(
            hidden=tuple(shown.get("encoder_hidden_states") or ()),
            attention=tuple(shown.get("encoder_attentions") or ()),
            mask=self.stream_mask("encoder", batch),
        )
        return replace(super().signals(model, batch, outputs, captured), streams={"encoder": encoder})

    def labels_read(self, inputs: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, Any]:
        """The labels, where the decoder is given nothing else; see ``Task.labels_read``."""
        given = GIVEN[0] in inputs or batch.get("labels") is None
        return {} if given else {"labels": batch["labels"]}

    def inputs(
        self, model: nn.Module, fed: dict[str, Any], batch: Mapping[str, Any], teacher: Signals | None = None
    ) -> dict[str, Any]:
        """Shift the labels into what the decoder reads, as the model would if it can; see ``Task.inputs``."""
        if teacher is not None and teacher.encoded is not None:
            fed = {**fed, "encoder_outputs": teacher.encoded}
        core, labels = core_of(model), batch.get("labels")
        given = any(fed.get(name) is not None for name in GIVEN)
        if given or labels is None or not hasattr(core, "config"):
            return fed
        if (make := getattr(core, "prepare_decoder_input_ids_from_labels", None)) is not None:
            return {**fed, "decoder_input_ids": make(labels=labels)}
        config = core.config  # Blenderbot and others shift inside of their forward
        shifted = F.pad(labels[:, :-1], (1, 0), value=config.decoder_start_token_id)
        padding = config.pad_token_id or 0  # what stands there is read by nobody
        return {**fed, "decoder_input_ids": shifted.masked_fill(shifted == -100, padding)}
