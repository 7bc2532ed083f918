"""Without a teacher, or with alpha = 0, the trainer is Trainer; ours is keyword-only; names that we lean on exist."""

import inspect

import numpy as np
import pytest
import tiny
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartForSequenceClassification,
    BertForNextSentencePrediction,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
)

import hf_distill
from hf_distill import DistillationTrainer, Seq2SeqDistillationTrainer


def accuracy(p):
    return {"accuracy": float((np.argmax(p.predictions, -1) == p.label_ids).mean())}


def run(folder, kind, problem, dropout=0.1, **parts):
    # Plain SGD: Adam would blow a rounding up to a whole step where the true gradient is zero, as a key bias's is.
    changes = dict(max_steps=8, per_device_train_batch_size=4, learning_rate=0.1, optim="sgd")
    if "alpha" in parts:
        args = tiny.arguments(folder, alpha=parts.pop("alpha"), **changes)
    else:
        args = tiny.arguments(folder, TrainingArguments, **changes)
    student = tiny.bert(problem=problem, hidden_dropout_prob=dropout)
    made = tiny.trainer(
        folder,
        student,
        tiny.rows(16, problem),
        kind=kind,
        plain_args=args,
        compute_metrics=accuracy if problem == tiny.SINGLE else None,
        eval_dataset=tiny.rows(7, problem, seed=9),
        **parts,
    )
    made.train()
    return made, made.evaluate(), made.predict(tiny.rows(5, problem, seed=11))


@pytest.mark.parametrize("how", ["no teacher", "alpha 0"])
@pytest.mark.parametrize("problem", tiny.PROBLEMS)
def test_equals_trainer_within_a_rounding_a_step(tmp_path, problem, how):
    plain, plain_eval, plain_predicted = run(tmp_path, Trainer, problem)
    parts = {"teacher_model": tiny.teacher(problem), "alpha": 0.0} if how == "alpha 0" else {}
    ours, our_eval, our_predicted = run(tmp_path, DistillationTrainer, problem, **parts)
    rounding = 2**-23 * 8  # one float32 rounding for each of the eight steps
    assert tiny.losses(ours) == pytest.approx(tiny.losses(plain), rel=rounding)
    for name, value in plain.model.state_dict().items():
        scale = value.abs().max().clamp(min=1.0)
        assert ((ours.model.state_dict()[name] - value).abs().max() / scale) < rounding, name
    assert our_eval.keys() - {"eval_loss/hard"} == plain_eval.keys()
    timings = ("runtime", "per_second", "preparation_time")
    for name, value in plain_eval.items():
        if not name.endswith(timings):
            assert our_eval[name] == pytest.approx(value, rel=1e-5), name
    assert type(our_predicted.predictions) is type(plain_predicted.predictions)
    np.testing.assert_allclose(our_predicted.predictions, plain_predicted.predictions, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(our_predicted.label_ids, plain_predicted.label_ids)
    assert ours.model.config.problem_type == plain.model.config.problem_type


def focal(outputs, labels, num_items_in_batch=None):
    logs = torch.log_softmax(outputs.logits, -1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return -((1 - logs.exp()) ** 2 * logs).sum() / (num_items_in_batch or len(labels))


@pytest.mark.parametrize("how", [{"label_smoothing_factor": 0.2}, {"compute_loss_func": focal}])
def test_the_users_own_hard_losses_are_trainers(tmp_path, how):
    found = []
    for kind in (Trainer, DistillationTrainer):
        parts = dict(how)
        changes = {"label_smoothing_factor": parts.pop("label_smoothing_factor", 0.0)}
        args = tiny.arguments(tmp_path, TrainingArguments, per_device_train_batch_size=4, **changes)
        made = tiny.trainer(tmp_path, kind=kind, plain_args=args, eval_dataset=tiny.rows(8, seed=9), **parts)
        made.train()
        found.append([*tiny.losses(made), made.evaluate()["eval_loss"]])
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_accepts_plain_training_arguments_and_positional_parameters(tmp_path):
    args = tiny.arguments(tmp_path, TrainingArguments)
    made = DistillationTrainer(
        tiny.bert(), args, DataCollatorWithPadding(tiny.tokenizer()), tiny.rows(), teacher_model=tiny.teacher()
    )
    assert (made.alpha, made.temperature, list(made.distillation.objective.terms)) == (0.5, 2.0, ["forward_kl"])
    assert made.train().global_step == 3


@pytest.mark.parametrize(
    ("ours", "theirs"), [(DistillationTrainer, Trainer), (Seq2SeqDistillationTrainer, Seq2SeqTrainer)]
)
def test_signature_is_the_base_trainers_then_ours_by_keyword(ours, theirs):
    shown = list(inspect.signature(ours).parameters.values())
    base = list(inspect.signature(theirs).parameters.values())
    assert [p.name for p in shown[: len(base)]] == [p.name for p in base]
    assert [p.name for p in shown[len(base) :]] == ["teacher_model", "objective", "task", "rollout"]
    assert all(p.kind is p.KEYWORD_ONLY for p in shown[len(base) :])


def test_a_model_without_a_task_trains_as_trainer_trains_it(tmp_path):
    data = tiny.rows(labels=2)

    def model():
        torch.manual_seed(0)
        return BertForNextSentencePrediction(tiny.bert().config)

    found = []
    for kind in (Trainer, DistillationTrainer):
        args = tiny.arguments(
            tmp_path, TrainingArguments, per_device_train_batch_size=2, gradient_accumulation_steps=2
        )
        made = kind(model(), args, DataCollatorWithPadding(tiny.tokenizer()), data)
        made.train()
        found.append(tiny.losses(made))
    assert made.task is None
    assert found[0] == found[1]


def bart(kind, width=16, seed=0, **more):
    torch.manual_seed(seed)
    sizes = dict(
        vocab_size=32, d_model=width, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=32,
        pad_token_id=0, bos_token_id=2, eos_token_id=3, decoder_start_token_id=2, forced_eos_token_id=3, **more,
    )  # fmt: skip
    return kind(BartConfig(**sizes))


def test_seq2seq_without_a_teacher_equals_seq2seqtrainer_and_still_generates(tmp_path):
    data = [{**row, "labels": row["input_ids"]} for row in tiny.rows()]
    found = []
    for kind in (Seq2SeqTrainer, Seq2SeqDistillationTrainer):
        model = bart(BartForConditionalGeneration)
        args = tiny.arguments(tmp_path, Seq2SeqTrainingArguments, predict_with_generate=True, generation_max_length=6)
        made = kind(model, args, DataCollatorForSeq2Seq(tiny.tokenizer(), model), data)
        made.train()
        found.append((tiny.losses(made), made.predict(data).predictions))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-6)  # the task sums the loss, the model takes its mean
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_seq2seq_trainer_distils_an_encoder_decoder_classifier(tmp_path):
    data = [
        {**row, "input_ids": [*row["input_ids"], 3], "attention_mask": [1, *row["attention_mask"]]}
        for row in tiny.rows()
    ]
    args = tiny.arguments(tmp_path, hf_distill.Seq2SeqDistillationTrainingArguments, alpha=0.5)
    made = Seq2SeqDistillationTrainer(
        bart(BartForSequenceClassification, num_labels=3), args, DataCollatorWithPadding(tiny.tokenizer()), data,
        teacher_model=bart(BartForSequenceClassification, 24, 5, num_labels=3),
    )  # fmt: skip
    made.train()
    assert {"loss/hard", "loss/forward_kl"} <= made.state.log_history[0].keys()


def test_names_of_trainer_that_are_overridden_exist():
    """A canary: these are not all public, so a new release may take them away without a word."""
    for name in (
        "_set_signature_columns_if_needed", "_inner_training_loop", "get_batch_samples", "compute_loss", "log",
        "evaluation_loop", "prediction_step", "create_model_card",
    ):  # fmt: skip
        assert callable(getattr(Trainer, name)), name
    assert "gather_for_metrics" in dir(__import__("accelerate").Accelerator)


def test_importing_the_package_imports_nothing_heavy():
    import subprocess
    import sys

    code = "import sys, hf_distill; print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
    assert all(getattr(hf_distill, name) is not None for name in hf_distill.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        hf_distill.Nothing  # noqa: B018
