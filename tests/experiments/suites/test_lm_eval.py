"""Language models under lm-eval: a task over a file, figures that a hand finds too, what is refused."""

import importlib.util
import json

import numpy as np
import pytest
import tiny_language
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_distill.experiments.suites import Asked, LmEval
from hf_distill.experiments.suites.lm_eval import without_end
from hf_distill.experiments.tokenizers import text_tokenizer

LIBRARY = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="needs hf_distill[lm_eval]")

TEXTS = ["天气很好我们去公园看花", "孩子很高兴地回家吃饭了", "服务员的态度太差了一点"]
TASK = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
target_delimiter: ""
{more}
metadata:
  version: 2.0
"""
CHOICES = """output_type: multiple_choice
doc_to_text: "{{begin}}"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}"""
ROLLING = """output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{begin}}"
metric_list:
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}"""


def rows(n=12):
    found = []
    for i in range(n):
        text = TEXTS[i % 3]
        begin, end = text[: 3 + i % 4], text[3 + i % 4 :]
        choices = [end, end[::-1], end[2:] + end[:2]]
        answer = i % 3
        choices[0], choices[answer] = choices[answer], choices[0]
        found.append({"begin": begin, "choices": choices, "answer": answer})
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Tasks, and a model whose tokenizer puts an end behind every text."""
    root = tmp_path_factory.mktemp("lm_eval")
    (root / "tasks").mkdir()
    file = root / "rows.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows()), encoding="utf-8")
    for name, more in (("goes_on", CHOICES), ("bits", ROLLING)):
        text = TASK.format(name=name, file=file, more=more)
        (root / "tasks" / f"{name}.yaml").write_text(text, encoding="utf-8")
    (root / "tasks" / "both.yaml").write_text("group: both\ntask: [goes_on, bits]\n", encoding="utf-8")
    tokenizer = text_tokenizer(TEXTS, begins=True)
    tokenizer.save_pretrained(root / "model")
    tiny_language.llama(vocab_size=len(tokenizer), seed=3).save_pretrained(root / "model")
    return root


def asked(place, *tasks, **more):
    return Asked(tasks, include_path=str(place / "tasks"), **more)


@pytest.fixture(scope="module")
def by_hand(place):
    """By transformers alone: the log-likelihood of the tokens of a text behind so many others."""
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(place / "model").eval(),
        AutoTokenizer.from_pretrained(place / "model"),
    )

    def ids_of(text):
        return tokenizer(text)["input_ids"][:-1]  # without the end

    def log_likelihood(ids, behind):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return logits[behind - 1 : -1].gather(1, torch.tensor(ids)[behind:, None]).sum().item()

    return ids_of, log_likelihood


@LIBRARY
@pytest.mark.slow
def test_a_choice_is_what_transformers_chooses_for_the_same_rows(place, by_hand):
    ids_of, log_likelihood = by_hand
    acc, norm = LmEval(asked(place, "goes_on", batch_size=5)).score(str(place / "model"))
    right, by_length = [], []
    for row in rows():
        behind = len(ids_of(row["begin"]))
        found = np.array([log_likelihood(ids_of(row["begin"] + one), behind) for one in row["choices"]])
        right.append(found.argmax() == row["answer"])
        by_length.append((found / [len(one) for one in row["choices"]]).argmax() == row["answer"])
    assert acc.each.tolist() == right  # also where a text comes again that is divided at another place
    assert norm.each.tolist() == by_length
    assert 0 < acc.value < 1
    assert (acc.task, acc.metric, acc.rows, acc.lower_is_better) == ("goes_on", "acc", 12, False)
    assert acc.value == pytest.approx(np.mean(right))
    assert acc.error == pytest.approx(np.std(right, ddof=1) / np.sqrt(12))
    assert acc.settings == {"shots": 0, "task version": 2.0}


@LIBRARY
@pytest.mark.slow
def test_what_is_no_mean_over_rows_has_no_rows_and_the_first_rows_are_taken(place, by_hand):
    ids_of, log_likelihood = by_hand
    suite = LmEval(asked(place, "bits", limit=4))
    (bits,) = suite.score(str(place / "model"))
    assert (bits.metric, bits.rows, bits.lower_is_better, bits.each) == ("bits_per_byte", 4, True, None)
    total = length = 0
    for row in rows(4):
        ids = ids_of(row["begin"])
        total += log_likelihood([ids[0], *ids], 1)  # lm-eval counts the token that begins a text, behind another
        length += len(row["begin"].encode())
    assert bits.value == pytest.approx(-total / length / np.log(2), rel=1e-5)
    assert suite.score(str(place / "model"))[0].value == bits.value


def test_a_tokenizer_without_an_end_stays_as_it_is():
    plain = tiny_language.tokenizer()
    before = plain("w1 w2")["input_ids"]
    assert without_end(plain)("w1 w2")["input_ids"] == before


@LIBRARY
@pytest.mark.slow
def test_a_chat_template_is_refused_where_there_is_none(place):
    suite = LmEval(asked(place, "bits", apply_chat_template=True))
    with pytest.raises(ValueError, match=r"apply_chat_template was given, and .* has no chat template"):
        suite.score(str(place / "model"))
    with pytest.raises(ValueError, match="nowhere and its tokenizer could not be loaded"):
        suite.score(str(place / "nowhere"))


@LIBRARY
@pytest.mark.slow
def test_tasks_that_are_not_there_are_refused(place, monkeypatch):
    with pytest.raises(ValueError, match="include_path=nowhere was given, which is no folder"):
        LmEval(Asked(["goes_on"], include_path="nowhere"))
    monkeypatch.setattr("lm_eval.tasks.manager.__file__", str(place / "tasks" / "manager.py"))  # not all of 14,000
    with pytest.raises(ValueError, match="lm-eval has none of that name: did you mean goes_on"):
        LmEval(Asked(["goes_in"]))


@LIBRARY
@pytest.mark.slow
def test_a_hub_that_cannot_be_reached_is_said_in_a_sentence(place, tmp_path):
    text = "task: far\ndataset_path: allenai/ai2_arc\noutput_type: multiple_choice\ntest_split: test\ndoc_to_text: q\n"
    (tmp_path / "far.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"^the task far could not be loaded \(.*ai2_arc.*\): rows of public"):
        LmEval(Asked(["far"], include_path=str(tmp_path)))


@LIBRARY
@pytest.mark.slow
def test_a_group_stands_for_its_tasks(place, monkeypatch):
    monkeypatch.setattr("lm_eval.tasks.manager.__file__", str(place / "tasks" / "manager.py"))
    found = LmEval(Asked(["both"])).score(str(place / "model"))
    assert [(one.task, one.metric) for one in found] == [
        ("goes_on", "acc"), ("goes_on", "acc_norm"), ("bits", "bits_per_byte"),
    ]  # fmt: skip
