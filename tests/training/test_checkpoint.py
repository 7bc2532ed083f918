"""Checkpoints: what is trained beside the student comes back, half-written folders are not taken for whole ones."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch import nn

from hf_distill.models.sharding import whole_state
from hf_distill.tasks import SequenceClassification
from hf_distill.training.checkpoint import FILE, is_whole, last_whole_checkpoint

HIDDEN = {"forward_kl": 1.0, "hidden_mse": {"layers": {0: 0, 1: 2}}}


def trainer(folder, student=None, **changes):
    parts = {name: changes.pop(name) for name in ("objective", "task", "eval_dataset") if name in changes}
    args = {"max_steps": 8, "save_strategy": "steps", "save_steps": 2, "max_grad_norm": 1.0, **changes}
    return tiny.trainer(
        folder, student or tiny.bert(hidden_dropout_prob=0.1), tiny.rows(64), teacher_model=tiny.teacher(), args=args,
        **{"objective": HIDDEN, **parts},
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of eight steps with four checkpoints, never interrupted."""
    run = trainer(tmp_path_factory.mktemp("whole"))
    run.train()
    return run


def test_a_resumed_run_is_bit_equal_with_dropout_and_projections(tmp_path, whole):
    again = trainer(tmp_path)
    again.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-4")
    assert tiny.losses(again) == tiny.losses(whole)
    ours, theirs = again.model.state_dict(), whole.model.state_dict()
    assert any(name.startswith("distillation.") for name in theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_best_model_brings_its_own_projections(tmp_path):
    run = trainer(
        tmp_path, eval_dataset=tiny.rows(8, seed=9), eval_strategy="steps", eval_steps=2, learning_rate=0.5,
        load_best_model_at_end=True, metric_for_best_model="eval_loss/hidden_mse", greater_is_better=False,
    )  # fmt: skip
    run.train()
    best = Path(run.state.best_model_checkpoint)
    assert best.name != "checkpoint-8"  # the rate is far too high: the last is not the best
    kept = load_file(best / FILE)
    assert all(torch.equal(value, kept[name]) for name, value in whole_state(run.distillation.objective).items())
    assert run.evaluate()["eval_loss/hidden_mse"] == pytest.approx(run.state.best_metric, rel=1e-6)


def test_a_module_that_is_no_transformers_model_is_saved_without_them(tmp_path):
    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = tiny.bert()
            self.config = self.inner.config

        def forward(self, input_ids, attention_mask=None, labels=None, output_hidden_states=False):
            return self.inner(input_ids, attention_mask, output_hidden_states=output_hidden_states)

    run = trainer(tmp_path, Student(), task=SequenceClassification(num_labels=3))
    run.train()
    run.save_model(str(tmp_path / "final"))
    for folder in ("checkpoint-8", "final"):
        assert all(key.startswith("inner.") for key in load_file(tmp_path / folder / "model.safetensors"))
    again = trainer(tmp_path, Student(), task=SequenceClassification(num_labels=3))
    again.train(resume_from_checkpoint=True)
    assert torch.equal(
        whole_state(again.distillation.objective)["terms.hidden_mse.projections.1_2.weight"],
        whole_state(run.distillation.objective)["terms.hidden_mse.projections.1_2.weight"],
    )


def test_another_objective_than_the_checkpoints_is_refused(tmp_path, whole):
    checkpoint = f"{whole.args.output_dir}/checkpoint-4"
    with pytest.raises(ValueError, match=r"objective trains \{.*1_1.*\}, .* holds \{.*0_0.*\}: resume with the"):
        trainer(tmp_path, objective={"hidden_mse": {"layers": {1: 1}}}).train(resume_from_checkpoint=checkpoint)
    plain = trainer(tmp_path, objective="forward_kl")
    plain.train()
    with pytest.raises(ValueError, match="holds nothing: resume with the objective that"):
        trainer(tmp_path).train(resume_from_checkpoint=True)


# ---- A run that is killed while it saves ----

MOMENTS = ["save_model", "_save_rng_state", "trainer_state.json"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder for each moment in which a run was killed, and how each run ended: one start, which imports once."""
    folder = tmp_path_factory.mktemp("killed")
    found = subprocess.run(
        [sys.executable, __file__, str(folder)], capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-3000:]
    return folder, json.loads(found.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_killed_while_saving_goes_on_from_the_last_whole_checkpoint(killed, whole, moment):
    folder = killed[0] / moment
    assert killed[1][moment] == -signal.SIGKILL
    assert (folder / "checkpoint-4").is_dir()  # there is a half of it
    assert not is_whole(folder / "checkpoint-4")
    assert last_whole_checkpoint(folder) == folder / "checkpoint-2"
    again = trainer(folder)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 8
    assert tiny.losses(again) == pytest.approx(tiny.losses(whole), rel=1e-6)  # another process, other threads
    assert is_whole(folder / "checkpoint-4")  # written anew on the way


def test_a_checkpoint_that_is_not_whole_is_refused_by_name(tmp_path, whole):
    half = tmp_path / "checkpoint-3"
    half.mkdir()
    with pytest.raises(
        ValueError, match=r"checkpoint-3 was not written to its end, the newest whole checkpoint .* None"
    ):
        trainer(tmp_path).train(resume_from_checkpoint=str(half))
    told = r"^No valid checkpoint found in output directory \(.*: start without"  # Trainer's words: scripts match them
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path).train(resume_from_checkpoint=True)


def test_the_state_is_written_when_every_rank_has_written_its_files(tmp_path, monkeypatch):
    run, order = trainer(tmp_path, max_steps=2), []
    for name in ("_save_optimizer_and_scheduler", "_save_scaler"):
        plain = getattr(run, name)
        monkeypatch.setattr(run, name, lambda folder, plain=plain, name=name: (order.append(name), plain(folder)))
    wait = run.accelerator.wait_for_everyone
    monkeypatch.setattr(run.accelerator, "wait_for_everyone", lambda: (order.append("wait"), wait()))
    save = type(run.state).save_to_json
    monkeypatch.setattr(type(run.state), "save_to_json", lambda self, path: (order.append("state"), save(self, path)))
    run.train()
    assert order[-2:] == ["wait", "state"]
    assert order[0] == "_save_optimizer_and_scheduler"


def main(folder, moment):
    """Train, and be killed by the system in the middle of the second checkpoint."""
    run = trainer(folder)

    def kill(*args):
        os.kill(os.getpid(), signal.SIGKILL)

    def at_step_4(plain):
        return lambda *args, **kwargs: kill() if run.state.global_step == 4 else plain(*args, **kwargs)

    if moment == "trainer_state.json":
        plain = type(run.state).save_to_json

        def half(self, path):
            plain(self, path)
            if self.global_step == 4:
                Path(path).write_text(Path(path).read_text()[:200])
                kill()

        type(run.state).save_to_json = half
    else:
        if moment == "save_model":  # its folder and half of its weights are there

            def half(path, *args):
                Path(path).mkdir(parents=True)
                (Path(path) / "model.safetensors").write_bytes(b"half")
                kill()

            plain = run.save_model
            run.save_model = lambda *a, **k: half(*a) if run.state.global_step == 4 else plain(*a, **k)
        else:
            setattr(run, moment, at_step_4(getattr(run, moment)))
    run.train()


if __name__ == "__main__":
    ends = {}
    for moment in MOMENTS:
        if (child := os.fork()) == 0:
            main(Path(sys.argv[1], moment), moment)
            os._exit(0)  # nobody killed it, which is to be seen
        ends[moment] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps(ends))
