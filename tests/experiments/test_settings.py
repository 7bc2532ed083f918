"""What is refused before any row is read or model made: folders, checkpoints, sizes, languages."""

import subprocess
import sys

import pytest
from recipe_runs import rows, write
from transformers import BertConfig, BertForSequenceClassification, MarianConfig, TrainerState

from hf_distill import DistillationTrainingArguments, cli
from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.settings import RecipeTrainingArguments, arguments_for

text_classification = recipe_module("text_classification")
causal_lm = recipe_module("causal_lm")
sentence_embeddings = recipe_module("sentence_embeddings")
token_tagging = recipe_module("token_tagging")
translation = recipe_module("translation")

EVERY = [text_classification, causal_lm, token_tagging, translation]


@pytest.fixture(autouse=True)
def nothing_is_read(monkeypatch):
    """Reading rows is too late for any of these."""

    def read(*args, **kwargs):
        pytest.fail("rows were read")

    monkeypatch.setattr(text_classification, "load_text", read)
    monkeypatch.setattr(token_tagging, "load_tagged", read)
    monkeypatch.setattr(causal_lm, "load_texts_or_chats", read)
    monkeypatch.setattr(translation, "load_pairs", read)
    monkeypatch.setattr(sentence_embeddings, "embedded_teacher", read)


def refused(recipe, folder, *flags, message):
    with pytest.raises(ValueError, match=message) as caught:
        recipe.RECIPE.prepare(["--output_dir", str(folder), "--bf16", "0", *flags])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("recipe", [*EVERY, sentence_embeddings])
def test_an_output_dir_that_is_a_file(tmp_path, recipe):
    (tmp_path / "file").write_text("mine")
    refused(recipe, tmp_path / "file", message=r"output_dir=.*file was given, and .*file is a file: name a folder\.")
    refused(recipe, tmp_path / "file" / "run", message=r"output_dir=.*run was given, and .*file is a file: name a fol")
    assert (tmp_path / "file").read_text() == "mine"


def test_folders_of_commands_and_arguments_that_are_files(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    file = str(tmp_path / "file")
    with pytest.raises(ValueError, match=r"output_dir=.*file was given, and .*file is a file: name a folder"):
        DistillationTrainingArguments(file, use_cpu=True)
    asked = ["cache", "--teacher_model_name_or_path", "nowhere", "--dataset_name", "nothing", "--output_dir", file]
    for words in (asked, ["student", "--teacher", "nowhere", "--output", f"{file}/small", "--layers", "1"]):
        assert cli.main(words) == 1
        assert "is a file: name a folder." in capsys.readouterr().err
    refused(causal_lm, tmp_path, "--rows_dir", file, message="rows_dir=.*is a file: name a folder")


@pytest.mark.parametrize("recipe", EVERY)
def test_a_checkpoint_that_is_not_there(tmp_path, recipe):
    resume = "--resume_from_checkpoint"
    refused(recipe, tmp_path, resume, "nowhere", message="resume_from_checkpoint=nowhere was given, which is no whole")
    refused(recipe, tmp_path, resume, "true", message=r"No valid checkpoint found in output directory \(.*name")
    for step, state in ((1, "{}"), (2, "{")):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    torn = str(tmp_path / "checkpoint-2")
    refused(recipe, tmp_path, resume, torn, message="checkpoint-2 was given, .*: resume from .*checkpoint-1, or")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--student_layers", "0"], "student_layers=0 was given: give 1 or more"),
        (["--teacher_hidden_size", "0"], "teacher_hidden_size=0 was given: give 1 or more"),
        (["--teacher_layers", "-1"], "teacher_layers=-1 was given: give 1 or more"),
        (["--student_hidden_size", "0"], "student_hidden_size=0 was given: give 1 or more"),
        (["--num_threads", "-2"], "num_threads=-2 was given: give 1 or more"),
        (
            ["--teacher_hidden_size", "200"],
            "teacher_hidden_size=200 was given, which 3 heads do not divide: give a m",
        ),
        (["--student_hidden_size", "200"], "student_hidden_size=200 was given, which 3 heads do not divide"),
        (["--teacher_epochs", "0"], "teacher_epochs=0.0 was given: give more than 0"),
        (["--lora_rank", "-1"], "lora_rank=-1 was given: give 1 or more, or 0"),
        (
            ["--student_from_teacher", "--student_preset", "middle"],
            "student_preset=middle was given: use uniform, to",
        ),
        (
            ["--student_from_teacher", "--student_layers", "9"],
            r"student_layers=9 of the teacher's .*: ask for 1 to",
        ),
    ],
)
@pytest.mark.parametrize("recipe", EVERY)
def test_sizes_that_no_model_has(tmp_path, recipe, flags, message):
    refused(recipe, tmp_path, *flags, message=message)
    assert not list(tmp_path.iterdir())


def test_texts_are_cut_to_one_token_at_least(tmp_path):
    refused(text_classification, tmp_path, "--max_length", "0", message="max_length=0 was given: give 1 or more")
    refused(sentence_embeddings, tmp_path, "--max_length", "-5", message="max_length=-5 was given")
    refused(sentence_embeddings, tmp_path, "--student_layers", "0", message="student_layers=0 was given")
    refused(translation, tmp_path, "--max_target_length", "0", message="max_target_length=0 was given")


def test_layers_of_a_given_teacher_are_counted_before_it_is_fine_tuned(tmp_path):
    shape = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=3, num_attention_heads=1, intermediate_size=8)
    BertForSequenceClassification(shape).save_pretrained(tmp_path / "teacher")
    MarianConfig(encoder_layers=4, decoder_layers=2).save_pretrained(tmp_path / "writer")
    made = ["--student_from_teacher", "--finetune_teacher", "--student_layers", "4"]
    given = ["--teacher_model_name_or_path", str(tmp_path / "teacher")]
    refused(text_classification, tmp_path, *given, *made, message="student_layers=4 .* it has 3: ask for 1 to 3")
    given = ["--teacher_model_name_or_path", str(tmp_path / "writer"), *made, "--student_decoder_layers", "3"]
    refused(translation, tmp_path, *given, message="student_decoder_layers=3 .* it has 2: ask for 1 to 2")


def test_a_student_alone_reads_no_teacher(tmp_path):
    whole = RecipeTrainingArguments(str(tmp_path), reader="logits", reads_teacher={"told": "logits"}, bf16=False)
    alone = arguments_for(whole, "_alone")
    assert (alone.reader, alone.reads_teacher, alone.alpha) == (None, None, 0.0)
    assert alone.output_dir == str(tmp_path / "_alone")


@pytest.mark.parametrize(("steps", "logged", "evaluated"), [(6, 1, 1), (22, 1, 3), (150, 4, 15), (4000, 100, 400)])
def test_of_few_steps_each_is_logged_and_of_many_as_many(tmp_path, steps, logged, evaluated):
    args = RecipeTrainingArguments(str(tmp_path), eval_strategy="steps", bf16=False)
    state = TrainerState()
    state.compute_steps(args, steps)
    assert (state.logging_steps, state.eval_steps) == (logged, evaluated)


def test_what_a_user_says_of_logs_and_evaluations_counts(tmp_path):
    args = RecipeTrainingArguments(str(tmp_path), logging_steps=7, eval_strategy="steps", eval_steps=9, bf16=False)
    assert (args.logging_steps, args.eval_steps) == (7, 9)
    best = {"eval_strategy": "steps", "save_strategy": "steps", "save_steps": 50, "load_best_model_at_end": True}
    assert RecipeTrainingArguments(str(tmp_path), **best, bf16=False).eval_steps == 50  # wherever one is kept
    assert arguments_for(args, "_alone").eval_steps == 9


@pytest.mark.parametrize("recipe", [causal_lm, translation])
def test_a_language_is_a_code(tmp_path, recipe):
    refused(recipe, tmp_path, "--language", "Chinese", message=r"no code of ISO 639: did you mean zh \(Chinese\)")


@pytest.mark.slow
def test_a_teacher_that_is_not_there_is_one_sentence_of_the_script(tmp_path):
    path = write(tmp_path / "rows.jsonl", rows(20))
    flags = ["--train_file", path, "--teacher_model_name_or_path", str(tmp_path / "nowhere"), "--output_dir", "out"]
    shown = subprocess.run(
        [sys.executable, text_classification.__file__, *flags],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 1
    assert "Traceback" not in shown.stderr
    assert shown.stderr.splitlines()[-1].startswith("error: ")
