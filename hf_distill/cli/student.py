"""``hf-distill student``: make a student from a part of its teacher, and save it with what it reads by and a card.

Knows: flags, in which order the parts are taken, what to report. Does not know: how a part is taken.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCardData
from torch import nn
from transformers import AutoConfig, DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase

from hf_distill.arguments import check_folder
from hf_distill.cli.arguments import SourceArguments, StudentArguments
from hf_distill.cli.pictures import pixels_of
from hf_distill.cli.sources import load_reader, load_rows, load_teacher
from hf_distill.experiments.data.text_rows import with_texts
from hf_distill.experiments.parsing import parse_arguments
from hf_distill.hub.provenance import Origin
from hf_distill.models.meta import reads_images_alone
from hf_distill.models.timm import timm_named
from hf_distill.reports.table import markdown_table
from hf_distill.students import fit_budget, keep_layers, lineage, shrink_width, trim_vocabulary
from hf_distill.students.layers import PRESETS
from hf_distill.students.lineage import named

BATCH = 16


def main(argv: Sequence[str]) -> None:
    """Make a student and save it.

    Args:
        argv: flags, or a YAML or JSON file and flags that override it.

    Raises:
        ValueError: in one sentence, what cannot be done and what to do.
    """
    (args,) = parse_arguments([StudentArguments], argv)
    folder = Path(args.output)
    check_folder("output", folder)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is there already and holds something: name a new folder with --output.")
    narrow = {name: getattr(args, name) for name in ("hidden_size", "num_heads", "intermediate_size")}
    narrow = {name: size for name, size in narrow.items() if size is not None}
    deep = {name: getattr(args, name) for name in ("layers", "decoder_layers", "vision_layers")}
    deep = {name: some for name, asked in deep.items() if (some := chosen(name, asked)) is not None}
    budget = {name: getattr(args, name) for name in ("parameters", "megabytes", "latency_ms")}
    budget = {name: limit for name, limit in budget.items() if limit is not None}
    if not (deep or narrow or budget or args.vocabulary_file):
        raise ValueError(
            "no part of the teacher was asked for: give --layers, --vision_layers, --hidden_size, "
            "--intermediate_size, a budget such as --parameters or --vocabulary_file."
        )
    fixed = fixed_sizes(deep, narrow) if budget else {}
    if (args.latency_ms is not None or (narrow and not budget) or args.judged > 1) and args.calibration_file is None:
        what = ", ".join([*narrow, *budget])
        raise ValueError(f"{what} was asked for: name some texts, or images, with --calibration_file.")

    with timm_named(f"the teacher {args.teacher}"):
        config = AutoConfig.from_pretrained(args.teacher)
    dtype = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    source = SourceArguments(args.teacher, "", teacher_dtype=dtype)
    teacher = load_teacher(source, torch.device("cpu"))
    pictures = reads_images_alone(teacher)
    if pictures and args.vocabulary_file:
        raise ValueError(
            f"vocabulary_file={args.vocabulary_file} was given for a {type(teacher).__name__}, which reads images and "
            "has no tokens: leave it out."
        )
    reader = load_reader(args.teacher, teacher)
    words = getattr(reader, "tokenizer", reader)
    shown = bool(narrow or budget) and args.calibration_file is not None
    if (args.vocabulary_file or shown) and not (pictures or isinstance(words, PreTrainedTokenizerBase)):
        raise ValueError(
            f"{args.vocabulary_file or args.calibration_file} was named for a {type(teacher).__name__}, beside which "
            "there is no tokenizer to read its texts by: leave it out, and ask for layers."
        )
    asked = {"layers": args.layers, "decoder layers": args.decoder_layers, "vision layers": args.vision_layers}
    asked |= {**narrow, **budget}
    parts = [f"{name.replace('_', ' ')} {value}" for name, value in asked.items() if value is not None]
    parts += [f"the tokens of {args.vocabulary_file}"] if args.vocabulary_file else []
    print(f"A student of {named(args.teacher)}, a {type(teacher).__name__}: {', '.join(parts)}.")

    batches = None
    if shown and pictures:
        batches = pixels_of(args.calibration_file, args, reader)
    elif shown:
        texts = islice(texts_of(args.calibration_file, args), args.calibration_samples)
        batches = batches_of(texts, words, args.max_length)
    if budget:
        student = fit_budget(teacher, **budget, **fixed, batches=batches, judged=args.judged)
    else:
        student = with_layers(teacher, deep) if deep else teacher
        student = shrink_width(student, **narrow, batches=batches) if narrow else student
    if args.vocabulary_file:
        texts = chain.from_iterable(texts_of(args.vocabulary_file, args))
        student, small = trim_vocabulary(student, words, texts, args.min_count)
        if reader is words:
            reader = small
        else:
            reader.tokenizer = small
    table = compared(teacher, student)
    student.save_pretrained(folder)
    reader.save_pretrained(folder)
    write_card(folder, args, student, table)
    print("\n".join(lineage(student)))
    print(table)
    print(f"Saved at {folder}.")


def chosen(name: str, asked: Any) -> tuple[Sequence[int] | int, str] | None:
    """Read which layers a flag asks for.

    Args:
        name: the flag's.
        asked: a count, ``preset:count``, or a list (of a model in stages: of a number or a list for each stage), as a
            flag or a YAML file gives it; None: nothing.

    Returns:
        The layers or how many, and which a count means.

    Raises:
        ValueError: something else.

    Example:
        >>> chosen("layers", "4"), chosen("layers", "top:2"), chosen("layers", "[0, 3]"), chosen("layers", "[[0], 2]")
        ((4, 'uniform'), (2, 'top'), ([0, 3], 'uniform'), ([[0], 2], 'uniform'))
    """
    if asked is None:
        return None
    preset, colon, count = str(asked).rpartition(":")
    try:
        layers = json.loads(count)
    except json.JSONDecodeError:
        layers = None
    if not (_count(layers) or _listed(layers)) or (colon and (preset not in PRESETS or isinstance(layers, list))):
        raise ValueError(
            f"{name}={asked} was given: use a count, top:4, lowest:4, uniform:4, a list such as [0,3,6], or, of a "
            "model in stages, how many or which of each, such as [1,1,3,1] or [[0],[0],[0,2,5],[0]]."
        )
    return layers, preset or "uniform"


def fixed_sizes(deep: Mapping[str, Any], narrow: Mapping[str, int]) -> dict[str, int]:
    """Say what a budget may not choose.

    Args:
        deep: which layers were asked for beside it, as ``chosen`` reads them.
        narrow: which widths.

    Raises:
        ValueError: more was asked for than one count of layers or one width.

    Example:
        >>> fixed_sizes({"layers": (4, "uniform")}, {})
        {'layers': 4}
    """
    fixed = {**{name: some for name, (some, _) in deep.items()}, **narrow}
    plain = deep.get("layers", (0, "uniform"))
    if (
        len(fixed) > 1
        or not fixed.keys() <= {"layers", "hidden_size"}
        or not _count(plain[0])
        or plain[1] != "uniform"
    ):
        raise ValueError(
            f"{', '.join(fixed)} was asked for beside a budget, which chooses the sizes: fix --layers by a count, or "
            "--hidden_size, or neither."
        )
    return fixed


def _count(one: Any) -> bool:
    return isinstance(one, int) and not isinstance(one, bool)


def _listed(layers: Any) -> bool:
    """Whether it is a list of numbers, or of numbers and lists of numbers."""
    each = layers if isinstance(layers, list) else [None]
    return all(_count(one) or (isinstance(one, list) and all(map(_count, one))) for one in each)


def with_layers(teacher: PreTrainedModel, asked: Mapping[str, tuple[Sequence[int] | int, str]]) -> PreTrainedModel:
    """Keep layers, each stack by its own preset.

    Args:
        teacher: loaded.
        asked: ``layers``, ``decoder_layers``, ``vision_layers`` -> what ``chosen`` gives; of others all are kept.

    Raises:
        ValueError: several presets; see ``keep_layers``.
    """
    presets = {name: preset for name, (some, preset) in asked.items() if isinstance(some, int)}
    if len(set(presets.values())) > 1:
        told = " and ".join(f"{name} by {preset}" for name, preset in presets.items())
        both = "both" if len(presets) == 2 else "all"
        raise ValueError(f"{told} were asked for: one preset is for {both}, write one of them as a list.")
    some = {"layers": None, **{name: layers for name, (layers, _) in asked.items()}}
    return keep_layers(teacher, **some, preset=next(iter(presets.values()), "uniform"))


def texts_of(path: str, args: StudentArguments) -> Iterator[tuple[str, ...]]:
    """Read texts, one or a pair a row.

    Args:
        path: a file.
        args: which columns of it.

    Raises:
        ValueError: there is no such file or column, or a file without columns has no second one.
    """
    if not Path(path).is_file():
        raise ValueError(f"texts were asked from {path}, there is no such file: check the path.")
    columns = [args.text_column, *([args.text_pair_column] if args.text_pair_column else [])]
    if Path(path).suffix == ".txt":
        if len(columns) > 1:
            raise ValueError(
                f"text_pair_column={args.text_pair_column} was given, and {path} has one text a line: give a json, "
                "csv or parquet file, or leave it out."
            )
        with open(path, encoding="utf-8") as lines:
            yield from ((text,) for line in lines if (text := line.strip()))
        return
    rows = load_rows(SourceArguments(args.teacher, path))
    if missing := [column for column in columns if column not in rows.column_names]:
        raise ValueError(
            f"{path} has the columns {rows.column_names}, {missing[0]!r} was asked for: name one with "
            "--text_column and --text_pair_column."
        )
    kept, _ = with_texts({"": rows}, columns, path)
    yield from (texts for texts in zip(*(kept[""][column] for column in columns), strict=True) if any(texts))


def batches_of(
    rows: Iterator[tuple[str, ...]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[dict[str, Any]]:
    """Tokenise texts, or pairs of them, and put them into batches.

    Args:
        rows: one or two texts each.
        tokenizer: the teacher's.
        max_length: in tokens.
    """
    reader = copy.deepcopy(tokenizer)
    reader.pad_token = reader.pad_token or reader.eos_token  # what it pads with is masked
    collator = DataCollatorWithPadding(reader)
    read = [reader(*texts, truncation=True, max_length=max_length) for texts in rows]
    return [dict(collator(read[start : start + BATCH])) for start in range(0, len(read), BATCH)]


def compared(teacher: nn.Module, student: nn.Module) -> str:
    """Write a table of sizes, for a terminal and for a card.

    Args:
        teacher: whole.
        student: whole.
    """
    rows, pairs = [], zip(*(sizes(model) for model in (teacher, student)), strict=True)
    for name, (theirs, ours) in zip(("parameters", "without embeddings", "MB"), pairs, strict=True):
        shown = "{:,.1f}" if name == "MB" else "{:,}"
        rows.append([name, shown.format(theirs), shown.format(ours), f"{ours / max(theirs, 1e-9):.1%}"])
    return markdown_table(["", "teacher", "student", "share"], rows)


def sizes(model: nn.Module) -> tuple[int, int, float]:
    """Count parameters, those outside of embeddings (and of heads tied to them), and 10**6 bytes.

    Args:
        model: whole.

    Example:
        >>> sizes(nn.Sequential(nn.Embedding(10, 2), nn.Linear(2, 1)))
        (23, 3, 9.2e-05)
    """
    all_of_it = {id(p): p for p in model.parameters()}
    embedded = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    inner = sum(p.numel() for key, p in all_of_it.items() if key not in embedded)
    held = sum(p.numel() * p.element_size() for p in all_of_it.values())
    return sum(p.numel() for p in all_of_it.values()), inner, held / 1e6


def write_card(folder: Path, args: StudentArguments, student: PreTrainedModel, table: str) -> None:
    """Write the card of a student that was not trained yet.

    Args:
        folder: where it was saved.
        args: what was asked.
        student: just made.
        table: its sizes.
    """
    origin = Origin.of(args.teacher, None)  # what its own card says goes for a part of it, too
    data = ModelCardData(
        library_name="transformers", language=origin.language, tags=["hf_distill", "knowledge-distillation"],
        **origin.licence,
    )  # fmt: skip
    if not Path(args.teacher).exists():
        data.base_model, data["base_model_relation"] = args.teacher, "finetune"
    lines = [
        "---", data.to_yaml(), "---", "",
        f"# {folder.resolve().name}", "",
        f"A {type(student).__name__} made from a part of `{named(args.teacher)}`, not trained since: distil it before "
        "you rely on it.", "", *(f"- {step}" for step in lineage(student)), "", table, "",
    ]  # fmt: skip
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
