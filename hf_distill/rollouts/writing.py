"""A model that continues prompts.

Knows: transformers' ``generate``, how a token is drawn. Does not know: batches, which rows are chosen, who else
writes.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from hf_distill.models.frames import in_own_dtype
from hf_distill.models.outputs import core_of
from hf_distill.rollouts.padding import Row, stacked
from hf_distill.rollouts.settings import Rollout

KEPT = ("decoder_start_token_id", "forced_bos_token_id", "bos_token_id", "pad_token_id", "eos_token_id")
"""What a model's own ``generation_config`` says about the form of a text, and not about how it is chosen."""

WHISPERS = (
    "is_multilingual", "lang_to_id", "task_to_id", "language", "task", "no_timestamps_token_id", "prev_sot_token_id",
    "forced_decoder_ids", "return_timestamps", "max_initial_timestamp_index", "suppress_tokens",
    "begin_suppress_tokens",
)  # fmt: skip
"""The same of Whisper: what its decoder begins with, and which tokens are no text."""

FALLBACK = ("compression_ratio_threshold", "logprob_threshold", "no_speech_threshold", "condition_on_prev_tokens")
"""When Whisper writes a text again, or none: it writes once here, and whoever asked judges the text."""

CHANCE = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")


class Draw(LogitsProcessor):
    """Draws each row's token with numbers that were drawn before: the same token, whatever else is in the batch.

    The token whose share of the cumulated probability holds the number is left as the only one.

    Args:
        uniform: float64 [B, max_new_tokens] in [0, 1).

    Example:
        >>> draw = Draw(torch.tensor([[0.1], [0.9]]))
        >>> draw(torch.zeros(2, 1), torch.zeros(2, 4)).argmax(dim=-1)
        tensor([0, 3])
    """

    def __init__(self, uniform: Tensor) -> None:
        self.all = self.uniform = uniform
        self.turn = 0

    def start(self, rows: Sequence[int]) -> None:
        """Begin with the texts of some rows.

        Args:
            rows: which of them.
        """
        self.uniform, self.turn = self.all[list(rows)], 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Keep one token a row.

        Args:
            input_ids: what was written so far.
            scores: logits [B, V].

        Returns:
            Logits [B, V], infinite but for one a row.
        """
        exact = torch.float32 if scores.device.type == "mps" else torch.float64
        shares = scores.to(exact).softmax(dim=-1).cumsum(dim=-1)
        aim = self.uniform[:, self.turn : self.turn + 1].to(shares) * shares[:, -1:]
        token = torch.searchsorted(shares, aim, right=True).clamp(max=scores.shape[-1] - 1)
        self.turn += 1
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)


class OnlyTokens(LogitsProcessor):
    """Leaves out the classes that only pad a head: they are no text, and another model may not be able to read them.

    Args:
        tokens: how many classes are tokens; they come first.

    Example:
        >>> OnlyTokens(2)(torch.zeros(1, 1), torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[1., 2., -inf]])
    """

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the logits [B, V] without those beyond; see ``Draw``."""
        padding = torch.arange(scores.shape[-1], device=scores.device) >= self.tokens
        return scores.masked_fill(padding, -torch.inf)


def students_way(model: nn.Module, rollout: Rollout, tokenizer: Any) -> GenerationConfig:
    """Say how a student writes: from its own distribution, without the penalties that its checkpoint may ask for.

    Args:
        model: the student.
        rollout: what was asked.
        tokenizer: the run's, or None; it is asked for special tokens that the model does not name.
    """
    kept = (*KEPT, *WHISPERS) if _is_whisper(model) else KEPT
    form = {name: value for name in kept if (value := getattr(_own(model), name, None)) is not None}
    return _whole(GenerationConfig(**form), rollout, tokenizer, model)


def teachers_way(model: nn.Module, rollout: Rollout, tokenizer: Any) -> GenerationConfig:
    """Say how a teacher writes: its most likely text, by its own beam search and penalties.

    Args:
        model: the teacher.
        rollout: what was asked.
        tokenizer: the run's, or None.
    """
    config = copy.deepcopy(_own(model))
    for name in CHANCE:
        setattr(config, name, None)
    if rollout.num_beams is not None:
        config.num_beams = rollout.num_beams
    return _whole(config, rollout, tokenizer, model)


def begins_with(model: nn.Module) -> int:
    """Count the tokens that Whisper's decoder begins with and that take room from a text; 0: no other's do.

    Args:
        model: the model.
    """
    if not _is_whisper(model):
        return 0
    own, config = _own(model), core_of(model).config
    forced = getattr(own, "forced_decoder_ids", None) or getattr(config, "forced_decoder_ids", None) or ()
    asked = sum(getattr(own, name, None) is not None for name in ("lang_to_id", "task_to_id"))
    return 1 + max(asked, len(forced)) + hasattr(own, "no_timestamps_token_id")


def _own(model: nn.Module) -> GenerationConfig:
    return getattr(core_of(model), "generation_config", None) or GenerationConfig()


def _is_whisper(model: nn.Module) -> bool:
    """Whether a model generates as Whisper does, in its own way."""
    return any(base.__name__ == "WhisperGenerationMixin" for base in type(core_of(model)).__mro__)


def _whole(config: GenerationConfig, rollout: Rollout, tokenizer: Any, model: nn.Module) -> GenerationConfig:
    config.do_sample, config.use_cache, config.max_length = False, True, None  # chance is a processor here
    config.max_new_tokens, config.num_return_sequences, config.return_dict_in_generate = (
        rollout.max_new_tokens,
        1,
        False,
    )
    if _is_whisper(model):
        for name in FALLBACK:
            setattr(config, name, None)
        # One pass over the recording, of which all is returned: what the decoder began with, the text, its end.
        config.force_unique_generate_call = True
    if config.eos_token_id is None:
        config.eos_token_id = getattr(tokenizer, "eos_token_id", None)
    if config.pad_token_id is None:
        config.pad_token_id = pad_of(config, tokenizer)
    return config


def pad_of(config: GenerationConfig, tokenizer: Any) -> int:
    """Return the token that fills a row; it is masked, so any will do.

    Args:
        config: how a model writes.
        tokenizer: the run's, or None.
    """
    for found in (getattr(tokenizer, "pad_token_id", None), config.pad_token_id, config.eos_token_id):
        if found is not None:
            return found[0] if isinstance(found, (list, tuple)) else int(found)
    return 0


def drawing(rollout: Rollout, uniform: Sequence[np.ndarray]) -> list[LogitsProcessor]:
    """Make what draws a student's tokens; nothing where it takes the most likely ones.

    Args:
        rollout: what was asked.
        uniform: for each prompt float64 [max_new_tokens].
    """
    if not rollout.do_sample:
        return []
    warpers: list[LogitsProcessor] = []
    if rollout.temperature != 1:
        warpers.append(TemperatureLogitsWarper(float(rollout.temperature)))
    if rollout.top_k:
        warpers.append(TopKLogitsWarper(rollout.top_k))
    if rollout.top_p < 1:
        warpers.append(TopPLogitsWarper(rollout.top_p))
    return [*warpers, Draw(torch.from_numpy(np.stack(uniform)))]


def write(
    model: nn.Module,
    prompts: Sequence[Row],
    config: GenerationConfig,
    left: bool,
    processors: Sequence[LogitsProcessor] = (),
    generate: Callable[..., Tensor] | None = None,
    synced: bool = False,
    stack: Callable[[Sequence[Row], bool], dict[str, Tensor]] | None = None,
) -> list[Tensor]:
    """Let a model continue prompts.

    Args:
        model: a model that generates.
        prompts: column -> tokens [n], or a recording, [n] or [n, ...]; its mask is one of the columns or it has none.
        config: how it writes; the model's own is put aside.
        left: whether padding comes before a prompt; after an encoder's it comes behind.
        processors: what is done to its logits.
        generate: what to call; None: the model's own.
        synced: whether other ranks write at the same time and need this one until the last of them is done.
        stack: how prompts become what a model reads; None: tokens, or a recording. See ``Layout.stack``.

    Returns:
        For each prompt the tokens [m] that follow it, the first end-of-sequence token included, on the CPU. Beside an
        encoder these are labels: all that the decoder begins with but for its first token, which the shift adds, and
        the text.
    """
    device = next((p.device for p in model.parameters() if p.device.type != "meta"), torch.device("cpu"))
    rows = [
        {**prompt, "attention_mask": torch.ones_like(prompt["input_ids"])} if "input_ids" in prompt else dict(prompt)
        for prompt in prompts
    ]
    ends = torch.tensor(ends_of(config), dtype=torch.int64)
    texts: dict[int, Tensor] = {}
    for numbers in _together(rows, synced):
        some, fill = [rows[n] for n in numbers], {"input_ids": config.pad_token_id}
        fed = stacked(some, fill, left) if stack is None else stack(some, left)
        fed = in_own_dtype(model, {name: value.to(device) for name, value in fed.items()})
        for one in processors:
            if isinstance(one, Draw):
                one.start(numbers)
        with _own_config(core_of(model), config), _without_advice() if _is_whisper(model) else nullcontext():
            made = (generate or model.generate)(
                **fed, generation_config=config, logits_processor=LogitsProcessorList(processors), synced_gpus=synced
            )
        begin = fed["input_ids"].shape[1] if left else 1
        texts |= {n: _until(text, ends) for n, text in zip(numbers, made[:, begin:].cpu(), strict=True)}
    return [texts[n] for n in range(len(rows))]


def ends_of(config: GenerationConfig) -> list[int]:
    """Return the tokens that end a text.

    Args:
        config: how a model writes.
    """
    ends = config.eos_token_id
    return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)


def _together(rows: Sequence[Row], synced: bool) -> list[list[int]]:
    """Which rows are written at once: all where a mask says what is padding, else those that need none.

    Ranks that write together write as often as each other: there all rows are padded.
    """
    if synced or "attention_mask" in rows[0]:
        return [list(range(len(rows)))]
    groups: dict[Any, list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(tuple((name, row[name].shape) for name in sorted(row)), []).append(number)
    return list(groups.values())


def _until(text: Tensor, ends: Tensor) -> Tensor:
    last = torch.isin(text, ends).nonzero()
    return text[: int(last[0]) + 1] if len(last) else text


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep transformers from telling, at every step, of settings that Whisper's own ``generate`` hands to its base."""
    told = logging.getLogger("transformers.generation.utils")
    level = told.level
    told.setLevel(logging.ERROR)
    try:
        yield
    finally:
        told.setLevel(level)


@contextmanager
def _own_config(core: nn.Module, config: GenerationConfig) -> Iterator[None]:
    """Put a model's own settings aside: ``generate`` would fill in from them what was left out on purpose."""
    own, core.generation_config = getattr(core, "generation_config", None), config
    try:
        yield
    finally:
        core.generation_config = own
