"""What image processors make of an image: the tokenizers of pictures.

Knows: processors of transformers, where a model keeps its own. Does not know: batches, models, trainers.
"""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor

from hf_distill.models.facts import Facts
from hf_distill.models.timm import timm_named

FILE, BOTH = "preprocessor_config.json", "processor_config.json"
"""Where an image processor is kept alone, and with a tokenizer."""
NAMES = (
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize",
    "image_mean", "image_std", "patch_size", "merge_size", "do_image_splitting", "image_grid_pinpoints",
)  # fmt: skip
"""What decides on the pixels that a model is given."""


def prepares(processor: Any) -> dict[str, Any]:
    """Say what a processor makes of an image; two that say the same make the same.

    Args:
        processor: an image processor of transformers.

    Example:
        >>> prepares(type("Own", (), {"size": {"height": 8}, "image_mean": [0.5]})())
        {'size': {'height': 8}, 'image_mean': [0.5]}
    """
    told = {name: getattr(processor, name, None) for name in NAMES}
    return {name: _plain(value) for name, value in told.items() if value is not None}


def processor_at(name: str | Path) -> Any:
    """Load the image processor beside a model; None where there is none, or none without asking the network again.

    Args:
        name: a path or Hub id.
    """
    if Path(name).is_dir() and not any((Path(name) / file).is_file() for file in (FILE, BOTH)):
        return None
    try:
        return AutoImageProcessor.from_pretrained(name, local_files_only=not Path(name).is_dir())
    except (OSError, ValueError, KeyError, ImportError):
        return None


def load_processor(name: str, who: str, **options: Any) -> Any:
    """Load the image processor beside a model.

    Args:
        name: a path or Hub id.
        who: how a message names the model.
        **options: in the place of the processor's own, as ``from_pretrained`` takes them.

    Raises:
        ValueError: there is none.
        ImportError: it comes with a library that is not installed.
    """
    try:
        with timm_named(who):
            return AutoImageProcessor.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError) as error:  # what each version raises where there is none
        raise ValueError(
            f"{who} reads images, and there is no image processor that can be loaded beside it ({FILE}): save the one "
            "that it was trained with there (processor.save_pretrained)."
        ) from error


def check_processors(teacher: Facts, ours: Any, collator: Any) -> None:
    """Refuse a teacher that would be given images prepared for another model.

    Args:
        teacher: what is known of it; its processor is looked for beside its weights.
        ours: the trainer's processing class; nothing is compared unless it prepares images, alone or beside texts.
        collator: the data collator; one with a ``teacher_processor`` gives the teacher images of its own.

    Raises:
        ValueError: in one sentence, what differs.
    """
    both, ours = hasattr(ours, "image_processor"), getattr(ours, "image_processor", ours)
    if not hasattr(ours, "image_mean") or getattr(collator, "teacher_processor", None) is not None:
        return
    if (theirs := processor_at(teacher.name)) is None:
        return
    one, other = prepares(ours), prepares(theirs)
    differs = [name for name in NAMES if name in one and name in other and one[name] != other[name]]
    if differs:
        first = differs[0]
        own = (
            "give the teacher columns of its own (teacher_input_ids, teacher_pixel_values, ...)"
            if both
            else "pass data_collator=ImageCollator(processor, teacher_processor), which gives each its own"
        )
        raise ValueError(
            f"the teacher {teacher.name} was made for images of {first}={other[first]}, the student's processor gives "
            f"{first}={one[first]}: {own}, use one processor for both, or leave processing_class out if it is meant "
            "so."
        )


def _plain(value: Any) -> Any:
    if is_dataclass(value):  # as transformers 5 holds a size
        value = asdict(value)
    if hasattr(value, "items"):
        return {name: one for name, one in value.items() if one is not None}
    return [round(float(one), 6) for one in value] if isinstance(value, (list, tuple)) else value
