"""Which rows of classifiers are shown on the page of a report."""

import numpy as np
from datasets import Dataset, Features, Image

from hf_distill.experiments.scoring import Measurement
from hf_distill.experiments.text_classification import ClassScoring

LOGITS = {
    "teacher": np.array([[3.0, 0.0], [3.0, 0.0]]),
    "student alone": np.array([[0.0, 3.0], [3.0, 0.0]]),
    "distilled": np.array([[2.9, 0.0], [0.0, 3.0]]),
}
FOUND = {name: Measurement({}, predictions=(one, np.array([0, 1]))) for name, one in LOGITS.items()}
TOKENS = Dataset.from_dict({"input_ids": [[1], [2]], "label": [0, 1]})


def test_texts_are_shown_as_they_were_before_they_were_tokens():
    scoring = ClassScoring(["差", "好"], Dataset.from_dict({"text": ["面很好吃", "太吵"], "pair": ["a", "b"]}))
    first, second = scoring.disagreements(FOUND, TOKENS).rows
    assert (first.row, first.text, first.right, first.kind) == (1, "太吵\nb", "好", "student")
    assert (second.row, second.text, second.answers["student alone"].text) == (0, "面很好吃\na", "好")


def test_images_are_those_of_the_rows_and_tokens_alone_are_not_shown():
    pixels = [np.full((4, 4, 3), value, dtype=np.uint8) for value in (0, 255)]
    rows = Dataset.from_dict({"image": pixels}, features=Features({"image": Image()}))
    found = ClassScoring(["a", "b"]).disagreements(FOUND, rows)
    assert [one.picture[:22] for one in found.rows] == ["data:image/png;base64,"] * 2
    assert found.rows[0].picture != found.rows[1].picture
    assert ClassScoring(["a", "b"]).disagreements(FOUND, TOKENS) is None
