"""Which recipe made a student, and with which arguments: kept in ``report.json``, so that its rows are found again.

Knows: dataclasses, what must stand in no file. Does not know: what an argument means, how a student is measured.
"""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, Field, fields
from enum import Enum
from pathlib import Path
from typing import Any

from hf_distill.hub.secret import Secret

HIDDEN = re.compile(r"(^|[_-])(token|tokens?_file|secret|password|key|authorization)$", re.IGNORECASE)
"""The names of what opens doors."""
OF_ONE_RUN = frozenset({"recipe", "output_dir", "resume_from_checkpoint", "logging_dir", "run_name"})
"""What is another thing in each run of the same settings."""


def record(name: str, recipe: Any, args: Any) -> dict[str, Any]:
    """Write down what a run was asked for, as a file of its settings would have it.

    Args:
        name: of the recipe.
        recipe: its own arguments.
        args: Trainer's.

    Returns:
        ``name``, and ``arguments``: those that are not as they are by default. No token is among them, and a home
        folder is ``~``: nobody's name.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Arguments:
        ...     train_file: str | None = None
        ...     max_length: int = 128
        ...     hub_token: str | None = None
        >>> record("mine", Arguments("~/rows.jsonl", hub_token="hf_abc"), Arguments())
        {'name': 'mine', 'arguments': {'train_file': '~/rows.jsonl'}}
    """
    plain = type(args)(args.output_dir) if hasattr(args, "output_dir") else args  # Trainer's fill in much themselves
    asked = {
        field.name: getattr(recipe, field.name)
        for field in fields(recipe)
        if getattr(recipe, field.name) != _default(field)
    }
    asked |= {
        field.name: getattr(args, field.name)
        for field in fields(args)
        if field.init and getattr(args, field.name) != getattr(plain, field.name)
    }
    kept = {one: _plain(value) for one, value in asked.items() if one not in OF_ONE_RUN and not HIDDEN.search(one)}
    return {"name": name, "arguments": {one: value for one, value in kept.items() if value is not None}}


def recorded(report: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Read what ``record`` wrote.

    Args:
        report: what ``report.json`` holds.

    Returns:
        The recipe's name and its arguments, with a home folder of today; None where there is no such record.

    Example:
        >>> recorded({"recipe": {"name": "mine", "arguments": {"max_length": 64}}}), recorded({"seconds": 1.0})
        (('mine', {'max_length': 64}), None)
    """
    kept = report.get("recipe")
    if not isinstance(kept, dict) or not isinstance(kept.get("name"), str):
        return None
    given = kept.get("arguments") or {}
    return kept["name"], {
        name: str(Path(value).expanduser()) if isinstance(value, str) and value.startswith("~") else value
        for name, value in given.items()
    }


def _default(field: Field) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return None if field.default is MISSING else field.default


def _plain(value: Any) -> Any:
    """What JSON has of a value; None for what it has none of, or may not have."""
    if isinstance(value, Secret):
        return None
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items() if not HIDDEN.search(str(name))}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, (str, Path)):
        text = re.sub(r"(?<=//)[^/@\s]+@", "", str(value))  # a user and a password before a host
        home = str(Path.home())
        return f"~{text[len(home) :]}" if text == home or text.startswith(f"{home}/") else text
    try:
        json.dumps(value)
    except TypeError:
        return None
    return value
