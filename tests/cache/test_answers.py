"""Values and vectors that are kept: bit for bit what was shown, from memory and from a folder, row by row."""

import logging

import pytest
import tiny
import tiny_values
import torch
from tiny_values import Boxes, Finding, collated, scenes

from hf_distill import CachedTeacher, LiveTeacher
from hf_distill.cache.encoding import Encoding
from hf_distill.cache.memory import Memory
from hf_distill.signals import DenseLogits, Head, Signals
from hf_distill.teachers.routing import by_row

NEEDS = frozenset({"values", "vectors"})


def kept(folder=None, encoding=None):
    return CachedTeacher(LiveTeacher(Boxes(seed=1), Finding()), folder=folder, always=True, encoding=encoding)


def prepared(path, teacher):
    return tiny_values.trainer(path, teacher_model=teacher).teacher


def same(one, other, rows=slice(None)):
    assert torch.equal(one.values["boxes"].tensor, other.values["boxes"].tensor[rows])
    assert torch.equal(one.values["boxes"].rows, other.values["boxes"].rows[rows])
    assert one.values["boxes"].rows.dtype == torch.bool
    assert torch.equal(one.vectors["scene"], other.vectors["scene"][rows])


def test_kept_equals_live_from_memory_and_one_row_alone_equals_it_in_company(tmp_path):
    teacher, batch = prepared(tmp_path, kept()), collated(scenes())
    live = teacher.teacher(batch, NEEDS)
    for _ in range(2):
        same(teacher(batch, NEEDS), live)
    for row in (0, 2, 7):
        same(teacher(collated(scenes()[row : row + 1]), NEEDS), live, [row])
    mixed = collated([*scenes()[5:7], *scenes(2, seed=9)])  # two of four are new
    again = teacher(mixed, NEEDS)
    same(again, teacher.teacher(mixed, NEEDS))
    assert len(teacher.memory) == 10


@pytest.mark.parametrize("encoding", [None, Encoding("float16"), Encoding("int8")])
def test_kept_equals_live_from_a_folder(tmp_path, encoding):
    folder, batch = tmp_path / "answers", collated(scenes())
    first = prepared(tmp_path / "a", kept(folder, encoding))
    live = first.teacher(batch, NEEDS)
    first(batch, NEEDS)
    first.memory.flush()
    again = prepared(tmp_path / "b", CachedTeacher(folder=folder))  # nobody is there to be asked
    shown = again(batch, NEEDS)
    assert torch.equal(shown.values["boxes"].rows, live.values["boxes"].rows)
    if encoding is None:
        same(shown, live)
    else:
        close = {"rtol": 0, "atol": 0.02}
        assert torch.allclose(shown.values["boxes"].tensor.float(), live.values["boxes"].tensor, **close)
        assert torch.allclose(shown.vectors["scene"].float(), live.vectors["scene"], **close)


@pytest.mark.parametrize("objective", ["value_mse", "vector_mse"])
def test_training_with_it_is_training_without_it(tmp_path, objective):
    found = []
    for cache in ("off", "auto", str(tmp_path / "answers")):
        args = {"max_steps": -1, "num_train_epochs": 3, "teacher_cache": cache, "per_device_train_batch_size": 4}
        run = tiny_values.trainer(tmp_path / "out", objective=objective, args=args)
        run.train()
        found.append(tiny.losses(run))
    assert len(run.teacher.memory) == 8
    assert found[0] == found[1] == found[2]


def test_a_value_as_long_as_a_text_is_no_position_of_it():
    shown = Signals({}, mask=torch.ones(2, 5, dtype=torch.bool), values=tiny_values.Finding().signals(
        None, {"there": torch.ones(2, 5)}, {"boxes": torch.randn(2, 5, 4), "scene": torch.ones(2, 5)}).values,
    )  # fmt: skip
    memory = Memory(None, 1e6)
    spans = torch.tensor([[0, 0, 2], [1, 1, 4]]).numpy()
    found = memory.take_in(shown, [b"a", b"b"], spans)
    given = memory.answers.signals([found[b"b"], found[b"a"]], spans, torch.ones(2).bool(), shown.mask)
    assert torch.equal(given.values["boxes"].tensor, shown.values["boxes"].tensor.flip(0))


def test_a_scene_with_another_number_of_things_is_not_kept_beside_the_others(tmp_path, caplog):
    teacher = prepared(tmp_path, kept())
    teacher(collated(scenes()), NEEDS)
    more = collated(scenes(4, things=6))
    with caplog.at_level(logging.WARNING):
        shown = teacher(more, NEEDS)
    same(shown, teacher.teacher(more, NEEDS))
    assert "values/boxes has the form [6, 4], and had [5, 4] before" in caplog.text
    assert len(teacher.memory) == 0
    same(teacher(collated(scenes()), NEEDS), teacher.teacher(collated(scenes()), NEEDS))


@pytest.mark.parametrize("what", ["values", "vectors"])
def test_a_row_that_is_not_finite_is_not_kept_where_it_counts(what):
    there = torch.tensor([[1, 0], [1, 1], [1, 0]])
    outputs = {"boxes": torch.ones(3, 2, 4), "scene": torch.ones(3, 6)}
    if what == "values":
        outputs["boxes"][0, 1] = outputs["boxes"][1, 1] = float("nan")  # of the first one it does not count
    else:
        outputs["scene"][1, 3] = float("inf")
    memory = Memory(None, 1e6)
    memory.take_in(Finding().signals(None, {"there": there}, outputs), [b"a", b"b", b"c"], None)
    assert [key in memory.table for key in (b"a", b"b", b"c")] == [True, False, True]


def test_rows_of_several_teachers_come_back_in_the_order_of_the_batch(tmp_path):
    teachers = {name: LiveTeacher(Boxes(seed=seed), Finding()) for name, seed in (("a", 1), ("b", 2))}
    batch, choice = collated(scenes(4)), torch.tensor([1, 0, 0, 1]).numpy()
    shown = by_row(teachers, choice, batch, NEEDS)
    for name, rows in (("a", [1, 2]), ("b", [0, 3])):
        alone = teachers[name](batch, NEEDS)
        assert torch.allclose(shown.values["boxes"].tensor[rows], alone.values["boxes"].tensor[rows], atol=1e-6)
        assert torch.equal(shown.values["boxes"].rows[rows], alone.values["boxes"].rows[rows])
        assert torch.allclose(shown.vectors["scene"][rows], alone.vectors["scene"][rows], atol=1e-6)
    other = LiveTeacher(Boxes(width=7, seed=3), Finding())
    with pytest.raises(ValueError, match=r"the teacher a gave rows of vectors scene of shape \[\[6\]\], the teach"):
        by_row({"a": teachers["a"], "b": other}, choice, batch, NEEDS)


def test_a_head_beside_values_is_kept_too():
    batch = {"there": torch.ones(2, 5)}
    outputs = {"boxes": torch.randn(2, 5, 4), "scene": torch.ones(2, 6)}
    plain = Finding().signals(None, batch, outputs)
    shown = Signals(
        {"logits": Head(DenseLogits(torch.randn(2, 3)), torch.ones(2).bool())}, values=plain.values,
        vectors=plain.vectors,
    )  # fmt: skip
    memory = Memory(None, 1e6)
    found = memory.take_in(shown, [b"a", b"b"], None)
    given = memory.answers.signals([found[b"a"], found[b"b"]], None, torch.ones(2).bool(), None)
    same(given, shown)
    assert torch.equal(given.heads["logits"].logits.tensor, shown.heads["logits"].logits.tensor)
