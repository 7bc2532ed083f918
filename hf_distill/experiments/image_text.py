"""Models of two towers of a recipe: their processor, a teacher and a student made here, and how they are measured.

Knows: shapes of Chinese-CLIP, vectors, classes named by captions, retrieval. Does not know: files, how a loss is
computed, how a model is trained.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    AutoProcessor,
    BertTokenizer,
    ChineseCLIPConfig,
    PretrainedConfig,
    Trainer,
    VisionTextDualEncoderProcessor,
)
from transformers.trainer_utils import PredictionOutput

from hf_distill.experiments.data.captions import CAPTIONS
from hf_distill.experiments.images import ImageModelArguments
from hf_distill.experiments.predictions import PredictionScoring
from hf_distill.experiments.scoring import Column, Measurement, percent
from hf_distill.experiments.text_classification import ClassScoring
from hf_distill.models.image_text import scale_and_bias
from hf_distill.models.outputs import core_of
from hf_distill.reports import class_vectors, pair_hits, recall_metrics, zero_shot_logits

WORD = re.compile(r"[\u4e00-\u9fff]|\w+|[^\w\s]")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
HEAD = 32
"""How wide a head is of a model that is made here."""
KS = (1, 5, 10)


@dataclass
class ImageTextModelArguments(ImageModelArguments):
    """Which models of two towers, and how large those are that are made here: transformers in both towers."""

    teacher_layers: int = field(default=3, metadata={"help": "Layers in each tower of a teacher made here."})
    teacher_hidden_size: int = field(default=128, metadata={"help": "Its width, in heads of 32."})
    teacher_epochs: float = field(default=20.0, metadata={"help": "Epochs of training or fine-tuning the teacher."})
    teacher_learning_rate: float = field(default=1e-3, metadata={"help": "Its peak learning rate."})
    student_layers: int = field(default=1, metadata={"help": "Layers in each tower of a student made here."})
    student_hidden_size: int = field(default=64, metadata={"help": "Its width, in heads of 32."})
    vector_size: int = field(default=64, metadata={"help": "How long the vectors of both are that are made here."})
    patch_size: int = field(default=4, metadata={"help": "Into squares of so many pixels an image is cut."})
    image_size: int = field(default=16, metadata={"help": "Height and width in pixels where no model is given."})
    max_length: int = field(default=52, metadata={"help": "Longer texts are cut to this many tokens."})

    def check(self) -> None:
        """Refuse settings that contradict each other; see the base."""
        if self.mixup or self.cutmix:
            raise ValueError("mixup or cutmix was given: a blended image has no text of its own, leave it out.")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size={self.image_size} was given, which patches of {self.patch_size} pixels do not divide: "
                "give a multiple."
            )
        super().check()

    def check_width(self, name: str) -> None:
        """Refuse a width that heads do not divide; see the base."""
        if (width := getattr(self, name)) % HEAD or width < HEAD:
            raise ValueError(f"{name}={width} was given: give a multiple of {HEAD}.")


def shared_processor(recipe: ImageTextModelArguments, texts: Iterable[str]) -> Any:
    """Return the processor of the given student, of the teacher, or one that is made here.

    Args:
        recipe: the models.
        texts: of the training rows; their words, and their Chinese characters, become the vocabulary.

    Raises:
        ValueError: there is none beside the model.
    """
    if path := recipe.student_model_name_or_path or recipe.teacher_model_name_or_path:
        return load_pair_processor(path, f"the model {path}")
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    size = {"height": recipe.image_size, "width": recipe.image_size}
    words = sorted({word for text in texts for word in WORD.findall(text.lower())})
    tokenizer = BertTokenizer({word: number for number, word in enumerate((*SPECIAL, *words))})
    tokenizer.model_max_length = recipe.max_length
    images = ViTImageProcessorPil(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return VisionTextDualEncoderProcessor(images, tokenizer)


def load_pair_processor(path: str, who: str) -> Any:
    """Load the processor beside a model: of images and of texts.

    Args:
        path: a path or Hub id.
        who: how a message names the model.

    Raises:
        ValueError: there is none.
    """
    try:
        found = AutoProcessor.from_pretrained(path)
    except (OSError, ValueError, KeyError, TypeError) as error:  # what each version raises where a part is missing
        raise ValueError(
            f"{who} has no processor that can be loaded: save the one that it was trained with."
        ) from error
    if not (hasattr(found, "image_processor") and hasattr(found, "tokenizer")):
        raise ValueError(
            f"{who} has a {type(found).__name__}, which does not read both images and texts: name another."
        )
    return found


def blank_towers(recipe: ImageTextModelArguments, processor: Any) -> PretrainedConfig:
    """Shape a model of two towers that is trained from nothing.

    Args:
        recipe: its sizes.
        processor: of its vocabulary.
    """
    words = len(processor.tokenizer)
    return _towers(recipe, recipe.teacher_hidden_size, recipe.teacher_layers, words)


def small_towers(recipe: ImageTextModelArguments, shape: Any) -> PretrainedConfig:
    """Shape a student of a teacher that is a Chinese-CLIP, with vectors as long as its own.

    Args:
        recipe: its sizes.
        shape: the teacher.

    Raises:
        ValueError: the teacher is none.
    """
    config = shape.config
    if not isinstance(config, ChineseCLIPConfig):
        raise ValueError(
            f"a student is made here of a ChineseCLIPModel, the teacher is {type(shape).__name__}: name a student "
            "with --student_model_name_or_path."
        )
    made = _towers(recipe, recipe.student_hidden_size, recipe.student_layers, config.text_config.vocab_size)
    made.projection_dim = config.projection_dim
    for name in ("image_size", "patch_size"):
        setattr(made.vision_config, name, getattr(config.vision_config, name))
    made.text_config.max_position_embeddings = config.text_config.max_position_embeddings
    return made


def _towers(recipe: ImageTextModelArguments, width: int, layers: int, words: int) -> PretrainedConfig:
    sizes = {
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": width // HEAD,
        "intermediate_size": 4 * width,
    }  # fmt: skip
    text = {**sizes, "vocab_size": words, "max_position_embeddings": max(64, recipe.max_length), "pad_token_id": 0}
    vision = {**sizes, "image_size": recipe.image_size, "patch_size": recipe.patch_size}
    return ChineseCLIPConfig(text_config=text, vision_config=vision, projection_dim=recipe.vector_size)


class _Vectors:
    """How the vectors of rows are asked for: of a trainer's own model, or of a trainer's teacher."""

    @staticmethod
    def of_teacher(reference: Trainer, rows: Dataset) -> PredictionOutput:
        """Ask the teacher, in the form in which ``Trainer.predict`` gives a student's predictions."""
        found: list[list[np.ndarray]] = []
        for batch in reference.get_test_dataloader(rows):
            batch = reference._prepare_inputs(batch)
            with torch.no_grad():
                shown = reference.teacher(batch, frozenset({"vectors"})).vectors
            both = (shown["image"], shown["text"], reference.task.numbers(batch))
            gathered = reference.accelerator.gather_for_metrics(tuple(one.contiguous() for one in both))
            found.append([one.cpu().numpy() for one in gathered])
        images, texts, numbers = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return PredictionOutput((images, texts), numbers, {})


class ZeroShotScoring(ClassScoring):
    """Classes that are named by texts: an image's class is the one whose captions' vector is the nearest.

    Args:
        names: of the classes, in their order.
        texts: of each class its captions, as many for each.
    """

    plotted: ClassVar[tuple[str, str]] = ("accuracy", "{split} zero-shot accuracy")
    floor_said: ClassVar[str] = "{:.1f} %, the most frequent class"

    def __init__(self, names: Sequence[str], texts: Sequence[Sequence[str]]) -> None:
        super().__init__(names)
        self.texts = [list(one) for one in texts]
        self.compute_recall = recall_metrics(KS)

    def evaluate(self, trainers: Mapping[str, Trainer], rows: Dataset, reference: Trainer) -> dict[str, Measurement]:
        """Score each test row's classes with each model; see ``Scoring.evaluate``."""
        prompts = self._prompts(rows)
        asked = {"teacher": lambda some: _Vectors.of_teacher(reference, some)}
        asked |= {name: trainer.predict for name, trainer in trainers.items()}
        models = {"teacher": reference.teacher.model, **{name: trainer.model for name, trainer in trainers.items()}}
        labels, logits = np.asarray(rows["label"][:]), {}
        for name, ask in asked.items():
            classes = class_vectors(ask(prompts).predictions[1], len(self.texts[0]))
            scale = float(scale_and_bias(core_of(models[name]))[0].detach())
            logits[name] = zero_shot_logits(ask(rows).predictions[0], classes, scale).astype(np.float32)
        return {name: self.measurement(one, labels, logits["teacher"]) for name, one in logits.items()}

    def _prompts(self, rows: Dataset) -> Dataset:
        """Every caption of every class, each beside the same image, which is not looked at."""
        captions = list(chain.from_iterable(self.texts))
        some = rows.select([0] * len(captions))
        return some.remove_columns(CAPTIONS).add_column(CAPTIONS, [[text] for text in captions])


class RetrievalScoring(PredictionScoring):
    """Images that look for their texts and texts for their images, among all test rows."""

    score: ClassVar[str] = "recall"
    plotted: ClassVar[tuple[str, str]] = ("recall", "{split} recall@1, both ways")
    share: ClassVar[bool] = True
    columns: ClassVar[Mapping[str, Column]] = {
        "recall@1 %": percent("recall"),
        "image to text @5 %": percent("image_to_text_recall@5"),
        "text to image @5 %": percent("text_to_image_recall@5"),
        "agrees with teacher %": percent("agreement"),
    }
    hub: ClassVar[Mapping[str, str]] = {"recall": "recall"}
    each: ClassVar[str] = "queries"
    floor_said: ClassVar[str] = "{:.2f} %, one of the other side at random, where no two rows are alike"

    def floor(self, test: Dataset, train: Dataset) -> float:
        """Chance; see ``Scoring.floor``."""
        return 1 / len(test)

    def figures(self, predictions: Any, labels: Any) -> dict[str, float]:
        """Recall at 1, 5 and 10, both ways; see ``PredictionScoring.figures``."""
        found = recall_metrics(KS)(PredictionOutput(predictions, labels, {}))
        return {name: value for name, value in found.items() if name != "recall"}

    def units(self, predictions: Any, labels: Any) -> np.ndarray:
        """Whether each image, then each text, found its own first; see ``PredictionScoring.units``."""
        images, texts = predictions
        both = (pair_hits(images, texts, labels, 1, (1,)), pair_hits(texts, images, labels, 0, (1,)))
        return np.concatenate(both)[:, 0].astype(float)

    def agreement(self, predictions: Any, teacher: Any, labels: Any) -> float:
        """The share of images whose nearest text is the teacher's; see ``PredictionScoring.agreement``."""
        nearest = [zero_shot_logits(*one).argmax(axis=-1) for one in (predictions, teacher)]
        return float((labels[nearest[0], 1] == labels[nearest[1], 1]).mean())

    def of_teacher(self, reference: Trainer, rows: Dataset) -> PredictionOutput:
        """Ask the teacher for vectors; see ``PredictionScoring.of_teacher``."""
        return _Vectors.of_teacher(reference, rows)

    def pictures(self, measurements: Mapping[str, Measurement], folder: Path) -> dict[str, str]:
        """None."""
        return {}
