"""How the student carries what an objective trains, so that no optimizer and no strategy needs to know of it.

Knows: the student's modules, when an objective is built. Does not know: losses, batches, how a checkpoint is written.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hf_distill.cache.offline_teacher import AbsentTeacher
from hf_distill.models.attention import show_attention
from hf_distill.models.facts import Facts
from hf_distill.models.hooks import hearing
from hf_distill.objectives import Objective, build
from hf_distill.objectives.presets import AUTO, preset
from hf_distill.tasks.alignment.tokenizers import PREFIX, own_tokens
from hf_distill.training.checks import check_objective, named_facts
from hf_distill.training.fused_logits import check_fused

if TYPE_CHECKING:
    from hf_distill.trainer import DistillationMixin

logger = logging.getLogger(__name__)

CHILD = "distillation"
"""The name under which the student carries the objective, if that has something to train."""


def equip(trainer: DistillationMixin) -> None:
    """Build what is learned for the student at hand, and let the student carry what has to be trained with it.

    It is called whenever the student or what was asked may have changed: ``model_init`` makes a new student for every
    training, a search may change the objective. What is still right is kept, with what it has learned.

    Args:
        trainer: the trainer, with its teacher prepared; its ``distillation`` is set.

    Raises:
        ValueError: in one sentence, if the two models cannot be compared by the objective.
    """
    spec = trainer.asked if trainer.asked is not None else getattr(trainer.args, "objective", None)
    student = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    kept = trainer.equipped[0] is student and trainer.equipped[1] == spec
    objective = trainer.distillation if kept else build(_asked(trainer, spec))
    objective.follow(trainer.temperature)  # before it is checked: what a teacher keeps may hold for one temperature
    check_objective(objective, trainer.task, trainer.teacher)
    _check_positions(trainer, objective)
    if not kept:
        # Equal on all ranks, and nobody else's random numbers move: with alpha=0 a run is plain Trainer's.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(trainer.args.seed)
            objective.build(Facts.of(trainer.model), trainer.teacher.facts, named_facts(trainer.teacher))
        trainer.distillation, trainer.equipped = objective, (student, spec)
        check_fused(trainer, student)
        make_visible(trainer, student)
    attach(student, trainer.distillation if trainer.alpha > 0 else None)


def _asked(trainer: DistillationMixin, spec: Any) -> Any:
    """Fill in what a user left to us: the task's own objective, or a preset."""
    own = trainer.task.default_objective
    if spec is None or spec != AUTO:
        return own if spec is None else spec
    teacher, live = trainer.teacher, trainer.teacher.uncached
    same = not own_tokens(trainer.train_dataset)
    chosen, asked, whole = (
        preset(own, Facts.of(trainer.model), teacher.facts, serves, same)
        for serves in (teacher.serves, live.serves, live.serves | {"hidden"})
    )
    if chosen != asked:
        raise ValueError(
            f"objective=auto is {asked} for these two models, the folder of answers holds logits alone: keep hidden "
            f"states too (hf-distill cache --hidden_states, into another folder), or set objective={own}."
        )
    each = live.members.values() if live.choose else [live]  # the mean of several has no states
    absent = any(isinstance(one, AbsentTeacher) for one in each)
    if absent and chosen != whole and trainer.distillation is None:  # once, also where a search trains many students
        logger.warning(
            "objective=auto is %s here, and not %s: the folder of answers holds logits alone, and there is no teacher "
            "to ask for more; hf-distill cache --hidden_states keeps hidden states too.",
            chosen, whole,
        )  # fmt: skip
    logger.info("objective=auto is %s here.", chosen)
    return chosen


def _check_positions(trainer: DistillationMixin, objective: Objective) -> None:
    """Refuse to compare token with token where nothing but a text's one vector is known to be of the same text."""
    if trainer.task.label_names or not own_tokens(trainer.train_dataset):
        return
    for name, term in objective.terms.items():
        if term.by_position:
            raise ValueError(
                f"{name} compares token with token, the teacher reads tokens of its own ({PREFIX}input_ids, ...): use "
                "terms that make one vector of each text, such as pooled_mse, pooled_cosine or similarity."
            )


def make_visible(trainer: DistillationMixin, student: nn.Module) -> None:
    """See to it that both models can show what is asked of them, or refuse before the first step.

    Args:
        trainer: the trainer, with its teacher prepared and its objective built.
        student: the unwrapped student.

    Raises:
        ValueError: in one sentence: no attention maps, no module of that path, no known projections, or a compiled
            student that is to be heard.
    """
    objective = trainer.distillation
    theirs = trainer.teacher.members or {trainer.teacher.facts.name: trainer.teacher}
    for name, needs, model in [
        ("the student", objective.needs, student),
        *((f"the teacher {name}", objective.asks, one.model) for name, one in theirs.items()),
    ]:
        if not isinstance(model, nn.Module):
            continue  # a function or a folder; what it serves has been checked
        own = {need.partition("@")[0] for need in needs if need.partition("@")[2] in ("", name.split(" ", 2)[-1])}
        if "attention" in own:
            show_attention(model, name)
        with hearing(model, own) as heard:
            compiled = heard is not None and model is student and getattr(trainer.args, "torch_compile", False)
        if compiled:
            raise ValueError(
                "torch_compile was asked for with an objective that hears modules of the student "
                f"({', '.join(sorted(own - {'heads', 'hidden', 'attention'}))}): leave one of them out."
            )


def attach(student: nn.Module, objective: Objective | None) -> None:
    """Make an objective's parameters the student's, so that what happens to these happens to those.

    As a child of the student they are optimised, clipped, zeroed, synchronised and sharded with it, on every
    strategy. ``save_pretrained`` leaves them out.

    Args:
        student: the unwrapped student.
        objective: the objective; None, or one without parameters, only takes an earlier one away.

    Raises:
        ValueError: the student has something else under that name.

    Example:
        >>> from hf_distill.objectives.hidden import HiddenMSE
        >>> from hf_distill.models.facts import Facts
        >>> objective, student = Objective({"hidden_mse": HiddenMSE()}), nn.Linear(2, 2)
        >>> objective.build(Facts(hidden_size=2, num_layers=1), Facts(hidden_size=3, num_layers=1))
        >>> attach(student, objective)
        >>> sum(p.numel() for p in student.parameters())  # 2 x 2 + 2, and two projections of 3 x 2
        18
    """
    there = getattr(student, CHILD, None)
    objective = objective if objective is not None and objective.state_dict() else None
    if there is objective:
        return
    if there is not None and not isinstance(there, Objective):
        raise ValueError(
            f"the student {type(student).__name__} has an attribute {CHILD!r} of its own, under which the objective's "
            "parameters would be kept: rename it."
        )
    if there is not None:
        delattr(student, CHILD)
        _ignore_on_save(student, {})
    if objective is not None:
        like = next((p for p in student.parameters() if p.is_floating_point()), torch.zeros(()))
        objective.to(device="cpu" if like.device.type == "meta" else like.device, dtype=like.dtype)
        setattr(student, CHILD, objective)
        _ignore_on_save(student, objective.state_dict())


def _ignore_on_save(student: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Let the student's own ``save_pretrained`` skip these exact keys; only transformers models read the list."""
    if hasattr(type(student), "_keys_to_ignore_on_save"):
        theirs = type(student)._keys_to_ignore_on_save or ()
        student._keys_to_ignore_on_save = [*theirs, *(f"{CHILD}.{name}" for name in state)] or None
