"""A student that shrinks while it learns: its rounds, its teacher's answers, a run that goes on, two processes."""

import importlib.util
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from recipe_runs import rows, write
from transformers import AutoModelForSequenceClassification as Auto

from hf_distill import lineage
from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments import experiment as home
from hf_distill.experiments import shrinking
from hf_distill.experiments.steps import steps_of
from hf_distill.teachers import LiveTeacher

SCRIPT = Path(__file__).with_name("shrinking_ranks.py")
ROUNDS = 3
_spec = importlib.util.spec_from_file_location("shrinking_ranks", SCRIPT)
shrinking_ranks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shrinking_ranks)


def job(folder, *flags):
    return shrinking_ranks.job(folder, "--shrink_rounds", str(ROUNDS), *flags)


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items() if "distillation" not in name}


class Watched:
    """A collator that remembers its rows."""

    def __init__(self, collate):
        self.collate, self.shown = collate, []

    def __call__(self, some):
        self.shown.append([tuple(row["input_ids"]) for row in some])
        return self.collate(some)


@contextmanager
def watching():
    """How many rows a teacher was asked for, each time."""
    asked, answer = [], LiveTeacher.__call__

    def counted(self, batch, needs):
        asked.append(len(batch["input_ids"]))
        return answer(self, batch, needs)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LiveTeacher, "__call__", counted)
        yield asked


def watched(made):
    made.options = {**made.options, "data_collator": Watched(made.options["data_collator"])}
    return made


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """The student under its teacher and the one alone, each in three rounds; what teacher and collator were shown."""
    folder = tmp_path_factory.mktemp("learned")
    made, teacher = job(folder)
    made.budget.batches(Auto.from_pretrained(teacher))
    plain = watched(made).distilled(teacher, made.args)
    with watching() as asked:
        distilled = made.learn(plain)
    order = [*made.options["data_collator"].shown]
    alone = made.learn(made.alone(teacher, made.arguments_alone()))
    return made, plain, distilled, alone, asked, order, folder


def alike(learned, folder, *flags):
    """The same experiment in another folder; its student was cut before."""
    made, teacher = job(folder, *flags)
    made.budget = learned[0].budget
    return watched(made), teacher


def test_the_rounds_are_the_steps_of_a_plain_run_and_end_in_its_shape(learned):
    made, plain, distilled, *_ = learned
    told, whole = (
        made.notes["rounds"],
        0.3 * Auto.from_pretrained(made.recipe.teacher_model_name_or_path).num_parameters(),
    )
    assert [one["steps"] for one in told] == [4, 4, 4]
    assert sum(one["steps"] for one in told) == steps_of(plain)
    sizes = [one["parameters"] for one in told]
    assert sorted(sizes, reverse=True) == sizes
    assert sizes[0] > sizes[-1] == made.budget.student(None).num_parameters() <= whole
    shapes = [{name: value.shape for name, value in weights(one).items()} for one in (plain, distilled)]
    assert shapes[0] == shapes[1]
    logged = [entry["step"] for entry in distilled.state.log_history if "loss" in entry]
    assert logged == [*range(1, 13)]
    assert distilled.state.log_history[-1]["epoch"] == ROUNDS


def test_the_student_alone_goes_the_same_way_without_a_teacher(learned):
    made, _, distilled, alone, *_ = learned
    assert alone.teacher is None
    told = [[one for one in lineage(trainer.model) if one.startswith("So ")] for trainer in (distilled, alone)]
    assert told[0] == told[1]
    assert told[0][0].startswith("So `teacher` was cut before round 1 of 3, to ")
    assert told[0][2].startswith("So `the student of round 2` was cut before round 3 of 3, to ")
    assert any((a != b).any() for a, b in zip(weights(alone).values(), weights(distilled).values(), strict=True))
    assert "cut in the same 3 rounds" in made.notes["note"]


def test_teacher_and_rows_come_as_in_a_plain_run(learned, tmp_path):
    """The teacher is asked for each row once, beside a few to see whether its answers can be kept."""
    *_, asked, order, _ = learned
    made, teacher = alike(learned, tmp_path)
    plain = made.distilled(teacher, made.args)
    with watching() as again:
        home.train(plain)
    assert (again, made.options["data_collator"].shown) == (asked, order)
    assert sum(asked) < 2 * len(made.splits["train"])
    assert len({tuple(map(tuple, order[at : at + 4])) for at in (0, 4, 8)}) == 3  # each epoch another order


def test_the_students_between_are_kept_and_what_resumed_them_is_not(learned):
    *_, folder = learned
    for part in ("run", "run/_alone"):
        for number, limit in ((1, 0.3 ** (1 / 3)), (2, 0.3 ** (2 / 3))):
            kept = Auto.from_pretrained(folder / part / f"_round-{number}")
            assert kept.num_parameters() <= limit * Auto.from_pretrained(folder / "teacher").num_parameters()
            assert not list((folder / part / f"_round-{number}").glob("checkpoint-*"))
        assert not (folder / part / "_round-3").exists()


@pytest.mark.slow
def test_a_run_that_stopped_goes_on_in_its_round(learned, tmp_path, monkeypatch):
    """It stops before a checkpoint of its second round, and after one: the end is the same bit for bit."""
    expected = weights(learned[2])
    saving = ["--save_strategy", "steps", "--save_steps", "2"]
    made, teacher = alike(learned, tmp_path, *saving)
    trained, train = [], shrinking.train

    def stopping(trainer, resume=None):
        trained.append((Path(trainer.args.output_dir).name, Path(resume or "").name))
        if len(trained) == 2:
            trainer.add_callback(shrinking_ranks.Stopped(3))
        train(trainer, resume)

    monkeypatch.setattr(shrinking, "train", stopping)
    with pytest.raises(KeyboardInterrupt):
        made.learn(made.distilled(teacher, made.args))
    made, teacher = alike(learned, tmp_path, *saving, "--resume_from_checkpoint", "true")
    again = made.learn(made.distilled(teacher, made.args), made.args.resume_from_checkpoint)
    assert trained == [("_round-1", ""), ("_round-2", ""), ("_round-2", "checkpoint-2"), ("run", "")]
    for name, value in weights(again).items():
        assert torch.equal(value, expected[name]), name
    assert [entry["step"] for entry in again.state.log_history if "loss" in entry] == [*range(1, 13)]
    other, teacher = alike(learned, tmp_path, "--resume_from_checkpoint", "true", "--max_steps", "9")
    plain = other.distilled(teacher, other.args)
    with pytest.raises(ValueError, match=r"_round-1 holds a round of 4 steps with [\d,]+ parameters, and one of 3"):
        other.learn(plain, "true")


def test_there_is_a_step_for_each_round(learned, tmp_path):
    made, teacher = alike(learned, tmp_path, "--max_steps", "2")
    with pytest.raises(ValueError, match="shrink_rounds=3 was given for 2 steps: give each round a step at least"):
        made.learn(made.distilled(teacher, made.args))


def test_nothing_goes_on_where_nothing_was_kept(tmp_path):
    with pytest.raises(ValueError, match="No valid checkpoint found in output directory"):
        job(tmp_path, "--resume_from_checkpoint", "true")
    (tmp_path / "run" / "_round-1").mkdir(parents=True)
    (tmp_path / "run" / "_round-1" / "round.json").write_text("{}")
    with pytest.raises(ValueError, match="No valid checkpoint found in output directory"):
        shrinking_ranks.job(tmp_path, "--resume_from_checkpoint", "true")  # which has one round
    job(tmp_path, "--resume_from_checkpoint", "true")


@pytest.mark.slow
def test_the_whole_recipe_with_the_best_checkpoint_of_each_round(tmp_path):
    saving = ["--eval_strategy", "steps", "--eval_steps", "2", "--save_strategy", "steps", "--save_steps", "2"]
    data = write(tmp_path / "train.jsonl", rows(60))
    flags = ["--train_file", data, "--output_dir", str(tmp_path / "run"), "--student_parameters", "0.4", *saving]
    flags += ["--shrink_rounds", "2", "--load_best_model_at_end", "1", "--metric_for_best_model", "accuracy"]
    flags += ["--teacher_hidden_size", "128", "--teacher_epochs", "1", "--num_train_epochs", "2", "--bf16", "0"]
    flags += ["--per_device_train_batch_size", "8", "--num_threads", "1", "--report_to", "none", "--disable_tqdm", "1"]
    report = recipe_module("bert_chinese").RECIPE.main(flags)
    teacher, alone, distilled = (one["parameters"] for one in report["models"])
    assert alone == distilled <= 0.4 * teacher
    assert [one["round"] for one in report["rounds"]] == [1, 2]
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert "cut in the same 2 rounds" in card
    assert "- How it was made: So `the student of round 1` was cut before round 2 of 2, to " in card
    assert "the best by `eval_accuracy`" in card
    assert str(tmp_path) not in card


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_ranks")
    found = subprocess.run(
        [*f"{sys.executable} -m torch.distributed.run --nproc_per_node 2 --standalone".split(), SCRIPT, folder],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-4000:]
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.slow
def test_two_ranks_make_one_student_and_that_of_one_process(learned, two_ranks):
    first, second = two_ranks
    assert first["world_size"] == 2  # an unnoticed single process would prove nothing
    assert first["lineage"] == second["lineage"] == lineage(learned[2].model)
    for name, value in weights(learned[2]).items():
        assert torch.equal(first["weights"][name], second["weights"][name]), name
        torch.testing.assert_close(first["weights"][name], value, rtol=1e-3, atol=1e-4, msg=name)
