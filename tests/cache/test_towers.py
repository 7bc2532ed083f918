"""Each image and each text asked once, and pairs asked whole where the towers cannot be asked apart."""

import logging

import pytest
import tiny
import tiny_clip
import torch
from default_run import slow_but
from torch import nn

from hf_distill import CachedTeacher, ImageText, LiveTeacher
from hf_distill.cache.towers import VECTORS, CachedTowers
from hf_distill.training.build_teacher import with_cache

EACH = pytest.mark.parametrize("kind", slow_but(["clip"], tiny_clip.KINDS))


class Counted:
    """A teacher of two towers that notes how many images and how many texts each forward had."""

    def __init__(self, kind="clip", seed=0):
        self.model, self.calls = tiny_clip.model(kind, seed=seed), []
        self.model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, model, args, given):
        self.calls.append((len(given["pixel_values"]), len(given["input_ids"])))

    def several(self, side):
        """How many rows each forward had that was not asked for the other side alone."""
        return [call[side] for call in self.calls if call[side] > 1]


IMAGES, TEXTS = 0, 1


class Views:
    """Collates pairs; in each epoch of two batches, images or texts are others than in the last one."""

    columns = frozenset({"input_ids", "attention_mask", "pixel_values"})

    def __init__(self, images=False, texts=False, recurring=None):
        self.images, self.texts, self.recurring, self.batches = images, texts, recurring, 0

    def __call__(self, rows):
        batch, epoch = tiny_clip.batch(rows), self.batches // 2
        self.batches += 1
        if self.images:
            batch["pixel_values"] = batch["pixel_values"] + epoch
        if self.texts:
            batch["input_ids"] = torch.cat((batch["input_ids"][:, :-1].roll(epoch, 1), batch["input_ids"][:, -1:]), 1)
        return batch


def run_of(folder, teacher, collator=None, rows=None, student=None, kind="clip", **parts):
    args = {"per_device_train_batch_size": 4, "num_train_epochs": 3, "max_steps": -1, **parts.pop("args", {})}
    torch.manual_seed(0)
    student = tiny_clip.model(kind, seed=1) if student is None else student
    rows = tiny_clip.pairs(8, kind) if rows is None else rows
    return tiny.trainer(folder, student, rows, data_collator=collator, teacher_model=teacher, args=args, **parts)


def trained(folder, teacher, collator=None, **parts):
    run = run_of(folder, teacher, collator, **parts)
    run.train()
    return run


def live(folder, collator=None, args=None, **parts):
    kind = parts.get("kind", "clip")
    args = {**(args or {}), "teacher_cache": "off"}
    return tiny.losses(trained(folder, tiny_clip.model(kind), collator, args=args, **parts))


def kept(run):
    """How many pairs, images and texts are remembered."""
    return len(run.teacher.teacher.memory), *(len(one.memory) for one in run.teacher.towers.values())


@pytest.mark.parametrize("recurring", slow_but([None], [None, 3]))
def test_texts_are_asked_once_beside_new_views_of_their_images(tmp_path, recurring, caplog):
    teacher, collator = Counted(), Views(images=True, recurring=recurring)
    with caplog.at_level(logging.WARNING):
        run = trained(tmp_path, teacher.model, collator)
    probed = [4] * (
        recurring is None
    )  # images that never come again are not kept, so nobody tries whether they can be
    assert teacher.several(TEXTS) == [4, 4, 4]  # what is tried is a batch more
    assert teacher.several(IMAGES) == [*probed, *[4] * 6]
    assert tiny.losses(run, "teacher_cache_hits") == [0, 0, 0.5, 0.5, 0.5, 0.5]
    assert tiny.losses(run) == pytest.approx(live(tmp_path, Views(images=True)), rel=1e-6)
    assert ("(image tower) are no longer kept" in caplog.text) == (recurring is None)
    assert "already one" not in caplog.text  # of a second callback


def test_images_are_asked_once_beside_others_of_their_captions(tmp_path):
    teacher = Counted()
    run = trained(tmp_path, teacher.model, Views(texts=True))
    assert teacher.several(IMAGES) == [4, 4, 4]
    assert teacher.several(TEXTS) == [4] + [4] * 6
    assert tiny.losses(run, "teacher_cache_hits") == [0, 0, 0.5, 0.5, 0.5, 0.5]
    assert tiny.losses(run) == pytest.approx(live(tmp_path, Views(texts=True)), rel=1e-6)


def test_a_caption_of_two_images_is_asked_once_in_its_epoch_too(tmp_path):
    rows = tiny_clip.pairs(8)
    rows = [
        {**row, **{name: rows[i // 2][name] for name in ("input_ids", "attention_mask")}} for i, row in enumerate(rows)
    ]
    run = trained(tmp_path, tiny_clip.model(), rows=rows)
    assert kept(run) == (0, 8, 4)
    assert sum(tiny.losses(run, "teacher_cache_hits")[:2]) == (16 - 12) / 8
    assert tiny.losses(run, "teacher_cache_hits")[2:] == [1] * 4
    assert tiny.losses(run) == pytest.approx(live(tmp_path, rows=rows), rel=1e-6)


@EACH
def test_where_no_side_repeats_alone_it_is_the_live_teacher_to_the_bit(tmp_path, kind):
    teacher = Counted(kind)
    run = trained(tmp_path, teacher.model, kind=kind)
    assert kept(run) == (0, 8, 8)
    assert teacher.calls[-2:] == [(4, 4), (4, 4)]  # where both are new, they are asked together
    assert tiny.losses(run) == live(tmp_path, kind=kind)


def test_a_resumed_run_has_the_vectors_of_the_interrupted_one(tmp_path):
    args = {"save_strategy": "steps", "save_steps": 3}
    whole = trained(tmp_path / "a", tiny_clip.model(), args=args)
    teacher = Counted()
    run = run_of(tmp_path / "b", teacher.model)
    run.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3"))
    assert tiny.losses(run) == tiny.losses(whole)
    assert teacher.calls == []
    other = Counted(seed=3)
    run_of(tmp_path / "c", other.model).train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3"))
    assert other.calls  # another teacher's are left alone


@pytest.mark.parametrize("together", [False, True])
def test_micro_batches_are_one_batch(tmp_path, together):
    """As 8 x 1 and 2 x 4: of a term that knows no company, and of all where micro-batches see each other."""
    what = None if together else "vector_cosine"
    one, cut = (
        trained(tmp_path, tiny_clip.model(), rows=tiny_clip.pairs(16), objective=what, args={
            "per_device_train_batch_size": 8 // parts, "gradient_accumulation_steps": parts, "num_train_epochs": 2,
            "alpha": 0.5 if together else 1.0, "accumulate_negatives": together and parts > 1})
        for parts in (1, 4)
    )  # fmt: skip
    assert tiny.losses(cut) == pytest.approx(tiny.losses(one), rel=1e-4)
    assert tiny.losses(cut, "teacher_cache_hits") == tiny.losses(one, "teacher_cache_hits") == [0, 0, 1, 1]


def test_evaluations_keep_both_sides_too(tmp_path):
    teacher, rows = Counted(), tiny_clip.pairs(8, seed=5)
    run = trained(tmp_path, teacher.model, eval_dataset=rows, args={"eval_strategy": "epoch"})
    asked = len(teacher.calls)
    assert run.evaluate()["eval_loss"] == pytest.approx(tiny.losses(run, "eval_loss")[-1], rel=1e-6)
    assert len(teacher.calls) == asked
    assert kept(run) == (0, 16, 16)


# ---- Pairs that are asked whole ----


@pytest.mark.parametrize(
    "objective", ["hidden_mse", {"hidden_mse": {"stream": "vision"}}, {"vector_mse": 1.0, "hidden_mse": 1.0}, "minilm"]
)
def test_what_is_more_than_vectors_is_asked_of_pairs(tmp_path, objective):
    teacher = Counted()
    run = trained(tmp_path, teacher.model, objective=objective, student=tiny_clip.model(seed=1))
    assert kept(run)[1:] == (0, 0)
    assert {images == texts for images, texts in teacher.calls} == {True}
    assert tiny.losses(run) == pytest.approx(live(tmp_path, objective=objective), rel=1e-6)


def test_a_run_in_which_nothing_repeats_asks_for_pairs(tmp_path):
    teacher = Counted()
    run = trained(tmp_path, teacher.model, args={"num_train_epochs": 1})
    assert teacher.calls == [(4, 4), (4, 4)]
    assert kept(run) == (0, 0, 0)
    assert tiny.losses(run, "teacher_cache_hits") == []


class Crossed(nn.Module):
    """A text's vector that looks at the image beside it."""

    def __init__(self):
        super().__init__()
        self.inner = tiny_clip.model()
        self.logit_scale, self.config = self.inner.logit_scale, self.inner.config
        self.get_image_features, self.get_text_features = self.inner.get_image_features, self.inner.get_text_features

    def forward(self, input_ids, pixel_values, attention_mask=None):
        shown = self.inner(input_ids=input_ids, pixel_values=pixel_values, attention_mask=attention_mask)
        shown["text_embeds"] = shown.text_embeds + 0.5 * shown.image_embeds
        return shown


def test_vectors_that_hang_on_their_partners_are_asked_of_pairs(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        run = trained(tmp_path, Crossed())
    assert "(text tower) are not kept: it answers a row otherwise alone than among others" in caplog.text
    assert kept(run) == (8, 0, 0)  # a pair answers for itself
    args = {"teacher_cache": "off"}
    assert tiny.losses(run) == pytest.approx(tiny.losses(trained(tmp_path, Crossed(), args=args)), rel=1e-6)


@pytest.mark.parametrize(("model", "remembered"), [(tiny_clip.model, 8), (Crossed, 0)])
def test_the_first_batch_is_answered_rightly_outside_of_training_too(model, remembered):
    live = LiveTeacher(model().eval(), ImageText())
    teacher, batch = CachedTowers(live), tiny_clip.batch(tiny_clip.pairs(8))
    for one in teacher.towers.values():
        one.task, one.always = live.task, True
    found, wanted = teacher(batch, VECTORS).vectors, live(batch, VECTORS).vectors
    assert all(torch.allclose(found[name], wanted[name], atol=1e-6) for name in wanted)
    assert len(teacher.towers["text"].memory) == remembered
    assert found.keys() == wanted.keys()


def test_a_column_of_neither_tower_is_not_cut(tmp_path):
    class Weighed(Crossed):
        def forward(self, input_ids, pixel_values, attention_mask=None, weight=None):
            shown = self.inner(input_ids=input_ids, pixel_values=pixel_values, attention_mask=attention_mask)
            shown["text_embeds"] = shown.text_embeds + weight * shown.text_embeds.roll(1, -1)
            return shown

    rows = [{**row, "weight": torch.full((1,), 0.3)} for row in tiny_clip.pairs(8)]  # equal, so trying does not tell
    run, off = (trained(tmp_path, Weighed(), rows=rows, args={"teacher_cache": how}) for how in ("auto", "off"))
    assert kept(run) == (8, 0, 0)
    assert tiny.losses(run) == tiny.losses(off)


def test_a_teacher_that_somebody_changes_is_asked_each_time(tmp_path, caplog):
    class Changing(tiny.Gradients):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:  # in the middle of an epoch
                with torch.no_grad():
                    teacher.text_projection.weight[0].mul_(9)

    found = []
    for cache in ("auto", "off"):
        teacher = tiny_clip.model()
        with caplog.at_level(logging.WARNING):
            run = trained(tmp_path, teacher, callbacks=[Changing()], args={"teacher_cache": cache})
        found.append(tiny.losses(run))
    assert found[0] == found[1]
    assert caplog.text.count("it has changed since it was asked") == 1


def test_what_was_asked_otherwise_before_is_forgotten(tmp_path):
    run = run_of(tmp_path, tiny_clip.model())
    for objective, remembered in (("vector_mse", (0, 8, 8)), ("hidden_mse", (8, 0, 0)), ("vector_mse", (0, 8, 8))):
        run.args.objective = objective
        run.train()
        assert kept(run) == remembered


# ---- Which teachers ----


@pytest.mark.parametrize(("given", "made"), [
    ({}, CachedTowers), ({"prepass": True}, CachedTeacher), ({"whole_window": True}, CachedTeacher),
    ({"cache": "off"}, LiveTeacher),
])  # fmt: skip
def test_who_remembers_pairs(given, made):
    assert type(with_cache(LiveTeacher(tiny_clip.model()), **given)) is made


def test_a_folder_keeps_pairs(tmp_path):
    assert type(with_cache(LiveTeacher(tiny_clip.model()), cache=str(tmp_path / "answers"))) is CachedTeacher


def test_each_tower_has_half_of_the_memory():
    teacher = CachedTowers(LiveTeacher(tiny_clip.model()), gb=2.0)
    assert [one.memory.limit for one in teacher.towers.values()] == [1e9, 1e9]
    assert teacher.teacher.memory.limit == 2e9


def test_it_is_the_model_that_it_asks():
    live = LiveTeacher(tiny_clip.model())
    teacher = CachedTowers(live)
    assert (teacher.uncached, teacher.model, teacher.facts, teacher.serves) == (
        live, live.model, live.facts, live.serves,
    )  # fmt: skip


def test_all_of_it_expects_several_trainings():
    teacher = CachedTowers(LiveTeacher(tiny_clip.model()))
    teacher.expect(3)
    assert [one.watch.ahead for one in (teacher.teacher, *teacher.towers.values())] == [3, 3, 3]
