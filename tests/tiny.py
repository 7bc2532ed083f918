"""Tiny random models, rows and trainers that many tests share."""

import gc
from dataclasses import fields

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    DataCollatorWithPadding,
    TrainerCallback,
    TrainingArguments,
)

from hf_distill import DistillationTrainer, DistillationTrainingArguments

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
PROBLEMS = (SINGLE, MULTI, REGRESSION)
CHECKPOINTING = next(
    f.name for f in fields(TrainingArguments) if f.name in ("activation_checkpointing", "gradient_checkpointing")
)  # its name changed within 5.x
WORDS = [f"w{i}" for i in range(24)]
gc.freeze()  # Trainer collects garbage after each training: what is imported by now need not be looked at again


def tokenizer():
    return BertTokenizer(vocab={t: i for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])})


def bert(width=16, layers=1, problem=SINGLE, labels=None, seed=0, **config):
    torch.manual_seed(seed)
    labels = labels or {SINGLE: 3, MULTI: 3, REGRESSION: 1}[problem]
    sizes = dict(
        vocab_size=32, hidden_size=width, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=2 * width,
        max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertForSequenceClassification(
        BertConfig(**{**sizes, "num_labels": labels, "problem_type": problem, "initializer_range": 0.3, **config})
    )


def teacher(problem=SINGLE, **config):
    return bert(width=24, layers=2, problem=problem, seed=7, **config)


def rows(n=8, problem=SINGLE, seed=3, labels=None):
    made, generator = [], torch.Generator().manual_seed(seed)
    labels = labels or {SINGLE: 3, MULTI: 3, REGRESSION: 1}[problem]
    for _ in range(n):
        length = int(torch.randint(3, 9, (), generator=generator))
        ids = torch.randint(5, 29, (length,), generator=generator).tolist()
        label = {
            SINGLE: lambda: int(torch.randint(labels, (), generator=generator)),
            MULTI: lambda: torch.randint(2, (labels,), generator=generator).float().tolist(),
            REGRESSION: lambda: float(torch.randn((), generator=generator)),
        }[problem]()
        made.append({"input_ids": ids, "attention_mask": [1] * length, "labels": label})
    return made


def arguments(folder, kind=DistillationTrainingArguments, **changes):
    quiet = dict(
        use_cpu=True, report_to="none", disable_tqdm=True, logging_steps=1, save_strategy="no", max_grad_norm=0.0,
        learning_rate=1e-2, lr_scheduler_type="constant", dataloader_pin_memory=False, max_steps=3,
    )  # fmt: skip
    return kind(str(folder), **{**quiet, **changes})


def trainer(folder, student=None, data=None, kind=DistillationTrainer, args=None, **parts):
    """A trainer over 8 single-label rows; ``args`` are changes to the arguments, ``parts`` go to the trainer."""
    plain = parts.pop("plain_args", None)
    return kind(
        student if student is not None or "model_init" in parts else bert(),
        plain if plain is not None else arguments(folder, **(args or {})),
        data_collator=parts.pop("data_collator", DataCollatorWithPadding(tokenizer())),
        train_dataset=data if data is not None else rows(),
        **parts,
    )


class Gradients(TrainerCallback):
    """Keeps the gradients that the first optimizer step was about to use."""

    def __init__(self):
        self.first = None

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if self.first is None:
            self.first = {n: p.grad.detach().clone() for n, p in model.named_parameters() if p.grad is not None}


def losses(run, key="loss"):
    return [entry[key] for entry in run.state.log_history if key in entry]


def relative(a, b):
    """The largest difference of two dicts of tensors, relative to the largest value of the second."""
    assert a.keys() == b.keys()
    scale = max(float(t.abs().max()) for t in b.values())
    return max(float((a[n] - b[n]).abs().max()) for n in b) / scale
