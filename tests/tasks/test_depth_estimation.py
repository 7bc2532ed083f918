"""How far each pixel is: a loss that every model has, terms that count images whatever grid a model answers on."""

import pytest
import tiny
import tiny_depth
import torch
from default_run import slow_but
from torch.nn import functional as F

from hf_distill import DepthEstimation, FunctionTeacher, Several, Task


def collate(rows):
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def trainer(folder, student=None, data=None, teacher=None, **parts):
    return tiny.trainer(
        folder, student or tiny_depth.glpn(), data or tiny_depth.scenes(),
        teacher_model=teacher or tiny_depth.glpn((12, 20), stride=1, seed=7), data_collator=collate, **parts,
    )  # fmt: skip


def eigen(predicted, wanted, share=0.5):
    """Equation 4 of arXiv:1406.2283, in float64, of one image."""
    known = wanted > 0
    d = predicted[known].double().log() - wanted[known].double().log()
    return d.square().mean() - share * d.sum().square() / len(d) ** 2


@pytest.mark.parametrize("kind", tiny_depth.KINDS)
def test_every_depth_model_is_supervised_by_the_scale_invariant_error(tmp_path, kind):
    model, batch = tiny_depth.KINDS[kind]().eval(), collate(tiny_depth.scenes(3, labels=24))
    task = Task.of(model)
    assert type(task) is DepthEstimation
    with torch.no_grad():
        outputs = model(batch["pixel_values"])
    total, count = task.hard(outputs, batch)
    size = {"size": (24, 24), "mode": "bilinear", "align_corners": False}
    depth = F.interpolate(outputs.predicted_depth.unsqueeze(1), **size).squeeze(1).clamp(min=1e-3)
    assert count == 2  # of the third image nothing is known
    wanted = sum(eigen(*one) for one in zip(depth[:2], batch["labels"][:2], strict=True))
    assert total.item() == pytest.approx(wanted.item(), rel=1e-5)
    run = tiny.trainer(tmp_path, model, tiny_depth.scenes(), data_collator=collate, args={"max_steps": 1})
    run.train()  # without a teacher too, where transformers raises NotImplementedError
    assert all(parameter.isfinite().all() for parameter in run.model.parameters())


def test_of_one_image_it_is_the_square_of_glpns_own_loss():
    model, batch = tiny_depth.glpn(), collate(tiny_depth.scenes(1, labels=32))
    outputs = model(**batch)
    total, count = Task.of(model).hard(outputs, batch)
    assert count == 1
    assert total.item() == pytest.approx(outputs.loss.item() ** 2, rel=1e-5)


@pytest.mark.parametrize(
    "objective",
    slow_but(
        ["auto"],
        ["value_l1", "value_mse", {"scale_invariant": {"share": 0.9}}, "affine_invariant", "auto", "hidden_mse"],
    ),
)
def test_8_x_1_equals_2_x_4(tmp_path, objective):
    found = []
    for size, accumulation in ((8, 1), (2, 4)):
        seen = tiny.Gradients()
        args = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 1}
        run = trainer(tmp_path, objective=objective, callbacks=[seen], args={**args, "alpha": 0.5})
        run.train()
        found.append(({k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    assert tiny.relative(found[1][1], found[0][1]) < 1e-5


@pytest.mark.parametrize("kind", tiny_depth.KINDS)
def test_the_teachers_map_is_brought_to_the_students_grid(tmp_path, kind):
    student, teacher, rows = tiny_depth.glpn(), tiny_depth.KINDS[kind](seed=7), tiny_depth.scenes(4)
    if kind == "glpn":
        teacher = tiny_depth.glpn((12, 20), stride=1, seed=7)
    pixels = collate(rows)["pixel_values"]
    with torch.no_grad():
        ours, theirs = (one.eval()(pixels).predicted_depth for one in (student, teacher))
    assert ours.shape != theirs.shape
    theirs = F.interpolate(theirs.unsqueeze(1), size=ours.shape[1:], mode="bilinear", align_corners=False).squeeze(1)
    run = trainer(tmp_path, student, rows, teacher, args={"max_steps": 1, "alpha": 1.0, "objective": "value_l1"})
    run.train()
    assert tiny.losses(run)[0] == pytest.approx((ours - theirs).abs().mean().item(), rel=1e-5)


def test_a_kept_teacher_teaches_what_a_live_one_does(tmp_path):
    live, kept = (
        trainer(tmp_path / name, args={"teacher_cache": name, "max_steps": 8, "objective": "auto"})
        for name in ("off", "auto")
    )
    live.train()
    kept.train()
    assert tiny.losses(kept) == pytest.approx(tiny.losses(live), rel=1e-6)
    assert tiny.losses(kept, "teacher_cache_hits")[-1] == 1.0


def test_a_student_comes_to_see_what_its_teacher_sees(tmp_path):
    run = trainer(
        tmp_path, args={"alpha": 1.0, "max_steps": 24, "learning_rate": 0.03}, eval_dataset=tiny_depth.scenes(4)
    )
    run.train()
    losses = tiny.losses(run, "loss/value_l1")  # the task's own objective
    assert losses[-1] < 0.5 * losses[0]
    told = run.evaluate()
    assert 0 < told["eval_loss/value_l1"] < losses[0]
    assert "eval_agreement" not in told  # there are no classes


def test_pixels_without_a_distance_are_taught_and_not_supervised(tmp_path):
    rows = tiny_depth.scenes(4)
    for row in rows:
        row["labels"] = row["labels"] * 0
    run = trainer(tmp_path, data=rows, args={"alpha": 0.5, "max_steps": 1})
    run.train()
    assert tiny.losses(run, "loss/hard") == [0.0]
    assert tiny.losses(run, "loss/value_l1")[0] > 0


@pytest.mark.slow
def test_a_function_may_be_the_teacher(tmp_path):
    model = tiny_depth.glpn((12, 20), stride=1, seed=7).eval()
    function = FunctionTeacher(lambda batch: model(batch["pixel_values"]).predicted_depth)
    found = []
    for teacher in (model, function):
        run = trainer(tmp_path, teacher=teacher, args={"max_steps": 2})
        run.train()
        found.append(tiny.losses(run))
    assert found[1] == pytest.approx(found[0], rel=1e-6)


@pytest.mark.slow
def test_one_of_several_teachers_is_compared_by_its_name(tmp_path):
    two = {"near": tiny_depth.glpn((12, 20), stride=1, seed=7), "far": tiny_depth.depth_anything(seed=2)}
    asked = {"value_l1": {"teacher": "far"}}
    run = trainer(tmp_path, teacher=Several(two), objective=asked, args={"max_steps": 1})
    alone = trainer(tmp_path, teacher=tiny_depth.depth_anything(seed=2), args={"max_steps": 1})
    for one in (run, alone):
        one.train()
    assert tiny.losses(run, "loss/value_l1") == tiny.losses(alone, "loss/value_l1")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (torch.ones(4, 1, 16, 16), r"labels are \[4, 1, 16, 16\]: DepthEstimation takes numbers .B, height, width."),
        (torch.ones(4), r"labels are \[4\]: DepthEstimation takes numbers"),
    ],
)
def test_labels_that_are_no_map_are_refused(tmp_path, labels, told):
    rows = [{**row, "labels": one} for row, one in zip(tiny_depth.scenes(4), labels, strict=True)]
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, data=rows).train()


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        (
            {"logits": torch.ones(8, 3)},
            "predicted_depth was asked of the teacher, it returned logits: DepthEstimation",
        ),
        (torch.ones(8, 1, 4, 4), r"it returned a map of shape \[8, 1, 4, 4\]: DepthEstimation needs .B, height"),
        (torch.ones(3, 4, 4), r"the teacher gave depth of shape \[3, 4, 4\], the student \[8, 32, 32\]: both must"),
    ],
)
def test_a_teacher_that_shows_no_map_is_named(tmp_path, shown, told):
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, teacher=lambda batch: shown, args={"per_device_train_batch_size": 8}).train()


def test_terms_on_classes_are_refused_before_the_first_step(tmp_path):
    told = "forward_kl compares logits, a model of AutoModelForDepthEstimation has none: use a term on values, such as"
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, objective="forward_kl")


@pytest.mark.parametrize("share", [-0.1, 1.5, True, "half"])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="was given to DepthEstimation: give a number from 0"):
        DepthEstimation(share=share)
