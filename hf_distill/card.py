"""The model card: what was distilled from whom, how, and what it gave.

Knows: a trained trainer and the report that it was handed. Does not know: how anything was measured.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCard

from hf_distill.signals import Facts
from hf_distill.students.lineage import lineage
from hf_distill.tasks.outputs import core_of

if TYPE_CHECKING:
    from transformers import Trainer

TAGS = ("hf_distill", "knowledge-distillation")
"""The Hub's name of a metric -> the report's; a report with others says so under ``metrics``."""


def add_distillation(trainer: Trainer) -> None:
    """Put the distillation into the card that Trainer wrote at ``output_dir/README.md``.

    Trainer's metadata and its section on the training procedure stay; what it can only leave blank ("More information
    needed") gives way to the template ``model_card.md``.

    Args:
        trainer: a distillation trainer; ``trainer.report``, if there is one, gives the table and the results.
    """
    path = Path(trainer.args.output_dir) / "README.md"
    card = ModelCard.load(path)
    _, heading, procedure = card.text.partition("### Training hyperparameters")
    procedure = re.sub(
        r"### Training results\s+(?=###)", "", procedure
    )  # empty where nothing was evaluated on the way
    report, objective, teacher = trainer.report or {}, trainer.distillation, trainer.teacher
    members = getattr(teacher, "members", {})
    card.data.tags = sorted({*(card.data.tags or []), *TAGS})
    if trainer.task is not None:
        card.data.pipeline_tag = card.data.get("pipeline_tag") or trainer.task.pipeline_tag
    for name in ("language", "license", "datasets"):
        if value := report.get(name):
            setattr(card.data, name, value)
    model_name = card.data.get("model_name") or Path(trainer.args.hub_model_id or trainer.args.output_dir).name
    card.data.model_name, card.data.eval_results = model_name, _results(report, trainer) or None
    card.data.pop("model-index", None)  # Trainer's is empty
    template = resources.files("hf_distill").joinpath("model_card.md").read_text(encoding="utf-8")
    written = ModelCard.from_template(
        card.data,
        template_str="---\n{{ card_data }}\n---\n\n" + template,
        model_name=model_name,
        repository=trainer.hub_model_id or model_name,
        teacher=", ".join(_named(member.facts) for member in members.values()) or _named(teacher.facts),
        teachers=[
            {"name": name and f" `{name}`", "what": _named(one.facts) + _shape(one.facts)}
            for name, one in (members or {"": teacher}).items()
        ],
        together=str(teacher) if members else "",
        student=_described(trainer),
        lineage=lineage(core_of(trainer.model)),
        terms=[
            {
                "name": name,
                "weight": f"{asked:g}" if isinstance(asked := objective.asked[name], float) else str(asked),
                "what": f"{type(term).__name__}({term.extra_repr()})",  # not what it trains, which is exported nowhere
                "citation": term.citation,
                "teacher": objective.teachers.get(name),
            }
            for name, term in objective.terms.items()
        ],
        alpha=f"{trainer.alpha:g}",
        temperature=f"{trainer.temperature:g}",
        rollout=str(trainer.rolling() or ""),
        auto_class=trainer.task.auto_class,
        peft=_adapted(trainer),
        report=report,
        procedure=(heading + procedure).strip(),
    )
    written.save(path)


def _adapted(trainer: Trainer) -> str:
    """The PEFT class that loads the student with its adapter; empty where it has none."""
    return trainer.task.auto_class.replace("Auto", "AutoPeft", 1) if hasattr(trainer.model, "get_base_model") else ""


def _named(facts: Facts) -> str:
    """A Hub id as it is; of a local folder only its name, which says nothing about the machine."""
    name = Path(facts.name).name if Path(facts.name).is_dir() else facts.name
    return f"`{name}`" + (f" (revision `{facts.revision[:8]}`)" if facts.revision else "")


def _shape(facts: Facts) -> str:
    return f", {_plural(facts.num_layers, 'layer')} of width {facts.hidden_size}" if facts.num_layers else ""


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _described(trainer: Trainer) -> str:
    carried = {id(p) for p in trainer.distillation.parameters()}
    parameters = sum(p.numel() for p in trainer.model.parameters() if id(p) not in carried)
    kind = type(core_of(trainer.model)).__name__
    adapter = "a PEFT adapter on " if hasattr(trainer.model, "get_base_model") else ""
    return f"{adapter}{kind}{_shape(Facts.of(trainer.model))}, {parameters / 1e6:.2f} M parameters"


def _results(report: dict[str, Any], trainer: Trainer) -> list[EvalResult]:
    student = next((row for row in report.get("models", ()) if row["name"] == "distilled"), None)
    if student is None:
        return []
    return [
        EvalResult(
            task_type=trainer.task.pipeline_tag,
            dataset_type=report["dataset"],
            dataset_name=report["dataset"],
            metric_type=metric,
            metric_value=round(student[key], 4),
        )
        for metric, key in report.get("metrics", {"accuracy": "accuracy", "f1": "macro_f1"}).items()
    ]
