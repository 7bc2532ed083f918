"""What feature extractors make of waves: the image processors of recordings.

Knows: feature extractors of transformers, what each reads at most and at least. Does not know: files, rows, batches,
models.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerBase

from hf_distill.models.frames import RECORDINGS
from hf_distill.models.texts import MASK

ABOUT = ("feature_extractor_type", "processor_class", "name_or_path", "_name_or_path")
"""What a feature extractor says that decides on nothing."""
FAULTS = (ValueError, RuntimeError, IndexError, FloatingPointError)
"""What extractors raise of a recording that is too short for a frame."""


def extractor_of(processor: Any) -> Any:
    """Return what makes features of waves: a feature extractor itself, or a processor's.

    Args:
        processor: of transformers.

    Raises:
        TypeError: it has none.
    """
    found = getattr(processor, "feature_extractor", processor)
    if isinstance(found, PreTrainedTokenizerBase) or not isinstance(getattr(found, "sampling_rate", None), int):
        raise TypeError(
            f"SpeechCollator was given a {type(processor).__name__}, which makes no features of recordings: pass the "
            "feature extractor of the model (AutoFeatureExtractor.from_pretrained), or its processor."
        )
    return found


def made_by(extractor: Any) -> dict[str, Any]:
    """Say what a feature extractor makes of a recording; two that say the same make the same.

    Args:
        extractor: of transformers.

    Example:
        >>> from transformers import Wav2Vec2FeatureExtractor
        >>> made_by(Wav2Vec2FeatureExtractor()) == made_by(Wav2Vec2FeatureExtractor(sampling_rate=8000))
        False
    """
    told = json.loads(extractor.to_json_string())
    kind = getattr(type(extractor), "__name__", "")
    return {"kind": kind, **{name: value for name, value in told.items() if name not in ABOUT}}


def longest_of(extractor: Any) -> int | None:
    """Say how many samples a feature extractor reads of a recording; it would cut the rest off without a word.

    Args:
        extractor: of transformers.

    Returns:
        The samples; None: all.
    """
    if isinstance(samples := getattr(extractor, "n_samples", None), int):  # Whisper
        return samples
    frames = getattr(extractor, "max_length", None)  # AST: frames of 25 ms, one every 10 ms at 16,000 samples
    return 400 + 160 * (frames - 1) + 159 if isinstance(frames, int) and hasattr(extractor, "num_mel_bins") else None


def features_of(extractor: Any, waves: Sequence[np.ndarray]) -> dict[str, Tensor]:
    """Make what a model reads of waves at its extractor's rate, padded as the extractor pads.

    Args:
        extractor: of transformers.
        waves: float32 [T] each.

    Returns:
        ``input_values`` or ``input_features``, and ``attention_mask`` where the extractor returns one.
    """
    known = inspect.signature(extractor.__call__).parameters
    pads = {"padding": True} if "padding" in known and known["padding"].default in (False, None) else {}
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a recording too short for its own mean, which is told
        made: BatchFeature = extractor(list(waves), sampling_rate=extractor.sampling_rate, return_tensors="pt", **pads)
    return {name: value for name, value in made.items() if isinstance(value, Tensor)}


def unusable(made: Mapping[str, Tensor]) -> int | None:
    """Find the first row without a frame, or with features that are not finite.

    Args:
        made: of ``features_of``.

    Returns:
        Its number; None: there is none.
    """
    bad = next(made[name] for name in RECORDINGS if name in made)
    bad = ~bad.flatten(1).isfinite().all(dim=1)
    if MASK in made:
        bad |= made[MASK].sum(dim=1) == 0
    return int(bad.nonzero()[0]) if bad.any() else None


def refuse_short(number: int, wave: np.ndarray, extractor: Any, error: Exception | None = None) -> None:
    """Say that an extractor makes no features of a recording.

    Args:
        number: of the row.
        wave: at the extractor's rate.
        extractor: of transformers.
        error: what it raised, if it did.

    Raises:
        ValueError: in each case.
    """
    raise ValueError(
        f"row {number} of a batch has a recording of {len(wave) / extractor.sampling_rate:.3f} seconds, of which "
        f"{type(extractor).__name__} makes no features, as of one that is too short or silent: leave the row out."
    ) from error
