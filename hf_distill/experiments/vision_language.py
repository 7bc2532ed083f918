"""Models that answer questions about pictures: a teacher and a student made here, and their processor.

Knows: shapes of LLaVA, processors, towers of images. Does not know: files, how a batch is made, what is measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import (
    AutoConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
    PretrainedConfig,
    PreTrainedModel,
    SiglipVisionConfig,
    Trainer,
)

from hf_distill.experiments.experiment import Experiment
from hf_distill.experiments.image_text import load_pair_processor
from hf_distill.experiments.models import ModelArguments
from hf_distill.experiments.tokenizers import text_tokenizer
from hf_distill.models.outputs import core_of
from hf_distill.models.vision_tower import DEPTHS, PART

HEAD = 32
"""How wide a head is of a model that is made here."""
IMAGE_TOKEN, ANSWERED = "<image>", "<answer>"
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ '<answer>' if message['role'] == 'user' else '</s>' }}{% endfor %}"
)
WORDS = 2_000
"""How many tokens a tokenizer has at most that is made here."""


@dataclass
class VisionLanguageArguments(ModelArguments):
    """Which models, and how large those are that are made here: a tower of images before a small Llama (LLaVA)."""

    teacher_layers: int = field(default=3, metadata={"help": "Layers that read the text, of a teacher made here."})
    teacher_vision_layers: int = field(default=2, metadata={"help": "Layers of its tower of images."})
    teacher_hidden_size: int = field(default=96, metadata={"help": "Width of both, in heads of 32."})
    teacher_epochs: float = field(default=8.0, metadata={"help": "Epochs of training or fine-tuning the teacher."})
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
    found = [load_pair_processor(path, f"the model {path}") for path in paths]
    if len(found) == 2 and found[0].tokenizer.get_vocab() != found[1].tokenizer.get_vocab():
        raise ValueError(
            f"the student {paths[0]} and the teacher {paths[1]} read the same batch, but their tokenizers "
            f"differ ({len(found[0].tokenizer)} and {len(found[1].tokenizer)} tokens): name a student of the "
            "teacher's family."
        )
    return found[0]


def small_processor(texts: Iterable[str], image_size: int, patch_size: int, max_length: int) -> LlavaProcessor:
    """Make a processor of images and of words, with a chat template.

    Args:
        texts: the training texts; a word that occurs twice is a token.
        image_size: height and width in pixels.
        patch_size: of the squares that become a token each.
        max_length: of the tokenizer.
    """
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    tokenizer = text_tokenizer([*texts], WORDS, ends=False)
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
            vision = getattr(core_of(model).config, PART, None)
            towers = (
                one for one in core_of(model).modules() if isinstance(getattr(one, "config", None), type(vision))
            )
            if vision is None or (tower := next(towers, None)) is None:
                raise ValueError(
                    f"freeze_vision was given for {type(model).__name__}, in which no tower of images is known: leave "
                    "it out."
                )
            tower.requires_grad_(False)
        return super().trainer(model, *args, **kwargs)
