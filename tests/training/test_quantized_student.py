"""A training with student_quantization: who teaches, what is saved, what goes on as before."""

import json

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForSequenceClassification

from hf_distill import DistillationTrainingArguments
from hf_distill.training.quantized_student import NAME

pytest.importorskip("torchao")
SPEC = {"weights": "int4", "activations": "int8", "group_size": 8}


def trainer(folder, spec=SPEC, **more):
    args = {"student_quantization": spec, "lr_scheduler_type": "constant", **more.pop("args", {})}
    return tiny.trainer(folder, args=args, **more)


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(5, 29).view(4, 6)).logits


def test_without_a_teacher_the_student_learns_from_itself_as_it_was(tmp_path):
    run = trainer(tmp_path, args={"alpha": 1.0})
    assert run.teacher.facts.name == NAME
    assert run.teacher.model is not run.model
    before = logits(tiny.bert())
    assert torch.equal(logits(run.teacher.model), before)
    assert not torch.equal(logits(run.model), before)
    given = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.train()
    assert all(0 < loss < 1 for loss in tiny.losses(run))
    assert any(not torch.equal(given[name], value) for name, value in run.model.state_dict().items())
    assert torch.equal(logits(run.teacher.model), before)


def test_alpha_0_is_quantisation_aware_training_alone(tmp_path):
    run = trainer(tmp_path, args={"alpha": 0.0})
    assert run.teacher is None
    run.train()
    other = trainer(tmp_path, spec=None, args={"alpha": 0.0})
    other.train()
    assert tiny.losses(run)[0] != tiny.losses(other)[0]


def test_a_given_teacher_is_kept_and_hidden_states_are_compared(tmp_path):
    run = trainer(tmp_path, teacher_model=tiny.teacher(), objective={"forward_kl": 1.0, "hidden_mse": 1.0})
    assert run.teacher.facts.name == "BertForSequenceClassification"
    run.train()
    assert all(loss > 0 for loss in tiny.losses(run, "loss/hidden_mse"))
    run.save_model()  # without the layers of the objective
    assert run.distillation.objective is run.model.distillation
    config = json.loads((tmp_path / "quantized" / "config.json").read_text(encoding="utf-8"))
    assert config["quantization_config"]["modules_to_not_convert"] == ["classifier"]
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "quantized")
    assert torch.equal(logits(loaded), logits(run.model))


def test_the_folder_is_a_float_student_with_a_quantised_one_in_it(tmp_path):
    run = trainer(
        tmp_path, args={"save_strategy": "steps", "save_steps": 2}, processing_class=tiny.tokenizer(),
        eval_dataset=tiny.rows(4),
    )  # fmt: skip
    run.train()
    shown = run.predict(tiny.rows(4)).predictions
    run.save_model()
    found = sorted(path.name for path in (tmp_path / "quantized").iterdir())
    assert found == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    checkpoint = tmp_path / "checkpoint-2"
    assert not (checkpoint / "quantized").exists()
    for folder in (tmp_path, checkpoint):
        plain = AutoModelForSequenceClassification.from_pretrained(folder)
        assert all(type(module) is nn.Linear for module in plain.modules() if isinstance(module, nn.Linear))
    assert {name for name, _ in plain.named_parameters()} == {name for name, _ in run.model.named_parameters()}
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, subfolder="quantized")
    again = tiny.trainer(tmp_path / "again", student=loaded.eval(), kind=Evaluates)
    assert (again.predict(tiny.rows(4)).predictions == shown).all()


class Evaluates(tiny.DistillationTrainer):
    """Evaluates a model that cannot be trained."""

    def __init__(self, model, *args, **parts):
        super().__init__(tiny.bert(), *args, **parts)
        self.model = model


def test_a_resumed_run_gives_the_same_digits(tmp_path):
    args = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = trainer(tmp_path / "whole", args=args)
    whole.train()
    run = trainer(tmp_path / "whole", args=args)
    run.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert tiny.losses(run)[-2:] == tiny.losses(whole)[-2:]
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), whole.model.parameters(), strict=True))


def test_however_a_batch_is_cut(tmp_path):
    """Of weights; where activations are rounded too, the last digit of a sum may decide between two integers."""
    found = []
    for batch, pieces in ((8, 1), (2, 4)):
        seen = tiny.Gradients()
        args = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": pieces, "max_steps": 1}
        run = trainer(tmp_path, {"weights": "int4", "group_size": 8}, args=args, callbacks=[seen])
        run.train()
        found.append((seen.first, tiny.losses(run)[0]))
    (whole, loss), (cut, other) = found
    assert other == pytest.approx(loss, rel=1e-5)
    assert tiny.relative(cut, whole) < 1e-5


def test_model_init_makes_a_student_for_each_training(tmp_path):
    run = trainer(tmp_path, model_init=lambda: tiny.bert())
    for _ in range(2):
        run.train()
        assert type(run.model.bert.pooler.dense) is not nn.Linear
        first = tiny.losses(run)[:3]
    assert tiny.losses(run)[:3] == first


def test_a_second_trainer_takes_the_student_on(tmp_path):
    run = trainer(tmp_path, teacher_model=tiny.teacher(), objective={"hidden_mse": 1.0})
    run.train()
    run.save_model()
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    other = trainer(tmp_path / "other", "int8", student=run.model)
    assert torch.equal(logits(other.teacher.model), logits(plain))


@pytest.mark.parametrize(
    ("spec", "student", "told"),
    [
        ("int4", tiny.bert, "groups of 32, .*: set group_size to 16, or name them in skip"),
        (SPEC, lambda: get_peft_model(tiny.bert(), LoraConfig(target_modules=["query"])), "merge it first"),
        ("float8", tiny.bert, "needs a GPU that multiplies float8"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_step(tmp_path, spec, student, told):
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, spec, student=student())


def test_arguments_read_json_and_refuse(tmp_path):
    args = DistillationTrainingArguments(str(tmp_path), student_quantization='{"weights": "int3"}', use_cpu=True)
    assert args.student_quantization == {"weights": "int3"}
    with pytest.raises(ValueError, match="student_quantization='int1' is not known"):
        DistillationTrainingArguments(str(tmp_path), student_quantization="int1", use_cpu=True)
