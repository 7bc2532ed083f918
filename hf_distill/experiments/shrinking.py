"""A student that shrinks while it learns: in each round it is cut from the one before, and goes on with its teacher.

Knows: how the steps of a training are divided, what one round leaves to the next. Does not know: how a model is cut,
how a loss is computed, what is measured.

Each round is a training of its own, as in Minitron: its learning rate rises and falls anew, and so do the weights of
terms that have a schedule. The steps of all rounds are together those of a plain run, and the rows come in its order
where a round is whole epochs. The answers of the teacher are kept from round to round.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, Trainer

from hf_distill.experiments.budgets import Budget
from hf_distill.experiments.models import ModelKind
from hf_distill.experiments.settings import ROUND, ROUND_DONE, say
from hf_distill.experiments.steps import steps_of, steps_of_epoch, train
from hf_distill.training.checkpoint import last_whole_checkpoint

NOTE = (
    '"Student alone" is the same student, cut in the same {} rounds, trained for the same steps without the teacher; '
    "the settings below are those of the last round."
)


def in_rounds(
    plain: Trainer, budget: Budget, kind: ModelKind, make: Callable[..., Trainer], resume: str | None = None
) -> tuple[Trainer, list[dict[str, Any]]]:
    """Train a student in rounds, before each of which it is cut; those before the last are kept in ``_round-1``, ...

    Args:
        plain: the trainer of one round, which is not trained: its arguments, its rows and its teacher are those of
            all rounds.
        budget: how large the student may be in each.
        kind: loads the student of the round before.
        make: makes a trainer, of a model, arguments and a teacher, which is None without one.
        resume: "true": rounds that were finished are not trained again, and the next goes on from its last
            checkpoint. None: all are trained.

    Returns:
        The trainer of the last round, with the log of all of them; and of each round its ``steps`` and how many
        ``parameters`` the student had.

    Raises:
        ValueError: there are fewer steps than rounds, or what is to go on was asked for otherwise.

    Reference:
        Muralidharan et al.: Compact Language Models via Pruning and Knowledge Distillation (Minitron),
        arXiv:2407.14679, section 3 (iterative pruning and distillation).
    """
    args, rounds, total = plain.args, budget.rounds, steps_of(plain)
    if total < rounds:
        raise ValueError(f"shrink_rounds={rounds} was given for {total} steps: give each round a step at least.")
    each = steps_of_epoch(plain)
    if plain.teacher is not None:
        plain.teacher.expect(math.ceil(total / each))
    if not resume and plain.is_world_process_zero():
        for folder in Path(args.output_dir).glob(f"{ROUND}*"):  # of a run that was stopped
            shutil.rmtree(folder)
    plain.accelerator.wait_for_everyone()
    ends = [round(total * number / rounds) for number in range(rounds + 1)]
    log, told, student = [], [], budget.first()
    for number, (before, end) in enumerate(pairwise(ends), start=1):
        if number > 1:
            student = budget.cut(_taken_up(kind, folder, number, args.device), number)
        one = {"round": number, "steps": end - before, "parameters": student.num_parameters()}
        kind.labelled(student.config)
        limit, shape = budget.way[number - 1]
        cut = f"{student.num_parameters():,} of at most {limit:,.0f} parameters ({shape})"
        say(args, f"round {number} of {rounds}, {end - before} steps: the student was cut to {cut}")
        folder = Path(args.output_dir) / (f"{ROUND}{number}" if number < rounds else "")
        if number < rounds and resume and (done := _done(folder, one)) is not None:
            log += done
            told.append(one)
            continue
        # Rows are shuffled by this seed and the epoch: the next ones, not those of the first round again.
        seed = (args.seed if args.data_seed is None else args.data_seed) + math.ceil(before / each)
        changes = {"max_steps": end - before, "data_seed": seed, "output_dir": str(folder)}
        if number < rounds:
            changes |= {"push_to_hub": False}
        trainer = make(student, replace(args, **changes), plain.teacher)
        train(trainer, str(found) if resume and (found := last_whole_checkpoint(folder)) else None)
        for entry in trainer.state.log_history:
            entry["step"] += before
            if "epoch" in entry:
                entry["epoch"] += before / each
        log += trainer.state.log_history
        told.append(one)
        if number < rounds:
            _leave(trainer, folder, one)
    trainer.state.log_history = log
    return trainer, told


def _taken_up(kind: ModelKind, folder: Path, number: int, device: Any) -> PreTrainedModel:
    """The student of the round before, as it was saved: without what was around it, the same on each process."""
    model = kind.kept(folder)
    model.config._name_or_path = f"the student of round {number - 1}"  # how `lineage` names what was cut
    return model.to(device)


def _leave(trainer: Trainer, folder: Path, one: dict[str, Any]) -> None:
    """Save what the next round starts from, and its mark; then the checkpoints are not needed any more."""
    trainer.save_model(str(folder), _internal_call=True)
    if trainer.is_world_process_zero():
        text, mark = json.dumps({**one, "log": trainer.state.log_history}, indent=2), folder / ROUND_DONE
        (half := mark.with_suffix(".part")).write_text(f"{text}\n", encoding="utf-8")
        half.replace(mark)  # whole, or not there
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    trainer.accelerator.wait_for_everyone()


def _done(folder: Path, one: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The log of a round that was finished; None: it was not."""
    if not (folder / ROUND_DONE).is_file():
        return None
    found = json.loads((folder / ROUND_DONE).read_text(encoding="utf-8"))
    log = found.pop("log")
    if found != one:
        raise ValueError(
            f"{folder} holds a round of {found['steps']} steps with {found['parameters']:,} parameters, and one of "
            f"{one['steps']} with {one['parameters']:,} was asked for: go on with the settings of that run."
        )
    return log
