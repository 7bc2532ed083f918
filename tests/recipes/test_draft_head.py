"""The recipe of draft heads as users start it: no argument, texts and chats of files, a teacher by path, bad input."""

import json
from pathlib import Path

import pytest
import tiny_drafts
import tiny_language
import torch
from huggingface_hub import ModelCard
from recipe_runs import texts, write
from transformers import AutoModelForCausalLM

from hf_distill import DraftHead, speculate
from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.parsing import parse_arguments

draft_head = recipe_module("draft_head")

FLAGS = [
    "--max_steps", "2", "--num_threads", "1", "--report_to", "none", "--disable_tqdm", "1", "--bf16", "0",
    "--teacher_layers", "3", "--teacher_hidden_size", "64", "--per_device_train_batch_size", "8", "--prompts", "2",
    "--prompt_tokens", "3", "--new_tokens", "8",
]  # fmt: skip


def run(folder, *flags):
    return draft_head.RECIPE.main(["--output_dir", str(folder / "run"), *FLAGS, *flags])


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drafts")
    return folder / "run", run(folder, "--max_train_samples", "80", "--max_eval_samples", "20", "--max_length", "24")


def test_the_whole_job_on_python_documentation(default):
    folder, report = default
    teacher, plain, head = report["models"]
    assert [one["name"] for one in report["models"]] == ["teacher", "plain draft", "distilled"]
    assert teacher["kl"] == 0
    assert plain["kl"] > 0
    assert {"kl_2", "kl_3", "agreement_2", "agreement_3"} <= head.keys()
    assert (head["identical"], head["texts"]) == (2, 2)
    assert 0 <= head["accepted"] <= 3
    assert head["speedup"] > 0
    assert {"accepted", "steps"} <= plain.keys()
    for part in ("accepted of 3", "times as fast", "2 of 2", "KL to the teacher"):
        assert part in report["table"], part
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["models"] == report["models"]


def test_the_head_is_loaded_and_writes_its_teachers_text(default):
    folder, _ = default
    head = DraftHead.from_pretrained(folder)
    teacher = AutoModelForCausalLM.from_pretrained(next(folder.glob("_teacher-*"))).eval()
    assert torch.equal(head.lm_head.weight, teacher.lm_head.weight)
    ids = torch.tensor([[5, 6, 7]])
    own = teacher.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=10)
    assert torch.equal(speculate(teacher, head, ids, 10).ids, own)


def test_the_card(default):
    card = ModelCard.load(default[0] / "README.md")
    for part in (
        "| distilled", "plain draft", "DraftHead.from_pretrained(", "speculate(teacher, draft, ids)",
        "It reads what enters layers 1, 2 and 2 of `LlamaForCausalLM`", '"Distilled" is the draft head.',
    ):  # fmt: skip
        assert part in card.text, part
    assert "pipeline(" not in card.text
    assert {one.metric_type for one in card.data.eval_results} == {"kl_divergence", "agreement"}


def test_the_figures_are_those_of_each_row_by_itself(default):
    folder, report = default
    flags = ["--max_train_samples", "80", "--max_eval_samples", "20", "--max_length", "24"]
    job = draft_head.RECIPE.prepare(["--output_dir", str(folder.parent / "other"), *FLAGS, *flags])
    teacher = AutoModelForCausalLM.from_pretrained(next(folder.glob("_teacher-*"))).eval()
    head, totals = DraftHead.from_pretrained(folder).eval(), torch.zeros(3, 3)
    for row in job.splits["test"]:
        ids = torch.tensor([row["input_ids"]])
        with torch.no_grad():
            taught = teacher(ids).logits[0].log_softmax(-1)
            shown = head(ids, *tiny_drafts.states(teacher, head, ids))
        for number, logits in enumerate((shown.logits, *shown.further_logits)):
            some = slice(1 + number, ids.shape[1] - 1)
            ours, theirs = logits[0, some].log_softmax(-1), taught[some]
            kl = (theirs.exp() * (theirs - ours)).sum()
            totals[number] += torch.stack((kl, (ours.argmax(-1) == theirs.argmax(-1)).sum(), torch.tensor(len(ours))))
    for key, figures in zip(("", "_2", "_3"), totals.tolist(), strict=True):
        assert report["models"][2][f"kl{key}"] == pytest.approx(figures[0] / figures[2], rel=1e-3)
        assert report["models"][2][f"agreement{key}"] == pytest.approx(figures[1] / figures[2], rel=1e-3)


@pytest.mark.slow
def test_conversations_and_a_teacher_by_path_that_knows_its_end(tmp_path):
    tiny_drafts.teacher("qwen3").save_pretrained(tmp_path / "teacher")
    tiny_language.tokenizer().save_pretrained(tmp_path / "teacher")
    rows = write(tmp_path / "chats.jsonl", tiny_language.chats(40))
    given = ["--teacher_model_name_or_path", str(tmp_path / "teacher"), "--train_file", rows, "--unrolled", "2"]
    report = run(tmp_path, *given, "--skip_alone")
    assert [one["name"] for one in report["models"]] == ["teacher", "distilled"]
    assert report["models"][1]["identical"] == 2
    assert "kl_3" not in report["models"][1]
    assert DraftHead.from_pretrained(tmp_path / "run").config.unrolled == 2


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--lora_rank", "4"], "lora_rank=4 was given, and a draft head is one new layer made of its teacher"),
        (["--student_model_name_or_path", "me/it"], "student_model_name_or_path=me/it was given, and a draft head"),
        (["--unrolled", "0"], "unrolled=0 was given: give 1 or more"),
        (["--teacher_hidden_size", "200"], "teacher_hidden_size=200 was given, which 3 heads do not divide"),
        (["--train_file", "nowhere.jsonl"], "nowhere.jsonl, there is no such file"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_sentence(tmp_path, flags, told):
    with pytest.raises(ValueError, match=told) as caught:
        run(tmp_path, *flags)
    assert "\n" not in str(caught.value)


def test_own_texts_without_a_text_to_write(tmp_path):
    report = run(tmp_path, "--train_file", write(tmp_path / "t.jsonl", texts(40)), "--prompts", "0", "--skip_alone")
    assert "accepted" not in report["table"]


def test_the_full_size_settings(tmp_path):
    path = str(Path(draft_head.__file__).with_suffix(".yaml"))
    types = [draft_head.Arguments, draft_head.TrainingArguments]
    recipe, args = parse_arguments(types, [path, "--bf16", "0", "--output_dir", str(tmp_path)])
    assert (recipe.teacher_model_name_or_path, recipe.unrolled) == ("Qwen/Qwen3-8B", 3)
    assert (args.alpha, args.temperature, args.teacher_dtype) == (1.0, 1.0, "bfloat16")
