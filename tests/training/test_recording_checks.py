"""Recordings that nobody reads, that cannot be decoded, or that have foreign letters: told before the first step."""

import importlib.util
import json

import pytest
import tiny
import tiny_speech
from datasets import Audio, Dataset
from default_run import slow_but
from tiny_waves import arrays, sine, wav, waves
from transformers import (
    DefaultDataCollator,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2Processor,
)

from hf_distill import SpeechCollator


def rows(n=8, **changed):
    held = [{"bytes": changed.get(f"row{i}", wav(sine(0.15))), "path": f"{i}.wav"} for i in range(n)]
    return Dataset.from_dict({"audio": held, "label": [i % 2 for i in range(n)], "speaker": ["ada"] * n})


def classifier(seed=0, **sizes):
    return tiny_speech.wav2vec2(seed, Wav2Vec2ForSequenceClassification, num_labels=2, **sizes)


def trainer(folder, data, collate=None, evaluation=None, **args):
    return tiny.trainer(
        folder, classifier(), data, teacher_model=classifier(7, width=24), eval_dataset=evaluation,
        data_collator=collate or SpeechCollator(waves()), processing_class=waves(),
        args={"per_device_train_batch_size": 4, "max_steps": 2, **args},
    )  # fmt: skip


@pytest.mark.parametrize("workers", slow_but([0], [0, 1]))
def test_a_bad_recording_is_named_by_its_row_of_the_data_set_and_its_file(tmp_path, workers):
    torn = rows(row5=wav(sine(0.15))[:1000])
    told = (
        r"^row 5 of the training set has a recording that cannot be read \(5\.wav: it ends after 956 of 2,400 bytes\)"
    )
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, torn, dataloader_num_workers=workers).train()


def test_a_bad_recording_of_an_evaluation_is_named(tmp_path):
    run = trainer(tmp_path, rows(), evaluation=rows(row3=b""))
    with pytest.raises(
        ValueError, match=r"^row 3 of the evaluation set has a recording .* \(3\.wav: the file is empty\)"
    ):
        run.evaluate()


def test_what_another_fault_says_is_left_alone(tmp_path):
    run = trainer(tmp_path, rows(), SpeechCollator(waves(), audio_column="wave"), remove_unused_columns=False)
    with pytest.raises(ValueError, match=r"^row \d of a batch has no 'wave', only"):
        run.train()


def test_recordings_that_datasets_cannot_decode_are_told_with_what_to_do(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torchcodec" else find(name))
    to_decode = rows().cast_column("audio", Audio())
    told = (
        r"^the training set has recordings under 'audio' that datasets would decode with torchcodec, which is not inst"
    )
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, to_decode)
    assert trainer(tmp_path, to_decode.cast_column("audio", Audio(decode=False))).train().global_step == 2


def test_recordings_that_nothing_reads_are_told(tmp_path):
    told = r"^the training set has recordings under 'audio', of which nothing makes input_values: pass data_collator="
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, rows(), DefaultDataCollator())


@pytest.mark.parametrize("listed", [False, True])
def test_foreign_letters_are_told_before_the_first_step(tmp_path, listed):
    (tmp_path / "vocab.json").write_text(
        json.dumps({one: i for i, one in enumerate(["<pad>", "<unk>", "|", *"ONETW"])})
    )
    tokenizer = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
    processor = Wav2Vec2Processor(waves(), tokenizer)
    texts = ["ONE", "TWO", "TOO", "NOT", "TEN!", "one"]
    data = arrays(6, text=lambda i: texts[i])
    if not listed:
        held = [{"bytes": wav(row["audio"]["array"]), "path": None} for row in data]
        data = Dataset.from_dict({"audio": held, "text": texts})
    told = (
        r"^row 4 of the training set has a transcript .* \('!', 'e', 'n', 'o'\): write transcripts in its letters, or"
    )
    with pytest.raises(ValueError, match=told):
        tiny.trainer(
            tmp_path, tiny_speech.wav2vec2(), data, teacher_model=tiny_speech.wav2vec2(7),
            data_collator=SpeechCollator(processor), processing_class=processor,
        )  # fmt: skip
    good = data.select(range(4)) if not listed else data[:4]
    run = tiny.trainer(
        tmp_path, tiny_speech.wav2vec2(), good, teacher_model=tiny_speech.wav2vec2(7),
        data_collator=SpeechCollator(processor), processing_class=processor, args={"max_steps": 2},
    )  # fmt: skip
    assert run.train().global_step == 2


def test_a_teacher_made_for_another_rate_is_told_and_gets_its_own(tmp_path):
    classifier(7, width=24).save_pretrained(tmp_path / "teacher")
    waves(rate=16000).save_pretrained(tmp_path / "teacher")
    given = {"teacher_model": str(tmp_path / "teacher"), "processing_class": waves(), "args": {"max_steps": 2}}
    told = (
        r"teacher was made for recordings of sampling_rate=16000, the collator gives sampling_rate=8000: pass Speech"
    )
    with pytest.raises(ValueError, match=told):
        tiny.trainer(tmp_path, classifier(), rows(), data_collator=SpeechCollator(waves()), **given)
    for theirs in (waves(rate=16000), waves()):
        run = tiny.trainer(tmp_path, classifier(), rows(), data_collator=SpeechCollator(waves(), theirs), **given)
        assert run.train().global_step == 2
    waves().save_pretrained(tmp_path / "teacher")
    tiny.trainer(tmp_path, classifier(), rows(), data_collator=SpeechCollator(waves()), **given)
