"""Recordings in batches: what an extractor makes, a mask if it asks, classes or transcripts, a teacher's columns."""

import json

import numpy as np
import pytest
import tiny
import tiny_speech
import torch
from datasets import Dataset
from tiny_waves import RATE, arrays, mels, sine, wav, waves
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    ASTFeatureExtractor,
    Speech2TextFeatureExtractor,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2Processor,
    WhisperFeatureExtractor,
    WhisperProcessor,
    WhisperTokenizer,
)

from hf_distill import SpeechCollator, SpeechSeq2Seq
from hf_distill.experiments.data.recordings import as_recordings

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ENOTW"]


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """A processor of letters, whose blank is ``<pad>``."""
    file = tmp_path_factory.mktemp("letters") / "vocab.json"
    file.write_text(json.dumps({letter: i for i, letter in enumerate(LETTERS)}), encoding="utf-8")
    return Wav2Vec2Processor(waves(mask=False), Wav2Vec2CTCTokenizer(str(file)))


@pytest.fixture(scope="module")
def whisper():
    """Whisper's processor over bytes."""
    extractor = WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    tokenizer = WhisperTokenizer(
        vocab={one: i for i, one in enumerate(sorted(ByteLevel.alphabet()))}, merges=[], unk_token="<|endoftext|>"
    )
    special = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.set_prefix_tokens(language="en", task="transcribe", predict_timestamps=False)
    return WhisperProcessor(extractor, tokenizer)


def mean_of(wave):
    return (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)


def test_waves_are_padded_with_a_mask_where_the_extractor_asks_for_one():
    rows = arrays(3, label=lambda i: i)
    masked, plain = SpeechCollator(waves())(rows), SpeechCollator(waves(mask=False))(rows)
    assert set(masked) == {"input_values", "attention_mask", "labels"}
    assert set(plain) == {"input_values", "labels"}
    long = [len(row["audio"]["array"]) for row in rows]
    assert masked["attention_mask"].sum(dim=1).tolist() == long
    assert masked["labels"].tolist() == [0, 1, 2]
    for row, wave, size in zip(rows, masked["input_values"], long, strict=True):
        assert wave[:size].numpy() == pytest.approx(mean_of(row["audio"]["array"]), abs=1e-5)
        assert not wave[size:].any()


@pytest.mark.parametrize(
    ("make", "name", "shape", "masked"),
    [
        (mels, "input_features", (2, 9, 16), True),
        (lambda: Speech2TextFeatureExtractor(num_mel_bins=8, feature_size=8), "input_features", (2, 36, 8), True),
        (lambda: WhisperFeatureExtractor(feature_size=8, chunk_length=1), "input_features", (2, 8, 100), False),
        (lambda: ASTFeatureExtractor(num_mel_bins=8, max_length=64, sampling_rate=RATE), "input_values",
         (2, 64, 8), False),
    ],
)  # fmt: skip
def test_features_are_what_the_extractor_makes_of_the_waves(make, name, shape, masked):
    extractor = make()
    rate = extractor.sampling_rate
    noise = np.random.default_rng(0).normal(size=round(0.38 * rate)).astype(np.float32)
    rows = [{"audio": {"array": noise[: round(long * rate)], "sampling_rate": rate}} for long in (0.2, 0.38)]
    batch = SpeechCollator(extractor)(rows)
    assert batch[name].shape == shape
    assert ("attention_mask" in batch) is masked
    alone = extractor(rows[1]["audio"]["array"], sampling_rate=rate, return_tensors="pt")[name][0]
    assert torch.allclose(batch[name][1, : len(alone)], alone[: shape[1]], atol=1e-5)


def test_rows_are_the_same_recordings_however_a_data_set_holds_them(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav())
    rows = [
        {"audio": str(tmp_path / "a.wav")}, {"audio": {"bytes": wav(), "path": None}}, {"audio": wav()},
        {"audio": {"array": sine(), "sampling_rate": RATE}}, {"audio": sine()},
        {"audio": {"array": sine(rate=2 * RATE), "sampling_rate": 2 * RATE}},
    ]  # fmt: skip
    batch = SpeechCollator(waves(), sampling_rate=RATE)(rows)["input_values"]
    assert all(torch.allclose(batch[0], one, atol=1e-3) for one in batch[1:-1])
    assert torch.allclose(batch[0, 50:-50], batch[-1, 50:-50], atol=0.02)  # resampled


def test_features_that_are_kept_are_those_that_are_made():
    rows = arrays(5)
    for make in (mels, waves):
        kept = SpeechCollator(make(), make(rate=2 * RATE), keep=True)
        for some in (rows, rows[:1], rows[::-1]):
            made = SpeechCollator(make(), make(rate=2 * RATE))(some)
            shown = kept(some)
            assert shown.keys() == made.keys()
            assert all(torch.equal(shown[name], one) for name, one in made.items())
        assert len(kept.kept) == 2 * 5  # of which each was made once


def test_transcripts_become_letters_and_never_the_blank_behind(letters):
    batch = SpeechCollator(letters)(arrays(2, text=lambda i: ("ONE TWO", "TWO")[i], label=lambda i: i))
    spelled = [[LETTERS.index("|" if one == " " else one) for one in text] for text in ("ONE TWO", "TWO")]
    assert batch["labels"].tolist() == [spelled[0], [*spelled[1], -100, -100, -100, -100]]


def test_a_row_without_a_transcript_has_no_label(letters):
    some = SpeechCollator(letters)(arrays(2, text=lambda i: (None, "TWO")[i]))
    assert some["labels"][0].tolist() == [-100] * 3
    none = SpeechCollator(letters)(arrays(2, text=lambda i: None))  # of a recogniser by frames: taught all the same
    assert none["labels"].tolist() == [[-100], [-100]]
    assert "labels" not in SpeechCollator(letters)(arrays(2))
    assert "labels" not in SpeechCollator(letters, decoder_start=5)(arrays(2, text=lambda i: None))
    ids = SpeechCollator(letters)(arrays(2, labels=lambda i: [5, 6][: i + 1]))
    assert ids["labels"].tolist() == [[5, -100], [5, 6]]


def test_whispers_labels_do_not_begin_with_what_the_model_puts_before_them(whisper):
    batch = SpeechCollator(whisper)(arrays(2, text=lambda i: ("hé", "a")[i]))
    start = whisper.tokenizer.convert_tokens_to_ids("<|startoftranscript|>")
    first = whisper.tokenizer("hé")["input_ids"]
    assert first[0] == start
    assert batch["labels"][0].tolist() == first[1:]
    again = SpeechCollator(whisper)(arrays(1, labels=lambda i: first))  # of rows that were tokenised before
    assert again["labels"][0].tolist() == first[1:]
    model = tiny_speech.whisper(vocab_size=300, decoder_start_token_id=start)
    read = SpeechSeq2Seq().inputs(model, {}, batch)["decoder_input_ids"]  # as the model shifts them
    assert (read == start).sum(dim=1).tolist() == [1, 1]
    own = SpeechCollator(whisper, decoder_start=first[1])(arrays(1, labels=lambda i: first[1:]))
    assert own["labels"][0].tolist() == first[2:]


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (
            ("ONE", "one"),
            r"^row 1 of a batch has a transcript .* lacks \('e', 'n', 'o'\): write transcripts in upper c",
        ),
        (
            ("TWO!", "ONE"),
            r"^row 0 of a batch has a transcript .* lacks \('!'\): write transcripts in its letters, or",
        ),
    ],
)
def test_characters_that_the_vocabulary_lacks_are_named(letters, texts, told):
    with pytest.raises(ValueError, match=told):
        SpeechCollator(letters)(arrays(2, text=lambda i: texts[i]))


def test_a_vocabulary_of_words_lacks_no_letters():
    words = tiny.tokenizer()
    assert words.unk_token_id in words("w")["input_ids"]

    class Both:
        feature_extractor, tokenizer = waves(), words

    batch = SpeechCollator(Both())(arrays(2, text=lambda i: ("w1 w2", "w3")[i]))
    assert words.unk_token_id not in batch["labels"]
    with pytest.raises(ValueError, match=r"^row 1 of a batch has a transcript with characters that the vocabulary l"):
        SpeechCollator(Both())(arrays(2, text=lambda i: ("w1 w2", "x3")[i]))


def test_a_teacher_with_an_extractor_of_its_own_has_columns_of_its_own(letters):
    rows = arrays(3, label=lambda i: i)
    batch = SpeechCollator(mels(), letters)(rows)
    assert set(batch) == {"input_features", "attention_mask", "teacher_input_values", "labels"}
    assert torch.equal(batch["teacher_input_values"], SpeechCollator(letters)(rows)["input_values"])
    assert SpeechCollator(mels(), mels()).teacher_processor is None
    both = SpeechCollator(mels(), mels(bins=10))(rows)
    assert both["teacher_input_features"].shape[2] == 20
    assert both["teacher_attention_mask"].equal(both["attention_mask"])


@pytest.mark.parametrize(
    ("collate", "wave", "told"),
    [
        (lambda: mels(), sine(0.06), r"^row 1 of a batch has a recording of 0\.060 seconds, of which Seamless"),
        (lambda: mels(), sine(0.01), r"of which SeamlessM4TFeatureExtractor makes no features, as of one that is t"),
        (lambda: WhisperFeatureExtractor(feature_size=8, chunk_length=1), sine(1.5),
         r"^row 1 of a batch has a recording of 1\.5 seconds, WhisperFeatureExtractor reads 1\.0: cut it into parts, "
         r"or let all be cut with max_seconds=1\.$"),
        (lambda: ASTFeatureExtractor(num_mel_bins=8, max_length=64, sampling_rate=16000), sine(1.5),
         r"has a recording of 1\.5 seconds, ASTFeatureExtractor reads 0\.7"),
    ],
)  # fmt: skip
def test_recordings_too_short_or_too_long_are_told(collate, wave, told):
    rows = [*arrays(1), {"audio": {"array": wave, "sampling_rate": RATE}}]
    with pytest.raises(ValueError, match=told):
        SpeechCollator(collate())(rows)


def test_longer_recordings_are_cut_where_that_is_asked():
    batch = SpeechCollator(waves(), max_seconds=0.1)(arrays(2))
    assert batch["attention_mask"].sum(dim=1).tolist() == [800, 800]


@pytest.mark.parametrize(
    ("ask", "kind", "told"),
    [
        (
            lambda: SpeechCollator(tiny.tokenizer()),
            TypeError,
            "^SpeechCollator was given a BertTokenizer, which makes no",
        ),
        (lambda: SpeechCollator(mels(), max_seconds=0), ValueError, "^max_seconds=0 was given: give a number above 0"),
        (
            lambda: SpeechCollator(mels())([{"sound": 1}]),
            ValueError,
            r"^row 0 of a batch has no 'audio', only \['sound",
        ),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(ask, kind, told):
    with pytest.raises(kind, match=told):
        ask()


# ---- With a trainer ----


def rows_of(n=24):
    rows = arrays(n, label=lambda i: i % 2)
    held = [{"bytes": wav(row["audio"]["array"]), "path": f"{i}.wav"} for i, row in enumerate(rows)]
    data = Dataset.from_dict({"audio": held, "label": [row["label"] for row in rows], "noise": [0] * n})
    return as_recordings(data, "audio", "the rows")


def student(seed=0, **config):
    return tiny_speech.wav2vec2(seed, Wav2Vec2ForSequenceClassification, **{"num_labels": 2, **config})


def trainer(folder, model=None, teacher=None, collate=None, args=None, data=None, **parts):
    return tiny.trainer(
        folder, model or student(), data or rows_of(), teacher_model=teacher or student(7, width=24),
        data_collator=collate or SpeechCollator(waves()), processing_class=waves(), args=args, **parts,
    )  # fmt: skip


def test_rows_are_grouped_by_length_with_unused_columns_removed(tmp_path):
    args = {"train_sampling_strategy": "group_by_length", "per_device_train_batch_size": 4, "max_steps": 6}
    run = trainer(tmp_path, args=args, data=rows_of(48))
    assert run.args.remove_unused_columns
    lengths = []
    for batch in run.get_train_dataloader():
        assert set(batch) == {"input_values", "attention_mask", "labels"}
        lengths += batch["attention_mask"].sum(dim=1).tolist()
    assert len(set(lengths)) == 3
    for start in range(0, 48, 12):  # Trainer sorts so many rows at a time, and puts the longest of all first
        some = lengths[start + 1 : start + 12]
        assert some == sorted(some, reverse=True)
    run.train()
    assert np.isfinite(tiny.losses(run, "loss/forward_kl")).all()


def test_a_teacher_hears_the_clean_recording_under_spec_augment(tmp_path):
    masked = {"mask_time_prob": 0.5, "mask_time_length": 2, "apply_spec_augment": True}
    teacher, shown, heard = student(7, width=24, **masked), [], []
    teacher.register_forward_hook(lambda *call: shown.append(call[-1].logits.clone()), with_kwargs=False)
    teacher.register_forward_pre_hook(lambda module, args, fed: heard.append(dict(fed)), with_kwargs=True)
    model = student(**masked)
    run = trainer(tmp_path, model, teacher, args={"max_steps": 2, "alpha": 1.0})
    run.train()
    with torch.no_grad():
        for fed, logits in zip(list(heard), list(shown), strict=True):
            clean = {name: fed[name] for name in ("input_values", "attention_mask")}
            assert torch.equal(teacher(**clean).logits, logits)
        model.train()
        assert not torch.equal(model(**clean).logits, model(**clean).logits)  # masked each time anew


def test_a_teacher_of_another_extractor_teaches(tmp_path):
    teacher = tiny_speech.ast(7)
    theirs = ASTFeatureExtractor(num_mel_bins=8, max_length=16, sampling_rate=2 * RATE)
    collate = SpeechCollator(waves(), theirs, max_seconds=0.1)
    run = trainer(tmp_path, student(num_labels=3), teacher, collate, args={"max_steps": 8, "alpha": 1.0})
    batch = next(iter(run.get_train_dataloader()))
    assert batch["teacher_input_values"].shape[1:] == (16, 8)
    run.train()
    shown = run.teacher(batch, frozenset({"heads"})).heads["logits"].logits.tensor
    with torch.no_grad():
        assert torch.allclose(shown, teacher(input_values=batch["teacher_input_values"]).logits, atol=1e-6)
