"""A teacher whose logits lie in the data set: a column of them, or of a few ids with their log-probabilities.

Knows: columns, what a server says of a text. Does not know: who made them, how a batch is padded, terms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from torch import Tensor

from hf_distill.models.facts import Facts
from hf_distill.models.linear_logits import classes_of, head_of
from hf_distill.models.topk_logits import TopKLogits
from hf_distill.signals import ABSENT, Head, Signals
from hf_distill.tasks import Task
from hf_distill.tasks.alignment.tokenizers import columns_of
from hf_distill.tasks.layout import without_layout
from hf_distill.teachers.column_collator import ColumnCollator
from hf_distill.teachers.teacher import Teacher

if TYPE_CHECKING:
    from transformers import Trainer

COLUMN = "column:"
"""What comes before the names of columns, where a path could stand as well."""

OVER = 1.01
"""Up to what sum of a position's probabilities the rounding of a server is meant, and no mistake."""


class ColumnTeacher(Teacher):
    """Reads a teacher's answers from columns of the data set; ``teacher_model="column:teacher_logits"``.

    One column holds logits (log-probabilities are logits too): [C] for each row, or [T, C] where there is one for each
    token. The trainer's collator need not know of them: they are laid where it put the tokens, on whichever side it
    pads.

    Two columns, ``"column:ids,logprobs"``, hold what servers give: for each row, or each token, a list of the
    likeliest ids and a list of their natural log-probabilities, of any length, at temperature 1. All other classes
    together have the rest of the probability, and nothing is known of which. So a term compares k + 1 classes: its
    value is a lower bound of the one over all classes, and no gradient tells the others apart. The rest is left to the
    student's own taste; the more ids, the smaller this bias. ``entropy`` is that of these k + 1 classes, a lower
    bound too.

    Entry t goes with the student's logits at position t: in a causal language model it is the distribution of token
    t + 1. What servers return for a prompt (``prompt_logprobs``, ``echo``) is the distribution of token t itself: move
    it one to the front, ``[*entries[1:], []]``. The last entry of a text, and entries at positions that do not count
    (the label after them is -100), are read by nobody and may be empty.

    Args:
        columns: the name of one column, or of two.
        task: how the student is read; None takes the trainer's.

    Raises:
        ValueError: no name, or more than two; when the trainer is made, data sets without these columns, rows that
            are going to be changed (augmentation, rollout), or a task with other heads.

    Example:
        >>> from hf_distill.tasks import SequenceClassification
        >>> teacher = ColumnTeacher("scores", SequenceClassification(num_labels=2))
        >>> batch = {"input_ids": torch.ones(1, 3), "scores": torch.tensor([[0.5, -0.5]])}
        >>> teacher(batch, frozenset({"heads"})).heads["logits"].logits.tensor
        tensor([[ 0.5000, -0.5000]])
    """

    def __init__(self, columns: str | Sequence[str], task: Task | None = None) -> None:
        self.names = [columns] if isinstance(columns, str) else list(columns)
        if not 1 <= len(self.names) <= 2 or not all(self.names):
            raise ValueError(
                f"{COLUMN}{','.join(self.names)} was given: name one column of logits, or two, of ids and of their "
                "log-probabilities."
            )
        self.task, self.columns = task, frozenset(self.names)
        self.classes: int | None = getattr(task, "num_labels", None)
        self.facts = Facts(name=f"column{'s' * (len(self.names) - 1)} {' and '.join(self.names)}")

    @classmethod
    def named(cls, spec: str) -> ColumnTeacher:
        """Make one of what a user wrote.

        Args:
            spec: such as ``"column:teacher_logits"``.

        Example:
            >>> ColumnTeacher.named("column:ids, logprobs").names
            ['ids', 'logprobs']
        """
        return cls([name.strip() for name in spec.removeprefix(COLUMN).split(",")])

    @property
    def temperature(self) -> float | None:
        """The only temperature that a few ids hold for; None: any."""
        return 1.0 if len(self.names) == 2 else None

    def prepare(self, trainer: Trainer) -> None:
        """Look at the data sets; see ``Teacher.prepare``."""
        self.task = self.task or trainer.task
        self._check_task()
        args = trainer.args
        asked = {name: getattr(args, name, None) for name in ("augmentation", "rollout")}
        asked["rollout"] = getattr(trainer, "rollout", None) or asked["rollout"]
        for name, given in asked.items():
            if given is not None:
                raise ValueError(
                    f"{name}={given!r} makes new rows, the {self.facts.name} answer the old ones alone: leave {name} "
                    "out, or pass the model as teacher_model."
                )
        found = trainer.eval_dataset if args.eval_strategy != "no" else None
        found = found if isinstance(found, Mapping) else {"": found}
        named = {f"evaluation set{name and f' {name!r}'}": rows for name, rows in found.items()}
        for which, rows in {"training set": trainer.train_dataset, **named}.items():
            later = isinstance(rows, Dataset) and rows.format["type"] == "custom"  # made when a row is read
            there = () if later else columns_of(rows)
            if there and (missing := [name for name in self.names if name not in there]):
                raise ValueError(
                    f"the teacher is the {self.facts.name}, the {which} has the columns {sorted(there)}: add "
                    f"{missing[0]!r}."
                )
        head = head_of(trainer.model) if self.task.linear else None
        self.classes = getattr(self.task, "num_labels", None) if head is None else classes_of(head)
        if len(self.names) == 2 and self.classes is None:
            raise ValueError(
                f"{COLUMN}{','.join(self.names)} was given, and how many classes {type(trainer.model).__name__} has "
                "is not known: give a column of logits."
            )

    def collator(self, collator: Any) -> ColumnCollator:
        """Put a collator around the run's, which lays the columns where that puts the tokens; see the base."""
        return ColumnCollator(collator, self.names, self.task)

    def _check_task(self) -> None:
        if not self.task.label_names and len(self.names) == 1:
            return  # scores of candidates, for terms that ask for them
        if self.task.label_names != ("labels",):
            raise ValueError(
                f"{COLUMN}{','.join(self.names)} was given to {type(self.task).__name__}, which has not one head of "
                "logits: pass a FunctionTeacher whose function returns what such a model does."
            )
        problem = getattr(self.task, "problem_type", None) or ""
        if len(self.names) == 2 and (problem.startswith("multi") or not self.task.distributions):
            raise ValueError(
                f"{COLUMN}{','.join(self.names)} holds the likeliest classes of one distribution, the student's "
                f"problem is {problem or 'regression'}: give a column of logits."
            )

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The columns; see ``Teacher.inputs``."""
        return {name: batch[name] for name in self.names if name in batch}

    def __call__(self, batch: Mapping[str, Any], needs: frozenset[str]) -> Signals:
        """Read the columns; see ``Teacher.__call__``."""
        if missing := [name for name in self.names if name not in batch]:
            raise ValueError(
                f"the teacher is the {self.facts.name}, the batch has {sorted(without_layout(batch))}: give "
                f"these rows the column {missing[0]!r}, or the teacher itself."
            )
        read = self.task.teacher_batch(batch)
        if len(self.names) == 1:
            logits = batch[self.names[0]]
            return self.task.signals(None, read, logits if logits.ndim > 1 else logits.unsqueeze(-1))
        self._check_task()  # labels may have said by now that a row has several classes
        ids, log_p = (batch[name] for name in self.names)
        layout = self.task.layout(read)
        self._check(ids, log_p, layout.rows)
        logits = few_of(ids, log_p, self.classes)
        return Signals({"logits": Head(logits, layout.rows)}, mask=layout.mask)

    def _check(self, ids: Tensor, log_p: Tensor, rows: Tensor) -> None:
        """Refuse entries of positions that count, if nothing could be learned from them, or something wrong."""
        kept = log_p > ABSENT
        ordered = ids.masked_fill(~kept, -1).sort(dim=-1).values
        wrong = {
            "no id": ~kept.any(dim=-1),
            "an id twice": ((ordered.diff(dim=-1) == 0) & (ordered[..., 1:] >= 0)).any(dim=-1),
            f"an id that is none of {self.classes}": ((ids < 0) | (ids >= self.classes)).any(dim=-1),
            "probabilities of more than 1 together": log_p.exp().sum(dim=-1) > OVER,
        }
        every = torch.stack(list(wrong.values())) & rows
        if not every.any():
            return
        what, row, *place = every.nonzero()[0].tolist()
        where = f"row {row} of the batch" + (f", position {place[0]}," if place else "")
        todo = {
            0: "give it some, or label the token -100" + (" that comes after it" if self.task.shifts_labels else ""),
            3: "give natural logarithms of probabilities, at temperature 1",
        }
        raise ValueError(
            f"{where} has {list(wrong)[what]} in {' and '.join(self.names)}: {todo.get(what, 'correct the column')}."
        )


def few_of(ids: Tensor, log_p: Tensor, classes: int) -> TopKLogits:
    """Make logits of a few ids and their log-probabilities, of which nothing was drawn from the others.

    Args:
        ids: int64 [..., k].
        log_p: float32 [..., k], natural, at temperature 1; ``ABSENT`` where a row keeps fewer.
        classes: V.

    Returns:
        The same, with the rest of the probability as ``tail`` (0 where rounding left less), and as ``entropy`` that of
        the k + 1 classes, a lower bound of the whole one.

    Example:
        >>> few = few_of(torch.tensor([[4, 1]]), torch.tensor([[0.5, 0.25]]).log(), classes=9)
        >>> few.tail, few.entropy, few.tail_ids.shape  # 1.5 bits
        (tensor([0.2500]), tensor([1.0397]), torch.Size([1, 0]))
    """
    p = log_p.exp()
    tail = (1 - p.sum(dim=-1)).clamp(min=0)
    entropy = torch.special.entr(p).sum(dim=-1) + torch.special.entr(tail)
    return TopKLogits(ids, log_p, ids[..., :0], tail, entropy, temperature=1.0, classes=classes)
