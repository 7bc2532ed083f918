"""Tasks on recordings: a class, several classes or a number for each.

Knows: how audio classifiers of transformers show logits and frames. Does not know: recordings' files, what a term
compares, teachers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES

from hf_distill.models.classes import names_in, own_loss_of
from hf_distill.models.frames import frame_mask, frames_of, recording_in
from hf_distill.models.outputs import core_of
from hf_distill.signals import Signals
from hf_distill.tasks.recordings import OfRecordings
from hf_distill.tasks.sequence_classification import SequenceClassification

CLASSES = names_in(MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES)


class AudioClassification(OfRecordings, SequenceClassification):
    """One class, several independent classes, or a number for each recording; all else as ``SequenceClassification``.

    The positions of hidden states are the answering model's own frames. Models that cut a spectrogram into patches, or
    make one length of every recording (AST, Whisper), have no padding; terms on positions then take the mean inside of
    each recording, and count recordings.

    Args:
        num_labels: how many outputs the head has.
        problem_type: as in ``config.problem_type``; None decides as transformers does, from the labels' dtype.
        teacher_labels: for each class of the student, its position among the teacher's; None: the same order.
        own_loss: the model computes a loss of its own that this class does not know.

    Example:
        >>> import torch
        >>> task = AudioClassification(num_labels=2)
        >>> task.length = lambda lengths: lengths // 4
        >>> batch = {"input_values": torch.zeros(3, 8), "labels": torch.tensor([0, -100, 1])}
        >>> {unit: n.item() for unit, n in task.counts(batch).items()}
        {'rows': 3, 'tokens': 6, 'samples': 3, 'labels': 2}
    """

    auto_class: ClassVar[str] = "AutoModelForAudioClassification"
    pipeline_tag: ClassVar[str] = "audio-classification"
    processor_class: ClassVar[str] = "AutoFeatureExtractor"

    @classmethod
    def from_model(cls, model: nn.Module) -> AudioClassification | None:
        """Return the task for an audio classifier, None for any other model; see ``Task.from_model``."""
        core = core_of(model)
        named = type(core).__name__ in CLASSES or type(core).__name__.endswith("ForAudioClassification")
        own = own_loss_of(model, CLASSES)
        if own is None and not named:
            return None
        task = cls(core.config.num_labels, core.config.problem_type, own_loss=bool(own))
        task.length = frames_of(model)
        return task

    def mask(self, batch: Mapping[str, Any]) -> Tensor | None:
        """The student's frames, where recordings have their own lengths; see ``Task.mask``."""
        given = recording_in(batch)
        fixed = given is not None and given.ndim == 3 and batch.get("attention_mask") is None
        return None if fixed else super().mask(batch)

    def signals(self, model: nn.Module, batch: Mapping[str, Any], outputs: Any, captured: Any = None) -> Signals:
        """Read logits, hidden states and whose frames they have; see ``Task.signals``."""
        shown = super().signals(model, batch, outputs, captured)
        own = None if self.mask(batch) is None else frame_mask(batch, frames_of(model) if model else self.length)
        fits = own is not None and all(state.shape[1] == own.shape[1] for state in shown.hidden)
        return replace(shown, mask=own if fits else None)
