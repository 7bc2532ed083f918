"""The recipe of Whisper as users start it: its encoder stays, its decoder learns what the teacher wrote."""

import json

import pytest
import tiny_speech
import tiny_waves
import torch
from datasets import Dataset, Features, Value
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    WhisperFeatureExtractor,
    WhisperProcessor,
    WhisperTokenizer,
)

from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.data.recordings import STORED

distil_whisper = recipe_module("distil_whisper")

FLAGS = [
    "--max_steps", "2", "--num_threads", "1", "--report_to", "none", "--disable_tqdm", "1", "--bf16", "0",
    "--per_device_train_batch_size", "4", "--student_decoder_layers", "1", "--generation_max_length", "8",
    "--logging_steps", "1",
]  # fmt: skip
SPECIAL = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    tokenizer = WhisperTokenizer(
        vocab={one: i for i, one in enumerate(sorted(ByteLevel.alphabet()))}, merges=[], unk_token="<|endoftext|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    tokenizer.set_prefix_tokens(language="en", task="transcribe", predict_timestamps=False)
    start, end = tokenizer.convert_tokens_to_ids([SPECIAL[0], "<|endoftext|>"])
    ids = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": start}
    model = tiny_speech.whisper(
        layers=2, vocab_size=len(tokenizer), max_source_positions=50, max_target_positions=140, **ids
    )
    extractor = WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    for one in (model, WhisperProcessor(extractor, tokenizer)):
        one.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "a.parquet"
    features = Features({"audio": STORED, "text": Value("string")})
    waves = [tiny_waves.wav(tiny_waves.sine(0.3 + 0.02 * i, 300 + 50 * i)) for i in range(20)]
    rows = {"audio": [{"bytes": one, "path": None} for one in waves], "text": [f"Word {i % 4}." for i in range(20)]}
    Dataset.from_dict(rows, features=features).to_parquet(path)
    return ["--train_file", str(path), "--max_eval_samples", "3"]


def run(folder, *flags):
    return distil_whisper.RECIPE.main(["--output_dir", str(folder / "run"), *FLAGS, *flags])


def test_the_whole_job(tmp_path, teacher, data):
    report = run(tmp_path, "--teacher_model_name_or_path", teacher, *data, "--labeled_samples", "5")
    assert [row["name"] for row in report["models"]] == ["teacher", "student alone", "distilled"]
    assert all({"wer", "wer_error", "agreement", "loops"} <= row.keys() for row in report["models"])
    assert report["metrics"] == {"wer": "wer"}
    assert 0 <= report["filtered"] <= 1
    assert report["transcripts"]["right"][0].startswith("Word ")
    folder = tmp_path / "run"
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["models"] == report["models"]
    student, whole = (AutoModelForSpeechSeq2Seq.from_pretrained(one) for one in (folder, teacher))
    assert len(student.model.decoder.layers) == 1
    ours, theirs = student.model.encoder.state_dict(), whole.model.encoder.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    moved = [not torch.equal(a, b) for a, b in zip(student.parameters(), whole.parameters(), strict=False)]
    assert any(moved)
    assert AutoProcessor.from_pretrained(folder).feature_extractor.feature_size == 8


@pytest.mark.slow
def test_the_encoder_may_learn_and_texts_that_are_far_are_refused(tmp_path, teacher, data):
    rollout = '{"seq_kd": 1.0, "keep_if": {"wer": 0.0}, "max_new_tokens": 6}'
    flags = ["--freeze_encoder", "0", "--skip_alone", "1", "--measure", "cer", "--normalizer", "english"]
    report = run(tmp_path, "--teacher_model_name_or_path", teacher, *data, *flags, "--rollout", rollout)
    assert report["filtered"] == 1  # random weights write nothing that was said
    assert report["metrics"] == {"cer": "cer"}
    student, whole = (AutoModelForSpeechSeq2Seq.from_pretrained(one) for one in (tmp_path / "run", teacher))
    ours, theirs = student.model.encoder.state_dict(), whole.model.encoder.state_dict()
    assert not all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((), "no teacher was named, and none is made here: name one with --teacher_model_name_or_path"),
        (("--teacher_model_name_or_path", "x", "--normalizer", "german"), "normalizer='german' was given"),
        (("--teacher_model_name_or_path", "x", "--joined_samples", "0"), "joined_samples=0 was given"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(tmp_path, flags, told):
    with pytest.raises(ValueError, match=told):
        run(tmp_path, *flags)
