"""Do a report's figures follow from the models and the rows? Each is computed again, by scikit-learn and numpy.

    python tests/benchmarks/rederive.py FOLDER... [--teacher FOLDER] [--differing]

FOLDER holds a finished run: ``report.json``, the student's weights, the one alone under ``_alone`` or ``_plain``, the
teacher under ``_teacher-*`` beside them. Models are loaded by transformers alone, draft heads by us, and asked about
the test rows, which the recipe reads again by the settings in the report: the question is whether the figures follow
from models and rows. Nothing of hf_distill's reports or scorings is used. Where no model lies in FOLDER, as in a model
card's, it is asked whether the report's figures follow from each other.

Prints every figure as the report has it and as it is now, then those that are not computed again: times above all.
"Equal" is to 12 digits; "rounded" to 6, or by less than a float32 can tell beside 1, or beside the loss where that is
larger: a sum in another order. The exit code is 1 where a figure differs.
"""

import argparse
import importlib
import math
import sys
import warnings
from pathlib import Path

import torch
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parent))

from rederived import figures, itself
from rederived.run import Run, Unknown

MEASURES = {
    "text_classification": "classes", "bert_chinese": "classes", "image_classification": "classes",
    "speech_classification": "classes", "token_tagging": "tags", "question_answering": "answers",
    "causal_lm": "language", "segmentation": "maps", "translation": "translation", "sentence_embeddings": "vectors",
    "image_text": "pairs", "object_detection": "boxes", "vision_language": "questions", "speech_ctc": "transcripts",
    "image_generation": "samples", "masked_lm": "hidden", "draft_head": "drafts",
}  # fmt: skip
"""Recipe -> the module that measures its models."""
TIMES = ("samples_per_second", "latency", "real_time_factor", "seconds")
ASKED = ("settings", "recipe", "versions", "pictures", "metrics", "required", "datasets")
EXACT, ROUNDED, STEP, MOST = 1e-12, 1e-6, 6e-8, 12


def again(run):
    """Compute a report again, in its form, as far as it can be."""
    if run.recipe not in MEASURES:
        raise Unknown(f"models of {run.recipe} are not measured here")
    found = importlib.import_module(f"rederived.{MEASURES[run.recipe]}").measure(run)
    made = {"models": {name: of_model(run, found, name) for name in found.each}, **found.details}
    made["rows"] = {name: len(rows) for name, rows in run.experiment.splits.items()}
    names = (found.baseline, "distilled", "teacher")
    if all(name in found.each for name in names):
        sign = -1 if found.lower else 1
        made["gap"] = figures.gap_of(*(sign * found.each[name][found.score] for name in names))
    made["floor"] = found.floor
    if found.floor is not None and set(found.each) == {row["name"] for row in run.report["models"]}:
        sign = -1 if found.lower else 1
        scores = {name: each[found.score].mean() for name, each in found.each.items()}
        best = max(scores, key=lambda name: sign * scores[name])
        made["floor_lead"] = float(sign * (scores[best] - found.floor))
        made["floor_lead_error"] = figures.error(found.each[best][found.score])
    made["plotted_floor"] = found.floor_plotted
    if made.get("gap") or not run.report.get("gap"):
        made["verdict"] = figures.verdict_of(made.get("gap"), made.get("floor_lead"))
    return made


def of_model(run, found, name):
    rows = found.each[name]
    made = {figure: float(one.mean()) for figure, one in rows.items()} | found.figures[name]
    made |= {f"{figure}_error": figures.error(one) for figure, one in rows.items()}
    made[f"{found.plotted}_interval"] = figures.bounds(rows[found.plotted], found.share)
    if name in run.models:
        made["parameters"], made["megabytes"] = run.sizes[name]
    return made


def leaves(tree, path=()):
    """Every number, word and None of nested mappings and lists, by its place."""
    if isinstance(tree, dict):
        for name, one in tree.items():
            yield from leaves(one, (*path, str(name)))
    elif isinstance(tree, (list, tuple)):
        for number, one in enumerate(tree):
            yield from leaves(one, (*path, str(number)))
    else:
        yield " / ".join(path), tree


def named(report):
    """The report with its lists by what they are of: models by name, classes by number."""
    found = {name: one for name, one in report.items() if name not in ASKED}
    found["models"] = {row["name"]: {k: v for k, v in row.items() if k != "name"} for row in report["models"]}
    if "classes" in found:
        found["classes"] = {
            row["number"]: {k: v for k, v in row.items() if k not in ("name", "number")} for row in report["classes"]
        }
    return found


def apart(told, now):
    """How far two figures are from each other, as a share of the larger; inf if one is none and the other not."""
    if told == now:
        return 0.0
    if not all(isinstance(one, (int, float)) for one in (told, now)):
        return 0.0 if told is None and isinstance(now, float) and not math.isfinite(now) else math.inf
    if abs(told - now) < 1e-15:
        return 0.0
    return abs(told - now) / max(abs(told), abs(now))


def compare(report, made, show=True, only_differing=False):
    """Print a table of figures; return how many are equal, rounded, and what differs."""
    told, now = dict(leaves(named(report))), dict(leaves(made))
    counts, differing = {"equal": 0, "rounded": 0}, []
    step = STEP * max(1.0, *(row.get("loss") or 0.0 for row in report["models"]))
    for place, value in now.items():
        if place not in told:  # a report of an older version has no floor
            continue
        far = apart(told[place], value)
        near = far <= ROUNDED or is_near(told[place], value, step)
        how = "equal" if far <= EXACT else "rounded" if near else "differs"
        if how == "differs":
            differing.append((place, told[place], value))
        else:
            counts[how] += 1
        if show and (how == "differs" or not only_differing):
            print(f"{place:52} {told[place]!s:>24} {value!s:>24} {far:8.1e} {how}")
    left = [place for place, value in told.items() if place not in now and isinstance(value, (int, float))]
    return counts, differing, left


def is_near(told, now, step):
    """Whether a float32 could not tell two figures apart, such as the KL of a model to itself from 0."""
    return all(isinstance(one, (int, float)) for one in (told, now)) and abs(told - now) < step


def check(folder, teacher, only_differing):
    """Compute one folder's report again; return the counts, and what differs."""
    run, alone = Run(folder, teacher), None
    try:
        made = again(run)
    except Unknown as reason:
        alone, made = str(reason), itself.again(run.report)
    print(f"\n{folder}: {run.report['dataset']}")
    if alone:
        print(f"not from models: {alone}; whether its figures follow from each other:")
    elif lacking := [row["name"] for row in run.report["models"] if row["name"] not in made["models"]]:
        print(f"not kept, so not measured: {', '.join(lacking)}")
    print(f"{'figure':52} {'report':>24} {'again':>24} {'apart':>8}")
    counts, differing, left = compare(run.report, made, only_differing=only_differing)
    times = [place for place in left if place.split(" / ")[-1].startswith(TIMES)]
    others = [place for place in left if place not in times]
    told = ", ".join(others[:MOST]) + (f" and {len(others) - MOST} more" if len(others) > MOST else "")
    print(f"not computed again: {len(times)} times" + (f"; {told}" if others else ""))
    return counts, differing


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a finished run's, or a card's")
    parser.add_argument("--teacher", type=Path, help="the teacher's folder, where it is not the only one kept")
    parser.add_argument("--differing", action="store_true", help="show those figures alone that differ")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    equal = rounded = 0
    differing = []
    for folder in asked.folders:
        counts, differs = check(folder, asked.teacher, asked.differing)
        equal, rounded = equal + counts["equal"], rounded + counts["rounded"]
        differing += [(folder, *one) for one in differs]
    for folder, place, told, now in differing:
        print(f"DIFFERS: {folder}: {place}: {told} in the report, {now} again")
    print(f"{equal} figures equal to 12 digits, {rounded} to 6, {len(differing)} differ")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
