"""Recordings are joined by speaker and by chance alone; hidden transcripts are the teacher's to know."""

import numpy as np
import pytest
import tiny_waves
from datasets import Dataset, DatasetDict, Features, Value

from hf_distill.augmentation.recordings import decoded
from hf_distill.experiments.data.few_labels import everything
from hf_distill.experiments.data.recordings import STORED
from hf_distill.experiments.data.spoken import few_transcripts, joined

KINDS = Features({"audio": STORED, "text": Value("string"), "speaker": Value("string")})


def rows(n=6):
    waves = [tiny_waves.wav(tiny_waves.sine(0.1, 300 + 100 * i)) for i in range(n)]
    return Dataset.from_dict(
        {"audio": [{"bytes": one, "path": None} for one in waves], "text": [str(i) for i in range(n)],
         "speaker": ["ab"[i % 2] for i in range(n)]}, features=KINDS,
    )  # fmt: skip


def test_a_sequence_is_of_one_speaker_and_as_long_as_its_parts_and_pauses():
    made = joined(rows(), 20, [2, 3], " ", 0, 8000, "the rows")
    for row in made:
        said = row["text"].split(" ")
        assert 2 <= len(said) <= 3
        assert {"ab"[int(one) % 2] for one in said} == {row["speaker"]}
        seconds = len(decoded(row["audio"], "a row", 8000)) / 8000
        assert 0.1 * len(said) + 0.0125 * (len(said) + 1) <= seconds <= 0.1 * len(said) + 0.151 * (len(said) + 1)
        assert row["length"] == pytest.approx(100 * seconds, abs=0.5)
    assert len(set(made["text"])) > 5


def test_the_seed_alone_decides():
    first, again, other = (joined(rows(), 4, [1, 2], "", seed, 8000, "the rows").to_list() for seed in (1, 1, 2))
    assert first == again != other


def test_rows_without_a_transcript_are_not_joined():
    few = rows().remove_columns("text").add_column("text", ["0", None, None, "", None, None])
    assert set("".join(joined(few, 5, [1, 2], "", 0, 8000, "the rows")["text"])) == {"0"}
    none = rows().remove_columns("text").add_column("text", [None] * 6).cast(KINDS)
    with pytest.raises(ValueError, match="the rows have no transcript to join"):
        joined(none, 5, [1, 2], "", 0, 8000, "the rows")


def test_hidden_transcripts_are_known_to_the_teacher_alone():
    splits = few_transcripts(DatasetDict({"train": rows(), "test": rows(2)}), 2, 0)
    assert (len(splits["train"]), len(splits["unlabeled"]), splits["unlabeled"]["text"][:]) == (2, 4, [None] * 4)
    taught, known = everything(splits, "text")
    assert taught["text"][:] == [*splits["train"]["text"], *[None] * 4]
    assert sorted(known["text"]) == list("012345")
    assert taught.column_names == known.column_names
    np.testing.assert_equal(taught["audio"][:], known["audio"][:])
    with pytest.raises(ValueError, match="labeled_samples=6 was given for 6 training recordings"):
        few_transcripts(DatasetDict({"train": rows()}), 6, 0)


def test_without_hidden_ones_both_learn_from_the_same():
    splits = DatasetDict({"train": rows()})
    assert all(one is splits["train"] for one in everything(splits, "text"))
