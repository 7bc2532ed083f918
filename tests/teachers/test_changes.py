import copy
import functools
import logging
import math
from types import SimpleNamespace

import pytest
import tiny
import torch
from torch import nn
from transformers import TrainerCallback

from hf_distill import FunctionTeacher, LiveTeacher, Teacher
from hf_distill.teachers.changes import Changes, held_in

STEP = torch.tensor([0.5, -0.5, 0.0])


class AfterEachStep(TrainerCallback):
    def __init__(self, change):
        self.change = change

    def on_step_end(self, args, state, control, **kwargs):
        self.change(state.global_step)


def trained(folder, teacher, change, student=None, cache="auto", **args):
    """Three epochs of two steps by a student that stays as it is, so that only the teacher moves."""
    settings = {"learning_rate": 0.0, "alpha": 1.0, "max_steps": -1, "num_train_epochs": 3, "temperature": 1.0}
    parts = {name: args.pop(name) for name in ("eval_dataset",) if name in args}
    run = tiny.trainer(
        folder, student or blank(), data=tiny.rows(8), teacher_model=teacher, callbacks=[AfterEachStep(change)],
        args={**settings, "per_device_train_batch_size": 4, "teacher_cache": cache, **args}, **parts,
    )  # fmt: skip
    run.train()
    return run, tiny.losses(run)


def blank():
    """A model that holds every class for equally likely."""
    model = tiny.bert()
    nn.init.zeros_(model.classifier.weight)
    nn.init.zeros_(model.classifier.bias)
    return model


def right(steps):
    """The divergence of n * (0.5, -0.5, 0) from equal shares, by hand."""
    found = []
    for n in range(steps):
        likely = [math.exp(n * value) for value in STEP.tolist()]
        shares = [one / sum(likely) for one in likely]
        found.append(sum(share * math.log(3 * share) for share in shares))
    return found


def test_a_teacher_that_changes_is_asked_each_time(tmp_path, caplog):
    teacher = blank()

    def change(step):
        with torch.no_grad():
            teacher.classifier.bias.add_(STEP)

    with caplog.at_level(logging.WARNING):
        found = trained(tmp_path, teacher, change)[1]
    assert found == pytest.approx(right(6), abs=1e-6)
    assert caplog.text.count("are not kept: it has changed since it was asked. It is asked each time.") == 1


def test_what_no_version_counter_sees_is_noticed_too(tmp_path):
    teacher = blank()
    teacher.classifier.bias.data.copy_(STEP)

    def change(step):
        teacher.classifier.bias.data.mul_((step + 1) / step)

    assert trained(tmp_path, teacher, change)[1] == pytest.approx(right(7)[1:], abs=1e-6)


def test_a_teacher_that_is_replaced_is_another_one(tmp_path):
    live = LiveTeacher(blank())

    def change(step):
        live.model.classifier.bias = nn.Parameter(step * STEP)

    assert trained(tmp_path, live, change)[1] == pytest.approx(right(6), abs=1e-6)


def test_a_function_around_a_model_that_changes_is_not_answered_from_its_folder(tmp_path):
    model = blank().eval()
    teacher = FunctionTeacher(lambda batch: model(batch["input_ids"], batch["attention_mask"]).logits)

    def change(step):
        with torch.no_grad():
            model.classifier.bias.add_(STEP)

    found = trained(tmp_path / "a", teacher, change, cache=str(tmp_path / "folder"))[1]
    assert found == pytest.approx(right(6), abs=1e-6)


def test_a_function_around_another_model_is_not_served_from_the_first_ones_folder(tmp_path):
    for bias, refused in ((0.0, False), (1.0, True)):
        model = blank().eval()
        model.classifier.bias.data[0] = bias
        teacher = FunctionTeacher(lambda batch, model=model: model(batch["input_ids"], batch["attention_mask"]).logits)
        if refused:
            with pytest.raises(ValueError, match="weights"):
                trained(tmp_path / "b", teacher, lambda step: None, cache=str(tmp_path / "folder"))
        else:
            trained(tmp_path / "a", teacher, lambda step: None, cache=str(tmp_path / "folder"))


def test_evaluation_asks_a_teacher_that_has_changed(tmp_path):
    teacher = blank()
    run, _ = trained(tmp_path, teacher, lambda step: None, eval_strategy="epoch", eval_dataset=tiny.rows(8))
    assert run.evaluate()["eval_loss"] == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        teacher.classifier.bias.add_(STEP)
    assert run.evaluate()["eval_loss"] == pytest.approx(right(2)[1], abs=1e-6)


def test_a_change_in_the_middle_of_a_tensor_is_found_by_the_end_of_the_epoch(tmp_path):
    """The few values that are looked at in each step are not all; every byte is read once an epoch."""
    teacher = tiny.teacher()
    middle = teacher.bert.embeddings.word_embeddings.weight.data

    def change(step):
        if step == 2:
            middle[10:20] += 1.0

    run, found = trained(tmp_path / "a", teacher, change)
    middle[10:20] -= 1.0
    expected = trained(tmp_path / "b", teacher, change, cache="off")[1]
    assert found == pytest.approx(expected, rel=1e-5)
    assert "has changed" in run.teacher.memory.off


def test_nothing_of_a_changed_teacher_is_kept_in_a_checkpoint(tmp_path):
    teacher = tiny.teacher()
    middle = teacher.bert.embeddings.word_embeddings.weight.data

    def change(step):
        if step == 1:
            middle[10:20] += 1.0

    saving = {"save_strategy": "steps", "save_steps": 1}
    trained(tmp_path / "a", teacher, change, **saving)
    assert not list((tmp_path / "a").rglob("teacher_answers*"))
    middle[10:20] -= 1.0
    trained(tmp_path / "b", teacher, lambda step: None, **saving)
    assert list((tmp_path / "b" / "checkpoint-1").rglob("teacher_answers*"))


def test_the_next_run_keeps_the_answers_of_what_it_has_become(tmp_path):
    teacher = LiveTeacher(blank())
    run, _ = trained(tmp_path / "a", teacher, lambda step: teacher.model.classifier.bias.data.add_(STEP))
    kept = run.teacher
    assert len(kept.memory) == 0
    again, found = trained(tmp_path / "b", kept, lambda step: None)
    assert found == pytest.approx([right(7)[6]] * 6, abs=1e-6)
    assert len(again.teacher.memory) == 8


def around(student):
    return lambda batch: student(**batch)


def partly(student):
    return functools.partial(lambda model, batch: model(**batch), student)


@pytest.mark.parametrize("wrap", [around, partly])
def test_a_function_around_the_student_itself_is_told(tmp_path, caplog, wrap):
    student = tiny.bert()
    with caplog.at_level(logging.WARNING):
        tiny.trainer(tmp_path, student, teacher_model=wrap(student))
    assert caplog.text.count("answers with parameters that the student trains") == 1


def test_a_function_around_the_student_is_not_answered_from_a_folder(tmp_path, caplog):
    student = tiny.bert()
    folder = {"teacher_cache": str(tmp_path / "folder"), "max_steps": -1, "num_train_epochs": 3, "alpha": 1.0}

    def teacher(batch):
        return student(batch["input_ids"], batch["attention_mask"]).logits + STEP

    with caplog.at_level(logging.WARNING):
        run = tiny.trainer(tmp_path, student, teacher_model=FunctionTeacher(teacher), args=folder)
        run.train()
    assert "are not kept: it changes while the student learns" in caplog.text
    assert len(run.teacher.memory) == 0


def test_a_function_around_a_frozen_copy_is_not_told(tmp_path, caplog):
    student = tiny.bert()
    frozen = copy.deepcopy(student)
    with caplog.at_level(logging.WARNING):
        tiny.trainer(tmp_path, student, teacher_model=lambda batch: frozen(**batch))
    assert "that the student trains" not in caplog.text


GLOBAL = nn.Linear(1, 1)


class Asked:
    def __init__(self):
        self.model, self.student, self.many = nn.Linear(1, 1), nn.Linear(1, 1), [nn.Linear(1, 1)]

    def answer(self, batch):
        return self.model(batch)

    def __call__(self, batch):
        return self.many[0](batch)


def test_what_a_function_holds_is_what_it_names():
    asked, default, tensor = Asked(), nn.Linear(1, 1), torch.ones(1)
    trainer = SimpleNamespace(model=GLOBAL, other=asked)
    found = {
        "global": (lambda batch: GLOBAL(batch), [GLOBAL]),
        "default": (lambda batch, model=default: model(batch), [default]),
        "tensor": (lambda batch: batch @ tensor, [tensor]),
        "method": (asked.answer, [asked.model]),
        "object": (asked, asked.many),
        "attribute": (lambda batch: trainer.model(batch), [GLOBAL]),
        "inside": (lambda batch: [GLOBAL(one) for one in batch], [GLOBAL]),
        "decorated": (torch.no_grad()(lambda batch: default(batch)), [default]),
        "nothing": (lambda batch: [[0.0, 1.0]], []),
        "builtin": (print, []),
    }
    for name, (function, expected) in found.items():
        held = held_in(function)
        assert len(held) == len(expected), name
        assert all(one is other for one, other in zip(held, expected, strict=True)), name


def test_what_is_computed_anew_or_moved_is_no_change():
    layer = nn.Linear(2, 2)
    layer.register_buffer("angles", torch.ones(2), persistent=False)
    layer.register_buffer("mean", torch.ones(2))
    changes = Changes(lambda: [layer])
    layer.angles.add_(1.0)
    layer.weight.data = layer.weight.data.clone()  # as moving it to a device does
    layer(torch.ones(1, 2)).sum().backward()
    layer.requires_grad_(False).eval()
    assert not changes.found()
    layer.mean.add_(1.0)
    assert changes.found()


def test_a_teacher_of_ones_own_is_watched_too():
    class Mine(Teacher):
        def __init__(self):
            self.inner = nn.Linear(1, 1)

    mine = Mine()
    assert mine.held() == [mine.inner]
