"""A class for each pixel: the model's own loss, terms that count images whatever grid a model answers on."""

import pytest
import tiny
import tiny_segmenters
import torch
from default_run import slow_but
from torch.nn import functional as F

from hf_distill import Head, SemanticSegmentation, Signals, Task
from hf_distill.teachers.column import few_of


def collate(rows):
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def trainer(folder, student=None, data=None, teacher=None, **parts):
    return tiny.trainer(
        folder, student or tiny_segmenters.segformer(), data or tiny_segmenters.maps(),
        teacher_model=teacher or tiny_segmenters.segformer((12, 20), (2, 1), stride=1, seed=7),
        data_collator=collate, **parts,
    )  # fmt: skip


def step(folder, batch, accumulation, **args):
    seen = tiny.Gradients()
    cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    run = trainer(folder, callbacks=[seen], args={**cut, **args})
    run.train()
    return {k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first


@pytest.mark.parametrize("kind", tiny_segmenters.KINDS)
def test_the_mean_of_the_sum_is_the_models_own_loss(kind):
    model = tiny_segmenters.KINDS[kind]().eval()
    task = Task.of(model)
    assert type(task) is SemanticSegmentation
    batch = collate(tiny_segmenters.maps(2, size=32 if kind == "mobilenet" else 16))
    outputs = model(**batch)
    if task.own_loss:  # an auxiliary head, whose logits are not shown
        assert kind in ("beit", "upernet")
        assert task.hard(outputs, batch) is None
    else:
        assert task.hard(outputs, batch).mean().item() == pytest.approx(outputs.loss.item(), rel=1e-6)


@pytest.mark.parametrize("kind", ["beit", "upernet"])
def test_without_its_auxiliary_head_the_loss_is_known(kind):
    model = tiny_segmenters.KINDS[kind](use_auxiliary_head=False).eval()
    batch = collate(tiny_segmenters.maps(2))
    outputs = model(**batch)
    assert Task.of(model).hard(outputs, batch).mean().item() == pytest.approx(outputs.loss.item(), rel=1e-6)


@pytest.mark.parametrize(
    "objective", slow_but(["auto"], ["forward_kl", "auto", "jsd", {"dist": {"gamma": 0.0}}, "hidden_mse"])
)
def test_8_x_1_equals_2_x_4(tmp_path, objective):
    found = [step(tmp_path, *cut, objective=objective, alpha=0.5) for cut in ((8, 1), (2, 4))]
    for name, value in found[0][0].items():
        assert found[1][0][name] == pytest.approx(value, rel=1e-5), name
    assert tiny.relative(found[1][1], found[0][1]) < 1e-5


def test_kl_is_the_mean_over_the_students_grid(tmp_path):
    student, teacher = tiny_segmenters.segformer(), tiny_segmenters.segformer((12, 20), (2, 1), stride=1, seed=7)
    rows = tiny_segmenters.maps(4)
    pixels = collate(rows)["pixel_values"]
    with torch.no_grad():
        ours, theirs = student.eval()(pixels).logits, teacher.eval()(pixels).logits
        assert theirs.shape[-1] == 2 * ours.shape[-1]
        theirs = F.interpolate(theirs, size=ours.shape[-2:], mode="bilinear", align_corners=False)
        both = [one.movedim(1, -1).flatten(0, 2) / 2.0 for one in (ours, theirs)]
        wanted = 4 * F.kl_div(both[0].log_softmax(-1), both[1].log_softmax(-1), log_target=True, reduction="batchmean")
    args = {"objective": "forward_kl", "alpha": 1.0, "temperature": 2.0, "max_steps": 1}
    run = trainer(tmp_path, student, rows, teacher, eval_dataset=rows, args={**args, "per_device_train_batch_size": 4})
    run.train()
    assert tiny.losses(run)[0] == pytest.approx(wanted.item(), rel=1e-5)


def test_a_kept_teacher_teaches_what_a_live_one_does(tmp_path):
    live, kept = (
        trainer(tmp_path / name, args={"teacher_cache": name, "max_steps": 8, "objective": "auto"})
        for name in ("off", "auto")
    )
    live.train()
    kept.train()
    assert tiny.losses(kept) == pytest.approx(tiny.losses(live), rel=1e-6)
    assert tiny.losses(kept, "teacher_cache_hits")[-1] == 1.0


def test_pixels_without_a_label_are_taught_and_not_supervised(tmp_path):
    rows = tiny_segmenters.maps(4)
    for row in rows:
        row["labels"] = torch.full_like(row["labels"], 255)
    run = trainer(tmp_path, data=rows, args={"alpha": 0.5, "max_steps": 1})
    run.train()
    assert tiny.losses(run, "loss/hard") == [0.0]
    assert tiny.losses(run, "loss/forward_kl")[0] > 0


def test_the_teachers_classes_may_stand_in_another_order(tmp_path):
    teacher = tiny_segmenters.segformer(seed=7)
    order = torch.tensor([2, 0, 1])
    head = teacher.decode_head.classifier
    head.weight.data, head.bias.data = head.weight.data[order], head.bias.data[order]
    task = SemanticSegmentation(num_labels=3, teacher_labels=order.argsort().tolist())
    found = []
    for one, how in ((tiny_segmenters.segformer(seed=7), None), (teacher, task)):
        run = trainer(tmp_path, teacher=one, task=how, args={"alpha": 1.0, "max_steps": 1})
        run.train()
        found += tiny.losses(run)
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_evaluation_tells_how_many_cells_agree(tmp_path):
    run = trainer(tmp_path, eval_dataset=tiny_segmenters.maps(6), teacher=tiny_segmenters.segformer(seed=0))
    told = run.evaluate()
    assert told["eval_agreement"] == 1.0  # the same model
    assert told["eval_kl"] == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (
            torch.full((4, 16, 16), 7),
            "row 0 of the batch has class 7 at pixel .0, 0., the student has the classes 0 to 2, 255",
        ),
        (torch.zeros(4, 16, 16), "takes whole numbers"),
        (torch.zeros(4, dtype=torch.long), "takes whole numbers .B, height, width."),
    ],
)
def test_a_map_that_is_none_is_named(tmp_path, labels, told):
    rows = [{**row, "labels": one} for row, one in zip(tiny_segmenters.maps(4), labels, strict=True)]
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, data=rows).train()


def test_one_class_is_no_choice():
    with pytest.raises(ValueError, match="give a model of two"):
        SemanticSegmentation(num_labels=1)


def test_a_few_ids_of_each_cell_are_refused():
    task, student = SemanticSegmentation(num_labels=3), tiny_segmenters.segformer()
    batch = collate(tiny_segmenters.maps(2))
    ours = task.read(student, batch, student(batch["pixel_values"]))
    few = few_of(torch.zeros(2, 8, 8, 1, dtype=torch.long), torch.zeros(2, 8, 8, 1), 3)
    theirs = Signals({"logits": Head(few, ours.heads["logits"].rows)})
    with pytest.raises(ValueError, match="few ids of each cell"):
        task.match(ours, theirs, batch)
