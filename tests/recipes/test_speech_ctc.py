"""The recipe of models that write down speech as users start it: parquet, joined recordings, few transcripts."""

import json

import pytest
import tiny_waves
from datasets import Dataset, Features, Value
from huggingface_hub import ModelCard
from transformers import AutoModelForCTC, AutoProcessor

from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.data.recordings import STORED

speech_ctc = recipe_module("speech_ctc")

FLAGS = [
    "--max_steps", "2", "--num_threads", "1", "--report_to", "none", "--disable_tqdm", "1", "--bf16", "0",
    "--teacher_layers", "1", "--teacher_hidden_size", "32", "--student_hidden_size", "16", "--mel_bins", "8",
    "--per_device_train_batch_size", "4",
]  # fmt: skip


def parquet(path, n=12):
    """Recordings of a high tone, which says 1, and of a low one, which says 2, by two speakers."""
    features = Features({"audio": STORED, "said": Value("int64"), "sentence": Value("string"), "who": Value("string")})
    waves = [tiny_waves.wav(tiny_waves.sine(0.3 + 0.02 * i, 800 >> i % 2)) for i in range(n)]
    rows = {
        "audio": [{"bytes": one, "path": None} for one in waves],
        "said": [1 + i % 2 for i in range(n)],
        "sentence": [("One", "two.")[i % 2] for i in range(n)],
        "who": ["ada" if i % 4 < 2 else "bo" for i in range(n)],
    }
    Dataset.from_dict(rows, features=features).to_parquet(path)
    return ["--train_file", str(path)]


def run(folder, *flags):
    return speech_ctc.RECIPE.main(["--output_dir", str(folder / "run"), *FLAGS, *flags])


def test_sequences_of_digits_with_few_transcripts(tmp_path):
    joined = ["--text_column", "said", "--measure", "cer", "--joined_samples", "15", "--joined_with", ""]
    joined += ["--speaker_column", "who"]
    report = run(tmp_path, *parquet(tmp_path / "a.parquet"), *joined, "--labeled_samples", "5")
    assert report["rows"] == {"train": 5, "validation": 3, "test": 3, "unlabeled": 10}
    assert [row["name"] for row in report["models"]] == ["teacher", "student alone", "distilled"]
    assert all(
        {"cer", "cer_error", "agreement", "blank_share", "real_time_factor"} <= row.keys() for row in report["models"]
    )
    assert report["models"][2]["parameters"] < report["models"][0]["parameters"]
    assert report["metrics"] == {"cer": "cer"}
    assert report["transcripts"].keys() == {"right", "teacher", "student alone", "distilled"}
    assert all(set(text) <= set("12") and 2 <= len(text) <= 5 for text in report["transcripts"]["right"])
    folder = tmp_path / "run"
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["models"] == report["models"]
    assert AutoModelForCTC.from_pretrained(folder).config.vocab_size == 5
    assert AutoProcessor.from_pretrained(folder).tokenizer.decode([3, 3, 0, 4]) == "12"
    card = ModelCard.load(folder / "README.md")
    assert card.data.pipeline_tag == "automatic-speech-recognition"
    assert any(one.metric_type == "cer" for one in card.data.eval_results)


@pytest.mark.slow
def test_words_in_letters_and_a_kept_teacher_and_speakers_held_out(tmp_path):
    data = [*parquet(tmp_path / "a.parquet"), "--text_column", "sentence", "--text_case", "lower"]
    data += ["--characters_to_ignore", ".", "--speaker_column", "who", "--held_out_speakers", "bo"]
    report = run(tmp_path, *data, "--skip_alone", "1")
    assert report["rows"]["test"] == 6
    assert set(report["transcripts"]["right"]) == {"one", "two"}
    teacher = next((tmp_path / "run").glob("_teacher-*"))
    again = ["--teacher_model_name_or_path", str(teacher), "--output_dir", str(tmp_path / "again")]
    other = run(tmp_path, *data, "--skip_alone", "1", *again)
    assert other["models"][0]["wer"] == report["models"][0]["wer"]
    assert other["models"][1]["wer"] == report["models"][1]["wer"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((), "no recordings come with this recipe: name some with --train_file"),
        (("--joined_lengths", "5", "2"), r"joined_lengths=\[5, 2\] was given"),
        (("--joined_samples", "0"), "joined_samples=0 was given"),
        (("--text_case", "title"), "text_case='title' was given"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(tmp_path, flags, told):
    with pytest.raises(ValueError, match=told):
        run(tmp_path, *flags)


def test_what_the_data_lacks_is_told_in_a_sentence(tmp_path):
    data = parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="measure='per' was given: use wer or cer"):
        run(tmp_path, *data, "--text_column", "sentence", "--measure", "per")
    with pytest.raises(ValueError, match="labeled_samples=99 was given for"):
        run(tmp_path, *data, "--text_column", "sentence", "--labeled_samples", "99")
