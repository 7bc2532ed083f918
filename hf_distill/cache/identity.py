"""Who a teacher is, so that nobody trains on another one's answers.

Knows: weights, vocabularies, library versions. Does not know: what is answered, where it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import accelerate
import torch
import transformers
from torch import nn

from hf_distill.models.facts import Facts
from hf_distill.tasks.alignment.tokenizers import own_tokens, vocabulary_of
from hf_distill.teachers.teacher import Teacher


def precision_of(teacher: Teacher, mixed: str | None = None) -> str | None:
    """Say what a teacher computes in.

    Args:
        teacher: any.
        mixed: the run's mixed precision, ``no``, ``bf16``, ``fp16``.

    Example:
        >>> from hf_distill.teachers import LiveTeacher
        >>> precision_of(LiveTeacher(nn.Linear(1, 1), dtype=torch.bfloat16))
        'bfloat16'
    """
    model = teacher.model
    if teacher.dtype is not None:
        return str(teacher.dtype).removeprefix("torch.")
    if not isinstance(model, nn.Module):
        return None
    if mixed not in (None, "no"):
        return f"{mixed} autocast"
    floats = (str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.is_floating_point())
    return next(floats, "float32")


def header_of(facts: Facts, **more: Any) -> dict[str, Any]:
    """Write down who the teacher is, for a folder of its answers.

    Args:
        facts: what is known of it. Of a local folder only the last name is written, which says nothing of a machine:
            answers are published too.
        **more: what else is known; None is not written.

    Example:
        >>> header = header_of(Facts("my/teacher", vocab_size=9), precision="bfloat16", weights=None)
        >>> header["teacher"], header["facts"]["vocab_size"], "weights" in header
        ('my/teacher', 9, False)
    """
    name = Path(facts.name).name if Path(facts.name).is_dir() else facts.name
    facts = replace(facts, name=name, streams={})  # nothing of other streams is kept
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    told = {
        "teacher": facts.name,
        "revision": facts.revision,
        "facts": {name: value for name, value in asdict(facts).items() if value not in (None, {})},
        "versions": {**versions, "accelerate": accelerate.__version__},
        **more,
    }
    return {name: value for name, value in told.items() if value is not None}


def known_of(
    teacher: Teacher, facts: Facts, weights: str | None, ours: Any, dataset: Any, mixed: str | None
) -> dict[str, Any]:
    """Write down who a run's teacher is.

    Args:
        teacher: placed; None: nobody is asked, everything was kept before.
        facts: what is known of it.
        weights: their hash, taken before the teacher was placed.
        ours: the student's tokenizer or processor, or None.
        dataset: the training set.
        mixed: the run's mixed precision.
    """
    own = own_tokens(dataset)  # which the student's say nothing of
    tokenizer = teacher.tokenizer or (None if own else ours)
    precision = precision_of(teacher, mixed)
    return header_of(facts, weights=weights, precision=precision, tokenizer=vocabulary_of(tokenizer))


def facts_in(header: Mapping[str, Any]) -> Facts:
    """Read what is known of a teacher from a header.

    Args:
        header: as ``header_of`` wrote it.

    Example:
        >>> facts_in(header_of(Facts("my/teacher", labels=("a", "b")))).labels
        ('a', 'b')
    """
    own = {field.name for field in fields(Facts)}  # a newer version may know more, which changes nothing here
    told = {name: value for name, value in dict(header.get("facts", {})).items() if name in own}
    lists = {name: tuple(told[name]) for name in ("labels", "kept", "widths", "copies") if told.get(name) is not None}
    return Facts(**{**told, **lists})
