"""What writers of transcripts are measured by: normalised texts, loops, and the rate without these."""

from types import SimpleNamespace

import numpy as np
import pytest
from transformers import BertTokenizer

from hf_distill.experiments.transcription import DictationScoring

WORDS = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "one", "two", "1", "2"])}
ONE, TWO, END = WORDS["one"], WORDS["two"], WORDS["[SEP]"]


def scoring(texts, **options):
    tokenizer = BertTokenizer(WORDS)
    tokenizer.eos_token = "[SEP]"
    return DictationScoring(tokenizer, texts, **options)


def test_texts_are_compared_as_they_are_normalised():
    ids = np.array([[ONE, TWO, END, -100], [TWO, END, -100, -100]])
    found = scoring(["One, two!", "one"]).measurement(ids, ids)
    assert found.each["wer"].mean() == pytest.approx(1 / 3)
    assert found.figures == {"without_loops": pytest.approx(1 / 3)}
    assert scoring(["1", "2"], how="english").measurement(np.array([[ONE, END], [TWO, END]]), ids).means()["wer"] == 0


def test_characters_are_counted_without_the_spaces_between_them():
    ids = np.array([[ONE, TWO, END]])
    assert scoring(["onetwo"], measure="cer").measurement(ids, ids).means()["cer"] == 0


def test_who_goes_in_circles_is_counted_and_left_out_of_another_rate():
    ids = np.array([[ONE, ONE, ONE, ONE], [TWO, ONE, END, -100]])
    found = scoring(["one", "two two"]).measurement(ids, ids)
    assert found.each["loops"].tolist() == [1.0, 0.0]
    assert found.means()["wer"] == pytest.approx(4 / 3)
    assert found.figures["without_loops"] == 0.5
    assert scoring([]).compute_metrics(SimpleNamespace(predictions=ids, label_ids=ids)) == {"wer": 0, "loops": 0.5}


def test_another_measure_is_refused():
    with pytest.raises(ValueError, match="measure='per' was given: use wer or cer"):
        scoring([], measure="per")


def test_what_is_written_otherwise_is_shown_and_right_where_it_is_after_its_normalisation():
    one, two = np.array([[ONE, END], [ONE, END]]), np.array([[TWO, END], [ONE, END]])
    judge = scoring(["One!", "one"])
    found = {"teacher": judge.measurement(one, one), "distilled": judge.measurement(two, one)}
    (row,) = judge.disagreements(found, None).rows
    assert (row.row, row.right, row.kind, row.answers["distilled"].text) == (0, "One!", "teacher", "two")
