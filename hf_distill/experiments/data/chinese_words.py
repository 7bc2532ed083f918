"""Real Chinese data that comes with a package: the dictionary of jieba (MIT), 325,000 words with their category.

Knows: the dictionary's file and its tags. Does not know: models, tokenizers, training.
"""

from __future__ import annotations

import importlib.util
import zlib
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

CATEGORIES = {
    "noun": ("n",),
    "person": ("nr", "nrt", "nrfg"),
    "verb": ("v", "vn"),
    "idiom": ("i",),
    "phrase": ("l",),
    "place": ("ns",),
    "numeral": ("m",),
    "other proper name": ("nz",),
    "organisation": ("nt",),
    "adjective": ("a",),
}
"""Category -> the dictionary's tags (ICTCLAS). Tags with under 3,000 words are left out."""

SPLITS = {0: "test", 1: "validation"}
"""A word's CRC-32 modulo 20 decides: the split never changes, on any machine, with any seed."""


def load_words(dictionary: Path | None = None) -> DatasetDict:
    """Read the words of two to eight characters (one in 400 is longer), and split them 90 : 5 : 5.

    Args:
        dictionary: a file of ``word frequency tag`` lines; None takes jieba's own.

    Returns:
        ``train``, ``validation`` and ``test`` with the columns ``text`` and ``label``.

    Raises:
        ImportError: jieba is not installed.
    """
    if dictionary is None:
        package = importlib.util.find_spec("jieba")  # found, not imported: only its file is wanted
        if package is None:
            raise ImportError("the embedded Chinese words come with jieba: pip install 'hf_distill[recipes]'.")
        dictionary = Path(package.submodule_search_locations[0]) / "dict.txt"
    category = {tag: index for index, tags in enumerate(CATEGORIES.values()) for tag in tags}
    rows: dict[str, dict[str, list]] = {name: {"text": [], "label": []} for name in ("train", "validation", "test")}
    for line in dictionary.read_text(encoding="utf-8").splitlines():
        word, _, tag = line.split(" ")
        if 2 <= len(word) <= 8 and tag in category:
            split = rows[SPLITS.get(zlib.crc32(word.encode("utf-8")) % 20, "train")]
            split["text"].append(word)
            split["label"].append(category[tag])
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(CATEGORIES))})
    return DatasetDict({name: Dataset.from_dict(columns, features=features) for name, columns in rows.items()})
