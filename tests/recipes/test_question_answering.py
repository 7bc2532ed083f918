"""The recipe for answers in a text: the newspaper, SQuAD's form, windows and their joining, answers that moved."""

from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from recipe_runs import CONTEXT, QUIET, SMALL, question, squad, write
from transformers import AutoModelForQuestionAnswering

from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments import comparison
from hf_distill.experiments.data import questions
from hf_distill.experiments.parsing import parse_arguments
from hf_distill.experiments.question_answering import AnswerScoring
from hf_distill.experiments.tokenizers import character_tokenizer

question_answering = recipe_module("question_answering")

FLAGS = ["--max_steps", "2", "--num_threads", "1", "--report_to", "none", *SMALL, *QUIET]


def run(folder, *flags):
    return question_answering.RECIPE.main(["--output_dir", str(folder / "run"), *FLAGS, *flags])


@pytest.fixture(scope="module")
def newspaper():
    """All questions on the embedded newspaper, read once."""
    return questions.newspaper_questions()


def test_the_whole_job_on_the_newspaper(tmp_path, newspaper, monkeypatch):
    monkeypatch.setattr(questions, "newspaper_questions", lambda: newspaper)
    report = run(tmp_path, "--max_train_samples", "100", "--max_eval_samples", "20")
    assert [row["name"] for row in report["models"]] == ["teacher", "student alone", "distilled"]
    assert report["questions"] == report["rows"] == {"train": 100, "validation": 20, "test": 20}
    assert report["answers"] == ""
    assert {"f1", "f1_error", "exact_match", "agreement"} <= report["models"][2].keys()
    assert report["models"][0]["agreement"] == 1.0
    gain = report["models"][2]["f1"] - report["models"][1]["f1"]
    assert report["gap"]["gain"] == pytest.approx(gain)
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert card.data.pipeline_tag == "question-answering"
    assert {r.metric_type for r in card.data.eval_results} == {"f1", "exact_match"}


def test_squads_form_long_texts_and_answers_that_moved(tmp_path):
    data = [question(), question(start=0), question("火星"), *[question()] * 20]
    train, test = write(tmp_path / "train.json", squad(data)), write(tmp_path / "test.jsonl", data[:3])
    flags = ["--train_file", train, "--test_file", test, "--validation_file", test]
    report = run(tmp_path, *flags, "--max_length", "64", "--stride", "16", "--skip_alone")
    assert report["questions"] == {"train": 22, "validation": 3, "test": 3}
    assert report["rows"]["test"] == 6  # two windows each
    assert (
        "train: 1 answers stand elsewhere than the file says and were found again, 1 stand nowhere and are left out"
        in (report["answers"])
    )
    assert (
        "test: 1 answers stand elsewhere than the file says and were found again, 1 stand nowhere and are only"
        in (report["answers"])
    )
    assert "train: 22 of 22 texts are longer than a window; " in report["answers"]
    assert report["answers"].endswith("test: 3 of 3 texts are longer than a window")
    AutoModelForQuestionAnswering.from_pretrained(tmp_path / "run")
    assert (report["split"], report["measured_on"], report["dataset"]) == ("test", "test.jsonl", "train.json")
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert "On the test rows of test.jsonl (3 questions in 6 windows):" in card
    assert "one standard error over the test\nquestions of one run" in card
    (dataset,) = {result.dataset_name for result in ModelCard.load(tmp_path / "run" / "README.md").data.eval_results}
    assert dataset == "test.jsonl"


@pytest.mark.parametrize(("given", "named"), [(["train"], "train.json"), (["train", "validation"], "validation.json")])
def test_without_a_test_file_validation_rows_are_called_so(tmp_path, capsys, monkeypatch, given, named):
    files = (f"--{name}_file={write(tmp_path / f'{name}.json', squad([question()] * 20))}" for name in given)
    labels = []
    monkeypatch.setattr(comparison, "plot_comparison", lambda *parts, floor: labels.append(parts[-1]))
    report = run(tmp_path, *files, "--skip_alone", "--max_length", "96")
    assert (report["split"], report["measured_on"]) == ("validation", named)
    card = ModelCard.load(tmp_path / "run" / "README.md")
    counted = 1 if given == ["train"] else 20  # a twentieth of the training rows is cut off
    assert f"On the validation rows of {named} ({counted} questions in" in card.text
    assert {result.dataset_split for result in card.data.eval_results} == {"validation"}
    assert labels == ["validation F1 of answers"]
    assert " test rows" not in capsys.readouterr().out


def test_answers_stay_in_their_place_where_a_tokenizer_pads_on_the_left(tmp_path, monkeypatch):
    def pads_on_the_left(texts):
        tokenizer = character_tokenizer(texts)
        tokenizer.padding_side = "left"
        return tokenizer

    monkeypatch.setattr(question_answering, "character_tokenizer", pads_on_the_left)
    short = {"question": "何时？", "context": "日本。", "answers": {"text": ["日本"], "answer_start": [0]}}
    file = write(tmp_path / "rows.jsonl", [question(), short])
    names = [flag for name in ("train", "test", "validation") for flag in (f"--{name}_file", file)]
    job = question_answering.RECIPE.prepare(
        ["--output_dir", str(tmp_path / "run"), *FLAGS, *names, "--max_length", "96"]
    )
    batch = job.options["data_collator"](list(job.splits["test"]))
    assert not batch["attention_mask"].all()
    spans = zip(batch["input_ids"], batch["start_positions"], batch["end_positions"], strict=True)
    assert ["".join(job.tokenizer.convert_ids_to_tokens(row[a : b + 1])) for row, a, b in spans] == ["日本", "日本"]


def test_bad_input_is_refused_in_a_sentence(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"question": "a", "text": "b"}] * 30)
    with pytest.raises(ValueError, match=r"\['context', 'answers'\] was not among them: give SQuAD's form"):
        run(tmp_path, "--train_file", path)
    path = write(tmp_path / "none.json", squad([question("火星")] * 30))
    with pytest.raises(ValueError, match=r"no answer of the train rows of none\.json stands in its text"):
        run(tmp_path, "--train_file", path)
    path = write(tmp_path / "good.json", squad([question()] * 30))
    with pytest.raises(ValueError, match="max_length=32 leaves 23 tokens of the text beside the longest question"):
        run(tmp_path, "--train_file", path, "--max_length", "32", "--stride", "30")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_full_size_settings_are_valid(tmp_path):
    path = str(Path(question_answering.__file__).with_suffix(".yaml"))
    types = [question_answering.Arguments, question_answering.TrainingArguments]
    recipe, args = parse_arguments(types, [path, "--bf16", "0", "--output_dir", str(tmp_path)])
    assert (recipe.max_length, recipe.stride, recipe.student_layers, args.alpha) == (384, 128, 4, 0.9)


@pytest.mark.slow
def test_windows_are_joined_in_their_order_whatever_the_sampler(tmp_path, monkeypatch):
    rows = [question(), *({**question(), "context": CONTEXT[: 20 + 7 * i], "question": "谁？"} for i in range(1, 9))]
    path, heard = write(tmp_path / "rows.jsonl", rows), []
    flags = ["--train_file", path, "--test_file", path, "--max_length", "40", "--stride", "8", "--skip_alone"]
    plain = AnswerScoring.measurement
    monkeypatch.setattr(
        AnswerScoring, "measurement", lambda self, *found: (heard.append(found[0]), plain(self, *found))[1]
    )
    run(tmp_path / "plain", *flags)
    teacher = str(next((tmp_path / "plain" / "run").glob("_teacher-*")))
    flags += ["--teacher_model_name_or_path", teacher, "--train_sampling_strategy", "group_by_length"]
    run(tmp_path / "grouped", *flags)
    for one, other in zip(heard[0], heard[2], strict=True):  # the teacher's logits, window by window
        np.testing.assert_allclose(one, other, atol=1e-4)
