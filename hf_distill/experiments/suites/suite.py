"""What every suite says and does: which models it scores, which tasks it has, what it finds of a model.

Knows: libraries that may be missing, names that are nearly right. Does not know: any one library, runs, tables.
"""

from __future__ import annotations

import difflib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from datasets.exceptions import DatasetsError

from hf_distill.tasks import Task

FAULTS = (OSError, ValueError, KeyError, ImportError, RuntimeError, DatasetsError)
"""What a task raises whose rows or files are not there, or are others than it reads."""

ROWS_FROM = "rows of public tasks come from the Hub, connect to it, or name tasks over your files with --include_path"
"""What to do where a task's rows cannot be had."""


@dataclass(frozen=True)
class Asked:
    """What is to be scored, and how.

    Args:
        tasks: their names.
        include_path: where further ones are.
        limit: so many rows of each task, the first ones; None: all.
        batch_size: rows that run at once.
        device: such as ``cpu`` or ``cuda:0``.
        max_length: longer texts are cut to so many tokens; None: the model's own length.
        num_fewshot: examples before each row; None: as many as a task has by itself.
        apply_chat_template: whether a prompt becomes a user's turn of a conversation.
        pool: what a text's vector is, ``mean`` of its tokens or the ``first``, where a folder does not say it.
    """

    tasks: Sequence[str]
    include_path: str | None = None
    limit: int | None = None
    batch_size: int = 8
    device: str = "cpu"
    max_length: int | None = None
    num_fewshot: int | None = None
    apply_chat_template: bool = False
    pool: str = "mean"


@dataclass(frozen=True)
class Figure:
    """One figure of one model on one task.

    Args:
        task: its name.
        metric: the figure's name.
        value: as the library has it.
        error: the library's standard error; None: it gives none.
        rows: of how many it is.
        lower_is_better: whether it is an error, as a perplexity is one.
        each: [rows], what the value is the mean of; None where it is no mean over rows.
        settings: what else the library says of how it was found.
    """

    task: str
    metric: str
    value: float
    error: float | None
    rows: int
    lower_is_better: bool = False
    each: np.ndarray | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


class Suite(ABC):
    """A library of benchmarks; to make one loads the rows of its tasks, before any model is.

    Attributes:
        name: as the command takes it.
        extra: of this package, that brings it.
        package: its name on PyPI.
        module: its name in Python.
        kind: the task of the models that it scores.
        scores: what these are, in words.
        options: the fields of ``Asked`` that are not for every suite, and are for this one.

    Args:
        asked: what is to be scored, and how.

    Raises:
        ValueError: there is no such task, or its rows cannot be had.
    """

    name: ClassVar[str]
    extra: ClassVar[str]
    package: ClassVar[str]
    module: ClassVar[str]
    kind: ClassVar[type[Task]]
    scores: ClassVar[str]
    options: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, asked: Asked) -> None:
        self.asked = asked

    @classmethod
    def check(cls) -> None:
        """Refuse to go on without the library.

        Raises:
            ImportError: it is missing; names the extra.
        """
        if importlib.util.find_spec(cls.module) is None:
            raise ImportError(f"{cls.name} needs {cls.package}: pip install 'hf_distill[{cls.extra}]'.")

    @classmethod
    def version(cls) -> str:
        """Say which version of the library is installed."""
        return f"{cls.package} {metadata.version(cls.package)}"

    @classmethod
    def takes(cls, task: Task, folder: Path) -> bool:
        """Say whether a model can be scored.

        Args:
            task: of the model.
            folder: of the model.
        """
        return isinstance(task, cls.kind)

    @abstractmethod
    def score(self, model: str) -> list[Figure]:
        """Score one model on all tasks.

        Args:
            model: its folder, or its id on the Hub.

        Returns:
            The figures, task by task; those of another model are the same ones in the same order.

        Raises:
            ValueError: the model cannot be loaded, or a task cannot score it.
        """


def unknown(suite: type[Suite], name: str, known: Iterable[str]) -> ValueError:
    """Say that there is no such task, and which are nearly called so.

    Args:
        suite: of the tasks.
        name: that was asked for.
        known: those that there are.
    """
    near = difflib.get_close_matches(name, known, n=3)
    return ValueError(
        f"the task {name!r} was asked for, and {suite.name} has none of that name: "
        + (f"did you mean {' or '.join(near)}?" if near else "name one of its tasks, or your own's --include_path.")
    )


@contextmanager
def loading(what: str, otherwise: str) -> Iterator[None]:
    """Turn whatever a library raises while it loads something into a sentence.

    Args:
        what: is loaded.
        otherwise: what to do where that fails.

    Raises:
        ValueError: it failed.
    """
    try:
        yield
    except FAULTS as error:
        said = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise ValueError(f"{what} could not be loaded ({said}): {otherwise}.") from error
