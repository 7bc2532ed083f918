"""Rows without a label beside the training rows: the student under its teacher learns from them, and no other."""

import json

import pytest
import torch
from default_run import slow_but
from recipe_runs import QUIET, SMALL, rows, unlabeled, write
from transformers import AutoTokenizer

from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments import experiment


def run(folder, *flags):
    fixed = ["--output_dir", str(folder / "run"), "--max_steps", "2", "--num_threads", "1"]
    return recipe_module("bert_chinese").RECIPE.main([*fixed, *SMALL, *QUIET, *flags])


def files(folder, n=40):
    made = {"train": rows(60), "validation": rows(6), "test": rows(6), "unlabeled": unlabeled(n)}
    return [f"--{name}_file={write(folder / f'{name}.jsonl', data)}" for name, data in made.items()]


@pytest.mark.parametrize("augmentation", slow_but([[]], [[], ["--augmentation", '{"mask": 0.2, "crop": 0.5}']]))
def test_the_recipe_teaches_them_and_trains_the_student_alone_for_as_many_steps(
    tmp_path, monkeypatch, capsys, augmentation
):
    trainers, train = [], experiment.train

    def watched(trainer, resume=None):
        train(trainer, resume)
        trainers.append(trainer)

    monkeypatch.setattr(experiment, "train", watched)
    flags = [*files(tmp_path), *augmentation, "--max_steps", "-1", "--num_train_epochs", "2", "--teacher_epochs", "2"]
    report = run(tmp_path, *flags, "--per_device_train_batch_size", "20")
    teacher, student, alone = trainers
    assert [len(one.train_dataset) for one in trainers] == [60, 100, 60]
    assert set(student.train_dataset["label"][60:]) == {-100}
    assert [one.state.global_step for one in trainers] == [6, 10, 10]
    assert [one.copies for one in trainers] == [0, 1 if augmentation else 0, 0]
    assert teacher.alpha == alone.alpha == 0
    assert report["rows"] == {"train": 60, "validation": 6, "test": 6, "unlabeled": 40}
    assert json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))["rows"] == report["rows"]
    shown = capsys.readouterr().out
    assert "60 train, 6 validation, 6 test, 40 unlabeled rows; of 40 unlabeled rows 0 were left out" in shown
    assert "training the student alone, on the labelled rows, for as many steps" in shown
    vocabulary = AutoTokenizer.from_pretrained(tmp_path / "run").get_vocab()
    assert {"第", "天"} <= vocabulary.keys()  # only unlabelled rows have them
    assert all(torch.isfinite(value).all() for value in student.model.state_dict().values())


def test_alpha_0_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ValueError, match="unlabeled_file was given with alpha=0"):
        run(tmp_path, *files(tmp_path), "--alpha", "0")
    assert not list(tmp_path.rglob("*.safetensors"))
