"""Distil a Chinese BERT classifier, and prove what the teacher gave.

    accelerate launch recipes/bert_chinese.py                                   # the whole job on embedded data
    accelerate launch recipes/bert_chinese.py --train_file my.jsonl --teacher_model_name_or_path my/teacher
    accelerate launch recipes/bert_chinese.py recipes/bert_chinese.yaml --hub_model_id me/student

It trains a teacher (or takes one), the student alone, and the same student under the teacher; then it writes a table,
``report.json``, a picture and the model card beside the student's weights.

Knows: the order of these steps. Does not know: how a loss is computed, which is ``hf_distill``'s business.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from chinese_words import character_tokenizer
from datasets import DatasetDict
from text_data import TextDataArguments, load_text
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
from transformers.trainer_utils import get_last_checkpoint

from hf_distill import DistillationTrainer, DistillationTrainingArguments
from hf_distill.arguments import parse_arguments
from hf_distill.preflight import check_output_dir
from hf_distill.reports import (
    ClassificationMetric,
    agreement,
    gap_closed,
    markdown_table,
    plot_comparison,
    size_of,
    throughput,
)
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
        default=False, metadata={"help": "Copy the student's layers from the teacher, evenly spread; same width."}
    )
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
        splits = load_text(recipe, args.seed)
    say(args, f"{recipe.source}: {', '.join(f'{len(rows):,} {name}' for name, rows in splits.items())} rows")

    source = recipe.teacher_model_name_or_path
    columns = [recipe.text_column, *([recipe.text_pair_column] if recipe.text_pair_column else [])]
    if source:
        tokenizer = AutoTokenizer.from_pretrained(source)
    else:
        tokenizer = character_tokenizer([text for column in columns for text in splits["train"][column]])
    with args.main_process_first(desc="tokenising"):
        splits = tokenised(splits, columns, tokenizer, recipe.max_length)
    teacher = make_teacher(recipe, args, splits, tokenizer, root)

    alone = None
    if not recipe.skip_alone:
        say(args, "training the student alone")
        alone = fitted(make_student(recipe, args, teacher, splits), settings(args, "_alone"), splits, tokenizer)
        alone.save_model()
    say(args, "training the student under the teacher")
    student = fitted(
        make_student(recipe, args, teacher, splits), args, splits, tokenizer, teacher, args.resume_from_checkpoint
    )
    if recipe.merge_lora:
        student.model = student.model.merge_and_unload()
    student.save_model(_internal_call=True)

    student.report = report(recipe, student, alone, teacher, splits, tokenizer, started)
    if student.is_world_process_zero():
        write(student)
    if args.push_to_hub:
        student.push_to_hub()
    return student.report


def next_run(root: Path) -> Path:
    """Name the first folder ``root/run-N`` that is not there yet, so that no run writes over another."""
    return next(folder for n in range(1, 10**6) if not (folder := root / f"run-{n}").exists())


def say(args: transformers.TrainingArguments, text: str) -> None:
    """Tell the user what comes now, once, not once a process."""
    if args.process_index == 0:
        print(f"\n=== {text}", flush=True)


def settings(args: RecipeTrainingArguments, folder: str, **changes: Any) -> RecipeTrainingArguments:
    """Return the run's arguments for a model beside the student: without a teacher, checkpoints or the Hub."""
    other = copy.copy(args)
    changes = {"alpha": 0.0, "save_strategy": "no", "push_to_hub": False, "load_best_model_at_end": False} | changes
    for name, value in ({"output_dir": str(Path(args.output_dir) / folder)} | changes).items():
        setattr(other, name, value)
    return other


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
        return AutoModelForSequenceClassification.from_pretrained(folder)
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
    trainer = fitted(model, settings(args, "", output_dir=str(folder), **changes), splits, tokenizer)
    trainer.save_model()
    if trainer.is_world_process_zero():
        (folder / "trained_with.json").write_text(json.dumps(asked, indent=2) + "\n", encoding="utf-8")
    return trainer.model


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
        student = keep_layers(teacher, recipe.student_layers)
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


def fitted(
    model: PreTrainedModel,
    args: RecipeTrainingArguments,
    splits: DatasetDict,
    tokenizer: PreTrainedTokenizerBase,
    teacher: PreTrainedModel | str | None = None,
    resume: str | None = None,
) -> DistillationTrainer:
    """Train a model, with or without a teacher; the trainer is the same."""
    metric = ClassificationMetric()
    trainer = DistillationTrainer(
        model,
        args,
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        processing_class=tokenizer,
        compute_metrics=lambda p: metric.compute(predictions=p.predictions.argmax(-1), references=p.label_ids),
        teacher_model=teacher,
    )
    if resume and resume.lower() == "true":
        resume = get_last_checkpoint(args.output_dir)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def report(
    recipe: RecipeArguments,
    student: DistillationTrainer,
    alone: DistillationTrainer | None,
    teacher: PreTrainedModel | str,
    splits: DatasetDict,
    tokenizer: PreTrainedTokenizerBase,
    started: float,
) -> dict[str, Any]:
    """Measure the three models on the test rows: quality, agreement with the teacher, size, speed, gap closed."""
    say(student.args, "measuring")
    args = settings(student.args, "_teacher", report_to=[])
    judge = DistillationTrainer(student.teacher.model, args, data_collator=student.data_collator)
    trainers = {"teacher": judge, **({"student alone": alone} if alone else {}), "distilled": student}
    shown = {name: trainer.predict(splits["test"]) for name, trainer in trainers.items()}
    labels, metric = shown["distilled"].label_ids, ClassificationMetric()
    right = {name: (p.predictions.argmax(-1) == labels).astype(float) for name, p in shown.items()}
    sample = splits["test"].select(range(min(2048, len(splits["test"])))).remove_columns("label")
    starts = range(0, len(sample), 64)
    chunks = [sample.select(range(start, min(start + 64, len(sample)))) for start in starts]
    batches = [dict(student.data_collator(chunk.to_list())) for chunk in chunks]
    models = []
    for name, trainer in trainers.items():
        parameters, megabytes = size_of(trainer.model)
        models.append(
            {
                "name": name,
                **metric.compute(predictions=shown[name].predictions.argmax(-1), references=labels),
                "accuracy_error": float(right[name].std() / np.sqrt(len(labels))),
                "agreement": agreement(shown[name].predictions, shown["teacher"].predictions),
                "parameters": parameters,
                "megabytes": megabytes,
                "samples_per_second": throughput(trainer.model, batches),
            }
        )
    gap = gap_closed(right["student alone"], right["distilled"], right["teacher"]) if alone else None
    return {
        "dataset": recipe.source,
        "language": "zh",
        "rows": {name: len(rows) for name, rows in splits.items()},
        "models": models,
        "gap": asdict(gap) if gap else None,
        "summary": str(gap)
        if gap
        else "the student was not trained alone, so nothing is said of what the teacher gave",
        "settings": {name: getattr(student.args, name) for name in ("alpha", "temperature", "objective", "seed")},
        "machine": f"{platform.machine()}, {student.args.device.type}, {torch.get_num_threads()} threads",
        "versions": {m.__name__: m.__version__ for m in (transformers, torch)} | {"python": platform.python_version()},
        "seconds": round(time.time() - started, 1),
    }


def table(models: list[dict[str, Any]]) -> str:
    """Lay out the models' figures for a person."""
    header = ["model", "accuracy %", "macro F1 %", "agrees with teacher %", "parameters", "MB", "samples/s"]
    rows = [
        [
            row["name"],
            f"{100 * row['accuracy']:.1f} ± {100 * row['accuracy_error']:.1f}",
            f"{100 * row['macro_f1']:.1f}",
            f"{100 * row['agreement']:.1f}",
            f"{row['parameters']:,}",
            f"{row['megabytes']:.1f}",
            f"{row['samples_per_second']:,.0f}",
        ]
        for row in models
    ]
    return markdown_table(header, rows)


def write(student: DistillationTrainer) -> None:
    """Write ``report.json``, its picture and the card beside the weights, and show the table."""
    folder, found = Path(student.args.output_dir), student.report
    (folder / "report.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    plot_comparison(found["models"], folder / "report.png", f"{found['dataset']}: did the teacher help?")
    found["table"] = table(found["models"])
    student.create_model_card(language=found["language"], tasks=None)
    print(f"\n{found['table']}\n\n{found['summary']}\n{found['seconds']:.0f} s in all; everything is in {folder}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, ImportError) as error:
        sys.exit(f"error: {error}")
