"""What must hold before the first step: each function raises one sentence, or returns nothing.

Knows: folders, what terms need and teachers serve. Does not know: how any of them is computed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers import TrainingArguments

from hf_distill.cache.offline_teacher import AbsentTeacher
from hf_distill.models.denoisers import LENDING, LENT, class_in
from hf_distill.models.facts import Facts
from hf_distill.objectives import Objective
from hf_distill.signals import NUMBER, POINTER
from hf_distill.tasks import Task
from hf_distill.teachers import Teacher

logger = logging.getLogger(__name__)


def check_alone(args: TrainingArguments, objective: Any) -> None:
    """Refuse without a teacher what is learned of one; alpha=0 says that an objective is meant so.

    Args:
        args: the run's arguments; one that stands there may be meant for other runs, and is told.
        objective: the trainer's own, or None.

    Raises:
        ValueError: in one sentence, if there is one.
    """
    if objective is not None:
        raise ValueError(
            f"objective={objective!r} was given without a teacher to learn from: pass teacher_model=, or leave "
            "objective out."
        )
    if getattr(args, "alpha", None) is None and (asked := getattr(args, "objective", None)) is not None:
        logger.warning(
            "objective=%r stands in the arguments, but there is no teacher: this is plain training. Pass "
            "teacher_model=, or set alpha=0 to say so.",
            asked,
        )


def check_objective(objective: Objective, task: Task, teacher: Teacher) -> None:
    """Refuse terms that the task has no use for, or that the teacher cannot serve.

    Args:
        objective: what to learn from the teacher, at the run's temperature.
        task: how the models are read.
        teacher: who is asked; its ``temperature``, if it has one, is that of the few ids that it keeps.

    Raises:
        ValueError: in one sentence.
    """
    for name, term in objective.terms.items():
        by_position = term.needs - {"heads", "values", "vectors"}
        if by_position and not getattr(task.alignment, "same_positions", True):
            raise ValueError(
                f"{name} compares position with position ({', '.join(sorted(by_position))}), which two "
                "tokenizers do not have: use terms that compare logits."
            )
        for need, there in (("values", task.values), ("vectors", task.vectors)):
            if need in term.needs and (not there or term.of not in (None, *there)):
                asked, shown = need if term.of is None else f"the {need} {term.of!r}", ", ".join(there) or "none"
                raise ValueError(
                    f"{name} compares {asked}, of which {type(task).__name__} shows {shown}: "
                    f"{'name one of these' if there else 'use a term on heads or hidden states'}."
                )
        if "heads" in term.needs and not (term.compares_sorted or getattr(task.alignment, "same_classes", True)):
            raise ValueError(
                f"{name} compares class with class, which two vocabularies do not have under "
                'teacher_alignment="uld": use the objective uld, or teacher_alignment="span".'
            )
        if term.of_frames and not any(head.blank for head in task.heads):
            raise ValueError(
                f"{name} compares what frames say beside a blank (CTC), {type(task).__name__} has no such frames: use "
                "another term, such as forward_kl."
            )
        kinds = {head.kind for head in task.heads} - term.accepts if "heads" in term.needs else ()
        if NUMBER in kinds:
            raise ValueError(f"{name} compares distributions, the student's problem is regression: use logit_mse.")
        if "heads" in term.needs and not (task.supervises() and task.heads):
            raise ValueError(
                f"{name} compares logits, a model of {task.auto_class} has none: use a term on "
                f"{'values' if task.values else 'hidden states'}, such as {task.default_objective}."
            )
        if POINTER in kinds:
            raise ValueError(
                f"{name} gives every class the same weight, the classes of {type(task).__name__} are the positions of "
                "a text, of which padding is none: use forward_kl, or another term on probabilities."
            )
        if term.needs_raw_logits and name not in objective.teachers and teacher.averaged == "probabilities":
            raise ValueError(
                f"{name} compares raw logits, which the mean of several teachers' probabilities does not have: pass "
                'Several(teachers, combine="logits"), or let it listen to one of them.'
            )
    members = teacher.members
    for name, one in objective.teachers.items():
        if one not in members:
            there = f"the teachers are {', '.join(members)}" if members else f"{teacher.facts.name} is the only one"
            raise ValueError(
                f"{name} listens to the teacher {one!r}, but {there}: name one that is there, or leave the option out."
            )
        served = {need.partition("@")[0] for need in teacher.serves if need.partition("@")[2] == one}
        needed = task.asked(objective.terms[name].teacher_needs)
        if missing := sorted(need for need in needed if not is_served(need, served)):
            raise ValueError(
                f"{name} needs {missing} of the teacher {one!r}, which serves {sorted(served)} by itself: choose a "
                f"term that it can serve{'' if served else ', or leave choose out'}."
            )
    needed = task.asked(objective.teacher_needs)
    if missing := sorted(need for need in needed if not is_served(need, teacher.serves)):
        served = sorted(need for need in teacher.serves if "@" not in need)
        one = f', or let them listen to one with {{"teacher": "{next(iter(members))}"}}' if members else ""
        raise ValueError(
            f"the objective needs {missing}, the teacher {teacher.facts.name} serves {served}: choose terms that it "
            f"can serve{one}."
        )
    absent = [n for n, one in {**members, None: teacher}.items() if isinstance(one.uncached, AbsentTeacher)]
    for name, term in objective.terms.items():
        asked = any(need.endswith(f":{term.stream}") for need in term.teacher_needs)
        if asked and objective.teachers.get(name) in absent:
            raise ValueError(
                f"{name} compares the stream {term.stream}, of which a folder of answers holds nothing: pass the "
                "teacher too, or leave the option stream out."
            )
    if (temperature := teacher.temperature) is not None:
        for name, term in objective.terms.items():
            if name in objective.temperatures:
                raise ValueError(
                    f"a temperature of {objective.temperatures[name]} was given to {name}, the teacher's few ids were "
                    f"kept at {temperature:g} and hold for no other: set that one, or keep them anew."
                )
            term.check_few(temperature)


def is_served(need: str, serves: Iterable[str]) -> bool:
    """Say whether a teacher can show something: ``"tap"`` is at any path, ``"hidden"`` of any stream.

    Args:
        need: what is asked for.
        serves: what the teacher can show.
    """
    what, _, one = need.partition("@")
    return need in serves or "@".join(filter(None, (what.partition(":")[0], one))) in serves


def check_pair(task: Task, student: Facts, teacher: Teacher) -> None:
    """Refuse a teacher, or one of several, that cannot be compared with the student.

    Args:
        task: how the models are read.
        student: what is known of the student.
        teacher: the teacher, prepared.

    Raises:
        ValueError: in one sentence; see ``Task.check``.
    """
    for facts in named_facts(teacher).values() or [teacher.facts]:
        task.check(student, facts)
    for member in teacher.members.values():
        if named_facts(member):
            check_pair(task, student, member)


def named_facts(teacher: Teacher) -> dict[str, Facts]:
    """Return what is known of each of several teachers; nothing for any other teacher.

    Args:
        teacher: the teacher, prepared.

    Returns:
        name -> facts, whose own name is what a message calls it: ``"big (BertForSequenceClassification)"``.
    """
    return {n: replace(member.facts, name=f"{n} ({member.facts.name})") for n, member in teacher.members.items()}


def check_optimizer(optimizer: Any, objective: Objective) -> None:
    """Refuse an optimizer that was made before the objective had its parameters.

    Args:
        optimizer: the user's own; None lets Trainer make one.
        objective: what to learn from the teacher, built.

    Raises:
        ValueError: in one sentence.
    """
    ours = {id(parameter) for parameter in objective.parameters()}
    if optimizer is None or not ours:
        return
    theirs = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if ours - theirs:
        raise ValueError(
            f"optimizers= was given without the {len(ours)} parameters that the objective trains: pass "
            "optimizer_cls_and_kwargs=(class, options) instead, or an objective without projections."
        )


def check_parallelism(args: TrainingArguments, accelerator: Accelerator) -> None:
    """Refuse ways of splitting a batch inside one process that a teacher cannot follow.

    Args:
        args: the run's arguments.
        accelerator: the run's.

    Raises:
        ValueError: in one sentence.
    """
    if args.n_gpu > 1:
        raise ValueError(
            f"{args.n_gpu} GPUs were found in one process (DataParallel), which cannot split a teacher's "
            "answers: start one process a GPU with accelerate launch or torchrun."
        )
    config = getattr(accelerator, "parallelism_config", None)
    if config is not None and (config.cp_size > 1 or config.sp_size > 1):
        raise ValueError(
            "context or sequence parallelism was asked for, which gives each rank a part of each row, but the "
            "teacher reads whole rows: set cp_size and sp_size to 1."
        )


def check_blocks(student: Any, accelerator: Accelerator) -> None:
    """Refuse students that FSDP cannot shard: a part of a block is used outside of it, or embeddings are not said.

    Args:
        student: the unwrapped student.
        accelerator: the run's.

    Raises:
        ValueError: in one sentence.
    """
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is None:
        return
    try:
        getattr(student, "get_input_embeddings", lambda: None)()  # as accelerate does, which must know of tied ones
    except NotImplementedError as error:
        raise ValueError(
            f"FSDP was asked for {type(student).__name__}, which does not say what its input embeddings are, as "
            "accelerate asks it: use DDP or DeepSpeed ZeRO."
        ) from error
    named = getattr(plugin, "transformer_cls_names_to_wrap", None) or ()
    if LENT in named and class_in(student, LENDING):
        raise ValueError(
            f"FSDP was asked to shard {type(student).__name__} by its {LENT}, of which the first lends its embeddings "
            "to the rest: set fsdp_transformer_layer_cls_to_wrap to FeedForward."
        )


def check_kernels(args: TrainingArguments, task: Task, alpha: float, student: str) -> None:
    """Refuse a fused loss that gives no logits to compare.

    A task that sums the loss itself calls the student without labels, and is then given logits.

    Args:
        args: the run's arguments.
        task: how the models are read.
        alpha: the teacher's share of the loss.
        student: the name of its class.

    Raises:
        ValueError: in one sentence.
    """
    config = getattr(args, "liger_kernel_config", None) or {}
    fused = getattr(args, "use_liger_kernel", False) and config.get("fused_linear_cross_entropy", True)
    if fused and task.own_loss and alpha < 1:
        raise ValueError(
            f"use_liger_kernel fuses the loss of {student} with its head, which then gives no "
            'logits to compare: set liger_kernel_config={"fused_linear_cross_entropy": False}.'
        )


def check_output_dir(folder: str | Path, resume: str | None) -> None:
    """Refuse to write over a finished run.

    Args:
        folder: where the run will write.
        resume: the user's ``resume_from_checkpoint``.

    Raises:
        ValueError: the folder holds a finished run and nothing was said about resuming.
    """
    found = [
        n for n in ("report.json", "model.safetensors", "adapter_model.safetensors") if (Path(folder) / n).is_file()
    ]
    if found and not resume:
        raise ValueError(
            f"{folder} already holds a finished run ({', '.join(found)}): choose another --output_dir, or continue "
            "that run with --resume_from_checkpoint; nothing was changed."
        )
