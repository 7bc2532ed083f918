"""The recipe of spoken classes as users start it: folders, parquet, speakers held out, a given teacher, bad input."""

import json

import pytest
from datasets import Audio, ClassLabel, Dataset, Features, Value
from huggingface_hub import ModelCard
from tiny_waves import RATE, folders, sine, wav, waves
from transformers import (
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    Wav2Vec2Config,
    Wav2Vec2ForSequenceClassification,
)

from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments import experiment
from hf_distill.experiments.data.recordings import STORED
from hf_distill.experiments.recordings import blank_mels, log_mels, mel_shape

speech_classification = recipe_module("speech_classification")

FLAGS = [
    "--max_steps", "2", "--num_threads", "1", "--report_to", "none", "--disable_tqdm", "1", "--bf16", "0",
    "--teacher_layers", "1", "--teacher_hidden_size", "32", "--student_hidden_size", "16", "--mel_bins", "8",
    "--per_device_train_batch_size", "8",
]  # fmt: skip
SPEAKERS = ("ada", "bo", "cy", "di")


def run(folder, *flags):
    return speech_classification.RECIPE.main(["--output_dir", str(folder / "run"), *FLAGS, *flags])


def parquet(path, n=48, speakers=SPEAKERS):
    held = [{"bytes": wav(sine(0.15 + 0.01 * (i % 9), 200 * (1 + i % 3))), "path": f"{i}.wav"} for i in range(n)]
    rows = {"audio": held, "label": [i % 3 for i in range(n)], "speaker": [speakers[i % 4] for i in range(n)]}
    features = {"audio": STORED, "label": ClassLabel(names=["low", "mid", "high"]), "speaker": Value("string")}
    Dataset.from_dict(rows, features=Features(features)).cast_column("audio", Audio()).to_parquet(path)
    return str(path)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """One run on parquet, with two of four speakers held out and few labels."""
    folder = tmp_path_factory.mktemp("speech")
    flags = ["--speaker_column", "speaker", "--held_out_speakers", "cy", "di", "--labeled_samples", "6"]
    return folder, run(folder, "--train_file", parquet(folder / "rows.parquet"), *flags)


def test_the_whole_job_with_speakers_held_out(held_out):
    folder, report = held_out[0] / "run", held_out[1]
    assert [row["name"] for row in report["models"]] == ["teacher", "student alone", "distilled"]
    assert report["rows"] == {"train": 6, "validation": 12, "test": 12, "unlabeled": 18}
    assert report["split"] == "test"
    figures = {"accuracy", "macro_f1", "agreement", "kl", "calibration_error", "samples_per_second"}
    assert all(figures <= row.keys() for row in report["models"])
    assert report["models"][2]["parameters"] < report["models"][0]["parameters"]
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["models"] == report["models"]
    student = AutoModelForAudioClassification.from_pretrained(folder)
    assert student.config.id2label == {0: "low", 1: "mid", 2: "high"}
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    assert (extractor.sampling_rate, extractor.num_mel_bins) == (8000, 8)
    card = ModelCard.load(folder / "README.md")
    assert card.data.pipeline_tag == "audio-classification"
    assert "AutoModelForAudioClassification" in card.content


@pytest.mark.parametrize(("more", "same"), [([], True), (["--sampling_rate", "4000"], False)])
def test_a_teacher_is_kept_for_its_rows_and_its_features(held_out, more, same):
    flags = ["--speaker_column", "speaker", "--held_out_speakers", "cy", "di", "--labeled_samples", "6", *more]
    folder = held_out[0] / f"again-{same}"
    given = ["--train_file", str(held_out[0] / "rows.parquet"), "--output_dir", str(folder)]
    experiment.make_teacher(speech_classification.RECIPE.prepare([*FLAGS, *given, *flags]))
    first, again = (list(one.glob("_teacher-*")) for one in (held_out[0] / "run", folder))
    assert ([one.name for one in first] == [one.name for one in again]) is same


@pytest.mark.slow
def test_folders_and_a_teacher_by_its_path(tmp_path):
    flags = ["--train_file", folders(tmp_path / "train", 24), "--test_file", folders(tmp_path / "test", 8)]
    first = run(tmp_path / "first", *flags, "--skip_alone")
    assert first["rows"]["train"] + first["rows"]["validation"] == 24
    assert first["rows"]["test"] == 8
    kept = next((tmp_path / "first" / "run").glob("_teacher-*"))
    again = run(tmp_path / "again", *flags, "--teacher_model_name_or_path", str(kept), "--skip_alone")
    assert again["models"][0]["parameters"] == first["models"][0]["parameters"]


@pytest.mark.slow
def test_a_student_on_waves_has_a_teacher_on_features(tmp_path):
    shape = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_stride=(8, 4), conv_kernel=(8, 4), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, num_labels=3, classifier_proj_size=8, apply_spec_augment=False,
    )  # fmt: skip
    Wav2Vec2ForSequenceClassification(shape).save_pretrained(tmp_path / "student")
    waves(mask=False).save_pretrained(tmp_path / "student")
    teacher = AutoModelForAudioClassification.from_config(
        mel_shape(16, 1, 16, id2label={0: "low", 1: "mid", 2: "high"})
    )
    teacher.save_pretrained(tmp_path / "teacher")
    log_mels(RATE, 8).save_pretrained(tmp_path / "teacher")
    given = [f"--{who}_model_name_or_path={tmp_path / who}" for who in ("student", "teacher")]
    report = run(tmp_path, "--train_file", parquet(tmp_path / "rows.parquet"), *given, "--skip_alone")
    assert [row["name"] for row in report["models"]] == ["teacher", "distilled"]


def test_a_teacher_made_here_does_not_feel_padding():
    recipe = speech_classification.Arguments(teacher_hidden_size=32)
    model = AutoModelForAudioClassification.from_config(blank_mels(recipe, extractor := log_mels(RATE, 40))).eval()
    some = [sine(0.3, 300), sine(0.8, 500)]
    both = model(**extractor(some, sampling_rate=RATE, return_tensors="pt")).logits
    alone = model(**extractor(some[:1], sampling_rate=RATE, return_tensors="pt")).logits
    assert both[:1].detach().numpy() == pytest.approx(alone.detach().numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            [],
            r"^no recordings come with this recipe: name some with --train_file, parquet with the columns 'audio' and",
        ),
        (
            ["--train_file", "{}/rows.parquet", "--audio_column", "wave"],
            "name them with --audio_column, --label_column",
        ),
        (["--train_file", "{}/rows.parquet", "--teacher_hidden_size", "15"], r"in heads of 16: give a multiple of 16"),
        (["--train_file", "{}/rows.parquet", "--lora_rank", "4"], "which this recipe does not train"),
        (["--train_file", "{}/rows.parquet", "--sampling_rate", "0"], "give at least 1000 samples a second"),
        (["--train_file", "{}/waves", "--test_file", "{}/rows.parquet"], "which is no folder as"),
        (["--train_file", "{}/rows.parquet", "--held_out_speakers", "di"], "without speaker_column: name the column"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_sentence(tmp_path, flags, told):
    parquet(tmp_path / "rows.parquet", 12)
    folders(tmp_path / "waves", 4)
    with pytest.raises(ValueError, match=told):
        run(tmp_path, *[flag.format(tmp_path) for flag in flags])


def test_a_model_without_a_feature_extractor_is_told(tmp_path):
    AutoModelForAudioClassification.from_config(mel_shape(16, 1, 16, num_labels=3)).save_pretrained(tmp_path / "bare")
    told = r"^the model .*bare reads recordings, and there is no feature extractor that can be loaded beside it"
    flags = ["--train_file", parquet(tmp_path / "rows.parquet", 12), "--student_model_name_or_path"]
    with pytest.raises(ValueError, match=told):
        run(tmp_path, *flags, str(tmp_path / "bare"))
