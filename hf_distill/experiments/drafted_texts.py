"""What a draft head saves where its teacher writes: passes, seconds, and that the text is the same.

Knows: a teacher, a draft head, prompts, clocks. Does not know: how either was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from hf_distill import DraftHead, speculate
from hf_distill.experiments.scoring import standard_error
from hf_distill.models.texts import cache_word


def saved(
    teacher: PreTrainedModel, draft: DraftHead, prompts: Sequence[Tensor], new_tokens: int, drafted: int
) -> dict[str, Any]:
    """Let a teacher write alone and with a draft head, greedily, and compare texts and clocks.

    Args:
        teacher: who writes.
        draft: who writes ahead.
        prompts: token ids [1, T]; the first text is written twice, the first time without a clock.
        new_tokens: how many are written at most behind each.
        drafted: how many the draft writes before each pass.

    Returns:
        ``tokens``, ``steps`` (passes behind the prompt), ``accepted`` a step, ``texts`` and how many are
        ``identical``, ``speedup`` over ``generate`` with its standard error over texts, and ``speedup_bare`` over a
        loop as bare as ours, which writes a token a pass.
    """
    seconds, steps, taken, written, same = [], 0, 0, 0, 0
    teacher.eval()

    def generate(ids: Tensor) -> Tensor:
        plain = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        return teacher.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, **plain)

    one_by_one = partial(_one_by_one, teacher, new_tokens)
    ahead = partial(speculate, teacher, draft, max_new_tokens=new_tokens, drafted=drafted)
    for number, prompt in enumerate([prompts[0], *prompts]):
        ids = prompt.to(teacher.device)
        with torch.no_grad():
            own, alone = _timed(generate, ids)
            bare = _timed(one_by_one, ids)[1]
            text, helped = _timed(ahead, ids)
        if number:
            seconds.append((alone, bare, helped))
            steps, taken = steps + len(text.accepted), taken + sum(text.accepted)
            written += text.ids.shape[1] - ids.shape[1]
            same += torch.equal(text.ids, own)
    alone, bare, helped = np.array(seconds).T
    error = standard_error(alone / helped)
    figures = {"speedup": float(alone.sum() / helped.sum()), "speedup_error": error}
    figures["speedup_bare"] = float(bare.sum() / helped.sum())
    counts = {"tokens": written, "steps": steps, "accepted": taken / max(1, steps)}
    return {**counts, "texts": len(prompts), "identical": same, **figures}


def _timed(write: Callable[[Tensor], Any], ids: Tensor) -> tuple[Any, float]:
    """What is written, and in how many seconds."""
    began = perf_counter()
    found = write(ids)
    if ids.is_cuda:
        torch.cuda.synchronize()
    return found, perf_counter() - began


def _one_by_one(teacher: PreTrainedModel, new_tokens: int, ids: Tensor) -> Tensor:
    """Write a token a pass, without what ``generate`` does beside it."""
    cache, new, end = DynamicCache(), ids, teacher.generation_config.eos_token_id
    ends, word = {end} if isinstance(end, int) else set(end or ()), cache_word(teacher.forward)
    for _ in range(new_tokens):
        new = teacher(new, **{word: cache}, use_cache=True).logits[:, -1:].argmax(dim=-1)
        ids = torch.cat((ids, new), dim=1)
        if int(new) in ends:
            break
    return ids
