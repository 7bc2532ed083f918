"""The student with its adapter off; on every strategy: tests/trainer/test_strategies.py."""

import peft
import pytest
import tiny
import tiny_language
import torch
from transformers import DataCollatorForSeq2Seq

from hf_distill import AdapterOffTeacher


def student(**changes):
    config = peft.LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights=False)
    return peft.get_peft_model(tiny.bert(**changes), config)


def test_it_answers_as_the_base_and_leaves_the_student_as_it_was(tmp_path):
    model = student(hidden_dropout_prob=0.5)
    run = tiny.trainer(tmp_path, model, teacher_model=AdapterOffTeacher())
    model.train()
    model.base_model.model.bert.pooler.eval()  # whatever is in eval mode stays there
    before = {name: module.training for name, module in model.named_modules()}
    batch = next(iter(run.get_train_dataloader()))
    taught = run.teacher(batch, frozenset({"heads", "hidden"}))
    assert {name: module.training for name, module in model.named_modules()} == before
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with torch.no_grad():
        assert torch.equal(taught.heads["logits"].logits.tensor, tiny.bert().eval()(**inputs).logits)
        assert not torch.allclose(taught.heads["logits"].logits.tensor, model.eval()(**inputs).logits, atol=1e-2)
    assert len(taught.hidden) == 2
    assert not taught.heads["logits"].logits.tensor.requires_grad
    assert sum(p.requires_grad for p in model.parameters()) == 4  # nothing was frozen


def test_a_student_that_starts_as_its_base_has_nothing_to_learn(tmp_path):
    model = peft.get_peft_model(tiny.bert(), peft.LoraConfig(r=4, target_modules=["query"]))
    run = tiny.trainer(tmp_path, model, teacher_model=AdapterOffTeacher(), args={"alpha": 1.0})
    run.train()
    assert tiny.losses(run) == pytest.approx([0.0, 0.0, 0.0], abs=1e-7)


def test_every_trial_has_a_student_of_its_own(tmp_path):
    made = []

    def init():
        torch.manual_seed(1)
        made.append(student())
        return made[-1]

    run = tiny.trainer(tmp_path, model_init=init, teacher_model=AdapterOffTeacher())
    run.train()
    first = tiny.losses(run)
    run.train()
    assert run.teacher.model is made[-1]
    assert tiny.losses(run) == first


def test_a_student_without_an_adapter_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"BertForSequenceClassification has none: make the student with peft"):
        tiny.trainer(tmp_path, teacher_model=AdapterOffTeacher())


def test_a_language_model_with_its_adapter_off_needs_no_memory(tmp_path):
    student = peft.get_peft_model(tiny_language.llama(), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    run = tiny.trainer(
        tmp_path, student, tiny_language.texts(), teacher_model=AdapterOffTeacher(), args={"teacher_cache": "off"},
        data_collator=DataCollatorForSeq2Seq(tiny_language.tokenizer()),
    )  # fmt: skip
    run.train()
    assert tiny.losses(run, "loss/forward_kl")[0] < 1e-6  # an adapter that was just made adds nothing
