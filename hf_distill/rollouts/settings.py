"""How a user asks for rollouts: one field, as a mapping.

Knows: names, defaults, validity. Does not know: models, batches, trainers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

MEASURES = ("wer", "cer")
NORMALIZERS = ("english", "basic")
KEEP_IF = (
    'limits from 0 such as {"wer": 0.1} or {"cer": 0.1}, and as "normalizer" nothing, "english", "basic" or a function'
)


@dataclass(frozen=True)
class Rollout:
    """Which share of the training samples is written anew, by whom, and how.

    Args:
        on_policy: the share that the student writes, from its own distribution, at every step: lambda of generalised
            knowledge distillation (Agarwal et al. 2023, arXiv:2306.13649). The teacher speaks about what is written,
            the supervised loss does not learn from it.
        seq_kd: the share that the teacher writes, its most likely text, once for each prompt: sequence-level
            knowledge distillation (Kim & Rush 2016, arXiv:1606.07947). It is a label like any other.
        max_new_tokens: how many tokens a text may have; it ends before that with an end-of-sequence token.
        do_sample: whether the student draws its tokens; otherwise it takes the most likely one.
        temperature: divides the student's logits where it draws; greater than 0.
        top_k: the student draws among this many; 0: among all.
        top_p: the student draws among the most likely tokens that have this probability together; 1: among all.
        num_beams: of the teacher's beam search; 1: greedy; None: as its own ``generation_config`` says.
        keep_if: which of the teacher's texts are learned from, where a row has a transcript, its label:
            ``{"wer": 0.1}``, those whose word error rate against it is at most that; ``"cer"``, of characters, for
            Chinese and Japanese. ``"normalizer"`` is ``"english"`` or ``"basic"``, both Whisper's, or a function of a
            text. None: all.
        folder: where the teacher's texts are kept, for every rank, epoch and run; None: under ``output_dir``.
        server: where vLLM writes for the teacher, such as ``http://localhost:8000`` of ``vllm serve TEACHER``; its key
            is read from ``VLLM_API_KEY``. None: the teacher writes by ``generate``.

    Raises:
        ValueError: a value that cannot be used.

    Example:
        >>> Rollout(on_policy=0.5, seq_kd=0.25).max_new_tokens
        128
        >>> Rollout(on_policy=0.7, seq_kd=0.5)
        Traceback (most recent call last):
        ...
        ValueError: rollout was given on_policy=0.7 and seq_kd=0.5: they are shares of the samples, give two numbers \
from 0 to 1 whose sum is more than 0 and at most 1.
    """

    on_policy: float = 0.0
    seq_kd: float = 0.0
    max_new_tokens: int = 128
    do_sample: bool = True
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    num_beams: int | None = None
    keep_if: Mapping[str, Any] | None = None
    folder: str | None = None
    server: str | None = None

    def __str__(self) -> str:
        """Say it as a model card does.

        Example:
            >>> print(Rollout(on_policy=0.5, seq_kd=0.25, temperature=0.7))
            50 % written by the student at every step (temperature 0.7), 25 % written by the teacher, texts of at \
most 128 tokens
        """
        how = f"temperature {self.temperature:g}" if self.do_sample else "greedily"
        parts = [f"{100 * self.on_policy:g} % written by the student at every step ({how})"] if self.on_policy else []
        parts += [f"{100 * self.seq_kd:g} % written by the teacher"] if self.seq_kd else []
        limits = {name: limit for name, limit in (self.keep_if or {}).items() if name in MEASURES}
        parts += [f"those with a {name.upper()} above {100 * limit:g} % left out" for name, limit in limits.items()]
        return ", ".join((*parts, f"texts of at most {self.max_new_tokens} tokens"))

    def __post_init__(self) -> None:
        """Check the values."""
        shares = (self.on_policy, self.seq_kd)
        if not (all(_is_number(share) and 0 <= share <= 1 for share in shares) and 0 < sum(shares) <= 1 + 1e-9):
            raise ValueError(
                f"rollout was given on_policy={self.on_policy!r} and seq_kd={self.seq_kd!r}: they are shares of the "
                "samples, give two numbers from 0 to 1 whose sum is more than 0 and at most 1."
            )
        for name, fits, wanted in (
            ("max_new_tokens", _is_whole(self.max_new_tokens, 1), "a whole number from 1"),
            ("do_sample", isinstance(self.do_sample, bool), "true or false"),
            ("temperature", _is_number(self.temperature) and self.temperature > 0, "a number greater than 0"),
            ("top_k", _is_whole(self.top_k, 0), "a whole number, 0 for all tokens"),
            ("top_p", _is_number(self.top_p) and 0 < self.top_p <= 1, "a number above 0 and at most 1"),
            ("num_beams", self.num_beams is None or _is_whole(self.num_beams, 1), "a whole number from 1"),
            ("keep_if", self.keep_if is None or _is_kept_if(self.keep_if), KEEP_IF),
            ("folder", self.folder is None or (isinstance(self.folder, str) and self.folder), "a path"),
            ("server", self.server is None or str(self.server).startswith(("http://", "https://")), "an http address"),
        ):
            if not fits:
                raise ValueError(f"rollout was given {name}={getattr(self, name)!r}: give {wanted}.")
        if self.keep_if is not None and not self.seq_kd:
            raise ValueError(
                f"rollout was given keep_if={self.keep_if!r}, which chooses among what the teacher writes, and "
                "seq_kd=0 asks it for nothing: set seq_kd, or leave keep_if out."
            )
        if self.server and not self.seq_kd:
            raise ValueError(
                f"rollout was given server={self.server!r}, which writes for the teacher, and seq_kd=0 asks it for "
                "nothing: set seq_kd, or leave server out."
            )


@dataclass
class RolloutArguments:
    """The field that rollouts add to ``TrainingArguments``.

    Args:
        rollout: which share of the training samples of a language model is written anew, by the student
            (``on_policy``) or by the teacher (``seq_kd``), with the other options of ``Rollout``; as JSON on a command
            line. None: the samples stay as they are.

    Raises:
        ValueError: a value that cannot be used.

    Example:
        >>> RolloutArguments(rollout={"on_policy": 0.5, "max_new_tokens": 64}).rollout["on_policy"]
        0.5
    """

    rollout: dict | str | None = field(
        default=None,
        metadata={
            "help": "Samples that the student (on_policy) or the teacher (seq_kd) writes anew, as JSON such as "
            '\'{"on_policy": 0.5, "seq_kd": 0.25, "max_new_tokens": 64, "temperature": 1.0}\'. Default: none.'
        },
    )

    def __post_init__(self) -> None:
        """Check the value, then let ``TrainingArguments`` check its own."""
        rollout_of(self.rollout)
        if hasattr(super(), "__post_init__"):
            super().__post_init__()


def rollout_of(asked: Rollout | Mapping[str, Any] | str | None) -> Rollout | None:
    """Make a rollout of what a user wrote.

    Args:
        asked: a ``Rollout``, a mapping of its fields, that as JSON, or None.

    Returns:
        The rollout; None where nothing was asked.

    Raises:
        ValueError: in one sentence: an unknown option, or a value that cannot be used.

    Example:
        >>> rollout_of({"on_policy": 1, "top_k": 50}).top_k
        50
        >>> rollout_of({"lambda": 0.5})
        Traceback (most recent call last):
        ...
        ValueError: rollout has no option 'lambda': it has on_policy, seq_kd, max_new_tokens, do_sample, temperature, \
top_k, top_p, num_beams, keep_if, folder, server.
    """
    if asked is None or isinstance(asked, Rollout):
        return asked
    if isinstance(asked, str) and asked.lstrip().startswith("{"):
        asked = json.loads(asked)
    if not isinstance(asked, Mapping):
        raise ValueError(f'rollout={asked!r} was given: give a mapping such as {{"on_policy": 0.5}}.')
    known = [one.name for one in fields(Rollout)]
    if strange := [name for name in asked if name not in known]:
        raise ValueError(f"rollout has no option {strange[0]!r}: it has {', '.join(known)}.")
    return Rollout(**asked)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_kept_if(value: Any) -> bool:
    if not isinstance(value, Mapping) or not value.keys() & set(MEASURES) or value.keys() - {*MEASURES, "normalizer"}:
        return False
    how = value.get("normalizer")
    fits = how is None or callable(how) or how in NORMALIZERS
    return fits and all(_is_number(value[name]) and value[name] >= 0 for name in MEASURES if name in value)


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
