"""Recognisers beside each other: errors of utterances, fewer are better, and who says nothing is told."""

import json

import numpy as np
import pytest
import tiny
import tiny_speech
from datasets import Dataset
from transformers import Wav2Vec2CTCTokenizer

from hf_distill.experiments import comparison
from hf_distill.experiments.transcripts import TranscriptScoring
from hf_distill.reports import chosen_frames, gap_closed, markdown_table

LETTERS = ["<pad>", "|", "a", "b", "c", "d", "e", "f"]


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(LETTERS)}))
    return Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"), unk_token="<pad>", bos_token=None, eos_token=None)


def ids(text, width=8):
    found = [LETTERS.index({"_": "<pad>"}.get(letter, letter)) for letter in text]
    return [*found, *[-100] * (width - len(found))]


SAID = np.array([ids("ab|cd"), ids("f"), ids("a|b|c")])


def test_a_model_is_measured_by_its_words(tokenizer):
    scoring = TranscriptScoring(tokenizer)
    frames, teacher = (
        np.array([ids("a_b|ce"), ids("_f"), ids("a|bb|_c")]),
        np.array([ids("ab|cd"), ids("f"), ids("a")]),
    )
    found = scoring.measurement(frames, SAID, teacher)
    assert found.means() == {
        "wer": pytest.approx(1 / 6), "cer": 1 / 11, "blank_share": 3 / 15, "stuck": 0.0, "agreement": 1 / 3,
    }  # fmt: skip
    assert scoring.scores(found).mean() == pytest.approx(-1 / 6)
    row = found.row(*scoring.plotted[:1], scoring.share)
    low, high = row["wer_interval"]
    assert low < row["wer"] < high
    assert scoring.columns["WER %"](row).startswith("16.7 ± ")
    silent = scoring.measurement(np.zeros((3, 8), dtype=int), SAID, teacher).means()
    assert (
        (silent["wer"], silent["blank_share"], silent["stuck"]) == (1.0, 1.0, 1.0) == (scoring.floor(None, None),) * 3
    )


def test_the_gap_is_in_points_of_wer(tokenizer):
    scoring = TranscriptScoring(tokenizer)
    alone, taught, teacher = (np.tile(np.array(list(map(ids, texts))), (9, 1)) for texts in (
        ("ab", "_", "a|b"), ("ab|cd", "_", "a|b"), ("ab|cd", "f", "a|b|c"),
    ))  # fmt: skip
    found = [scoring.measurement(one, np.tile(SAID, (9, 1)), teacher) for one in (alone, taught, teacher)]
    gap = gap_closed(*map(scoring.scores, found))
    assert gap.gain == pytest.approx(1 / 6)
    assert gap.gap == pytest.approx(1 / 2)
    assert gap.ratio == pytest.approx(1 / 3)
    assert gap.interval.low < gap.ratio < gap.interval.high
    assert scoring.summary(gap) == f"{gap} (WER, a gain is fewer errors)"


def test_a_teacher_and_its_student_are_measured_alike(tmp_path, tokenizer):
    rows = tiny_speech.recordings(6)
    data = Dataset.from_list([
        {**{name: value.tolist() for name, value in row.items()}, "length": len(row["input_values"])} for row in rows
    ]).with_format("torch")  # fmt: skip
    scoring, model = TranscriptScoring(tokenizer, a_second=16), tiny_speech.wav2vec2(3)
    run = tiny.trainer(
        tmp_path, model, data, teacher_model=tiny_speech.wav2vec2(3), data_collator=tiny_speech.collate,
        compute_metrics=scoring.compute_metrics, preprocess_logits_for_metrics=chosen_frames,
        args={"per_device_eval_batch_size": 4},
    )  # fmt: skip
    found = scoring.measure({"distilled": run}, data, run)
    assert found["distilled"].means() == found["teacher"].means()
    assert found["teacher"].figures["agreement"] == 1.0
    assert run.evaluate(data)["eval_wer"] == pytest.approx(found["teacher"].means()["wer"])
    assert scoring.seconds(data) == sum(len(row["input_values"]) for row in rows) / 16
    assert scoring.seconds(data.remove_columns("length")) is None
    report = {"name": "teacher", "parameters": 1, "megabytes": 1.0, "latency": 2.0, "samples_per_second": 3.0}
    report |= {**found["teacher"].row("wer", scoring.share), "real_time_factor": 40.0}
    assert markdown_table(*comparison.cells([report], scoring)).splitlines()[0].split("|")[2].strip() == "WER %"


def test_characters_may_be_the_score(tokenizer):
    scoring = TranscriptScoring(tokenizer, measure="cer")
    found = scoring.measurement(np.array([ids("ab|ce"), ids("_f"), ids("a|bb|_c")]), SAID, SAID)
    assert found.each["cer"].mean() == pytest.approx(1 / 11)
    assert (scoring.hub, list(scoring.columns)[:2]) == ({"cer": "cer"}, ["CER %", "blank frames %"])
    assert scoring.details({"one": found}) == {
        "stuck_on_the_blank": [],
        "transcripts": {"right": ["ab cd", "f", "a b c"], "one": ["ab ce", "f", "a b c"]},
    }
    with pytest.raises(ValueError, match="measure='per' was given: use wer or cer"):
        TranscriptScoring(tokenizer, measure="per")


def test_the_transcripts_that_differ_are_shown(tokenizer):
    scoring = TranscriptScoring(tokenizer)
    frames = {
        "teacher": np.array([ids("ab|cd"), ids("f"), ids("a|b|c")]),
        "distilled": np.array([ids("ab|cd"), ids("e"), ids("a|b|d")]),
    }
    found = {name: scoring.measurement(one, SAID, frames["teacher"]) for name, one in frames.items()}
    shown = scoring.disagreements(found, None).rows
    assert [(one.row, one.right, one.answers["distilled"].text) for one in shown] == [
        (1, "f", "e"),
        (2, "a b c", "a b d"),
    ]
