"""An experiment: the teacher, the student alone, and the student under the teacher.

Knows: the order of these steps. Does not know: how a loss is computed, a model measured, or rows read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from time import time
from typing import Any

from datasets import Dataset, DatasetDict
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase, Trainer

from hf_distill import DistillationTrainer
from hf_distill.experiments.budgets import Budget
from hf_distill.experiments.comparison import compare, write
from hf_distill.experiments.gate import decide
from hf_distill.experiments.job import Job
from hf_distill.experiments.local_attention import attend_safely
from hf_distill.experiments.models import ModelArguments, ModelKind, make_student, untrained_teacher
from hf_distill.experiments.own_teacher import identity
from hf_distill.experiments.scoring import Scoring
from hf_distill.experiments.settings import RecipeTrainingArguments, arguments_for, say
from hf_distill.experiments.shrinking import NOTE, in_rounds
from hf_distill.experiments.steps import about, steps_of, train
from hf_distill.experiments.without_autocast import as_published
from hf_distill.hub.push import check_repository
from hf_distill.models.sharding import is_sharded
from hf_distill.objectives.presets import AUTO


@dataclass
class Experiment:
    """What the three models share.

    Args:
        recipe: which models.
        args: of the student's training.
        root: where a teacher that is trained here is kept.
        kind: what the models are for.
        splits: tokenised ``train``, ``validation`` and ``test`` rows.
        tokenizer: of all models; of those that read images their processor.
        scoring: how the models are measured on the test rows.
        options: further arguments of each trainer: ``data_collator``, ``compute_metrics``, ...
        language: its code, for the card.
        student_splits: the splits as the student under the teacher reads them; None: ``splits``.
        teacher_rows: what a teacher that is trained here learns from; None: ``train``.
        notes: what else goes into the report.
        trainer_class: of each trainer.
        rows_dir: where the training rows are written, and nothing is trained; None: the models are.
        made_by: the recipe and its arguments, for the report.
        job: how far the whole run is; None: nobody asks.
    """

    recipe: ModelArguments
    args: RecipeTrainingArguments
    root: Path
    kind: ModelKind
    splits: DatasetDict
    tokenizer: PreTrainedTokenizerBase
    scoring: Scoring
    options: Mapping[str, Any]
    language: str | None = None
    student_splits: DatasetDict | None = None
    teacher_rows: Dataset | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    trainer_class: type = DistillationTrainer
    rows_dir: str | None = None
    made_by: dict[str, Any] = field(default_factory=dict)
    job: Job | None = None

    @property
    def source(self) -> str:
        """How to name the data in a report."""
        return self.recipe.source

    @cached_property
    def budget(self) -> Budget | None:
        """How large the student may be, where a budget says so."""
        collator = self.options.get("data_collator") or DataCollatorWithPadding(self.tokenizer)
        return Budget.of(self.recipe, self.splits["train"], collator, self.args)

    def run(self, started: float) -> dict[str, Any] | None:
        """Make the three models, or write the rows; see ``distil``.

        Args:
            started: when the run began, as ``time.time()`` tells it.
        """
        if self.rows_dir:
            self.splits["train"].save_to_disk(self.rows_dir)
            return None
        return distil(self, started)

    def trainer(
        self,
        model: PreTrainedModel,
        args: RecipeTrainingArguments,
        teacher: PreTrainedModel | str | None = None,
        rows: Dataset | None = None,
    ) -> Trainer:
        """Make the trainer of a model, with or without a teacher; it is the same.

        Args:
            model: what it trains.
            args: how.
            teacher: a model or its path.
            rows: what it learns from, in the place of its split.
        """
        splits = self.splits if teacher is None else self.student_splits or self.splits
        attend_safely(args.device, model, teacher)
        made = self.trainer_class(
            model,
            replace(args),  # made anew: under DeepSpeed each Trainer of a process needs a configuration of its own
            train_dataset=splits["train"] if rows is None else rows,
            eval_dataset=splits["validation"],
            processing_class=self.tokenizer,
            teacher_model=teacher,
            **self.options,
        )
        return made if self.job is None else self.job.watch(made)

    def alone(self, teacher: PreTrainedModel | str, args: RecipeTrainingArguments) -> Trainer:
        """Make the trainer of the student without its teacher.

        Args:
            teacher: whose kind it is.
            args: how it is trained.
        """
        return self.trainer(self.student(teacher, args.seed), args)

    def arguments_alone(self, **changes: Any) -> RecipeTrainingArguments:
        """Return how the student is trained that is measured beside the distilled one.

        Args:
            **changes: what is otherwise than in the distilled one's arguments.
        """
        return arguments_for(self.args, "_alone", **changes)

    def distilled(self, teacher: PreTrainedModel | str, args: RecipeTrainingArguments) -> Trainer:
        """Make the trainer of the same student under its teacher.

        Args:
            teacher: a model or its path.
            args: how it is trained.
        """
        return self.trainer(self.student(teacher, args.seed), args, teacher)

    def student(self, teacher: PreTrainedModel | str, seed: int) -> PreTrainedModel:
        """Make the untrained student; see ``make_student``."""
        return make_student(self.recipe, self.kind, teacher, seed, self.budget)

    def parts(self) -> dict[str, float]:
        """Plan a run: each part and about how many steps it takes, the teacher's too."""
        args, read = self.args, self.splits["train"] if self.teacher_rows is None else self.teacher_rows
        steps = about(args, len((self.student_splits or self.splits)["train"]), args.num_train_epochs)
        return {
            "teacher": about(args, len(read), self.recipe.teacher_epochs),
            **dict.fromkeys(["distilled"] if self.recipe.skip_alone else ["distilled", "beside"], steps),
            "measuring": about(replace(args, max_steps=-1), len(self.splits["test"]), 1),  # three, without gradients
        }

    def begin(self, part: str, text: str) -> None:
        """Tell the user which part of the run comes now.

        Args:
            part: its name in ``parts``.
            text: what it is.
        """
        say(self.args, text if self.job is None else f"{self.job.begin(part)}: {text}")

    def finished(self, part: str) -> None:
        """Leave out a part of the run that was done before.

        Args:
            part: its name in ``parts``.
        """
        if self.job is not None:
            del self.job.parts[part]

    def learn(self, trainer: Trainer, resume: str | None = None) -> Trainer:
        """Train a student, in rounds if it is to shrink on the way.

        Args:
            trainer: as ``alone`` or ``distilled`` made it.
            resume: ``resume_from_checkpoint``, as the command line has it.

        Returns:
            The trainer of the student that came out: the same, or that of the last round.
        """
        if self.recipe.shrink_rounds > 1:
            trainer, self.notes["rounds"] = in_rounds(trainer, self.budget, self.kind, self.trainer, resume)
            self.notes.setdefault("note", NOTE.format(self.recipe.shrink_rounds))
        else:
            train(trainer, resume)
        return trainer


def distil(experiment: Experiment, started: float) -> dict[str, Any]:
    """Do the experiment: a table, ``report.json``, a picture and the card lie beside the student's weights afterwards.

    Args:
        experiment: all of it.
        started: when the run began, as ``time.time()`` tells it.

    Returns:
        What ``report.json`` holds.

    Raises:
        PushError: the student shall be pushed to where it cannot be; then nothing was trained.
        SystemExit: with code 3: the student is not what ``require`` and ``forbid_drop`` say; then it is not pushed.
        ValueError: an adapter shall be merged where each process has only a share of the student.
    """
    recipe, args = experiment.recipe, experiment.args
    check_repository(args)
    experiment.job = Job(experiment.parts())
    teacher = make_teacher(experiment)
    student = experiment.distilled(teacher, args)
    if recipe.merge_lora and (student.is_fsdp_enabled or is_sharded(student.teacher.model)):
        raise ValueError(
            "merge_lora was asked for under FSDP or ZeRO-3, which leave each process a share of the student: run "
            "without it, and merge the saved adapter afterwards (peft's merge_and_unload)."
        )
    experiment.begin("distilled", "training the student under the teacher")
    planned = steps_of(student)
    student = experiment.learn(student, args.resume_from_checkpoint)
    if recipe.merge_lora:
        student.model = student.model.merge_and_unload()
    student.save_model(_internal_call=True)
    trainers = {"distilled": student}
    if not recipe.skip_alone:
        # It cannot learn from a row without a label, so its epochs are shorter: it is given as many steps instead.
        steps = {"max_steps": planned} if "unlabeled" in experiment.splits else {}
        name = experiment.scoring.baseline
        text = f"training the {name}" + (", on the labelled rows, for as many steps" if steps else "")
        experiment.begin("beside", text)
        alone = experiment.learn(experiment.alone(teacher, experiment.arguments_alone(**steps)))
        alone.save_model()
        trainers = {name: alone, **trainers}
    report(experiment, trainers, started)
    decide(student.report, student.is_world_process_zero())
    if args.push_to_hub:
        student.push_to_hub()
    return student.report


def report(experiment: Experiment, trainers: Mapping[str, Trainer], started: float, card: bool = True) -> None:
    """Measure the models, and write what was found beside the distilled student.

    Args:
        experiment: all of it.
        trainers: of ``distilled`` and, if there is one, the student beside it before it (``Scoring.baseline``).
        started: when the run began.
        card: whether to write a model card too.
    """
    experiment.begin("measuring", "measuring")
    student, test = trainers["distilled"], experiment.splits["test"]
    with as_published(student, trainers) as models:
        measurements = experiment.scoring.measure(trainers, test, student)
        floor = experiment.scoring.floor(test, experiment.splits["train"])
        found = compare(measurements, models, test, student, experiment.scoring, floor)
    names = ("alpha", "temperature", "objective", "augmentation", "rollout", "reader", "learning_rate", "seed")
    settings = {name: getattr(experiment.args, name) for name in names}
    if settings["objective"] in (None, AUTO):
        settings["objective"] = student.distillation.objective.told  # what that was for these two models
    student.report = {
        "dataset": experiment.source,
        "language": experiment.language,
        **experiment.recipe.measured,
        "counted": experiment.scoring.counted(test),
        "each": experiment.scoring.each,
        "datasets": experiment.recipe.on_the_hub,
        **found,
        "rows": {name: len(rows) for name, rows in experiment.splits.items()},
        **experiment.notes,
        "settings": settings,
        "recipe": experiment.made_by,
        "seconds": round(time() - started, 1),
    }
    if student.is_world_process_zero():
        write(student, experiment.scoring, measurements, test, card)


def make_teacher(experiment: Experiment) -> PreTrainedModel | str:
    """Return the teacher: the path of a finished one, or a model that is trained here once and kept.

    Args:
        experiment: all that it may need.
    """
    recipe, args = experiment.recipe, experiment.args
    rows = experiment.splits["train"] if experiment.teacher_rows is None else experiment.teacher_rows
    if recipe.teacher_model_name_or_path and not recipe.finetune_teacher:
        experiment.finished("teacher")
        return recipe.teacher_model_name_or_path
    asked = identity(recipe, args, rows, experiment.tokenizer)
    key = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:8]
    folder = experiment.root / f"_teacher-{key}"
    experiment.notes["teacher_folder"] = folder.name  # in the report: whoever scores the student later finds it again
    if (folder / "trained_with.json").is_file():
        say(args, f"using the teacher kept at {folder}")
        experiment.finished("teacher")
        return experiment.kind.kept(folder)
    model = untrained_teacher(recipe, experiment.kind, experiment.tokenizer, args.seed)
    if experiment.budget is not None:
        experiment.budget.check(model)
    experiment.begin("teacher", f"training the teacher, once: it is kept at {folder}")
    changes = {"learning_rate": recipe.teacher_learning_rate, "num_train_epochs": recipe.teacher_epochs}
    changes["student_quantization"] = None
    trainer = experiment.trainer(model, arguments_for(args, "", output_dir=str(folder), **changes), rows=rows)
    train(trainer)
    trainer.save_model()
    if trainer.is_world_process_zero():
        (folder / "trained_with.json").write_text(json.dumps(asked, indent=2, default=str) + "\n", encoding="utf-8")
    trainer.accelerator.wait_for_everyone()
    return experiment.kind.kept(folder)  # the one that was trained may be sharded, and wrapped for training
