"""The job of a recipe with labels: the teacher, the student alone, and the student under the teacher.

Knows: the order of these steps. Does not know: how a loss is computed, a model measured, or rows read.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from comparison import Scoring, compare, taught, write
from datasets import DatasetDict
from recipe_run import RecipeTrainingArguments, say, settings
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from two_models import Kind, ModelArguments, make_student, untrained_teacher

from hf_distill import DistillationTrainer
from hf_distill.sharding import is_sharded, unsharded

READ = ("input_ids", "label", "labels", "start_positions", "end_positions")
"""The columns whose content makes a teacher that is trained on them another one."""


@dataclass
class Job:
    """What the three models share.

    Args:
        recipe: which models.
        args: of the student's training.
        root: where a teacher that is trained here is kept.
        kind: what the models are for.
        splits: tokenised ``train``, ``validation`` and ``test`` rows.
        tokenizer: of all models.
        collator: makes batches.
        scoring: how predictions of the test rows are measured.
        source: how to name the data.
        language: its code, for the card.
        heard: the splits as the student under the teacher hears them; None: ``splits``.
        noted: what else goes into the report.
    """

    recipe: ModelArguments
    args: RecipeTrainingArguments
    root: Path
    kind: Kind
    splits: DatasetDict
    tokenizer: PreTrainedTokenizerBase
    collator: Callable
    scoring: Scoring
    source: str
    language: str | None = None
    heard: DatasetDict | None = None
    noted: dict[str, Any] = field(default_factory=dict)

    def trainer(
        self,
        model: PreTrainedModel,
        args: RecipeTrainingArguments,
        splits: DatasetDict,
        teacher: PreTrainedModel | str | None = None,
    ) -> DistillationTrainer:
        """Make the trainer of a model, with or without a teacher; it is the same."""
        return DistillationTrainer(
            model,
            replace(args),  # made anew: under DeepSpeed each Trainer of a process needs a configuration of its own
            data_collator=self.collator,
            train_dataset=splits["train"],
            eval_dataset=splits["validation"],
            processing_class=self.tokenizer,
            compute_metrics=self.scoring.on_the_way,
            teacher_model=teacher,
        )

    def student(self, teacher: PreTrainedModel | str) -> PreTrainedModel:
        """Make the student, always the same."""
        return make_student(self.recipe, self.kind, teacher, self.args.seed)


def distil(job: Job, started: float) -> dict[str, Any]:
    """Do the job: a table, ``report.json``, a picture and the card lie beside the student's weights afterwards.

    Args:
        job: all of it.
        started: when the run began, as ``time.time()`` tells it.

    Returns:
        What ``report.json`` holds.

    Raises:
        ValueError: an adapter shall be merged where each process has only a share of the student.
    """
    recipe, args, splits, heard = job.recipe, job.args, job.splits, job.heard or job.splits
    teacher = make_teacher(job)
    student = job.trainer(job.student(teacher), args, heard, teacher)
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
        alone = job.trainer(job.student(teacher), settings(args, "_alone", **steps), splits)
        train(alone)
        alone.save_model()
        shown["student alone"], models["student alone"] = alone.predict(splits["test"]), unsharded(alone.model)

    say(args, "measuring")
    order = [name for name in ("teacher", "student alone", "distilled") if name in shown]
    student.report = {
        "dataset": job.source,
        "language": job.language,
        **compare({name: (shown[name], models[name]) for name in order}, splits["test"], student, job.scoring),
        "rows": {name: len(rows) for name, rows in splits.items()},
        **job.noted,
        "settings": {n: getattr(args, n) for n in ("alpha", "temperature", "objective", "augmentation", "seed")},
        "seconds": round(time.time() - started, 1),
    }
    if student.is_world_process_zero():
        write(student, job.scoring)
    if args.push_to_hub:
        student.push_to_hub()
    return student.report


def make_teacher(job: Job) -> PreTrainedModel | str:
    """Return the teacher: the path of a finished one, or a model that is trained here once and kept.

    Args:
        job: all that it may need.
    """
    recipe, args, rows = job.recipe, job.args, job.splits["train"]
    if recipe.teacher_model_name_or_path and not recipe.finetune_teacher:
        return recipe.teacher_model_name_or_path
    # What it was trained on names its folder: other settings make another teacher, and none is ever written over.
    read = [rows[column][:] for column in READ if column in rows.column_names]
    asked = {
        "rows": hashlib.sha256(repr(read).encode()).hexdigest(),
        "vocabulary": len(job.tokenizer),
        **{name: value for name, value in asdict(recipe).items() if name.startswith(("teacher", "finetune", "max"))},
        **{name: getattr(args, name) for name in ("seed", "per_device_train_batch_size", "bf16", "fp16", "max_steps")},
    }
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
    folder = job.root / f"_teacher-{key}"
    if (folder / "trained_with.json").is_file():
        say(args, f"using the teacher kept at {folder}")
        return job.kind.kept(folder)
    say(args, f"training the teacher, once: it is kept at {folder}")
    model = untrained_teacher(recipe, job.kind, job.tokenizer, args.seed)
    changes = {"learning_rate": recipe.teacher_learning_rate, "num_train_epochs": recipe.teacher_epochs}
    trainer = job.trainer(model, settings(args, "", output_dir=str(folder), **changes), job.splits)
    train(trainer)
    trainer.save_model()
    if trainer.is_world_process_zero():
        (folder / "trained_with.json").write_text(json.dumps(asked, indent=2) + "\n", encoding="utf-8")
    trainer.accelerator.wait_for_everyone()
    return job.kind.kept(folder)  # the one that was trained may be sharded, and wrapped for training


def train(trainer: DistillationTrainer, resume: str | None = None) -> None:
    """Train, from the same random state whatever was done before, or go on from a checkpoint ("true": the last)."""
    set_seed(trainer.args.seed)
    trainer.train(resume_from_checkpoint=True if resume and resume.lower() == "true" else resume)
