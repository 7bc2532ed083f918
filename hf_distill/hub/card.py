"""The model card: what was distilled from whom, how, and what it gave.

Knows: what was trained, and the report that it was handed. Does not know: how anything was measured, where a licence
is found.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from torch import nn
from transformers import TrainerState, TrainingArguments

from hf_distill.hub.eval_results import write_eval_results
from hf_distill.hub.provenance import (
    LICENCE,
    Origin,
    base_of,
    licences,
    relation_of,
    shared_language,
    shared_licence,
    teachers_of,
)
from hf_distill.models.facts import Facts
from hf_distill.models.outputs import core_of
from hf_distill.students.lineage import lineage
from hf_distill.students.quantization import StudentQuantization
from hf_distill.students.quantized_folder import FOLDER

TAGS = ("hf_distill", "knowledge-distillation")
"""What every student is found by on the Hub, beside Trainer's own tags."""

METRICS = {"accuracy": "accuracy", "f1": "macro_f1"}
"""The Hub's name of a metric -> the report's; a report with others says so under ``metrics``."""

PICTURES = {"report.png": "Accuracy and speed of the teacher, the student alone and the distilled student"}
"""A picture beside the card -> what it shows; a report with others says so under ``pictures``."""

VERSIONS = ("hf_distill", "accelerate")


@dataclass
class Trained:
    """What a card is about.

    Args:
        distillation: the task, the teacher and the objective, alpha and temperature.
        model: the student.
        args: the run's arguments.
        state: where the run is.
        report: what was measured, which gives the table and the results; it may name ``license``, ``language``,
            ``datasets`` (ids on the Hub), ``split``, ``measured_on`` (the data set or file of it, where that is not
            ``dataset``), ``counted`` (its rows, in words), ``each`` (what ± is over), ``mode``, ``pair``,
            ``dataset_revision``, ``metrics``, ``pictures`` and ``next_step`` (what is done with the student then, in
            Markdown, with ``{student}`` for its name).
        rows: the training set.
    """

    distillation: Any
    model: nn.Module
    args: TrainingArguments
    state: TrainerState
    report: Mapping[str, Any]
    rows: Any = None

    @property
    def task(self) -> Any:
        """How the models are read."""
        return self.distillation.task


def add_distillation(run: Trained, repository: str | None, rollout: str, asked: Mapping[str, Any]) -> None:
    """Put the distillation into the card that Trainer wrote at ``output_dir/README.md``.

    Trainer's metadata and its section on the training procedure stay; what it can only leave blank ("More information
    needed") gives way to the template ``model_card.md``. Its guesses at base, licence and data sets (since data sets
    have no scripts, it names the kind of file) are replaced by what is known: a licence or language that nobody named
    is the base's and the teachers', if their own cards agree.

    Args:
        run: what was trained.
        repository: the student's id on the Hub, if it has one yet.
        rollout: what was written anew, in words.
        asked: what ``create_model_card`` was given by name; the user's own word comes before the report's.
    """
    path = Path(run.args.output_dir) / "README.md"
    card = ModelCard.load(path, ignore_metadata_errors=True)
    _, heading, procedure = card.text.partition("### Training hyperparameters")
    procedure = re.sub(
        r"### Training results\s+(?=###)", "", procedure
    )  # empty where nothing was evaluated on the way
    if data := asked.get("dataset"):
        data = data if isinstance(data, str) else ", ".join(data)
        run = replace(run, report={**run.report, "dataset": data, "measured_on": data})
    report, objective, teacher = run.report, run.distillation.objective, run.distillation.teacher
    base, teachers = base_of(getattr(core_of(run.model), "config", None)), teachers_of(teacher)
    model_name = card.data.get("model_name") or Path(run.args.hub_model_id or run.args.output_dir).name
    given = {name: asked.get(name) or report.get(name) for name in ("license", "language")}
    card.data.datasets = asked.get("dataset_tags") or report.get("datasets") or None
    _metadata(card.data, run, base)
    inherited = {} if given["license"] else shared_licence(base, teachers.values())
    for name in LICENCE:
        card.data[name] = inherited.get(name)
    card.data.license = given["license"] or inherited.get("license")
    card.data.language = given["language"] or shared_language(base, teachers.values())
    card.data.model_name, card.data.eval_results = model_name, _results(report, run) or None
    card.data.pop("model-index", None)  # Trainer's is empty
    template = resources.files("hf_distill.hub").joinpath("model_card.md").read_text(encoding="utf-8")
    members = teacher.members or {"": teacher}
    written = ModelCard.from_template(
        card.data,
        template_str="---\n{{ card_data }}\n---\n\n" + template,
        model_name=model_name,
        repository=repository or run.args.hub_model_id or model_name,
        teacher=", ".join(one.shown for one in teachers.values()),
        teachers=[
            {"name": name and f" `{name}`", "what": one.shown + _shape(members[name].facts)}
            for name, one in teachers.items()
        ],
        together=str(teacher) if "" not in members else "",
        student=_described(run),
        quantized=_quantized(run),
        base_name=base.name if base else "",
        base=base.shown if base and base.hub else "",
        best=_best(run),
        lineage=lineage(core_of(run.model)),
        terms=[
            {
                "name": name,
                "weight": f"{weight:g}" if isinstance(weight := objective.asked[name], float) else str(weight),
                "what": f"{type(term).__name__}({term.extra_repr()})",  # not what it trains, which is exported nowhere
                # The Hub finds the papers of a model by links, not by numbers.
                "citation": re.sub(r"arXiv:([\d.]+\d)", r"[arXiv:\1](https://arxiv.org/abs/\1)", term.citation),
                "teacher": objective.teachers.get(name),
            }
            for name, term in objective.terms.items()
        ],
        alpha=f"{run.distillation.alpha:g}",
        temperature=f"{run.distillation.temperature:g}",
        rollout=rollout,
        library=run.task.library,
        usage=run.task.usage.format(
            repository=repository or run.args.hub_model_id or model_name,
            teacher=", ".join(one.name for one in teachers.values()),
        ),
        auto_class=run.task.auto_class,
        processor_class=run.task.processor_class,
        processor=run.task.processor_class.removeprefix("Auto").removeprefix("Image").lower(),
        noun=run.task.noun,
        pipeline=_pipeline(run),
        pipeline_tag=run.task.pipeline_tag,
        peft=_adapted(run),
        report=report,
        pictures=report.get("pictures", PICTURES),
        use=(run.task.pipeline_tag or "").replace("-", " "),
        licence=card.data.license,
        licences=[] if given["license"] else licences(base, teachers.values()),
        procedure=(heading + procedure).strip() + _versions(),
    )
    written.save(path)
    write_eval_results(path.parent, report, report.get("metrics", METRICS))


def _metadata(data: ModelCardData, run: Trained, base: Origin | None) -> None:
    """Say what the student is and comes from; a folder of this machine is nobody's base."""
    report, adapter = run.report, bool(_adapted(run))
    data.base_model, data["base_model_relation"] = relation_of(base, adapter)
    kept = (tag for tag in data.tags or [] if not tag.startswith("base_model:"))
    ours = [f"base_model:adapter:{data.base_model}"] if adapter and data.base_model else []
    data.tags = sorted({*kept, *ours, *TAGS})
    ours = None if run.task is None or run.task.library == "transformers" else run.task.library
    data.library_name = "peft" if adapter else ours or data.library_name or "transformers"
    if run.task is not None:
        data.pipeline_tag = data.get("pipeline_tag") or run.task.pipeline_tag
    if report.get("models"):
        data.metrics = sorted(report.get("metrics", METRICS))


def _adapted(run: Trained) -> str:
    """The PEFT class that loads the student with its adapter; empty where it has none."""
    if not hasattr(run.model, "get_base_model"):
        return ""
    return run.task.auto_class.replace("Auto", "AutoPeft", 1) if run.task.library == "transformers" else "PeftModel"


def _pipeline(run: Trained) -> str:
    """What a pipeline of transformers is given, where there is one for the task; empty where there is none."""
    from transformers.pipelines import PIPELINE_REGISTRY

    tag = run.task.pipeline_tag
    if tag not in PIPELINE_REGISTRY.get_supported_tasks() or _adapted(run) or run.task.usage:
        return ""
    if tag == "text-classification" and _paired(run):
        return '{"text": "A text of yours.", "text_pair": "The one that belongs to it."}'
    return run.task.example


def _paired(run: Trained) -> bool:
    """Whether a row has two texts: as the report says, or as the training rows' token types do."""
    report, rows = run.report, run.rows
    if "pair" in report or not hasattr(rows, "__getitem__") or not len(rows):
        return bool(report.get("pair"))
    return bool(isinstance(rows[0], Mapping) and any(rows[0].get("token_type_ids") or ()))


def _best(run: Trained) -> str:
    """Which step the weights are of, where it is not the last: with ``load_best_model_at_end`` the best one."""
    args, state = run.args, run.state
    step = Path(state.best_model_checkpoint or "").name.rpartition("-")[2]
    if not args.load_best_model_at_end or not step:
        return ""
    name = args.metric_for_best_model or "loss"
    metric = name if name.startswith("eval_") else f"eval_{name}"
    value = "" if state.best_metric is None else f": {state.best_metric:.4g}"
    return f"step {step} of {state.global_step}, the best by `{metric}`{value}"


def _shape(facts: Facts) -> str:
    before = facts.streams.get("encoder", facts).num_layers
    more = f"{before} + " if before not in (None, facts.num_layers) else ""  # an encoder of another depth
    return f", {more}{_plural(facts.num_layers, 'layer')} of width {facts.hidden_size}" if facts.num_layers else ""


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _described(run: Trained) -> str:
    carried = {id(p) for p in run.distillation.objective.parameters()}
    parameters = sum(p.numel() for p in run.model.parameters() if id(p) not in carried)
    kind = type(core_of(run.model)).__name__
    adapter = "a PEFT adapter on " if hasattr(run.model, "get_base_model") else ""
    return f"{adapter}{kind}{_shape(Facts.of(run.model))}, {parameters / 1e6:.2f} M parameters"


def _quantized(run: Trained) -> str:
    """How it learned to be quantised, and what that takes on the disk; empty where it did not."""
    if (asked := getattr(run.args, "student_quantization", None)) is None:
        return ""
    files = (Path(run.args.output_dir) / FOLDER).glob("*.safetensors")
    size = sum(path.stat().st_size for path in files) / 1e6
    return f"{StudentQuantization.of(asked)}" + (f"; `{FOLDER}` holds it in {size:.2f} MB" if size else "")


def _versions() -> str:
    """What follows Trainer's own list of versions, which ends the card."""
    found = {name: metadata.version(name) for name in VERSIONS}
    return "".join(f"\n- {name} {version}" for name, version in found.items())


def _results(report: Mapping[str, Any], run: Trained) -> list[EvalResult]:
    student = next((row for row in report.get("models", ()) if row["name"] == "distilled"), None)
    if student is None:
        return []
    datasets = report.get("datasets") or [report.get("measured_on", report["dataset"])]
    return [
        EvalResult(
            task_type=run.task.pipeline_tag,
            dataset_type=datasets if isinstance(datasets, str) else datasets[0],
            dataset_name=report.get("measured_on", report["dataset"]),
            dataset_split=report.get("split", "test"),
            dataset_revision=report.get("dataset_revision"),
            metric_type=metric,
            metric_name=key.replace("_", " "),
            metric_value=round(student[key], 4),
        )
        for metric, key in report.get("metrics", METRICS).items()
        if math.isfinite(student[key])
    ]
