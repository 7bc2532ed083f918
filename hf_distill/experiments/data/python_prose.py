"""Real English text that comes with Python: the sentences of its standard library's documentation.

Knows: where the text is and how to cut it. Does not know: models, tokenizers, training.
"""

from __future__ import annotations

import re
import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

from datasets import Dataset, DatasetDict

from hf_distill.experiments.data.chinese_words import SPLITS

PROSE = re.compile(r"[A-Z][A-Za-z0-9 ,'\"()\-]{25,240}[.:]")
"""A whole sentence of words: no line of a program, no grammar, no table."""
DOCSTRING = re.compile(r'"""(.*?)"""', re.DOTALL)
FOREIGN = frozenset(("site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo"))
"""Folders beside the standard library, and those of it that say little in words."""


def load_sentences() -> DatasetDict:
    """Read the sentences, about 10,000, each once, and split them 90 : 5 : 5 by their CRC-32.

    Another version of Python says some things in other words; the sentences that stay are in the same split.

    Returns:
        ``train``, ``validation`` and ``test`` with the column ``text``.
    """
    rows: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    found = {sentence: None for text in _texts() for sentence in _sentences(text)}
    for sentence in found:
        rows[SPLITS.get(zlib.crc32(sentence.encode("utf-8")) % 20, "train")].append(sentence)
    return DatasetDict({name: Dataset.from_dict({"text": texts}) for name, texts in rows.items()})


def _texts() -> Iterator[str]:
    """The language reference as ``help()`` shows it, and the docstrings of the standard library."""
    yield from topics.values()
    library = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted(library.rglob("*.py")):
        if not FOREIGN & set(file.relative_to(library).parts):
            yield from DOCSTRING.findall(file.read_text(encoding="utf-8", errors="replace"))


def _sentences(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text):
        if not paragraph.lstrip().startswith((">>>", "|", "+-")):
            yield from filter(PROSE.fullmatch, re.split(r"(?<=[.:])\s", " ".join(paragraph.split())))
