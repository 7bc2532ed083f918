"""What a person calls a student, its data and its classes, written where a run wrote names of files and numbers.

Knows: a finished run's folder, its card, its report, its pictures. Does not know: how anything was measured.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from hf_distill.cli.arguments import CardArguments
from hf_distill.reports import ClassChange, class_table, plot_classes, plot_comparison

CONFIG, REPORT = "config.json", "report.json"
NUMBERED = re.compile(r"LABEL_\d+")
HEADING = re.compile(r"^# .*$", re.MULTILINE)


def check_names(folder: Path, card: ModelCard, asked: CardArguments) -> None:
    """Refuse names that cannot be written, before anything is.

    Args:
        folder: of the run.
        card: its card.
        asked: what was given.

    Raises:
        ValueError: a card without a heading, data without a report that says how it was named, no model of so many
            classes, or one name for two of them.
    """
    if asked.title and not HEADING.search(card.text):
        raise ValueError(f"title={asked.title} was given, and the card has no heading (# ...): add one.")
    if asked.dataset_title and not (folder / REPORT).is_file():
        raise ValueError(
            f"dataset_title={asked.dataset_title} was given, and {folder} has no {REPORT}, which the run of a recipe "
            "writes: leave it out."
        )
    if not (names := asked.label_names):
        return
    if not (before := labels_of(folder)):
        raise ValueError(f"label_names was given, and {folder} has no {CONFIG} with labels: leave it out.")
    if len(before) != len(names) or len(set(names)) < len(names):
        raise ValueError(
            f"label_names={' '.join(names)} was given, and the classes are {', '.join(before)}: give {len(before)} "
            "names in this order, each another."
        )


def title_card(card: ModelCard, title: str) -> None:
    """Give a card its heading, and its results the same name.

    Args:
        card: it is changed.
        title: in one line.
    """
    card.text = HEADING.sub(lambda _: f"# {title}", card.text, count=1)
    card.data.model_name = title


def name_data(folder: Path, card: ModelCard, title: str) -> None:
    """Name the data in a card, its results, the report and its picture.

    Args:
        folder: of the run.
        card: its text is changed.
        title: such as "Hotel reviews"; ids on the Hub are another thing, and stay.
    """
    found = _read(folder / REPORT)
    before = {found["dataset"], found.get("measured_on", found["dataset"])}
    for old in before:
        card.text = card.text.replace(f" rows of {old} (", f" rows of {title} (")
        card.text = card.text.replace(f"it was taught on ({old})", f"it was taught on ({title})")
    for result in card.data.eval_results or ():
        result.dataset_name = title
        result.dataset_type = title if result.dataset_type in before else result.dataset_type
    found["dataset"] = found["measured_on"] = title
    if "plotted" in found and (folder / "report.png").is_file():
        heading, lowest = f"{title}: did the teacher help?", found.get("plotted_floor")
        plot_comparison(found["models"], folder / "report.png", heading, *found["plotted"], floor=lowest)
    _write(folder / REPORT, found)


def name_labels(folder: Path, card: ModelCard, names: Sequence[str]) -> None:
    """Name the classes in every configuration of the student, in the card, the report and its picture.

    Args:
        folder: of the run; the student may lie in it more than once, quantised or exported.
        card: its text is changed.
        names: of the classes, in the order of their numbers.
    """
    for path in _configs(folder):
        config = _read(path)
        if len(config.get("id2label", ())) == len(names):
            config["id2label"] = {str(number): name for number, name in enumerate(names)}
            config["label2id"] = {name: number for number, name in enumerate(names)}
            _write(path, config)
    if not (folder / REPORT).is_file():
        return
    found = _read(folder / REPORT)
    if not (classes := [ClassChange(**one) for one in found.get("classes") or ()]):
        return
    found["classes"] = [one | {"name": names[one["number"]]} for one in found["classes"]]
    changed = [ClassChange(**one) for one in found["classes"]]
    card.text = card.text.replace(class_table(classes), class_table(changed))
    if (folder / "classes.png").is_file():
        plot_classes(changed, folder / "classes.png")
    _write(folder / REPORT, found)


def labels_of(folder: Path) -> list[str]:
    """Read the names of a model's classes; none where it has none.

    Args:
        folder: of the run.
    """
    if not (folder / CONFIG).is_file():
        return []
    labels = _read(folder / CONFIG).get("id2label") or {}
    return [name for _, name in sorted(labels.items(), key=lambda one: int(one[0]))]


def shown_labels(names: Sequence[str], most: int = 5) -> str:
    """Write names of classes for a cell of a table; empty where nobody named them.

    Example:
        >>> shown_labels(["LABEL_0", "LABEL_1"]), shown_labels(["a", "b", "c"], most=2)
        ('', 'a, b, ... (3)')
    """
    if not names or all(map(NUMBERED.fullmatch, names)):
        return ""
    return ", ".join(names[:most]) + (f", ... ({len(names)})" if len(names) > most else "")


def _configs(folder: Path) -> Iterator[Path]:
    """Those of the student: teachers and other models lie in folders that begin with _, older ones in checkpoints."""
    for path in sorted(folder.rglob(CONFIG)):
        if not any(part.startswith(("_", "checkpoint-")) for part in path.relative_to(folder).parts):
            yield path


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
