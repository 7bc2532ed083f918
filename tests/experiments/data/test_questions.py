"""Questions on a newspaper, and answers that stand elsewhere than a file says."""

from collections import Counter

import numpy as np
import pytest

from hf_distill.experiments.data import questions
from hf_distill.experiments.tokenizers import character_tokenizer


@pytest.fixture(scope="module")
def newspaper():
    """All questions on the embedded newspaper, read once."""
    return questions.newspaper_questions()


def test_the_embedded_questions(newspaper):
    sizes = {name: len(rows) for name, rows in newspaper.items()}
    assert sizes["train"] > 20_000
    assert sizes["test"] == pytest.approx(sum(sizes.values()) / 20, rel=0.1)
    texts = {name: set(rows["context"]) for name, rows in newspaper.items()}
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["validation"]
    asked = Counter(newspaper["test"]["question"])
    assert asked.keys() == set(questions.ASKED.values())
    assert max(asked.values()) < 0.4 * sizes["test"]
    for row in newspaper["test"]:
        (text,), (start,) = row["answers"].values()
        assert row["context"].startswith(text, start)
        assert len(text) < len(row["context"])


def test_a_question_is_needed_for_the_answer(newspaper):
    rows, answers = newspaper["train"], {}
    for row in rows.select(range(5_000)):
        answers.setdefault(row["context"], {})[row["question"]] = row["answers"]["answer_start"][0]
    assert all(len(set(one.values())) == len(one) for one in answers.values())
    assert np.mean([len(one) for one in answers.values()]) > 1.5


def test_what_is_asked_of_a_sentence():
    words = (
        "据/p 新华社/nt １９９７年/t １２月/t 报道/v ，/w 江/nr 泽民/nr 和/c 李/nr 鹏/nr 在/p 北京/ns 会见/v 三/m 人/n"
    )
    sentence = [tuple(pair.split("/")) for pair in words.split()]
    found = questions.asked(sentence)
    assert [(row["question"], row["answers"]["text"]) for row in found] == [
        ("什么时候？", ["1997年12月"]), ("哪里？", ["北京"]), ("多少？", ["三"])
    ]  # two persons: nobody asks who  # fmt: skip
    assert {row["context"] for row in found} == {"据新华社1997年12月报道，江泽民和李鹏在北京会见三人"}
    assert questions.asked(sentence[:6]) == []  # one kind
    assert questions.asked(sentence[:4] + sentence[11:13]) != []
    assert questions.asked(sentence[11:15]) == []  # short
    assert questions.asked(sentence * 4) == []  # long


def test_the_newspapers_numbers_are_read_figure_by_figure():
    words = [("１９９７年", "t"), ("在", "p"), ("北京", "ns"), ("召开了会议", "v")]
    context = questions.asked(words)[0]["context"]
    tokenizer = character_tokenizer([context] * 2)
    assert tokenizer.tokenize(context)[:5] == ["1", "##9", "##9", "##7", "年"]


@pytest.mark.parametrize(
    ("text", "start", "expected"),
    [
        ("two", 4, (4, 7, False)),
        ("one", 7, (8, 11, True)),
        ("one", 1, (0, 3, True)),
        ("four", 0, None),
        ("", 0, None),
        (" two ", 3, (4, 7, False)),
        (" ", 3, None),
    ],
)
def test_an_answer_is_looked_for_where_it_should_be_and_then_next_to_it(text, start, expected):
    assert questions.first_place("one two one", {"text": [text], "answer_start": [start]}) == expected


def test_the_second_answer_is_taken_where_only_it_stands_in_its_place():
    answers = {"text": ["one", "two"], "answer_start": [5, 4]}
    assert questions.first_place("one two one", answers) == (4, 7, False)
