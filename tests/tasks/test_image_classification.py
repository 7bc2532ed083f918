"""Images: whatever class of model, the true means, however a batch is cut; nothing but the task knows of images."""

import pytest
import tiny
import tiny_images
import torch
from datasets import Dataset
from default_run import slow_but
from torch.nn import functional as F
from transformers import default_data_collator

from hf_distill import CachedTeacher, ImageClassification, LiveTeacher, Task
from hf_distill.models.meta import flat

TERMS = ["auto", "hidden_mse", "cka", "minilm", "pooled_mse", "pooled_cosine", "rkd_distance", "similarity"]
SPREAD = {"cka", "rkd_distance", "similarity"}  # they compare the rows of a micro-batch, so they hang on how it is cut


def trainer(folder, student=None, data=None, teacher=None, **parts):
    return tiny.trainer(
        folder, student or tiny_images.vit(), data or tiny_images.images(),
        teacher_model=teacher or tiny_images.vit(width=24, layers=4, seed=7), data_collator=default_data_collator,
        **parts,
    )  # fmt: skip


def step(folder, batch, accumulation, student, teacher, data, **args):
    seen = tiny.Gradients()
    cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    run = trainer(folder, student, data, teacher, callbacks=[seen], args={**cut, **args})
    run.train()
    return {k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first


def pixels(rows):
    return default_data_collator(rows)["pixel_values"]


@pytest.mark.parametrize("kind", slow_but(["vit", "resnet"], tiny_images.KINDS))
def test_a_student_of_each_kind_is_found_and_learns(tmp_path, kind):
    student, size = tiny_images.KINDS[kind](), 32 if kind == "mobilenet" else 16
    task, rows = Task.of(student), tiny_images.images(8, size=size)
    assert type(task) is ImageClassification
    teacher = tiny_images.resnet((2, 2), (12, 16), seed=7)
    args = {"objective": "auto", "max_steps": 20, "alpha": 1.0, "learning_rate": 3e-3}
    run = trainer(tmp_path, student, rows, teacher, eval_dataset=rows, args=args)
    run.train()
    losses = tiny.losses(run)
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    assert set(run.distillation.objective.terms) == {"forward_kl", "hidden_mse"}
    assert {"eval_agreement", "eval_kl", "eval_loss/hidden_mse"} <= run.evaluate().keys()
    predicted = run.predict(rows).predictions
    assert (predicted[0] if isinstance(predicted, tuple) else predicted).shape == (8, 3)


@pytest.mark.parametrize("problem", tiny.PROBLEMS)
def test_16_x_1_equals_4_x_4(tmp_path, problem):
    labels = {
        tiny.SINGLE: lambda i: i % 3 if i % 4 else -100,
        tiny.MULTI: lambda i: [float(i % 2), 1.0, float(i % 3 == 0)],
        tiny.REGRESSION: lambda i: i / 8 - 1,
    }
    data = tiny_images.images(16, label=labels[problem])
    outputs = 1 if problem == tiny.REGRESSION else 3
    found = [
        step(
            tmp_path, batch, accumulation, tiny_images.vit(num_labels=outputs, problem_type=problem),
            tiny_images.vit(width=24, layers=4, seed=7, num_labels=outputs, problem_type=problem), data,
            objective="auto", alpha=0.5,
        )
        for batch, accumulation in ((16, 1), (4, 4))
    ]  # fmt: skip
    assert found[0][0].keys() == found[1][0].keys()
    assert "loss/hidden_mse" in found[0][0]
    for name, value in found[0][0].items():
        assert found[1][0][name] == pytest.approx(value, rel=1e-5), name
    assert tiny.relative(found[1][1], found[0][1]) < 1e-5


@pytest.mark.parametrize("objective", [term for term in TERMS if term not in SPREAD])
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_terms_on_hidden_states_are_exact(tmp_path, kind, objective):
    if kind == "resnet" and objective == "minilm":
        return  # a network without attention, see the next test
    make = {"vit": tiny_images.vit, "resnet": lambda: tiny_images.without_batch_statistics(tiny_images.resnet())}[kind]
    teacher = {"vit": lambda: None, "resnet": lambda: tiny_images.resnet((2, 2), (12, 16), seed=7)}[kind]
    found = [
        step(tmp_path, batch, n, make(), teacher(), tiny_images.images(16), objective=objective, alpha=1.0)
        for batch, n in ((16, 1), (4, 4))
    ]
    assert found[1][0]["loss"] == pytest.approx(found[0][0]["loss"], rel=1e-5)
    assert tiny.relative(found[1][1], found[0][1]) < 1e-5


def test_a_network_without_attention_says_so(tmp_path):
    with pytest.raises(ValueError, match="ResNetForImageClassification"):
        trainer(tmp_path, tiny_images.resnet(), teacher=tiny_images.resnet(seed=7), args={"objective": "minilm"})


def test_hidden_mse_is_the_mean_over_positions_and_images(tmp_path):
    student, teacher, rows = tiny_images.vit(), tiny_images.vit(layers=4, seed=7), tiny_images.images(8)
    args = {"objective": {"hidden_mse": {"layers": {2: 4}}}, "alpha": 1.0, "max_steps": 1}
    run = trainer(tmp_path, student, rows, teacher, args={**args, "per_device_train_batch_size": 8})
    with torch.no_grad():
        ours, theirs = (
            model(pixels(rows), output_hidden_states=True).hidden_states[layer]
            for model, layer in ((student.eval(), 2), (teacher.eval(), 4))
        )
    run.train()
    assert tiny.losses(run, "loss/hidden_mse")[0] == pytest.approx(F.mse_loss(ours, theirs).item(), rel=1e-5)


def test_cka_of_images_is_at_most_one(tmp_path):
    run = trainer(tmp_path, args={"objective": "cka", "alpha": 1.0, "max_steps": 1, "per_device_train_batch_size": 8})
    run.train()
    assert 0 < tiny.losses(run, "loss/cka")[0] <= 1


def test_a_convolution_learns_from_a_transformer_on_the_smaller_grid(tmp_path):
    student, teacher = tiny_images.convnext(), tiny_images.vit(width=24, seed=7)
    objective = {"hidden_mse": {"layers": {1: 1}}}
    run = trainer(tmp_path, student, tiny_images.images(8), teacher, args={"objective": objective, "alpha": 1.0})
    projection = run.distillation.objective.terms["hidden_mse"].projections["1_1"]
    assert projection.weight.shape == (24, 8)
    args = {"per_device_train_batch_size": 8}
    run = trainer(
        tmp_path, student, tiny_images.images(8), teacher,
        args={"objective": objective, "alpha": 1.0, "max_steps": 1, **args},
    )  # fmt: skip
    batch, weight = pixels(tiny_images.images(8)), run.distillation.objective.terms["hidden_mse"].projections["1_1"]
    with torch.no_grad():
        ours = student.eval()(batch, output_hidden_states=True).hidden_states[1]  # [8, 8, 8, 8]
        theirs = teacher.eval()(batch, output_hidden_states=True).hidden_states[1][:, 1:]  # [8, 16, 24]
        wanted = F.mse_loss(weight(flat(F.adaptive_avg_pool2d(ours, 4))), theirs).item()
    run.train()
    assert tiny.losses(run, "loss/hidden_mse")[0] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("kind", ["vit", "resnet", "swin", "convnext"])
def test_kept_answers_teach_what_live_ones_do(tmp_path, kind):
    """Layers of a model in stages have other numbers of positions."""
    found, folder = [], str(tmp_path / "answers")
    for cache in ("off", "auto", folder, folder):
        args = {"objective": "auto", "max_steps": 3, "per_device_train_batch_size": 8, "teacher_cache": cache}
        teacher = tiny_images.KINDS[kind](seed=7)
        run = trainer(tmp_path, data=tiny_images.images(8), teacher=teacher, args=args)
        run.train()
        found.append(tiny.losses(run))
    for losses in found[1:]:
        assert losses == pytest.approx(found[0], rel=1e-6)
    assert tiny.losses(run, "teacher_cache_hits") == [1.0] * 3


def test_images_of_several_sizes_are_answered_live(tmp_path, caplog):
    rows = [*tiny_images.images(4), *tiny_images.images(4, size=24)]
    found = []
    for cache in ("off", "auto"):
        args = {
            "objective": "hidden_mse", "max_steps": 6, "per_device_train_batch_size": 4, "teacher_cache": cache,
            "train_sampling_strategy": "sequential", "alpha": 1.0,
        }  # fmt: skip
        run = trainer(tmp_path, tiny_images.resnet(), rows, tiny_images.resnet((2, 2), (12, 16), seed=7), args=args)
        run.train()
        found.append(tiny.losses(run))
    assert found[1] == pytest.approx(found[0], rel=1e-6)
    told = [one.getMessage() for one in caplog.records if "are not kept" in one.getMessage()]
    assert len(told) == 1
    assert "has the form" in told[0]


def test_the_distillation_token_learns_the_teacher_and_the_class_token_the_labels(tmp_path):
    gradients = {}
    for alpha in (0.0, 1.0):
        seen = tiny.Gradients()
        args = {"alpha": alpha, "max_steps": 1, "objective": "forward_kl"}
        run = trainer(tmp_path, tiny_images.deit_with_token(), callbacks=[seen], args=args)
        run.train()
        gradients[alpha] = {
            n.partition(".")[0] for n, g in seen.first.items() if "classifier" in n and g.abs().max() > 0
        }
    assert gradients == {0.0: {"cls_classifier"}, 1.0: {"distillation_classifier"}}
    rows = tiny_images.images(8)
    run = trainer(tmp_path, run.model, rows, eval_dataset=rows, args={"alpha": 0.5, "per_device_eval_batch_size": 8})
    with torch.no_grad():
        logits = run.model.eval()(pixels(rows)).logits
    wanted = F.cross_entropy(logits, default_data_collator(rows)["labels"]).item()
    assert run.evaluate()["eval_loss/hard"] == pytest.approx(wanted, rel=1e-5)  # of the mean of both, as it answers


def test_a_transform_makes_the_pixels_when_a_row_is_read(tmp_path):
    rows = Dataset.from_list([{"seed": i, "label": i % 3} for i in range(8)])

    def pictures(batch):
        made = [tiny_images.images(1, seed)[0]["pixel_values"] for seed in batch["seed"]]
        return {"pixel_values": made, "labels": batch["label"]}

    run = trainer(tmp_path, data=rows.with_transform(pictures), args={"remove_unused_columns": False})
    run.train()
    with pytest.raises(ValueError, match="remove_unused_columns=True takes away"):
        trainer(tmp_path, data=rows.with_transform(pictures))


def test_classes_of_another_order_and_number_are_refused(tmp_path):
    named = [{"id2label": dict(enumerate(names))} for names in (("a", "b", "c"), ("b", "a", "c"))]
    with pytest.raises(ValueError, match="teacher_labels"):
        trainer(tmp_path, tiny_images.vit(**named[0]), teacher=tiny_images.vit(**named[1]))
    with pytest.raises(ValueError, match="4 labels, the student has 3"):
        trainer(tmp_path, teacher=tiny_images.vit(num_labels=4))


# ---- Oblong images ----

OBLONG = {"image_size": (32, 64)}


def oblong(n=8):
    generator = torch.Generator().manual_seed(1)
    return [{"pixel_values": torch.randn(3, 32, 64, generator=generator), "labels": i % 3} for i in range(n)]


def mapped(state, before, grid, side):
    """Whole tiles of a grid, averaged by hand."""
    rows, columns = grid
    maps = state[:, before:].view(len(state), rows, columns, -1)
    down, across = rows // side[0], columns // side[1]
    tiles = [maps[:, i::down, j::across] for i in range(down) for j in range(across)]
    return torch.stack(tiles).mean(0).flatten(1, 2)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(
    ("student", "layer", "ours", "teacher", "theirs"),
    [
        (
            lambda: tiny_images.vit(**OBLONG, patch=8),
            2,
            (1, (4, 8)),
            lambda: tiny_images.vit(7, **OBLONG),
            (1, (8, 16)),
        ),
        (
            lambda: tiny_images.deit(**OBLONG),
            2,
            (2, (8, 16)),
            lambda: tiny_images.vit(7, **OBLONG, patch=8),
            (1, (4, 8)),
        ),
        (
            lambda: tiny_images.resnet(widths=(8, 16)),
            2,
            (0, (4, 8)),
            lambda: tiny_images.vit(7, **OBLONG),
            (1, (8, 16)),
        ),
        (lambda: tiny_images.vit(**OBLONG), 2, (1, (8, 16)), lambda: tiny_images.swin(7), (0, (8, 16))),
    ],
)
def test_oblong_images_are_compared_on_the_smaller_grid(tmp_path, student, layer, ours, teacher, theirs, kept):
    common = tuple(map(min, ours[1], theirs[1]))
    small, big = tiny_images.without_batch_statistics(student().eval()), teacher().eval()
    with torch.no_grad():
        shown, wanted = (
            flat(model(pixel_values=pixels(oblong()), output_hidden_states=True).hidden_states[2])
            for model in (small, big)
        )
    value = F.mse_loss(mapped(shown, *ours, common), mapped(wanted, *theirs, common))
    answers = CachedTeacher(LiveTeacher(big), always=True) if kept else big
    spec = {"hidden_mse": {"layers": {layer: 2}}}
    args = {"max_steps": 2, "per_device_train_batch_size": 8, "alpha": 1.0, "learning_rate": 0.0}
    run = trainer(tmp_path, small, oblong(), answers, objective=spec, args=args)
    run.train()  # the second step is answered from memory
    for entry in run.state.log_history[:2]:
        assert entry["loss/hidden_mse"] == pytest.approx(value.item(), rel=1e-5)
    assert not kept or len(answers.memory) == 8


def test_a_teacher_that_reads_images_of_another_size_has_no_grid_of_the_students():
    task, model = ImageClassification(num_labels=3), tiny_images.vit(**OBLONG).eval()
    batch = {"pixel_values": torch.zeros(1, 3, 32, 64), "teacher_pixel_values": torch.zeros(1, 3, 16, 16)}
    with torch.no_grad():
        outputs = model(pixel_values=batch["pixel_values"], output_hidden_states=True)
    assert task.read(model, batch, outputs).stream("vision").grids == (None,) * 3
    batch["teacher_pixel_values"] = batch["pixel_values"]
    assert task.read(model, batch, outputs).grids == ((8, 16),) * 3
