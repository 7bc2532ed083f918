"""What users of Trainer take for granted still works under a teacher."""

import copy

import numpy as np
import optuna
import pytest
import tiny
import tiny_language
import torch
import transformers
from default_run import slow_but
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorForSeq2Seq,
    EarlyStoppingCallback,
    TrainerCallback,
)

from hf_distill import CausalLM
from hf_distill.reports import ClassificationMetric


def scores(p):
    assert isinstance(p.predictions, np.ndarray)  # a tuple would mean that something was added to the outputs
    return ClassificationMetric().compute(predictions=p.predictions.argmax(-1), references=p.label_ids)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_compute_metrics_and_load_best_model_at_end(tmp_path):
    run = tiny.trainer(
        tmp_path, data=tiny.rows(32), teacher_model=tiny.teacher(), compute_metrics=scores,
        eval_dataset=tiny.rows(16, seed=9),
        args=dict(eval_strategy="steps", save_strategy="steps", eval_steps=2, save_steps=2, max_steps=8,
                  load_best_model_at_end=True, metric_for_best_model="accuracy", learning_rate=0.05),
    )  # fmt: skip
    run.train()
    evaluated = {e["step"]: e["eval_accuracy"] for e in run.state.log_history if "eval_accuracy" in e}
    assert len(evaluated) == 4
    best = max(evaluated.values())
    assert run.state.best_metric == best
    assert run.evaluate()["eval_accuracy"] == best
    kept = load_file(f"{run.state.best_model_checkpoint}/model.safetensors")
    assert equal(kept, weights(run.model))


def test_the_best_model_can_be_chosen_by_a_part_of_the_loss_and_stopped_early(tmp_path):
    run = tiny.trainer(
        tmp_path, teacher_model=tiny.teacher(), eval_dataset=tiny.rows(6, seed=9),
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
        args=dict(eval_strategy="steps", save_strategy="steps", eval_steps=1, save_steps=1, max_steps=30,
                  load_best_model_at_end=True, metric_for_best_model="eval_loss/forward_kl", learning_rate=0.5,
                  greater_is_better=False),
    )  # fmt: skip
    run.train()
    values = tiny.losses(run, "eval_loss/forward_kl")
    assert run.state.best_metric == min(values)
    assert run.state.global_step < 30


def test_hyperparameter_search_over_alpha_and_temperature(tmp_path):
    seen = []

    class Watch(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            seen.append((args.alpha, args.temperature))

        def on_step_end(self, args, state, control, **kwargs):
            assert run.distillation.objective.terms["forward_kl"].temperature == args.temperature

    run = tiny.trainer(
        tmp_path, model_init=lambda: tiny.bert(), teacher_model=tiny.teacher(), eval_dataset=tiny.rows(6, seed=9),
        callbacks=[Watch()], args=dict(max_steps=2, bf16=True),
    )  # fmt: skip
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    first = run.model
    best = run.hyperparameter_search(
        lambda trial: {
            "alpha": trial.suggest_float("alpha", 0.1, 1.0),
            "temperature": trial.suggest_float("temperature", 1.0, 8.0),
        },
        n_trials=3,
        sampler=optuna.samplers.RandomSampler(seed=0),
        compute_objective=lambda metrics: metrics["eval_loss/forward_kl"],
    )
    assert len(set(seen)) == 3
    assert best.hyperparameters.keys() == {"alpha", "temperature"}
    assert run.model is not first  # a new student for every trial
    assert not any(p.requires_grad for p in run.teacher.model.parameters())
    run.args.alpha = 1.5
    with pytest.raises(ValueError, match=r"alpha=1.5 was given"):
        run.train()


def test_model_init_starts_every_training_from_the_same_student(tmp_path):
    run = tiny.trainer(tmp_path, model_init=lambda: tiny.bert(), teacher_model=tiny.teacher())
    run.train()
    first = weights(run.model)
    run.train()
    assert equal(first, weights(run.model))


def test_training_twice_goes_on_from_where_it_was(tmp_path):
    run = tiny.trainer(tmp_path, teacher_model=tiny.teacher())
    run.train()
    first = tiny.losses(run)
    run.train()
    assert tiny.losses(run)[0] < first[0]


@pytest.mark.parametrize("problem", slow_but([tiny.MULTI], tiny.PROBLEMS))
def test_learns_what_the_teacher_knows_without_any_label(tmp_path, problem):
    data = [{name: value for name, value in row.items() if name != "labels"} for row in tiny.rows(32, problem)]
    run = tiny.trainer(
        tmp_path, tiny.bert(problem=problem), data, teacher_model=tiny.teacher(problem),
        args=dict(alpha=1.0, max_steps=120, logging_steps=1, per_device_train_batch_size=32),
    )  # fmt: skip
    run.train()
    series = tiny.losses(run)
    assert series[-1] < 0.1 * series[0]
    assert "loss/hard" not in run.state.log_history[0]
    assert run.predict(data).predictions.shape == (32, run.model.config.num_labels)


def test_gradient_checkpointing_changes_nothing(tmp_path):
    found = []
    for on in (False, True):
        run = tiny.trainer(tmp_path, tiny.bert(layers=2), teacher_model=tiny.teacher(), args={tiny.CHECKPOINTING: on})
        run.train()
        found.append(tiny.losses(run))
    assert found[0] == pytest.approx(found[1], rel=1e-6)


@pytest.mark.parametrize("stop", [2, 4, 5])
def test_resume_equals_the_uninterrupted_run_bit_for_bit_with_dropout(tmp_path, stop):
    def run(folder, **args):
        student = tiny.bert(layers=2, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)
        return tiny.trainer(
            folder, student, tiny.rows(24), teacher_model=tiny.teacher(hidden_dropout_prob=0.3),
            args=dict(max_steps=8, per_device_train_batch_size=3, gradient_accumulation_steps=2, save_strategy="steps",
                      save_steps=stop, max_grad_norm=1.0, lr_scheduler_type="linear", **args),
        )  # fmt: skip

    whole = run(tmp_path / "whole")
    whole.train()
    resumed = run(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{stop}"))
    assert tiny.losses(resumed) == tiny.losses(whole)
    for part in ("loss/hard", "loss/forward_kl"):
        assert tiny.losses(resumed, part) == tiny.losses(whole, part)
    assert equal(weights(resumed.model), weights(whole.model))


def test_starting_again_after_running_out_of_memory_starts_clean(tmp_path):
    run = tiny.trainer(
        tmp_path, teacher_model=tiny.teacher(), args=dict(auto_find_batch_size=True, max_steps=2, logging_steps=2)
    )
    compute, failures = run.compute_loss, []

    def fails_once(model, inputs, **kwargs):
        loss = compute(model, inputs, **kwargs)
        if not failures and run.state.global_step == 1:
            failures.append(len(inputs["labels"]))
            raise RuntimeError("CUDA out of memory. (a test)")
        return loss

    run.compute_loss = fails_once
    run.train()
    assert failures == [8]
    (entry,) = (e for e in run.state.log_history if "loss" in e)
    assert entry["loss"] == pytest.approx(0.5 * entry["loss/hard"] + 0.5 * entry["loss/forward_kl"], rel=1e-5)


def lora(folder, **args):
    torch.manual_seed(0)
    config = LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules="all-linear", lora_dropout=0.0)
    student = get_peft_model(tiny.bert(), config)
    return tiny.trainer(folder, student, teacher_model=tiny.teacher(), args=args)


def test_a_lora_student_trains_its_adapter_and_saves_only_that(tmp_path):
    tiny.bert().save_pretrained(tmp_path / "base")
    run = lora(tmp_path, max_steps=4, save_strategy="steps", save_steps=2)
    before = weights(run.model.get_base_model())
    run.train()
    after = weights(run.model.get_base_model())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all("lora" in name or "modules_to_save" in name for name in moved)
    run.save_model()
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()
    assert not (tmp_path / "checkpoint-2" / "model.safetensors").exists()
    assert all("lora" in name or "classifier" in name for name in saved)

    from peft import PeftModel

    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    loaded = PeftModel.from_pretrained(base, tmp_path).eval()
    batch = {name: value for name, value in run.data_collator(tiny.rows()).items() if name != "labels"}
    run.model.eval()
    with torch.no_grad():
        expected = run.model(**batch).logits
        assert torch.allclose(loaded(**batch).logits, expected, atol=1e-6)
        merged = run.model.merge_and_unload().eval()
        assert torch.allclose(merged(**batch).logits, expected, atol=1e-5)


def test_a_lora_student_resumes(tmp_path):
    whole = lora(tmp_path, max_steps=4, save_strategy="steps", save_steps=2)
    whole.train()
    resumed = lora(tmp_path, max_steps=4)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert tiny.losses(resumed) == tiny.losses(whole)


def test_a_lora_student_is_exact_under_accumulation(tmp_path):
    found = []
    for batch, accumulation in [(8, 1), (2, 4)]:
        run = lora(tmp_path, max_steps=3, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation)
        run.train()
        found.append(tiny.losses(run))
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_several_evaluation_sets_each_report_their_parts(tmp_path):
    sets = {"one": tiny.rows(4, seed=5), "two": tiny.rows(6, seed=6)}
    metrics = tiny.trainer(tmp_path, teacher_model=tiny.teacher(), eval_dataset=sets).evaluate()
    assert {"eval_one_loss", "eval_one_loss/hard", "eval_two_loss/forward_kl"} <= metrics.keys()


def test_a_tuple_model_predicts_its_logits(tmp_path):
    student = tiny.bert(return_dict=False)
    run = tiny.trainer(tmp_path, student, teacher_model=tiny.teacher(), eval_dataset=tiny.rows(5, seed=9))
    run.train()
    assert run.predict(tiny.rows(5, seed=9)).predictions.shape == (5, 3)


def fused(model, config):
    """What Liger's patch does to a language model: with labels in training, or when told, there are no logits."""
    plain = model.forward

    def forward(input_ids=None, attention_mask=None, labels=None, skip_logits=None, **kwargs):
        outputs = plain(input_ids=input_ids, attention_mask=attention_mask, labels=labels, **kwargs)
        if model.training and labels is not None if skip_logits is None else skip_logits:
            outputs.logits = None
        return outputs

    model.forward = forward


def test_ligers_fused_loss_is_not_asked_for_and_its_logits_are(tmp_path, monkeypatch):
    monkeypatch.setattr(transformers.trainer, "apply_liger_kernel", fused)
    found = []
    for liger in (False, True):
        run = tiny.trainer(
            tmp_path, tiny_language.llama(), tiny_language.texts(), teacher_model=tiny_language.teacher(),
            data_collator=DataCollatorForSeq2Seq(tiny_language.tokenizer()),
            eval_dataset=tiny_language.texts(4, seed=9),
            args={"use_liger_kernel": liger, "prediction_loss_only": True},
        )  # fmt: skip
        run.train()
        found.append((tiny.losses(run), run.evaluate()["eval_loss/forward_kl"]))
    assert found[0] == found[1]


def test_a_students_own_loss_that_liger_would_fuse_is_refused(tmp_path):
    parts = {"teacher_model": tiny_language.teacher(), "task": CausalLM(own_loss=True)}
    data = tiny_language.texts()
    with pytest.raises(ValueError, match=r"gives no logits to compare: set liger_kernel_config=\{"):
        tiny.trainer(tmp_path, tiny_language.llama(), data, args={"use_liger_kernel": True}, **parts)
    for args in ({"liger_kernel_config": {"fused_linear_cross_entropy": False}}, {"alpha": 1.0}):
        run = tiny.trainer(tmp_path, tiny_language.llama(), data, args={"use_liger_kernel": True, **args}, **parts)
        assert run.teacher is not None


def test_arguments_that_take_the_place_of_others_are_those_of_all_parts(tmp_path):
    run = tiny.trainer(tmp_path, teacher_model=tiny.teacher(), eval_dataset=tiny.rows(8), args={"alpha": 0.0})
    assert "eval_loss/forward_kl" not in run.evaluate()
    run.args = copy.copy(run.args)
    run.args.alpha, run.args.temperature = 1.0, 3.0
    evaluated = run.evaluate()
    assert evaluated["eval_loss"] == pytest.approx(evaluated["eval_loss/forward_kl"], rel=1e-6)
    assert run.distillation.temperature == run.temperature == 3.0
    run.train()
    assert "loss/forward_kl" in run.state.log_history[0]
