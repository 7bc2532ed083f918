"""Audio models without a head: a state for each frame, which only a teacher can teach.

Knows: which classes of transformers these are. Does not know: recordings' files, layers, what a term compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import nn
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_CTC_MAPPING_NAMES,
)

from hf_distill.models.classes import strangers_of
from hf_distill.models.frames import RECORDINGS, frames_of
from hf_distill.models.outputs import core_of
from hf_distill.signals import Signals
from hf_distill.tasks.recordings import OfWholeRecordings
from hf_distill.tasks.sentence_embedding import HEADLESS, SentenceEmbedding

FAMILIES = {*MODEL_FOR_CTC_MAPPING_NAMES, *MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES}
"""The kinds of models whose states have frames of a recording; codecs and voices have others."""


class AudioFeatures(OfWholeRecordings, SentenceEmbedding):
    """A state for each frame of a recording, of a model without a head (``AutoModel``): ``alpha`` is 1.

    The positions are the student's own frames, as of ``AudioClassification``; where a teacher's have another rate, the
    mean of those that fall onto one of the student's is compared with it. The default objective is ``distilhubert``.
    Terms on hidden states and pooled ones can be compared, and there is nothing else.

    Example:
        >>> import torch
        >>> task = AudioFeatures()
        >>> task.length = lambda lengths: lengths // 4
        >>> {unit: n.item() for unit, n in task.counts({"input_values": torch.zeros(3, 8)}).items()}
        {'rows': 3, 'tokens': 6, 'samples': 3, 'labels': 0}
    """

    processor_class: ClassVar[str] = "AutoFeatureExtractor"
    default_objective: str = "distilhubert"
    packs: ClassVar[bool] = False

    @classmethod
    def from_model(cls, model: nn.Module) -> AudioFeatures | None:
        """Return the task for an encoder of recordings without a head, None for others; see the base."""
        core = core_of(model)
        config, reads = getattr(core, "config", None), strangers_of(core)
        if not any(base.__name__ in HEADLESS for base in type(core).__mro__) or not reads:
            return None
        if getattr(config, "is_encoder_decoder", False) or config.model_type not in FAMILIES:
            return None
        if not set(reads) <= set(RECORDINGS):
            return None
        task = cls()
        task.length = frames_of(model)
        return task

    def match(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> tuple[Signals, Signals]:
        """Bring every teacher to the student's frames, though none has a head; see ``Task.match``."""
        named = {name: self.align(student, shown, batch) for name, shown in teacher.named.items()}
        return student, replace(self.align(student, teacher, batch), named=named)
