"""Trainings on what the students and teachers wrote: which rows, what is counted, what is the same."""

import copy
import json
import logging

import peft
import pytest
import runs
import tiny
import tiny_language
import torch
from default_run import slow_but
from runs import KINDS, MIXED, step, trainer

from hf_distill import AdapterOffTeacher, Rollout
from hf_distill.rollouts.draws import draw
from hf_distill.tasks.supervision import STUDENT_WROTE, supervised

GREEDY = {**MIXED, "do_sample": False}


def continued(model, row, kind):
    """What a model writes for one row alone, greedily."""
    prompt = row["input_ids"][:2] if kind == "llama" else row["input_ids"]
    text = model.eval().generate(
        torch.tensor([prompt]), max_new_tokens=6, do_sample=False, suppress_tokens=tiny_language.PADDING
    )
    return text[0, len(prompt) if kind == "llama" else 1 :].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_that_chance_names_are_written_anew_and_no_other(tmp_path, kind):
    make, rows = KINDS[kind]
    run = trainer(tmp_path, kind, GREEDY, args={"max_steps": 1})
    run.train()
    ((batch,),), writers = run.seen, []
    for number, row in enumerate(rows()):
        writer = draw(Rollout(**GREEDY), 42, 0, number).writer
        writers.append(writer)
        if writer:
            text = continued(make() if writer == "student" else tiny_language.teacher(make), row, kind)
            row["labels"] = [-100, -100, *text] if kind == "llama" else text
            row["input_ids"] = [*row["input_ids"][:2], *text] if kind == "llama" else row["input_ids"]
        labels = batch["labels"][number].tolist()
        assert labels == row["labels"] + [-100] * (len(labels) - len(row["labels"]))
        real = batch["attention_mask"][number].bool()
        assert batch["input_ids"][number][real].tolist() == row["input_ids"]
        assert real.tolist() == sorted(real.tolist(), reverse=True)
    assert {"student", "teacher", ""} == set(writers)
    assert batch[STUDENT_WROTE].tolist() == [writer == "student" for writer in writers]
    logged = run.state.log_history[0]
    assert logged["rollout/student"] == writers.count("student") / 8
    assert logged["rollout/teacher"] == writers.count("teacher") / 8
    assert run.items[0] == (supervised(batch)["labels"][:, 1 if kind == "llama" else 0 :] != -100).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_the_supervised_loss_leaves_out_what_the_student_wrote_and_the_terms_do_not(tmp_path, kind):
    parts, gradients = step(tmp_path, kind, rollout=MIXED, args={"alpha": 0.5})
    run = trainer(tmp_path, kind, MIXED, args={"max_steps": 1, "learning_rate": 0.0})
    run.train()
    batch, student, teacher = run.seen[0][0], KINDS[kind][0](), tiny_language.teacher(KINDS[kind][0]).eval()
    fed = {name: value for name, value in batch.items() if name != STUDENT_WROTE}
    logits, wanted = student(**fed).logits, teacher(**fed).logits.detach()
    labels, wrote = batch["labels"], batch[STUDENT_WROTE]
    if kind == "llama":
        logits, wanted, labels = logits[:, :-1], wanted[:, :-1], labels[:, 1:]
    known = labels != -100
    right = known & ~wrote[:, None]
    assert 0 < right.sum() < known.sum()
    hard = torch.nn.functional.cross_entropy(logits[right], labels[right])
    assert parts["loss/hard"] == pytest.approx(hard.item(), rel=1e-5)
    p = (wanted[known] / 2).log_softmax(-1)
    kl = 4 * (p.exp() * (p - (logits[known] / 2).log_softmax(-1))).sum(-1).mean()
    assert parts["loss/forward_kl"] == pytest.approx(kl.item(), rel=1e-5)
    (0.5 * hard + 0.5 * kl).backward()
    assert tiny.relative(gradients, {n: p.grad for n, p in student.named_parameters() if p.grad is not None}) < 1e-5


def test_a_step_of_the_students_own_rows_has_no_supervised_loss(tmp_path):
    parts, gradients = step(tmp_path, rollout={"on_policy": 1.0, "max_new_tokens": 6}, size=2, accumulation=4)
    assert parts["loss/hard"] == 0
    assert parts["rollout/student"] == 1
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    for more in ({"args": {"label_smoothing_factor": 0.1}}, {"compute_loss_func": own_loss}):
        assert step(tmp_path, rollout={"on_policy": 1.0, "max_new_tokens": 6}, **more)[0]["loss/hard"] == 0


def own_loss(outputs, labels, num_items_in_batch=None):
    logits, targets = outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    total = torch.nn.functional.cross_entropy(logits, targets, ignore_index=-100, reduction="sum")
    return total / max(int(num_items_in_batch), 1)


@pytest.mark.parametrize("options", [{"do_sample": False}, {"temperature": 1.3}])
@pytest.mark.parametrize("kind", KINDS)
def test_8_x_1_equals_2_x_4_also_where_tokens_are_drawn(tmp_path, kind, options):
    whole = step(tmp_path / "whole", kind, rollout={**MIXED, **options})
    assert 0 < whole[0]["rollout/student"] < 1
    for size, accumulation in ((2, 4), (3, 3)):
        parts, gradients = step(tmp_path / str(size), kind, size, accumulation, rollout={**MIXED, **options})
        assert parts == pytest.approx(whole[0], rel=1e-5)
        assert tiny.relative(gradients, whole[1]) < 1e-5


@pytest.mark.parametrize("kind", slow_but(["llama"], KINDS))
def test_a_skew_of_each_text_and_who_wrote_it_are_the_same_however_a_step_is_cut(tmp_path, kind):
    objective = {"distillm2": {"anchors": [0.01, 0.01]}}
    whole = step(tmp_path / "whole", kind, rollout=MIXED, objective=objective)
    assert 0 < whole[0]["rollout/student"] < 1
    parts, gradients = step(tmp_path / "cut", kind, 2, 4, rollout=MIXED, objective=objective)
    assert parts == pytest.approx(whole[0], rel=1e-5)
    assert tiny.relative(gradients, whole[1]) < 1e-5


def test_sequence_level_distillation_is_training_on_the_teachers_texts(tmp_path):
    """alpha=0 is Kim & Rush: plain training on what the teacher wrote, which never costs a forward of it."""
    data = []
    for row in tiny_language.texts():
        text = continued(tiny_language.teacher(), row, "llama")
        ids = [*row["input_ids"][:2], *text]
        data.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [-100, -100, *text]})
    found = step(tmp_path / "written", rollout={"seq_kd": 1.0, "max_new_tokens": 6}, args={"alpha": 0.0})
    wanted = step(tmp_path / "given", rollout=None, data=data, teacher_model=None)
    assert found[0]["loss"] == pytest.approx(wanted[0]["loss"], rel=1e-6)
    assert tiny.relative(found[1], wanted[1]) < 1e-6


class Counted:
    """How many rows a model was asked to continue."""

    def __init__(self, model):
        self.rows, generate = 0, model.generate

        def counting(**inputs):
            self.rows += len(inputs["input_ids"])
            return generate(**inputs)

        model.generate = counting


def test_the_teacher_writes_each_prompt_once(tmp_path):
    data = [*tiny_language.texts(), *copy.deepcopy(tiny_language.texts(4))]  # four prompts come twice
    rollout, losses = {"seq_kd": 1.0, "max_new_tokens": 6, "folder": str(tmp_path / "texts")}, []
    for asked in (12 - 4, 0):  # the second run finds all in the folder
        teacher = tiny_language.teacher()
        counted = Counted(teacher)
        run = trainer(tmp_path, rollout=rollout, data=data, teacher_model=teacher, args={"max_steps": 6})
        run.train()
        assert counted.rows == asked
        losses.append(tiny.losses(run))
    assert losses[0] == losses[1]
    other = tiny_language.teacher(initializer_range=0.2)
    counted = Counted(other)
    trainer(tmp_path, rollout=rollout, data=data, teacher_model=other, args={"max_steps": 2}).train()
    assert counted.rows == 8  # another teacher's texts are not its own


@pytest.mark.parametrize("objective", ["reverse_kl", {"jsd": {"weight": 1.0, "beta": 0.5}}])
@pytest.mark.parametrize("kind", slow_but(["llama"], KINDS))
def test_a_student_learns_on_its_own_texts(tmp_path, kind, objective):
    args = {"max_steps": 25, "alpha": 1.0, "learning_rate": 2e-2}
    run = trainer(tmp_path, kind, {"on_policy": 1.0, "max_new_tokens": 6}, objective=objective, args=args)
    run.train()
    losses = tiny.losses(run)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_a_resumed_run_goes_on_with_the_same_texts(tmp_path):
    saving = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "per_device_train_batch_size": 4}
    run = trainer(tmp_path, args=saving)
    run.train()
    teacher = tiny_language.teacher()
    counted = Counted(teacher)
    again = trainer(tmp_path, teacher_model=teacher, args=saving)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert tiny.losses(again) == pytest.approx(tiny.losses(run), rel=1e-6)
    assert len(again.seen) == 3
    for one, other in zip(again.seen, run.seen[3:], strict=True):
        assert torch.equal(one[0]["input_ids"], other[0]["input_ids"])
    assert counted.rows == 0
    other = trainer(tmp_path / "other", args={**saving, "seed": 1})
    other.train()
    assert tiny.losses(other) != pytest.approx(tiny.losses(run), rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_and_prediction_see_the_rows_as_they_are(tmp_path, kind):
    rows, found = KINDS[kind][1](6, seed=9), []
    for rollout in (MIXED, None):
        run = trainer(tmp_path, kind, rollout, eval_dataset=rows)
        before = run.evaluate()
        assert run.seen == []
        found.append((before["eval_loss"], before["eval_loss/hard"], before["eval_loss/forward_kl"]))
        predicted = run.predict(rows).predictions
        found[-1] += tuple(
            torch.tensor(predicted[0] if isinstance(predicted, tuple) else predicted).sum(-1)[0].tolist()
        )
    assert found[0] == found[1]


def test_the_student_is_left_in_the_mode_it_was_in(tmp_path):
    student = tiny_language.llama(attention_dropout=0.1)
    run = trainer(tmp_path, student=student, args={tiny.CHECKPOINTING: True, "max_steps": 1})
    student.train()
    student.model.layers[0].mlp.eval()
    modes, own = {name: module.training for name, module in student.named_modules()}, student.generation_config
    random = torch.get_rng_state()
    batch = run.data_collator(tiny_language.texts())
    run.rollouts.given = Rollout(on_policy=1.0, max_new_tokens=4)
    run.rollouts.rewrite([dict(batch)], 1, 0, run.alpha, 1, run._now())
    assert {name: module.training for name, module in student.named_modules()} == modes
    assert student.generation_config is own
    assert torch.equal(torch.get_rng_state(), random)  # dropout goes on as without rollouts
    run.train()


def test_checkpointing_and_a_cached_teacher_change_nothing(tmp_path):
    plain = trainer(tmp_path / "a", args={"max_steps": 6, "teacher_cache": "off"})
    plain.train()
    for name, args in {"b": {tiny.CHECKPOINTING: True}, "c": {"teacher_whole_window": True}}.items():
        run = trainer(tmp_path / name, args={"max_steps": 6, **args})
        run.train()
        assert tiny.losses(run) == pytest.approx(tiny.losses(plain), rel=1e-5)
    assert len(run.teacher.memory) <= 16  # the rows and the teacher's texts; the student's never come again


def test_what_a_student_writes_is_not_kept_and_says_nothing_about_the_other_rows(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        run = trainer(tmp_path, rollout={"on_policy": 1.0, "max_new_tokens": 6}, args={"max_steps": 4})
        run.train()
    assert len(run.teacher.memory) == 0
    assert not run.teacher.watch.stopped  # an evaluation may still find its rows
    assert not [record for record in caplog.records if "seen before" in record.message]


def test_a_lora_student_writes_and_its_base_may_teach(tmp_path):
    torch.manual_seed(3)
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    for teacher in (tiny_language.teacher(), AdapterOffTeacher()):
        student = peft.get_peft_model(tiny_language.llama(), copy.deepcopy(config))
        run = trainer(tmp_path, rollout=GREEDY, student=student, teacher_model=teacher, args={"max_steps": 8})
        run.train()
        assert tiny.losses(run)[-1] < tiny.losses(run)[0]
    base, student = tiny_language.llama(), peft.get_peft_model(tiny_language.llama(), copy.deepcopy(config))
    run = trainer(
        tmp_path / "first", rollout=GREEDY, student=student, teacher_model=AdapterOffTeacher(), args={"max_steps": 1}
    )
    run.train()
    rows = tiny_language.texts()
    number = next(i for i in range(8) if draw(Rollout(**GREEDY), 42, 0, i).writer == "teacher")
    labels = [token for token in run.seen[0][0]["labels"][number].tolist() if token != -100]
    assert labels == continued(base, rows[number], "llama")


def test_prompts_without_an_answer_are_completed_or_counted(tmp_path, caplog):
    data = [dict(row) for row in tiny_language.texts()]
    for row in data[:3]:
        row["labels"] = [-100] * len(row["labels"])
    own = {"on_policy": 1.0, "max_new_tokens": 6}
    parts, _ = step(tmp_path, rollout=own, data=data)
    assert parts["rollout/silent"] == 0
    with caplog.at_level(logging.WARNING):
        run = trainer(tmp_path, rollout={**own, "on_policy": 0.5}, data=data, args={"max_steps": 2})
        run.train()
    silent = sum(not draw(Rollout(on_policy=0.5), 42, 0, row).writer for row in range(3))
    assert run.state.log_history[0]["rollout/silent"] == silent / 8 > 0
    assert sum("has no label and stayed as it came" in record.message for record in caplog.records) == 1


def test_rows_without_a_prompt_stay_and_are_counted(tmp_path, caplog):
    data = [dict(row) for row in tiny_language.texts()]
    data[0]["labels"] = list(data[0]["input_ids"])
    with caplog.at_level(logging.WARNING):
        run = trainer(tmp_path, rollout={"on_policy": 1.0, "max_new_tokens": 6}, data=data, args={"max_steps": 1})
        run.train()
    batch = run.seen[0][0]
    assert batch[STUDENT_WROTE].tolist() == [False] + [True] * 7
    assert [token for token in batch["labels"][0].tolist() if token != -100] == data[0]["input_ids"]
    assert run.state.log_history[0]["rollout/no_prompt"] == 1 / 8
    assert any("has no prompt" in record.message for record in caplog.records)


def test_prompts_alone_are_enough_where_the_student_writes_all(tmp_path):
    data = [{name: row[name] for name in ("input_ids", "attention_mask")} for row in tiny_language.texts()]
    args = {"alpha": 1.0, "max_steps": 1}
    run = trainer(tmp_path, rollout={"on_policy": 1.0, "max_new_tokens": 6}, data=data, args=args)
    run.train()
    assert run.state.log_history[0]["loss/forward_kl"] > 0
    with pytest.raises(ValueError, match=r"alpha=0.5 trains on labels, and a row without any stays as it came"):
        trainer(tmp_path, rollout=MIXED, data=data, args={"max_steps": 1}).train()


def test_what_only_pads_a_head_is_never_written(tmp_path):
    def wide(make, **config):
        model = make(vocab_size=48, **config)
        with torch.no_grad():  # the likeliest by far, in every place
            model.lm_head.weight[32:] = 20 * model.lm_head.weight[:16]
        return model

    student, teacher = wide(tiny_language.llama), wide(tiny_language.teacher)
    run = trainer(
        tmp_path, rollout={"on_policy": 0.5, "seq_kd": 0.5, "max_new_tokens": 6}, student=student,
        teacher_model=teacher, processing_class=tiny_language.tokenizer(), args={"max_steps": 1},
    )  # fmt: skip
    run.train()
    ((batch,),) = run.seen
    assert {"student", "teacher"} == {draw(run.rollouts.asked(run.alpha), 42, 0, row).writer for row in range(8)}
    assert batch["input_ids"].max() < len(tiny_language.tokenizer())


def test_all_batches_of_a_step_get_the_same_columns(tmp_path):
    run = trainer(tmp_path, rollout={"on_policy": 0.5, "max_new_tokens": 4}, args={"alpha": 1.0, "max_steps": 1})
    writers = [draw(Rollout(on_policy=0.5, max_new_tokens=4), 42, 0, row).writer for row in range(8)]
    batches = [{"input_ids": torch.tensor([[5, 6, 7]])} for _ in writers]
    found = run.rollouts.rewrite(batches, 8, 0, run.alpha, 1, run._now())
    assert {"student", ""} == set(writers)
    assert {frozenset(batch) for batch in found} == {
        frozenset(("input_ids", "attention_mask", "labels", STUDENT_WROTE))
    }
    assert [bool(batch[STUDENT_WROTE]) for batch in found] == [writer == "student" for writer in writers]


def test_the_card_says_who_wrote(tmp_path):
    run = trainer(tmp_path, rollout={"on_policy": 0.5, "seq_kd": 0.25, "max_new_tokens": 6}, args={"max_steps": 1})
    run.train()
    run.create_model_card()
    card = (tmp_path / "README.md").read_text()
    told = "50 % written by the student at every step (temperature 1), 25 % written by the teacher, texts of at most 6"
    assert f"- Training samples: {told} tokens\n- Soft term: `forward_kl`" in card


def test_padding_stays_on_its_side(tmp_path):
    run = trainer(tmp_path, rollout=GREEDY, data_collator=runs.collator("left"), args={"max_steps": 1})
    run.train()
    mask = run.seen[0][0]["attention_mask"]
    assert mask[:, -1].all()
    assert not mask.all()
    right = step(tmp_path / "right", rollout=GREEDY)[0]
    assert run.state.log_history[0]["loss/hard"] == pytest.approx(right["loss/hard"], rel=1e-5)


def test_without_a_teacher_that_is_heard_rollouts_are_left_out(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        plain = trainer(tmp_path, rollout=MIXED, teacher_model=None)
        plain.train()
        quiet = trainer(tmp_path, rollout={"on_policy": 1.0}, args={"alpha": 0.0})
        quiet.train()
    assert tiny.losses(plain) == tiny.losses(quiet)
    assert STUDENT_WROTE not in quiet.seen[0][0]
    assert sum("is left out" in record.message for record in caplog.records) == 2


def test_the_arguments_say_it_too_and_the_trainer_comes_first(tmp_path):
    run = trainer(tmp_path, rollout=None, args={"rollout": json.dumps({"on_policy": 1.0, "max_new_tokens": 3})})
    run.train()
    assert run.state.log_history[0]["rollout/student"] == 1
    run = trainer(tmp_path, rollout={"seq_kd": 1.0, "max_new_tokens": 3}, args={"rollout": {"on_policy": 1.0}})
    assert run.rollouts.asked(run.alpha) == Rollout(seq_kd=1.0, max_new_tokens=3)


def test_what_comes_behind_a_first_answer_is_left_out_and_counted(tmp_path, caplog):
    data = [dict(row) for row in tiny_language.texts(8, seed=4)]
    long = [row for row in data if len(row["input_ids"]) > 5]
    for row in long:
        row["labels"] = [-100, -100, row["input_ids"][2], -100, *row["input_ids"][4:]]
    with caplog.at_level(logging.WARNING):
        run = trainer(tmp_path, rollout={"on_policy": 1.0, "max_new_tokens": 6}, data=data, args={"max_steps": 1})
        run.train()
    batch = run.seen[0][0]
    assert run.state.log_history[0]["rollout/shortened"] == len(long) / 8 > 0
    assert sum("has several answers" in record.message for record in caplog.records) == 1
    assert ((batch["labels"] == -100) & batch["attention_mask"].bool()).sum(-1).tolist() == [2] * 8
