"""The teacher: frozen, unsaved, under the student's autocast, never in the student's way."""

import copy
import pickle

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch import nn
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from hf_distill import FunctionTeacher, LiveTeacher


def test_stays_in_eval_mode_frozen_and_bit_identical(tmp_path):
    teacher = tiny.teacher(hidden_dropout_prob=0.5).train()
    before = copy.deepcopy(teacher.state_dict())
    run = tiny.trainer(tmp_path, teacher_model=teacher, args={"max_steps": 5})
    run.train()
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert run.model.training  # the student was not put to sleep with it


def test_is_nowhere_in_what_is_saved(tmp_path):
    teacher = tiny.teacher()
    run = tiny.trainer(
        tmp_path, teacher_model=teacher, args={"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    )
    run.train()
    run.save_model()
    student = set(tiny.bert().state_dict())
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 3
    assert all(set(load_file(file)) == student for file in files)
    marks = [p.detach().numpy().tobytes()[-64:] for p in teacher.parameters() if p.ndim == 2]  # the random ones
    for file in (file for file in tmp_path.rglob("*") if file.is_file()):
        content = file.read_bytes()
        assert not any(mark in content for mark in marks), file
    assert (tmp_path / "training_args.bin").stat().st_size < 20_000


def test_arguments_pickle_and_serialise(tmp_path):
    args = tiny.arguments(tmp_path, objective={"forward_kl": 1.0, "jsd": {"weight": 0.5}})
    assert pickle.loads(pickle.dumps(args)).objective == args.objective
    assert args.to_dict()["objective"] == args.objective


class Watched(nn.Module):
    """A teacher that notes under which autocast it runs, and in which dtype it answers."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.seen = inner, []

    def forward(self, input_ids, attention_mask=None):
        logits = self.inner(input_ids=input_ids, attention_mask=attention_mask).logits
        self.seen.append((torch.is_autocast_enabled("cpu"), torch.is_grad_enabled(), logits.dtype))
        return logits


@pytest.mark.parametrize("bf16", [False, True])
def test_runs_under_the_students_autocast_without_gradients(tmp_path, bf16):
    teacher = Watched(tiny.teacher())
    run = tiny.trainer(tmp_path, teacher_model=teacher, args={"bf16": bf16, "max_steps": 2, "teacher_cache": "off"})
    run.train()
    dtype = torch.bfloat16 if bf16 else torch.float32
    assert teacher.seen == [(bf16, False, dtype)] * 2
    assert all(np.isfinite(tiny.losses(run)))


def test_bf16_stays_close_to_float32(tmp_path):
    found = []
    for bf16 in (False, True):
        run = tiny.trainer(tmp_path, teacher_model=tiny.teacher(), args={"bf16": bf16})
        run.train()
        found.append(tiny.losses(run, "loss/forward_kl"))
    assert found[1] == pytest.approx(found[0], rel=0.05)
    assert found[1] != found[0]  # bf16 was really on


@pytest.mark.parametrize("bf16", [False, True])
def test_evaluate_and_predict_before_train_prepare_the_student(tmp_path, bf16):
    data = tiny.rows(5, seed=9)
    plain = tiny.trainer(tmp_path, args={"bf16": bf16, "alpha": 0.0}, eval_dataset=data)
    expected = plain.evaluate()["eval_loss"], plain.predict(data).predictions
    run = tiny.trainer(tmp_path, teacher_model=tiny.teacher(), args={"bf16": bf16, "alpha": 0.3}, eval_dataset=data)
    metrics, shown = run.evaluate(), run.predict(data)
    assert len(run.accelerator._models) == 1  # only the student: Trainer prepares it only while this list is empty
    np.testing.assert_array_equal(shown.predictions, expected[1])
    assert metrics["eval_loss/hard"] == pytest.approx(expected[0], rel=1e-5)
    run.train()
    assert run.state.global_step == 3


def test_eval_loss_is_the_blend_of_its_parts(tmp_path):
    run = tiny.trainer(
        tmp_path, teacher_model=tiny.teacher(), eval_dataset=tiny.rows(7, seed=9),
        args={"alpha": 0.3, "per_device_eval_batch_size": 3, "objective": {"forward_kl": 2.0, "logit_mse": 0.5}},
    )  # fmt: skip
    metrics = run.evaluate()
    soft = 2.0 * metrics["eval_loss/forward_kl"] + 0.5 * metrics["eval_loss/logit_mse"]
    assert metrics["eval_loss"] == pytest.approx(0.7 * metrics["eval_loss/hard"] + 0.3 * soft, rel=1e-5)
    run.args.per_device_eval_batch_size = 7
    again = run.evaluate()
    for name in ("eval_loss", "eval_loss/hard", "eval_loss/forward_kl", "eval_loss/logit_mse"):
        assert again[name] == pytest.approx(metrics[name], rel=1e-5), name  # whatever the batch size
    assert run.predict(tiny.rows(7, seed=9)).metrics["test_loss/hard"] == pytest.approx(metrics["eval_loss/hard"])


def test_training_loss_is_the_blend_of_its_logged_parts(tmp_path):
    run = tiny.trainer(
        tmp_path, teacher_model=tiny.teacher(),
        args={"alpha": 0.3, "logging_steps": 3, "max_steps": 6, "per_device_train_batch_size": 2,
              "gradient_accumulation_steps": 2},
    )  # fmt: skip
    run.train()
    logged = [entry for entry in run.state.log_history if "loss" in entry]
    assert len(logged) == 2
    for entry in logged:
        assert entry["loss"] == pytest.approx(0.7 * entry["loss/hard"] + 0.3 * entry["loss/forward_kl"], rel=1e-5)


# ---- What may be a teacher ----


def logits_of(run):
    batch = run.data_collator(tiny.rows())
    return run.teacher(batch, frozenset({"heads"})).heads["logits"].logits.tensor


def test_a_model_a_path_a_teacher_a_module_and_a_function_are_one(tmp_path):
    teacher = tiny.teacher()
    teacher.save_pretrained(tmp_path / "kept")
    lookup = copy.deepcopy(teacher).eval()

    def function(batch):
        return lookup(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.numpy()

    ways = [teacher, str(tmp_path / "kept"), tmp_path / "kept", LiveTeacher(teacher), Watched(teacher), function]
    found = [logits_of(tiny.trainer(tmp_path, teacher_model=way)) for way in ways]
    assert all(torch.allclose(one, found[0], atol=1e-6) for one in found)
    assert not any(one.requires_grad for one in found)


def test_no_columns_that_the_teacher_alone_reads_are_lost(tmp_path):
    """A BERT teacher reads token types; a DistilBERT student does not know them and would raise."""
    data = [{**row, "token_type_ids": [1] * len(row["input_ids"]), "note": 5} for row in tiny.rows()]
    torch.manual_seed(0)
    student = DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=32, dim=16, n_layers=1, n_heads=2, hidden_dim=16, num_labels=3)
    )
    teacher = tiny.teacher()
    kinds = []
    teacher.bert.embeddings.register_forward_pre_hook(
        lambda module, args, kwargs: kinds.append(kwargs["token_type_ids"].max().item()), with_kwargs=True
    )
    off = {"teacher_cache": "off"}
    run = tiny.trainer(tmp_path, student, Dataset.from_list(data), teacher_model=teacher, args=off)
    run.train()
    assert kinds == [1] * 3
    assert run.args.remove_unused_columns  # the user's flag is not flipped
    assert "note" not in next(iter(run.get_train_dataloader()))
    unlabelled = Dataset.from_list([{k: v for k, v in row.items() if k != "labels"} for row in data])
    assert run.predict(unlabelled).predictions.shape == (8, 3)  # the student alone is called, without token types


def test_a_teacher_with_its_own_tokens_reads_its_own_columns(tmp_path):
    data = [
        {**row, "input_ids": row["input_ids"][:3], "attention_mask": [1] * 3, "teacher_input_ids": [1, 2, 3, 4]}
        for row in tiny.rows()
    ]
    student, teacher = tiny.bert(), tiny.teacher()
    fed = []
    for model in (student, teacher):
        model.register_forward_pre_hook(lambda m, args, kwargs: fed.append(sorted(kwargs)), with_kwargs=True)
    run = tiny.trainer(tmp_path, student, data, teacher_model=teacher, args={"max_steps": 1})
    run.train()
    assert [name for name in fed[0] if name.endswith("ids")] == ["input_ids"]
    batch = run.data_collator(data)
    assert run.teacher.inputs(batch)["input_ids"].tolist() == [[1, 2, 3, 4]] * 8
    assert "attention_mask" not in run.teacher.inputs(batch)  # the student's mask is not the teacher's
    assert all("teacher_input_ids" not in names for names in fed)


def test_a_function_keeps_the_columns_that_it_names(tmp_path):
    table = torch.randn(8, 3)
    data = Dataset.from_list([{**row, "row": i} for i, row in enumerate(tiny.rows())])
    asked = []

    def look_up(batch):
        asked.append(sorted(batch["row"].tolist()))
        return table[batch["row"]]

    run = tiny.trainer(tmp_path, data=data, teacher_model=FunctionTeacher(look_up, columns=["row"]))
    run.train()
    assert asked == [list(range(8))] * 3


def test_labels_are_never_shown_to_a_live_teacher(tmp_path):
    teacher = tiny.teacher()
    fed = []
    teacher.register_forward_pre_hook(lambda m, args, kwargs: fed.append(set(kwargs)), with_kwargs=True)
    tiny.trainer(tmp_path, teacher_model=teacher).train()
    assert fed
    assert all("labels" not in names for names in fed)


def test_a_mapped_label_order_teaches_the_right_classes(tmp_path):
    from hf_distill import SequenceClassification

    teacher = tiny.teacher()
    turned = copy.deepcopy(teacher)
    order = [2, 0, 1]  # the student's class i is the turned teacher's class order[i]
    with torch.no_grad():
        for i, j in enumerate(order):
            turned.classifier.weight[j], turned.classifier.bias[j] = (
                teacher.classifier.weight[i],
                teacher.classifier.bias[i],
            )
    found = []
    for model, labels in ((teacher, None), (turned, order)):
        task = SequenceClassification(num_labels=3, teacher_labels=labels)
        run = tiny.trainer(tmp_path, teacher_model=model, task=task)
        run.train()
        found.append(tiny.losses(run))
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_nothing_is_trained_on_a_logit_that_is_not_finite(tmp_path):
    def broken(batch):
        logits = torch.zeros(len(batch["input_ids"]), 3)
        logits[1, 2] = float("inf")
        return logits

    student = tiny.bert()
    before = copy.deepcopy(student.state_dict())
    run = tiny.trainer(tmp_path, student, teacher_model=broken)
    with pytest.raises(
        ValueError, match=r"teacher broken gave infinite or NaN logits for rows \[1\] of the batch after step 0"
    ):
        run.train()
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
