"""However rows are cut, and over two ranks, they become the copies that one process makes: the same step."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from datasets import IterableDataset
from safetensors.torch import load_file
from transformers import DataCollatorWithPadding

# Accelerate joins the batches of a stream before it sends them, so they must be equally wide.
FIXED = DataCollatorWithPadding(tiny.tokenizer(), padding="max_length", max_length=12)
CUTS = {
    "4x1": {"batch": 4},
    "2x2": {"batch": 2, "accumulation": 2},
    "workers": {"batch": 4, "dataloader_num_workers": 1},
    "stream": {"batch": 4, "stream": True},  # collated by the first rank for both
}


def rows():
    return [
        {"input_ids": [2, *row["input_ids"], 3], "attention_mask": [1, 1, *row["attention_mask"]], "labels": i % 3}
        for i, row in enumerate(tiny.rows(8))
    ]


def made():
    yield from rows()


def step(folder, batch=8, accumulation=1, stream=False, **args):
    seen = tiny.Gradients()
    cut = dict(per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, max_steps=1)
    run = tiny.trainer(
        folder, data=IterableDataset.from_generator(made) if stream else rows(), teacher_model=tiny.teacher(),
        callbacks=[seen], data_collator=FIXED,
        args={"augmentation": {"crop": 0.4, "mask": 0.3, "copies": 2}, **cut, **args},
    )  # fmt: skip
    run.train()
    parts = {key: value for key, value in run.state.log_history[0].items() if key.startswith("loss")}
    return run, parts, {key.removeprefix("module."): value.contiguous() for key, value in seen.first.items()}


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_ranks")
    script = Path(__file__).with_name("two_ranks.py")
    found = subprocess.run(
        [*f"{sys.executable} -m torch.distributed.run --nproc_per_node 2 --standalone".split(), script, folder],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-4000:]
    return folder


@pytest.mark.parametrize("name", CUTS)
def test_one_process_in_as_many_pieces_equals_one(tmp_path, name):
    cut = CUTS[name]
    _, wanted, gradients = step(tmp_path / "whole")
    _, parts, found = step(tmp_path / name, **{**cut, "accumulation": 2 * cut.get("accumulation", 1)})
    assert parts == pytest.approx(wanted, rel=1e-5)
    assert tiny.relative(found, gradients) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", CUTS)
def test_two_ranks_equal_one(tmp_path, two_ranks, name):
    _, parts, gradients = step(tmp_path)
    for rank in (0, 1):
        found = json.loads((two_ranks / f"{name}-{rank}.json").read_text())
        assert found["world_size"] == 2  # an unnoticed single process would prove nothing
        assert found["parts"] == pytest.approx(parts, rel=1e-5)
        assert tiny.relative(load_file(two_ranks / f"{name}-{rank}.safetensors"), gradients) < 1e-5
