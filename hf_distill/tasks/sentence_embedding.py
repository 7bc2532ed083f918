"""Sentence vectors: models without a head, which only a teacher can teach.

Knows: which classes have no head, where they put hidden states. Does not know: how a row becomes one vector (the
terms pool), objectives, teachers' whereabouts, trainers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES, MODEL_MAPPING_NAMES

from hf_distill.models.classes import names_in, strangers_of
from hf_distill.models.outputs import core_of
from hf_distill.signals import DenseLogits, Head, HeadSpec, Signals, Sum
from hf_distill.tasks.comparing import teachers_columns
from hf_distill.tasks.samples import rows_of
from hf_distill.tasks.task import Task

HEADLESS = frozenset(
    name
    for name in names_in(MODEL_MAPPING_NAMES) | names_in(MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES)
    if not re.search("For[A-Z]", name)  # some auto models have a head, which only they have
)
"""The classes that AutoModel and AutoModelForTextEncoding load: hidden states, and no logits."""

SCORES = "scores"
"""The head of a teacher that scores candidates, a pair or a group a row; see ``objectives.scores``."""


class SentenceEmbedding(Task):
    """A vector for each text, from a model without a head (``AutoModel``): there are no labels, so ``alpha`` is 1.

    Nothing but hidden states can be compared: ``pooled_mse``, ``pooled_cosine`` and ``similarity`` make one vector of
    each text (``{"pooled_mse": {"pool": "first"}}`` takes the first token, a BERT's [CLS]; the mean over the tokens is
    the default), and so do all terms on pairs of rows: for these a teacher may read tokens of its own, in the columns
    ``teacher_input_ids`` and ``teacher_attention_mask``. Any other term on hidden states or attention compares token
    with token, where both models read the same ones.

    The default is ``pooled_mse``: a student whose vectors *are* the teacher's stands in for it in an index that the
    teacher filled, and distances and directions follow. ``pooled_cosine`` leaves the length free, ``similarity`` the
    whole space; where widths differ the first two train a projection, which is not saved with the student, so that
    its vectors are then the teacher's up to that projection: choose equal widths, or ``similarity``, for vectors that
    are used as they are.

    Where rows are groups of a query and its candidates (``CandidateCollator``), ``margin_mse`` and ``score_kl`` teach
    how they are ranked; the teacher may then be a cross-encoder, or a column of scores.

    Reference:
        Reimers, Gurevych: Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation,
        arXiv:2004.09813, section 2: mean squared error between the sentence vectors.

    Example:
        >>> batch = {"input_ids": torch.ones(2, 4), "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])}
        >>> {unit: n.item() for unit, n in SentenceEmbedding().counts(batch).items()}
        {'rows': 2, 'tokens': 6, 'samples': 2, 'labels': 0}
    """

    auto_class: ClassVar[str] = "AutoModel"
    pipeline_tag: ClassVar[str] = "feature-extraction"
    default_objective: str = "pooled_mse"
    label_names: ClassVar[tuple[str, ...]] = ()
    packs: ClassVar[bool] = True
    of_text: ClassVar[bool] = True

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """None: its models show hidden states."""
        return ()

    @classmethod
    def from_model(cls, model: nn.Module) -> SentenceEmbedding | None:
        """Return the task for an encoder or decoder of texts without a head, None for others; see the base."""
        core = core_of(model)
        headless = any(base.__name__ in HEADLESS for base in type(core).__mro__) and not strangers_of(core)
        # An encoder-decoder has two texts, of which the second is not there.
        return cls() if headless and not getattr(core.config, "is_encoder_decoder", False) else None

    def teacher_batch(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the columns ``teacher_x`` as ``x``, if there are any; see ``Task.teacher_batch``."""
        return teachers_columns(batch)

    def rows(self, batch: Mapping[str, Any]) -> Tensor:
        """Every text counts; bool [B]. See ``Task.rows``."""
        tensors = [value for value in batch.values() if isinstance(value, Tensor)]
        return torch.ones(rows_of(batch), dtype=torch.bool, device=tensors[0].device if tensors else None)

    def labels(self, batch: Mapping[str, Any]) -> Tensor | None:
        """There are none, whatever the batch holds; see ``Task.labels``."""
        return None

    def no_label(self, label: Any) -> Any:
        """Return the label: nobody reads it, and an augmented text needs none.

        Args:
            label: of a sample, as a data set holds it.
        """
        return label

    def inputs(
        self, model: nn.Module, fed: dict[str, Any], batch: Mapping[str, Any], teacher: Signals | None = None
    ) -> dict[str, Any]:
        """Take away a label of the data set, which a model without a head has no use for; see ``Task.inputs``."""
        return {name: value for name, value in fed.items() if name != "labels"}

    def hard(self, outputs: Any, batch: Mapping[str, Any], shown: Signals | None = None) -> Sum | None:
        """There is none; see ``Task.hard``."""
        return None

    def signals(self, model: nn.Module, batch: Mapping[str, Any], outputs: Any, captured: Any = None) -> Signals:
        """Read hidden states and attention maps, and the scores of a teacher that gives some; see ``Task.signals``."""
        shown = outputs if isinstance(outputs, Mapping) else {}
        scores = outputs if isinstance(outputs, Tensor) else shown.get("logits")
        if scores is not None:
            scores = scores if scores.ndim > 1 else scores.unsqueeze(-1)
            every = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
        return Signals(
            heads={} if scores is None else {SCORES: Head(DenseLogits(scores), every)},
            hidden=tuple(shown.get("hidden_states") or ()),
            attention=tuple(shown.get("attentions") or ()),
            mask=self.layout(batch).mask,
        )

    def align(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Signals:
        """Nothing has an order of its own; see ``Task.align``."""
        return teacher
