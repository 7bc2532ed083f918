"""The same gradient however a batch is cut: micro-batches, ranks, unlabelled rows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import tiny_tasks
import torch
from default_run import slow_but
from safetensors.torch import load_file
from two_processes import IMAGES, IMAGES_IN_TEXTS, LATENTS, NOISE, READS, TOKENS, parts_of, settings_of

SPLITS = [(2, 4), (4, 2), (3, 3)]
ON_RANKS = [*tiny.PROBLEMS, *tiny_tasks.CASES, *IMAGES, *IMAGES_IN_TEXTS, *READS, *NOISE, *LATENTS, *TOKENS]
# One of each way to count: classes, positions, boxes, frames, rows without images, a teacher that is read, noise.
TWO = "test_two_processes_equal_one"
SHOWN = [tiny.SINGLE, "masked", "detr", "ctc", "llava", "reader", "latents"]


def step(folder, data, batch, accumulation, problem=tiny.SINGLE, student=None, teacher="default", **args):
    """One optimizer step with a learning rate that shows in the weights: loss, parts and gradients."""
    seen = tiny.Gradients()
    run = tiny.trainer(
        folder,
        student or tiny.bert(problem=problem),
        data,
        callbacks=[seen],
        teacher_model=tiny.teacher(problem) if teacher == "default" else teacher,
        args=dict(
            per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, max_steps=1, **args
        ),
    )  # fmt: skip
    run.train()
    parts = {k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}
    return parts, seen.first


def assert_same(one, other):
    assert one[0].keys() == other[0].keys()
    for name in one[0]:
        assert one[0][name] == pytest.approx(other[0][name], rel=1e-5), name
    assert tiny.relative(one[1], other[1]) < 1e-5


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("problem", tiny.PROBLEMS)
def test_8_x_1_equals_2_x_4(tmp_path, problem, alpha):
    data = tiny.rows(8, problem)
    whole = step(tmp_path, data, 8, 1, problem, alpha=alpha)
    assert max(float(g.abs().max()) for g in whole[1].values()) > 1e-3  # there is something to compare
    for batch, accumulation in SPLITS:
        assert_same(step(tmp_path, data, batch, accumulation, problem, alpha=alpha), whole)


@pytest.mark.parametrize(
    "objective", ["reverse_kl", "jsd", "skew_kl", "skew_reverse_kl", "logit_mse", "top1_cross_entropy"]
)
def test_every_objective_is_exact(tmp_path, objective):
    data = tiny.rows(8)
    assert_same(step(tmp_path, data, 2, 4, objective=objective), step(tmp_path, data, 8, 1, objective=objective))


@pytest.mark.parametrize("problem", tiny.PROBLEMS)
def test_rows_without_a_label_are_taught_but_not_supervised(tmp_path, problem):
    data = tiny.rows(8, problem)
    nothing = {tiny.SINGLE: -100, tiny.MULTI: [-100.0] * 3, tiny.REGRESSION: float("nan")}[problem]
    for row in data[:5]:
        row["labels"] = nothing
    whole = step(tmp_path, data, 8, 1, problem)
    assert_same(step(tmp_path, data, 2, 4, problem), whole)  # some micro-batches have no label at all
    labelled = step(tmp_path, data[5:], 3, 1, problem, alpha=0.0)
    assert whole[0]["loss/hard"] == pytest.approx(labelled[0]["loss/hard"], rel=1e-5)
    taught = step(tmp_path, tiny.rows(8, problem), 8, 1, problem)
    soft = "loss/logit_mse" if problem == tiny.REGRESSION else "loss/forward_kl"
    assert whole[0][soft] == pytest.approx(taught[0][soft], rel=1e-5)


def test_a_step_without_any_label_is_finite(tmp_path):
    data = [{**row, "labels": -100} for row in tiny.rows(8)]
    parts, gradients = step(tmp_path, data, 2, 4, alpha=0.5)
    assert parts["loss/hard"] == 0.0
    assert all(g.isfinite().all() for g in gradients.values())


def test_the_users_loss_and_label_smoothing_are_exact_too(tmp_path):
    data = tiny.rows(8)
    smooth = dict(label_smoothing_factor=0.1)
    assert_same(step(tmp_path, data, 2, 4, **smooth), step(tmp_path, data, 8, 1, **smooth))

    def focal(outputs, labels, num_items_in_batch=None):
        logs = torch.log_softmax(outputs.logits, -1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        return -((1 - logs.exp()) ** 2 * logs).sum() / (num_items_in_batch or len(labels))

    found = []
    for batch, accumulation in [(8, 1), (2, 4)]:
        seen = tiny.Gradients()
        args = dict(per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, max_steps=1)
        run = tiny.trainer(
            tmp_path, data=data, callbacks=[seen], teacher_model=tiny.teacher(), compute_loss_func=focal, args=args
        )
        run.train()
        found.append(seen.first)
    assert tiny.relative(*found) < 1e-5


class OwnLoss(tiny.BertForSequenceClassification):
    """A user's model with class weights in its forward."""

    def forward(self, input_ids=None, attention_mask=None, labels=None):
        outputs = super().forward(input_ids, attention_mask)
        if labels is not None:
            weight = torch.tensor([1.0, 1.0, 1.0])
            outputs.loss = torch.nn.functional.cross_entropy(outputs.logits, labels, weight) * 3
        return outputs


def test_a_models_own_mean_loss_is_weighted_by_its_samples(tmp_path):
    def student():
        model = tiny.bert()
        model.__class__ = OwnLoss
        return model

    data = tiny.rows(8)
    whole = step(tmp_path, data, 8, 1, student=student())
    assert_same(step(tmp_path, data, 3, 3, student=student()), whole)  # 3 + 3 + 2
    plain = step(tmp_path, data, 8, 1)
    assert whole[0]["loss/hard"] == pytest.approx(3 * plain[0]["loss/hard"], rel=1e-5)


def test_an_uneven_last_batch_is_exact(tmp_path):
    data = tiny.rows(7)
    assert_same(step(tmp_path, data, 2, 4), step(tmp_path, data, 7, 1))


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory, request):
    """What two ranks made of each problem: one launch for all that are tested."""
    folder = tmp_path_factory.mktemp("two_processes")
    script = Path(__file__).with_name("two_processes.py")
    tested = [one for one in request.session.items if getattr(one, "originalname", "") == TWO]
    told = [one.callspec.params["problem"] for one in tested]
    found = subprocess.run(
        [*f"{sys.executable} -m torch.distributed.run --nproc_per_node 2 --standalone".split(), script, folder, *told],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-4000:]
    return folder


@pytest.mark.parametrize("problem", slow_but(SHOWN, ON_RANKS))
def test_two_processes_equal_one(tmp_path, two_processes, problem):
    """Two ranks with 4 rows each, and with 2 rows in 2 micro-batches, against one process with 8."""
    ranks_wrote = two_processes / problem
    seen, (student, data, both) = tiny.Gradients(), parts_of(problem)
    # Evaluation is a mean over batches: these are the same.
    args = {"per_device_eval_batch_size": 4, **settings_of(problem)}
    alone = tiny.trainer(tmp_path, student, data, **both, callbacks=[seen], args=args)
    alone.train()
    whole = ({k: v for k, v in alone.state.log_history[0].items() if k.startswith("loss")}, seen.first)
    evaluated = alone.evaluate()
    if problem in tiny.PROBLEMS or problem in tiny_tasks.CASES:
        evaluated |= alone.evaluate(both["eval_dataset"][:7], metric_key_prefix="seven")
        evaluated = {key: one for key, one in evaluated.items() if not (key.startswith("seven") and "loss" in key)}
    for name in ("4x1", "2x2") if problem in tiny.PROBLEMS else ("2x2",):
        ranks = [json.loads((ranks_wrote / f"{name}-{rank}.json").read_text()) for rank in (0, 1)]
        assert [rank["world_size"] for rank in ranks] == [2, 2]  # an unnoticed single process would prove nothing
        assert ranks[0]["parts"] == ranks[1]["parts"]
        kinds = {**dict.fromkeys(TOKENS, "loss/forward_kl"), **dict.fromkeys(LATENTS, "loss/value_mse")}
        soft = kinds.get(problem, "loss/pooled_mse")
        assert {"eval_loss", f"eval_{'loss/hard' if alone.alpha < 1 else soft}"} <= set(evaluated)
        assert set(ranks[0]["evaluated"]) == {name for name in evaluated if "loss" in name or "teacher" in name}
        for part, value in ranks[0]["evaluated"].items():
            assert value == pytest.approx(evaluated[part], rel=1e-4), part
        for rank in (0, 1):
            assert_same((ranks[rank]["parts"], load_file(ranks_wrote / f"{name}-{rank}.safetensors")), whole)
