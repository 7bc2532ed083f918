"""What recipes of models that write share: a teacher that is kept, the student twice, the report.

Knows: the order of these steps. Does not know: what a row is made of, which task it is, how it is scored.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset
from generation_data import GenerationArguments
from recipe_run import next_run, say, settings
from three_models import train
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainingArguments, set_seed

from hf_distill.preflight import check_output_dir
from hf_distill.reports import gap_closed, markdown_table, plot_comparison, size_of, throughput
from hf_distill.students import fresh_student, keep_layers


@dataclass(frozen=True)
class Bench:
    """What the steps of one run need; ``make`` builds the trainer of a model, with or without a teacher.

    Args:
        recipe: the run's own arguments.
        args: Trainer's.
        root: the folder in which the teacher is kept, for the next run too.
        auto: the transformers class that loads a model of the task.
        make: ``(model, arguments, teacher) -> Trainer``.
        decoder_layers: of an encoder-decoder student of its teacher's layers; None: as many as its encoder has.
    """

    recipe: GenerationArguments
    args: TrainingArguments
    root: Path
    auto: type
    make: Callable[[PreTrainedModel, TrainingArguments, Any], Trainer]
    decoder_layers: int | None = None


def begin(recipe: GenerationArguments, args: TrainingArguments, root: Path) -> Path:
    """Name the run's folder, refuse one that is taken, and set the threads.

    Args:
        recipe: the run's own arguments.
        args: Trainer's.
        root: the recipe's default folder: its runs are numbered.

    Returns:
        Where the teacher is kept.
    """
    asked = Path(args.output_dir)
    if asked == root:
        args.output_dir = str(next_run(root))
    check_output_dir(args.output_dir, args.resume_from_checkpoint)
    if args.device.type == "cpu":  # accelerate launch gives a process one thread, which leaves cores idle
        torch.set_num_threads(recipe.num_threads or max(1, (os.cpu_count() or 1) // args.world_size))
    return asked


def make_teacher(bench: Bench, train_rows: Dataset, blank: Callable[[], PreTrainedModel]) -> PreTrainedModel | str:
    """Return the teacher: the path of a finished one, or a model that is trained here once and kept.

    Args:
        bench: the run.
        train_rows: tokenised; what a teacher was trained on names its folder, so none is ever written over.
        blank: makes the untrained teacher.
    """
    recipe, args = bench.recipe, bench.args
    if recipe.teacher_model_name_or_path:
        return recipe.teacher_model_name_or_path
    columns = [train_rows[name][:] for name in ("input_ids", "labels")]
    asked = {
        "rows": hashlib.sha256(repr(columns).encode()).hexdigest(),
        **{name: value for name, value in asdict(recipe).items() if name.startswith("teacher")},
        **{name: getattr(args, name) for name in ("seed", "per_device_train_batch_size", "bf16", "fp16", "max_steps")},
    }
    folder = bench.root / f"_teacher-{hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]}"
    if (folder / "trained_with.json").is_file():
        say(args, f"using the teacher kept at {folder}")
    else:
        say(args, f"training the teacher, once: it is kept at {folder}")
        set_seed(args.seed)
        changes = {"learning_rate": recipe.teacher_learning_rate, "num_train_epochs": recipe.teacher_epochs}
        trainer = bench.make(blank(), settings(args, "", output_dir=str(folder), rollout=None, **changes), None)
        train(trainer)
        trainer.save_model()
        if trainer.is_world_process_zero():
            (folder / "trained_with.json").write_text(json.dumps(asked, indent=2) + "\n", encoding="utf-8")
        trainer.accelerator.wait_for_everyone()
    kept = bench.auto.from_pretrained(folder)
    kept.config._name_or_path = ""  # on a card, its class says more than a folder's name
    return kept


def make_student(bench: Bench, teacher: PreTrainedModel | str) -> PreTrainedModel:
    """Make the student: a checkpoint, some of the teacher's layers, or a random model of the teacher's kind.

    Args:
        bench: the run.
        teacher: a model or its path.
    """
    recipe = bench.recipe
    set_seed(bench.args.seed)  # alone and distilled start from the same weights
    if recipe.student_model_name_or_path:
        # In float32, whatever it was saved in: an optimizer's small steps are lost in bfloat16 weights.
        return bench.auto.from_pretrained(recipe.student_model_name_or_path, dtype=torch.float32)
    whole = bench.auto.from_pretrained(teacher) if isinstance(teacher, str) else teacher
    if recipe.student_from_teacher:
        return keep_layers(whole, recipe.student_layers, decoder_layers=bench.decoder_layers)
    sizes = {"hidden_size": recipe.student_hidden_size, "num_hidden_layers": recipe.student_layers}
    config = fresh_student(whole, **sizes).config
    del config.distillation  # only the sizes are taken over: the student alone must owe its teacher nothing
    set_seed(bench.args.seed)
    return bench.auto.from_config(config)


def teach(bench: Bench, teacher: PreTrainedModel | str) -> dict[str, Trainer]:
    """Train the student under its teacher and save it, then the same student alone.

    Args:
        bench: the run.
        teacher: a model or its path.

    Returns:
        The trainers of ``student alone``, unless it was left out, and of ``distilled``.
    """
    args = bench.args
    distilled, found = bench.make(make_student(bench, teacher), args, teacher), {}
    say(args, "training the student under the teacher")
    train(distilled, args.resume_from_checkpoint)
    distilled.save_model(_internal_call=True)
    if not bench.recipe.skip_alone:
        say(args, "training the student alone")
        alone = bench.make(make_student(bench, teacher), settings(args, "_alone", rollout=None), None)
        train(alone)
        alone.save_model()
        found["student alone"] = alone
    return {**found, "distilled": distilled}


def measured(name: str, model: PreTrainedModel, batches: Sequence[Mapping], each: Mapping, run: Any = None) -> dict:
    """Make a row of the report.

    Args:
        name: of the model.
        model: whole, where it is to be timed.
        batches: what it is timed on, the same for every model.
        each: score -> its value for each test row, [N]; the row gets their means and the standard errors.
        run: what is timed of the model, a module around it; None: its forward.
    """
    parameters, megabytes = size_of(model)
    return {
        "name": name,
        **{key: float(np.mean(one)) for key, one in each.items()},
        **{f"{key}_error": float(np.std(one) / np.sqrt(len(one))) for key, one in each.items()},
        "parameters": parameters,
        "megabytes": megabytes,
        "samples_per_second": throughput(run or model, batches, repeats=1 if run else 3),
    }


class Writes(nn.Module):
    """A model whose forward is to write: what is timed of it."""

    def __init__(self, model: PreTrainedModel, longest: int) -> None:
        super().__init__()
        self.model, self.longest = model, longest

    def forward(self, **batch: Any) -> Any:
        """Write a text for each row, greedily."""
        return self.model.generate(**batch, max_length=self.longest, do_sample=False, num_beams=1)


def speed_batches(trainer: Trainer, test: Dataset, rows: int, size: int = 64) -> list[dict[str, Any]]:
    """Collate the first test rows into batches, without labels: every model is timed on the same.

    Args:
        trainer: whose collator is used.
        test: tokenised rows.
        rows: how many.
        size: of a batch.
    """
    some = test.select(range(min(rows, len(test)))).remove_columns("labels").to_list()
    batches = (dict(trainer.data_collator(some[i : i + size])) for i in range(0, len(some), size))
    return [{name: value for name, value in batch.items() if name != "labels"} for batch in batches]


def gained(scores: dict[str, Sequence[float]]) -> dict[str, Any]:
    """Say what the teacher gave.

    Args:
        scores: for each model a score of each test row, higher is better.

    Returns:
        ``gap`` and its ``summary``.
    """
    if "student alone" not in scores:
        return {"gap": None, "summary": "the student was not trained alone: the gain is not known"}
    gap = gap_closed(scores["student alone"], scores["distilled"], scores["teacher"])
    return {"gap": asdict(gap), "summary": str(gap)}


def write(student: Trainer, found: dict[str, Any], columns: dict[str, Callable], score: tuple[str, str]) -> None:
    """Write ``report.json``, its picture and the card beside the student's weights, and show the table.

    Args:
        student: the distilled student's trainer.
        found: the report.
        columns: header -> how a row of ``models`` is shown under it.
        score: the key of the score that the picture shows, from 0 to 1, and what it is called.
    """
    folder, device, threads = Path(student.args.output_dir), student.args.device.type, torch.get_num_threads()
    found["machine"] = f"{platform.machine()}, {device}, {threads} thread{'s' if threads > 1 else ''}"
    found["versions"] = {"transformers": transformers.__version__, "torch": torch.__version__}
    student.report = found
    (folder / "report.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    plot_comparison(found["models"], folder / "report.png", f"{found['dataset']}: did the teacher help?", *score)
    found["table"] = markdown_table(
        list(columns), [[show(row) for show in columns.values()] for row in found["models"]]
    )
    name = folder.parent.name if folder.name.startswith("run-") else folder.name
    student.create_model_card(model_name=name)
    print(f"\n{found['table']}\n\n{found['summary']}\n{found['seconds']:.0f} s in all; everything is in {folder}")
