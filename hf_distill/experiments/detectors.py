"""Detectors of a recipe: RT-DETR for small images, as a teacher and as a student, and the processor of their images.

Knows: image processors, shapes of RT-DETR. Does not know: data sets, training, what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformers import RTDetrConfig, RTDetrResNetConfig

from hf_distill.experiments.models import ModelArguments
from hf_distill.tasks.processors import load_processor

STRIDES = (4, 8, 16)
"""How much smaller than the image its maps are: digits of 16 pixels have four cells or more of the second."""


@dataclass
class DetectorArguments(ModelArguments):
    """Which detectors, and how large those are that are made here: RT-DETR with a residual network of four stages."""

    teacher_layers: int = field(default=2, metadata={"help": "Layers of the decoder of a teacher made here."})
    teacher_hidden_size: int = field(default=32, metadata={"help": "Its width, a multiple of 8."})
    teacher_epochs: float = field(default=20.0, metadata={"help": "Epochs of training or fine-tuning the teacher."})
    teacher_learning_rate: float = field(default=4e-3, metadata={"help": "Its peak learning rate."})
    student_layers: int = field(default=1, metadata={"help": "Layers of the decoder of a student made here."})
    student_hidden_size: int = field(default=16, metadata={"help": "Its width, a multiple of 8."})
    queries: int = field(default=30, metadata={"help": "How many objects a detector made here can find in an image."})
    image_size: int = field(
        default=64, metadata={"help": "Height and width in pixels where no model is given, a multiple of 32."}
    )
    flip: bool = field(default=False, metadata={"help": "In training every other image is turned over."})

    def check(self) -> None:
        """Refuse settings that contradict each other; see the base."""
        for name in ("lora_rank", "student_from_teacher", "student_parameters"):
            if value := getattr(self, name):
                raise ValueError(
                    f"{name}={value} was given, which this recipe does not do: leave it out, or pass a model of your "
                    "own to DistillationTrainer in a script."
                )
        if self.image_size < 32 or self.image_size % 32:
            raise ValueError(f"image_size={self.image_size} was given: give a multiple of 32.")
        cells = sum((self.image_size // stride) ** 2 for stride in STRIDES)
        if not 1 <= self.queries <= cells:
            raise ValueError(
                f"queries={self.queries} was given, and each starts from a cell of the maps of an image, of which "
                f"there are {cells} at image_size={self.image_size}: give 1 to {cells}."
            )
        super().check()

    def check_width(self, name: str) -> None:
        """Refuse a width that four heads and half as many channels cannot have; see the base."""
        if (width := getattr(self, name)) < 8 or width % 8:
            raise ValueError(f"{name}={width} was given: give a multiple of 8.")


def blank_detector(recipe: DetectorArguments, processor: Any) -> RTDetrConfig:
    """Shape an RT-DETR that is trained from nothing.

    Args:
        recipe: its sizes.
        processor: of its images; three channels.
    """
    return _rt_detr(recipe.teacher_hidden_size, recipe.teacher_layers, recipe.queries)


def small_detector(recipe: DetectorArguments, shape: Any) -> RTDetrConfig:
    """Shape a student of a teacher that is an RT-DETR.

    Args:
        recipe: its sizes.
        shape: the teacher.

    Raises:
        ValueError: the teacher is none.
    """
    if not isinstance(shape.config, RTDetrConfig):
        raise ValueError(
            f"a student is made here of an RT-DETR teacher, the teacher is {type(shape).__name__}: name a student "
            "with --student_model_name_or_path."
        )
    return _rt_detr(recipe.student_hidden_size, recipe.student_layers, recipe.queries)


def _rt_detr(width: int, layers: int, queries: int) -> RTDetrConfig:
    """A detector for small images: maps at a quarter, an eighth and a sixteenth of their size."""
    widths = [width // 2, width, width]
    backbone = RTDetrResNetConfig(
        embedding_size=width // 2, hidden_sizes=widths, depths=[1] * 3, layer_type="basic",
        out_features=["stage1", "stage2", "stage3"],
    )  # fmt: skip
    return RTDetrConfig(
        backbone_config=backbone, freeze_backbone_batch_norms=False, encoder_in_channels=widths,
        feat_strides=list(STRIDES), encoder_hidden_dim=width, encoder_layers=1, encoder_attention_heads=4,
        encoder_ffn_dim=2 * width, hidden_expansion=0.5, eval_size=None, d_model=width, num_queries=queries,
        decoder_in_channels=[width] * 3, decoder_layers=layers, decoder_attention_heads=4, decoder_ffn_dim=2 * width,
        num_denoising=0,
    )  # fmt: skip


def shared_processor(recipe: DetectorArguments) -> Any:
    """Return the image processor of the given student, of the teacher, or one that is made here.

    Args:
        recipe: the models.
    """
    path = recipe.student_model_name_or_path or recipe.teacher_model_name_or_path
    return load_processor(path, f"the model {path}") if path else made_processor(recipe.image_size)


def made_processor(side: int) -> Any:
    """Make an image processor of RT-DETR.

    Args:
        side: height and width of its images.
    """
    from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

    size = {"height": side, "width": side}
    return RTDetrImageProcessorPil(size=size, do_normalize=True, image_mean=[0.5] * 3, image_std=[0.5] * 3)
