"""The recipe that translates: embedded words, own files, given models, the teacher's texts, bad input."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from recipe_runs import columns, pairs, write
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.data.chinese_pinyin import pinyin
from hf_distill.experiments.parsing import parse_arguments
from hf_distill.experiments.translation import TranslationScoring

translation = recipe_module("translation")

SMALL = [
    "--teacher_layers", "1", "--teacher_hidden_size", "64", "--teacher_learning_rate", "0.01", "--student_layers", "1",
    "--student_hidden_size", "32", "--bf16", "0", "--num_threads", "1", "--disable_tqdm", "1", "--report_to", "none",
    "--per_device_train_batch_size", "16", "--save_strategy", "no",
]  # fmt: skip


def run(folder, *flags, steps=2):
    return translation.RECIPE.main(["--output_dir", str(folder / "run"), "--max_steps", str(steps), *SMALL, *flags])


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """One run on the embedded words."""
    folder = tmp_path_factory.mktemp("default")
    report = run(folder, "--max_train_samples", "300", "--max_eval_samples", "20")
    return folder, report


def test_the_embedded_words_become_pinyin(default):
    folder, report = default
    assert [row["name"] for row in report["models"]] == ["teacher", "student alone", "distilled"]
    assert report["rows"] == {"train": 300, "validation": 20, "test": 20}
    assert all(one["target"] == pinyin(one["source"]) for one in report["examples"])
    assert all(any(found.iterdir()) for found in (folder / "run").iterdir() if found.is_dir())  # no empty folder
    figures = {"bleu", "chrf", "chrf_error", "exact", "cer", "agreement", "parameters", "samples_per_second"}
    assert all(figures <= row.keys() for row in report["models"])
    assert report["models"][0]["agreement"] == 1.0
    assert json.loads((folder / "run" / "report.json").read_text(encoding="utf-8"))["models"] == report["models"]
    assert (folder / "run" / "report.png").stat().st_size > 10_000


def test_the_student_writes_when_it_is_loaded_again(default):
    run_folder = default[0] / "run"
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(run_folder), AutoTokenizer.from_pretrained(run_folder)
    assert model.config.d_model == 32
    assert not hasattr(model.config, "distillation")
    found = model.generate(**tokenizer(["中国"], return_tensors="pt"), max_length=9)
    assert isinstance(tokenizer.decode(found[0]), str)


def test_the_card(default):
    card = ModelCard.load(default[0] / "run" / "README.md")
    assert card.data.pipeline_tag == "text2text-generation"
    assert {one.metric_type for one in card.data.eval_results} == {"exact_match", "cer", "chrf", "bleu"}
    for part in ("| distilled", "report.png", "forward_kl", "AutoModelForSeq2SeqLM", "of width 64"):
        assert part in card.text, part
    assert str(default[0]) not in card.text


@pytest.mark.slow
def test_the_teacher_is_kept_and_its_texts_are_labels(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--max_steps", "2", *SMALL, *columns(write(tmp_path / "pairs.jsonl", pairs(80))), "--skip_alone"]
    evaluated = ["--eval_strategy", "steps", "--eval_steps", "2"]
    report = translation.RECIPE.main([*flags, *evaluated])
    shown = capsys.readouterr().out
    assert report["dataset"] == "pairs.jsonl"
    assert report["gap"] is None
    assert "training the teacher, once" in shown
    assert "'eval_chrf'" in shown
    rollout = ["--alpha", "0", "--rollout", '{"seq_kd": 1.0, "max_new_tokens": 12}']
    report = translation.RECIPE.main([*flags, *rollout])
    assert "using the teacher kept at outputs/translation/_teacher-" in capsys.readouterr().out
    assert report["settings"]["rollout"] == {"seq_kd": 1.0, "max_new_tokens": 12}
    card = Path("outputs/translation/run-2/README.md").read_text(encoding="utf-8")
    assert "100 % written by the teacher" in card


@pytest.mark.slow
def test_a_student_of_its_teachers_encoder_and_one_decoder_layer(tmp_path):
    path = write(tmp_path / "pairs.jsonl", pairs(40))
    layers = ["--student_from_teacher", "--student_layers", "2", "--student_decoder_layers", "1", "--skip_alone"]
    run(tmp_path, *columns(path), *SMALL, "--teacher_layers", "2", *layers)
    config = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run").config
    assert (config.encoder_layers, config.decoder_layers, config.d_model) == (2, 1, 64)


@pytest.mark.slow
def test_columns_in_one_column_and_rows_with_an_empty_side(tmp_path, capsys):
    rows = [{"translation": {"zh": row["zh"], "en": row["en"] if i % 4 else ""}} for i, row in enumerate(pairs(40))]
    flags = ["--source_column", "translation.zh", "--target_column", "translation.en", "--skip_alone"]
    report = run(tmp_path, "--train_file", write(tmp_path / "rows.jsonl", rows), *flags)
    assert "; left out without a source or a target: 9 train, 1 validation, 1 test" in capsys.readouterr().out
    assert report["rows"] == {"train": 29, "validation": 1, "test": 1}


@pytest.mark.slow
def test_rows_grouped_by_length_are_scored_against_their_own_references(tmp_path, monkeypatch):
    plain, labels = translation.Seq2SeqDistillationTrainer.predict, []

    def predict(trainer, rows):
        found = plain(trainer, rows)
        labels.append(TranslationScoring(trainer.processing_class, None).texts(found.label_ids))
        return found

    monkeypatch.setattr(translation.Seq2SeqDistillationTrainer, "predict", predict)
    rows = [{"zh": "天" * (1 + i % 5), "en": f"s{i}"} for i in range(20)]
    path = write(tmp_path / "rows.jsonl", rows)
    flags = ["--test_file", path, "--skip_alone", "--train_sampling_strategy", "group_by_length"]
    run(tmp_path, *columns(path), *flags)
    assert labels == [[row["en"] for row in rows]] * 2


BAD = {
    "a missing file": (["--train_file", "nowhere.jsonl"], "nowhere.jsonl, there is no such file"),
    "a missing column": (
        ["--train_file", "{folder}/good.jsonl"],
        r"\['source', 'target'\] was asked for: name them with --source_column and --target_column",
    ),
    "nothing to write": (
        ["--train_file", "{folder}/empty.jsonl", "--source_column", "zh", "--target_column", "en"],
        "none of the 19 train rows has both texts",
    ),
    "no training file": (["--test_file", "{folder}/good.jsonl"], "was given without train_file"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_in_a_sentence_before_anything_is_trained(tmp_path, what):
    write(tmp_path / "good.jsonl", pairs(20))
    write(tmp_path / "empty.jsonl", [{**row, "en": ""} for row in pairs(20)])
    flags, message = BAD[what]
    with pytest.raises(ValueError, match=message) as caught:
        run(tmp_path, *(flag.format(folder=tmp_path) for flag in flags))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_full_size_settings_are_valid(tmp_path):
    path = str(Path(translation.__file__).with_suffix(".yaml"))
    types = [translation.Arguments, translation.TrainingArguments]
    recipe, args = parse_arguments(types, [path, "--bf16", "0", "--output_dir", str(tmp_path)])
    assert recipe.teacher_model_name_or_path == "Helsinki-NLP/opus-mt-zh-en"
    assert (recipe.student_layers, recipe.student_decoder_layers) == (6, 2)
    assert args.rollout["seq_kd"] == 0.5
    assert args.metric_for_best_model == "chrf"
