"""Experiments: did a teacher help? What the scripts in ``recipes/`` are made of.

Knows: the names that a script begins with, each imported when it is first used. Does not know: anything else.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "Recipe": "recipe",
    "run": "recipe",
    "Experiment": "experiment",
    "ModelArguments": "models",
    "ModelKind": "models",
    "say": "settings",
    "shared_tokenizer": "models",
    "teachers_labels": "models",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hf_distill.experiments' has no attribute {name!r}")
    return getattr(importlib.import_module(f"hf_distill.experiments.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
