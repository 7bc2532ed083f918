"""Trainers of tiny language models with rollouts, and what they saw."""

import tiny
import tiny_language
from transformers import DataCollatorForSeq2Seq

from hf_distill import DistillationTrainer, Seq2SeqDistillationTrainer
from hf_distill.arguments import Seq2SeqDistillationTrainingArguments

KINDS = {"llama": (tiny_language.llama, tiny_language.texts), "t5": (tiny_language.t5, tiny_language.pairs)}
BOTH = {"llama": DistillationTrainer, "t5": Seq2SeqDistillationTrainer}
MIXED = {"on_policy": 0.4, "seq_kd": 0.3, "max_new_tokens": 6}


def collator(side="right"):
    tokenizer = tiny_language.tokenizer()
    tokenizer.padding_side = side
    return DataCollatorForSeq2Seq(tokenizer)


def trainer(folder, kind="llama", rollout=MIXED, data=None, bases=None, **parts):
    """A trainer over eight rows in their order, which keeps the batches of each step in ``seen``."""
    make, rows = KINDS[kind]
    args = {"train_sampling_strategy": "sequential", **parts.pop("args", {})}

    class Seeing(bases or BOTH[kind]):
        def get_batch_samples(self, *given):
            batches, num_items = super().get_batch_samples(*given)
            self.seen.append(batches)
            self.items.append(num_items)
            return batches, num_items

    Seeing.seen, Seeing.items = [], []
    return tiny.trainer(
        folder, parts.pop("student", None) or make(), data or rows(), Seeing,
        plain_args=tiny.arguments(folder, Seq2SeqDistillationTrainingArguments, **args),
        data_collator=parts.pop("data_collator", None) or collator(),
        **{"teacher_model": tiny_language.teacher(make), "rollout": rollout, **parts},
    )  # fmt: skip


def step(folder, kind="llama", size=8, accumulation=1, **parts):
    """One optimizer step: its logged parts and its gradients."""
    seen = tiny.Gradients()
    cut = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    run = trainer(folder, kind, callbacks=[seen], args={**cut, **parts.pop("args", {})}, **parts)
    run.train()
    parts = {k: v for k, v in run.state.log_history[0].items() if k.startswith(("loss", "rollout"))}
    return parts, {key.removeprefix("module."): value.contiguous() for key, value in seen.first.items()}
