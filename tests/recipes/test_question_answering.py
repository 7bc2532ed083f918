"""The recipe for answers in a text: the newspaper, SQuAD's form, windows and their joining, answers that moved."""

from collections import Counter
from pathlib import Path

import comparison
import numpy as np
import pytest
import question_answering
import question_data
from answer_scoring import AnswerScoring, Window, overlap
from chinese_words import character_tokenizer
from huggingface_hub import ModelCard
from test_bert_chinese import QUIET, SMALL, write
from transformers import AutoModelForQuestionAnswering

from hf_distill.cli.parsing import parse_arguments

FLAGS = ["--max_steps", "2", "--num_threads", "1", "--report_to", "none", *SMALL, *QUIET]
CONTEXT = "战国无双是由光荣开发的。" * 6 + "本作在日本发行，由光荣发行。"


def run(folder, *flags):
    return question_answering.main(["--output_dir", str(folder / "run"), *FLAGS, *flags])


START = CONTEXT.index("日本")


def question(text="日本", start=START):
    return {"question": "在哪里发行？", "context": CONTEXT, "answers": {"text": [text], "answer_start": [start]}}


def squad(rows):
    qas = [
        {"context": row["context"], "qas": [{"id": str(i), "question": row["question"], "answers": [
            {"text": t, "answer_start": s} for t, s in zip(*row["answers"].values(), strict=True)]}]}
        for i, row in enumerate(rows)
    ]  # fmt: skip
    return {"version": "1.1", "data": [{"title": "x", "paragraphs": qas}]}


@pytest.fixture(scope="module")
def newspaper():
    """All questions on the embedded newspaper, read once."""
    return question_data.newspaper_questions()


def test_the_whole_job_on_the_newspaper(tmp_path, newspaper, monkeypatch):
    monkeypatch.setattr(question_data, "newspaper_questions", lambda: newspaper)
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
    monkeypatch.setattr(comparison, "plot_comparison", lambda *parts: labels.append(parts[-1]))
    report = run(tmp_path, *files, "--skip_alone", "--max_length", "96")
    assert (report["split"], report["measured_on"]) == ("validation", named)
    card = ModelCard.load(tmp_path / "run" / "README.md")
    counted = 1 if given == ["train"] else 20  # a twentieth of the training rows is cut off
    assert f"On the validation rows of {named} ({counted} questions in" in card.text
    assert {result.dataset_split for result in card.data.eval_results} == {"validation"}
    assert labels == ["validation F1 of answers"]
    assert " test rows" not in capsys.readouterr().out


def test_an_f1_of_nothing_has_no_bounds_of_a_share():
    rows = [{"context": "abc", "answers": {"text": ["c"], "answer_start": [2]}}] * 4
    windows = [Window(i, [(0, 1), (1, 2), (2, 3)]) for i in range(4)]
    logits = np.tile([9.0, 0.0, 0.0], (4, 1))
    scoring = AnswerScoring(rows, windows)
    look = scoring.seen((logits, logits), None, (logits, logits))
    assert look.row("f1", scoring.share)["f1"] == 0.0
    assert look.row("f1", scoring.share)["f1_interval"] is None


def test_the_embedded_questions(newspaper):
    sizes = {name: len(rows) for name, rows in newspaper.items()}
    assert sizes["train"] > 20_000
    assert sizes["test"] == pytest.approx(sum(sizes.values()) / 20, rel=0.1)
    texts = {name: set(rows["context"]) for name, rows in newspaper.items()}
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["validation"]
    asked = Counter(newspaper["test"]["question"])
    assert asked.keys() == set(question_data.ASKED.values())
    assert max(asked.values()) < 0.4 * sizes["test"]
    for row in newspaper["test"]:
        (text,), (start,) = row["answers"].values()
        assert row["context"].startswith(text, start)
        assert len(text) < len(row["context"])


def test_a_question_is_needed_for_the_answer(newspaper):
    rows, answers = newspaper["train"], {}
    for row in rows.select(range(5_000)):
        answers.setdefault(row["context"], {})[row["question"]] = row["answers"]["answer_start"][0]
    assert all(len(set(one.values())) == len(one) for one in answers.values())
    assert np.mean([len(one) for one in answers.values()]) > 1.5


def test_what_is_asked_of_a_sentence():
    words = (
        "据/p 新华社/nt １９９７年/t １２月/t 报道/v ，/w 江/nr 泽民/nr 和/c 李/nr 鹏/nr 在/p 北京/ns 会见/v 三/m 人/n"
    )
    sentence = [tuple(pair.split("/")) for pair in words.split()]
    found = question_data.asked(sentence)
    assert [(row["question"], row["answers"]["text"]) for row in found] == [
        ("什么时候？", ["1997年12月"]), ("哪里？", ["北京"]), ("多少？", ["三"])
    ]  # two persons: nobody asks who  # fmt: skip
    assert {row["context"] for row in found} == {"据新华社1997年12月报道，江泽民和李鹏在北京会见三人"}
    assert question_data.asked(sentence[:6]) == []  # one kind
    assert question_data.asked(sentence[:4] + sentence[11:13]) != []
    assert question_data.asked(sentence[11:15]) == []  # short
    assert question_data.asked(sentence * 4) == []  # long


def test_the_newspapers_numbers_are_read_figure_by_figure():
    words = [("１９９７年", "t"), ("在", "p"), ("北京", "ns"), ("召开了会议", "v")]
    context = question_data.asked(words)[0]["context"]
    tokenizer = character_tokenizer([context] * 2)
    assert tokenizer.tokenize(context)[:5] == ["1", "##9", "##9", "##7", "年"]


@pytest.mark.parametrize(
    ("text", "start", "expected"),
    [
        ("two", 4, (4, 7, False)),
        ("one", 7, (8, 11, True)),
        ("one", 1, (0, 3, True)),
        ("four", 0, None),
        ("", 0, None),
        (" two ", 3, (4, 7, False)),
        (" ", 3, None),
    ],
)
def test_an_answer_is_looked_for_where_it_should_be_and_then_next_to_it(text, start, expected):
    assert question_data.first_place("one two one", {"text": [text], "answer_start": [start]}) == expected


def test_the_second_answer_is_taken_where_only_it_stands_in_its_place():
    answers = {"text": ["one", "two"], "answer_start": [5, 4]}
    assert question_data.first_place("one two one", answers) == (4, 7, False)


def test_every_window_that_holds_the_answer_says_where():
    tokenizer = character_tokenizer([CONTEXT + "在哪里发行？"] * 2)
    rows = question_data.Dataset.from_list([question() | {"start": START, "stop": START + 2}])
    made, found = question_answering.windows(rows, tokenizer, 40, 12)
    assert len(made) == len(found) > 2
    held = 0
    for row, window in zip(made, found, strict=True):
        assert len(row["input_ids"]) <= 40
        if row["start_positions"]:
            begin, end = row["start_positions"], row["end_positions"]
            assert CONTEXT[window.offsets[begin][0] : window.offsets[end][1]] == "日本"
            held += 1
        else:
            shown = CONTEXT[min(o[0] for o in window.offsets if o) : max(o[1] for o in window.offsets if o)]
            assert "日本" not in shown
    assert held


def test_answers_stay_in_their_place_where_a_tokenizer_pads_on_the_left(tmp_path, monkeypatch):
    def pads_on_the_left(texts):
        tokenizer = character_tokenizer(texts)
        tokenizer.padding_side = "left"
        return tokenizer

    monkeypatch.setattr(question_answering, "character_tokenizer", pads_on_the_left)
    short = {"question": "何时？", "context": "日本。", "answers": {"text": ["日本"], "answer_start": [0]}}
    file = write(tmp_path / "rows.jsonl", [question(), short])
    names = [flag for name in ("train", "test", "validation") for flag in (f"--{name}_file", file)]
    job = question_answering.prepare(["--output_dir", str(tmp_path / "run"), *FLAGS, *names, "--max_length", "96"])
    batch = job.options["data_collator"](list(job.splits["test"]))
    assert not batch["attention_mask"].all()
    spans = zip(batch["input_ids"], batch["start_positions"], batch["end_positions"], strict=True)
    assert ["".join(job.tokenizer.convert_ids_to_tokens(row[a : b + 1])) for row, a, b in spans] == ["日本", "日本"]


def test_an_answer_that_no_window_holds_is_counted():
    tokenizer = character_tokenizer([CONTEXT + "在哪里发行？"] * 2)
    long = question_data.Dataset.from_list(
        [question() | {"start": 2, "stop": 42}, question() | {"start": -1, "stop": -1}]
    )
    found = question_answering.windows(long, tokenizer, 40, 12)
    assert set(found[0]["start_positions"]) == {0}
    said = question_answering.fitting("train", long, *found)
    assert said == "train: 2 of 2 texts are longer than a window, 1 answers are whole in no window"
    assert question_answering.fitting("train", long, *question_answering.windows(long, tokenizer, 128, 12)) == ""


def test_windows_are_joined_and_nothing_outside_of_the_text_is_an_answer():
    rows = [{"context": "abcdef", "answers": {"text": ["d"], "answer_start": [3]}}]
    windows = [Window(0, [None, (0, 1), (1, 2), (2, 3)]), Window(0, [None, (2, 3), (3, 4), None])]
    begins = np.array([[9.0, 2.0, 0.0, 0.0], [9.0, 0.0, 4.0, 9.0]])
    ends = np.array([[9.0, 0.0, 2.0, 0.0], [9.0, 5.0, 1.0, 9.0]])
    scoring = AnswerScoring(rows, windows)
    assert scoring.answers((begins, ends)) == ["d"]  # 5.0: an end before its beginning (9.0) is no answer
    assert scoring.answers((begins - [[0], [2]], ends)) == ["ab"]
    assert scoring.answers((np.pad(begins, ((0, 0), (0, 2)), constant_values=99), np.pad(ends, ((0, 0), (0, 2))))) == [
        "d"
    ]
    assert scoring.figures((begins, ends), None) == {"f1": 1.0, "exact_match": 1.0}
    assert AnswerScoring(rows, windows, longest=1).answers((begins - [[0], [9]], ends)) != ["ab"]


def test_f1_over_characters():
    assert overlap("光荣", "光荣公司") == pytest.approx(2 / 3)
    assert overlap("《光荣》", "光荣。") == 1.0
    assert overlap("KOEI 光荣", "koei") == pytest.approx(0.5)  # koei, 光, 荣 and koei
    assert overlap("日本", "光荣") == 0.0


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
    types = [question_answering.RecipeArguments, question_answering.RecipeTrainingArguments]
    recipe, args = parse_arguments(types, [path, "--bf16", "0", "--output_dir", str(tmp_path)])
    assert (recipe.max_length, recipe.stride, recipe.student_layers, args.alpha) == (384, 128, 4, 0.9)


def test_windows_are_joined_in_their_order_whatever_the_sampler(tmp_path, monkeypatch):
    rows = [question(), *({**question(), "context": CONTEXT[: 20 + 7 * i], "question": "谁？"} for i in range(1, 9))]
    path, heard = write(tmp_path / "rows.jsonl", rows), []
    flags = ["--train_file", path, "--test_file", path, "--max_length", "40", "--stride", "8", "--skip_alone"]
    plain = AnswerScoring.seen
    monkeypatch.setattr(AnswerScoring, "seen", lambda self, *found: (heard.append(found[0]), plain(self, *found))[1])
    run(tmp_path / "plain", *flags)
    teacher = str(next((tmp_path / "plain" / "run").glob("_teacher-*")))
    flags += ["--teacher_model_name_or_path", teacher, "--train_sampling_strategy", "group_by_length"]
    run(tmp_path / "grouped", *flags)
    for one, other in zip(heard[0], heard[2], strict=True):  # the teacher's logits, window by window
        np.testing.assert_allclose(one, other, atol=1e-4)
