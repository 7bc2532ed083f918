"""Pairs of an image and a text: two ranks, and micro-batches that see each other, are one batch of all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import tiny_clip
import torch
from safetensors.torch import load_file

from hf_distill import DistillationTrainer

TERMS = {"vector_cosine": 1.0, "forward_kl": {"temperature": 1.0}}
ALL = {
    "clip": {}, "siglip": {"kind": "siglip"}, "alone": {"alpha": 0.0, "kind": "siglip"}, "taught": {"alpha": 1.0},
    "widths": {"vectors": 10},
}  # fmt: skip
CUTS = {
    **{name: {**one, "batch": 8} for name, one in ALL.items()},
    "contrastive": {"objective": {**TERMS, "contrastive": 0.5}, "batch": 8},
    "step": {"batch": 4, "accumulation": 2, "accumulate_negatives": True},
}
STAYS = ("kind", "alpha", "vectors", "objective")


class InOrder(DistillationTrainer):
    def _get_train_sampler(self, *args, **kwargs):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def step(folder, kind="clip", batch=16, accumulation=1, alpha=0.5, vectors=12, dropout=0.0, objective=TERMS, **args):
    taught = {"teacher_model": tiny_clip.model(kind), "objective": objective} if alpha else {}
    run = tiny.trainer(
        folder, tiny_clip.model(kind, seed=1, vectors=vectors, dropout=dropout), tiny_clip.pairs(16, kind),
        kind=InOrder, data_collator=None, **taught,
        args={"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 1,
              "optim": "sgd", "learning_rate": 1e-3, **({"alpha": alpha} if alpha else {}), **args},
    )  # fmt: skip
    run.train()
    told = run.state.log_history[0]
    parts = {key: value for key, value in told.items() if key.startswith("loss") or key == "negatives"}
    return run, parts, {name: value.detach().clone() for name, value in run.model.state_dict().items()}


def farthest(ours, theirs):
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_ranks")
    script = Path(__file__).with_name("image_text_ranks.py")
    found = subprocess.run(
        [*f"{sys.executable} -m torch.distributed.run --nproc_per_node 2 --standalone".split(), script, folder],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-4000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", CUTS)
def test_two_ranks_are_one_batch(tmp_path, two_ranks, name):
    _, parts, weights = step(tmp_path, **{key: one for key, one in CUTS[name].items() if key in STAYS})
    for rank in (0, 1):
        found = json.loads((two_ranks / f"{name}-{rank}.json").read_text())
        assert found["world_size"] == 2  # an unnoticed single process would prove nothing
        assert found["parts"] == pytest.approx(parts, rel=1e-5)
        assert farthest(load_file(two_ranks / f"{name}-{rank}.safetensors"), weights) < 1e-6


@pytest.mark.parametrize("name", ALL)
def test_micro_batches_that_see_each_other_are_one_batch(tmp_path, name):
    _, parts, weights = step(tmp_path, **ALL[name])
    _, apart, others = step(tmp_path, batch=8, accumulation=2, **ALL[name])
    _, found, same = step(tmp_path, batch=8, accumulation=2, accumulate_negatives=True, **ALL[name])
    assert found == pytest.approx(parts, rel=1e-5)
    assert (found["negatives"], apart["negatives"]) == (15, 7)
    assert farthest(same, weights) < 1e-6
    assert farthest(others, weights) > 1e-5


def test_a_forward_without_gradients_drops_what_the_one_with_them_drops(tmp_path):
    """No pair feels another in ``vector_mse``, so the step is the same; not so if other numbers were drawn."""

    def weights(**args):
        torch.manual_seed(0)
        return step(tmp_path, batch=8, accumulation=2, alpha=1.0, dropout=0.5, objective="vector_mse", **args)[2]

    assert farthest(weights(accumulate_negatives=True), weights()) == 0


def test_that_micro_batches_do_not_see_each_other_is_told(tmp_path, caplog):
    step(tmp_path, batch=8, accumulation=2)
    assert "2 micro-batches make a step, each of which is compared within itself" in caplog.text
    caplog.clear()
    step(tmp_path, batch=8, accumulation=2, accumulate_negatives=True)
    assert "micro-batches" not in caplog.text


def test_the_teacher_is_asked_once_for_a_micro_batch(tmp_path):
    asked, teacher = [], tiny_clip.model()
    teacher.register_forward_hook(lambda *call: asked.append(1))
    run = tiny.trainer(
        tmp_path, tiny_clip.model(seed=1), tiny_clip.pairs(8), data_collator=None, teacher_model=teacher,
        args={"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 1,
              "accumulate_negatives": True, "teacher_cache": "off"},
    )  # fmt: skip
    run.train()
    assert len(asked) == 2


def test_a_batch_of_one_pair_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a batch of one pair of an image and a text was asked for, which has"):
        step(tmp_path, batch=1)
