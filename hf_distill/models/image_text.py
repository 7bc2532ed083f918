"""Models of two towers, one for images and one for texts, whose vectors are compared (CLIP, SigLIP, ALIGN).

Knows: what transformers calls their methods, their learned scale and bias, their projections. Does not know: losses,
batches, tasks.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from hf_distill.models.meta import IMAGES
from hf_distill.models.outputs import core_of
from hf_distill.models.texts import IDS

OTHERS = ("OwlViT", "Owlv2", "Flava")
"""Their texts are several a row, or their vectors one a position, though the methods have the same names."""
TOWERS = ("image", "text")
PROJECTIONS = ("text_projection", "text_model.head")
"""Where the last linear map of a text is; the images' has the same width."""


def has_two_towers(model: nn.Module) -> bool:
    """Say whether a model makes one vector of an image and one of a text, and has a scale for their products.

    Args:
        model: any module.

    Example:
        >>> has_two_towers(nn.Linear(1, 1))
        False
    """
    core = core_of(model)
    makes = hasattr(core, "get_image_features") and hasattr(core, "get_text_features")
    if not makes or type(core).__name__.startswith(OTHERS):
        return False
    scaled = hasattr(core, "logit_scale") or isinstance(getattr(core, "temperature", None), nn.Parameter)
    return scaled and {IDS, IMAGES} <= set(inspect.signature(core.forward).parameters)


def tower_columns(model: nn.Module) -> dict[str, frozenset[str]]:
    """Say which columns of a batch either tower reads, and the other does not.

    Args:
        model: a model of two towers.

    Returns:
        ``"image"`` and ``"text"`` -> names; a column that stands under neither belongs to no tower alone.

    Example:
        >>> class Clip(nn.Module):
        ...     def get_image_features(self, pixels, scale): ...
        ...     def get_text_features(self, ids, mask, scale): ...
        >>> {side: sorted(names) for side, names in tower_columns(Clip()).items()}
        {'image': ['pixels'], 'text': ['ids', 'mask']}
    """
    core = core_of(model)
    image, text = (frozenset(inspect.signature(getattr(core, f"get_{side}_features")).parameters) for side in TOWERS)
    return dict(zip(TOWERS, (image - text, text - image), strict=True))


def scale_and_bias(core: Any) -> tuple[Tensor, Tensor | None]:
    """Return what a cosine is multiplied by, and what is added: the model's own parameters, with their graph.

    Args:
        core: a model of two towers.

    Returns:
        float32 scalars; None for the bias of a model that has none.

    Example:
        >>> import torch
        >>> class Clip(nn.Module):
        ...     logit_scale = torch.tensor(0.0)
        >>> scale_and_bias(Clip())
        (tensor(1.), None)
    """
    if hasattr(core, "logit_scale"):
        log = core.logit_scale.float().reshape(())
        if (most := getattr(core, "max_log_logit_scale", None)) is not None:  # AIMv2's
            log = log.clamp(0.0, most)
        scale = log.exp()
    else:  # ALIGN's
        scale = 1.0 / core.temperature.float().reshape(())
    bias = getattr(core, "logit_bias", None)
    return scale, None if bias is None else bias.float().reshape(())


def vector_size(model: Any) -> int | None:
    """Say how long the vectors of a model of two towers are; None: it is another model, or does not say.

    Args:
        model: any module.

    Example:
        >>> print(vector_size(nn.Linear(1, 1)))
        None
    """
    if not isinstance(model, nn.Module) or not has_two_towers(model):
        return None
    core = core_of(model)
    for path in PROJECTIONS:
        try:
            found = [one for one in core.get_submodule(path).modules() if isinstance(one, nn.Linear)]
        except AttributeError:
            continue
        if found:
            return found[-1].out_features
    size = getattr(core.config, "projection_dim", None) or core.config.get_text_config().hidden_size
    return size if isinstance(size, int) else None
