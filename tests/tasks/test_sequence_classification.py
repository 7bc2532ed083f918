"""Sequence classification: heads, counts and hard losses of the three problem types, for any architecture."""

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    RobertaConfig,
    T5Config,
)

from hf_distill import SequenceClassification
from hf_distill.tasks import Task

SMALL = dict(vocab_size=32, num_labels=3, pad_token_id=0)
ARCHITECTURES = [
    DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=16, **SMALL),
    RobertaConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, **SMALL),
    GPT2Config(n_embd=16, n_layer=1, n_head=2, **SMALL),
    LlamaConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, **SMALL),
    T5Config(
        d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, eos_token_id=1, decoder_start_token_id=0, **SMALL
    ),
]


def batch(problem):
    rows = tiny.rows(6, problem)
    made = tiny.DataCollatorWithPadding(tiny.tokenizer())(rows)
    made["input_ids"][:, 0] = 1  # T5 pools at the end-of-sequence token, of which every row must have as many
    return dict(made)


@pytest.mark.parametrize("problem", [tiny.SINGLE, tiny.MULTI])
@pytest.mark.parametrize("config", ARCHITECTURES, ids=lambda config: config.model_type)
def test_the_hard_loss_is_the_models_own(config, problem):
    config = type(config)(**{**config.to_dict(), "problem_type": problem})
    model = AutoModelForSequenceClassification.from_config(config).eval()
    inputs = batch(problem)
    outputs = model(**inputs)
    task = Task.of(model)
    assert type(task) is SequenceClassification
    assert not task.own_loss
    assert torch.allclose(task.hard(outputs, inputs).mean(), outputs.loss, rtol=1e-5)


def test_the_hard_loss_of_a_regression_is_the_models_own():
    model, inputs = tiny.bert(problem=tiny.REGRESSION), batch(tiny.REGRESSION)
    outputs = model(**inputs)
    assert torch.allclose(Task.of(model).hard(outputs, inputs).mean(), outputs.loss, rtol=1e-5)


def test_heads_by_problem_type():
    shapes, counts = {}, {}
    for problem in tiny.PROBLEMS:
        model, inputs = tiny.bert(problem=problem), batch(problem)
        task = Task.of(model)
        head = task.signals(model, inputs, model(**inputs)).heads["logits"]
        assert head.rows.shape == head.logits.shape[:-1]
        assert head.rows.all()
        shapes[problem] = tuple(head.logits.shape)
        counts[problem] = {unit: int(n) for unit, n in task.counts(inputs).items()}
        assert counts[problem]["tokens"] == inputs["attention_mask"].sum()
    assert shapes == {tiny.SINGLE: (6, 3), tiny.MULTI: (6, 3, 2), tiny.REGRESSION: (6, 1)}
    assert [counts[p]["rows"] for p in tiny.PROBLEMS] == [6, 18, 6]
    assert [counts[p]["labels"] for p in tiny.PROBLEMS] == [6, 18, 6]
    assert [counts[p]["samples"] for p in tiny.PROBLEMS] == [6, 6, 6]


def test_several_classes_are_independent_bernoulli_distributions():
    task = SequenceClassification(3, tiny.MULTI)
    logits = torch.randn(6, 3)
    head = task.signals(None, batch(tiny.MULTI), (logits,)).heads["logits"]
    assert torch.allclose(head.logits.tensor.softmax(-1)[..., 1], logits.sigmoid())


@pytest.mark.parametrize(("problem", "labels"), [(tiny.SINGLE, 3), (tiny.MULTI, 3), (tiny.REGRESSION, 1)])
def test_the_problem_type_is_settled_by_the_labels_as_the_model_would(problem, labels):
    model = tiny.bert(problem=problem)
    model.config.problem_type = None
    task = Task.of(model)
    inputs = batch(problem)
    assert task.infer_from_batch(model, inputs) == (problem != tiny.REGRESSION)  # one output: nothing to learn
    assert task.problem_type == problem
    assert not task.infer_from_batch(model, inputs)
    own = tiny.bert(problem=problem)
    own.config.problem_type = None
    own(**inputs)
    if problem != tiny.REGRESSION:
        assert model.config.problem_type == own.config.problem_type


def test_subclasses_and_peft_are_found_and_own_losses_are_left_to_the_model():
    class Renamed(tiny.BertForSequenceClassification): ...

    class OwnForward(tiny.BertForSequenceClassification):
        def forward(self, input_ids=None, labels=None):
            return super().forward(input_ids, labels=labels)

    assert not Task.of(Renamed(tiny.bert().config)).own_loss
    assert Task.of(OwnForward(tiny.bert().config)).own_loss
    model = tiny.bert()
    model.loss_function = lambda *args, **kwargs: None
    assert Task.of(model).own_loss
    assert Task.of(model).hard(None, {}) is None
    adapted = get_peft_model(tiny.bert(), LoraConfig(task_type="SEQ_CLS", r=2, target_modules="all-linear"))
    assert not Task.of(adapted).own_loss


def test_hidden_states_attention_and_mask_are_shown_if_they_are_there():
    model, inputs = tiny.bert(layers=2, attn_implementation="eager"), batch(tiny.SINGLE)
    task = Task.of(model)
    shown = task.signals(model, inputs, model(**inputs, output_hidden_states=True, output_attentions=True))
    assert (len(shown.hidden), len(shown.attention)) == (3, 2)
    assert shown.mask.dtype == torch.bool
    assert task.signals(model, inputs, model(**inputs)).hidden == ()
