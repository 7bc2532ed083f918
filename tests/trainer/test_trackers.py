"""What a distillation logs arrives where Trainer's logs go, and can stop a run or choose its best step."""

import math
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from transformers import EarlyStoppingCallback, TrainerCallback

OBJECTIVE = {"forward_kl": 1.0, "hidden_mse": 0.5}
PARTS = {"loss/hard", "loss/forward_kl", "loss/hidden_mse"}
FIDELITY = {"eval_agreement", "eval_kl"}


def run(folder, *callbacks, **changes):
    settings = {"eval_strategy": "steps", "eval_steps": 1, "max_steps": 2, **changes}
    return tiny.trainer(
        folder, teacher_model=tiny.teacher(), objective=OBJECTIVE, eval_dataset=tiny.rows(16, seed=5),
        callbacks=list(callbacks), args=settings,
    )  # fmt: skip


class Tracker(TrainerCallback):
    """Stands for any tracker: keeps what it is told and which settings."""

    def __init__(self):
        self.told, self.settings = {}, {}

    def on_train_begin(self, args, state, control, **kwargs):
        self.settings = args.to_sanitized_dict()

    def on_log(self, args, state, control, logs=None, **kwargs):
        for name, value in logs.items():
            self.told.setdefault(name, []).append(value)


def test_a_tracker_is_told_every_part_and_the_settings_but_no_token(tmp_path):
    tracker = Tracker()
    run(tmp_path, tracker, hub_token="hf_local", alpha=0.3).train()
    for name in PARTS | {f"eval_{part}" for part in PARTS} | FIDELITY:
        assert len(tracker.told[name]) == 2, name
        assert all(math.isfinite(value) for value in tracker.told[name])
    assert (tracker.settings["alpha"], tracker.settings["temperature"]) == (0.3, 2.0)
    assert "hf_local" not in repr(tracker.settings)


def test_tensorboard(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "runs"))
    run(tmp_path, report_to="tensorboard").train()
    read = EventAccumulator(str(tmp_path / "runs"))
    read.Reload()
    wanted = {f"train/{part}" for part in PARTS} | {f"eval/{part}" for part in PARTS} | {"eval/agreement", "eval/kl"}
    assert wanted <= set(read.Tags()["scalars"])
    assert [point.step for point in read.Scalars("train/loss/forward_kl")] == [1, 2]


@pytest.mark.slow
def test_trackio(tmp_path):
    pytest.importorskip("trackio")
    script = (
        "import sys; from pathlib import Path; from test_trackers import run\n"
        "run(Path(sys.argv[1]), report_to='trackio', project='distillation', trackio_space_id=None).train()"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    # A process of its own: the folder is read when trackio is imported, which another test may have done.
    where = {**os.environ, "PYTHONPATH": paths, "TRACKIO_DIR": str(tmp_path / "trackio")}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=where, check=True, capture_output=True)
    (database,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(database) as held:
        logged = " ".join(str(row[0]) for row in held.execute("SELECT metrics FROM metrics"))
    for name in (
        *(f"train/{part}" for part in PARTS),
        *(f"eval/{part}" for part in PARTS),
        "eval/agreement",
        "eval/kl",
    ):
        assert f'"{name}"' in logged, name


def test_the_step_that_agrees_most_with_the_teacher_is_loaded_at_the_end(tmp_path):
    one = run(
        tmp_path, save_strategy="steps", save_steps=1, max_steps=6, learning_rate=0.05, load_best_model_at_end=True,
        metric_for_best_model="eval_agreement", greater_is_better=True,
    )  # fmt: skip
    one.train()
    seen = tiny.losses(one, "eval_agreement")
    assert one.state.best_metric == max(seen)
    assert max(seen) > seen[-1]  # the last step is not the best one, so that something had to be loaded
    assert one.evaluate()["eval_agreement"] == max(seen)


def test_a_run_that_no_longer_comes_closer_to_its_teacher_stops(tmp_path):
    one = run(
        tmp_path, EarlyStoppingCallback(early_stopping_patience=2), learning_rate=0.0, max_steps=20,
        metric_for_best_model="eval_agreement", greater_is_better=True, save_strategy="no",
    )  # fmt: skip
    one.train()
    assert one.state.global_step == 3  # one to compare with, two that were no better
