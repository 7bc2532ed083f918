"""Speech recognition and translation by an encoder of recordings and a decoder of text: Whisper and its like.

Knows: which models these are, that the encoder's positions are frames. Does not know: recordings' files, prompts,
generation, losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES

from hf_distill.models.classes import names_in
from hf_distill.models.frames import Frames, frame_mask, frames_of
from hf_distill.models.outputs import core_of
from hf_distill.models.texts import MASK
from hf_distill.tasks.language_modeling import Seq2SeqLM


class SpeechSeq2Seq(Seq2SeqLM):
    """The label at every position of the decoder, of recordings; all else as ``Seq2SeqLM``.

    The encoder's positions are the model's own frames, where the batch has an attention mask. Without one (Whisper
    reads 30 seconds of everything) terms on its stream take the mean inside of each recording, and count recordings.

    Args:
        own_loss: the model computes a loss of its own that this class does not know.
        align: how two vocabularies are compared; see ``AlignmentArguments``.

    Example:
        >>> import torch
        >>> batch = {"input_features": torch.zeros(1, 80, 3000), "labels": torch.tensor([[7, 1, -100]])}
        >>> {unit: n.item() for unit, n in SpeechSeq2Seq().counts(batch).items()}
        {'rows': 2, 'tokens': 2, 'samples': 1, 'labels': 2, 'tokens:decoder': 2, 'tokens:encoder': 1}
    """

    auto_class: ClassVar[str] = "AutoModelForSpeechSeq2Seq"
    pipeline_tag: ClassVar[str] = "automatic-speech-recognition"
    processor_class: ClassVar[str] = "AutoProcessor"
    noun: ClassVar[str] = "recordings"
    example: ClassVar[str] = '"a recording of yours.wav"'
    of_text: ClassVar[bool] = False
    classes: ClassVar[frozenset[str]] = names_in(MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES)
    length: Frames | None = None

    @classmethod
    def from_model(cls, model: nn.Module) -> SpeechSeq2Seq | None:
        """Return the task for such a model with an encoder and a decoder, None for any other; see the base."""
        config = getattr(core_of(model), "config", None)
        task = super().from_model(model) if getattr(config, "is_encoder_decoder", False) else None
        if task is not None:
            task.length = frames_of(model)
        return task

    def infer_from_batch(self, model: nn.Module, batch: Mapping[str, Any]) -> bool:
        """Learn how many frames the student makes of a recording; see ``Task.infer_from_batch``."""
        if self.length is None:
            self.length = frames_of(model)
        return super().infer_from_batch(model, batch)

    def stream_mask(self, name: str, batch: Mapping[str, Any]) -> Tensor | None:
        """The encoder's positions are the student's frames; see ``Task.stream_mask``."""
        if name != "encoder":
            return super().stream_mask(name, batch)
        return None if self.length is None or batch.get(MASK) is None else frame_mask(batch, self.length)
