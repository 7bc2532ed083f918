"""Whether each image of a batch belongs to the row at its number, as a key of a row needs it.

Knows: configurations, columns, tokens that stand for an image. Does not know: keys, what is kept, which model answers.

A text may hold two images and the next one none: entry i of the images is then not row i's, although there are as many
as rows. Models that take any number of images mark each place in the text with a token of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hf_distill.models.outputs import core_of
from hf_distill.models.texts import IDS

KINDS = {
    "video": ("pixel_values_video", "video_"),
    "audio": ("input_features", "input_values", "audio_", "feature_", "speech_"),
    "image": ("pixel_", "image_", "images_", "spatial_shapes"),
}
"""What the columns of each kind begin with, the first that fits; ``pixel_values_videos`` is no image."""


def placeholders_of(model: nn.Module | None) -> dict[str, int]:
    """Name the tokens that stand in a text for what is no text.

    Args:
        model: any; None: nothing is known.

    Returns:
        ``image``, ``video`` or ``audio`` -> token id; empty for a model that reads one image a text, and marks none.
    """
    config = getattr(core_of(model), "config", None) if model is not None else None
    found = {kind: _first(config, f"{kind}_token_id", f"{kind}_token_index") for kind in KINDS}
    return {kind: token for kind, token in found.items() if isinstance(token, int)}


def unpaired(inputs: Mapping[str, Any], placeholders: Mapping[str, int]) -> str:
    """Say why the images, videos or waves of a batch cannot be told apart by row; empty where they can.

    Args:
        inputs: what a model reads of a batch, each column with one entry a row.
        placeholders: kind -> token id.

    Example:
        >>> import torch
        >>> two, none = [9, 9, 5], [5, 6, 7]
        >>> batch = {"input_ids": torch.tensor([two, none]), "pixel_values": torch.ones(2, 3, 8, 8)}
        >>> unpaired(batch, {"image": 9})
        "'pixel_values' has 2 entries for 2 rows, but row 1 has no image token (9): they are not one a row"
        >>> unpaired(batch, {})
        ''
    """
    ids = inputs.get(IDS)
    if not isinstance(ids, Tensor) or ids.ndim != 2:
        return ""
    for name, value in inputs.items():
        token = placeholders.get(_kind(name))
        if token is None or not isinstance(value, Tensor) or value.shape == ids.shape:  # which says it of each token
            continue
        empty = (~(ids == token).any(dim=1)).nonzero().flatten().tolist()
        if empty:
            return (
                f"{name!r} has {len(value)} entries for {len(ids)} rows, but row {empty[0]} has no {_kind(name)} "
                f"token ({token}): they are not one a row"
            )
    return ""


def _kind(name: str) -> str | None:
    return next((kind for kind, begin in KINDS.items() if name.startswith(begin)), None)


def _first(config: Any, *names: str) -> Any:
    return next((value for name in names if (value := getattr(config, name, None)) is not None), None)
