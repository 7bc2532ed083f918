"""Queries with classes and boxes: a model's own loss as sums, partners, what each is worth."""

import pytest
import tiny
import tiny_detectors as detectors
import torch

from hf_distill import ObjectDetection, Task
from hf_distill.tasks.matching import BACKGROUND

EXACT = [  # but D-FINE, whose loss_ddf is weighed by its micro-batch
    pytest.param(name, marks=[] if name == "detr" else pytest.mark.slow) for name in detectors.KINDS if name != "dfine"
]


def trainer(folder, student=None, data=None, teacher=None, **parts):
    return tiny.trainer(
        folder, student or detectors.still(detectors.rtdetr()), data or detectors.boxes(),
        teacher_model=teacher or detectors.rtdetr(seed=7, width=32, layers=2, queries=9),
        data_collator=detectors.collate, **parts,
    )  # fmt: skip


def step(folder, batch, accumulation, student, teacher):
    seen = tiny.Gradients()
    cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    rows = sorted(detectors.boxes(), key=lambda row: len(row["labels"]["boxes"]))
    cut |= {"train_sampling_strategy": "sequential", "alpha": 0.5}
    run = trainer(folder, student, rows, teacher, callbacks=[seen], args=cut)
    run.train()
    return {k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first


@pytest.mark.parametrize("kind", detectors.KINDS)
def test_the_sums_divided_are_the_models_own_loss(kind):
    model = detectors.still(detectors.KINDS[kind]()).eval()
    task, batch = Task.of(model), detectors.collate(detectors.boxes(4))
    assert type(task) is ObjectDetection
    outputs, counts = model(**batch), task.counts(batch)
    found = task.hard(outputs, batch)
    assert sum(one.mean() for one in found.values()).item() == pytest.approx(outputs.loss.item(), rel=1e-6)
    assert set(found) == ({"labels", "class_weight"} if kind in detectors.SOFTMAX else {"labels"})
    assert all(int(one.count) == int(counts[unit]) for unit, one in found.items())
    assert counts["labels"] == 6  # none, one, two, three


@pytest.mark.parametrize("kind", EXACT)
def test_8_x_1_equals_2_x_4(tmp_path, kind):
    """One of the micro-batches has no box.

    None has a single image: of one, torch 2.13's batch norm with frozen statistics gives a wrong gradient on a CPU.
    """
    found = []
    for batch, accumulation in ((8, 1), (2, 4)):
        config = {"auxiliary_loss": True, "layers": 2} if kind == "detr" else {}
        student = detectors.still(detectors.KINDS[kind](**config))
        teacher = detectors.KINDS[kind](seed=7, queries=9)
        found.append(step(tmp_path, batch, accumulation, student, teacher))
    for name, value in found[0][0].items():
        assert found[1][0][name] == pytest.approx(value, rel=1e-5), name
    assert {"loss/hard", "loss/forward_kl", "loss/boxes"} <= set(found[0][0])
    assert tiny.relative(found[1][1], found[0][1]) < 1e-5


def test_micro_batches_without_a_box_are_no_loss(tmp_path):
    rows = [row for row in detectors.boxes(16) if len(row["labels"]["boxes"]) == 0]
    run = trainer(tmp_path, data=rows, args={"alpha": 0.5, "max_steps": 1, "per_device_train_batch_size": 2})
    run.train()
    assert all(loss > 0 for loss in tiny.losses(run, "loss/hard"))


def test_denoising_queries_reach_no_term(tmp_path):
    model = detectors.still(detectors.rtdetr(num_denoising=8))
    batch = detectors.collate(detectors.boxes(4))
    torch.manual_seed(0)
    outputs = model.train()(**batch)
    assert outputs.logits.shape[1] > detectors.QUERIES
    shown = Task.of(model).read(model, batch, outputs)
    with torch.no_grad():
        plain = model(pixel_values=batch["pixel_values"])
    assert torch.allclose(shown.heads["logits"].logits.tensor[..., 1], plain.logits, atol=1e-5)
    assert torch.allclose(shown.values["boxes"].tensor, plain.pred_boxes, atol=1e-5)
    run = trainer(tmp_path, model, args={"alpha": 0.5, "max_steps": 2})
    run.train()
    assert all(loss < 100 for loss in tiny.losses(run))


@pytest.mark.parametrize("kind", ["rtdetr", "detr"])
@pytest.mark.parametrize("queries", [4, 6, 9])
def test_each_query_learns_from_its_partner(kind, queries):
    """A teacher that says what the student says, in another order, has nothing to teach."""
    student = detectors.KINDS[kind]()
    task, batch = Task.of(student), detectors.collate(detectors.boxes(3))
    logits, boxes = torch.randn(3, queries, 3 + (kind == "detr")), torch.rand(3, queries, 4) * 0.4 + 0.3
    # What the student says beyond its teacher has no partner; what the teacher says beyond it is what it is least
    # sure of, as far as the student can have it all.
    ours = {"logits": logits[:, :6], "pred_boxes": boxes[:, :6]}
    if queries == 9:
        logits[:, 6:] = torch.tensor([-9.0] * 3 + [9.0] * (kind == "detr"))
    order = torch.randperm(queries)
    shown = task.signals(student, batch, ours)
    taught = task.align(
        shown, task.signals(None, batch, {"logits": logits[:, order], "pred_boxes": boxes[:, order]}), batch
    )
    same = (taught.values["boxes"].tensor - shown.values["boxes"].tensor).abs().amax(-1) < 1e-6
    assert same.sum(1).tolist() == [min(6, queries)] * 3
    equal = taught.heads["logits"].logits.tensor - shown.heads["logits"].logits.tensor
    assert (equal.abs().flatten(2).amax(-1) < 1e-6).sum(1).min() >= min(6, queries)


def test_a_query_weighs_what_its_teacher_is_sure_of():
    student = detectors.rtdetr()
    task, batch = Task.of(student), detectors.collate(detectors.boxes(1))
    sure = torch.tensor([0.9, 0.5, 0.001, 0.001, 0.001, 0.001])
    logits = torch.stack([torch.logit(sure), torch.full((6,), -9.0), torch.full((6,), -9.0)], dim=-1)[None]
    both = {"logits": logits, "pred_boxes": torch.rand(1, 6, 4) * 0.4 + 0.3}
    shown = task.signals(None, batch, both)
    head = task.align(shown, shown, batch)
    weights = BACKGROUND + (1 - BACKGROUND) * sure
    # Of a query's three classes each costs what the query weighs, and the queries of an image weigh 1 together.
    assert torch.allclose(head.heads["logits"].weights[0, :, 0] / 18, weights / weights.sum(), atol=1e-4)
    assert torch.allclose(head.values["boxes"].weights[0], sure / sure.sum(), atol=1e-4)


def test_an_image_in_which_nothing_is_seen_teaches_no_box():
    student = detectors.rtdetr()
    task, batch = Task.of(student), detectors.collate(detectors.boxes(1))
    shown = task.signals(None, batch, {"logits": torch.full((1, 6, 3), -7.0), "pred_boxes": torch.rand(1, 6, 4)})
    assert task.align(shown, shown, batch).values["boxes"].weights.sum() < 0.01


def test_in_order_nothing_is_assigned(tmp_path):
    model = detectors.rtdetr()
    task = ObjectDetection.from_model(model, match="order")
    batch = detectors.collate(detectors.boxes(2))
    logits, boxes = torch.randn(2, 6, 3), torch.rand(2, 6, 4)
    ours = task.signals(None, batch, {"logits": logits, "pred_boxes": boxes})
    theirs = task.signals(None, batch, {"logits": logits.flip(1), "pred_boxes": boxes.flip(1)})
    assert torch.equal(task.align(ours, theirs, batch).values["boxes"].tensor, boxes.flip(1))
    with pytest.raises(ValueError, match="the teacher has 9 queries, the student 6: use match='hungarian'"):
        trainer(tmp_path, task=task, args={"max_steps": 1}).train()


@pytest.mark.parametrize("kind", ["detr", pytest.param("rtdetr", marks=pytest.mark.slow)])
def test_a_kept_teacher_teaches_what_a_live_one_does(tmp_path, kind):
    live, kept = (
        trainer(
            tmp_path / name, detectors.still(detectors.KINDS[kind]()),
            teacher=detectors.KINDS[kind](seed=7, queries=9), args={"teacher_cache": name, "max_steps": 6},
        )
        for name in ("off", "auto")
    )  # fmt: skip
    live.train()
    kept.train()
    assert tiny.losses(kept) == pytest.approx(tiny.losses(live), rel=1e-6)
    assert tiny.losses(kept, "teacher_cache_hits")[-1] == 1.0


def test_without_labels_the_teacher_is_enough(tmp_path):
    rows = [{"pixel_values": row["pixel_values"]} for row in detectors.boxes()]
    run = trainer(tmp_path, data=rows, args={"alpha": 1.0, "max_steps": 2})
    run.train()
    assert len(tiny.losses(run, "loss/boxes")) == 2


def test_evaluation_tells_how_much_agrees(tmp_path):
    model = detectors.rtdetr()
    run = trainer(tmp_path, model, teacher=detectors.rtdetr(), eval_dataset=detectors.boxes(6))
    told = run.evaluate()
    assert told["eval_agreement"] == pytest.approx(1.0, abs=1e-6)  # the same model
    assert told["eval_kl"] == pytest.approx(0.0, abs=1e-6)
    assert told["eval_loss/boxes"] == pytest.approx(0.0, abs=1e-6)
    assert told["eval_loss/hard"] > 0


def test_encoder_states_are_compared(tmp_path):
    for kind in ("rtdetr", "yolos"):
        teacher = detectors.KINDS[kind](seed=7, width=32)
        run = trainer(
            tmp_path / kind, detectors.still(detectors.KINDS[kind]()), teacher=teacher,
            args={"objective": "auto", "max_steps": 1},
        )  # fmt: skip
        run.train()
        assert set(run.distillation.objective.terms) == {"forward_kl", "boxes", "hidden_mse"}
        assert tiny.losses(run, "loss/hidden_mse")[0] > 0


def test_the_teachers_classes_may_stand_in_another_order(tmp_path):
    order = torch.tensor([2, 0, 1])
    for kind in ("rtdetr", "detr"):
        task = ObjectDetection.from_model(detectors.KINDS[kind](), teacher_labels=order.argsort().tolist())
        batch = detectors.collate(detectors.boxes(2))
        logits = torch.randn(2, 6, 3 + (kind == "detr"))
        theirs = logits.clone()
        theirs[..., :3] = logits[..., order]
        boxes = torch.rand(2, 6, 4)
        ours, theirs = (task.signals(None, batch, {"logits": one, "pred_boxes": boxes}) for one in (logits, theirs))
        found = task.align(ours, theirs, batch).heads["logits"].logits.tensor
        assert torch.equal(found, ours.heads["logits"].logits.tensor)


@pytest.mark.parametrize(("kinds"), [("rtdetr", "detr"), ("detr", "rtdetr")])
def test_softmax_and_sigmoid_are_not_compared(tmp_path, kinds):
    student, teacher = (detectors.KINDS[kind](seed=seed) for seed, kind in enumerate(kinds))
    run = trainer(tmp_path, student, teacher=teacher, args={"max_steps": 1})
    with pytest.raises(ValueError, match="a teacher must be of the student's kind"):
        run.train()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"class_labels": torch.tensor([7])},
            "row 0 of the batch has an object of class 7, the student has the classes 0",
        ),
        ({"boxes": torch.tensor([[1.5, 0.5, 0.2, 0.2]])}, "which lies outside of its image"),
        ({"boxes": torch.tensor([[0.5, 0.5, 0.0, 0.2]])}, "which has no size"),
        ({"boxes": torch.tensor([[12.0, 9.0, 4.0, 5.0]])}, "lies outside of its image: give center x"),
        ({"boxes": torch.tensor([0.5, 0.5, 0.1, 0.2])}, "ObjectDetection takes a list with a dict for each image"),
        ({"class_labels": torch.tensor([0.5])}, "class_labels .1. of torch.float32"),
        ({"class_labels": None}, "ObjectDetection takes a list"),
    ],
)
def test_objects_that_are_none_are_named(tmp_path, change, told):
    right = {"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}
    rows = [{**row, "labels": {**right, **change}} for row in detectors.boxes(4)]
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, data=rows, args={"max_steps": 1}).train()


def test_another_match_is_refused():
    with pytest.raises(ValueError, match="match='greedy' was given to ObjectDetection"):
        ObjectDetection(num_labels=3, queries=5, match="greedy")


def test_labels_are_not_smoothed(tmp_path):
    with pytest.raises(ValueError, match=r"label_smoothing_factor was given, .* no class numbers: leave it out"):
        trainer(tmp_path, args={"label_smoothing_factor": 0.1})
