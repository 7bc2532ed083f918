"""Tags of pieces, and spans of predictions."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from hf_distill.experiments.scoring import Measurement
from hf_distill.experiments.token_tagging import TagScoring, tokenised
from hf_distill.experiments.tokenizers import character_tokenizer


def test_the_first_piece_has_the_tag_and_what_is_behind_the_end_is_counted():
    tokenizer = character_tokenizer(["Bad Ems", "Bad Ems"])
    features = Features(
        {"tokens": List(Value("string")),
         "tags": List(ClassLabel(names=["O", "B-place", "I-place"]))}
    )  # fmt: skip
    data = {"tokens": [["Bad", "Ems", "\u200b"]], "tags": [[1, 2, 0]]}
    splits = DatasetDict(test=Dataset.from_dict(data, features=features))
    made, lost = tokenised(splits, tokenizer, 32)
    assert made["test"]["labels"] == [[-100, 1, -100, -100, 2, -100, -100, -100]]
    assert lost.startswith("; 1 of 3 test tokens are behind max_length or of no piece")
    made, lost = tokenised(splits, tokenizer, 5)
    assert made["test"]["labels"] == [[-100, 1, -100, -100, -100]]
    assert lost.startswith("; 2 of 3 test tokens")


def test_pieces_without_a_label_are_no_part_of_a_span():
    scoring = TagScoring(["O", "B-x", "I-x"])
    logits, labels = (
        np.eye(3)[[[0, 1, 0, 2, 0], [1, 0, 0, 0, 0]]],
        np.array([[-100, 1, -100, 2, -100], [0, 1, 0, 0, -100]]),
    )
    found = scoring.figures(logits, labels)
    assert (found["precision"], found["recall"], found["f1"]) == (0.5, 0.5, 0.5)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert scoring.units(logits, labels).mean() == pytest.approx(0.5)
    assert scoring.agreement(logits, np.roll(logits, 1, axis=-1), labels) == 0.0


def test_rows_whose_tags_differ_most_are_shown_with_their_spans():
    names, tokens = ["O", "B-x", "I-x"], [["Anna", "Berg"], ["cut", "off"], ["in", "Ems"]]
    labels = np.array([[-100, 1, 2], [-100, 0, -100], [-100, 0, 1]])
    teacher = 5.0 * np.eye(3)[[[0, 1, 2], [0, 0, 0], [0, 0, 1]]]
    student = 5.0 * np.eye(3)[[[0, 1, 2], [0, 1, 0], [0, 0, 0]]]
    shown = {"teacher": teacher, "distilled": student}
    found = {name: Measurement({}, predictions=(one, labels)) for name, one in shown.items()}
    first, second = (
        TagScoring(names, tokens).disagreements(found, None).rows
    )  # of one that was cut no tag is surely whose
    assert (first.row, first.text, first.right, first.kind) == (2, "in Ems", "x: Ems", "teacher")
    assert first.answers["distilled"].text == "nothing"
    assert (second.row, second.apart, second.answers["distilled"].text) == (0, 0.0, "x: Anna Berg")
    assert TagScoring(names).disagreements(found, None) is None
