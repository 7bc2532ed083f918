"""Weights whose names in a file are not those of the model, as transformers writes them of some classes.

Knows: checkpoints of transformers models. Does not know: trainers, optimizers, what else a checkpoint holds.

``save_pretrained`` of a ViT, a Mixtral and others writes the names under which the class was first published, and
``from_pretrained`` knows them; Trainer loads a checkpoint by today's names, and leaves all others out with a warning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel


def is_renamed(load_result: Any) -> bool:
    """Say whether a file's names were not the model's: some are missing, and others stand there for them.

    Args:
        load_result: as ``load_state_dict`` returns it.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> is_renamed(model.load_state_dict(model.state_dict())), is_renamed(model.load_state_dict({}, strict=False))
        (False, False)
    """
    return bool(load_result.missing_keys) and bool(load_result.unexpected_keys)


def load_renamed(model: nn.Module, checkpoint: str | Path) -> bool:
    """Load the weights of a checkpoint as ``from_pretrained`` does, into a model that is there.

    Args:
        model: the student; what it carries beside its own weights stays as it is.
        checkpoint: a folder of ``save_pretrained``.

    Returns:
        Whether it is a model whose names can be told; any other is left as it is.

    Raises:
        ValueError: the checkpoint is of another model.
    """
    if not isinstance(model, PreTrainedModel):
        return False
    twin, told = type(model).from_pretrained(
        checkpoint, config=model.config, dtype=model.dtype, output_loading_info=True
    )
    lost = sorted(told["missing_keys"])
    if lost:
        raise ValueError(
            f"{checkpoint} has no weights for {lost[0]} and {len(lost) - 1} more of {type(model).__name__}: resume "
            "with the model that the checkpoint was made of."
        )
    model.load_state_dict(twin.state_dict(), strict=False)
    return True
