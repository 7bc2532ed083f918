"""Models that answer questions about pictures: a teacher and a student made here, their processor, exact answers.

Knows: shapes of LLaVA, tokens of answers, kinds of questions. Does not know: files, how a batch is made, how a model
is trained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
    PretrainedConfig,
    PreTrainedModel,
    SiglipVisionConfig,
    Trainer,
)
from transformers.trainer_utils import PredictionOutput

from hf_distill.experiments.data.visual_questions import ANSWER, KIND, QUESTION
from hf_distill.experiments.experiment import Experiment
from hf_distill.experiments.models import ModelArguments
from hf_distill.experiments.predictions import AGREES, PredictionScoring, teacher_predictions
from hf_distill.experiments.question_collator import QuestionCollator
from hf_distill.experiments.scoring import Measurement, percent
from hf_distill.experiments.tokenizers import text_tokenizer
from hf_distill.models.outputs import core_of
from hf_distill.models.vision_tower import DEPTHS, PART, layers_of

HEAD = 32
"""How wide a head is of a model that is made here."""
IMAGE_TOKEN, ANSWERED = "<image>", "<answer>"
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ '<answer>' if message['role'] == 'user' else '</s>' }}{% endfor %}"
)
EXAMPLES = 5
"""How many questions a report shows, each with what every model answers."""
WORDS = 2_000
"""How many tokens a tokenizer has at most that is made here."""


@dataclass
class VisionLanguageArguments(ModelArguments):
    """Which models, and how large those are that are made here: a tower of images before a small Llama (LLaVA)."""

    teacher_layers: int = field(default=3, metadata={"help": "Layers that read the text, of a teacher made here."})
    teacher_vision_layers: int = field(default=2, metadata={"help": "Layers of its tower of images."})
    teacher_hidden_size: int = field(default=96, metadata={"help": "Width of both, in heads of 32."})
    teacher_epochs: float = field(default=10.0, metadata={"help": "Epochs of training or fine-tuning the teacher."})
    teacher_learning_rate: float = field(default=2e-3, metadata={"help": "Its peak learning rate."})
    student_layers: int = field(default=2, metadata={"help": "Layers that read the text, of a student made here."})
    student_vision_layers: int | None = field(
        default=None,
        metadata={"help": "Layers of its tower of images. Default: 1; cut from its teacher, as many as that has."},
    )
    student_hidden_size: int = field(default=32, metadata={"help": "Width of both, in heads of 32."})
    freeze_vision: bool = field(
        default=False, metadata={"help": "Leave the tower of images of a given student, or a cut one, as it is."}
    )
    patch_size: int = field(default=8, metadata={"help": "Into squares of so many pixels an image is cut."})
    image_size: int = field(default=16, metadata={"help": "Height and width in pixels where no model is given."})
    max_length: int = field(default=64, metadata={"help": "Longer answers are cut to this many tokens."})

    def check(self) -> None:
        """Refuse settings that contradict each other; see the base."""
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size={self.image_size} was given, which patches of {self.patch_size} pixels do not divide: "
                "give a multiple."
            )
        for name in ("teacher_vision_layers", "student_vision_layers"):
            if (layers := getattr(self, name)) is not None and layers < 1:
                raise ValueError(f"{name}={layers} was given: give 1 or more, or leave it out.")
        if self.freeze_vision and not (self.student_model_name_or_path or self.student_from_teacher):
            raise ValueError(
                "freeze_vision was given for a student that is made here, whose tower of images has learned nothing "
                "yet: name one with --student_model_name_or_path, or cut it with --student_from_teacher."
            )
        super().check()

    def check_width(self, name: str) -> None:
        """Refuse a width that heads do not divide; see the base."""
        if (width := getattr(self, name)) % HEAD or width < HEAD:
            raise ValueError(f"{name}={width} was given: give a multiple of {HEAD}.")

    def _check_layers(self) -> None:
        super()._check_layers()
        there = self.teacher_vision_layers
        if self.teacher_model_name_or_path is not None:
            tower = getattr(AutoConfig.from_pretrained(self.teacher_model_name_or_path), PART, None)
            there = next((n for name in DEPTHS if isinstance(n := getattr(tower, name, None), int)), None)
        if self.student_vision_layers is not None and there is not None and self.student_vision_layers > there:
            raise ValueError(
                f"student_vision_layers={self.student_vision_layers} of the teacher's were asked for, and it has "
                f"{there}: ask for 1 to {there}."
            )


def shared_processor(recipe: VisionLanguageArguments, texts: Iterable[str]) -> Any:
    """Return the processor of the given models, or one that is made here.

    Args:
        recipe: the models.
        texts: questions and answers of the training rows, whose words become the vocabulary.

    Raises:
        ValueError: there is none beside a model, or the two models' texts are other tokens.
    """
    paths = [path for path in (recipe.student_model_name_or_path, recipe.teacher_model_name_or_path) if path]
    if not paths:
        return small_processor(texts, recipe.image_size, recipe.patch_size, recipe.max_length)
    found = [_loaded(path) for path in paths]
    if len(found) == 2 and found[0].tokenizer.get_vocab() != found[1].tokenizer.get_vocab():
        raise ValueError(
            f"the student {paths[0]} and the teacher {paths[1]} read the same batch, but their tokenizers "
            f"differ ({len(found[0].tokenizer)} and {len(found[1].tokenizer)} tokens): name a student of the "
            "teacher's family."
        )
    return found[0]


def _loaded(path: str) -> Any:
    try:
        found = AutoProcessor.from_pretrained(path)
    except (OSError, ValueError, KeyError, TypeError) as error:  # what each version raises where a part is missing
        raise ValueError(
            f"the model {path} has no processor that can be loaded: save the one that it was trained with."
        ) from error
    if not (hasattr(found, "image_processor") and hasattr(found, "tokenizer")):
        raise ValueError(
            f"the model {path} has a {type(found).__name__}, which does not read both images and texts: name another."
        )
    return found


def small_processor(texts: Iterable[str], image_size: int, patch_size: int, max_length: int) -> LlavaProcessor:
    """Make a processor of images and of words, with a chat template.

    Args:
        texts: the training texts; a word that occurs twice is a token.
        image_size: height and width in pixels.
        patch_size: of the squares that become a token each.
        max_length: of the tokenizer.
    """
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    tokenizer = text_tokenizer([*texts], WORDS)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN, ANSWERED]})
    tokenizer.model_max_length = max(512, max_length)
    images = ViTImageProcessorPil(
        size={"height": image_size, "width": image_size}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return LlavaProcessor(
        images, tokenizer, patch_size=patch_size, vision_feature_select_strategy="full", chat_template=TEMPLATE
    )


def blank_llava(recipe: VisionLanguageArguments, processor: Any) -> PretrainedConfig:
    """Shape a LLaVA that is trained from nothing.

    Args:
        recipe: its sizes.
        processor: of its vocabulary.
    """
    layers, tower, width = recipe.teacher_layers, recipe.teacher_vision_layers, recipe.teacher_hidden_size
    tokenizer = processor.tokenizer
    text = {
        "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "max_position_embeddings": max(512, recipe.max_length),
    }  # fmt: skip
    sides = {"image_size": recipe.image_size, "patch_size": recipe.patch_size}
    return _llava(layers, tower, width, text, sides, processor.image_token_id)


def small_llava(recipe: VisionLanguageArguments, shape: PreTrainedModel) -> PretrainedConfig:
    """Shape a student of a teacher that is a LLaVA as it is made here.

    Args:
        recipe: its sizes.
        shape: the teacher.

    Raises:
        ValueError: the teacher is another model.
    """
    config = shape.config
    if not isinstance(config, LlavaConfig) or not isinstance(config.text_config, LlamaConfig):
        raise ValueError(
            f"a student is made here of a LLaVA teacher, the teacher is {type(shape).__name__}: name a student with "
            "--student_model_name_or_path, or cut one from the teacher with --student_from_teacher."
        )
    names = ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "max_position_embeddings")
    text = {name: getattr(config.text_config, name) for name in names}
    sides = {name: getattr(config.vision_config, name) for name in ("image_size", "patch_size")}
    tower = recipe.student_vision_layers or 1
    return _llava(recipe.student_layers, tower, recipe.student_hidden_size, text, sides, config.image_token_index)


def _llava(
    layers: int, tower: int, width: int, text: Mapping[str, Any], sides: Mapping[str, int], image_token: int
) -> PretrainedConfig:
    heads = {"hidden_size": width, "num_attention_heads": width // HEAD}
    # Of so few dimensions the usual deviation of 0.02 leaves all tokens alike for thousands of steps.
    own = {**heads, "num_hidden_layers": layers, "intermediate_size": 3 * width, "initializer_range": width**-0.5}
    vision = {**heads, "num_hidden_layers": tower, "intermediate_size": 4 * width, "vision_use_head": False}
    return LlavaConfig(
        text_config=LlamaConfig(**own, **text, tie_word_embeddings=True),
        vision_config=SiglipVisionConfig(**vision, **sides),
        image_token_index=image_token,
        image_seq_length=(sides["image_size"] // sides["patch_size"]) ** 2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )


def likeliest(logits: Tensor | tuple, labels: Tensor) -> Tensor:
    """Keep the likeliest token in the place of each label: Trainer's preprocessing of logits.

    Args:
        logits: [B, T, V], or a tuple that begins with them.
        labels: [B, T]; -100 does not count.

    Returns:
        int64 [B, T]: what is predicted for each label, -100 where there is none.

    Example:
        >>> import torch
        >>> logits = F.one_hot(torch.tensor([[5, 6, 7]]), 8).float()
        >>> likeliest(logits, torch.tensor([[-100, 5, 2]]))
        tensor([[-100,    5,    6]])
    """
    logits = logits[0] if isinstance(logits, tuple) else logits
    return F.pad(logits[:, :-1].argmax(-1), (1, 0), value=-100).masked_fill(labels == -100, -100)


class AnswerScoring(PredictionScoring):
    """Answers that are the right one, word for word and to their end.

    An answer that is written greedily is right if and only if, behind the right tokens before it, each of its tokens
    is the likeliest: so one pass tells, and nothing needs to be written.

    Args:
        collator: turns tokens back into answers.
        test: the test rows, with ``question``, ``answer`` and perhaps ``kind``.
    """

    score: ClassVar[str] = "exact"
    plotted: ClassVar[tuple[str, str]] = ("exact", "{split} answers exactly right")
    share: ClassVar[bool] = True
    hub: ClassVar[Mapping[str, str]] = {"exact_match": "exact"}
    speed_rows: ClassVar[int] = 256
    unit: ClassVar[str] = "questions"
    each: ClassVar[str] = "questions"
    floor_said: ClassVar[str] = "{:.1f} %, the most frequent training answer of each kind of question"

    def __init__(self, collator: QuestionCollator, test: Dataset) -> None:
        super().__init__()
        self.collator, self.test = collator, test
        self.kinds = np.array(test[KIND][:]) if KIND in test.column_names else None
        self.columns = {"exact %": percent("exact"), **AGREES}
        self.columns |= {f"{kind} %": percent(kind) for kind in sorted(set(self._kinds()))}

    def _kinds(self) -> Sequence[str]:
        return () if self.kinds is None else self.kinds.tolist()

    def floor(self, test: Dataset, train: Dataset) -> float:
        """Who always gives the most frequent answer to each kind of question; see ``Scoring.floor``."""
        asked, learnt = ((rows[KIND][:] if self.kinds is not None else [""] * len(rows)) for rows in (test, train))
        counts: dict[str, Counter] = {}
        for kind, answer in zip(learnt, train[ANSWER][:], strict=True):
            counts.setdefault(kind, Counter())[answer] += 1
        usual = {kind: count.most_common(1)[0][0] for kind, count in counts.items()}
        return float(np.mean([usual.get(kind) == one for kind, one in zip(asked, test[ANSWER][:], strict=True)]))

    def of_teacher(self, reference: Trainer, rows: Dataset) -> PredictionOutput:
        """Choose as the students do, batch by batch; see ``PredictionScoring.of_teacher``."""
        return teacher_predictions(reference, rows, likeliest)

    def measurement(self, predictions: Any, labels: Any, teacher: Any) -> Measurement:
        """Measure one model, each kind of question too; see ``PredictionScoring.measurement``."""
        found = super().measurement(predictions, labels, teacher)
        right = found.each[self.score]
        if self.kinds is None or len(right) != len(self.kinds):
            return found
        kinds = {kind: float(right[self.kinds == kind].mean()) for kind in sorted(set(self._kinds()))}
        return Measurement(found.each, {**found.figures, **kinds}, found.predictions)

    def figures(self, predictions: Any, labels: Any) -> dict[str, float]:
        """The share of right answers; see ``PredictionScoring.figures``."""
        return {"exact": float(self.units(predictions, labels).mean())}

    def units(self, predictions: Any, labels: Any) -> np.ndarray:
        """Right or wrong; see ``PredictionScoring.units``."""
        return (predictions == labels).all(axis=-1).astype(float)

    def agreement(self, predictions: Any, teacher: Any, labels: Any) -> float:
        """The share of questions with the same answer; see ``PredictionScoring.agreement``."""
        return float((predictions == teacher).all(axis=-1).mean())

    def details(self, measurements: Mapping[str, Measurement]) -> dict[str, Any]:
        """Show the first questions and answers; see ``Scoring.details``."""
        shown = self.test.select(range(min(EXAMPLES, len(self.test)))).select_columns([QUESTION, ANSWER]).to_list()
        for number, row in enumerate(shown):
            row |= {name: self.collator.answer_of(one.predictions[0][number]) for name, one in measurements.items()}
        return {"examples": shown}


@dataclass
class FrozenVisionExperiment(Experiment):
    """An experiment whose students keep their tower of images as it is."""

    def trainer(self, model: PreTrainedModel, *args: Any, **kwargs: Any) -> Trainer:
        """Make the trainer of a model; see the base. A teacher that is trained here learns to see, too.

        Args:
            model: what it trains.
            *args: as in the base.
            **kwargs: as in the base.
        """
        if kwargs.get("rows") is None:
            if (layers := layers_of(core_of(model))) is None:
                raise ValueError(f"freeze_vision was given for {type(model).__name__}, whose tower is not known.")
            holder = next(one for one in core_of(model).modules() if any(child is layers for child in one.children()))
            holder.requires_grad_(False)
        return super().trainer(model, *args, **kwargs)
