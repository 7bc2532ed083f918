"""Whether there is room for a text in what a model reads.

Knows: how many positions a model has, how long prompts and texts are. Does not know: who writes, batches' rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from hf_distill.models.context import context_of
from hf_distill.models.outputs import core_of
from hf_distill.rollouts.padding import Row
from hf_distill.rollouts.settings import Rollout


def contexts_of(models: Mapping[str, nn.Module | None]) -> dict[str, int]:
    """Return how many positions each model reads, where its configuration says so.

    Args:
        models: what to call it -> the model, or None.
    """
    found = {}
    for name, model in models.items():
        if model is not None and (limit := context_of(model)) is not None:
            found[f"{name} {type(core_of(model)).__name__}"] = limit
    return found


def check_room(
    contexts: Mapping[str, int], prompts: Sequence[Row], asked: Rollout, behind: bool, begun: int = 0
) -> None:
    """Refuse a text that one of the models could not read to its end.

    Args:
        contexts: how many positions each model reads.
        prompts: what is continued; none: only the text itself is looked at.
        asked: how long a text may be.
        behind: whether a text stands behind its prompt, or in a decoder of its own.
        begun: how many tokens such a decoder begins with.

    Raises:
        ValueError: in one sentence.
    """
    longest = max((len(prompt["input_ids"]) for prompt in prompts), default=0) if behind else begun
    for name, limit in contexts.items():
        if longest + asked.max_new_tokens > limit:
            prompt = f"a prompt of {longest} tokens and " if longest else ""
            raise ValueError(
                f"rollout may make {prompt}a text of max_new_tokens={asked.max_new_tokens}, {name} reads {limit} "
                "positions (max_position_embeddings): lower max_new_tokens, or shorten the prompts."
            )


def check_context(contexts: Mapping[str, int], batch: Mapping[str, Any]) -> None:
    """Refuse a batch that is longer than one of the models reads.

    Args:
        contexts: how many positions each model reads.
        batch: the batch, rewritten.

    Raises:
        ValueError: in one sentence.
    """
    length = max(batch[name].shape[1] for name in ("input_ids", "labels") if name in batch)
    for name, limit in contexts.items():
        if length > limit:
            raise ValueError(
                f"the batch is {length} tokens long, {name} reads {limit} positions (max_position_embeddings): cut "
                "the rows, or use models that read as much."
            )
