"""The embedded reviews: each once, in one split."""

import pytest

from hf_distill.experiments.data.chinese_reviews import load_reviews


def test_reviews_are_read_once_and_no_text_is_in_two_splits():
    splits = load_reviews()
    found = {name: set(rows["text"]) for name, rows in splits.items()}
    assert sum(map(len, found.values())) == sum(len(rows) for rows in splits.values()) > 16_000
    assert not found["train"] & found["test"]
    assert len(found["test"]) == pytest.approx(sum(map(len, found.values())) / 20, rel=0.1)


def test_reviews_of_a_folder(tmp_path):
    (tmp_path / "pos.txt").write_text("这本书非常非常好看\n\n这本书非常非常值得一看\n", encoding="utf-8")
    (tmp_path / "neg.txt").write_text("这本书非常非常值得一看\n太差\n", encoding="utf-8")
    assert [one for rows in load_reviews(tmp_path).values() for one in rows["text"]] == ["这本书非常非常值得一看"]
