"""``hf-distill export``: write a finished student for other runtimes, and measure each export on its test rows.

Knows: a finished run's folder, which recipe has such rows. Does not know: formats, how models are measured.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from hf_distill.cli.arguments import USAGE, ExportArguments
from hf_distill.cli.recipes import load_recipe, recipe_names
from hf_distill.cli.sources import check_folder
from hf_distill.experiments.comparison import as_json
from hf_distill.experiments.exports import PLAIN, Bench, export_table
from hf_distill.experiments.parsing import parse_arguments, parse_some
from hf_distill.experiments.record import recorded
from hf_distill.export import FORMATS, Format, Plan
from hf_distill.export.equal import Difference, compared, random_batches
from hf_distill.export.folder import complete, note, processor_of
from hf_distill.export.plan import outputs_of
from hf_distill.hub.section import put_section
from hf_distill.reports.table import markdown_table
from hf_distill.tasks import (
    CTC,
    AudioClassification,
    CausalLM,
    ImageClassification,
    MaskedLM,
    ObjectDetection,
    QuestionAnswering,
    SemanticSegmentation,
    SentenceEmbedding,
    SequenceClassification,
    Task,
    TokenClassification,
)

ROWS_OF: Mapping[type[Task], str] = {
    SequenceClassification: "bert_chinese",
    TokenClassification: "token_tagging",
    QuestionAnswering: "question_answering",
    CausalLM: "causal_lm",
    MaskedLM: "masked_lm",
    SentenceEmbedding: "sentence_embeddings",
    ImageClassification: "image_classification",
    SemanticSegmentation: "segmentation",
    ObjectDetection: "object_detection",
    AudioClassification: "speech_classification",
    CTC: "speech_ctc",
}
"""Task -> the recipe that reads rows of it, where the folder names none."""
OF_TRAINING = ("seed", "data_seed", "per_device_eval_batch_size")
"""Trainer's arguments that decide which rows are test rows, and how they are batched."""
OF_MODELS = ("teacher_", "student_", "finetune_", "lora_", "merge_", "skip_")
"""Arguments of a recipe that begin so are of models that are trained."""
HEADING = "## Exports"
"""Of the section in the student's card."""
UNMEASURED = (
    "Nothing was measured: {why}. The export was compared with PyTorch on {rows} random rows. To measure it, name "
    "rows with --rows FILE, or a recipe with --recipe NAME and its flags."
)


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Args:
        argv: the folder of a finished student, flags of ``ExportArguments``, and flags of the recipe of its rows.

    Raises:
        ImportError: a library is missing; names the extra.
        ValueError: no folder, no model in it, no such format, a model or a layer that has no export, rows that cannot
            be read, or an export that does not answer as PyTorch does.
    """
    words = list(argv)
    if not words or words[0].startswith("-"):
        print(USAGE["export"])
        parse_arguments([ExportArguments], [one for one in words if one in ("-h", "--help")] or ["--format", "onnx"])
        raise ValueError("no folder was named: begin with that of a finished student, such as outputs/mine/run-1.")
    folder = Path(words.pop(0))
    asked, rest = parse_some(ExportArguments, words)
    formats = named(asked.format)
    model = finished(folder)
    outputs_of(task := Task.of(model), type(model).__name__)  # refuses before rows are read
    processor = processor_of(folder, task)
    for one in formats:
        one.check(model)
    bench, why = None, ""
    with tempfile.TemporaryDirectory() as made:
        if (found := rows_for(folder, task, asked)) is None:
            if rest:
                raise ValueError(f"{rest[0]} was given without a recipe: name the recipe of the rows, --recipe NAME.")
            why = "the folder does not say which recipe made it"
        else:
            bench = Bench(prepared(*found, folder, rest, made), folder)
        plan = Plan.of(model, task, bench and bench.example, processor)
        export(folder, formats, model, plan, processor, bench, why)


def named(asked: Sequence[str]) -> list[type[Format]]:
    """Find formats by their names.

    Args:
        asked: names.

    Raises:
        ValueError: there is none of that name.
    """
    known = {one.name: one for one in FORMATS}
    for name in asked:
        if name not in known:
            raise ValueError(f"the format {name!r} was asked for, there are {', '.join(known)}: name some of these.")
    return [known[name] for name in dict.fromkeys(asked)]


def finished(folder: Path) -> nn.Module:
    """Load a finished student as what it is.

    Args:
        folder: with its configuration and weights.

    Raises:
        ValueError: there is none, an adapter alone, or a class that transformers does not have.
    """
    check_folder(folder, f"an export of {folder} was asked for")
    try:
        config = transformers.AutoConfig.from_pretrained(folder)
        kind = getattr(transformers, next(iter(config.architectures or ()), ""), None)
        if kind is None:
            raise ValueError(f"transformers has no class {config.architectures}")
        model = kind.from_pretrained(folder, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"an export of {folder} was asked for, and no model can be loaded from it "
            f"({' '.join(str(error).split())[:160]}): name the folder of a finished student of transformers."
        ) from error
    return model.eval()


def rows_for(folder: Path, task: Task, asked: ExportArguments) -> tuple[str, dict[str, Any]] | None:
    """Find which recipe reads the test rows of a student, and what it is to be told.

    Args:
        folder: of the student; its ``report.json`` may say.
        task: of the student.
        asked: by the user.

    Returns:
        The recipe's name and settings; None: nobody says.

    Raises:
        ValueError: rows were named, and no recipe reads such.
    """
    report = folder / "report.json"
    kept = recorded(json.loads(report.read_text(encoding="utf-8"))) if report.is_file() else None
    if asked.recipe is None and kept is not None and kept[0] not in recipe_names():
        kept = None  # a user's own
    name, settings = (asked.recipe, {}) if asked.recipe else kept or (None, {})
    if asked.rows is None:
        return None if name is None else (name, settings)
    name = name or next((ROWS_OF[kind] for kind in type(task).__mro__ if kind in ROWS_OF), None)
    if name is None:
        raise ValueError(f"--rows was given for {type(task).__name__}, whose rows no recipe reads: leave it out.")
    files = dict.fromkeys(("train_file", "validation_file", "test_file"), asked.rows)
    settings = {one: value for one, value in settings.items() if not one.startswith("dataset_")}
    return name, {**settings, **files}


def prepared(name: str, settings: Mapping[str, Any], folder: Path, flags: Sequence[str], made: str) -> Any:
    """Let a recipe read the rows, with the finished student as both of its models.

    Args:
        name: of the recipe.
        settings: its arguments, and Trainer's.
        folder: of the student.
        flags: further ones, which come before the settings.
        made: an empty folder.
    """
    recipe, _ = load_recipe([name])
    known = {field.name for field in fields(recipe.arguments)}
    kept = {
        one: value
        for one, value in settings.items()
        if one in OF_TRAINING or (one in known and not one.startswith(OF_MODELS))
    }
    models = ("student_model_name_or_path", "teacher_model_name_or_path")
    kept |= {one: str(folder) for one in models if one in known}
    kept |= {"use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
    kept |= {"output_dir": str(Path(made) / "run")}
    path = Path(made) / "settings.json"
    path.write_text(json.dumps(kept), encoding="utf-8")
    return recipe.prepare([str(path), *flags])


def export(
    folder: Path,
    formats: Sequence[type[Format]],
    model: nn.Module,
    plan: Plan,
    processor: Any,
    bench: Bench | None,
    why: str,
) -> None:
    """Write the exports, compare them, measure them, and say what was found.

    Args:
        folder: of the student; each export goes into a folder of its own in it.
        formats: of the exports.
        model: the student.
        plan: what of it.
        processor: of its columns.
        bench: its test rows; None: there are none.
        why: there are none.
    """
    exports, sizes = {}, {PLAIN: Format.megabytes(folder)}
    for one in formats:
        place = folder / one.name
        place.mkdir(exist_ok=True)
        print(f"\n=== writing {place}", flush=True)
        one.write(model, plan, place)
        complete(place, one, model, plan, processor)
        exports[one.name], sizes[one.name] = one.load(place, model, plan), one.megabytes(place)
    print("\n=== comparing with PyTorch", flush=True)
    if bench is None:
        differences = compared(model, exports, random_batches(model, plan), plan)
    else:
        differences = bench.differences(model, exports, plan)
    for one in formats:
        if one.exact:
            differences[one.name].check(one.name)
    said = {one.name: asdict(differences[one.name]) for one in formats}
    if bench is None:
        _unmeasured(folder, formats, differences, sizes, why)
        return
    print("\n=== measuring", flush=True)
    found = bench.measure(model, exports, sizes)
    for row in found["models"][1:]:
        row["difference"] = said[row["name"]]["largest"]
    table = export_table(found["models"], bench.scoring)
    text = (
        f"On the {found['split']} rows of {found['measured_on']} ({found['counted']}), on {found['machine']}: ms are "
        "of one row alone, the models taking turns; the largest difference is that of any output of any row from "
        "PyTorch's float32, for each 1 that the largest output of the row is above 1."
    )
    for one in formats:
        of_two = [found["models"][0], *(row for row in found["models"] if row["name"] == one.name)]
        whole = {**found, "format": one.name, "difference": said[one.name], "models": of_two}
        note(folder / one.name, json.loads(as_json(whole)), export_table(of_two, bench.scoring), text)
    there = put_section(folder / "README.md", HEADING, table, text)
    print(f"\n{table}\n\n{text}\nThe exports are in {', '.join(str(folder / one.name) for one in formats)}", end="")
    print(f"; the table is in {folder / 'README.md'} too." if there else ".")


def _unmeasured(
    folder: Path,
    formats: Sequence[type[Format]],
    differences: Mapping[str, Difference],
    sizes: Mapping[str, float],
    why: str,
) -> None:
    rows = [[PLAIN, f"{sizes[PLAIN]:.1f}", "-"]]
    rows += [[one.name, f"{sizes[one.name]:.1f}", f"{differences[one.name].largest:.1g}"] for one in formats]
    table = markdown_table(["format", "MB", "largest difference"], rows)
    text = UNMEASURED.format(why=why, rows=differences[formats[0].name].rows)
    for one in formats:
        found = {"format": one.name, "difference": asdict(differences[one.name]), "megabytes": sizes[one.name]}
        note(folder / one.name, json.loads(as_json(found)), "", text)
    print(f"\n{table}\n\n{text}\nThe exports are in {', '.join(str(folder / one.name) for one in formats)}.")
