"""Cells are texts, whatever they look like, and rows without a text are left out and counted."""

import gzip

import pytest
from datasets import Dataset

from hf_distill.experiments.data.text_rows import load_named, read_csv, with_texts

LOOKS = ["NA", "null", "None", "nan", "123", "007", "1.50", "True", "a\nb", ' "x" ', "，", "1e3"]


def written(path, rows):
    lines = ["text,label", *(f'"{text.replace(chr(34), chr(34) * 2)}",a' for text in rows)]
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8-sig", newline="") as file:
        file.write("\r\n".join(lines) + "\r\n\r\n")
    return str(path)


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz"])
def test_what_looks_like_nothing_or_a_number_is_a_text(tmp_path, name):
    rows = read_csv(written(tmp_path / name, LOOKS))
    assert rows["text"][:] == LOOKS
    assert rows.column_names == ["text", "label"]


def test_a_folder_of_csv_files_has_texts_too(tmp_path):
    written(tmp_path / "train.csv", ["NA", "null", "x", ""])
    assert load_named(str(tmp_path))["train"]["text"][:] == ["NA", "null", "x", None]
    assert load_named(str(tmp_path), split="train")["text"][:] == ["NA", "null", "x", None]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("text,label\nx,a\nx,y,a\n", "Row #3: Expected 2 columns, got 3"),
        ("text,label\nx,a\nx\n", "Row #3: Expected 2 columns, got 1"),
        ("text,text\nx,a\n", "the header has 'text' twice"),
    ],
)
def test_rows_that_do_not_fit_the_header_are_refused(tmp_path, lines, message):
    (tmp_path / "rows.csv").write_text(lines)
    with pytest.raises(ValueError, match=message):
        read_csv(str(tmp_path / "rows.csv"))


def test_rows_without_a_text_are_left_out_and_counted():
    data = {"text": ["a", None, "b", None, ""], "pair": ["x", "x", None, "x", "x"], "label": [0, 1, 2, 3, 4]}
    kept, said = with_texts({"train": Dataset.from_dict(data), "test": Dataset.from_dict(data)}, ["text"], "reviews")
    assert kept["train"]["label"][:] == [0, 2, 4]
    assert said == (
        "2 of 5 train rows have no text and are left out (the first is row 1); "
        "2 of 5 test rows have no text and are left out (the first is row 1)"
    )
    kept, said = with_texts({"train": Dataset.from_dict(data)}, ["text", "pair"], "reviews")
    assert kept["train"]["label"][:] == [0, 4]
    assert said == "3 of 5 train rows have no text and are left out (the first is row 1)"


@pytest.mark.parametrize(
    ("values", "texts"),
    [([1, 2, None], ["1", "2"]), ([1.5, 2.0], ["1.5", "2"]), ([True, False], ["true", "false"]), (["a", "b"], "ab")],
)
def test_numbers_become_their_texts(values, texts):
    kept, _ = with_texts({"train": Dataset.from_dict({"text": values})}, ["text"], "reviews")
    assert kept["train"]["text"][:] == list(texts)


def test_numbers_among_texts_of_a_json_file(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": 1}\n{"text": "x"}\n{"text": null}\n')
    kept, said = with_texts({"train": load_named(str(tmp_path), split="train")}, ["text"], "rows")
    assert kept["train"]["text"][:] == ["1", "x"]
    assert said == "1 of 3 train rows has no text and is left out (row 2)"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([["a"]], "the train rows of reviews have no text in 'text' but lists: give each row one text"),
        ([{"a": 1}], "have no text in 'text' but mappings"),
        ([None, None], "none of the 2 train rows of reviews has a text in text"),
    ],
)
def test_what_is_no_text_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        with_texts({"train": Dataset.from_dict({"text": values})}, ["text"], "reviews")
