"""Models that are made of a library that may not be there: one sentence in the place of an ImportError of many lines.

Knows: what transformers says where timm is missing. Does not know: how a model is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def timm_named(who: str) -> Iterator[None]:
    """While open, say of a model that needs timm, which is not installed, how to get on.

    Args:
        who: how the message names the model.

    Raises:
        ImportError: in one sentence; any other one is left as it is.

    Example:
        >>> with timm_named("the teacher big"):
        ...     raise ImportError("TimmBackbone requires the timm library but it was not found in your environment.")
        Traceback (most recent call last):
        ...
        ImportError: the teacher big has a backbone of timm, which is not installed: pip install timm, or use a \
checkpoint whose backbone transformers has itself (use_timm_backbone=False and a backbone_config such as ResNetConfig).
    """
    try:
        yield
    except ImportError as error:
        if "timm" not in str(error).lower():
            raise
        raise ImportError(
            f"{who} has a backbone of timm, which is not installed: pip install timm, or use a checkpoint whose "
            "backbone transformers has itself (use_timm_backbone=False and a backbone_config such as ResNetConfig)."
        ) from error
