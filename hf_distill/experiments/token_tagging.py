"""Models that give each token a tag: from tags to labels of pieces, and from predictions to exact spans.

Knows: tags as arrays, which piece is of which token. Does not know: files, how the models are made and trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerBase

from hf_distill.experiments.data.tagging import BMES
from hf_distill.experiments.predictions import AGREES, PROBABILITIES, PredictionScoring, compare_probabilities
from hf_distill.experiments.scoring import Measurement, percent
from hf_distill.reports import f1_shares, span_counts, span_scores, spans_of
from hf_distill.reports.probabilities import row_kl
from hf_distill.reports.samples import MOST, Answer, Sample, Samples

NO_LABEL = -100


class TagScoring(PredictionScoring):
    """Exact spans: F1 of words or entities, and the share of tokens with the right tag.

    Args:
        names: the tags, in the order of the classes.
        tokens: of each test row, for the page of the report; None: rows are not shown.
    """

    score: ClassVar[str] = "f1"
    plotted: ClassVar[tuple[str, str]] = ("f1", "{split} F1 of exact spans")
    hub: ClassVar[Mapping[str, str]] = {name: name for name in ("f1", "precision", "recall", "accuracy")}
    floor_said: ClassVar[str] = "{:.1f} %, the most frequent tag of the training rows"

    def __init__(self, names: Sequence[str], tokens: Sequence[Sequence[str]] | None = None) -> None:
        super().__init__()
        self.names, self.tokens = np.array(names), tokens
        spans = "word" if set(names) == set(BMES) else "entity"
        shares = {f"{spans} F1": "f1", "precision": "precision", "recall": "recall", "tag accuracy": "accuracy"}
        self.columns = {**{f"{heading} %": percent(key) for heading, key in shares.items()}, **AGREES, **PROBABILITIES}

    def floor(self, test: Dataset, train: Dataset) -> float:
        """The F1 of whoever gives each token the most frequent tag; see ``Scoring.floor``."""
        learnt = np.concatenate([np.asarray(row) for row in train["labels"][:]])
        most = self.names[np.bincount(learnt[learnt != NO_LABEL]).argmax()]
        right = [self.names[(row := np.asarray(one))[row != NO_LABEL]] for one in test["labels"][:]]
        return span_scores(span_counts([[most] * len(row) for row in right], right))["f1"]

    def counts(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Count the spans of each row; a token without a label is no part of its row.

        Args:
            predictions: logits [N, T, C].
            labels: [N, T].
        """
        chosen = predictions.argmax(-1)
        said, right = (
            [self.names[row[known]] for row, known in zip(classes, labels != NO_LABEL, strict=True)]
            for classes in (chosen, labels)
        )
        return span_counts(said, right)

    def figures(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Precision, recall and F1 of spans, accuracy of tags; see ``PredictionScoring.figures``."""
        known = labels != NO_LABEL
        accuracy = float((predictions.argmax(-1) == labels)[known].mean())
        return {**span_scores(self.counts(predictions, labels)), "accuracy": accuracy}

    def probabilities(self, predictions: np.ndarray, labels: np.ndarray, teacher: np.ndarray) -> dict[str, float]:
        """KL to the teacher and calibration error of tags; see ``PredictionScoring``."""
        return compare_probabilities(predictions, labels, teacher)

    def units(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """What each row adds to F1; see ``PredictionScoring.units``."""
        return f1_shares(self.counts(predictions, labels))

    def disagreements(self, measurements: Mapping[str, Measurement], rows: Dataset) -> Samples | None:
        """Where the probabilities of all tags differ most, whole rows alone; see ``Scoring.disagreements``."""
        if self.tokens is None:
            return None
        logits = {name: one.predictions[0] for name, one in measurements.items()}
        labels = measurements["teacher"].predictions[1]
        known = labels != NO_LABEL
        apart = np.zeros(known.shape)
        apart[known] = row_kl(logits["distilled"][known], logits["teacher"][known])
        apart = apart.sum(axis=-1)
        whole = known.sum(axis=-1) == np.array([len(one) for one in self.tokens])  # of others no tag is surely whose
        found = []
        for row in [row for row in np.argsort(-apart, kind="stable").tolist() if whole[row]][:MOST]:
            tokens, right = self.tokens[row], labels[row][known[row]]
            said = {name: one[row][known[row]].argmax(axis=-1) for name, one in logits.items()}
            answers = {
                name: Answer(spelled_out(tokens, self.names[tags]), None, bool((tags == right).all()))
                for name, tags in said.items()
            }
            text = joined(tokens)
            found.append(Sample(row, text, "", spelled_out(tokens, self.names[right]), answers, float(apart[row])))
        return Samples(found, len(labels), "KL(teacher || student) of all tags in nats")

    def agreement(self, predictions: np.ndarray, teacher: np.ndarray, labels: np.ndarray) -> float:
        """The share of tokens with the same tag; see ``PredictionScoring.agreement``."""
        same = predictions.argmax(-1) == teacher.argmax(-1)
        return float(same[labels != NO_LABEL].mean())


def joined(tokens: Sequence[str]) -> str:
    """Write tokens as a text: Chinese ones without spaces.

    Example:
        >>> joined(["北", "京"]), joined(["Bad", "Ems"])
        ('北京', 'Bad Ems')
    """
    return ("" if all("\u2e80" <= one[:1] or not one.isalnum() for one in tokens) else " ").join(tokens)


def spelled_out(tokens: Sequence[str], tags: Sequence[str]) -> str:
    """Write the spans that tags describe.

    Example:
        >>> spelled_out(["Anna", "in", "Bad", "Ems"], ["B-name", "O", "B-place", "I-place"])
        'name: Anna; place: Bad Ems'
        >>> spelled_out(["北", "京", "人"], ["B", "E", "S"])
        '北京 / 人'
    """
    spans = sorted(spans_of(tags))
    texts = [(kind, joined(tokens[start:stop])) for start, stop, kind in spans]
    if not any(kind for kind, _ in texts):
        return " / ".join(text for _, text in texts) or "nothing"
    return "; ".join(f"{kind}: {text}" for kind, text in texts)


def tokenised(splits: DatasetDict, tokenizer: PreTrainedTokenizerBase, max_length: int) -> tuple[DatasetDict, str]:
    """Turn tokens into a model's pieces; the first piece of a token has its tag, the others have no label.

    Args:
        splits: with ``tokens`` and ``tags``.
        tokenizer: of the models.
        max_length: longer rows are cut to this many pieces.

    Returns:
        The rows, with ``labels``; and how many tokens have no piece, in words, empty where there are none.

    Raises:
        ValueError: the tokenizer cannot say which piece is of which token.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} cannot say which piece is of which token: use a model with a fast tokenizer."
        )

    def encode(rows: dict[str, list]) -> dict[str, list]:
        pieces = tokenizer(rows["tokens"], is_split_into_words=True, truncation=True, max_length=max_length)
        labels = []
        for row, tags in enumerate(rows["tags"]):
            words = pieces.word_ids(row)
            before = [None, *words[:-1]]
            labels.append(
                [
                    NO_LABEL if word is None or word == last else tags[word]
                    for word, last in zip(words, before, strict=True)
                ]
            )
        return {**pieces, "labels": labels}

    sizes = {name: sum(map(len, rows["tokens"][:])) for name, rows in splits.items()}
    made = splits.map(encode, batched=True, remove_columns=["tokens", "tags"], desc="tokenising")
    lost = {
        name: sizes[name] - sum(label != NO_LABEL for labels in rows["labels"][:] for label in labels)
        for name, rows in made.items()
    }
    if not any(lost.values()):
        return made, ""
    counted = ", ".join(f"{count:,} of {sizes[name]:,} {name}" for name, count in lost.items())
    return made, f"; {counted} tokens are behind max_length or of no piece, and neither taught nor measured"
