"""The report as one page for a browser: tables, pictures, and the rows on which student and teacher differ most.

Knows: a report, rows to show, the template ``page.html``. Does not know: models, how anything was measured.

The page holds everything itself, loads nothing, and shows rows of the user's test data. So its name begins with ``_``,
as all does that is not pushed to the Hub, unless the user asked for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

import hf_distill
from hf_distill.reports.classes import ClassChange, class_cells
from hf_distill.reports.picture import looks_of
from hf_distill.reports.samples import Samples, data_uri

PAGE, PUBLIC = "_report.html", "report.html"
"""The page that stays in its folder, and the one that goes to the Hub with the student."""

Cells = tuple[Sequence[str], Sequence[Sequence[str]]]
"""A table: its header, and the cells of each row."""


def write_page(
    folder: Path, found: Mapping[str, Any], models: Cells, said: str, samples: Samples | None = None,
    public: bool = False,
) -> Path:  # fmt: skip
    """Write the page, as ``_report.html`` or ``report.html``.

    Args:
        folder: of the report, with the pictures that it names.
        found: what ``report.json`` holds.
        models: the table of the models.
        said: the verdict in a line.
        samples: the rows to show; None: none.
        public: whether it goes to the Hub with the student.

    Returns:
        Where it is.

    Example:
        >>> import tempfile
        >>> found = {"dataset": "新闻", "summary": "gain +1.0", "verdict": "helps", "models": [{"name": "teacher"}]}
        >>> with tempfile.TemporaryDirectory() as place:
        ...     write_page(Path(place), found, (["model", "accuracy"], [["teacher", "0.9"]]), "VERDICT: helps").name
        '_report.html'
    """
    path, other = (folder / name for name in ((PUBLIC, PAGE) if public else (PAGE, PUBLIC)))
    path.write_text(page(folder, found, models, said, samples), encoding="utf-8", errors="replace")
    other.unlink(missing_ok=True)  # of an earlier run, which was asked otherwise
    return path


def page(folder: Path, found: Mapping[str, Any], models: Cells, said: str, samples: Samples | None = None) -> str:
    """Return the page; see ``write_page``. All that comes from outside is escaped."""
    template = resources.files("hf_distill.reports").joinpath("page.html").read_text(encoding="utf-8")
    names = [row["name"] for row in found["models"]]
    pictures = {name: caption for name, caption in found.get("pictures", {}).items() if (folder / name).is_file()}
    language = found.get("language") or "en"
    return Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    ).from_string(template).render(
        language=language if isinstance(language, str) else language[0],
        dataset=found.get("measured_on") or found["dataset"],
        counted=found.get("counted", ""),
        split=found.get("split", "test"),
        verdict=str(found.get("verdict", "")).split(" ")[0],
        said=said,
        summary=found["summary"],
        unmet=found.get("unmet", []),
        models=models,
        colours={name: look.colour for name, look in zip(names, looks_of(names), strict=True)},
        note=note(found),
        pictures=[(data_uri((folder / name).read_bytes()), caption) for name, caption in pictures.items()],
        tables=list(_classes(found)),
        samples=samples,
        facts=list(facts(found)),
        version=hf_distill.__version__,
    )  # fmt: skip


def note(found: Mapping[str, Any]) -> str:
    """Say what the table's figures are.

    Args:
        found: a report.

    Example:
        >>> note({"each": "texts", "mode": "float32"})
        '± is one standard error over the texts. All models were measured as they are published (float32).'
    """
    over = f"the {found.get('each', 'rows')}" if "runs" not in found else "seeds, of the teacher over its rows"
    mode = f" All models were measured as they are published ({found['mode']})." if found.get("mode") else ""
    first = f"{found['note']} " if "note" in found else ""
    return f"{first}± is one standard error over {over}.{mode}"


def _classes(found: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
    """What a report says of single classes, as tables: heading, header, rows."""
    if found.get("classes"):
        changes = [ClassChange(**one) for one in found["classes"]]
        yield ("What each class lost or won", *class_cells(changes))
    figures = {
        "class_ap": "Average precision of each class, %",
        "class_ious": "Intersection over union of each class, %",
    }
    for key, heading in figures.items():
        if not (each := found.get(key)):
            continue
        if key == "class_ious":  # model -> class, and the other is class -> model
            each = {name: {model: one[name] for model, one in each.items()} for name in next(iter(each.values()))}
        models = list(next(iter(each.values())))
        yield (
            heading,
            ["class", *models],
            [[name, *(_percent(one[model]) for model in models)] for name, one in each.items()],
        )
    if found.get("runs"):
        header = ["run", "seed", "learning rate", "score"]
        runs = [one for one in found["runs"] if "score" in one]
        rows = [[one["student"], str(one["seed"]), f"{one['learning_rate']:g}", f"{one['score']:.4g}"] for one in runs]
        yield "The runs", header, rows


def _percent(value: float | None) -> str:
    return "-" if value is None or value != value else f"{100 * value:.1f}"


def facts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name what the run was asked for, and where it ran.

    Args:
        found: a report.

    Example:
        >>> list(facts({"dataset": "a", "rows": {"train": 9}, "settings": {"alpha": 0.9, "rollout": None}}))
        [('data', 'a'), ('rows', 'train 9'), ('alpha', '0.9')]
    """
    yield "data", found["dataset"]
    if found.get("rows"):
        yield "rows", ", ".join(f"{name} {count:,}" for name, count in found["rows"].items())
    for name in ("left_out", "floor"):
        if found.get(name):
            yield name.replace("_", " "), _short(found[name])
    for name, value in found.get("settings", {}).items():
        if value is not None:
            yield name, _short(value)
    recipe = found.get("recipe") or {}
    if recipe.get("name"):
        yield "recipe", recipe["name"]
    for name, value in recipe.get("arguments", {}).items():
        if name not in found.get("settings", {}):
            yield name, _short(value)
    for name in ("machine", "mode", "speed"):
        if found.get(name):
            yield name, found[name]
    if found.get("versions"):
        yield "versions", ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    if found.get("seconds"):
        yield "seconds", f"{found['seconds']:,.0f}"


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
