"""A teacher that lies in the data set: logits, or a few ids with their log-probabilities, as servers give them."""

import math

import pytest
import tiny
import tiny_language
import tiny_tasks
import torch
from datasets import Dataset
from default_run import slow_but
from torch.nn import functional as F
from transformers import (
    DataCollatorForSeq2Seq,
    DataCollatorWithFlattening,
    LlamaForCausalLM,
    T5ForConditionalGeneration,
    default_data_collator,
)

from hf_distill import ColumnTeacher, FunctionTeacher, Teacher
from hf_distill.objectives.functional import forward_kl
from hf_distill.training.build_teacher import build_teacher

LLAMA, T5 = tiny_language.llama, tiny_language.t5


def seq2seq(side="right"):
    tokenizer = tiny_language.tokenizer()
    tokenizer.padding_side = side
    return DataCollatorForSeq2Seq(tokenizer)


class Case:
    """A student, a teacher, rows and their collator; ``logits`` are the teacher's for each row alone."""

    def __init__(self, student, teacher, rows, collator):
        self.student, self.teacher, self.rows, self.collator = student, teacher.eval(), rows, collator
        self.logits = [self.answer(row) for row in rows]

    @torch.no_grad()
    def answer(self, row):
        read = {n: torch.tensor([value]) for n, value in row.items() if n in ("input_ids", "attention_mask", "labels")}
        if not isinstance(self.teacher, T5ForConditionalGeneration):
            read.pop("labels")
        return self.teacher(**read).logits[0]

    def columns(self):
        return [{**row, "teacher_logits": one.tolist()} for row, one in zip(self.rows, self.logits, strict=True)]

    def few(self, k=lambda position: 5):
        """The likeliest ids of each position, the likeliest last; of positions that do not count none."""
        made = []
        for row, logits in zip(self.rows, self.logits, strict=True):
            ids, logs = [], []
            for position, log_p in enumerate(logits.log_softmax(-1)):
                after = [*row["labels"], -100][position + 1] if isinstance(self.teacher, LlamaForCausalLM) else 0
                best = log_p.topk(k(position)).indices.flip(0) if after != -100 else torch.arange(0)
                ids.append(best.tolist())
                logs.append(log_p[best].tolist())
            made.append({**row, "ids": ids, "logprobs": logs})
        return made


def case(name):
    if name.startswith("llama"):
        side = name.partition(" ")[2] or "right"
        return Case(LLAMA(), tiny_language.teacher(), tiny_language.texts(), seq2seq(side))
    if name == "t5":
        return Case(T5(), tiny_language.teacher(T5), tiny_language.pairs(), seq2seq())
    if name in ("tokens", "masked"):
        one = tiny_tasks.CASES[name]
        return Case(one.model(), one.teacher(), one.rows(), one.collate())
    problem = {"one": tiny.SINGLE, "some": tiny.MULTI, "number": tiny.REGRESSION}[name]
    padding = tiny.DataCollatorWithPadding(tiny.tokenizer())
    return Case(tiny.bert(problem=problem), tiny.teacher(problem), tiny.rows(problem=problem), padding)


def trained(folder, one, rows, teacher, objective=None, **args):
    seen, collator = tiny.Gradients(), args.pop("collator", one.collator)
    run = tiny.trainer(
        folder, one.student, rows, teacher_model=teacher, objective=objective, data_collator=collator,
        args={"max_steps": 1, "temperature": 1.0, "learning_rate": 0.0, "teacher_cache": "off", **args},
        callbacks=[seen], eval_dataset=rows,
    )  # fmt: skip
    run.train()
    return run, {n: v for n, v in run.state.log_history[0].items() if n.startswith("loss")}, seen.first


def test_it_is_a_teacher_and_is_made_of_its_name():
    teacher = build_teacher("column:ids, logprobs", None)
    assert isinstance(teacher, ColumnTeacher)
    assert isinstance(teacher, Teacher)
    assert (teacher.names, teacher.temperature, build_teacher("column:x", None).temperature) == (
        ["ids", "logprobs"],
        1.0,
        None,
    )
    for spec in ("column:", "column:a,", "column:a,b,c"):
        with pytest.raises(
            ValueError, match="was given: name one column of logits, or two, of ids and of their log-prob"
        ):
            build_teacher(spec, None)


ALL = ["one", "some", "number", "tokens", "masked", "llama", "llama left", "t5"]


@pytest.mark.parametrize("name", slow_but(["one", "tokens", "llama left", "t5"], ALL))
@pytest.mark.parametrize("kind", [list, Dataset.from_list])
def test_logits_in_a_column_teach_what_the_model_teaches(tmp_path, name, kind):
    one = case(name)
    live, expected, wanted = trained(tmp_path / "a", one, one.rows, one.teacher)
    kept, found, gradients = trained(tmp_path / "b", one, kind(one.columns()), "column:teacher_logits")
    assert found == pytest.approx(expected, rel=1e-5)
    assert tiny.relative(gradients, wanted) < 1e-5
    for metric in ("eval_loss", "eval_loss/hard"):
        assert kept.evaluate()[metric] == pytest.approx(live.evaluate()[metric], rel=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_8_x_1_equals_2_x_4(tmp_path, name):
    one = case(name)
    sizes = [{"per_device_train_batch_size": a, "gradient_accumulation_steps": b} for a, b in ((8, 1), (2, 4))]
    whole, cut = (trained(tmp_path, one, one.columns(), "column:teacher_logits", **size) for size in sizes)
    assert max(float(g.abs().max()) for g in whole[2].values()) > 1e-3
    assert cut[1] == pytest.approx(whole[1], rel=1e-5)
    assert tiny.relative(cut[2], whole[2]) < 1e-5


@pytest.mark.parametrize("name", ["one", "some", "number", "tokens"])
def test_the_default_collator_of_rows_of_one_length(tmp_path, name):
    one = case(name)
    one.rows = [
        {
            n: value[:3] if n in ("input_ids", "attention_mask") or name == "tokens" else value
            for n, value in row.items()
        }
        for row in one.rows
    ]
    one.logits = [one.answer(row) for row in one.rows]
    expected = trained(tmp_path / "a", one, one.rows, one.teacher, collator=default_data_collator)[1]
    found = trained(tmp_path / "b", one, one.columns(), "column:teacher_logits", collator=default_data_collator)[1]
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_temperature_a_student_without_labels_and_workers(tmp_path):
    one = case("one")
    rows = [{n: value for n, value in row.items() if n != "labels"} for row in one.columns()]
    args = {"temperature": 4.0, "alpha": 1.0}
    expected = trained(tmp_path / "a", one, one.rows, one.teacher, **args)[1]
    found = trained(tmp_path / "b", one, rows, "column:teacher_logits", dataloader_num_workers=2, **args)[1]
    assert found == pytest.approx(expected, rel=1e-5)


def test_rows_that_were_padded_before_and_are_padded_again(tmp_path):
    one = case("llama")
    for side in ("right", "left"):
        rows = []
        for row, logits in zip(one.rows, one.logits, strict=True):
            pads = {"input_ids": 0, "attention_mask": 0, "labels": -100}
            made = {n: [*v, pads[n]] if side == "right" else [pads[n], *v] for n, v in row.items()}
            empty = [0.0] * 32
            made["teacher_logits"] = [*logits.tolist(), empty] if side == "right" else [empty, *logits.tolist()]
            rows.append(made)
        expected = trained(tmp_path / "a", one, one.rows, one.teacher)[1]
        found = trained(tmp_path / "b", one, rows, "column:teacher_logits", collator=seq2seq(side))[1]
        assert found == pytest.approx(expected, rel=1e-5)


def test_rows_without_a_teacher_can_be_predicted_but_not_evaluated(tmp_path):
    one = case("one")
    run = trained(tmp_path, one, one.columns(), "column:teacher_logits")[0]
    plain = [{n: value for n, value in row.items() if n != "labels"} for row in one.rows]
    assert run.predict(Dataset.from_list(plain)).predictions.shape == (8, 3)
    with pytest.raises(
        ValueError, match=r"the teacher is the column teacher_logits, the batch has \[.*\]: give these rows"
    ):
        run.evaluate(Dataset.from_list(one.rows))


def test_a_column_of_that_name_is_not_taken_for_the_teachers_own_tokens(tmp_path):
    """``teacher_input_ids`` is what a teacher reads; ``teacher_logits`` is not, whoever else reads the batch."""
    one = case("llama")

    def pad(rows):
        batch = one.collator([{n: v for n, v in row.items() if n != "teacher_logits"} for row in rows])
        width = batch["input_ids"].shape[1]
        each = [
            F.pad(torch.tensor(row["teacher_logits"]), (0, 0, 0, width - len(row["teacher_logits"]))) for row in rows
        ]
        return {**batch, "teacher_logits": torch.stack(each)}

    expected = trained(tmp_path / "a", one, one.rows, one.teacher)[1]
    teacher = FunctionTeacher(lambda batch: batch["teacher_logits"], columns=["teacher_logits"])
    assert trained(tmp_path / "b", one, one.columns(), teacher, collator=pad)[1] == pytest.approx(expected, rel=1e-5)
    assert trained(tmp_path / "c", one, one.columns(), "column:teacher_logits", collator=pad)[1] == pytest.approx(
        expected, rel=1e-5
    )
    both = {"live": one.teacher, "kept": "column:teacher_logits"}
    assert trained(tmp_path / "d", one, one.columns(), both)[1] == pytest.approx(expected, rel=1e-5)
    auto = trained(tmp_path / "e", one, one.columns(), one.teacher, objective="auto", remove_unused_columns=True)
    assert set(auto[0].distillation.objective.terms) == {"forward_kl", "hidden_mse"}


def test_a_collator_that_lays_the_column_itself_is_left_to_it(tmp_path):
    one = case("one")

    def own(rows):
        logits = torch.tensor([row["teacher_logits"] for row in rows])
        batch = one.collator([{n: v for n, v in row.items() if n != "teacher_logits"} for row in rows])
        return {**batch, "teacher_logits": logits}

    expected = trained(tmp_path / "a", one, one.rows, one.teacher)[1]
    found = trained(tmp_path / "b", one, one.columns(), "column:teacher_logits", collator=own)[1]
    assert found == pytest.approx(expected, rel=1e-5)


# ---- A few ids ----


def coarse_kl(student, teacher, ids):
    """KL over the ids that are given, and one class for all others, in float64."""
    both = []
    for logits in (teacher, student):
        p = logits.double().softmax(-1)
        both.append(torch.cat((p[ids], (1 - p[ids].sum()).clamp(min=1e-30)[None])))
    p, q = both
    return float((p * (p.log() - q.log())).sum())


def expected_kl(one, rows, shift):
    total, count = 0.0, 0
    for row, logits in zip(rows, one.logits, strict=True):
        with torch.no_grad():
            read = {n: torch.tensor([row[n]]) for n in ("input_ids", "attention_mask")}
            ours = one.student.eval()(**read, **({} if shift else {"labels": torch.tensor([row["labels"]])})).logits[0]
        for position, ids in enumerate(row["ids"]):
            label = [*row["labels"], -100][position + shift]
            if label != -100:
                total, count = total + coarse_kl(ours[position], logits[position], ids), count + 1
    return total / count


@pytest.mark.parametrize("name", ["llama", "llama left", "t5", "tokens"])
@pytest.mark.parametrize("ragged", [False, True])
def test_a_few_ids_are_compared_with_one_class_for_all_others(tmp_path, name, ragged):
    one = case(name)
    most = 1 if name == "tokens" else 5
    rows = one.few((lambda position: 1 + position % (most + 1)) if ragged else (lambda position: most))
    found = trained(tmp_path, one, rows, "column:ids,logprobs")[1]
    wanted = expected_kl(one, rows, shift=int(name.startswith("llama")))
    assert found["loss/forward_kl"] == pytest.approx(wanted, rel=1e-4)
    sizes = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    runs = [trained(tmp_path, one, Dataset.from_list(rows), "column:ids,logprobs", **some) for some in ({}, sizes)]
    assert runs[1][1] == pytest.approx(runs[0][1], rel=1e-5)
    assert tiny.relative(runs[1][2], runs[0][2]) < 1e-5
    whole = trained(tmp_path, one, one.rows, one.teacher)[1]["loss/forward_kl"]
    assert 0 < found["loss/forward_kl"] < whole  # a lower bound, as it says


def test_a_row_with_a_class_has_one_list(tmp_path):
    one = case("one")
    rows, total = [], 0.0
    for row, logits in zip(one.rows, one.logits, strict=True):
        ids = logits.topk(2).indices.tolist()
        rows.append({**row, "ids": ids, "logprobs": logits.log_softmax(-1)[ids].tolist()})
        with torch.no_grad():
            ours = one.student.eval()(torch.tensor([row["input_ids"]])).logits[0]
        total += coarse_kl(ours, logits, ids)  # of three classes the third is the only other: nothing is lost
    found = trained(tmp_path, one, rows, "column:ids,logprobs")[1]["loss/forward_kl"]
    assert found == pytest.approx(total / 8, rel=1e-4)
    assert found == pytest.approx(trained(tmp_path, one, one.rows, one.teacher)[1]["loss/forward_kl"], rel=1e-4)


@pytest.mark.parametrize("objective", ["forward_kl", "reverse_kl", "jsd", "top1_cross_entropy"])
def test_all_ids_are_the_whole_teacher_and_a_row_may_have_fewer(tmp_path, objective):
    one = case("tokens")
    whole = trained(tmp_path / "a", one, one.rows, one.teacher, objective)
    found = trained(tmp_path / "b", one, one.few(lambda position: 3), "column:ids,logprobs", objective)
    assert found[1] == pytest.approx(whole[1], rel=1e-4)
    assert tiny.relative(found[2], whole[2]) < 1e-4
    fewer = trained(tmp_path / "c", one, one.few(lambda position: 2 + position % 2), "column:ids,logprobs", objective)
    assert fewer[1] == pytest.approx(whole[1], rel=1e-4)  # of three classes two say the third
    assert tiny.relative(fewer[2], whole[2]) < 1e-4


def test_an_id_without_probability_is_one_of_the_others(tmp_path):
    one = case("llama")
    rows = one.few(lambda position: 3)
    for row in rows:
        row["ids"] = [
            [(ids[0] + 1) % 32 if (ids[0] + 1) % 32 not in ids else 31, *ids] if ids else None for ids in row["ids"]
        ]
        row["logprobs"] = [[-math.inf, *logs] if logs else None for logs in row["logprobs"]]
    plain = trained(tmp_path / "a", one, one.few(lambda position: 3), "column:ids,logprobs")
    found = trained(tmp_path / "b", one, rows, "column:ids,logprobs")
    assert found[1] == pytest.approx(plain[1], rel=1e-6)
    assert tiny.relative(found[2], plain[2]) < 1e-6


# ---- Refusals ----


def refused(folder, rows, told, teacher="column:ids,logprobs", one=None, train=True, **parts):
    one = one or case("llama")
    args = {"max_steps": 1, "temperature": 1.0, "per_device_train_batch_size": 8, **parts.pop("args", {})}

    def start():
        collator = parts.pop("collator", one.collator)
        run = tiny.trainer(
            folder, one.student, rows, teacher_model=teacher, data_collator=collator, args=args, **parts
        )  # fmt: skip
        assert train, "it was not refused before training"
        run.train()

    with pytest.raises(ValueError, match=told) as raised:
        start()
    assert "\n" not in str(raised.value)


def changed(change, row=2, rows=None):
    rows = rows if rows is not None else case("llama").few()
    change(rows[row])
    return rows


WRONG = {
    "no entries where a token counts": (
        lambda row: (row["ids"].__setitem__(3, []), row["logprobs"].__setitem__(3, [])),
        r"row 2 of the batch, position 3, has no id in ids and logprobs: give it some, or label the token -100 that",
    ),
    "other lists": (
        lambda row: row["logprobs"].__setitem__(2, [-1.0]),
        "row 2 of a batch has other lists of 'ids' than of 'logprobs': give each id its log-probability",
    ),
    "an id twice": (
        lambda row: row["ids"].__setitem__(2, [5, 5, 6, 7, 8]),
        "position 2, has an id twice in ids and logprobs: correct the column",
    ),
    "an id of another vocabulary": (
        lambda row: row["ids"].__setitem__(2, [5, 6, 7, 8, 32]),
        "position 2, has an id that is none of 32 in ids and logprobs: correct",
    ),
    "probabilities": (
        lambda row: row["logprobs"].__setitem__(2, [0.1, 0.2, 0.3, 0.2, 0.1]),
        "position 2, has probabilities of more than 1 together in .*: give natural logarithms of probabilities",
    ),
    "NaN": (lambda row: row["logprobs"][2].__setitem__(0, math.nan), r"gave infinite or NaN logits for rows \[2\]"),
    "another length": (
        lambda row: (row["ids"].pop(), row["logprobs"].pop()),
        r"row 2 of a batch has 'ids' for \d tokens, and, in a batch that is \d wide, \d tokens: give one entry",
    ),
    "no column": (
        lambda row: row.pop("logprobs"),
        "row 2 of a batch has no 'logprobs', which others have: give each row",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_entries_that_nothing_could_be_learned_from_are_one_sentence(tmp_path, wrong):
    change, told = WRONG[wrong]
    refused(
        tmp_path,
        changed(change),
        told,
        args={"per_device_train_batch_size": 8, "train_sampling_strategy": "sequential"},
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda row: row["teacher_logits"].pop(),
            "'teacher_logits' for . tokens, and, in a batch that is . wide, . tokens",
        ),
        (
            lambda row: row["teacher_logits"].__setitem__(1, [0.5]),
            "of lists of different lengths: give it as many logits as",
        ),
        (lambda row: row["teacher_logits"].__setitem__(1, None), "of lists of different lengths"),
        (
            lambda row: row.update(teacher_logits=[0.5] * 32),
            r"of the shape \[32\]: give it as many .* for each of its tok",
        ),
        (lambda row: row.update(teacher_logits=None), "row 2 of a batch has no 'teacher_logits', which others have"),
    ],
)
def test_logits_that_have_no_place_are_one_sentence(tmp_path, change, told):
    refused(
        tmp_path, changed(change, rows=case("llama").columns()), told, "column:teacher_logits",
        args={"train_sampling_strategy": "sequential"},
    )  # fmt: skip


def test_classes_of_another_number_are_one_sentence(tmp_path):
    one = case("one")
    rows = one.columns()
    refused(tmp_path, changed(lambda row: row["teacher_logits"].pop(), rows=rows), r"of the shape \[2\]: give it",
            "column:teacher_logits", one)  # fmt: skip
    for row in one.rows:
        row["teacher_logits"] = [0.0, 1.0]
    refused(
        tmp_path,
        one.rows,
        r"the teacher gave logits of shape \[.*2\], the student \[.*3\]",
        "column:teacher_logits",
        one,
    )


@pytest.mark.parametrize("kind", [list, Dataset.from_list])
def test_a_data_set_without_the_column_is_refused_before_training(tmp_path, kind):
    one, parts = case("one"), {"teacher": "column:teacher_logits", "train": False}
    told = r"the teacher is the column teacher_logits, the {} has the columns \[.*\]: add 'teacher_logits'\.$"
    refused(tmp_path, kind(one.rows), told.format("training set"), one=one, **parts)
    good, bad = (kind(rows) for rows in (one.columns(), one.rows))
    steps = {"eval_strategy": "steps"}
    refused(tmp_path, good, told.format("evaluation set"), one=one, eval_dataset=bad, args=steps, **parts)
    some = {"a": good, "b": bad}
    refused(tmp_path, good, told.format("evaluation set 'b'"), one=one, eval_dataset=some, args=steps, **parts)
    later = Dataset.from_list(one.columns()).with_transform(lambda batch: batch)
    tiny.trainer(tmp_path, one.student, later, teacher_model="column:teacher_logits", eval_dataset=bad)


def test_what_a_few_ids_or_old_answers_cannot_serve_is_refused_before_training(tmp_path):
    rows = case("llama").few()
    refused(tmp_path, rows, "ForwardKL was asked for temperature 2, the teacher's few ids were kept at 1 and hold",
            args={"temperature": 2.0}, train=False)  # fmt: skip
    refused(tmp_path, rows, "LogitMSE compares whole logits, of which the teacher keeps a few", objective="logit_mse",
            train=False)  # fmt: skip
    refused(tmp_path, rows, r"the objective needs \['hidden'\], the teacher columns ids and logprobs serves \['hea",
            objective="hidden_mse", train=False)  # fmt: skip
    refused(tmp_path, rows, "makes new rows, the columns ids and logprobs answer the old ones alone: leave rollout",
            rollout={"on_policy": 0.5, "max_new_tokens": 4}, train=False)  # fmt: skip
    one = case("one")
    refused(tmp_path, one.columns(), "augmentation='mask' makes new rows, .*: leave augmentation out, or pass the",
            "column:teacher_logits", one, args={"augmentation": "mask"}, train=False)  # fmt: skip
    for name in ("some", "number"):
        one = case(name)
        rows = [{**row, "ids": [0], "logprobs": [-1.0]} for row in one.rows]
        refused(tmp_path, rows, "the student's problem is .*: give a column of logits", one=one, train=False)
    spans = tiny_tasks.CASES["spans"]
    with pytest.raises(
        ValueError, match="was given to QuestionAnswering, which has not one head of logits: pass a FunctionT"
    ):
        tiny_tasks.trainer(tmp_path, "spans", spans.rows(), teacher_model="column:teacher_logits")


def test_rows_that_a_collator_joins_have_no_place_for_their_answers(tmp_path):
    one = case("llama")
    refused(tmp_path, one.columns(), "the collator made 1 rows of 8, among which the teacher's answers have no place",
            "column:teacher_logits", one, collator=DataCollatorWithFlattening())  # fmt: skip


def test_the_whole_is_the_sum_that_the_functions_give():
    """The reference of the tests above against the one formula of the package, on all classes."""
    student, teacher = torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
    assert coarse_kl(student, teacher, list(range(8))) == pytest.approx(
        forward_kl(student[None], teacher[None]).item(), rel=1e-5
    )
