"""``compute_metrics`` of recognisers: frames of CTC, and what was generated."""

import json
import sys

import jiwer
import numpy as np
import pytest
import speech_runs
import tiny
import tiny_speech
import torch
from transformers import EvalPrediction, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

from hf_distill.experiments.predictions import teacher_predictions
from hf_distill.reports import chosen_frames, wer_metrics

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", "L", "O", "H", "E"]


@pytest.fixture
def processor(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(LETTERS)}))
    return Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json")))


def ids(text, width=14):
    found = [LETTERS.index({"_": "<pad>"}.get(letter, letter)) for letter in text]
    return found + [-100] * (width - len(found))


def test_frames_are_collapsed_and_doubled_letters_stay_two(processor):
    frames, labels = np.array([ids("HHE_LL_LOO|_LO"), ids("HE_L")]), np.array([ids("HELLO|LO"), ids("HELLO")])
    found = wer_metrics(processor, ctc=True)(EvalPrediction(frames, labels))
    assert found == {"wer": 1 / 3, "cer": 2 / 13, "blank_share": 4 / 18}


def test_logits_that_trainer_padded_are_padding_and_the_argmax_keeps_what_matters(processor):
    frames = np.array([ids("HHE_LL_LOO|_LO"), ids("HE_L")])
    logits = np.full((*frames.shape, len(LETTERS)), -100.0, dtype=np.float32)
    for place in np.argwhere(frames >= 0):
        logits[tuple(place)] = np.eye(len(LETTERS))[frames[tuple(place)]]
    assert chosen_frames(torch.tensor(logits)).tolist() == frames.tolist()
    assert chosen_frames((torch.tensor(logits), None)).tolist() == frames.tolist()
    labels = np.array([ids("HELLO|LO"), ids("HELLO")])
    wanted = wer_metrics(processor, ctc=True)(EvalPrediction(frames, labels))
    assert wer_metrics(processor, ctc=True)(EvalPrediction((logits, None), labels)) == wanted


def test_what_was_generated_is_read_without_padding_and_special_tokens(processor):
    predictions = np.array([[1, *ids("HELLO|LO", 8), 2, 0, 0], [1, *ids("HE", 8), -100, -100, -100]])
    labels = np.array([[*ids("HELLO|LO", 8), 2], [*ids("LO", 8), -100]])
    found = wer_metrics(processor)(EvalPrediction(predictions, labels))
    assert found == {"wer": 1 / 3, "cer": 2 / 10}


def test_both_are_normalised(processor):
    predictions, labels = np.array([ids("HELLO")]), np.array([ids("HELL")])
    assert wer_metrics(processor)(EvalPrediction(predictions, labels))["wer"] == 1
    assert wer_metrics(processor, normalize=lambda text: text[:2])(EvalPrediction(predictions, labels))["wer"] == 0
    with pytest.raises(
        ValueError, match="the normaliser 'french' is not known: give 'english', 'basic' or a function"
    ):
        wer_metrics(processor, normalize="french")


def test_what_cannot_be_compared_is_told_in_a_sentence(processor, monkeypatch):
    with pytest.raises(ValueError, match="with a Wav2Vec2FeatureExtractor, which turns no tokens into text: give"):
        wer_metrics(processor.feature_extractor)
    with pytest.raises(ValueError, match="rows without labels: give each row its transcript"):
        wer_metrics(processor)(EvalPrediction(np.array([ids("HE")]), None))
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(ImportError, match=r"hf_distill\[speech\]"):
        wer_metrics(processor)


@pytest.mark.parametrize("kind", ["wav2vec2", "features"])
def test_what_is_recognised_does_not_hang_on_how_long_the_other_rows_of_a_batch_are(tmp_path, processor, kind):
    data, found, predicted = tiny_speech.recordings(6, kind=kind), [], []
    for size in (1, 2, 6):
        run = tiny.trainer(
            tmp_path, tiny_speech.CTCS[kind](3), data, teacher_model=tiny_speech.CTCS[kind](7, width=24),
            data_collator=tiny_speech.collate, eval_dataset=data, compute_metrics=wer_metrics(processor, ctc=True),
            preprocess_logits_for_metrics=chosen_frames, args={"per_device_eval_batch_size": size},
        )  # fmt: skip
        shown = run.evaluate()
        found.append([shown[f"eval_{name}"] for name in ("wer", "cer", "blank_share")])
        teacher = teacher_predictions(run, data, lambda logits, labels: chosen_frames(logits)).predictions
        predicted.append([row[row != -100].tolist() for row in teacher])
    assert found[0] == found[1] == found[2]
    assert predicted[0] == predicted[1] == predicted[2]
    assert len({len(row) for row in predicted[0]}) == 3


def test_whisper_is_measured_by_what_it_generates(tmp_path):
    data = speech_runs.rows("whisper", 4)
    for row in data:
        row["labels"] = torch.tensor([5, 6, 7, 2])
    run = speech_runs.trainer(
        tmp_path, rollout=None, student=speech_runs.whisper(), eval_dataset=data,
        compute_metrics=wer_metrics(speech_runs.tokenizer()),
        args={"predict_with_generate": True, "generation_max_length": 10, "alpha": 0.5},
    )  # fmt: skip
    found, predicted = run.evaluate(), run.predict(data).predictions
    texts = [" ".join(f"w{token - 5}" for token in row if token > 4) for row in predicted.tolist()]
    assert found["eval_wer"] == jiwer.wer(["w0 w1 w2"] * 4, texts) > 0
