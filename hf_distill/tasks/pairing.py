"""Whose row each image, video or wave of a batch is, from the tokens that stand for them in the texts.

Knows: configurations, columns, tokens that stand for an image. Does not know: keys, what is kept, which model answers.

A text may hold two images and the next one none: entry i of the images is then not row i's, although there may be as
many as rows. Others hold patches of all images one behind the other. Models that take any number of images mark each
place in the text with a token of their own, as often as an image is positions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hf_distill.models.outputs import core_of
from hf_distill.models.texts import IDS

KINDS = {
    "video": ("pixel_values_video", "video_", "second_per_grid"),
    "audio": ("input_features", "input_values", "audio_", "feature_", "speech_"),
    "image": ("pixel_", "image_", "images_", "spatial_shapes", "high_res_pixel"),
}
"""What the columns of each kind begin with, the first that fits; ``pixel_values_videos`` is no image."""

NO_MATCH = re.compile(r"features and .*tokens do not match|laceholder tokens? .* do(es)? not match", re.DOTALL)
"""What models of transformers say once they have made an image and found more or fewer tokens for it."""


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


PATCH = (("in_channels", "in_chans", "num_channels"), ("temporal_patch_size",), ("patch_size",))
"""What a configuration calls the channels, frames and sides of the patches that a processor cuts."""
SIZED = ("{}_grid_thw", "spatial_shapes", "{}_sizes")
"""Columns that say how large each image is, in units of which it is as many positions."""


def owners_of(inputs: Mapping[str, Any], placeholders: Mapping[str, int]) -> dict[str, Tensor]:
    """Say of each column whose entries are not one a row to which row each entry belongs.

    In the order of a text, an image is as many entries as places, or each run of places is one; what fits neither
    the sizes that a column tells nor one of these two is not known.

    Args:
        inputs: what a model reads of a batch.
        placeholders: kind -> token id; see ``placeholders_of``.

    Returns:
        Column -> int64 [entries], ascending; of one with as many places a row as the fullest has (Idefics), bool
        [B, places]: which hold something. Columns of no kind, and those of each image's tiles (Mllama), are not named.

    Raises:
        ValueError: in one sentence: it is not known.

    Example:
        >>> two, none = [9, 9, 5], [5, 6, 7]
        >>> batch = {"input_ids": torch.tensor([two, none]), "pixel_values": torch.ones(2, 3, 8, 8)}
        >>> owners_of(batch, {"image": 9})
        {'pixel_values': tensor([0, 0])}
        >>> owners_of({**batch, "pixel_values": torch.ones(8, 12)}, {"image": 9})["pixel_values"].tolist()
        [0, 0, 0, 0, 0, 0, 0, 0]
        >>> owners_of(batch, {})
        {}
    """
    ids, found = inputs.get(IDS), {}
    if not isinstance(ids, Tensor) or ids.ndim != 2:
        return found
    for kind, token in placeholders.items():
        there = {n: v for n, v in inputs.items() if kind_of(n) == kind and isinstance(v, Tensor) and 0 < v.ndim < 6}
        there = {name: value for name, value in there.items() if value.shape != ids.shape}  # says it of each token
        if (filled := _filled(there, ids == token)) is not None:
            found.update({name: filled for name, value in there.items() if value.shape[:2] == filled.shape})
        else:
            found.update({name: _owners(name, len(value), there, ids, kind, token) for name, value in there.items()})
    return found


def _filled(there: Mapping[str, Tensor], places: Tensor) -> Tensor | None:
    """Which images are some, where each row has as many places for them as the fullest; None: it has not."""
    several = next((value for value in there.values() if value.ndim >= 5), None)
    if several is None or len(several) != len(places) or "image_sizes" in there:  # of which each is one of an image
        return None
    filled = several.flatten(2).ne(0).any(dim=2).to(places.device)
    return filled if torch.equal(filled.any(dim=1), places.any(dim=1)) else None


def _owners(name: str, size: int, there: Mapping[str, Tensor], ids: Tensor, kind: str, token: int) -> Tensor:
    places = (ids == token).cpu()
    each, runs = places.sum(dim=1), places.clone()
    if size == len(ids) and each.all():  # one each
        return torch.arange(size)
    runs[:, 1:] &= ~places[:, :-1]
    told = (there.get(form.format(kind)) for form in SIZED)
    sizes = [one.cpu().prod(dim=-1) for one in told if one is not None and one.ndim == 2]
    ways = [one for one in sizes if len(one) == size]
    if runs.sum() == size and not any(one.sum() == size for one in sizes):
        ways.append(runs)
    ways.append(torch.ones(size, dtype=torch.int64))
    for way in ways:
        if way is runs:
            return runs.nonzero()[:, 0]
        if (owners := _in_proportion(way, each)) is not None:
            return owners
    empty = "" if each.sum() else f", but no row has a token that stands for one ({token})"
    raise ValueError(
        f"the column {name!r} has {size} entries for {len(ids)} rows with {each.tolist()} {kind} tokens"
        f"{empty or ', which do not go into each other'}"
    )


def _in_proportion(sizes: Tensor, places: Tensor) -> Tensor | None:
    """Give each entry to the row in which its share of all places lies; None: an entry would be two rows'."""
    ours, theirs = (F.pad(one.long().cumsum(0), (1, 0)) for one in (sizes, places))
    if not ours[-1] or not theirs[-1]:
        return None
    ends = ours * theirs[-1], theirs * ours[-1]
    if not torch.isin(ends[1], ends[0]).all():
        return None
    return torch.searchsorted(ends[1][1:], ends[0][1:])


def kind_of(name: str) -> str | None:
    """Say of what kind a column is: ``image``, ``video`` or ``audio``; None: of none of them.

    Args:
        name: the column's.
    """
    return next((kind for kind, begin in KINDS.items() if name.startswith(begin)), None)


def check_images(batch: Mapping[str, Any], placeholders: Mapping[str, int]) -> None:
    """Refuse places for images of which the batch has none, and images for which its texts have no place.

    Args:
        batch: what a model reads, and labels.
        placeholders: kind -> token id.

    Raises:
        ValueError: in one sentence, of which row.

    Example:
        >>> check_images({"input_ids": torch.tensor([[9, 5]])}, {"image": 9})
        Traceback (most recent call last):
        ValueError: row 0 has a place for an image (token 9), but the batch has no images: let the collator ...
    """
    ids = batch.get(IDS)
    if not isinstance(ids, Tensor) or ids.ndim != 2:
        return
    shown = {kind: [n for n, v in batch.items() if kind_of(n) == kind and v is not None] for kind in placeholders}
    several = {token: [k for k, one in placeholders.items() if one == token] for token in placeholders.values()}
    for kind, token in placeholders.items():
        rows = (ids == token).any(dim=1).nonzero()
        if len(rows) and not any(shown[one] for one in several[token]):
            raise ValueError(
                f"row {int(rows[0])} has a place for an {kind} (token {token}), but the batch has no {kind}s: let the "
                f"collator give them to the model, and set remove_unused_columns=False where it makes them of a "
                "column that the model does not take."
            )
        if not len(rows) and shown[kind]:
            raise ValueError(
                f"the batch has {kind}s ({shown[kind][0]}), but no text has a place for one (token {token}): let the "
                "processor make the texts too, and cut no place off (max_length)."
            )


@contextmanager
def naming_lost_places(model: nn.Module, fed: Mapping[str, Any]) -> Iterator[None]:
    """While a model runs, say in one sentence that its texts have more or fewer places than its images fill.

    How many an image fills is known to the model alone, once it has made it, so nothing is counted until it fails.

    Args:
        model: who reads.
        fed: what it reads.

    Raises:
        ValueError: in one sentence, of which batch.

    Example:
        >>> class Reader(nn.Module):
        ...     config = type("Config", (), {"image_token_id": 9})
        >>> with naming_lost_places(Reader(), {"input_ids": torch.tensor([[9, 5]]), "pixel_values": torch.ones(1, 3)}):
        ...     raise ValueError("Image features and image tokens do not match, tokens: 1, features: 4")
        Traceback (most recent call last):
        ValueError: a batch has 1 image and 1 image token (by row [1]), which Reader found not to match: let the ...
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        ids, said = fed.get(IDS), str(error)
        if NO_MATCH.search(said) is None or not isinstance(ids, Tensor):
            raise
        places = placeholders_of(model)
        kind = next((one for one in places if said.lower().startswith(one)), "image")
        if kind not in places:
            raise
        each = (ids == places[kind]).sum(dim=1).tolist()
        raise ValueError(
            f"a batch has {_counted(_entries(kind, fed), kind)} and {_counted(sum(each), f'{kind} token')} (by row "
            f"{each}), which {type(core_of(model)).__name__} found not to match: let the processor make the texts and "
            f"the {kind}s of a row together, and cut no place off (max_length)."
        ) from error


def _entries(kind: str, fed: Mapping[str, Any]) -> int:
    """How many there are of a kind: as a column says that tells their sizes, or as they stand there."""
    sized = [one for form in SIZED if isinstance(one := fed.get(form.format(kind)), Tensor)]
    if sized or kind == "image":
        return len(sized[0]) if sized else images_in(fed)
    return max((len(v) for n, v in fed.items() if kind_of(n) == kind and isinstance(v, Tensor) and v.ndim), default=0)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def images_in(batch: Mapping[str, Any]) -> int:
    """Count what a tower of images reads of a batch: images, tiles of them, or patches that stand in one row.

    Args:
        batch: the batch; empty places of rows with fewer images are none.

    Example:
        >>> images_in({"pixel_values": torch.ones(3, 3, 8, 8)}), images_in({"input_ids": torch.ones(1, 2)})
        (3, 0)
    """
    pixels = [v for n, v in batch.items() if n.startswith("pixel_values") and isinstance(v, Tensor) and v.ndim]
    return sum(int(one.flatten(2).ne(0).any(2).sum()) if one.ndim >= 5 else len(one) for one in pixels)


def misread(model: nn.Module, fed: Mapping[str, Any], batch: Mapping[str, Any]) -> str | None:
    """Say what of a batch's images is in another form than a model reads; None: nothing that can be seen.

    Args:
        model: who is about to read them.
        fed: what it is about to be called with.
        batch: what that was taken from.

    Example:
        >>> misread(nn.Identity(), {"input_ids": torch.ones(1, 2)}, {"input_ids": torch.ones(1, 2)})
    """
    places, vision = placeholders_of(model), getattr(getattr(core_of(model), "config", None), "vision_config", None)
    if lost := [name for name in batch if kind_of(name) in places and name not in fed]:
        return f"it takes no {lost[0]}"
    try:
        check_images(fed, places)
    except ValueError as error:
        return str(error).partition(":")[0]
    sides = [_first(vision, *names) for names in PATCH]
    for name, value in fed.items():
        if name.startswith("pixel_values") and isinstance(value, Tensor) and value.ndim == 2 and _whole(sides):
            channels, frames, side = sides
            if value.shape[1] != (width := channels * frames * side**2):
                return f"{name} has patches of {value.shape[1]} numbers, its own have {width}"
    return None


def _whole(sides: list[Any]) -> bool:
    return all(isinstance(one, int) for one in sides)


def _first(config: Any, *names: str) -> Any:
    return next((value for name in names if (value := getattr(config, name, None)) is not None), None)
