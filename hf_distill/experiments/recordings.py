"""Speech models of a recipe: what makes features of recordings, and a teacher and a student that are made here.

Those are small Wav2Vec2-BERT models on log-mel features: they feel no padding, and have no batch norm.

Knows: feature extractors, shapes of models of recordings, how long rows are. Does not know: files, training.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from transformers import AutoFeatureExtractor, PretrainedConfig, SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig

from hf_distill.augmentation.speech_collator import LENGTH
from hf_distill.experiments.data.recordings import FRAMES
from hf_distill.experiments.models import ModelArguments
from hf_distill.experiments.text_classification import ClassScoring

HEAD = 16
"""The width of an attention head of a model that is made here."""
STRIDE = 2
"""How many frames of 160 samples are put into one: 40 ms at 8,000 samples a second."""


@dataclass
class RecordingModelArguments(ModelArguments):
    """Which models, and how large those are that are made here: Wav2Vec2-BERT on log-mel features."""

    teacher_layers: int = field(default=2, metadata={"help": "Layers of a teacher that is trained from nothing."})
    teacher_hidden_size: int = field(default=96, metadata={"help": "Its width, in heads of 16."})
    teacher_epochs: float = field(default=30.0, metadata={"help": "Epochs of training or fine-tuning the teacher."})
    teacher_learning_rate: float = field(default=3e-3, metadata={"help": "Its peak learning rate."})
    student_layers: int = field(default=1, metadata={"help": "Layers of a student made here."})
    student_hidden_size: int = field(default=32, metadata={"help": "Its width, in heads of 16."})
    sampling_rate: int = field(
        default=8000, metadata={"help": "Samples a second, to which recordings are brought where no model is given."}
    )
    mel_bins: int = field(default=40, metadata={"help": "Features of each 160 samples where no model is given."})
    max_seconds: float | None = field(
        default=None, metadata={"help": "Longer recordings are cut to so many seconds. Default: none is cut."}
    )

    def check(self) -> None:
        """Refuse settings that contradict each other; see the base."""
        if self.lora_rank:
            raise ValueError(
                f"lora_rank={self.lora_rank} was given, which this recipe does not train: leave it out, or pass a "
                "PEFT model to DistillationTrainer in a script of your own."
            )
        if self.sampling_rate < 1000 or self.mel_bins < 1:
            raise ValueError(
                f"sampling_rate={self.sampling_rate} and mel_bins={self.mel_bins} were given: give at least 1000 "
                "samples a second, and one feature."
            )
        super().check()

    def check_width(self, name: str) -> None:
        """Refuse a width that heads of 16 do not divide; see the base."""
        if (width := getattr(self, name)) % HEAD or width < HEAD:
            raise ValueError(f"{name}={width} was given, in heads of {HEAD}: give a multiple of {HEAD}.")


class SpokenScoring(ClassScoring):
    """One class a recording; all else as ``ClassScoring``."""

    def seconds(self, rows: Dataset) -> float:
        """Say how many seconds of audio there are.

        Args:
            rows: as ``load_spoken_classes`` gives them.
        """
        return sum(rows[LENGTH][:]) / FRAMES


def shared_extractor(recipe: RecordingModelArguments) -> Any:
    """Return the feature extractor of the given student, of the teacher, or one of log-mel features that is made here.

    Args:
        recipe: the models.

    Raises:
        ValueError: there is none beside the model.
    """
    if path := recipe.student_model_name_or_path or recipe.teacher_model_name_or_path:
        return load_extractor(path, f"the model {path}")
    return log_mels(recipe.sampling_rate, recipe.mel_bins)


def load_extractor(name: str, who: str) -> Any:
    """Load the feature extractor beside a model.

    Args:
        name: a path or Hub id.
        who: how a message names the model.

    Raises:
        ValueError: there is none.
    """
    try:
        return AutoFeatureExtractor.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:  # what each version raises where there is none
        raise ValueError(
            f"{who} reads recordings, and there is no feature extractor that can be loaded beside it "
            "(preprocessor_config.json): save the one that it was trained with there (extractor.save_pretrained)."
        ) from error


def log_mels(sampling_rate: int = 8000, mel_bins: int = 40) -> SeamlessM4TFeatureExtractor:
    """Make a feature extractor of log-mel features; each mel of a recording has the mean 0 and the variance 1.

    A frame has 400 samples and comes every 160, two of them are put into one: at 8,000 samples a second one comes
    every 40 ms, with ``2 * mel_bins`` numbers. ``AutoFeatureExtractor`` loads what is saved of it.

    Args:
        sampling_rate: samples a second.
        mel_bins: how many there are.

    Example:
        >>> import numpy as np
        >>> wave = np.sin(np.arange(8000) / 9).astype(np.float32)
        >>> log_mels()(wave, sampling_rate=8000, return_tensors="pt")["input_features"].shape
        torch.Size([1, 24, 80])
    """
    return SeamlessM4TFeatureExtractor(
        feature_size=mel_bins, num_mel_bins=mel_bins, sampling_rate=sampling_rate, stride=STRIDE
    )


def features_in(extractor: Any) -> int:
    """Say how many numbers an extractor as that of ``log_mels`` makes of a frame.

    Args:
        extractor: the feature extractor, or a processor with one.

    Raises:
        ValueError: it is of another kind.
    """
    extractor = getattr(extractor, "feature_extractor", extractor)
    if not isinstance(extractor, SeamlessM4TFeatureExtractor):
        raise ValueError(
            f"a teacher is made here on log-mel features, the given student's extractor is a "
            f"{type(extractor).__name__}: name a teacher with --teacher_model_name_or_path."
        )
    return extractor.num_mel_bins * extractor.stride


def blank_mels(recipe: RecordingModelArguments, extractor: Any) -> PretrainedConfig:
    """Shape a Wav2Vec2-BERT that is trained from nothing.

    Args:
        recipe: its sizes.
        extractor: of its features, or a processor with one.
    """
    return mel_shape(recipe.teacher_hidden_size, recipe.teacher_layers, features_in(extractor))


def small_mels(recipe: RecordingModelArguments, shape: Any) -> PretrainedConfig:
    """Shape a student of a teacher that is a Wav2Vec2-BERT; it reads the same features.

    Args:
        recipe: its sizes.
        shape: the teacher.

    Raises:
        ValueError: the teacher is none.
    """
    config = shape.config
    if not isinstance(config, Wav2Vec2BertConfig):
        raise ValueError(
            f"a student is made here of a Wav2Vec2-BERT teacher, the teacher is {type(shape).__name__}: name a "
            "student with --student_model_name_or_path, or cut one from the teacher with --student_from_teacher."
        )
    width, layers = recipe.student_hidden_size, recipe.student_layers
    return mel_shape(width, layers, config.feature_projection_input_dim)


def mel_shape(width: int, layers: int, features: int, **of_task: Any) -> Wav2Vec2BertConfig:
    """Shape a small Wav2Vec2-BERT: without positions, which its convolutions make up for, and without SpecAugment.

    Args:
        width: of its states, in heads of 16.
        layers: how many.
        features: numbers in a frame, see ``features_in``.
        **of_task: further fields: ``vocab_size``, ``pad_token_id``, ``ctc_loss_reduction``, ...
    """
    return Wav2Vec2BertConfig(**{
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": width // HEAD,
        "intermediate_size": 2 * width, "feature_projection_input_dim": features, "classifier_proj_size": width,
        "position_embeddings_type": None, "conv_depthwise_kernel_size": 9, "apply_spec_augment": False,
        "layerdrop": 0.0, "hidden_dropout": 0.1, "activation_dropout": 0.1, "attention_dropout": 0.1,
        "feat_proj_dropout": 0.0, "conformer_conv_dropout": 0.1, **of_task,
    })  # fmt: skip
