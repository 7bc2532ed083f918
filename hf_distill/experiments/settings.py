"""How a run begins: its settings, its folder, its threads, what it says on the way.

Knows: arguments and folders. Does not know: models, data, what is trained.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from hf_distill import DistillationTrainingArguments
from hf_distill.experiments.budgets import check_rounds
from hf_distill.experiments.parsing import parse_arguments
from hf_distill.hub.words import check_languages
from hf_distill.reports.verdict import NoDrop, Requirement
from hf_distill.training.checkpoint import is_whole, last_whole_checkpoint
from hf_distill.training.checks import check_output_dir

ON_CPU = not torch.accelerator.is_available()
# A CPU with bfloat16 units (AVX512_BF16, AMX) trains this in two thirds of the time; others would emulate it, slowly.
CUDA_BF16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
BF16_UNITS = ("avx512_bf16", "amx_bf16") if hasattr(torch.cpu, "get_capabilities") else ()
LOGS, EVALUATIONS = 40, 10
"""How often a run is logged, and evaluated where that is asked for in steps: of few rows there are few steps."""
SIZES = (
    "teacher_layers", "teacher_hidden_size", "student_layers", "student_hidden_size", "student_decoder_layers",
    "max_length", "max_source_length", "max_target_length", "num_threads",
)  # fmt: skip
ROUND, ROUND_DONE = "_round-", "round.json"
"""Where the student of a round before the last is kept, by its number, and what says there that it was finished."""
READING = ("reader", "reads_teacher")
TAUGHT = ("augmentation", "rollout", *READING)
"""Arguments that a student without a teacher is trained without."""
FAST_BF16 = any(torch.cpu.get_capabilities().get(unit) for unit in BF16_UNITS) if ON_CPU else CUDA_BF16


@dataclass
class RecipeTrainingArguments(DistillationTrainingArguments):
    """What the recipes' defaults have in common; every field of TrainingArguments can be set."""

    alpha: float | None = 0.9
    temperature: float = 2.0
    objective: dict | str | None = "auto"
    per_device_train_batch_size: int = 128
    per_device_eval_batch_size: int = 512
    learning_rate: float = 2e-3
    num_train_epochs: float = 2.0
    warmup_steps: float = 0.1
    logging_steps: float = 1 / LOGS
    use_cpu: bool = ON_CPU
    bf16: bool = FAST_BF16
    dataloader_pin_memory: bool = not ON_CPU
    save_strategy: str = "epoch"
    save_total_limit: int | None = 1
    require: list[str] = field(
        default_factory=list,
        metadata={
            "help": "What the student must be: gap_closed>=0.5, accuracy>=0.97*teacher, latency<=0.5*teacher. Where "
            "it is not, it is not pushed, and the command ends with exit code 3."
        },
    )
    forbid_drop: list[str] = field(
        default_factory=list,
        metadata={"help": "Classes, and how many points of F1 each may be behind the teacher: spam:2 ham:1."},
    )
    quick: bool = field(
        default=False,
        metadata={
            "help": "Take a tenth of all rows, to see in a minute that everything runs. It proves nothing, and the "
            "verdict says so."
        },
    )
    hub_samples: bool = field(
        default=False,
        metadata={
            "help": "Let the page of the report, which shows test rows, go to the Hub with the student: it is "
            "report.html then. Default: it is _report.html, which stays."
        },
    )

    def __post_init__(self) -> None:
        """Evaluate ten times where steps were asked for and not how many, or wherever a best model is kept."""
        if self.eval_strategy == "steps" and not self.eval_steps:
            kept = self.load_best_model_at_end and self.save_strategy == "steps"
            self.eval_steps = self.save_steps if kept else 1 / EVALUATIONS
        super().__post_init__()

    @property
    def required(self) -> list[Requirement | NoDrop]:
        """What the student must be to be released, as it was asked for.

        Raises:
            ValueError: what was asked for cannot be read.
        """
        return [*map(Requirement.parse, self.require), *map(NoDrop.parse, self.forbid_drop)]


def begin(types: Sequence[type], argv: Sequence[str] | None, default: Path) -> tuple[Any, Any, Path]:
    """Read the settings, choose the run's folder and threads, before any row is read.

    Args:
        types: the recipe's own arguments, and Trainer's.
        argv: flags, or a YAML or JSON file with flags that override it; None takes the command line.
        default: the recipe's own folder, named as the recipe.

    Returns:
        The recipe's arguments; Trainer's, with ``output_dir`` as ``default/run-N`` where the user named none; and
        where a teacher is kept, for the next run too.

    Raises:
        ValueError: the file is another recipe's, settings contradict each other or cannot be, the folder holds a
            finished run, or there is no checkpoint to go on from.
    """
    recipe, args = parse_arguments(types, argv)
    recipe.quick = args.quick
    if recipe.recipe not in (None, default.name):
        raise ValueError(
            f"the settings are for the recipe {recipe.recipe}, and {default.name} was started: start "
            f"recipes/{recipe.recipe}.py with them."
        )
    _ = args.required  # read before anything is trained
    root = Path(args.output_dir)
    if root == default:
        args.output_dir = str(next_run(default))
    check_output_dir(args.output_dir, args.resume_from_checkpoint)
    check_resume(args.output_dir, args.resume_from_checkpoint, getattr(recipe, "shrink_rounds", 1))
    check_sizes(recipe)
    if getattr(recipe, "language", None):
        check_languages([recipe.language])
    if hasattr(recipe, "check"):
        recipe.check()
    check_rounds(recipe, args)
    if args.device.type == "cpu":  # accelerate launch gives a process one thread, which leaves cores idle
        asked = getattr(recipe, "num_threads", None)
        torch.set_num_threads(asked or max(1, (os.cpu_count() or 1) // args.world_size))
    return recipe, args, root


def check_resume(folder: str, resume: str | None, rounds: int = 1) -> None:
    """Refuse a checkpoint that is not there, before a teacher is trained for it.

    Args:
        folder: of the run.
        resume: ``resume_from_checkpoint`` as the command line has it, "true" for the last one.
        rounds: in so many the student shrinks; one that was finished is enough to go on from.

    Raises:
        ValueError: there is none, or it is not whole.
    """
    if not resume:
        return
    if resume.lower() == "true":
        before = Path(folder).glob(f"{ROUND}*") if rounds > 1 else ()
        whole = any((one / ROUND_DONE).is_file() or last_whole_checkpoint(one) for one in before)
        if last_whole_checkpoint(folder) is None and not whole:
            raise ValueError(
                f"No valid checkpoint found in output directory ({folder}): name the --output_dir of the run that is "
                "to go on, or start without --resume_from_checkpoint."
            )
    elif not is_whole(resume):
        last = last_whole_checkpoint(Path(resume).parent)
        raise ValueError(
            f"resume_from_checkpoint={resume} was given, which is no whole checkpoint: "
            + (f"resume from {last}, or start anew." if last else "name one, or start without it.")
        )


def check_sizes(recipe: Any) -> None:
    """Refuse sizes that no model has and no text is cut to.

    Args:
        recipe: the recipe's own arguments.

    Raises:
        ValueError: a size below 1.
    """
    for name in SIZES:
        if (size := getattr(recipe, name, None)) is not None and size < 1:
            raise ValueError(f"{name}={size} was given: give 1 or more, or leave it out.")


def next_run(root: Path) -> Path:
    """Name the first folder ``root/run-N`` that is not there yet, so that no run writes over another."""
    return next(folder for n in range(1, 10**6) if not (folder := root / f"run-{n}").exists())


def say(args: transformers.TrainingArguments, text: str) -> None:
    """Tell the user what comes now, once, not once a process."""
    if args.process_index == 0:
        print(f"\n=== {text}", flush=True)


def arguments_for(args: RecipeTrainingArguments, folder: str, **changes: Any) -> RecipeTrainingArguments:
    """Return the run's arguments for a model beside the student: without a teacher, checkpoints or the Hub."""
    plain = {"alpha": 0.0, "save_strategy": "no", "push_to_hub": False}
    plain |= dict.fromkeys(TAUGHT)
    changes = plain | changes
    changes.setdefault("load_best_model_at_end", False)
    return replace(args, **{"output_dir": str(Path(args.output_dir) / folder), **changes})
