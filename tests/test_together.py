"""Several students under one teacher pass: each is what it would be alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import together_ranks
import torch
from datasets import Dataset
from transformers import DataCollatorForLanguageModeling, TrainerCallback, set_seed

from hf_distill import AdapterOffTeacher, EMATeacher, train_together
from hf_distill.training.shared_answers import SharedAnswers

KINDS = together_ranks.KINDS


class Calls:
    """How often a model is run, and on how many rows."""

    def __init__(self, model):
        self.count = self.rows = 0
        model.register_forward_hook(self, with_kwargs=True)

    def __call__(self, module, given, named, output):
        self.count += 1
        self.rows += len(named["input_ids"])


def figures(run):
    clock = ("runtime", "per_second", "cache_hits")  # who asks is told of the hits
    return [{k: v for k, v in one.items() if not k.endswith(clock)} for one in run.state.log_history]


def weights(run):
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def assert_equal(one, other):
    assert figures(one) == figures(other)
    theirs = weights(other)
    assert all(torch.equal(value, theirs[name]) for name, value in weights(one).items())


def made(folder, teacher, count=10, **changes):
    data = Dataset.from_list(tiny.rows(count))
    return [together_ranks.made(folder, name, teacher, data, **changes) for name in KINDS]


def trained(trainers):
    """Each alone, from the random numbers that it has when it is trained right after it is made."""
    for one in trainers:
        set_seed(one.args.seed)
        one.train()
    return trainers


@pytest.mark.parametrize("cache", [pytest.param("off", marks=pytest.mark.slow), "auto"])
def test_each_student_is_what_it_is_alone_and_the_teacher_runs_once(tmp_path, cache):
    """Other widths, rates, objectives and lengths, dropout, accumulation, evaluation."""
    teacher = tiny.teacher()
    calls = Calls(teacher)
    shared = {"teacher_cache": cache, "eval_strategy": "epoch", "gradient_accumulation_steps": 2}
    alone, asked = made(tmp_path, teacher, **shared), []
    for one in alone:
        before = calls.rows
        trained([one])
        asked.append(calls.rows - before)
    together = made(tmp_path, teacher, **shared)
    before, state = calls.rows, torch.get_rng_state()
    outputs = train_together(together)
    assert calls.rows - before == max(asked)  # the longest run alone
    assert torch.equal(torch.get_rng_state(), state)
    for one, other, output in zip(together, alone, outputs, strict=True):
        assert_equal(one, other)
        assert output.global_step == one.state.global_step
    assert together[0].state.global_step != together[1].state.global_step
    assert all(one.shared_draw is None for one in together)
    assert "answered" not in vars(together[0].distillation)


def masked(folder, teacher, dropout):
    tokenizer = tiny.tokenizer()
    data = Dataset.from_list([{"input_ids": row["input_ids"]} for row in tiny.rows(12)])
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.4)
    models = [together_ranks.masked_bert(width, dropout) for width in (8, 16)]
    return [
        tiny.trainer(
            folder / f"{n}", model, data, teacher_model=teacher, data_collator=collator,
            args={"per_device_train_batch_size": 4, "teacher_cache": "off", "num_train_epochs": 2, "max_steps": -1},
        )
        for n, model in enumerate(models)
    ]  # fmt: skip


def test_hidden_tokens_are_those_of_the_first_where_dropout_moves_what_is_drawn(tmp_path):
    teacher = together_ranks.masked_bert(24)
    calls = Calls(teacher)
    together, alone = masked(tmp_path, teacher, 0.2), masked(tmp_path, teacher, 0.2)
    train_together(together)
    assert calls.count == together[0].state.global_step == 6
    trained(alone)
    assert_equal(together[0], alone[0])
    other, by_itself = (tiny.losses(one[1]) for one in (together, alone))
    assert other[0] == by_itself[0]  # dropout has moved nothing yet
    assert other[1:] != by_itself[1:]
    assert other == pytest.approx(by_itself, rel=0.3)


@pytest.mark.slow
def test_without_dropout_all_of_them_hide_what_they_would_alone(tmp_path):
    teacher = together_ranks.masked_bert(24)
    together, alone = masked(tmp_path, teacher, 0.0), masked(tmp_path, teacher, 0.0)
    train_together(together)
    for one, other in zip(together, trained(alone), strict=True):
        assert_equal(one, other)


class Ends(TrainerCallback):
    def __init__(self, step, error=None):
        self.step, self.error = step, error

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            if self.error is not None:
                raise self.error
            control.should_training_stop = True


def test_one_that_stops_early_or_evaluates_by_itself_holds_nobody(tmp_path):
    def runs(folder):
        found = made(tmp_path / folder, teacher)
        found[0].add_callback(Ends(2))
        found[1].args.eval_strategy, found[1].args.eval_steps = "steps", 2
        return found

    teacher = tiny.teacher()
    together, alone = runs("together"), runs("alone")
    train_together(together)
    for one, other in zip(together, trained(alone), strict=True):
        assert_equal(one, other)


def test_an_error_of_one_is_told_and_all_can_train_again(tmp_path):
    teacher = tiny.teacher()
    together = made(tmp_path, teacher)
    together[1].add_callback(end := Ends(2, RuntimeError("the disk is full")))
    with pytest.raises(RuntimeError, match="the disk is full"):
        train_together(together)
    assert together[0].state.global_step in (1, 2)
    together[1].remove_callback(end)
    again = together[1].train()
    assert again.global_step == made(tmp_path, teacher)[1].train().global_step


@pytest.mark.slow
def test_resumed_is_uninterrupted_also_where_one_is_behind(tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 1}
    teacher = tiny.teacher()
    whole = made(tmp_path / "whole", teacher)
    train_together(whole)
    begun = made(tmp_path / "cut", teacher, **saving)
    begun[0].add_callback(Ends(3))
    begun[1].add_callback(Ends(1))
    train_together(begun)
    resumed = made(tmp_path / "cut", teacher, **saving)
    outputs = train_together(resumed, resume_from_checkpoint=True)
    assert [one.global_step for one in outputs] == [one.state.global_step for one in whole]
    for one, other in zip(resumed, whole, strict=True):
        theirs = weights(other)
        assert all(torch.equal(value, theirs[name]) for name, value in weights(one).items())


def test_what_cannot_be_trained_together_is_refused_in_a_sentence(tmp_path):
    teacher, data = tiny.teacher(), Dataset.from_list(tiny.rows(10))

    def refused(match, *trainers):
        with pytest.raises(ValueError, match=match):
            train_together(trainers)

    def one(name="small", asked=teacher, rows=data, **changes):
        return together_ranks.made(tmp_path, name, asked, rows, **changes)

    first, second = one(), one("wide")
    refused("was given 1 trainers: give two", first)
    refused("was given 2 trainers: give two different ones", first, first)
    refused("trainer 1 of train_together asks no teacher", first, one("wide", None))
    refused("trainer 1 of train_together asks no teacher", first, one("wide", alpha=0.0))
    refused("whose answers change while a student learns", first, one("wide", EMATeacher()))
    refused("has a rollout", *together_ranks.writers(tmp_path))
    refused("has teacher_prepass=True", first, one("wide", teacher_prepass=True))
    refused("has auto_find_batch_size=True", first, one("wide", auto_find_batch_size=True))
    refused("keeps its teacher's answers in .*: train these one after the other", first,
            one("wide", teacher_cache=str(tmp_path / "kept")))  # fmt: skip
    refused("but not the one of trainer 0: load it once", first, one("wide", tiny.teacher()))
    refused("other training rows than trainer 0", first, one("wide", rows=Dataset.from_list(tiny.rows(9))))
    refused("has seed=6 and trainer 0 has 5", first, one("wide", seed=6))
    refused("has per_device_train_batch_size=2 and trainer 0 has 4", first,
            one("wide", per_device_train_batch_size=2))  # fmt: skip
    refused("as trainer 0 does: give each its own output_dir", first, one())
    refused("trainer 2 .* writes into .*, as trainer 1 does", first, second, one("wide"))
    second.model = first.model
    refused("trains parameters of the student of trainer 0", first, second)


def test_a_lora_student_beside_a_whole_one(tmp_path):
    """Its own base as a teacher is nobody else's."""
    from peft import LoraConfig, get_peft_model

    teacher, data = tiny.teacher(), Dataset.from_list(tiny.rows(10))
    torch.manual_seed(0)
    lora = get_peft_model(tiny.bert(16), LoraConfig(target_modules=["query"], task_type="SEQ_CLS"))
    trainers = [
        together_ranks.made(tmp_path, "small", teacher, data),
        together_ranks.made(tmp_path, "wide", teacher, data, student=lora),
    ]
    before = {name: value.clone() for name, value in lora.named_parameters() if value.requires_grad}
    calls = Calls(teacher)
    train_together(trainers)
    assert any(not torch.equal(value, before[n]) for n, value in lora.named_parameters() if n in before)
    assert calls.count == max(one.state.global_step for one in trainers)
    own = together_ranks.made(tmp_path, "wide", AdapterOffTeacher(), data, student=lora)
    with pytest.raises(ValueError, match="but not the one of trainer 0"):
        train_together([trainers[0], own])


@pytest.mark.slow
def test_two_ranks_are_one_and_ask_once(tmp_path):
    command = f"{sys.executable} -m torch.distributed.run --nproc_per_node 2 --standalone".split()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    environment["PYTHONPATH"] = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    found = subprocess.run(
        [*command, together_ranks.__file__, str(tmp_path)], env=environment, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-4000:]
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [one["world"] for one in told] == [2, 2]
    longest = max(told[0]["steps"])
    assert [one["asked"] for one in told] == [longest, longest]
    one = made(tmp_path / "one", tiny.teacher(), 16, per_device_train_batch_size=8, **together_ranks.SMOOTH)
    train_together(one)
    for run, losses in zip(one, told[0]["losses"], strict=True):
        assert tiny.losses(run) == pytest.approx(losses, rel=1e-4)
        assert len(losses) > 2


def test_answers_are_counted(tmp_path, monkeypatch):
    found = []
    init = SharedAnswers.__init__
    monkeypatch.setattr(SharedAnswers, "__init__", lambda self, *a: (found.append(self), init(self, *a))[1])
    together = made(tmp_path, tiny.teacher())
    train_together(together)
    steps = [one.state.global_step for one in together]
    assert found[0].asked[0] == steps[0]
    assert found[0].asked[1] + found[0].given[1] == steps[1]
    assert found[0].given[1] == min(steps)
