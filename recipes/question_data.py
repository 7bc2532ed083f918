"""Questions about a text, with answers that are a part of it: SQuAD's form, flat columns, embedded ones of words.

Knows: columns, files, where an answer stands. Does not know: tokenizers, windows, models, training.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from chinese_words import CATEGORIES, load_words
from data_files import DataArguments, limited, read_splits
from datasets import Dataset, DatasetDict, load_dataset

COLUMNS = ("question", "context", "answers")
ASKED = ("名词", "人名", "动词", "成语", "习语", "地名", "数词", "专名", "机构", "形容词")
"""How each category of the dictionary's words is asked for, in their order."""
SIZES = {"train": 12_000, "validation": 600, "test": 1_000}
WORDS = 8
"""In an embedded passage, each of another category."""


@dataclass
class QuestionDataArguments(DataArguments):
    """Where the questions come from; with nothing given, they are made of the embedded Chinese words."""

    embedded: ClassVar[str] = "jieba words by category"


def load_questions(data: QuestionDataArguments, seed: int) -> tuple[DatasetDict, str]:
    """Load the splits, with ``question``, ``context`` and ``answers``, and find the answers that are elsewhere.

    Args:
        data: where the questions come from.
        seed: of the draw, where fewer are asked for than there are.

    Returns:
        ``train``, ``validation`` and ``test``, with ``start`` and ``stop``, the characters of an answer, -1 where it
        is not in the text; and in words, how many were found again or not at all. A training question without an
        answer in its text is left out.

    Raises:
        ValueError: a missing file or column.
    """
    splits = read_splits(data, seed, word_questions, {".json": read_squad})
    for name, rows in splits.items():
        if missing := [column for column in COLUMNS if column not in rows.column_names]:
            raise ValueError(
                f"the {name} rows of {data.source} have the columns {rows.column_names}, {missing} was not among "
                "them: give SQuAD's form, or rows with question, context and answers {text, answer_start}."
            )
    splits = limited(data, splits, seed)
    made, noted = {}, []
    for name, rows in splits.items():
        found, counts = [], {"moved": 0, "lost": 0}
        for row in rows.select_columns(list(COLUMNS)).to_list():
            place = first_place(row["context"], row["answers"])
            moved = place is not None and place[2]
            counts["moved"] += moved
            counts["lost"] += place is None
            if place is not None or name != "train":
                start, stop = (-1, -1) if place is None else place[:2]
                found.append({**row, "start": start, "stop": stop})
        if not found:
            raise ValueError(f"no answer of the {name} rows of {data.source} stands in its text: give others.")
        made[name] = Dataset.from_list(found)
        if any(counts.values()):
            fate = "left out" if name == "train" else "only compared in words"
            noted.append(
                f"{name}: {counts['moved']:,} answers stand elsewhere than the file says and were found again, "
                f"{counts['lost']:,} stand nowhere and are {fate}"
            )
    return DatasetDict(made), "; ".join(noted)


def first_place(context: str, answers: dict[str, list]) -> tuple[int, int, bool] | None:
    """Find the first of some answers that is in the text.

    Args:
        context: the text.
        answers: ``text`` and ``answer_start``, a list each.

    Returns:
        Its first character, the one behind its last (spaces at its ends are none of it, for no token stands for them),
        and whether it stands elsewhere than it should; None: nowhere.

    Example:
        >>> first_place("one two one", {"text": ["one"], "answer_start": [7]})
        (8, 11, True)
    """
    for text, start in zip(answers["text"], answers["answer_start"], strict=True):
        if text.strip() and start >= 0 and context.startswith(text, start):
            return (*_trimmed(start, text), False)
    for text, start in zip(answers["text"], answers["answer_start"], strict=True):
        if text.strip() and text in context:
            place = min(_places(context, text), key=lambda found, asked=start: abs(found - asked))
            return (*_trimmed(place, text), True)
    return None


def read_squad(path: str) -> Dataset:
    """Read SQuAD's form, ``data`` > ``paragraphs`` > ``qas``, or else rows.

    Args:
        path: a json file, or ``.gz`` of one.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8") as file:
            whole = json.load(file)
    except json.JSONDecodeError:
        whole = None  # a row a line, perhaps
    if not isinstance(whole, dict) or not isinstance(whole.get("data"), list):
        return load_dataset("json", data_files=path, split="train")
    return Dataset.from_list(list(_flat(whole["data"])))


def word_questions() -> DatasetDict:
    """Make a small task of the dictionary's words: eight of them, each of another category, and one is asked for.

    This is no reading of a text: what is asked is which of the words is a place, an idiom or a verb. The words, and
    what they are, are real, and those of the test passages occur in no training passage.
    """
    splits = {}
    for name, words in load_words().items():
        draw, kinds = random.Random(name), [[] for _ in CATEGORIES]
        for word, label in zip(words["text"][:], words["label"][:], strict=True):
            kinds[label].append(word)
        rows = []
        for _ in range(SIZES[name]):
            chosen = draw.sample(range(len(kinds)), WORDS)
            passage, asked = [draw.choice(kinds[kind]) for kind in chosen], draw.randrange(WORDS)
            start = sum(len(word) + 1 for word in passage[:asked])
            answers = {"text": [passage[asked]], "answer_start": [start]}
            rows.append({"question": ASKED[chosen[asked]], "context": "，".join(passage), "answers": answers})
        splits[name] = Dataset.from_list(rows)
    return DatasetDict(splits)


def _trimmed(start: int, text: str) -> tuple[int, int]:
    start += len(text) - len(text.lstrip())
    return start, start + len(text.strip())


def _places(context: str, text: str) -> Iterator[int]:
    found = context.find(text)
    while found >= 0:
        yield found
        found = context.find(text, found + 1)


def _flat(articles: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for article in articles:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                given = question.get("answers") or []
                answers = {key: [one[key] for one in given] for key in ("text", "answer_start")}
                yield {"question": question["question"], "context": paragraph["context"], "answers": answers}
