"""Exports of a finished student beside it: the same test rows and the same scoring, their own size and speed.

Knows: experiments, modules that answer as the student does. Does not know: file formats, recipes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import Trainer

from hf_distill.experiments.comparison import speed_batches, usual_row
from hf_distill.experiments.experiment import Experiment
from hf_distill.experiments.scoring import Column, Measurement, Scoring
from hf_distill.experiments.sentence_embeddings import EncoderExperiment, VectorScoring, encoded
from hf_distill.experiments.without_autocast import as_published
from hf_distill.export.equal import Difference, columns_for, compared
from hf_distill.export.plan import Plan
from hf_distill.reports import machine, markdown_table, throughputs, waits

PLAIN = "float32"
"""How the student itself is called among its exports."""
ROWS = 256
"""On so many rows, at most, an export is timed in batches."""


class Bench:
    """A finished student on its test rows, its exports in its place one after the other.

    Args:
        experiment: made of a recipe whose student and teacher are both the finished student: what is compared with
            the teacher is then compared with it.
        folder: of the student.
    """

    def __init__(self, experiment: Experiment | EncoderExperiment, folder: Path) -> None:
        self.experiment, self.test = experiment, experiment.splits["test"]
        self.pool = getattr(experiment, "pool", None)
        if isinstance(experiment, EncoderExperiment):
            self.scoring: Scoring = VectorScoring()
            self.trainer: Trainer = experiment.trainer()
        else:
            self.scoring = experiment.scoring
            self.trainer = experiment.trainer(experiment.kind.kept(folder), experiment.args, str(folder))
        self.trainer.args.train_sampling_strategy = "random"  # rows stay in their order

    @property
    def example(self) -> dict[str, Any]:
        """The first test rows, as the collator makes them."""
        return dict(next(iter(self.trainer.get_test_dataloader(self.test.select(range(min(2, len(self.test))))))))

    def differences(self, model: nn.Module, exports: Mapping[str, nn.Module], plan: Plan) -> dict[str, Difference]:
        """Compare all outputs of all test rows with the student's.

        Args:
            model: the student.
            exports: by their formats.
            plan: names the outputs.
        """
        loader = self.trainer.get_test_dataloader(self.test)
        batches = (columns_for(model, batch, self.trainer.label_names) for batch in loader)
        return compared(model, exports, batches, plan)

    def measure(
        self, model: nn.Module, exports: Mapping[str, nn.Module], megabytes: Mapping[str, float]
    ) -> dict[str, Any]:
        """Measure the student and its exports.

        Args:
            model: the student.
            exports: by their formats.
            megabytes: on the disk, of each of them and of ``float32``.

        Returns:
            ``models`` (a row each, the student's first), on which rows, ``machine`` and ``versions``.
        """
        measured: dict[str, Measurement] = {}
        for name, export in exports.items():
            measured = {**self._found(name, export), **measured}
        measured = {PLAIN: measured.pop("teacher"), **{name: measured[name] for name in exports}}
        models = {PLAIN: model, **exports}
        timed = {name: self.scoring.timed(one, self.trainer) for name, one in models.items()}
        waited = waits(timed, usual_row(self.trainer, self.test))
        rows = min(self.scoring.speed_rows, ROWS)
        taken = throughputs(timed, speed_batches(self.trainer, self.test, rows))
        return {
            "models": [
                {
                    "name": name,
                    **one.row(self.scoring.plotted[0], self.scoring.share),
                    "megabytes": megabytes[name],
                    "p50": waited[name].p50,
                    "p95": waited[name].p95,
                    "samples_per_second": taken[name],
                }
                for name, one in measured.items()
            ],
            "dataset": self.experiment.recipe.source,
            **self.experiment.recipe.measured,
            "counted": self.scoring.counted(self.test),
            "machine": machine("cpu"),
            "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
        }

    def _found(self, name: str, export: nn.Module) -> dict[str, Measurement]:
        with in_its_place(self.trainer, export), as_published(self.trainer, {name: self.trainer}) as models:
            if self.pool is None:
                return self.scoring.measure({name: self.trainer}, self.test, self.trainer)
            vectors = {one: encoded(self.trainer, model, self.test, self.pool) for one, model in models.items()}
            teacher = vectors["teacher"]
            return {one: self.scoring.measurement(own, teacher, teacher) for one, own in vectors.items()}


@contextmanager
def in_its_place(trainer: Trainer, model: nn.Module) -> Iterator[None]:
    """While open, a trainer predicts with another module than its own.

    Args:
        trainer: of a model.
        model: that answers as it does.
    """
    before = trainer.model, trainer.model_wrapped
    trainer.model = trainer.model_wrapped = model
    try:
        yield
    finally:
        trainer.model, trainer.model_wrapped = before


def export_table(models: list[dict[str, Any]], scoring: Scoring) -> str:
    """Lay out what was found of a student and its exports.

    Args:
        models: a row each, as ``Bench.measure`` returns them.
        scoring: how they are shown.
    """

    def known(key: str, shape: str) -> Column:
        return lambda row: "-" if row.get(key) is None else format(row[key], shape)

    columns: dict[str, Column] = {
        "format": lambda row: row["name"],
        **{heading.replace("the teacher", PLAIN).replace("teacher's", PLAIN).replace("teacher", PLAIN): show
           for heading, show in scoring.columns.items()},
        "largest difference": known("difference", ".1g"),
        "MB": known("megabytes", ".1f"),
        "p50 ms": known("p50", ".2f"),
        "p95 ms": known("p95", ".2f"),
        f"{scoring.unit}/s": known("samples_per_second", ",.0f"),
    }  # fmt: skip
    cells = {heading: [show(row) for row in models] for heading, show in columns.items()}
    cells = {heading: shown for heading, shown in cells.items() if any(shown)}
    return markdown_table(list(cells), [list(row) for row in zip(*cells.values(), strict=True)])
