"""Windows of texts, their joining, answers and how right they are."""

import numpy as np
import pytest
from datasets import Dataset
from recipe_runs import CONTEXT, START, question

from hf_distill.experiments.question_answering import AnswerScoring, Window, fitting, overlap, windows
from hf_distill.experiments.scoring import Measurement
from hf_distill.experiments.tokenizers import character_tokenizer


def test_an_f1_of_nothing_has_no_bounds_of_a_share():
    rows = [{"context": "abc", "answers": {"text": ["c"], "answer_start": [2]}}] * 4
    windows = [Window(i, [(0, 1), (1, 2), (2, 3)]) for i in range(4)]
    logits = np.tile([9.0, 0.0, 0.0], (4, 1))
    scoring = AnswerScoring(rows, windows)
    measurement = scoring.measurement((logits, logits), None, (logits, logits))
    assert measurement.row("f1", scoring.share)["f1"] == 0.0
    assert measurement.row("f1", scoring.share)["f1_interval"] is None


def test_every_window_that_holds_the_answer_says_where():
    tokenizer = character_tokenizer([CONTEXT + "在哪里发行？"] * 2)
    rows = Dataset.from_list([question() | {"start": START, "stop": START + 2}])
    made, found = windows(rows, tokenizer, 40, 12)
    assert len(made) == len(found) > 2
    held = 0
    for row, window in zip(made, found, strict=True):
        assert len(row["input_ids"]) <= 40
        if row["start_positions"]:
            begin, end = row["start_positions"], row["end_positions"]
            assert CONTEXT[window.offsets[begin][0] : window.offsets[end][1]] == "日本"
            held += 1
        else:
            shown = CONTEXT[min(o[0] for o in window.offsets if o) : max(o[1] for o in window.offsets if o)]
            assert "日本" not in shown
    assert held


def test_an_answer_that_no_window_holds_is_counted():
    tokenizer = character_tokenizer([CONTEXT + "在哪里发行？"] * 2)
    long = Dataset.from_list([question() | {"start": 2, "stop": 42}, question() | {"start": -1, "stop": -1}])
    found = windows(long, tokenizer, 40, 12)
    assert set(found[0]["start_positions"]) == {0}
    said = fitting("train", long, *found)
    assert said == "train: 2 of 2 texts are longer than a window, 1 answers are whole in no window"
    assert fitting("train", long, *windows(long, tokenizer, 128, 12)) == ""


def test_windows_are_joined_and_nothing_outside_of_the_text_is_an_answer():
    rows = [{"context": "abcdef", "answers": {"text": ["d"], "answer_start": [3]}}]
    windows = [Window(0, [None, (0, 1), (1, 2), (2, 3)]), Window(0, [None, (2, 3), (3, 4), None])]
    begins = np.array([[9.0, 2.0, 0.0, 0.0], [9.0, 0.0, 4.0, 9.0]])
    ends = np.array([[9.0, 0.0, 2.0, 0.0], [9.0, 5.0, 1.0, 9.0]])
    scoring = AnswerScoring(rows, windows)
    assert scoring.answers((begins, ends)) == ["d"]  # 5.0: an end before its beginning (9.0) is no answer
    assert scoring.answers((begins - [[0], [2]], ends)) == ["ab"]
    assert scoring.answers((np.pad(begins, ((0, 0), (0, 2)), constant_values=99), np.pad(ends, ((0, 0), (0, 2))))) == [
        "d"
    ]
    assert scoring.figures((begins, ends), None) == {"f1": 1.0, "exact_match": 1.0}
    assert AnswerScoring(rows, windows, longest=1).answers((begins - [[0], [9]], ends)) != ["ab"]


def test_f1_over_characters():
    assert overlap("光荣", "光荣公司") == pytest.approx(2 / 3)
    assert overlap("《光荣》", "光荣。") == 1.0
    assert overlap("KOEI 光荣", "koei") == pytest.approx(0.5)  # koei, 光, 荣 and koei
    assert overlap("日本", "光荣") == 0.0


def test_questions_that_are_answered_otherwise_are_shown():
    rows = [{"question": "which?", "context": "abcdef", "answers": {"text": ["d", "D", "d"], "answer_start": [3] * 3}}]
    scoring = AnswerScoring(rows, [Window(0, [(2, 3), (3, 4)])])
    right, wrong = (np.array([[0.0, 9.0]]),) * 2, (np.array([[9.0, 0.0]]),) * 2
    found = {n: Measurement({}, predictions=(p, None)) for n, p in (("teacher", right), ("distilled", wrong))}
    (row,) = scoring.disagreements(found, None).rows
    assert (row.text, row.right, row.kind) == ("which?\nabcdef", "d / D", "teacher")
    assert row.answers["distilled"].text == "c"
