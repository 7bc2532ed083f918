"""Where a command's teacher and rows come from: files, folders, the Hub.

Knows: how each is loaded, by what a teacher reads, how texts are tokenised. Does not know: what is done with them.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from hf_distill.cli.arguments import SourceArguments
from hf_distill.experiments.data.text_rows import load_named, read_csv, with_texts
from hf_distill.models.classes import strangers_of
from hf_distill.models.meta import reads_images_alone
from hf_distill.models.timm import timm_named
from hf_distill.tasks.lengths import holds_tokens
from hf_distill.tasks.processors import load_processor

logger = logging.getLogger(__name__)

MISSING = (OSError, ValueError, KeyError, TypeError, ImportError)
"""What transformers raises where a part of a processor is not there, or needs a library that is not installed."""
READERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


def check_folder(folder: Path, asked: str) -> None:
    """Refuse a folder that holds no whole student.

    Args:
        folder: of a finished run.
        asked: what was asked of it, as a sentence begins.

    Raises:
        ValueError: there is no model, or an adapter alone.
    """
    if (folder / "adapter_config.json").is_file():
        raise ValueError(
            f"{asked}, which holds an adapter and not its base: train with --merge_lora, or merge it (peft's "
            "merge_and_unload) and save that."
        )
    if not (folder / "config.json").is_file():
        raise ValueError(f"{asked}, which holds no model (config.json): name the folder of a finished student.")


def load_rows(args: SourceArguments) -> Dataset:
    """Load the data set.

    Args:
        args: what was asked.

    Raises:
        ValueError: there is no such file, split or row.
    """
    path = Path(args.dataset_name)
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        rows = load_from_disk(str(path))
        rows = rows.get(args.dataset_split) if isinstance(rows, DatasetDict) else rows
    elif path.suffixes and (reader := READERS.get([s for s in path.suffixes if s != ".gz"][-1])):
        if not path.is_file():
            raise ValueError(f"rows were asked from {path}, there is no such file: check the path.")
        try:
            file = {"data_files": str(path), "split": "train"}
            rows = read_csv(str(path)) if reader == "csv" else load_dataset(reader, **file)
        except Exception as error:  # each reader raises its own kinds; all mean the same to the user
            reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
            raise ValueError(f"{path} could not be read as {reader} ({reason[0]}): correct or convert it.") from error
    else:
        rows = load_named(args.dataset_name, args.dataset_config_name, args.dataset_split)
    if args.max_samples is not None and args.max_samples < 1:
        raise ValueError(f"max_samples={args.max_samples} was given: give 1 or more, or leave it out.")
    if not rows:
        raise ValueError(f"{args.dataset_name} has no rows under {args.dataset_split!r}: name another split.")
    return rows if args.max_samples is None else rows.select(range(min(args.max_samples, len(rows))))


def tokenised(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, args: SourceArguments, labels: bool = False
) -> Dataset:
    """Tokenise texts as training does; rows that are tokenised already are left as they are.

    Args:
        rows: with texts or ``input_ids``.
        tokenizer: the teacher's.
        args: which columns, how long.
        labels: whether the teacher reads them, as encoder-decoder models do.

    Raises:
        ValueError: there is no such column.
    """
    if holds_tokens(rows.column_names):
        dropped = () if labels else ("label", "labels")
        return rows.select_columns([name for name in rows.column_names if name not in dropped])
    if labels and args.target_column is None:
        raise ValueError("this teacher reads the text that it is to write: name its column with --target_column.")
    target = [args.target_column] if labels else []
    columns = [args.text_column, *([args.text_pair_column] if args.text_pair_column else [])]
    if missing := [name for name in (*columns, *target) if name not in rows.column_names]:
        raise ValueError(
            f"{args.dataset_name} has the columns {rows.column_names}, {missing} was asked for: name them with "
            "--text_column and --text_pair_column."
        )

    kept, left_out = with_texts({args.dataset_split: rows}, [*columns, *target], args.dataset_name)
    rows = kept[args.dataset_split]
    if left_out:
        logger.warning("%s.", left_out)

    def encode(some: dict[str, Any]) -> dict[str, Any]:
        written = {"text_target": some[target[0]]} if target else {}
        texts = (some[name] for name in columns)
        return tokenizer(*texts, **written, truncation=True, max_length=args.max_length)

    return rows.map(encode, batched=True, remove_columns=rows.column_names, desc="Tokenising")


def load_teacher(args: SourceArguments, device: torch.device) -> PreTrainedModel:
    """Load the teacher with the head that it was saved with.

    Args:
        args: its name, its precision.
        device: where to put it.

    Raises:
        ValueError: it was saved without a head, or with an untrained one; or there is no such precision.
    """
    dtype = getattr(torch, args.teacher_dtype, None)
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(
            f"teacher_dtype={args.teacher_dtype} was given, which is no precision of weights: use float32, bfloat16 "
            "or float16."
        )
    with timm_named(f"the teacher {args.teacher_model_name_or_path}"):
        return _load(args, dtype).eval().requires_grad_(False).to(device)


def _load(args: SourceArguments, dtype: torch.dtype) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(args.teacher_model_name_or_path)
    name = (config.architectures or [""])[0]
    kind = getattr(transformers, name, None)
    if kind is None:
        raise ValueError(
            f"the teacher {args.teacher_model_name_or_path} says that it is a {name or 'model without a class'}, "
            "which transformers does not have: save it with save_pretrained from a class with a head."
        )
    model, info = kind.from_pretrained(args.teacher_model_name_or_path, dtype=dtype, output_loading_info=True)
    if missing := sorted(info["missing_keys"]):
        raise ValueError(
            f"the teacher at {args.teacher_model_name_or_path} has no trained weights for {', '.join(missing)}: "
            "fine-tune it on your task first, an untrained head teaches noise."
        )
    return model


def load_reader(name: str, model: PreTrainedModel) -> Any:
    """Load what a model reads by: a tokenizer, an image processor, or the processor of both or of recordings.

    Args:
        name: where it is loaded from.
        model: loaded.

    Raises:
        ValueError: there is nothing of the kind beside it.
    """
    if reads_images_alone(model):
        return load_processor(name, f"the teacher {name}")
    if not (others := strangers_of(model)):
        return AutoTokenizer.from_pretrained(name)
    for kind in (AutoProcessor, AutoFeatureExtractor, AutoTokenizer, AutoImageProcessor):
        try:
            found = kind.from_pretrained(name)
        except MISSING:
            continue
        if kind is not AutoProcessor:
            logger.warning(
                "%s reads %s, and beside it there is no whole processor but a %s, with which the student is saved.",
                name, " and ".join(others), type(found).__name__,
            )  # fmt: skip
        return found
    raise ValueError(
        f"the teacher {name} reads {' and '.join(others)}, and there is no processor that can be loaded beside it: "
        "save the one that it was trained with there (processor.save_pretrained)."
    )
