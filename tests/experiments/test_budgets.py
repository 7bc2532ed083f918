"""A budget in a recipe's settings: what contradicts it, and on which rows a cut is calibrated."""

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from recipe_runs import write
from transformers import DataCollatorWithPadding

from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.budgets import ROWS, Budget, check_budget, check_rounds
from hf_distill.experiments.denoisers import DenoiserArguments
from hf_distill.experiments.detectors import DetectorArguments
from hf_distill.experiments.drafts import DraftArguments
from hf_distill.experiments.models import ModelArguments
from hf_distill.experiments.settings import RecipeTrainingArguments
from hf_distill.experiments.vision_language import VisionLanguageArguments

whisper = recipe_module("distil_whisper")
sentences = recipe_module("sentence_embeddings")
quarter = {"student_parameters": 0.25}


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (ModelArguments, {"student_parameters": 0.0}, r"student_parameters=0\.0 was given: give a number above 0"),
        (ModelArguments, {"student_parameters": -1.0}, "give a number above 0"),
        (ModelArguments, {"student_parameters": float("nan")}, "give a number above 0"),
        (ModelArguments, {**quarter, "student_layers": 3}, "student_layers=3 were given, and a budget chooses"),
        (ModelArguments, {**quarter, "student_hidden_size": 64}, "student_hidden_size=64 were given"),
        (ModelArguments, {**quarter, "student_preset": "top"}, "student_preset=top were given"),
        (ModelArguments, {**quarter, "student_model_name_or_path": "me/s"}, "name_or_path=me/s were given"),
        (ModelArguments, {**quarter, "lora_rank": 4}, "an adapter is of no use without its base"),
        (ModelArguments, {"shrink_rounds": 3}, "shrink_rounds=3 was given without what to shrink"),
        (ModelArguments, {**quarter, "shrink_rounds": 0}, "shrink_rounds=0 was given: give 1"),
        (ModelArguments, {**quarter, "shrink_rounds": 2, "lora_rank": 4, "merge_lora": True}, "an adapter is not cut"),
        (DenoiserArguments, quarter, "of a denoiser only blocks are left out: give --student_layers"),
        (DetectorArguments, quarter, "student_parameters=0.25 was given, which this recipe does not do"),
        (DraftArguments, quarter, "student_parameters=0.25 was given, and a draft head is one new layer"),
        (VisionLanguageArguments, {**quarter, "student_vision_layers": 1}, "student_vision_layers=1 were given"),
        (VisionLanguageArguments, {**quarter, "student_from_teacher": True, "freeze_vision": True}, "freeze_vision"),
        (whisper.Arguments, {**quarter, "teacher_model_name_or_path": "me/w"}, "give --freeze_encoder 0"),
        (sentences.Arguments, {**quarter, "student_layers": 3}, "student_layers=3 were given, and a budget"),
    ],
)  # fmt: skip
def test_what_contradicts_a_budget_is_refused_in_a_sentence(kind, given, message):
    with pytest.raises(ValueError, match=message) as caught:
        kind(**given).check()
    assert "\n" not in str(caught.value)


def test_what_goes_with_a_budget_is_taken():
    ModelArguments(**quarter, student_from_teacher=True, shrink_rounds=3).check()
    ModelArguments(**quarter, lora_rank=4, merge_lora=True).check()
    ModelArguments(student_parameters=1e6).check()
    sentences.Arguments(**quarter).check()


def test_what_a_student_that_shrinks_is_not_trained_with(tmp_path, monkeypatch):
    recipe = ModelArguments(**quarter, shrink_rounds=2)

    def asked(**given):
        return RecipeTrainingArguments(str(tmp_path), bf16=False, **given)

    check_rounds(recipe, asked(resume_from_checkpoint="true"))
    with pytest.raises(ValueError, match=r"checkpoint-5 was given with shrink_rounds=2: give --resume_from"):
        check_rounds(recipe, asked(resume_from_checkpoint="out/checkpoint-5"))
    quantised = asked()
    quantised.student_quantization = "int8"
    with pytest.raises(ValueError, match=r"student_quantization='int8' were given.*quantise what came out"):
        check_rounds(recipe, quantised)
    for kind, variable in (("FSDP", "ACCELERATE_USE_FSDP"), ("DeepSpeed", "ACCELERATE_USE_DEEPSPEED")):
        with monkeypatch.context() as patched:
            plain = asked()
            patched.setenv(variable, "true")
            with pytest.raises(ValueError, match=f"shrink_rounds=2 was given under {kind}, .* use DDP, or one round"):
                check_rounds(recipe, plain)
            check_rounds(ModelArguments(**quarter), plain)


def rows(n):
    ids = [[5 + i % 20] * (2 + i % 5) for i in range(n)]
    return Dataset.from_dict({"text": ["x"] * n, "input_ids": ids, "label": [i % 3 for i in range(n)]})


def budget(folder, n, share=0.5, rounds=1, **args):
    asked = RecipeTrainingArguments(str(folder), bf16=False, use_cpu=True, per_device_train_batch_size=100, **args)
    return Budget(share, rounds, rows(n), DataCollatorWithPadding(tiny.tokenizer()), asked)


def test_the_first_rows_are_collated_without_labels_and_without_what_no_model_reads(tmp_path):
    asked, model = budget(tmp_path, ROWS + 50), tiny.bert()
    batches = asked.batches(model)
    assert [len(batch["input_ids"]) for batch in batches] == [100] * 5 + [12]
    assert all(batch.keys() == {"input_ids", "attention_mask"} for batch in batches)
    assert batches[0]["input_ids"][3].tolist() == [8] * 5 + [0]
    assert asked.batches(model) is batches


def test_a_collator_that_draws_draws_the_same(tmp_path):
    """Two processes, and a run that goes on, must cut alike."""
    found = []
    for _ in range(2):
        asked = budget(tmp_path, 8)
        asked.collator = lambda some: {
            "input_ids": torch.randint(np.random.randint(9, 99), (len(some), 4)),
            "labels": 0,
        }
        found += asked.batches(tiny.bert())
        torch.rand(3)
    assert torch.equal(found[0]["input_ids"], found[1]["input_ids"])
    assert "labels" not in found[0]


def test_the_student_is_cut_once_and_copied(tmp_path):
    asked, teacher = budget(tmp_path, 20, rounds=2), tiny.bert(32, 4)
    first = asked.student(teacher)
    with torch.no_grad():
        for parameter in teacher.parameters():  # as one that was cast, or moved
            parameter.zero_()
    again = asked.student(teacher)
    assert again is not first
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert first.num_parameters() <= 0.5 * teacher.num_parameters() < asked.first().num_parameters()
    assert asked.first().num_parameters() <= 0.5**0.5 * teacher.num_parameters()


def test_the_width_may_stay(tmp_path):
    plain, teacher = budget(tmp_path, 20), tiny.bert(32, 4)
    asked = Budget(plain.asked, plain.rounds, plain.rows, plain.collator, plain.args, same_width=True)
    student = asked.student(teacher)
    assert student.config.hidden_size == 32
    assert student.num_parameters() <= 0.5 * teacher.num_parameters()


def test_a_budget_that_no_student_meets_is_refused_before_a_teacher_is_trained(tmp_path):
    data = [{"text": f"某{i}人", "label": i % 2} for i in range(30)]
    flags = ["--train_file", write(tmp_path / "train.jsonl", data), "--output_dir", str(tmp_path / "run")]
    flags += ["--teacher_hidden_size", "64", "--num_threads", "1", "--bf16", "0", "--report_to", "none"]
    with pytest.raises(ValueError, match=r"at most [\d,]+ parameters was asked for, and the smallest"):
        recipe_module("bert_chinese").RECIPE.main([*flags, "--student_parameters", "0.01"])
    assert not list(tmp_path.rglob("*.safetensors"))


def test_recipes_without_rounds_have_one():
    check_budget(sentences.Arguments(**quarter))
    assert Budget.of(sentences.Arguments(**quarter), None, None, None).rounds == 1
    assert Budget.of(ModelArguments(), None, None, None) is None
