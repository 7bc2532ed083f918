"""Which rows are chosen, what is said of them, and what small pictures do not tell."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from hf_distill.reports.probabilities import mean_kl, row_kl
from hf_distill.reports.samples import LONG, MOST, SIDE, class_samples, text_samples, thumbnail


def shown(row):
    return f"text {row}", None


def test_the_rows_with_the_largest_kl_come_first_and_say_who_is_right():
    teacher = np.array([[4.0, 0], [4.0, 0], [0, 4.0], [4.0, 0], [4.0, 0]])
    student = np.array([[4.0, 0], [0, 4.0], [0, 3.0], [0, 9.0], [0, 8.0]])
    logits = {"teacher": teacher, "student alone": teacher[:, ::-1], "distilled": student}
    found = class_samples(logits, np.array([0, 0, 1, 1, -100]), ["体育", "财经"], shown, most=3)
    assert [one.row for one in found.rows] == [3, 1, 2]  # a row without a label is none of them
    assert [one.kind for one in found.rows] == ["student", "teacher", "both"]
    assert found.total == 5
    assert found.rows[0].apart == pytest.approx(mean_kl(student[3:4], teacher[3:4]))
    answers = found.rows[0].answers
    assert {name: (one.text, one.right) for name, one in answers.items()} == {
        "teacher": ("体育", False), "student alone": ("财经", True), "distilled": ("财经", True),
    }  # fmt: skip
    assert answers["teacher"].probability == pytest.approx(1 / (1 + np.exp(-4)))
    assert (found.rows[0].text, found.rows[0].right) == ("text 3", "财经")


def test_no_more_rows_than_a_page_holds():
    draw = np.random.default_rng(0)
    logits = {name: draw.normal(size=(MOST + 50, 3)) for name in ("teacher", "distilled")}
    found = class_samples(logits, np.zeros(MOST + 50, dtype=int), ["a", "b", "c"], shown)
    assert len(found.rows) == MOST
    kept = [one.row for one in found.rows]
    each = row_kl(logits["distilled"], logits["teacher"])
    assert min(each[kept]) >= max(each[row] for row in range(MOST + 50) if row not in kept)


def test_texts_that_are_the_same_are_left_out_and_long_ones_cut():
    texts = {"teacher": ["one", "two", "x" * 2 * LONG], "distilled": ["one", "tow", "y"]}
    found = text_samples(texts, ["one", "two", "z"], shown)
    assert [one.row for one in found.rows] == [2, 1]
    assert [one.kind for one in found.rows] == ["neither", "teacher"]
    assert found.rows[0].answers["teacher"].text == "x" * LONG + "…"
    assert found.rows[0].answers["teacher"].probability is None
    loose = text_samples(texts, ["ONE", "TWO", "z"], shown, lambda row, text: text.upper() == ["ONE", "TWO", "Z"][row])
    assert [one.kind for one in loose.rows] == ["neither", "teacher"]
    assert text_samples({"teacher": ["a"], "distilled": ["a"]}, ["b"], shown).rows == []


def read(uri):
    kind, _, content = uri.partition(";base64,")
    return kind, Image.open(io.BytesIO(base64.b64decode(content)))


@pytest.mark.parametrize(("size", "kind"), [((8, 8), "image/png"), ((900, 300), "image/jpeg")])
def test_a_picture_is_small_and_says_nothing_of_its_place(size, kind, tmp_path):
    image, exif = Image.new("RGB", size, "red"), Image.Exif()
    exif[0x010F] = "a camera"
    image.save(tmp_path / "photo.jpg", exif=exif, comment=b"at home")
    opened = Image.open(tmp_path / "photo.jpg")
    assert opened.getexif()
    found, small = read(thumbnail(opened))
    assert found == f"data:{kind}"
    assert max(small.size) == min(SIDE, max(size))
    assert not small.getexif()
    assert b"home" not in base64.b64decode(thumbnail(opened).partition(",")[2])
    assert opened.size == size


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_pictures_of_every_kind(mode):
    assert read(thumbnail(Image.new(mode, (20, 10))))[1].size == (20, 10)
