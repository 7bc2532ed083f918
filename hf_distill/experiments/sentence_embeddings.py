"""Encoders of sentences: a student beside its teacher, and how near its vectors are to the teacher's.

Nearness is told by direction, by similarities, by neighbours.

Knows: tokenised texts, models that make vectors. Does not know: files, tokenizers' making, how a loss is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import time
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import AutoModel, DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase

from hf_distill import DistillationTrainer
from hf_distill.experiments.budgets import Budget
from hf_distill.experiments.comparison import compare, write
from hf_distill.experiments.data.files import DataArguments, Splits
from hf_distill.experiments.models import ModelArguments, ModelKind, make_student
from hf_distill.experiments.predictions import PredictionScoring
from hf_distill.experiments.scoring import Column, percent
from hf_distill.experiments.settings import RecipeTrainingArguments, say
from hf_distill.experiments.steps import train
from hf_distill.experiments.without_autocast import as_published
from hf_distill.models.sharding import is_sharded

PAIRED, SEARCHED = 300, 2_000
"""Similarities are compared over all pairs of so many held-out texts, neighbours looked for among so many."""


class VectorScoring(PredictionScoring):
    """How near vectors are to the teacher's, which stand in the place of labels: both [N, H]."""

    score: ClassVar[str] = "cosine"
    plotted: ClassVar[tuple[str, str]] = ("cosine", "cosine to the teacher's vectors")
    columns: ClassVar[Mapping[str, Column]] = {
        "cosine to teacher %": percent("cosine"),
        "Spearman of similarities %": percent("spearman"),
        "agrees with teacher %": percent("agreement"),
    }
    hub: ClassVar[dict[str, str]] = {"cosine": "cosine", "spearman": "spearman"}
    baseline: ClassVar[str] = "untaught student"

    def figures(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """The mean cosine, and the rank correlation of pairs' similarities; see ``PredictionScoring.figures``."""
        above = np.triu_indices(min(PAIRED, len(labels)), k=1)
        ranks = [similarities(vectors[:PAIRED])[above].argsort().argsort() for vectors in (predictions, labels)]
        return {"cosine": float(self.units(predictions, labels).mean()), "spearman": float(np.corrcoef(*ranks)[0, 1])}

    def units(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Each text's cosine; see ``PredictionScoring.units``."""
        return (unit(predictions) * unit(labels)).sum(-1)

    def agreement(self, predictions: np.ndarray, teacher: np.ndarray, labels: np.ndarray) -> float:
        """The share of texts whose nearest other text is the teacher's; see ``PredictionScoring.agreement``."""
        nearest = [
            (similarities(v) - 3 * np.eye(len(v))).argmax(-1) for v in (predictions[:SEARCHED], teacher[:SEARCHED])
        ]
        return float((nearest[0] == nearest[1]).mean())


@dataclass
class EncoderExperiment:
    """A student that starts from its teacher's layers, before its training and after it.

    There are no labels, so no student can be trained alone.

    Args:
        recipe: where the rows come from.
        args: of the student's training.
        models: which student.
        teacher: the teacher, or its path.
        splits: tokenised ``train``, ``validation`` and ``test`` rows.
        tokenizer: of both models.
        pool: what a text's vector is: ``mean`` of its tokens, or the ``first``.
        language: its code, for the card.
        made_by: the recipe and its arguments, for the report.
    """

    recipe: DataArguments
    args: RecipeTrainingArguments
    models: ModelArguments
    teacher: PreTrainedModel | str
    splits: Splits
    tokenizer: PreTrainedTokenizerBase
    pool: str
    language: str | None = None
    made_by: dict[str, Any] = field(default_factory=dict)

    def trainer(self) -> DistillationTrainer:
        """Make the trainer of the student under its teacher."""
        kind, collator = ModelKind(AutoModel, "FEATURE_EXTRACTION"), DataCollatorWithPadding(self.tokenizer)
        # A vector stands in for the teacher's, so it is as wide.
        budget = Budget.of(self.models, self.splits["train"], collator, self.args, same_width=True)
        return DistillationTrainer(
            make_student(self.models, kind, self.teacher, self.args.seed, budget),
            self.args,
            data_collator=collator,
            train_dataset=self.splits["train"],
            eval_dataset=self.splits["validation"],
            processing_class=self.tokenizer,
            teacher_model=self.teacher,
        )

    def run(self, started: float) -> dict[str, Any]:
        """Train and measure; a table, ``report.json``, a picture and the card lie beside the student's weights then.

        Args:
            started: when the run began, as ``time.time()`` tells it.

        Returns:
            What ``report.json`` holds.

        Raises:
            ValueError: a model is sharded.
        """
        args, splits, pool = self.args, self.splits, self.pool
        student = self.trainer()
        if student.is_fsdp_enabled or is_sharded(student.teacher.model):
            raise ValueError("vectors of sharded models are not measured here: run this recipe under DDP, or alone.")
        with as_published(student, {VectorScoring.baseline: student}) as models:
            vectors = {name: encoded(student, model, splits["test"], pool) for name, model in models.items()}
        say(args, "training the student under the teacher")
        train(student, args.resume_from_checkpoint)
        student.save_model(_internal_call=True)

        say(args, "measuring")
        names = {VectorScoring.baseline: student, "distilled": student}  # of one size and speed: the same model
        with as_published(student, names) as models:
            vectors["distilled"] = encoded(student, models["distilled"], splits["test"], pool)
            teacher, scoring = vectors["teacher"], VectorScoring()
            measurements = {name: scoring.measurement(own, teacher, teacher) for name, own in vectors.items()}
            found = compare(measurements, models, splits["test"], student, scoring)
        student.report = {
            "dataset": self.recipe.source,
            "language": self.language,
            **self.recipe.measured,
            "datasets": self.recipe.on_the_hub,
            **found,
            "note": '"Untaught student" is the same student before its training. A text agrees with the teacher if '
            "its nearest other text is the same.",
            "rows": {name: len(rows) for name, rows in splits.items()},
            **({"left_out": splits.left_out} if splits.left_out else {}),
            "settings": {n: getattr(args, n) for n in ("alpha", "objective", "reader", "seed")},
            "recipe": self.made_by,
            "seconds": round(time() - started, 1),
        }
        if student.is_world_process_zero():
            write(student, scoring, measurements, splits["test"])
        if args.push_to_hub:
            student.push_to_hub()
        return student.report


def encoded(trainer: DistillationTrainer, model: nn.Module, rows: Dataset, pool: str) -> np.ndarray:
    """Make the vectors of some rows.

    Args:
        trainer: whose collator and device are used.
        model: an encoder.
        rows: tokenised.
        pool: ``mean`` or ``first``.

    Returns:
        float32 [N, H].
    """
    found, training = [], model.training
    model.eval()
    for batch in trainer.get_test_dataloader(rows):
        batch = trainer._prepare_inputs(batch)
        with torch.no_grad():
            states = model(**batch).last_hidden_state.float()
        mask = batch["attention_mask"].unsqueeze(-1)
        vectors = states[:, 0] if pool == "first" else (states * mask).sum(1) / mask.sum(1)
        found.append(trainer.accelerator.gather_for_metrics(vectors.contiguous()).cpu().numpy())
    model.train(training)
    return np.concatenate(found)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Bring vectors to length one."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-12)


def similarities(vectors: np.ndarray) -> np.ndarray:
    """The cosine of every pair: [N, N]."""
    return unit(vectors) @ unit(vectors).T
