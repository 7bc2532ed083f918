"""How right a teacher is in a run's rows, for each kind of task, and what is said of one that is not."""

import copy
import logging
import math

import pytest
import tiny
import tiny_language
import tiny_tasks
import torch
from torch.nn import functional as F
from transformers import DataCollatorForSeq2Seq

from hf_distill import DenseLogits, EMATeacher, Head, Signals
from hf_distill.models.topk_logits import TopKLogits
from hf_distill.tasks import CausalLM, SequenceClassification
from hf_distill.training.judge import listen

LOGGER = "hf_distill.training.judge"
LANGUAGE = {"llama": tiny_language.texts, "t5": tiny_language.pairs}


def parts_of(kind):
    if kind in tiny.PROBLEMS:
        rows = tiny.rows(7, kind, seed=9)
        if kind == tiny.MULTI:
            rows[2]["labels"] = [-100.0, 1.0, -100.0]
        else:
            rows[2]["labels"] = math.nan if kind == tiny.REGRESSION else -100
        return tiny.bert(problem=kind), tiny.teacher(kind), rows, None
    if kind in LANGUAGE:
        make = getattr(tiny_language, kind)
        collate = DataCollatorForSeq2Seq(tiny_language.tokenizer())
        return make(), tiny_language.teacher(make), LANGUAGE[kind](7, seed=9), collate
    case = tiny_tasks.CASES[kind]
    return case.model(), case.teacher(), case.rows(7, 9), case.collate()


def right(kind, outputs, batch):
    """What a teacher's figure should be, by hand."""
    logits = outputs["logits"].detach() if kind != "spans" else None
    if kind == "spans":
        found = []
        for name in ("start", "end"):
            where, length = batch[f"{name}_positions"], batch["attention_mask"].sum(1)
            known = (where >= 0) & (where < length)
            masked = outputs[f"{name}_logits"].detach().masked_fill(batch["attention_mask"] == 0, -math.inf)
            found.append((masked.argmax(-1) == where)[known])
        return {"teacher_accuracy": torch.cat(found).double().mean().item()}
    labels = batch["labels"]
    if kind == tiny.REGRESSION:
        return {"teacher_mse": (logits.view(-1) - labels).square().nanmean().item()}
    if kind == tiny.MULTI:
        return {"teacher_accuracy": ((logits > 0) == (labels > 0.5))[labels >= 0].double().mean().item()}
    if kind in (*LANGUAGE, "masked"):
        if kind == "llama":
            logits, labels = logits[:, :-1], labels[:, 1:]
        return {"teacher_perplexity": F.cross_entropy(logits[labels >= 0], labels[labels >= 0]).exp()}
    return {"teacher_accuracy": (logits.argmax(-1) == labels)[labels >= 0].double().mean().item()}


@pytest.mark.parametrize("kind", [*tiny.PROBLEMS, "tokens", "spans", "masked", "choice", *LANGUAGE])
def test_each_evaluation_says_how_right_the_teacher_is_whatever_the_batches(tmp_path, kind):
    student, teacher, rows, collate = parts_of(kind)
    parts = {} if collate is None else {"data_collator": collate}
    whole, found = None, []
    for size in (7, 2):
        run = tiny.trainer(
            tmp_path, student, rows, teacher_model=teacher, eval_dataset=rows,
            args={"per_device_eval_batch_size": size}, **parts,
        )  # fmt: skip
        found.append(run.evaluate())
        if whole is None:
            batch = run._prepare_inputs(dict(run.data_collator([dict(row) for row in rows])))
            fed = {name: one for name, one in batch.items() if "positions" not in name}
            fed = fed if kind == "t5" else {name: one for name, one in fed.items() if name != "labels"}
            with torch.no_grad():
                whole = right(kind, teacher.eval()(**fed), batch)
    for told in found:
        for name, value in whole.items():
            assert told[f"eval_{name}"] == pytest.approx(float(value), rel=1e-5)
        (own,) = (name.replace("teacher", "student") for name in whole)
        assert (f"eval_{own}" in told) == (own != "student_perplexity")  # that one is eval_perplexity
    if kind == "llama":
        same = copy.deepcopy(student)
        alone = tiny.trainer(tmp_path, student, rows, teacher_model=same, eval_dataset=rows, **parts).evaluate()
        assert alone["eval_teacher_perplexity"] == pytest.approx(alone["eval_perplexity"], rel=1e-5)


def test_nothing_of_the_users_own_metrics_is_lost_and_a_search_may_look_at_them(tmp_path):
    def own(predicted):
        return {"accuracy": 0.25, "teacher_accuracy": 2.0, "student_accuracy": 3.0}

    rows = tiny.rows(8, seed=9)
    run = tiny.trainer(tmp_path, teacher_model=tiny.teacher(), eval_dataset=rows, compute_metrics=own)
    told = run.evaluate()
    names = ("eval_accuracy", "eval_teacher_accuracy", "eval_student_accuracy")
    assert [told[name] for name in names] == [0.25, 2.0, 3.0]
    assert run.predict(rows).metrics["test_teacher_accuracy"] == 2.0


def test_kept_answers_say_the_same_without_the_teacher(tmp_path):
    rows, folder = tiny.rows(8, seed=9), str(tmp_path / "kept")
    args = {"teacher_cache": folder, "max_steps": 4}
    asked = tiny.trainer(tmp_path / "a", None, rows, teacher_model=tiny.teacher(), eval_dataset=rows, args=args)
    asked.train()
    kept = tiny.trainer(tmp_path / "b", None, rows, teacher_model=folder, eval_dataset=rows)
    assert kept.teacher.model is None  # all that it said was written down
    assert kept.evaluate()["eval_teacher_accuracy"] == asked.evaluate()["eval_teacher_accuracy"]


def test_few_ids_tell_which_is_the_highest_and_no_perplexity():
    whole = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 1.0]])
    p, rows = whole.softmax(-1), torch.ones(2, dtype=torch.bool)
    ids = whole.topk(2).indices.flip(-1)  # their order says nothing
    few = TopKLogits(
        ids, p.gather(-1, ids).log(), torch.zeros(2, 0, dtype=torch.int64), 1 - p.gather(-1, ids).sum(-1),
        torch.ones(2), 1.0, 3,
    )  # fmt: skip
    batch = {"input_ids": torch.ones(2, 4, dtype=torch.int64), "labels": torch.tensor([1, 1])}
    student = Signals({"logits": Head(DenseLogits(whole), rows, batch["labels"])})
    teacher = Signals({"logits": Head(few, rows)})
    found, heard = listen(SequenceClassification(3, tiny.SINGLE), student, teacher, batch)
    assert found == {}
    assert heard.teacher.tolist() == heard.student.tolist() == [1.0, 0.0]
    assert listen(CausalLM(), student, teacher, batch) == ({}, None)


def test_texts_that_are_cut_otherwise_have_no_next_token_in_common():
    task = CausalLM(align="uld")
    labels, rows = torch.tensor([[1, 2]]), torch.ones(1, 2, dtype=torch.bool)
    shown = Signals({"logits": Head(DenseLogits(torch.zeros(1, 2, 3)), rows, labels)})
    assert task.truths(shown, {}) == {}
    assert CausalLM().truths(shown, {})["logits"] is labels


# ---- What is said ----


def said(caplog):
    return [one.getMessage() for one in caplog.records if one.name == LOGGER]


def early(folder, caplog, teacher=None, rows=None, **parts):
    args = {"per_device_train_batch_size": 128, "max_steps": 2, "logging_steps": 2, "learning_rate": 0.0}
    run = tiny.trainer(
        folder, None, rows or tiny.rows(400), teacher_model=teacher or tiny.teacher(), args=args, **parts
    )
    with caplog.at_level(logging.WARNING, LOGGER):
        run.train()
        run.train()
    return said(caplog)


def test_a_head_that_nobody_trained_is_found_in_the_first_training_rows(tmp_path, caplog):
    (sentence,) = early(tmp_path, caplog)
    assert sentence.startswith("The teacher's accuracy is ")
    assert " on 256 rows (training), and " in sentence
    assert "these rows show nothing that it could teach, so fine-tune it on your labels first" in sentence


def test_a_teacher_that_knows_the_labels_is_left_alone(tmp_path, caplog):
    def knows(batch):
        return 3.0 * F.one_hot(batch["input_ids"][:, 1] % 3, 3)

    rows = [{**row, "labels": row["input_ids"][1] % 3} for row in tiny.rows(400)]
    assert early(tmp_path, caplog, knows, rows) == []


def test_nothing_is_said_of_an_average_of_the_student_or_where_no_head_is_learned_from(tmp_path, caplog):
    assert early(tmp_path / "ema", caplog, EMATeacher()) == []
    assert early(tmp_path / "states", caplog, objective="hidden_mse") == []


def test_a_student_that_is_ahead_of_its_teacher_is_told_of_once(tmp_path, caplog):
    student, rows = tiny.bert(), tiny.rows(200, seed=9)
    chosen = tiny.trainer(tmp_path, student).predict(rows).predictions.argmax(-1)
    rows = [{**row, "labels": int(label)} for row, label in zip(rows, chosen, strict=True)]  # it is right in all
    same = copy.deepcopy(student).eval()

    def spoiled(batch):
        logits = same(**batch).logits
        return torch.where(batch["input_ids"][:, 1:2] % 4 == 0, -logits, logits)

    run = tiny.trainer(tmp_path, student, teacher_model=spoiled, eval_dataset=rows)
    with caplog.at_level(logging.WARNING, LOGGER):
        told = run.evaluate()
        run.evaluate()
    assert told["eval_student_accuracy"] == 1.0
    (ahead,) = said(caplog)
    share = 100 * told["eval_teacher_accuracy"]
    assert ahead.startswith(f"The student (100.0 %) is ahead of its teacher ({share:.1f} %)")
    assert "in accuracy on 200 rows (eval): learn less from it (a lower alpha), or fine-tune it first" in ahead
    few = tiny.trainer(tmp_path, student, teacher_model=spoiled, eval_dataset=rows[:20])
    caplog.clear()
    few.evaluate()
    assert said(caplog) == []
