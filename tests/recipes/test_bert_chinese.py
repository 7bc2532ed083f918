"""The recipe as users start it: no argument, their own files, LoRA, YAML, the Hub's rules, bad input."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_server import environment, hub, reached
from huggingface_hub import ModelCard
from peft import AutoPeftModelForSequenceClassification
from recipe_runs import QUIET, SHORT, SMALL, rows, write
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.models import ModelArguments, blank_bert
from hf_distill.experiments.parsing import parse_arguments
from hf_distill.experiments.tokenizers import character_tokenizer
from hf_distill.hub.push import PushError

bert_chinese = recipe_module("bert_chinese")


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """One run on the embedded words, through the real command."""
    folder = tmp_path_factory.mktemp("default")
    script = Path(bert_chinese.__file__)
    flags = [*SHORT, *SMALL, *QUIET, "--num_threads", "1"]  # two threads collapse beside another worker
    shown = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", str(script), *flags],
        cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr[-3000:]
    return folder, shown.stdout


def test_the_whole_job_without_any_argument(default):
    folder, shown = default
    run = folder / "outputs" / "bert_chinese" / "run-1"
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in report["models"]] == ["teacher", "student alone", "distilled"]
    assert report["rows"] == {"train": 400, "validation": 100, "test": 100}
    figures = {"accuracy", "macro_f1", "agreement", "parameters", "megabytes", "samples_per_second"}
    assert all(figures <= row.keys() for row in report["models"])
    assert report["models"][0]["agreement"] == 1.0
    assert report["settings"]["objective"] == {"forward_kl": 1.0, "hidden_mse": 1.0}  # what "auto" was
    assert (run / "report.png").stat().st_size > 10_000
    lines = [line for line in shown.splitlines() if line.startswith("|")]
    assert len(lines) == 6  # with the floor
    assert len({len(line) for line in lines}) == 1  # the table lines up
    assert "gap to the teacher" in shown
    student = AutoModelForSequenceClassification.from_pretrained(run)
    assert student.config.id2label[1] == "person"
    assert list((folder / "outputs" / "bert_chinese").glob("_teacher-*/trained_with.json"))


def test_the_card(default):
    run = default[0] / "outputs" / "bert_chinese" / "run-1"
    card = ModelCard.load(run / "README.md")
    assert (card.data.language, card.data.model_name) == ("zh", "bert_chinese")
    assert {"knowledge-distillation", "hf_distill"} <= set(card.data.tags)
    assert card.data.pipeline_tag == "text-classification"
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    results = {r.metric_type: r.metric_value for r in card.data.eval_results}
    assert results["accuracy"] == round(report["models"][2]["accuracy"], 4)
    text = (run / "README.md").read_text(encoding="utf-8")
    assert text.count("\n---\n") == 1
    for part in ("| distilled", "report.png", "forward_kl", "arXiv:1503.02531", "learning_rate", "alpha = 0.9"):
        assert part in text, part
    assert str(default[0]) not in text  # nothing of the machine
    assert "Teacher: `BertForSequenceClassification`, 1 layer of width 64" in text
    assert card.data.base_model is None  # the student was made from nothing
    assert "{" not in text.split("---", 2)[2].replace("{:,}", "")


def test_the_embedded_words_take_one_thread_and_others_what_there_is():
    for asked, threads in (({}, 1), ({"num_threads": 3}, 3), ({"train_file": "rows.csv"}, None)):
        recipe = bert_chinese.RECIPE.arguments(**asked)
        recipe.check()
        assert recipe.num_threads == threads


@pytest.mark.parametrize(
    ("flags", "students", "teachers"),
    [
        ([], 20.0, 20.0),
        (["--num_train_epochs", "3", "--teacher_epochs", "1.5"], 3.0, 1.5),
        (["--student_from_teacher"], 2.0, 20.0),
    ],
)
def test_few_rows_are_read_more_often_by_what_is_new(tmp_path, flags, students, teachers):
    file = write(tmp_path / "rows.jsonl", rows(60))
    job = bert_chinese.RECIPE.prepare(["--train_file", file, "--output_dir", str(tmp_path / "run"), *SMALL, *flags])
    assert (job.args.num_train_epochs, job.recipe.teacher_epochs) == (students, teachers)
    assert not {"num_train_epochs", "teacher_epochs"} & job.made_by["arguments"].keys() or flags


@pytest.mark.slow
def test_a_second_run_keeps_the_teacher_and_the_first_run(default, monkeypatch, capsys):
    monkeypatch.chdir(default[0])
    first = (default[0] / "outputs/bert_chinese/run-1/model.safetensors").read_bytes()
    teachers = sorted(Path("outputs/bert_chinese").glob("_teacher-*"))
    bert_chinese.RECIPE.main([*SHORT, *SMALL, *QUIET, "--skip_alone", "--num_threads", "1"])
    assert "using the teacher kept at" in capsys.readouterr().out
    assert "_teacher-" not in Path("outputs/bert_chinese/run-2/README.md").read_text(encoding="utf-8")
    assert sorted(Path("outputs/bert_chinese").glob("_teacher-*")) == teachers
    assert Path("outputs/bert_chinese/run-2/model.safetensors").exists()
    assert Path("outputs/bert_chinese/run-1/model.safetensors").read_bytes() == first


def run(folder, *flags):
    fixed = ["--output_dir", str(folder / "run"), "--max_steps", "2", "--num_threads", "1"]
    return bert_chinese.RECIPE.main([*fixed, *SMALL, *QUIET, *flags])


@pytest.mark.slow
def test_own_files_with_pairs_numbers_and_other_columns(tmp_path):
    data = [{"question": r["text"], "answer": r["text"][::-1], "y": i % 3} for i, r in enumerate(rows(30))]
    files = [f"--{name}_file={write(tmp_path / f'{name}.jsonl', data)}" for name in ("train", "validation", "test")]
    columns = ["--text_column", "question", "--text_pair_column", "answer", "--label_column", "y"]
    report = run(tmp_path, *files, *columns)
    assert report["dataset"] == "train.jsonl"
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "run").config.num_labels == 3
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^print\(model\((.*)\)\)$", card, re.MULTILINE)
    found = pipeline("text-classification", model=str(tmp_path / "run"))(ast.literal_eval(example))
    assert example.startswith('{"text": ')
    assert found["label"].startswith("LABEL_")


@pytest.fixture
def teacher(tmp_path):
    """A finished teacher for the two classes of ``rows``, and its training file."""
    path = write(tmp_path / "train.jsonl", rows(60))
    tokenizer = character_tokenizer([row["text"] for row in rows(60)])
    tokenizer.save_pretrained(tmp_path / "teacher")
    config = blank_bert(ModelArguments(teacher_layers=3, teacher_hidden_size=64), tokenizer)
    config.id2label, config.label2id = {0: "差", 1: "好"}, {"差": 0, "好": 1}  # not as the names sort
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "teacher")
    return str(tmp_path / "teacher"), path


def test_a_teacher_by_path_and_a_student_of_its_layers(tmp_path, teacher):
    report = run(
        tmp_path, "--teacher_model_name_or_path", teacher[0], "--train_file", teacher[1], "--student_from_teacher",
        "--student_layers", "2", "--student_preset", "top",
    )  # fmt: skip
    student = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    assert student.config.num_hidden_layers == 2
    assert student.config.id2label == {0: "差", 1: "好"}  # numbered as the teacher numbers them
    assert report["models"][0]["parameters"] > report["models"][2]["parameters"]
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert "- How it was made: Layers 1 and 2 of `teacher` were kept." in card
    assert "- Teacher: `teacher`" in card


@pytest.mark.parametrize("finetune", [[], ["--finetune_teacher"]])
def test_a_student_with_other_tokens_is_refused_before_anything_is_trained(tmp_path, teacher, finetune):
    other = character_tokenizer(["另外的字符", "另外的字符"])
    other.save_pretrained(tmp_path / "student")
    config = blank_bert(ModelArguments(teacher_layers=1, teacher_hidden_size=64), other)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "student")
    models = ["--teacher_model_name_or_path", teacher[0], "--student_model_name_or_path", str(tmp_path / "student")]
    with pytest.raises(ValueError, match="read the same token ids, but their tokenizers differ"):
        run(tmp_path, *models, "--train_file", teacher[1], *finetune)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_given_student_brings_its_own_tokens_to_a_teacher_trained_here(tmp_path, teacher):
    run(tmp_path, "--student_model_name_or_path", teacher[0], "--train_file", teacher[1], "--skip_alone")
    student, ours = (AutoTokenizer.from_pretrained(path) for path in (tmp_path / "run", teacher[0]))
    assert student.get_vocab() == ours.get_vocab()


@pytest.mark.slow
def test_a_given_teacher_can_be_fine_tuned_first(tmp_path, teacher):
    run(tmp_path, "--teacher_model_name_or_path", teacher[0], "--finetune_teacher", "--train_file", teacher[1])
    (kept,) = (tmp_path / "run").glob("_teacher-*")
    before, after = load_file(f"{teacher[0]}/model.safetensors"), load_file(kept / "model.safetensors")
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_both_students_learn_to_be_quantised_and_the_teacher_trained_here_does_not(tmp_path):
    pytest.importorskip("torchao")
    flags = ["--student_quantization", "int8", "--output_dir", str(tmp_path), *SHORT, *SMALL, *QUIET]
    report = bert_chinese.RECIPE.main([*flags, "--num_threads", "1"])
    (teacher,) = tmp_path.glob("_teacher-*")
    assert {path.parent.name for path in tmp_path.glob("**/quantized")} == {tmp_path.name, "_alone"}
    assert not (teacher / "quantized").exists()
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, subfolder="quantized")
    assert loaded.config.quantization_config is not None
    assert report["recipe"]["arguments"]["student_quantization"] == "int8"


@pytest.mark.slow
def test_lora_saves_an_adapter_and_merging_writes_full_weights(tmp_path, teacher):
    flags = [
        "--teacher_model_name_or_path",
        teacher[0],
        "--train_file",
        teacher[1],
        "--lora_rank",
        "4",
        "--skip_alone",
    ]
    base = ["--student_model_name_or_path", teacher[0]]
    run(tmp_path / "adapter", *flags, *base)
    folder = tmp_path / "adapter" / "run"
    assert not (folder / "model.safetensors").exists()
    AutoPeftModelForSequenceClassification.from_pretrained(folder)
    run(tmp_path / "merged", *flags, *base, "--merge_lora")
    assert not (tmp_path / "merged" / "run" / "adapter_model.safetensors").exists()
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged" / "run")
    with pytest.raises(ValueError, match=r"lora_rank was given for a student that is made here.*--merge_lora"):
        run(tmp_path / "refused", *flags)


@pytest.mark.slow
def test_a_finished_run_is_refused_and_can_be_resumed(tmp_path, teacher):
    flags = ["--teacher_model_name_or_path", teacher[0], "--train_file", teacher[1], "--skip_alone"]
    run(tmp_path, *flags, "--save_strategy", "steps", "--save_steps", "1", "--save_total_limit", "5")
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="already holds a finished run"):
        run(tmp_path, *flags)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before
    run(tmp_path, *flags, "--resume_from_checkpoint", str(tmp_path / "run" / "checkpoint-1"))
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before  # bit for bit the same two steps
    run(tmp_path, *flags, "--resume_from_checkpoint", "true")


@pytest.mark.parametrize(
    ("name", "teacher"),
    [("bert_chinese", "google-bert/bert-base-chinese"), ("text_classification", "google-bert/bert-base-uncased")],
)
def test_the_full_size_settings_are_valid_and_flags_override_them(tmp_path, name, teacher):
    script = recipe_module(name)
    path = str(Path(script.__file__).with_suffix(".yaml"))
    types = [script.RECIPE.arguments, script.RECIPE.training_arguments]
    flags = ["--bf16", "0", "--output_dir", str(tmp_path), "--num_train_epochs", "1"]
    recipe, args = parse_arguments(types, [path, *flags])
    assert (recipe.recipe, recipe.teacher_model_name_or_path) == (name, teacher)
    assert (recipe.student_from_teacher, recipe.student_layers, args.push_to_hub) == (True, 4, True)
    assert args.num_train_epochs == 1


def test_the_language_of_a_users_rows_is_not_invented(tmp_path):
    given = ["--train_file", write(tmp_path / "rows.jsonl", rows(40)), "--output_dir", str(tmp_path / "run")]
    assert bert_chinese.RECIPE.prepare([*given, *SHORT, *SMALL, "--num_threads", "1"]).language is None


BAD = {
    "a missing file": (["--train_file", "nowhere.jsonl"], "nowhere.jsonl, there is no such file"),
    "an unknown kind": (["--train_file", "{folder}/rows.xlsx"], "is not .json, .jsonl, .csv, .parquet"),
    "an empty file": (["--train_file", "{folder}/empty.jsonl"], "(has no rows|could not be read as json)"),
    "an unreadable file": (["--train_file", "{folder}/torn.jsonl"], "torn.jsonl could not be read as json"),
    "a missing column": (
        ["--train_file", "{folder}/good.jsonl", "--text_column", "title"],
        r"have the columns \['text', 'label'\], \['title'\] was asked for: name them with --text_column",
    ),
    "a strange label": (
        ["--train_file", "{folder}/good.jsonl", "--test_file", "{folder}/strange.jsonl"],
        "row 2 of the test rows has label 怪, the training rows have 好, 差: correct",
    ),
    "a label out of range": (
        ["--train_file", "{folder}/numbers.jsonl", "--test_file", "{folder}/more.jsonl"],
        "row 1 of the test rows has label 7, the training rows have LABEL_0, LABEL_1",
    ),
    "labels that are missing": (
        ["--train_file", "{folder}/gaps.jsonl"],
        "a training row has the label None: give each row one class, as a name or a whole number",
    ),
    "labels that are fractions": (
        ["--train_file", "{folder}/floats.jsonl"],
        "a training row has the label 0.5: give each row one class",
    ),
    "no rows to measure": (
        ["--train_file", "{folder}/good.jsonl", "--max_eval_samples", "0"],
        "max_eval_samples=0 was given: give 1 or more",
    ),
    "no training file": (["--test_file", "{folder}/good.jsonl"], "was given without train_file"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_in_a_sentence_before_anything_is_trained(tmp_path, what):
    write(tmp_path / "good.jsonl", rows(20))
    write(tmp_path / "strange.jsonl", [*rows(2), {"text": "x", "label": "怪"}])
    write(tmp_path / "numbers.jsonl", [{"text": "a", "label": i % 2} for i in range(20)])
    write(tmp_path / "more.jsonl", [{"text": "a", "label": 0}, {"text": "a", "label": 7}])
    write(tmp_path / "gaps.jsonl", [{"text": "a", "label": ["x", None][i % 2]} for i in range(20)])
    write(tmp_path / "floats.jsonl", [{"text": "a", "label": 0.5}] * 20)
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "torn.jsonl").write_text('{"text": "a", "label"')
    (tmp_path / "rows.xlsx").write_text("x")
    flags, message = BAD[what]
    with pytest.raises(ValueError, match=message) as caught:
        run(tmp_path, *(flag.format(folder=tmp_path) for flag in flags))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.slow
def test_the_command_ends_with_one_sentence_on_error(tmp_path):
    shown = subprocess.run(
        [sys.executable, bert_chinese.__file__, "--train_file", "nowhere.jsonl", "--output_dir", str(tmp_path / "x")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert shown.returncode == 1
    assert (
        shown.stderr.splitlines()[-1]
        == "error: rows were asked from nowhere.jsonl, there is no such file: check the path."
    )
    assert "Traceback" not in shown.stderr


def test_a_repository_that_cannot_be_made_is_known_before_the_teacher_is_trained(tmp_path, monkeypatch):
    flags = ["--push_to_hub", "1", "--hub_model_id", "other/student", *SHORT, *SMALL, *QUIET]
    with hub() as server, reached(server, monkeypatch, tmp_path / "cache"):
        with pytest.raises(PushError, match=r"pushed to other/student.*403: You don't have the rights"):
            bert_chinese.RECIPE.main(["--output_dir", str(tmp_path / "run"), "--num_threads", "1", *flags])
    assert not list((tmp_path / "run").glob("_teacher-*"))


@pytest.mark.slow
def test_the_student_is_pushed_and_loads_from_the_hub_in_another_process(tmp_path):
    folder = tmp_path / "run"
    flags = ["--output_dir", str(folder), "--push_to_hub", "1", "--hub_model_id", "me/student", *SHORT, *SMALL, *QUIET]
    load = (
        "import torch; from transformers import AutoModelForSequenceClassification as M, AutoTokenizer as T\n"
        "m, t = M.from_pretrained('me/student').eval(), T.from_pretrained('me/student')\n"
        "print(m(**t(['中国人民'], return_tensors='pt')).logits.tolist())"
    )
    with hub() as server:
        pushing = {**os.environ, **environment(server, tmp_path / "pushing")}
        pushed = subprocess.run(
            [sys.executable, bert_chinese.__file__, *flags], env=pushing, capture_output=True, text=True, check=False
        )
        assert pushed.returncode == 0, pushed.stderr[-3000:]
        loading = {**os.environ, **environment(server, tmp_path / "loading")}
        shown = subprocess.run([sys.executable, "-c", load], env=loading, capture_output=True, text=True, check=False)
        assert shown.returncode == 0, shown.stderr[-3000:]
        files = server.repositories["me/student"]
    expected = {"README.md", "config.json", "model.safetensors", "report.json", "report.png", "tokenizer.json"}
    expected |= {"reliability.png", "classes.png", "losses.png"}
    assert expected <= files.keys()
    assert files.keys() - expected <= {"tokenizer_config.json", "training_args.bin", ".gitattributes"}
    assert (folder / "_report.html").is_file()  # it shows test rows, and stays
    assert files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert b"Did the teacher help?" in files["README.md"]
    assert b'from_pretrained("me/student")' in files["README.md"]
    local = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(["中国人民"], return_tensors="pt")
    assert json.loads(shown.stdout) == local(**tokens).logits.tolist()
