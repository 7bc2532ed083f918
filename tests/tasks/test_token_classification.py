"""A distribution at every token: which count, what the loss is, whose classes they are."""

import peft
import pytest
import tiny
import tiny_tasks
import torch
from datasets import Dataset
from tiny_tasks import CASES
from transformers import BertForMaskedLM, BertForTokenClassification

from hf_distill import MaskedLM, TokenClassification
from hf_distill.models.topk_logits import TopKLogits
from hf_distill.signals import DenseLogits, Head, Signals
from hf_distill.tasks import Task

BOTH = ["tokens", "masked"]
NAMES = {"id2label": {0: "O", 1: "B", 2: "I"}, "label2id": {"O": 0, "B": 1, "I": 2}}
TURNED = {"id2label": {0: "I", 1: "O", 2: "B"}, "label2id": {"I": 0, "O": 1, "B": 2}}


@pytest.mark.parametrize("name", BOTH)
def test_models_are_found_by_their_class(name):
    case = CASES[name]
    assert type(Task.of(case.model())) is case.task
    lora = peft.get_peft_model(case.model(), peft.LoraConfig(target_modules=["query"]))
    assert type(Task.of(lora)) is case.task
    assert not Task.of(lora).own_loss


@pytest.mark.parametrize("name", BOTH)
def test_the_hard_loss_is_the_models_own(name):
    case = CASES[name]
    model, batch = case.model().eval(), case.batch()
    task, outputs = Task.of(model), model(**batch)
    total, count = task.hard(outputs, batch)
    assert count == task.counts(batch)["labels"] == task.counts(batch)["rows"] > 4
    assert (total / count).item() == pytest.approx(outputs.loss.item(), rel=1e-6)


@pytest.mark.parametrize("name", BOTH)
def test_the_gradient_is_zero_exactly_where_no_label_counts(name):
    batch = CASES[name].batch()
    task = Task.of(CASES[name].model())
    logits = torch.randn(*batch["labels"].shape, 3 if name == "tokens" else 32, requires_grad=True)
    task.hard({"logits": logits}, batch).total.backward()
    touched = logits.grad.abs().sum(-1) > 0
    assert torch.equal(touched, batch["labels"] != -100)
    assert torch.equal(touched, task.rows(batch))
    assert not touched[2].any()


@pytest.mark.parametrize("task", [TokenClassification(3), MaskedLM()])
def test_without_labels_every_token_that_is_no_padding_is_taught(task):
    batch = CASES["tokens"].batch()
    del batch["labels"]
    assert torch.equal(task.rows(batch), batch["attention_mask"].bool())
    del batch["attention_mask"]
    assert task.counts(batch)["rows"] == batch["input_ids"].numel()


def test_a_model_with_its_own_loss_is_asked_for_it(tmp_path):
    class Mine(BertForTokenClassification):
        def forward(self, input_ids=None, attention_mask=None, labels=None):
            outputs = super().forward(input_ids, attention_mask)
            outputs.loss = None if labels is None else 3 * self.loss_function(outputs.logits, labels, self.config)
            return outputs

    class Unknown(torch.nn.Module):
        config = CASES["tokens"].model().config

        def forward(self, input_ids):
            return input_ids

    Unknown.__name__ = "TreeForTokenClassification"
    assert Task.of(Unknown()).own_loss
    found = []
    for kind in (Mine, BertForTokenClassification):
        student = CASES["tokens"].model()
        student.__class__ = kind
        run = tiny_tasks.trainer(tmp_path, "tokens", student=student)
        run.train()
        assert run.task.own_loss == (kind is Mine)
        found.append(tiny.losses(run, "loss/hard")[0])
    assert found[0] == pytest.approx(3 * found[1], rel=1e-5)
    hidden = CASES["masked"].model()
    hidden.loss_function = lambda *args, **kwargs: None
    assert isinstance(hidden, BertForMaskedLM)
    assert Task.of(hidden).hard(None, {}) is None


def test_a_teacher_with_its_classes_in_another_order_is_refused_or_reordered(tmp_path):
    student, teacher = CASES["tokens"].model(**NAMES), CASES["tokens"].teacher(**TURNED)
    offer = r"orders its labels \[I, O, B\], the student \[O, B, I\]: pass task=TokenClassification\(num_labels=3, "
    with pytest.raises(ValueError, match=offer + r"teacher_labels=\[1, 2, 0\]\)"):
        tiny_tasks.trainer(tmp_path, "tokens", student=student, teacher_model=teacher)
    with pytest.raises(ValueError, match="has 4 labels, the student has 3: give both the same num_labels"):
        tiny_tasks.trainer(tmp_path, "tokens", teacher_model=CASES["tokens"].teacher(num_labels=4))
    with pytest.raises(ValueError, match="does not name each of the 3 classes once"):
        TokenClassification(3, teacher_labels=[0, 0, 1])
    same = CASES["tokens"].teacher(**NAMES)
    same.classifier.weight.data = teacher.classifier.weight.data[[1, 2, 0]]
    same.classifier.bias.data = teacher.classifier.bias.data[[1, 2, 0]]
    found = []
    for one, task in ((teacher, TokenClassification(3, teacher_labels=[1, 2, 0])), (same, None)):
        run = tiny_tasks.trainer(tmp_path, "tokens", teacher_model=one, task=task)
        run.train()
        found.append(tiny.losses(run))
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_a_teacher_of_a_few_ids_cannot_be_reordered():
    task, rows = TokenClassification(3, teacher_labels=[1, 2, 0]), torch.ones(1, 2, dtype=torch.bool)
    one = torch.zeros(1, 2, 1)
    few = TopKLogits(one.long(), one, one.long(), one[..., 0], one[..., 0], temperature=1.0, classes=3)
    student = Signals({"logits": Head(DenseLogits(torch.zeros(1, 2, 3)), rows)})
    with pytest.raises(ValueError, match="keeps a few ids of each row, which cannot be put into another order"):
        task.align(student, Signals({"logits": Head(few, rows)}), {})


def test_bad_input_is_refused_in_a_sentence(tmp_path):
    data = CASES["tokens"].rows()
    wrong = [*data[:3], {**data[3], "labels": [7] * len(data[3]["input_ids"])}, *data[4:]]
    with pytest.raises(ValueError, match="row 3 of the training set has label 7, the student has 3 classes"):
        tiny_tasks.trainer(tmp_path, "tokens", Dataset.from_list(wrong))
    assert tiny_tasks.trainer(tmp_path, "tokens", Dataset.from_list(data)).train().global_step == 3
    batch = CASES["tokens"].batch()
    with pytest.raises(ValueError, match=r"labels of shape \[6\] were given to TokenClassification, which takes one"):
        TokenClassification(3).counts({**batch, "labels": torch.zeros(6)})
    with pytest.raises(ValueError, match=r"the student gave logits of shape \[6, 4, 3\] where TokenClassification"):
        TokenClassification(3).hard(torch.zeros(6, 4, 3), batch)
    with pytest.raises(ValueError, match=r"gave logits of shape \[8, \d+, 5\], the student \[8, \d+, 3\]: both must"):
        tiny_tasks.trainer(
            tmp_path, "tokens", teacher_model=lambda b: torch.zeros(*b["input_ids"].shape, 5)
        ).train()  # fmt: skip
    with pytest.raises(ValueError, match="has a vocabulary of 48, the student of 32"):
        tiny_tasks.trainer(tmp_path, "masked", teacher_model=CASES["masked"].teacher(vocab_size=48))
