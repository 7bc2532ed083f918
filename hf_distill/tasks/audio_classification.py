"""Tasks on recordings: a class, several classes or a number for each.

Knows: how audio classifiers of transformers show logits and frames. Does not know: recordings' files, what a term
compares, teachers.
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES

from hf_distill.models.classes import names_in, own_loss_of
from hf_distill.models.frames import frames_of
from hf_distill.models.outputs import core_of
from hf_distill.tasks.recordings import OfWholeRecordings
from hf_distill.tasks.sequence_classification import SequenceClassification

CLASSES = names_in(MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES)


class AudioClassification(OfWholeRecordings, SequenceClassification):
    """One class, several independent classes, or a number for each recording; all else as ``SequenceClassification``.

    The positions of hidden states are the answering model's own frames. Models that cut a spectrogram into patches, or
    make one length of every recording (AST, Whisper), have no padding; terms on positions then take the mean inside of
    each recording, and count recordings. Where a teacher's frames have another rate, the mean of those that fall onto
    one of the student's is compared with it.

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
