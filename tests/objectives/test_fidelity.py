"""How close a student comes to its teacher, in every evaluation."""

import math

import numpy as np
import pytest
import tiny
import tiny_language
import torch
from transformers import DataCollatorForSeq2Seq

from hf_distill import DenseLogits, Head, Signals
from hf_distill.objectives.fidelity import fidelity


def test_a_classifier_is_measured_against_its_teacher(tmp_path):
    run = tiny.trainer(
        tmp_path, teacher_model=tiny.teacher(), objective="reverse_kl", eval_dataset=tiny.rows(7, seed=9)
    )
    ours = run.predict(tiny.rows(7, seed=9)).predictions
    theirs = tiny.trainer(tmp_path, tiny.teacher()).predict(tiny.rows(7, seed=9)).predictions
    found = run.evaluate()
    assert found["eval_agreement"] == pytest.approx(np.mean(ours.argmax(-1) == theirs.argmax(-1)))
    p, q = (torch.tensor(one).double().log_softmax(-1) for one in (theirs, ours))
    assert found["eval_kl"] == pytest.approx((p.exp() * (p - q)).sum(-1).mean().item(), rel=1e-5)
    assert "eval_perplexity" not in found


@pytest.mark.parametrize("how", ["on", "off"])
def test_a_language_model_is_measured_token_by_token_whatever_the_batches(tmp_path, how):
    rows = tiny_language.texts(7, seed=9)
    rows[4]["labels"] = [-100] * len(rows[4]["labels"])
    found = []
    for size in (7, 2, 1):
        args = {"per_device_eval_batch_size": size, "fused_logits": how}
        run = tiny.trainer(
            tmp_path, tiny_language.llama(), tiny_language.texts(), args=args, teacher_model=tiny_language.teacher(),
            data_collator=DataCollatorForSeq2Seq(tiny_language.tokenizer()), eval_dataset=rows,
        )  # fmt: skip
        found.append(run.evaluate())
    for name in ("eval_agreement", "eval_kl", "eval_perplexity"):
        assert [one[name] for one in found[1:]] == pytest.approx([found[0][name]] * 2, rel=1e-5)
    assert 0 <= found[0]["eval_agreement"] < 1
    assert found[0]["eval_perplexity"] == pytest.approx(math.exp(found[0]["eval_loss/hard"]))


def test_the_best_checkpoint_may_be_the_one_that_agrees_most(tmp_path):
    args = {
        "max_steps": 4, "eval_steps": 1, "save_steps": 1, "eval_strategy": "steps", "save_strategy": "steps",
        "load_best_model_at_end": True, "metric_for_best_model": "eval_agreement", "greater_is_better": True,
    }  # fmt: skip
    run = tiny.trainer(tmp_path, args=args, teacher_model=tiny.teacher(), eval_dataset=tiny.rows(8, seed=9))
    run.train()
    assert run.state.best_metric == max(tiny.losses(run, "eval_agreement"))


def test_a_number_has_no_class_to_agree_on(tmp_path):
    rows = tiny.rows(8, tiny.REGRESSION)
    student, teacher = tiny.bert(problem=tiny.REGRESSION), tiny.teacher(tiny.REGRESSION)
    run = tiny.trainer(tmp_path, student, rows, teacher_model=teacher, eval_dataset=rows)
    assert not {"eval_agreement", "eval_kl"} & run.evaluate().keys()


def test_rows_weigh_what_their_teacher_says_and_a_share_stays_one():
    logits = torch.tensor([[[2.0, 0.0], [0.0, 2.0]]])
    rows = torch.ones(1, 2, dtype=torch.bool)
    student = Signals({"logits": Head(DenseLogits(logits), rows, share=0.5)})
    theirs = torch.tensor([[[2.0, 0.0], [2.0, 0.0]]])
    teacher = Signals({"logits": Head(DenseLogits(theirs), rows, weights=torch.tensor([[30.0, 10.0]]))})
    found = fidelity(student, teacher)
    assert found["agreement"].mean().item() == pytest.approx(0.75)
