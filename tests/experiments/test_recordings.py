"""What recipes of recordings share: features, models on them, how long the rows are."""

import pytest
from datasets import Dataset
from tiny_waves import RATE, mels, sine, waves
from transformers import AutoFeatureExtractor, Wav2Vec2Config, Wav2Vec2ForCTC

from hf_distill.experiments.recordings import (
    RecordingModelArguments,
    SpokenScoring,
    blank_mels,
    features_in,
    log_mels,
    mel_shape,
    small_mels,
)


def test_log_mels_are_loaded_again_as_they_were(tmp_path):
    log_mels(RATE, 20).save_pretrained(tmp_path)
    again = AutoFeatureExtractor.from_pretrained(tmp_path)
    made = [one(sine(0.5), sampling_rate=RATE, return_tensors="pt") for one in (log_mels(RATE, 20), again)]
    assert made[0]["input_features"].equal(made[1]["input_features"])
    assert made[0]["input_features"].shape == (1, 12, features_in(again))  # 24 frames, of which two are one


def test_a_student_reads_what_its_teacher_reads():
    recipe = RecordingModelArguments(teacher_hidden_size=48, student_hidden_size=16, teacher_layers=3)
    teacher = blank_mels(recipe, mels(bins=12))
    assert (teacher.hidden_size, teacher.num_hidden_layers, teacher.num_attention_heads) == (48, 3, 3)

    class Teacher:
        config = teacher

    student = small_mels(recipe, Teacher())
    assert (student.hidden_size, student.num_hidden_layers) == (16, 1)
    assert student.feature_projection_input_dim == teacher.feature_projection_input_dim == 24
    assert mel_shape(16, 1, 24, vocab_size=7, pad_token_id=0).vocab_size == 7


def test_what_cannot_be_made_here_is_told():
    with pytest.raises(
        ValueError, match=r"the given student's extractor is a Wav2Vec2FeatureExtractor: name a teacher"
    ):
        blank_mels(RecordingModelArguments(), waves())
    config = Wav2Vec2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    with pytest.raises(ValueError, match=r"of a Wav2Vec2-BERT teacher, the teacher is Wav2Vec2ForCTC: name a student"):
        small_mels(RecordingModelArguments(), Wav2Vec2ForCTC(config))


def test_seconds_of_rows():
    assert SpokenScoring(["a", "b"]).seconds(Dataset.from_dict({"length": [150, 50]})) == 2.0
