"""A run with a teacher that keeps a few ids: exact however a batch is cut, refused where it cannot be served."""

import logging

import pytest
import tiny
import tiny_language
import torch
from transformers import DataCollatorForSeq2Seq

from hf_distill import CausalLM, DistillationTrainer, Head, Signals, Teacher, Term
from hf_distill.cache.sampled import restore, sample
from hf_distill.models.facts import Facts


class Few(Teacher):
    """Keeps 6 + 6 of 32 ids of a language model; a sequence has the same draws in every batch."""

    facts = Facts("few", vocab_size=32)

    def __init__(self, temperature=1.0, announced=True):
        self.model, self.kept_at = tiny_language.teacher().eval(), temperature
        self.temperature = temperature if announced else None

    def inputs(self, batch):
        return {name: batch[name] for name in ("input_ids", "attention_mask")}

    @torch.no_grad()
    def __call__(self, batch, needs):
        fed = self.inputs(batch)
        logits = self.model(**fed).logits
        each = [
            sample(row, self.kept_at, 6, 6, seed=int(ids[mask.bool()].sum()))
            for row, ids, mask in zip(logits, fed["input_ids"], fed["attention_mask"], strict=True)
        ]
        columns = {name: torch.stack([row[name] for row in each]) for name in each[0]}
        return Signals({"logits": Head(restore(columns, self.kept_at, 32), CausalLM().rows(batch))})


def trainer(folder, objective="forward_kl", teacher=None, callbacks=(), **args):
    return tiny.trainer(
        folder, tiny_language.llama(), tiny_language.texts(), args={"temperature": 1.0, **args},
        data_collator=DataCollatorForSeq2Seq(tiny_language.tokenizer()), teacher_model=teacher or Few(),
        objective=objective, callbacks=list(callbacks),
    )  # fmt: skip


def step(folder, size, accumulation, objective, teacher=None, **args):
    seen = tiny.Gradients()
    sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    run = trainer(folder, objective, teacher, [seen], **sizes, **args)
    run.train()
    return {k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first


def test_it_is_a_teacher():
    assert isinstance(Few(), Teacher)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
@pytest.mark.parametrize("objective", ["forward_kl", "reverse_kl", "jsd", "top1_cross_entropy"])
def test_8_x_1_equals_2_x_4(tmp_path, objective, alpha):
    whole, cut = (step(tmp_path, *cut, objective, alpha=alpha) for cut in ((8, 1), (2, 4)))
    assert max(float(g.abs().max()) for g in whole[1].values()) > 1e-3
    assert cut[0] == pytest.approx(whole[0], rel=1e-5)
    assert tiny.relative(cut[1], whole[1]) < 1e-5


def test_the_value_is_near_that_of_the_whole_teacher(tmp_path):
    found = step(tmp_path, 8, 1, "forward_kl")[0]["loss/forward_kl"]
    exact = step(tmp_path, 8, 1, "forward_kl", tiny_language.teacher())[0]["loss/forward_kl"]
    bound = step(tmp_path, 8, 1, "reverse_kl")[0]["loss/reverse_kl"]
    above = step(tmp_path, 8, 1, "reverse_kl", tiny_language.teacher())[0]["loss/reverse_kl"]
    assert found == pytest.approx(exact, rel=0.25)
    assert 0 < bound < above


def test_it_trains(tmp_path):
    run = trainer(tmp_path, max_steps=30, alpha=1.0)
    run.train()
    losses = tiny.losses(run)
    assert losses[-1] < 0.5 * losses[0]


def test_what_cannot_be_served_is_refused_when_the_trainer_is_made(tmp_path):
    with pytest.raises(ValueError, match="LogitMSE compares whole logits, of which the teacher keeps a few ids"):
        trainer(tmp_path, {"forward_kl": 1.0, "logit_mse": 0.1})
    with pytest.raises(ValueError, match="asked for temperature 2, the teacher's few ids were kept at 1"):
        trainer(tmp_path, temperature=2.0)
    with pytest.raises(ValueError, match="asked for temperature 8, the teacher's few ids were kept at 1"):
        trainer(tmp_path, {"hot": {"term": "forward_kl", "temperature": 8.0}})

    class Whole(Term):
        needs = frozenset({"heads"})

    with pytest.raises(ValueError, match="Whole compares whole logits"):
        trainer(tmp_path, Whole())


def test_the_temperature_that_was_kept_is_accepted(tmp_path):
    assert (
        trainer(tmp_path, teacher=Few(2.0), temperature=2.0).distillation.objective.terms["forward_kl"].temperature
        == 2.0
    )
    assert trainer(tmp_path, {"forward_kl": {"temperature": 1.0}}, temperature=9.0)
    assert trainer(tmp_path, "top1_cross_entropy", temperature=9.0)


def test_a_temperature_that_changes_between_two_trainings_is_refused_before_the_second(tmp_path):
    run = trainer(tmp_path, max_steps=1)
    run.train()
    run.args.temperature = 2.0
    before = [p.clone() for p in run.model.parameters()]
    with pytest.raises(ValueError, match="asked for temperature 2, the teacher's few ids were kept at 1"):
        run.train()
    assert all(torch.equal(a, b) for a, b in zip(before, run.model.parameters(), strict=True))


@pytest.mark.parametrize("objective", ["forward_kl", "logit_mse"])
def test_a_teacher_that_does_not_tell_is_refused_in_the_first_step(tmp_path, objective):
    run = trainer(tmp_path, objective, Few(2.0, announced=False))
    with pytest.raises(ValueError, match=r"the teacher's few ids were kept at 2|compares whole logits"):
        run.train()
    assert run.state.global_step == 0


def test_a_lower_bound_is_announced_once_in_a_run(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="hf_distill"):
        trainer(tmp_path, "reverse_kl").train()
    assert [record.getMessage()[:40] for record in caplog.records] == ["ReverseKL is computed from 6 classes of "]
    assert isinstance(trainer(tmp_path), DistillationTrainer)
