"""A student that reads what its teacher showed: asked for it in every call, exact, kept, resumed, refused early."""

import numpy as np
import pytest
import tiny
import tiny_language
import torch
from tiny_reads import READS, Reader, Reading, made
from torch import nn
from transformers import DataCollatorForSeq2Seq, DataCollatorWithPadding, Trainer

from hf_distill import (
    CausalLM,
    FunctionTeacher,
    LiveTeacher,
    Seq2SeqDistillationTrainer,
    Seq2SeqDistillationTrainingArguments,
    SequenceClassification,
    Several,
)
from hf_distill.signals import DenseLogits
from hf_distill.teachers.around import TeacherAround


class Asked(TeacherAround):
    """Notes what a teacher is asked for."""

    def __init__(self, teacher):
        self.teacher, self.facts, self.serves, self.columns = teacher, teacher.facts, teacher.serves, teacher.columns
        self.needs = []

    def prepare(self, trainer):
        self.teacher.prepare(trainer)

    def __call__(self, batch, needs):
        self.needs.append(needs)
        return self.teacher(batch, needs)


def step(folder, reads, size, accumulation, **args):
    seen = tiny.Gradients()
    sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    run = made(folder, reads, {**sizes, **args}, callbacks=[seen])
    run.train()
    return {k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first


def by_hand(run, batch):
    """What the student answers if it is given what the teacher says of the batch."""
    asked = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        shown = run.teacher.model(**asked, output_hidden_states=True)
        told = shown.hidden_states[-1][:, 0] if "hidden" in run.task.reads else shown.logits
        return run.model.eval()(**asked, told=told)["logits"]


def collated(rows):
    return dict(DataCollatorWithPadding(tiny.tokenizer())([dict(row) for row in rows]))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("reads", READS)
def test_8_x_1_equals_2_x_4(tmp_path, reads, alpha):
    whole = step(tmp_path, reads, 8, 1, alpha=alpha)
    assert float(whole[1]["teacher.weight"].abs().max()) > 1e-3  # what is read is used
    for size, accumulation in ((2, 4), (3, 3)):
        cut = step(tmp_path, reads, size, accumulation, alpha=alpha)
        assert cut[0] == pytest.approx(whole[0], rel=1e-5)
        assert tiny.relative(cut[1], whole[1]) < 1e-5


@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("reads", READS)
def test_a_kept_teacher_equals_a_live_one(tmp_path, reads, alpha):
    found = {}
    for cache in ("off", "auto"):
        args = {"max_steps": -1, "num_train_epochs": 3, "teacher_cache": cache, "per_device_train_batch_size": 4}
        run = made(
            tmp_path / cache, reads, {**args, "alpha": alpha, "eval_strategy": "epoch"}, eval_dataset=tiny.rows()
        )
        run.train()
        found[cache] = tiny.losses(run) + tiny.losses(run, "eval_loss")
    assert len(run.teacher.memory) == 8
    assert found["auto"] == pytest.approx(found["off"], rel=1e-5)


def test_with_alpha_0_the_teacher_shows_what_is_read_and_nothing_is_compared(tmp_path):
    teacher = Asked(LiveTeacher(tiny.teacher()))
    run = made(tmp_path, "hidden", {"alpha": 0.0, "teacher_cache": "off"}, teacher_model=teacher)
    run.train()
    assert set(teacher.needs) == {frozenset({"hidden"})}
    assert {name for entry in run.state.log_history for name in entry if name.startswith("loss/")} == {"loss/hard"}
    batch = collated(tiny.rows())
    wanted = nn.functional.cross_entropy(by_hand(run, batch), batch["labels"])
    assert run.evaluate(tiny.rows())["eval_loss"] == pytest.approx(wanted.item(), rel=1e-5)


def test_what_is_read_is_asked_for_beside_what_is_compared(tmp_path):
    teacher = Asked(LiveTeacher(tiny.teacher()))
    run = made(tmp_path, "hidden", {"alpha": 0.5, "teacher_cache": "off"}, teacher_model=teacher)
    run.train()
    assert set(teacher.needs) == {frozenset({"heads", "hidden"})}
    given = dict(run.task.given)
    assert given["BertForSequenceClassification"] is None  # the teacher's own call
    assert not any(state.requires_grad for state in given["Reader"].hidden)


class Trainable(TeacherAround):
    """A teacher that somebody else trains."""

    def __init__(self, model):
        self.teacher = LiveTeacher(model)
        self.facts, self.serves, self.columns = self.teacher.facts, self.teacher.serves, self.teacher.columns

    def prepare(self, trainer):
        self.teacher.prepare(trainer)

    def __call__(self, batch, needs):
        self.teacher.model.requires_grad_(True)
        outputs = self.teacher.model(batch["input_ids"], batch["attention_mask"], output_hidden_states=True)
        return self.teacher.task.read(self.teacher.model, batch, outputs)


def test_what_is_read_has_no_gradient_whoever_shows_it(tmp_path):
    model = tiny.teacher()
    run = made(tmp_path, args={"teacher_cache": "off", "max_steps": 1}, teacher_model=Trainable(model))
    run.train()
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("reads", READS)
def test_a_student_predicts_with_labels_and_without(tmp_path, reads, alpha):
    run, rows = made(tmp_path, reads, {"alpha": alpha, "per_device_eval_batch_size": 8}), tiny.rows()
    wanted = by_hand(run, collated(rows)).numpy()
    bare = [{name: value for name, value in row.items() if name != "labels"} for row in rows]
    assert np.allclose(run.predict(rows).predictions, wanted, atol=1e-6)
    assert np.allclose(run.predict(bare).predictions, wanted, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, alpha):
    def run(folder):
        args = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "alpha": alpha, "teacher_cache": "auto"}
        return made(folder, args={**args, "per_device_train_batch_size": 2}, dropout=0.2)

    whole = run(tmp_path / "whole")
    whole.train()
    resumed = run(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert tiny.losses(resumed) == tiny.losses(whole)
    assert all(torch.equal(a, b) for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True))


def test_one_of_several_teachers_is_read_by_its_name(tmp_path):
    task = Reading("hidden@big")
    several = Several({"small": tiny.bert(seed=5), "big": tiny.teacher()})
    run = made(tmp_path, task=task, teacher_model=several, args={"alpha": 0.5})
    run.train()
    assert list(dict(task.given)["Reader"].named) == ["small", "big"]
    alone = Reading("hidden@big")
    made(tmp_path, task=alone, teacher_model=several, args={"alpha": 0.0}).train()
    assert list(dict(alone.given)["Reader"].named) == ["big"]  # nobody else is asked


class OwnLoss(Reader):
    """Is given its labels and what its teacher showed, and takes the mean over the rows itself."""

    def forward(self, input_ids, told, attention_mask=None, labels=None):
        outputs = super().forward(input_ids, told, attention_mask)
        loss = None if labels is None else 3 * nn.functional.cross_entropy(outputs["logits"], labels)
        return {**({} if loss is None else {"loss": loss}), **outputs}


def test_a_student_with_a_loss_of_its_own_reads_too(tmp_path):
    found = []
    for student, own in ((OwnLoss(24), True), (Reader(24), False)):
        task = Reading("hidden")
        task.own_loss = own
        run = made(tmp_path, student=student, task=task, args={"max_steps": 1, "per_device_train_batch_size": 3})
        run.train()
        found.append(run.state.log_history[0]["loss/hard"])
    assert found[0] == pytest.approx(3 * found[1], rel=1e-5)


class Peeking(CausalLM):
    """Reads its teacher's logits, and does nothing with them."""

    reads = frozenset({"heads"})

    def inputs(self, model, fed, batch, teacher=None):
        self.seen = [*getattr(self, "seen", []), teacher]
        return fed


def test_logits_that_a_student_reads_are_made_whole(tmp_path):
    task = Peeking()
    run = tiny.trainer(
        tmp_path, tiny_language.llama(), tiny_language.texts(), task=task, teacher_model=tiny_language.teacher(),
        data_collator=DataCollatorForSeq2Seq(tiny_language.tokenizer()), args={"fused_logits": "on", "max_steps": 1},
    )  # fmt: skip
    run.train()
    shown = [one.heads["logits"].logits for one in task.seen if one is not None]
    assert {type(one) for one in shown} == {DenseLogits}
    assert all(one.shape[-1] > 1 for one in shown)


def look_up(batch):
    return torch.zeros(len(batch["input_ids"]), 3)


class Deaf(Reading):
    """Says that it reads, and takes nothing."""

    def inputs(self, model, fed, batch):
        return fed


@pytest.mark.parametrize(
    ("told", "parts"),
    [
        (
            r"lets the student read hidden of its teacher, but there is none: pass teacher_model",
            {"teacher_model": None},
        ),
        (
            r"lets the student read \['hidden'\] of its teacher, look_up serves \['heads'\]: pass",
            {"teacher_model": FunctionTeacher(look_up)},
        ),
        (r"Deaf lets the student read hidden of its teacher, but its inputs\(\) takes", {"task": Deaf("hidden")}),
    ],
)
def test_what_cannot_be_read_is_refused_before_the_first_step(tmp_path, told, parts):
    with pytest.raises(ValueError, match=told):
        made(tmp_path, **parts)


def test_a_few_ids_are_no_logits_to_read(tmp_path):
    few = Asked(LiveTeacher(tiny.teacher()))
    few.temperature = 2.0
    with pytest.raises(ValueError, match=r"lets the student read its teacher's logits, of which .* keeps a few ids"):
        made(tmp_path, "heads", teacher_model=few, args={"teacher_cache": "off", "temperature": 2.0})


@pytest.mark.parametrize(
    ("told", "settings", "rollout"),
    [
        ("on_policy=1 lets the student write, which reads heads of its teacher", {}, {"on_policy": 1.0}),
        ("predict_with_generate was asked for a student that reads", {"predict_with_generate": True}, None),
    ],
)
def test_a_student_that_reads_does_not_write(tmp_path, told, settings, rollout):
    args = tiny.arguments(tmp_path, Seq2SeqDistillationTrainingArguments, **settings)
    parts = {"data_collator": DataCollatorForSeq2Seq(tiny_language.tokenizer()), "rollout": rollout}
    parts |= {"task": Peeking(), "teacher_model": tiny_language.teacher(), "plain_args": args}
    with pytest.raises(ValueError, match=told):
        tiny.trainer(tmp_path, tiny_language.llama(), tiny_language.texts(), Seq2SeqDistillationTrainer, **parts)


def test_a_task_that_reads_nothing_needs_no_argument_for_it(tmp_path):
    class Old(SequenceClassification):
        def inputs(self, model, fed, batch):
            return dict(fed)

    run = tiny.trainer(tmp_path, task=Old(3), teacher_model=tiny.teacher(), args={"max_steps": 1})
    run.train()
    assert issubclass(type(run), Trainer)
    assert np.isfinite(run.evaluate(tiny.rows())["eval_loss"])
