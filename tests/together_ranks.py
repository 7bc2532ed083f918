"""Students that are trained together; started by itself, on each rank of a launch."""

import json
import sys
from pathlib import Path

import tiny
import tiny_language
import torch
from datasets import Dataset
from transformers import BertConfig, BertForMaskedLM, DataCollatorForSeq2Seq

from hf_distill import train_together

KINDS = {
    "small": (8, {"learning_rate": 1e-2, "objective": "forward_kl", "num_train_epochs": 2}),
    "wide": (16, {"learning_rate": 3e-3, "objective": {"forward_kl": 1.0, "hidden_mse": 1.0}, "alpha": 0.5}),
}
ROLLOUT = {"on_policy": 1.0, "max_new_tokens": 4}
SMOOTH = {"lr_scheduler_type": "constant"}


def made(folder, name, teacher, data, student=None, **changes):
    width, args = KINDS[name]
    if student is None:
        drop = 0.0 if changes.get("lr_scheduler_type") else 0.2
        student = tiny.bert(width, hidden_dropout_prob=drop)
    common = {"per_device_train_batch_size": 4, "seed": 5, "num_train_epochs": 3, "max_steps": -1}
    if teacher is None:
        args = {}
    return tiny.trainer(
        Path(folder) / name, student, data, eval_dataset=data.select(range(6)), teacher_model=teacher,
        args={**common, "teacher_cache": "off", **args, **changes},
    )  # fmt: skip


def masked_bert(width, dropout=0.0):
    torch.manual_seed(width)
    sizes = {"hidden_size": width, "intermediate_size": width, "num_attention_heads": 2, "num_hidden_layers": 1}
    return BertForMaskedLM(
        BertConfig(
            vocab_size=32, initializer_range=0.3, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
            **sizes,
        )
    )  # fmt: skip


def writers(folder):
    """Two students that write their own texts."""
    teacher = tiny_language.teacher()
    parts = {"teacher_model": teacher, "data_collator": DataCollatorForSeq2Seq(tiny_language.tokenizer())}
    return [
        tiny.trainer(folder / str(n), tiny_language.llama(), tiny_language.texts(), rollout=ROLLOUT, **parts)
        for n in range(2)
    ]


def main(folder):
    teacher = tiny.teacher()
    asked = []
    teacher.register_forward_hook(lambda *given: asked.append(1))
    data = Dataset.from_list(tiny.rows(16))
    trainers = [made(folder, name, teacher, data, **SMOOTH) for name in KINDS]
    train_together(trainers)
    accelerator = trainers[0].accelerator
    told = {
        "world": accelerator.num_processes,
        "asked": len(asked),
        "steps": [one.state.global_step for one in trainers],
        "losses": [tiny.losses(one) for one in trainers],
    }
    (Path(folder) / f"{accelerator.process_index}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1])
