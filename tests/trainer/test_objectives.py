"""Every objective, for an encoder and a decoder: exact over micro-batches and ranks, with LoRA, saved and resumed."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import objective_runs
import pytest
import tiny
import torch
from default_run import slow_but
from objective_runs import EVERYONE, MODELS, NAMES, ROWS, TOGETHER, gradients, pair, trainer
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from hf_distill import AdapterOffTeacher

EACH = pytest.mark.parametrize("name", NAMES)
FEW = pytest.mark.parametrize(
    "name", slow_but(["forward_kl", "hidden_mse", "minilm", "tap_mse", "contrastive", "rkd_distance"], NAMES)
)
BOTH = pytest.mark.parametrize("kind", MODELS)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """What two ranks made of all objectives in one launch."""
    folder = tmp_path_factory.mktemp("two_ranks")
    found = subprocess.run(
        [sys.executable, *"-m torch.distributed.run --nproc_per_node 2 --standalone".split(),
         objective_runs.__file__, folder],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-4000:]
    return folder


@pytest.mark.parametrize("name", [name for name in NAMES if name not in TOGETHER | EVERYONE])
@BOTH
def test_micro_batches_make_no_difference(tmp_path, name, kind):
    """Rows that do not see each other: 8 x 1 equals 2 x 4."""
    whole, run = gradients(tmp_path, name, kind, 8, 1)
    assert tiny.relative(gradients(tmp_path, name, kind, 2, 4)[0], whole) < 1e-5
    assert run.state.log_history[0][f"loss/{name}"] > 0


@pytest.mark.slow
@EACH
@BOTH
def test_ranks_make_no_difference(tmp_path, two_ranks, name, kind):
    """Two ranks with 2 micro-batches of 2 rows, or 1 of 4, against one process with the same groups of rows."""
    # The ranks take batches in turn, so what they see together is what one process sees in a batch of twice the rows.
    rows = ROWS.get(name, 2)
    batch = rows if name in TOGETHER else 2 * rows if name in EVERYONE else 8
    one, run = gradients(tmp_path, name, kind, batch, 8 // batch)
    assert run.state.log_history[0][f"loss/{name}"] > 0
    for rank in (0, 1):
        assert tiny.relative(load_file(two_ranks / f"{name}-{kind}-{rank}.safetensors"), one) < 1e-5


@FEW
@BOTH
def test_a_lora_student_learns_from_a_teacher_and_from_its_own_base(tmp_path, name, kind):
    """Only the adapter, the head and what the objective trains move."""
    own = AdapterOffTeacher()
    for asked in (pair(kind)[1], own):
        torch.manual_seed(0)
        # An adapter that has learned something: a fresh one is its base, from which there is nothing to learn.
        lora = LoraConfig(
            task_type="SEQ_CLS" if kind == "encoder" else "CAUSAL_LM", target_modules="all-linear", r=2,
            init_lora_weights=False,
        )  # fmt: skip
        student = get_peft_model(pair(kind)[0], lora)
        if asked is own and name in ("tap_mse", "phi_s"):
            continue  # its widths are those of the other teacher
        before = {key: value.clone() for key, value in student.named_parameters()}
        run = trainer(tmp_path, name, kind, student, asked, max_steps=1)
        run.train()
        moved = {key for key, value in before.items() if not torch.equal(value, dict(student.named_parameters())[key])}
        assert moved
        assert all("lora_" in key or "modules_to_save" in key for key in moved)
        assert run.state.log_history[0][f"loss/{name}"] > 0


@FEW
@BOTH
def test_what_an_objective_trains_is_saved_resumed_and_in_no_export(tmp_path, name, kind):
    make = partial(trainer, name=name, kind=kind, max_steps=4)
    run = make(tmp_path, save_strategy="steps", save_steps=2)
    trained = bool(run.distillation.objective.state_dict())
    run.train()
    assert (tmp_path / "checkpoint-2" / "distillation.safetensors").is_file() == trained
    again = make(tmp_path / "again")
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert tiny.losses(again) == tiny.losses(run)
    for key, value in run.model.state_dict().items():  # with the objective's own
        assert torch.equal(value, again.model.state_dict()[key]), key
    run.save_model(str(tmp_path / "final"))
    auto = AutoModelForSequenceClassification if kind == "encoder" else AutoModelForCausalLM
    _, info = auto.from_pretrained(tmp_path / "final", output_loading_info=True)
    assert not info["unexpected_keys"]
    assert not info["missing_keys"]
    assert not [path for path in Path(tmp_path / "final").iterdir() if "distillation" in path.name]
