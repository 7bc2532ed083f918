"""Rows as users have them: cells that look like nothing, texts that are missing, numbers where a text is due."""

import pytest
from datasets import Dataset, DatasetDict
from recipe_runs import QUIET, SMALL, rows, write

from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.data import classification, images, questions, tagging
from hf_distill.experiments.data.files import limited
from hf_distill.experiments.data.pairs import load_pairs
from hf_distill.experiments.settings import RecipeTrainingArguments, begin
from hf_distill.experiments.tokenizers import character_tokenizer

bert_chinese = recipe_module("bert_chinese")
causal_lm = recipe_module("causal_lm")
sentence_embeddings = recipe_module("sentence_embeddings")
translation = recipe_module("translation")

FLAGS = ["--max_steps", "2", "--num_threads", "1", "--report_to", "none", *SMALL, *QUIET]
LOOKS = ["NA", "null", "None", "123", "1.50"]


def looks(n):
    return [{"text": LOOKS[i % 5], "label": "ab"[i % 2]} for i in range(n)]


def test_a_csv_of_texts_that_look_like_nothing_trains(tmp_path, capsys):
    data = looks(60)
    data[7] = data[9] = {"text": "", "label": "a"}
    flags = ["--train_file", write(tmp_path / "rows.csv", data), "--skip_alone", "--text_pair_column", "text"]
    splits = classification.load_text(classification.TextDataArguments(train_file=flags[1]), 0)
    assert set(splits["train"]["text"]) == set(LOOKS)
    job = bert_chinese.RECIPE.prepare(["--output_dir", str(tmp_path / "run"), *FLAGS, *flags[:3]])
    assert len(job.splits["train"]) + len(job.splits["validation"]) == 58
    said = "2 of 60 train rows have no text and are left out (the first is row 7)"
    assert said in capsys.readouterr().out
    assert job.notes["left_out"] == said


def test_null_texts_are_left_out_of_every_split_and_of_the_unlabeled_rows(tmp_path):
    data = [*rows(40), {"text": None, "label": "好"}]
    unlabeled = [{"text": f"没有{i}"} for i in range(5)] + [{"text": None}] * 2
    splits = classification.load_text(
        classification.TextDataArguments(
            train_file=write(tmp_path / "train.jsonl", data),
            test_file=write(tmp_path / "test.jsonl", data[-3:]),
            unlabeled_file=write(tmp_path / "unlabeled.jsonl", unlabeled),
        ),
        0,
    )
    assert (len(splits["test"]), len(splits["unlabeled"])) == (2, 5)
    assert splits.left_out.startswith(
        "1 of 41 train rows has no text and is left out (row 40); "
        "1 of 3 test rows has no text and is left out (row 2); "
        "2 of 7 unlabeled rows have no text and are left out (the first is row 5); of 5 unlabeled rows 0 were left out"
    )


def test_a_pair_without_its_second_text_is_left_out(tmp_path):
    data = [{**row, "pair": None if i == 3 else "好"} for i, row in enumerate(rows(40))]
    data = classification.TextDataArguments(train_file=write(tmp_path / "rows.jsonl", data), text_pair_column="pair")
    assert classification.load_text(data, 0).left_out == "1 of 40 train rows has no text and is left out (row 3)"


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_texts_of_a_language_model_may_look_like_numbers(tmp_path, kind):
    data = [{"text": (1998 if kind == "jsonl" else "1998") if i % 2 else "天气很好"} for i in range(40)]
    data[4] = {"text": None}
    data.append({"text": "天"})
    flags = ["--train_file", write(tmp_path / f"rows.{kind}", data), "--output_dir", str(tmp_path / "run"), *FLAGS]
    job = causal_lm.RECIPE.prepare(flags)
    assert sum(len(split) for name, split in job.splits.items() if name != "test") == 40
    assert job.notes["left_out"] == "left out with nothing to learn: 1 train"
    assert "1" in "".join(job.tokenizer.get_vocab())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([{"text": ["a"]}] * 30, "the train rows of rows.jsonl have no text in 'text' but lists"),
        ([{"messages": ["a"]}] * 30, r"row 0 of the train rows of rows\.jsonl has no conversation in 'messages'"),
        ([{"messages": "a"}] * 30, r"has no conversation in 'messages': give a list of messages, each with a role"),
        ([{"messages": [{"role": "user"}]}] * 30, "has no conversation in 'messages'"),
    ],
)
def test_what_is_no_text_and_no_conversation_is_refused(tmp_path, data, message):
    flags = ["--train_file", write(tmp_path / "rows.jsonl", data), "--output_dir", str(tmp_path / "run"), *FLAGS]
    with pytest.raises(ValueError, match=message):
        causal_lm.RECIPE.prepare(flags)


def test_pairs_that_look_like_nothing_are_translated(tmp_path, capsys):
    data = [{"source": LOOKS[i % 5], "target": str(i % 7)} for i in range(40)]
    data[5]["target"] = ""
    flags = ["--train_file", write(tmp_path / "rows.csv", data), "--output_dir", str(tmp_path / "run")]
    recipe = translation.Arguments(train_file=flags[1])
    pairs, empty = load_pairs(recipe, 0, ["source", "target"])
    assert set(pairs["train"]["source"]) == set(LOOKS)
    assert set(pairs["train"]["target"]) == set("0123456")
    assert empty in (["1 train"], ["1 validation", "1 test"])


def test_sentences_without_a_text_are_left_out_and_counted(tmp_path):
    data = [{"text": LOOKS[i % 5] if i != 8 else None} for i in range(40)]
    for kind in ("csv", "jsonl"):
        recipe = sentence_embeddings.Arguments(train_file=write(tmp_path / f"rows.{kind}", data))
        splits = sentence_embeddings.tokenised(recipe, 0, character_tokenizer(LOOKS * 2))
        assert sum(len(split) for name, split in splits.items() if name != "test") == 39
        assert splits.left_out == "1 of 40 train rows has no text and is left out (row 8)"


def test_a_quick_run_takes_a_tenth_and_keeps_something_of_little(tmp_path):
    counts = {"train": 5000, "validation": 2500, "test": 900}
    splits = DatasetDict({name: Dataset.from_dict({"n": range(n)}) for name, n in counts.items()})
    data = images.ImageDataArguments(max_train_samples=4000, labeled_samples=100)
    whole = limited(data, splits, 0)
    data.quick = True
    few = limited(data, splits, 0)
    assert {name: len(rows) for name, rows in few.items()} == {"train": 400, "validation": 250, "test": 200}
    assert few["train"]["n"][:] == whole["train"]["n"][:400]  # the same draw
    assert data.labeled_samples == 20
    assert len(limited(images.ImageDataArguments(), splits, 0)["train"]) == 5000
    recipe, args, _ = begin([images.ImageDataArguments, RecipeTrainingArguments], ["--quick"], tmp_path / "images")
    assert (args.quick, recipe.quick) == (True, True)


def tagged(tokens, tags):
    return {"tokens": tokens, "ner_tags": tags}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            tagged(["a", None], ["B-x", "O"]),
            r"row 29 of the train rows of rows\.jsonl has the token None, which is no",
        ),
        (tagged(None, ["B-x"]), "1 of 30 rows have no tokens among the train rows of rows.jsonl, the first is row 29"),
        (tagged(["a"], None), "1 of 30 rows have no tags among the train rows of rows.jsonl, the first is row 29"),
        (tagged(None, None), "1 of 30 rows have no tags among the train rows of rows.jsonl, the first is row 29"),
    ],
)
def test_tokens_and_tags_that_are_missing_are_refused_with_their_row(tmp_path, row, message):
    data = [*[tagged(["a", "b"], ["B-x", "O"])] * 29, row]
    with pytest.raises(ValueError, match=message):
        tagging.load_tagged(tagging.TaggingDataArguments(train_file=write(tmp_path / "rows.jsonl", data)), seed=0)


def test_tokens_that_are_no_lists_are_refused_and_numbers_are_tokens(tmp_path):
    for data, message in (
        ([tagged("a b", ["B-x", "O"])], "have no lists of tokens but"),
        ([tagged(["a"], "O")], "have no lists of tags but"),
        ([tagged([["a"]], ["O"])], r"row 0 of the train rows of rows\.jsonl has the token \['a'\]"),
    ):
        path = write(tmp_path / "rows.jsonl", data * 30)
        with pytest.raises(ValueError, match=message):
            tagging.load_tagged(tagging.TaggingDataArguments(train_file=path), seed=0)
    path = write(tmp_path / "rows.jsonl", [tagged([1998, "年"], ["B-t", "I-t"])] * 30)
    splits = tagging.load_tagged(tagging.TaggingDataArguments(train_file=path), seed=0)
    assert splits["train"]["tokens"][0] == ["1998", "年"]


def asked(**changes):
    return {"question": "谁？", "context": "光荣。", "answers": {"text": ["光荣"], "answer_start": [0]}, **changes}


def test_questions_without_a_text_or_an_answer(tmp_path):
    given = [asked(), asked(question=None), asked(answers=None), asked(answers={"text": [None], "answer_start": [0]})]
    data = [*[asked()] * 30, *given]
    recipe = questions.QuestionDataArguments(
        train_file=write(tmp_path / "train.jsonl", data), validation_file=write(tmp_path / "test.jsonl", data)
    )
    splits, noted = questions.load_questions(recipe, 0)
    assert {name: len(split) for name, split in splits.items()} == {"train": 31, "validation": 33, "test": 33}
    assert noted.startswith("1 of 34 train rows has no text and is left out (row 31); 1 of 34 validation rows has no")
    assert "train: 0 answers stand elsewhere than the file says and were found again, 2 stand nowhere" in noted


@pytest.mark.parametrize(
    "answers", [["光荣"], {"text": "光荣", "answer_start": 0}, {"text": ["光荣"], "answer_start": []}]
)
def test_answers_in_another_form_are_refused(tmp_path, answers):
    path = write(tmp_path / "train.jsonl", [asked(answers=answers)] * 30)
    with pytest.raises(ValueError, match=r"give {text, answer_start}, two lists of one length"):
        questions.load_questions(questions.QuestionDataArguments(train_file=path), 0)
