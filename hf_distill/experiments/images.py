"""Image models of a recipe: their processor, and a teacher and a student that are made here.

Knows: image processors, shapes of convolutional networks. Does not know: data sets, training, what is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PretrainedConfig, ResNetConfig

from hf_distill.augmentation.views import Crop, Flip, Shift, View
from hf_distill.experiments.models import ModelArguments
from hf_distill.tasks.processors import load_processor


@dataclass
class ImageModelArguments(ModelArguments):
    """Which image models, and how large those are that are made here: residual networks of two stages."""

    teacher_layers: int = field(default=2, metadata={"help": "Blocks in each of two stages of a teacher made here."})
    teacher_hidden_size: int = field(default=64, metadata={"help": "Width of its second stage; the first has half."})
    teacher_epochs: float = field(default=10.0, metadata={"help": "Epochs of training or fine-tuning the teacher."})
    teacher_learning_rate: float = field(default=4e-3, metadata={"help": "Its peak learning rate."})
    student_layers: int = field(default=1, metadata={"help": "Blocks in each stage of a student made here."})
    student_hidden_size: int = field(default=16, metadata={"help": "Width of its second stage."})
    image_size: int = field(default=32, metadata={"help": "Height and width in pixels where no model is given."})
    shift: int = field(default=0, metadata={"help": "In training images are moved by up to so many pixels."})
    flip: bool = field(default=False, metadata={"help": "In training every other image is turned over."})
    crop: float | None = field(
        default=None, metadata={"help": "In training a part of at least this share is cut out and enlarged."}
    )
    views: int | None = field(
        default=None, metadata={"help": "So many views of an image recur, and are kept. Default: always new ones."}
    )
    mixup: float = field(default=0.0, metadata={"help": "Images are blended in pairs; 0.2 is usual, 0 blends none."})
    cutmix: float = field(
        default=0.0, metadata={"help": "A part of another image is pasted into each; 1 is usual, 0 pastes none."}
    )

    def check(self) -> None:
        """Refuse settings that contradict each other; see the base."""
        if self.lora_rank:
            raise ValueError(
                f"lora_rank={self.lora_rank} was given, which this recipe does not train: leave it out, or pass a "
                "PEFT model to DistillationTrainer in a script of your own."
            )
        super().check()

    def check_width(self, name: str) -> None:
        """Refuse a width that two stages cannot have; see the base, whose widths are heads of 64."""
        if (width := getattr(self, name)) % 2 or width < 2:
            raise ValueError(f"{name}={width} was given: give an even number, at least 2.")

    @property
    def changes(self) -> list[View]:
        """What changes images in training."""
        asked = [(self.crop, Crop), (self.shift, Shift)]
        return [*(kind(value) for value, kind in asked if value), *([Flip()] if self.flip else [])]


def blank_resnet(recipe: ImageModelArguments, processor: Any) -> PretrainedConfig:
    """Shape a residual network that is trained from nothing.

    Args:
        recipe: its sizes.
        processor: of its images; three channels.
    """
    return _resnet(recipe.teacher_hidden_size, recipe.teacher_layers)


def small_resnet(recipe: ImageModelArguments, shape: Any) -> PretrainedConfig:
    """Shape a student of a teacher that is a residual network of two stages.

    Args:
        recipe: its sizes.
        shape: the teacher.

    Raises:
        ValueError: the teacher is none.
    """
    if not isinstance(shape.config, ResNetConfig):
        raise ValueError(
            f"a student is made here of a ResNet teacher, the teacher is {type(shape).__name__}: name a student with "
            "--student_model_name_or_path, or cut one from the teacher with --student_from_teacher."
        )
    return _resnet(recipe.student_hidden_size, recipe.student_layers)


def _resnet(width: int, blocks: int) -> PretrainedConfig:
    widths: Sequence[int] = (width // 2, width)
    return ResNetConfig(
        embedding_size=widths[0], hidden_sizes=list(widths), depths=[blocks, blocks], layer_type="basic"
    )


def shared_processor(recipe: ImageModelArguments) -> Any:
    """Return the image processor of the given student, of the teacher, or one that is made here.

    Args:
        recipe: the models.
    """
    if path := recipe.student_model_name_or_path or recipe.teacher_model_name_or_path:
        return load_processor(path, f"the model {path}")
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    size = {"height": recipe.image_size, "width": recipe.image_size}
    return ViTImageProcessorPil(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3)
