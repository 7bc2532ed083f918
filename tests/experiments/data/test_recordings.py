"""Recordings as a user has them: folders, paths in a file, parquet; speakers held out; what is wrong with a row."""

import numpy as np
import pytest
from datasets import Audio, ClassLabel, Dataset, Features, Value
from tiny_waves import RATE, folders, sine, wav

from hf_distill.experiments.data.recordings import (
    STORED,
    RecordingDataArguments,
    load_spoken_classes,
    load_transcripts,
)

SPEAKERS = ("ada", "bo", "cy", "di")


def parquet(path, n=24, **changed):
    """Numbered recordings of four speakers; ``changed``: the bytes of one."""
    rows = {
        "audio": [{"bytes": wav(sine(0.1 + 0.01 * i)), "path": f"{i}.wav"} for i in range(n)],
        "label": [i % 3 for i in range(n)], "text": [f"number {i}" for i in range(n)],
        "speaker": [SPEAKERS[i % 4] for i in range(n)],
    }  # fmt: skip
    for row, data in changed.items():
        rows["audio"][int(row.removeprefix("row"))]["bytes"] = data
    return as_on_the_hub(rows, path, ClassLabel(names=["x", "y", "z"]))


def as_on_the_hub(rows, path, label):
    """Parquet whose column of recordings is there to be decoded."""
    features = {name: Value("string") for name in rows} | {"label": label, "audio": STORED}
    Dataset.from_dict(rows, features=Features(features)).cast_column("audio", Audio()).to_parquet(path)
    return str(path)


def paths(path, suffix, n=12):
    (path / "waves").mkdir()
    lines = []
    for i in range(n):
        (path / "waves" / f"{i}.wav").write_bytes(wav(sine(0.2)))
        lines.append((f"waves/{i}.wav", "ab"[i % 2]))
    file = path / f"rows{suffix}"
    if suffix == ".csv":
        file.write_text("file,kind\n" + "\n".join(map(",".join, lines)) + "\n", encoding="utf-8")
    else:
        Dataset.from_dict({"file": [one for one, _ in lines], "kind": [one for _, one in lines]}).to_json(file)
    return str(file)


def told_of(data, load=load_spoken_classes, **asked):
    with pytest.raises((ValueError, ImportError)) as caught:
        load(RecordingDataArguments(**data, **asked), 0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_parquet_is_read_without_decoding_and_rows_say_how_long_they_are(tmp_path):
    splits = load_spoken_classes(RecordingDataArguments(train_file=parquet(tmp_path / "rows.parquet")), 0)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 22, "validation": 2, "test": 2}
    assert splits["train"].features["label"].names == ["x", "y", "z"]
    for row in splits["train"]:
        number = int(row["audio"]["path"].removesuffix(".wav"))
        assert row["audio"]["bytes"] == wav(sine(0.1 + 0.01 * number))
        assert row["label"] == number % 3
        assert row["length"] == pytest.approx(10 + number, abs=1)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_paths_are_looked_for_beside_the_file_that_names_them(tmp_path, suffix):
    asked = {"audio_column": "file", "label_column": "kind"}
    splits = load_spoken_classes(RecordingDataArguments(train_file=paths(tmp_path, suffix), **asked), 0)
    assert splits["train"].features["label"].names == ["a", "b"]
    assert all(row["audio"]["path"].startswith(str(tmp_path)) for row in splits["train"])
    assert set(splits["train"]["length"][:]) == {20}


def test_a_folder_a_class(tmp_path):
    data = RecordingDataArguments(train_file=folders(tmp_path / "train"), test_file=folders(tmp_path / "test", 4))
    splits = load_spoken_classes(data, 0)
    assert splits["train"].features["label"].names == ["high", "low"]
    assert len(splits["test"]) == 4
    assert data.tested == "test"
    for row in splits["test"]:
        assert splits["test"].features["label"].int2str(row["label"]) in row["audio"]["path"]


def test_files_of_a_folder_that_are_no_recordings_are_counted(tmp_path):
    folder = folders(tmp_path / "train")
    (tmp_path / "train" / "high" / "notes.txt").write_text("of whom", encoding="utf-8")
    splits = load_spoken_classes(RecordingDataArguments(train_file=folder), 0)
    assert splits.left_out.startswith("1 files are no recordings and are left out (the first is ")
    assert sum(map(len, (splits["train"], splits["validation"]))) == 12
    (tmp_path / "empty" / "high").mkdir(parents=True)
    assert "has no recordings in folders: give one folder a class" in told_of({"train_file": str(tmp_path / "empty")})


def test_transcripts_and_rows_without_one(tmp_path):
    splits = load_transcripts(RecordingDataArguments(train_file=parquet(tmp_path / "rows.parquet")), 0)
    assert {"audio", "text", "length"} == set(splits["train"].column_names)
    assert all(row["text"] == f"number {row['audio']['path'][:-4]}" for row in splits["train"])


@pytest.mark.parametrize(
    ("held", "parts"),
    [
        (["di"], {"train": {"ada", "bo", "cy"}, "validation": {"ada", "bo", "cy"}, "test": {"di"}}),
        (["di", "bo"], {"train": {"ada", "cy"}, "validation": {"di"}, "test": {"bo"}}),
        (["di", "bo", "ada"], {"train": {"cy"}, "validation": {"di"}, "test": {"bo", "ada"}}),
    ],
)
def test_nothing_of_a_speaker_held_out_is_trained_on(tmp_path, held, parts):
    both = {"train_file": parquet(tmp_path / "rows.parquet"), "test_file": parquet(tmp_path / "more.parquet", 12)}
    data = RecordingDataArguments(**both, speaker_column="speaker", held_out_speakers=held)
    splits = load_spoken_classes(data, 0)
    assert {n: set(rows["speaker"][:]) for n, rows in splits.items() if n != "validation" or len(held) > 1} == {
        name: who for name, who in parts.items() if name != "validation" or len(held) > 1
    }
    assert set(splits["validation"]["speaker"][:]) <= parts["validation"]
    assert sum(map(len, splits.values())) == 36  # of both files, and nothing is lost


def test_few_labels_of_recordings(tmp_path):
    data = RecordingDataArguments(train_file=parquet(tmp_path / "rows.parquet"), labeled_samples=6)
    splits = load_spoken_classes(data, 0)
    assert sorted(splits["train"]["label"][:]) == [0, 0, 1, 1, 2, 2]
    assert set(splits["unlabeled"]["label"][:]) == {-100}
    rows = splits["unlabeled"]
    assert all(int(row["audio"]["path"][:-4]) % 3 == row["hidden_label"] for row in rows)


def test_no_recordings_come_with_a_package():
    told = (
        r"no recordings come with this recipe: name some with --train_file, parquet with the columns 'audio' and 'lab"
    )
    assert told_of({}).startswith(told)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"audio_column": "wave"}, "['wave'] was asked for: name them with --audio_column, --label_column."),
        ({"audio_column": "label"}, "one column was named twice among ['label', 'label']"),
        ({"audio_column": "label", "label_column": "text"}, "have no recordings in 'audio' but ClassLabel"),
        ({"speaker_column": "who"}, "name them with --audio_column, --label_column and --speaker_column."),
        ({"held_out_speakers": ["di"]}, "held_out_speakers was given without speaker_column"),
        ({"speaker_column": "speaker", "held_out_speakers": ["eve"]}, "the speaker eve is to be held out, rows.parq"),
        ({"speaker_column": "speaker", "held_out_speakers": list(SPEAKERS)}, "all 4 speakers of rows.parquet are to"),
        ({"labeled_samples": 2}, "labeled_samples=2 was given for 22 training recordings of 3 classes"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_sentence(tmp_path, asked, told):
    assert told in told_of({"train_file": parquet(tmp_path / "rows.parquet")}, **asked)


def test_a_bad_recording_is_named_with_its_row_and_path_before_training(tmp_path):
    for data, reason in ((wav()[:2000], "it ends after 1,956 of 4,000 bytes"), (b"", "the file is empty")):
        said = told_of({"train_file": parquet(tmp_path / "rows.parquet", row5=data)})
        assert said.startswith(
            f"row 5 of the train rows of rows.parquet has a recording that cannot be read (5.wav: {reason})"
        )
    file = paths(tmp_path, ".csv")
    (tmp_path / "waves" / "3.wav").unlink()
    said = told_of({"train_file": file}, audio_column="file", label_column="kind")
    assert said.startswith("row 3 of the train rows of rows.csv has a recording that cannot be read (waves/3.wav: No")


def test_arrays_are_no_files(tmp_path):
    Dataset.from_dict({"audio": [np.zeros(9).tolist()], "label": [0]}).to_parquet(tmp_path / "rows.parquet")
    assert "have no recordings in 'audio' but List" in told_of({"train_file": str(tmp_path / "rows.parquet")})


def test_the_rate_of_a_file_is_its_own(tmp_path):
    held = [{"bytes": wav(sine(0.3, rate=rate), rate), "path": None} for rate in (RATE, 44100)] * 20
    file = as_on_the_hub({"audio": held, "label": ["a", "b"] * 20}, tmp_path / "rows.parquet", Value("string"))
    splits = load_spoken_classes(RecordingDataArguments(train_file=file), 0)
    assert set(splits["train"]["length"][:]) == {30}
