"""``hf-distill card``: put into a student's card what only a person knows, and say what it still lacks.

Knows: a finished run's folder, the Hub's metadata. Does not know: how anything was trained or measured.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from huggingface_hub import ModelCard

from hf_distill.cli.arguments import USAGE, CardArguments
from hf_distill.cli.names import check_names, labels_of, name_data, name_labels, shown_labels, title_card
from hf_distill.experiments.parsing import parse_arguments
from hf_distill.hub.card import METRICS
from hf_distill.hub.eval_results import write_eval_results
from hf_distill.hub.push import KEPT_BACK, again
from hf_distill.hub.words import check_languages, check_licence
from hf_distill.reports import markdown_table

UNDECIDED = re.compile(r"No licence is set, .*?: decide before you publish\. ", re.DOTALL)
NAMES = ("title", "dataset_title", "label_names")
"""What is no metadata."""
WANTED = ("license", "language", "datasets", "base_model", "pipeline_tag")
"""What the Hub finds a model by."""


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Args:
        argv: the folder of a finished run, and flags of ``CardArguments``.

    Raises:
        ValueError: there is no card, a licence without its name, a word that the Hub does not know, or names of other
            classes than there are.
    """
    words = list(argv)
    if words[:1] in ([], ["-h"], ["--help"]):
        print(USAGE["card"])
    if not words or words[0].startswith("-"):
        parse_arguments([CardArguments], words)  # --help says the rest
        raise ValueError("no folder was named: begin with that of a finished run, such as outputs/bert_chinese/run-1.")
    folder = Path(words.pop(0))
    (asked,) = parse_arguments([CardArguments], words)
    path = folder / "README.md"
    if not path.is_file():
        raise ValueError(f"a card was asked of {folder}, which has no README.md: name the folder of a finished run.")
    if asked.license is not None:
        check_licence(asked.license)
    check_languages(asked.language or ())
    if asked.license == "other" and not asked.license_name:
        raise ValueError("license=other was given without a name: add --license_name and --license_link.")
    card = ModelCard.load(path, ignore_metadata_errors=True)
    check_names(folder, card, asked)
    given = {name: value for name, value in asdict(asked).items() if value and name not in NAMES}
    given["tags"] = sorted({*(card.data.tags or []), *given.get("tags", [])})
    for name, value in given.items():
        setattr(card.data, name, value)
    if asked.title:
        title_card(card, " ".join(asked.title.split()))
    if asked.label_names:
        name_labels(folder, card, asked.label_names)
    if asked.dataset_title:
        name_data(folder, card, " ".join(asked.dataset_title.split()))
    text = UNDECIDED.sub("", card.text) if card.data.license else card.text
    path.write_text(f"---\n{card.data.to_yaml()}\n---\n{text}", encoding="utf-8")
    report = folder / "report.json"
    if asked.datasets and report.is_file():
        found = json.loads(report.read_text(encoding="utf-8")) | {"datasets": asked.datasets}
        write_eval_results(folder, found, found.get("metrics", METRICS))
    known = card.data.to_dict()
    rows = [[name, _shown(known.get(name)) or "not set"] for name in WANTED]
    if labels := labels_of(folder):
        rows.append(["label names", shown_labels(labels) or "not set"])
    print(f"{path}:\n\n{markdown_table(['metadata', 'value'], rows)}\n")
    print(f"To publish it: {again('YOU/NAME', folder, exclude=KEPT_BACK)}")


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")
