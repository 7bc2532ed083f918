"""How well language models foresee held-out text, and how near they are to their teacher there.

Knows: trainers, distributions over the next token, how figures are shown. Does not know: where texts come from, how
models were trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F
from transformers import EvalPrediction

from hf_distill import DistillationTrainer
from hf_distill.objectives.functional import forward_kl

IGNORED = -100
KEYS = ("loss", "accuracy", "kl", "agreement")
COLUMNS = {
    "model": lambda row: row["name"],
    "perplexity": lambda row: f"{row['perplexity']:.2f}",
    "loss, nats": lambda row: f"{row['loss']:.3f} ± {row['loss_error']:.3f}",
    "next token right %": lambda row: f"{100 * row['accuracy']:.1f} ± {100 * row['accuracy_error']:.1f}",
    "KL to the teacher": lambda row: f"{row['kl']:.3f}",
    "agrees with teacher %": lambda row: f"{100 * row['agreement']:.1f}",
    "parameters": lambda row: f"{row['parameters']:,}",
    "MB": lambda row: f"{row['megabytes']:.1f}",
    "texts/s": lambda row: f"{row['samples_per_second']:,.0f}",
}
ACCEPTED = {"accepted a step": lambda row: f"{row['accepted']:.2f}" if "accepted" in row else ""}


def foreseen(logits: Tensor | tuple, labels: Tensor) -> Tensor:
    """Keep what metrics need of a batch's logits, which would fill the memory: Trainer's preprocessing of logits.

    Args:
        logits: [B, T, V], or a tuple that begins with them.
        labels: [B, T]; -100 does not count.

    Returns:
        [B, T - 1, 2] float32: the loss in nats, and whether the likeliest token is right (1) or not (0).
    """
    logits = logits[0] if isinstance(logits, tuple) else logits
    targets = labels[:, 1:]
    loss = F.cross_entropy(logits[:, :-1].float().transpose(1, 2), targets, reduction="none", ignore_index=IGNORED)
    return torch.stack((loss, (logits[:, :-1].argmax(-1) == targets).float()), dim=-1)


def foresight(found: EvalPrediction) -> dict[str, float]:
    """Average what ``foreseen`` kept: Trainer's ``compute_metrics``.

    Args:
        found: its predictions and labels.

    Returns:
        ``perplexity`` and ``accuracy`` (of the likeliest token), over the labels that count.
    """
    counts = found.label_ids[:, 1:] != IGNORED
    loss, right = (found.predictions[..., i][counts].mean() for i in range(2))
    return {"perplexity": float(np.exp(loss)), "accuracy": float(right)}


def listen(trainers: Mapping[str, DistillationTrainer], test: Dataset) -> dict[str, dict[str, np.ndarray]]:
    """Let the students and their teacher read the same text, each true token after the other.

    Args:
        trainers: of ``distilled``, whose teacher is asked, and of others.
        test: tokenised rows with labels.

    Returns:
        For ``teacher`` and each trainer: ``loss`` (nats), ``accuracy``, ``kl`` (nats, of the teacher to the model) and
        ``agreement`` with the teacher's likeliest token, [N] one for each row, scaled so that their mean is the mean
        over all tokens.
    """
    student = trainers["distilled"]
    live = getattr(student.teacher, "teacher", student.teacher)  # a cache may keep only a few ids of an answer
    models = {name: one.model.eval() for name, one in trainers.items()}
    names, sums, counts = ["teacher", *models], [], []
    for batch in student.get_test_dataloader(test):
        batch = student._prepare_inputs(batch)
        rows = student.task.rows(batch)
        targets = F.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)[rows]
        fed = {name: value for name, value in batch.items() if name in ("input_ids", "attention_mask")}
        with torch.no_grad(), student.compute_loss_context_manager():
            told = live(batch, frozenset({"heads"})).heads["logits"].logits.tensor[rows].float()
            shown = {name: model(**fed).logits[rows].float() for name, model in models.items()}
        found = torch.stack([_compared(one, told, targets) for one in (told, *shown.values())])  # [M, 4, n]
        place = rows.nonzero()[:, 0]
        total = found.new_zeros(len(rows), *found.shape[:2]).index_add_(0, place, found.permute(2, 0, 1))
        total, count = student.accelerator.gather_for_metrics((total, rows.sum(dim=1)))
        sums.append(total.cpu().numpy())
        counts.append(count.cpu().numpy())
    sums, counts = np.concatenate(sums).astype(np.float64), np.concatenate(counts)
    scaled = sums * (len(counts) / counts.sum())
    return {name: {key: scaled[:, m, k] for k, key in enumerate(KEYS)} for m, name in enumerate(names)}


def _compared(logits: Tensor, told: Tensor, targets: Tensor) -> Tensor:
    """The four figures of every token: float32 [4, n]; ids that only one of the heads has are left out of the KL."""
    both, best = min(logits.shape[-1], told.shape[-1]), logits.argmax(-1)
    figures: tuple[Any, ...] = (
        F.cross_entropy(logits, targets, reduction="none"),
        best == targets,
        forward_kl(logits[:, :both], told[:, :both]),
        best == told.argmax(-1),
    )
    return torch.stack([one.float() for one in figures])
