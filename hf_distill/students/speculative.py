"""Speculative decoding with a draft head: the draft writes some tokens ahead, its teacher reads them all at once.

Knows: a teacher, a draft head of it, the keys that both keep. Does not know: tokenizers, prompts, how either was
trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from hf_distill.models.texts import cache_word
from hf_distill.students.draft_head import DraftHead

CHANGES = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0}
"""What a teacher's ``generation_config`` may hold that makes another text than the likeliest token after the other."""
FORBIDS = (
    "min_new_tokens", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id",
    "forced_eos_token_id", "sequence_bias", "exponential_decay_length_penalty",
)  # fmt: skip


@dataclass(frozen=True)
class Speculated:
    """A text, and what it took.

    Args:
        ids: the prompt and what was written behind it [1, T].
        accepted: how many drafted tokens the teacher took at each step.
        passes: how often the teacher ran, for the prompt too.
    """

    ids: Tensor
    accepted: tuple[int, ...]
    passes: int

    @property
    def a_step(self) -> float:
        """How many drafted tokens were taken at a step; the teacher's own one comes on top."""
        return sum(self.accepted) / max(1, len(self.accepted))


@torch.no_grad()
def speculate(
    teacher: PreTrainedModel, draft: DraftHead, ids: Tensor, max_new_tokens: int = 64, drafted: int = 3
) -> Speculated:
    """Let a teacher write the text that it writes alone, greedily, in fewer passes.

    The draft writes ``drafted`` tokens behind what there is. The teacher reads them in one pass, takes those that it
    would have written itself, and adds one of its own. Only the number of its passes depends on the draft.

    Args:
        teacher: who writes.
        draft: of this teacher.
        ids: of one prompt [1, T].
        max_new_tokens: how many are written at most; an end of text ends it before.
        drafted: how many the draft writes before each pass of the teacher.

    Returns:
        The text, and how many drafted tokens were taken at each step.

    Raises:
        ValueError: in one sentence.
    """
    check_speculation(teacher, draft, ids, max_new_tokens, drafted)
    modes = teacher.training, draft.training
    teacher.eval(), draft.eval()
    try:
        return _Writing(teacher, draft, ids.to(teacher.device)).run(max_new_tokens, drafted)
    finally:
        teacher.train(modes[0]), draft.train(modes[1])


def check_speculation(
    teacher: PreTrainedModel, draft: DraftHead, ids: Tensor, max_new_tokens: int, drafted: int
) -> None:
    """Refuse what cannot be written, or would be another text than the teacher's own.

    Args:
        teacher: who writes.
        draft: who writes ahead.
        ids: of the prompt.
        max_new_tokens: how many are written at most.
        drafted: how many at a time.

    Raises:
        ValueError: in one sentence.
    """
    if not isinstance(draft, DraftHead):
        raise ValueError(
            f"a {type(draft).__name__} was given to write ahead, which reads no teacher: give a DraftHead, or let "
            "transformers' generate take it as assistant_model."
        )
    sizes = [(model.config.vocab_size, model.config.hidden_size) for model in (teacher, draft)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"the teacher has {sizes[0][0]} tokens and width {sizes[0][1]}, the draft head {sizes[1][0]} and "
            f"{sizes[1][1]}: give the teacher that it was made from."
        )
    if ids.ndim != 2 or len(ids) != 1 or not ids.shape[1]:
        raise ValueError(
            f"ids of shape {list(ids.shape)} were given, one prompt is written at a time: give [1, T], one call each."
        )
    if max_new_tokens < 1 or drafted < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens} and drafted={drafted} were given: give 1 or more of each.")
    config = teacher.generation_config
    asked = {name: getattr(config, name, None) for name in (*CHANGES, *FORBIDS)}
    if changed := [name for name, value in asked.items() if value not in (None, CHANGES.get(name))]:
        raise ValueError(
            f"the teacher's generation_config has {changed[0]}={asked[changed[0]]}, speculate writes the likeliest "
            f"token each time: set teacher.generation_config.{changed[0]} to {CHANGES.get(changed[0])}."
        )


class _Writing:
    """One text that is being written, and the keys that both models keep of it."""

    def __init__(self, teacher: PreTrainedModel, draft: DraftHead, ids: Tensor) -> None:
        self.teacher, self.draft, self.ids, self.passes = teacher, draft, ids, 0
        self.kept, self.own = DynamicCache(), DynamicCache()
        self.fused = None  # what the draft has not read yet of the teacher's states
        end = teacher.generation_config.eos_token_id
        self.ends = {end} if isinstance(end, int) else set(end or ())

    def run(self, most: int, drafted: int) -> Speculated:
        length, accepted = self.ids.shape[1] + most, []
        self._add(self._read(self.ids)[-1:].tolist(), length)
        while not self._done(length):
            # No more than the teacher may still take: behind them comes one of its own.
            ahead = self._ahead(min(drafted, length - self.ids.shape[1]))
            known = self.ids.shape[1]
            own = self._read(torch.cat((self.ids[:, -1:], ahead), dim=1)).tolist()
            same = [one == two for one, two in zip(ahead[0].tolist(), own, strict=False)]
            taken = next((place for place, agrees in enumerate(same) if not agrees), len(same))
            _cut(self.kept, known + taken)
            self.fused = self.fused[:, : taken + 1]
            accepted.append(min(taken, self._add(own[: taken + 1], length)))
        return Speculated(self.ids, tuple(accepted), self.passes)

    def _read(self, ids: Tensor) -> Tensor:
        """Let the teacher read on; return what it would write behind each of these tokens."""
        kept = {cache_word(self.teacher.forward): self.kept}
        shown = self.teacher(ids, **kept, use_cache=True, output_hidden_states=True)
        states = (shown.hidden_states[layer] for layer in self.draft.config.reads_layers)
        self.fused = self.draft.fused(*(one.to(self.draft.device) for one in states))
        self.passes += 1
        return shown.logits[0].argmax(dim=-1)

    def _add(self, tokens: Sequence[int], length: int) -> int:
        """Append tokens up to an end of text or the length; return how many there was room for."""
        stop = next((place + 1 for place, one in enumerate(tokens) if one in self.ends), len(tokens))
        some = self.ids.new_tensor([tokens[: min(stop, length - self.ids.shape[1])]])
        self.ids = torch.cat((self.ids, some), dim=1)
        return some.shape[1]

    def _done(self, length: int) -> bool:
        return self.ids.shape[1] >= length or int(self.ids[0, -1]) in self.ends

    def _ahead(self, number: int) -> Tensor:
        """Draft tokens behind what is written; of what the draft kept only what the teacher fed stays."""
        count = self.ids.shape[1] - 1  # the first token has no state before it
        new, states, found = self.ids[:, 1 + self.own.get_seq_length() :], self.fused, []
        for _ in range(number):
            new, states = self._drafted(new, states)
            found.append(new)
        _cut(self.own, count)
        return torch.cat(found, dim=1).to(self.ids.device)

    def _drafted(self, tokens: Tensor, states: Any) -> tuple[Tensor, Tensor]:
        """One pass of the draft: the likeliest next token [1, 1], and the state of the last [1, 1, H]."""
        draft, before = self.draft, self.own.get_seq_length()
        vectors = draft.embed_tokens(tokens.to(draft.device))
        places = before + torch.arange(vectors.shape[1], device=draft.device)
        seen = torch.arange(before + vectors.shape[1], device=draft.device) <= places[:, None]
        states = draft.step(vectors, states.to(vectors.dtype), places[None], seen[None, None], self.own)[:, -1:]
        return draft.lm_head(draft.norm(states)).argmax(dim=-1), states


def _cut(cache: DynamicCache, length: int) -> None:
    """Forget the keys behind so many; transformers takes how many are too many, as a negative number."""
    if (more := cache.get_seq_length() - length) > 0:
        cache.crop(-more)
