"""A finished run's folder: its report, its three models, the rows that they were measured on.

Knows: what lies in the folder, how a recipe reads its rows, batches. Does not know: what is measured of a model.

Models are loaded by transformers alone. Rows are read by the recipe itself, from the settings in ``report.json``: the
question is whether the figures follow from the models and the rows.
"""

import contextlib
import inspect
import io
import json
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import transformers
from torch.utils.data import DataLoader

LABELS = {"label", "labels", "label_ids", "start_positions", "end_positions"}


class Unknown(ValueError):
    """What cannot be computed again, and why."""


@dataclass
class Found:
    """What was computed again of the models.

    Args:
        score: the figure that the gap is about.
        plotted: the figure that has an interval.
        each: model -> figure -> its number for each row, [N]; a figure is their mean.
        figures: model -> figure -> what is no mean over rows.
        share: whether ``plotted`` is a share of rows.
        lower: whether fewer is better.
        floor: what who learnt nothing scores.
        floor_plotted: the same in the figure that is plotted.
        details: further parts of the report, in its form.
        baseline: the model that the gain is counted from.
    """

    score: str
    plotted: str
    each: dict
    figures: dict
    share: bool = False
    lower: bool = False
    floor: float | None = None
    floor_plotted: float | None = None
    details: dict = field(default_factory=dict)
    baseline: str = "student alone"


@dataclass
class Run:
    """A finished run.

    Args:
        folder: with ``report.json``.
        teacher: the teacher's folder; None: the kept one beside the student.
    """

    folder: Path
    teacher: Path | None = None

    @cached_property
    def report(self):
        return json.loads((self.folder / "report.json").read_text(encoding="utf-8"))

    @property
    def recipe(self):
        if not self.report.get("recipe"):
            raise Unknown("report.json does not say which recipe made it: it is of an older version")
        return self.report["recipe"]["name"]

    @cached_property
    def folders(self):
        """Model -> where its weights are, for those of the report that are kept."""
        places = {
            "teacher": self._teachers_folder(),
            "student alone": self.folder / "_alone",
            "plain draft": self.folder / "_plain",
            "distilled": self.folder,
        }
        names = [model["name"] for model in self.report["models"]]
        return {name: places[name] for name in names if name in places and (places[name] / "config.json").is_file()}

    def _teachers_folder(self):
        given = self.report["recipe"]["arguments"]
        if self.teacher is not None:
            return self.teacher
        if given.get("teacher_model_name_or_path") and not given.get("finetune_teacher"):
            return Path(given["teacher_model_name_or_path"]).expanduser()
        beside = self.folder.parent if self.folder.name.startswith("run-") else self.folder
        kept = [one.parent for one in beside.glob("_teacher-*/trained_with.json")]
        if not kept and self.recipe == "sentence_embeddings":  # its default teacher comes with a package
            from hf_distill.cli.recipes import recipe_module

            return Path(recipe_module(self.recipe).embedded_teacher())
        if len(kept) != 1:
            raise Unknown(f"there are {len(kept)} teachers in {beside}: name the right one with --teacher")
        return kept[0]

    @cached_property
    def experiment(self):
        """What the recipe makes of its settings: rows, collator, tokenizer. No model of it is used."""
        from hf_distill.cli.recipes import recipe_module

        recipe = recipe_module(self.recipe).RECIPE
        with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()):
            settings = Path(scratch) / "settings.json"
            given = {**self.report["recipe"]["arguments"], "output_dir": f"{scratch}/run", "num_threads": 1}
            given |= {"push_to_hub": False, "report_to": "none"}
            settings.write_text(json.dumps(given), encoding="utf-8")
            return recipe.prepare([str(settings)])

    @property
    def test(self):
        return self.experiment.splits["test"]

    @property
    def train(self):
        return self.experiment.splits["train"]

    @cached_property
    def models(self):
        """Model -> the model, as a user loads it."""
        if not self.folders:
            raise Unknown("no model lies here")
        return {name: load(folder) for name, folder in self.folders.items()}

    @cached_property
    def sizes(self):
        """Model -> its parameters and megabytes."""
        return {name: size_of(model) for name, model in self.models.items()}

    def batches(self, model, rows=None):
        """Collate test rows as they are evaluated: in their order, as many at once, without columns no model reads."""
        rows, args = self.test if rows is None else rows, self.experiment.args
        collate = getattr(self.experiment, "options", {}).get("data_collator")
        if collate is None:
            collate = transformers.DataCollatorWithPadding(self.experiment.tokenizer)
        if "input_ids" in rows.column_names:  # collators of images and recordings take whole rows
            read = set(inspect.signature(model.forward).parameters) | LABELS
            rows = rows.select_columns([name for name in rows.column_names if name in read])
        return DataLoader(rows, args.per_device_eval_batch_size, collate_fn=collate)

    def predict(self, model, rows=None):
        """Yield the outputs and the batch, batch by batch; the model is not told the labels."""
        for batch in self.batches(model, rows):
            batch = dict(batch)
            fed = {name: value for name, value in batch.items() if name not in LABELS}
            with torch.no_grad():  # not around the yield: of several that take turns the last one would leave it on
                outputs = model(**fed)
            yield outputs, batch


def load(folder):
    """Load a model by the class that its configuration names."""
    if not (folder / "config.json").is_file():
        raise Unknown(f"{folder.name} holds no whole model")
    told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "_diffusers_version" in told:
        import diffusers

        return getattr(diffusers, told["_class_name"]).from_pretrained(folder).eval()
    (kind,) = transformers.AutoConfig.from_pretrained(folder).architectures
    if not hasattr(transformers, kind):  # a draft head, which is a model of ours
        from hf_distill import DraftHead

        return DraftHead.from_pretrained(folder).eval()
    return getattr(transformers, kind).from_pretrained(folder).eval()


def size_of(model):
    """Parameters, shared ones once, and megabytes of them."""
    once = {p.data_ptr(): p for p in model.parameters()}.values()
    return sum(p.numel() for p in once), sum(p.numel() * p.element_size() for p in once) / 1e6


def padded(parts, filling):
    """Put arrays [n, T, ...] of several widths below each other."""
    width = max(part.shape[1] for part in parts)
    shape = [(0, 0)] * (parts[0].ndim - 2)
    return np.concatenate(
        [np.pad(part, [(0, 0), (0, width - part.shape[1]), *shape], constant_values=filling) for part in parts]
    )
