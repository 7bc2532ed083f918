"""How long the whole of a run may take: told from the steps that were seen, whatever was left out."""

import tiny
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from hf_distill import DistillationTrainer
from hf_distill.experiments.job import Job, JobBar, clock

ROWS = [{"input_ids": [5, 6 + i % 9], "labels": i % 3} for i in range(8)]


def ticking(*seconds):
    """A clock that shows these, one after the other."""
    return iter(seconds).__next__


def test_what_has_not_begun_is_as_slow_as_what_was_seen_last():
    job = Job({"teacher": 10, "distilled": 20, "measuring": 5}, ticking(0.0, 4.0, 40.0, 40.0, 42.0))
    assert (job.begin("teacher"), job.left()) == ("1 of 3", None)
    job.step(2)
    assert job.left() == 2.0 * (8 + 20 + 5)
    job.step(8)
    assert job.begin("distilled") == "2 of 3, at most 1:40 more"  # four seconds a step
    job.step(4)
    assert job.left() == 0.5 * (16 + 5)


def test_steps_of_an_earlier_run_are_no_time_of_this_one_and_parts_may_be_done():
    job = Job({"teacher": 10, "distilled": 20}, ticking(0.0, 6.0))
    del job.parts["teacher"]
    assert job.begin("distilled") == "1 of 1"
    job.skip(14)
    job.step(2)
    assert job.left() == 3.0 * 4


def test_more_steps_than_were_planned_leave_nothing():
    job = Job({"distilled": 1}, ticking(0.0, 1.0))
    job.begin("distilled")
    job.step(3)
    assert job.left() == 0.0


def test_the_bar_tells_it_and_a_run_without_a_bar_has_none(tmp_path, capsys):
    def trainer(**asked):
        args = TrainingArguments(
            str(tmp_path), per_device_train_batch_size=2, use_cpu=True, report_to=[], max_steps=3, **asked
        )
        return DistillationTrainer(tiny.bert(), args, train_dataset=ROWS)

    job = Job({"distilled": 3, "beside": 3})
    watched = job.watch(trainer())
    bars = [one for one in watched.callback_handler.callbacks if isinstance(one, ProgressCallback)]
    assert [type(one) for one in bars] == [JobBar]
    job.begin("distilled")
    watched.train()
    assert "at most" in capsys.readouterr().err
    assert job.done == 3
    plain = job.watch(trainer(disable_tqdm=True))
    kinds = [type(one) for one in plain.callback_handler.callbacks]
    assert PrinterCallback in kinds
    assert JobBar not in kinds


def test_hours_are_told_where_there_are_some():
    assert [clock(seconds) for seconds in (0.4, 59.6, 3600.0)] == ["0:00", "1:00", "1:00:00"]
