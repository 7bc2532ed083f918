"""A teacher that is not here: all that it said was written down.

Knows: the header of its answers. Does not know: rows, files, models.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from torch import Tensor

from hf_distill.cache.identity import facts_in
from hf_distill.tasks.alignment.tokenizers import PREFIX
from hf_distill.teachers.teacher import Teacher

if TYPE_CHECKING:
    from transformers import Trainer


class AbsentTeacher(Teacher):
    """Stands inside a ``CachedTeacher`` for a teacher that needs no memory, because nobody asks it any more.

    Args:
        folder: where its answers are.
        header: the folder's.

    Example:
        >>> teacher = AbsentTeacher("answers", {"facts": {"name": "my/teacher"}, "needs": ["heads"], "takes": ["x"]})
        >>> teacher.facts.name, sorted(teacher.inputs({"x": 1, "labels": 2}))
        ('my/teacher', ['x'])
    """

    def __init__(self, folder: str | Path, header: Mapping[str, Any]) -> None:
        self.folder, self.facts = folder, facts_in(header)
        self.serves, self._takes = frozenset(header["needs"]), frozenset(header["takes"])
        self.vocabulary = header.get("tokenizer")  # the hash of it, see ``vocabulary_of``
        self.columns = self._takes | {PREFIX + name for name in self._takes}

    def prepare(self, trainer: Trainer) -> None:
        """Do nothing; see ``Teacher.prepare``."""

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Keep what the teacher read; see ``Teacher.inputs``."""
        own = {name.removeprefix(PREFIX): value for name, value in batch.items() if name.startswith(PREFIX)}
        taken = own if self._takes & own.keys() else batch
        return {name: value for name, value in taken.items() if name in self._takes}

    def __call__(self, batch: Mapping[str, Any], needs: frozenset[str]) -> NoReturn:
        """Refuse: what was not written down cannot be asked. See ``Teacher.__call__``."""
        raise ValueError(
            f"a row was asked for that {self.folder} does not hold, and there is no teacher to ask: fill it with "
            "hf-distill cache from the same rows, tokenised in the same way, or pass teacher_model."
        )
