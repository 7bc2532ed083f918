"""Distil a Chinese BERT classifier, and prove what the teacher gave.

    accelerate launch recipes/bert_chinese.py                                   # the whole job on embedded data
    accelerate launch recipes/bert_chinese.py --train_file my.jsonl --teacher_model_name_or_path my/teacher
    accelerate launch recipes/bert_chinese.py recipes/bert_chinese.yaml --hub_model_id me/student

It trains a teacher (or takes one), the student alone, and the same student under the teacher; then it writes a table,
``report.json``, a picture and the model card beside the student's weights.

Knows: the order of these steps. Does not know: how a loss is computed or a model measured.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import PartialState
from chinese_words import character_tokenizer
from comparison import compare, taught, write
from datasets import DatasetDict
from text_data import TextDataArguments, described, load_text, texts_to_read, with_unlabeled
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from hf_distill import DistillationTrainer, DistillationTrainingArguments
from hf_distill.parsing import parse_arguments
from hf_distill.preflight import check_output_dir
from hf_distill.reports import ClassificationMetric
from hf_distill.sharding import is_sharded, unsharded
from hf_distill.students import keep_layers

ROOT = Path("outputs/bert_chinese")
EMBEDDED_ROWS = 120_000
ON_CPU = not torch.accelerator.is_available()
# A CPU with bfloat16 units (AVX512_BF16, AMX) trains this in two thirds of the time; others would emulate it, slowly.
CUDA_BF16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
BF16_UNITS = ("avx512_bf16", "amx_bf16") if hasattr(torch.cpu, "get_capabilities") else ()
FAST_BF16 = any(torch.cpu.get_capabilities().get(unit) for unit in BF16_UNITS) if ON_CPU else CUDA_BF16


@dataclass
class RecipeArguments(TextDataArguments):
    """The models, and what is particular to this recipe; the data's arguments are inherited."""

    teacher_model_name_or_path: str | None = field(
        default=None, metadata={"help": "A path or Hub id. Default: a BERT is trained here, once, and kept."}
    )
    finetune_teacher: bool = field(
        default=False, metadata={"help": "Fine-tune the given teacher on the training rows first (kept, too)."}
    )
    teacher_layers: int = field(default=4, metadata={"help": "Layers of a teacher that is trained from nothing."})
    teacher_hidden_size: int = field(default=256, metadata={"help": "Its width."})
    teacher_epochs: float = field(default=2.0, metadata={"help": "Epochs of training or fine-tuning the teacher."})
    teacher_learning_rate: float = field(default=5e-4, metadata={"help": "Its peak learning rate."})
    student_model_name_or_path: str | None = field(
        default=None, metadata={"help": "A path or Hub id. Default: a small model of the teacher's kind."}
    )
    student_layers: int = field(default=1, metadata={"help": "Layers of a student made here."})
    student_hidden_size: int = field(default=128, metadata={"help": "Its width, in heads of 64."})
    student_from_teacher: bool = field(
        default=False, metadata={"help": "Copy the student's layers from the teacher; same width."}
    )
    student_preset: str = field(default="uniform", metadata={"help": "Which ones: uniform (evenly), top or lowest."})
    lora_rank: int = field(default=0, metadata={"help": "Train a LoRA adapter of this rank on the student (PEFT)."})
    merge_lora: bool = field(default=False, metadata={"help": "Save full weights instead of the adapter."})
    skip_alone: bool = field(default=False, metadata={"help": "Do not train the student without its teacher."})
    num_threads: int | None = field(
        default=None, metadata={"help": "Threads of a process on a CPU. Default: all cores, shared by the processes."}
    )
    max_length: int = field(default=128, metadata={"help": "Longer texts are cut to this many tokens."})


@dataclass
class RecipeTrainingArguments(DistillationTrainingArguments):
    """The recipe's own defaults; every field of TrainingArguments can be set."""

    output_dir: str = str(ROOT)
    alpha: float | None = 0.9
    temperature: float = 2.0
    objective: dict | str | None = "auto"
    per_device_train_batch_size: int = 128
    per_device_eval_batch_size: int = 512
    learning_rate: float = 2e-3
    num_train_epochs: float = 2.0
    warmup_steps: float = 0.1
    logging_steps: float = 100
    use_cpu: bool = ON_CPU
    bf16: bool = FAST_BF16
    dataloader_pin_memory: bool = not ON_CPU
    save_strategy: str = "epoch"
    save_total_limit: int | None = 1


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the recipe.

    Args:
        argv: flags, or a YAML or JSON file with flags that override it; None takes the command line.

    Returns:
        What ``report.json`` holds.
    """
    started = time.time()
    recipe, args = parse_arguments([RecipeArguments, RecipeTrainingArguments], argv)
    root = Path(args.output_dir)  # where the teacher is kept, for the next run too
    if root == ROOT:
        args.output_dir = str(next_run(ROOT))
    check_output_dir(args.output_dir, args.resume_from_checkpoint)
    if args.device.type == "cpu":  # accelerate launch gives a process one thread, which leaves cores idle
        torch.set_num_threads(recipe.num_threads or max(1, (os.cpu_count() or 1) // args.world_size))
    if recipe.lora_rank and not (recipe.student_model_name_or_path or recipe.merge_lora):
        raise ValueError(
            "lora_rank was given for a student that is made here, and an adapter is of no use without its base: name "
            "the base with --student_model_name_or_path, or write full weights with --merge_lora."
        )
    if recipe.max_train_samples is None and recipe.source == "jieba dictionary":
        recipe.max_train_samples = EMBEDDED_ROWS
    with args.main_process_first(desc="reading the rows"):
        splits = load_text(recipe, args.seed, teachers_labels(recipe))
    say(args, f"{recipe.source}: {described(splits)}")

    columns = [recipe.text_column, *([recipe.text_pair_column] if recipe.text_pair_column else [])]
    tokenizer = shared_tokenizer(recipe, texts_to_read(splits, columns))
    with args.main_process_first(desc="tokenising"):
        splits = tokenised(splits, columns, tokenizer, recipe.max_length)
    spoken = with_unlabeled(splits, args.alpha)
    teacher = make_teacher(recipe, args, splits, tokenizer, root)

    student = make_trainer(make_student(recipe, args, teacher, splits), args, spoken, tokenizer, teacher)
    if recipe.merge_lora and (student.is_fsdp_enabled or is_sharded(student.teacher.model)):
        raise ValueError(
            "merge_lora was asked for under FSDP or ZeRO-3, which leave each process a share of the student: run "
            "without it, and merge the saved adapter afterwards (peft's merge_and_unload)."
        )
    say(args, "training the student under the teacher")
    train(student, args.resume_from_checkpoint)
    if recipe.merge_lora:
        student.model = student.model.merge_and_unload()
    student.save_model(_internal_call=True)
    shown = {"teacher": taught(student, splits["test"]), "distilled": student.predict(splits["test"])}
    models = {"teacher": unsharded(student.teacher.model), "distilled": unsharded(student.model)}
    if not recipe.skip_alone:
        # It cannot learn from a row without a label, so its epochs are shorter: it is given as many steps instead.
        steps = {"max_steps": student.state.max_steps} if "unlabeled" in splits else {}
        say(args, "training the student alone" + (", on the labelled rows, for as many steps" if steps else ""))
        beside = settings(args, "_alone", **steps)
        alone = make_trainer(make_student(recipe, args, teacher, splits), beside, splits, tokenizer)
        train(alone)
        alone.save_model()
        shown["student alone"], models["student alone"] = alone.predict(splits["test"]), unsharded(alone.model)

    say(args, "measuring")
    order = [name for name in ("teacher", "student alone", "distilled") if name in shown]
    student.report = {
        "dataset": recipe.source,
        "language": "zh",
        **compare({name: (shown[name], models[name]) for name in order}, splits["test"], student),
        "rows": {name: len(rows) for name, rows in splits.items()},
        "settings": {n: getattr(args, n) for n in ("alpha", "temperature", "objective", "augmentation", "seed")},
        "seconds": round(time.time() - started, 1),
    }
    if student.is_world_process_zero():
        write(student)
    if args.push_to_hub:
        student.push_to_hub()
    return student.report


def teachers_labels(recipe: RecipeArguments) -> dict[str, int] | None:
    """Read the label order of a finished teacher: the rows' labels are numbered in it."""
    finished = recipe.teacher_model_name_or_path and not recipe.finetune_teacher
    return AutoConfig.from_pretrained(recipe.teacher_model_name_or_path).label2id if finished else None


def shared_tokenizer(recipe: RecipeArguments, texts: list[str]) -> PreTrainedTokenizerBase:
    """Return the one tokenizer of both models: that of the given ones, which must agree, or the texts' characters."""
    paths = [path for path in (recipe.student_model_name_or_path, recipe.teacher_model_name_or_path) if path]
    found = [AutoTokenizer.from_pretrained(path) for path in paths]
    if len(found) == 2 and found[0].get_vocab() != found[1].get_vocab():
        raise ValueError(
            f"the student {paths[0]} and the teacher {paths[1]} read the same token ids, but their tokenizers differ "
            f"({len(found[0])} and {len(found[1])} tokens): name a student with the teacher's tokenizer, or have one "
            "made here."
        )
    return found[0] if found else character_tokenizer(texts)


def next_run(root: Path) -> Path:
    """Name the first folder ``root/run-N`` that is not there yet, so that no run writes over another."""
    return next(folder for n in range(1, 10**6) if not (folder := root / f"run-{n}").exists())


def say(args: transformers.TrainingArguments, text: str) -> None:
    """Tell the user what comes now, once, not once a process."""
    if args.process_index == 0:
        print(f"\n=== {text}", flush=True)


def settings(args: RecipeTrainingArguments, folder: str, **changes: Any) -> RecipeTrainingArguments:
    """Return the run's arguments for a model beside the student: without a teacher, checkpoints or the Hub."""
    changes = {"alpha": 0.0, "augmentation": None, "save_strategy": "no", "push_to_hub": False} | changes
    changes.setdefault("load_best_model_at_end", False)
    return replace(args, **{"output_dir": str(Path(args.output_dir) / folder), **changes})


def tokenised(
    splits: DatasetDict, columns: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> DatasetDict:
    """Turn text into token ids, in batches, with a progress bar for each split."""

    def encode(rows: dict[str, list]) -> dict[str, list]:
        return dict(tokenizer(*(rows[c] for c in columns), truncation=True, max_length=max_length))

    return splits.map(encode, batched=True, remove_columns=columns, desc="tokenising")


def labelled(config: transformers.PretrainedConfig, splits: DatasetDict) -> transformers.PretrainedConfig:
    """Write the data set's class names into a configuration."""
    names = splits["train"].features["label"].names
    config.num_labels = len(names)
    config.id2label, config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    config.problem_type = "single_label_classification"
    return config


def shaped(config: transformers.PretrainedConfig, layers: int, width: int) -> transformers.PretrainedConfig:
    """Return a configuration of the same kind with other sizes: heads of 64, an inner layer four times as wide."""
    config = copy.deepcopy(config)
    config._name_or_path = ""  # only the kind is taken over, so the card must not name a base model
    config.num_hidden_layers, config.hidden_size = layers, width
    config.num_attention_heads, config.intermediate_size = max(1, width // 64), 4 * width
    return config


def make_teacher(
    recipe: RecipeArguments,
    args: RecipeTrainingArguments,
    splits: DatasetDict,
    tokenizer: PreTrainedTokenizerBase,
    root: Path,
) -> PreTrainedModel | str:
    """Return the teacher: the path of a finished one, or a model that is trained here once and kept."""
    source = recipe.teacher_model_name_or_path
    if source and not recipe.finetune_teacher:
        return source
    # What it was trained on names its folder: other settings make another teacher, and none is ever written over.
    asked = {
        "rows": hashlib.sha256(repr([splits["train"][c][:] for c in ("input_ids", "label")]).encode()).hexdigest(),
        "vocabulary": len(tokenizer),
        **{name: value for name, value in asdict(recipe).items() if name.startswith(("teacher", "finetune", "max"))},
        **{name: getattr(args, name) for name in ("seed", "per_device_train_batch_size", "bf16", "fp16", "max_steps")},
    }
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
    folder = root / f"_teacher-{key}"
    if (folder / "trained_with.json").is_file():
        say(args, f"using the teacher kept at {folder}")
        return kept_teacher(folder)
    say(args, f"training the teacher, once: it is kept at {folder}")
    set_seed(args.seed)
    if source:
        config = labelled(AutoConfig.from_pretrained(source), splits)
        model = AutoModelForSequenceClassification.from_pretrained(source, config=config)
    else:
        empty = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=max(64, recipe.max_length))
        config = labelled(shaped(empty, recipe.teacher_layers, recipe.teacher_hidden_size), splits)
        model = AutoModelForSequenceClassification.from_config(config)
    changes = {"learning_rate": recipe.teacher_learning_rate, "num_train_epochs": recipe.teacher_epochs}
    trainer = make_trainer(model, settings(args, "", output_dir=str(folder), **changes), splits, tokenizer)
    train(trainer)
    trainer.save_model()
    if trainer.is_world_process_zero():
        (folder / "trained_with.json").write_text(json.dumps(asked, indent=2) + "\n", encoding="utf-8")
    trainer.accelerator.wait_for_everyone()
    return kept_teacher(folder)  # the one that was trained may be sharded, and wrapped for training


def kept_teacher(folder: Path) -> PreTrainedModel:
    """Load a teacher that was trained here."""
    kept = AutoModelForSequenceClassification.from_pretrained(folder)
    kept.config._name_or_path = ""  # on a card, its class says more than a folder's name
    return kept


def make_student(
    recipe: RecipeArguments, args: RecipeTrainingArguments, teacher: PreTrainedModel | str, splits: DatasetDict
) -> PreTrainedModel:
    """Make the student: a checkpoint, some of the teacher's layers, or a new model of the teacher's kind."""
    set_seed(args.seed)  # alone and distilled start from the same weights
    if recipe.student_model_name_or_path:
        config = labelled(AutoConfig.from_pretrained(recipe.student_model_name_or_path), splits)
        student = AutoModelForSequenceClassification.from_pretrained(recipe.student_model_name_or_path, config=config)
    elif recipe.student_from_teacher:
        if isinstance(teacher, str):
            teacher = AutoModelForSequenceClassification.from_pretrained(teacher)
        student = keep_layers(teacher, recipe.student_layers, recipe.student_preset)
        labelled(student.config, splits)
    else:
        config = AutoConfig.from_pretrained(teacher) if isinstance(teacher, str) else teacher.config
        config = labelled(shaped(config, recipe.student_layers, recipe.student_hidden_size), splits)
        student = AutoModelForSequenceClassification.from_config(config)
    if recipe.lora_rank:
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(
            task_type="SEQ_CLS", r=recipe.lora_rank, lora_alpha=2 * recipe.lora_rank, target_modules="all-linear"
        )
        student = get_peft_model(student, lora)
    return student


def make_trainer(
    model: PreTrainedModel,
    args: RecipeTrainingArguments,
    splits: DatasetDict,
    tokenizer: PreTrainedTokenizerBase,
    teacher: PreTrainedModel | str | None = None,
) -> DistillationTrainer:
    """Make the trainer of a model, with or without a teacher; it is the same."""
    metric = ClassificationMetric()
    return DistillationTrainer(
        model,
        replace(args),  # made anew: under DeepSpeed each Trainer of a process needs a configuration of its own
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        processing_class=tokenizer,
        compute_metrics=lambda p: metric.compute(predictions=p.predictions.argmax(-1), references=p.label_ids),
        teacher_model=teacher,
    )


def train(trainer: DistillationTrainer, resume: str | None = None) -> None:
    """Train, from the same random state whatever was done before, or go on from a checkpoint ("true": the last)."""
    set_seed(trainer.args.seed)
    trainer.train(resume_from_checkpoint=True if resume and resume.lower() == "true" else resume)


if __name__ == "__main__":
    try:
        main()
        PartialState().destroy_process_group()
    except (ValueError, ImportError) as error:
        sys.exit(f"error: {error}")
