"""What is learned from a teacher: the user's objective, the task's own, or what ``auto`` stands for.

Knows: what two models and a task allow. Does not know: losses, batches, how the student carries what is trained.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from hf_distill.cache.offline_teacher import AbsentTeacher
from hf_distill.models.attention import show_attention
from hf_distill.models.facts import Facts
from hf_distill.models.hooks import capture
from hf_distill.models.outputs import SHOWN
from hf_distill.objectives import Objective, build
from hf_distill.objectives.presets import AUTO, preset
from hf_distill.objectives.term import Term
from hf_distill.tasks import Task
from hf_distill.tasks.alignment.tokens import PREFIX
from hf_distill.teachers import Teacher

logger = logging.getLogger(__name__)


def build_objective(
    spec: str | Mapping[str, Any] | Term | Objective | None,
    task: Task,
    student: Facts,
    teacher: Teacher,
    own_tokens: bool,
    first: bool = True,
) -> Objective:
    """Build what was asked for, and what a user left to us.

    Args:
        spec: as a user wrote it; None: the task's own, ``"auto"``: what won the measurements for such a pair.
        task: how the models are read.
        student: what is known of the student.
        teacher: the teacher, prepared.
        own_tokens: whether the teacher reads tokens of its own.
        first: whether nothing was built before: then what falls short of the best is told.

    Raises:
        ValueError: in one sentence; see ``objectives.build``.
    """
    own = task.default_objective
    if spec is None or spec != AUTO:
        return build(own if spec is None else spec)
    live = teacher.uncached
    chosen, asked, whole = (
        preset(own, student, teacher.facts, serves, not own_tokens, task.hidden_first)
        for serves in (teacher.serves, live.serves, live.serves | {"hidden"})
    )
    if chosen != asked:
        raise ValueError(
            f"objective=auto is {asked} for these two models, the folder of answers holds logits alone: keep hidden "
            f"states too (hf-distill cache --hidden_states, into another folder), or set objective={own}."
        )
    each = live.members.values() if live.choose else [live]  # the mean of several has no states
    if first and chosen != whole and any(isinstance(one, AbsentTeacher) for one in each):
        logger.warning(
            "objective=auto is %s here, and not %s: the folder of answers holds logits alone, and there is no teacher "
            "to ask for more; hf-distill cache --hidden_states keeps hidden states too.",
            chosen, whole,
        )  # fmt: skip
    logger.info("objective=auto is %s here.", chosen)
    return build(chosen)


def check_positions(objective: Objective, task: Task, own_tokens: bool) -> None:
    """Refuse to compare token with token where nothing but a text's one vector is known to be of the same text.

    Args:
        objective: what is learned.
        task: how the models are read.
        own_tokens: whether the teacher reads tokens of its own.

    Raises:
        ValueError: in one sentence.
    """
    if task.label_names or not own_tokens:
        return
    for name, term in objective.terms.items():
        if term.by_position and not (task.paired and term.needs == {"heads"}):  # over pairs, not over tokens
            raise ValueError(
                f"{name} compares token with token, the teacher reads tokens of its own ({PREFIX}input_ids, ...): use "
                "terms that make one vector of each text, such as pooled_mse, pooled_cosine or similarity."
            )


def make_visible(
    objective: Objective,
    student: nn.Module,
    teacher: Teacher,
    compiled: bool,
    reads: frozenset[str] = frozenset(),
) -> None:
    """See to it that both models can show what is asked of them, or refuse before the first step.

    Args:
        objective: what is learned.
        student: the unwrapped student.
        teacher: the teacher, prepared.
        compiled: whether the student is compiled.
        reads: what the student reads of its teacher.

    Raises:
        ValueError: in one sentence: no attention maps, no module of that path, no known projections, or a compiled
            student that is to be heard.
    """
    theirs = teacher.members or {teacher.facts.name: teacher}
    for name, needs, model in [
        ("the student", objective.needs, student),
        *((f"the teacher {name}", objective.teacher_needs | reads, one.model) for name, one in theirs.items()),
    ]:
        if not isinstance(model, nn.Module):
            continue  # a function or a folder; what it serves has been checked
        own = {need.partition("@")[0] for need in needs if need.partition("@")[2] in ("", name.split(" ", 2)[-1])}
        if any(need.partition(":")[0] == "attention" for need in own):
            show_attention(model, name)
        with capture(model, own) as captured:
            hooked = captured is not None and model is student
        if compiled and hooked:
            heard = sorted(need for need in own if need.partition(":")[0] not in ("heads", *SHOWN))
            raise ValueError(
                "torch_compile was asked for with an objective that hears modules of the student "
                f"({', '.join(heard)}): leave one of them out."
            )
