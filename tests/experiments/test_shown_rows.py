"""What a person sees of a row."""

import numpy as np
from datasets import Dataset, Features, Image, Value

from hf_distill.experiments.shown_rows import shown_rows

GREY = np.full((4, 6, 3), 7, dtype=np.uint8)


def test_texts_and_images_are_shown_and_numbers_are_not():
    features = Features({"image": Image(), "text": Value("string"), "label": Value("int64")})
    rows = Dataset.from_dict({"image": [GREY, GREY], "text": ["a", None], "label": [0, 1]}, features=features)
    shown = shown_rows(rows)
    assert shown(0)[0] == "a"
    assert shown(1)[0] == ""
    assert shown(1)[1].size == (6, 4)
    assert shown_rows(rows.remove_columns(["image", "text"])) is None
