"""Several teachers as one: their mean, each of them by its name, or one of them for each row.

Knows: other teachers, how distributions are averaged, how a batch is cut and put together. Does not know: models,
devices, terms, the student.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
from torch import Tensor

from hf_distill.models.facts import Facts
from hf_distill.signals import Head, Signals
from hf_distill.tasks.batches import plain
from hf_distill.tasks.layout import without_layout
from hf_distill.teachers.mean import MeanLogits, shares_of
from hf_distill.teachers.routing import by_row, check_choice, same_shapes
from hf_distill.teachers.teacher import Teacher

if TYPE_CHECKING:
    from transformers import Trainer


class Several(Teacher):
    """Several teachers that answer as one.

    Together they show the mean of their distributions, and of nothing else: values such as boxes are of things that
    each finds by itself, and the mean of vectors is none of theirs. A term with the option ``{"teacher": "big"}``
    listens to one of them instead, also to its hidden states, values and vectors; each is run once for a batch, and
    not at all if nobody listens. With ``choose`` each row is answered by one teacher alone, which is run on these rows
    only.

    Args:
        teachers: name -> teacher, or a list, whose names are "0", "1", ... Each is whatever ``teacher_model`` may be;
            the trainer loads what is no ``Teacher`` yet.
        weights: each teacher's share of the mean, in the same order or by name: finite, not negative, not all 0, of
            any sum. None: equal shares. A teacher of weight 0 is only listened to by its name.
        combine: "probabilities": the log of the mean of the softmax probabilities at temperature 1, which are logits;
            "logits": the mean of the logits, the geometric mean of the distributions, which ``logit_mse`` needs.
            None: "probabilities", for regression "logits".
        choose: the batch column that holds the index of each row's teacher, counted from 0 in their order; it is kept
            in the data set and given to no model.

    Raises:
        ValueError: in one sentence, no teacher, or weights, ``combine`` or ``choose`` that cannot be used; when the
            trainer is made, probabilities of a regression, an index that is no teacher's, or ``choose`` among teachers
            that are sharded.

    Reference:
        Hinton, Vinyals, Dean: arXiv:1503.02531, section 1: arithmetic or geometric mean of the distributions.

    Example:
        >>> import torch
        >>> from hf_distill.tasks import SequenceClassification
        >>> from hf_distill.teachers import FunctionTeacher
        >>> task = SequenceClassification(num_labels=2)
        >>> batch = {"input_ids": torch.ones(1, 3), "source": torch.tensor([1])}
        >>> sure = FunctionTeacher(lambda batch: torch.tensor([[9.0, -9.0]]), task)
        >>> even = FunctionTeacher(lambda batch: torch.tensor([[0.0, 0.0]]), task)
        >>> both = Several({"sure": sure, "even": even})(batch, frozenset({"heads", "heads@even"}))
        >>> both.heads["logits"].logits.chunk(0, 1).exp(), both.named["even"].heads["logits"].logits.chunk(0, 1)
        (tensor([[0.7500, 0.2500]]), tensor([[0., 0.]]))
        >>> Several([sure, even], choose="source")(batch, frozenset({"heads"})).heads["logits"].logits.chunk(0, 1)
        tensor([[0., 0.]])
    """

    def __init__(
        self,
        teachers: Mapping[str, Any] | Sequence[Any],
        weights: Mapping[str, float] | Sequence[float] | None = None,
        combine: str | None = None,
        choose: str | None = None,
    ) -> None:
        given = teachers.items() if isinstance(teachers, Mapping) else enumerate(teachers)
        self.given = {str(name): teacher for name, teacher in given}
        if not self.given:
            raise ValueError("several teachers were asked for, there is none: give a list of models, or leave it out.")
        if combine not in (None, "probabilities", "logits"):
            raise ValueError(f"combine={combine!r} is not known: use 'probabilities' or 'logits'.")
        if choose is not None and (weights is not None or combine is not None):
            raise ValueError(
                f"choose={choose!r} lets one teacher answer each row, but weights or combine, which are for their "
                "mean, were given too: leave one of the two out."
            )
        self.weights = shares_of(list(self.given), weights)
        self.combine, self.choose, self._distributions = combine, choose, True

    # ---- Who they are ----

    @property
    def members(self) -> dict[str, Teacher]:
        """The teachers by name; empty until the trainer has loaded those that were given as models or paths."""
        return dict(self.given) if all(map(_is_ready, self.given.values())) else {}

    def loaded(self, load: Callable[[Any], Teacher]) -> Several:
        """Return the same with a Teacher for each that is none yet.

        Args:
            load: makes a Teacher of whatever a user passes; see ``build_teacher``.
        """
        (loaded := copy.copy(self)).given = {n: o if _is_ready(o) else load(o) for n, o in self.given.items()}
        return loaded

    def each(self, change: Callable[[str, Teacher], Teacher]) -> Several:
        """Return the same with another Teacher in each one's place, such as the same with a memory.

        Args:
            change: takes a name and its Teacher.
        """
        (changed := copy.copy(self)).given = {name: change(name, one) for name, one in self.members.items()}
        return changed

    @property
    def facts(self) -> Facts:
        """What all of them have in common, and a name that lists theirs."""
        same = Facts.shared([member.facts for member in self.members.values()] or [Facts()])
        count = f"{len(self.given)} teacher{'s' * (len(self.given) > 1)}"
        return replace(same, name=f"{count}: {', '.join(self.given)}", revision=None)

    @property
    def serves(self) -> frozenset[str]:
        """The mean of the heads, and each one's own signals by name; with ``choose`` what all of them can show."""
        own = {n: {need for need in one.serves if "@" not in need} for n, one in self.members.items()}
        if self.choose is not None:
            return frozenset.intersection(*map(frozenset, own.values())) if own else frozenset()
        return frozenset({"heads"}).union(f"{need}@{name}" for name, needs in own.items() for need in needs)

    @property
    def collective(self) -> bool:
        """Whether any of them is sharded."""
        return any(member.collective for member in self.members.values())

    @property
    def columns(self) -> frozenset[str]:
        """What any of them reads, and the column that chooses."""
        own = () if self.choose is None else (self.choose,)
        return frozenset(own).union(*(member.columns for member in self.members.values()))

    def __str__(self) -> str:
        """How they answer as one, for the model card."""
        if self.choose is not None:
            return f"one for each row, by its column `{self.choose}`"
        shares = ", ".join(f"`{name}` {share:.3g}" for name, share in self.weights.items())
        return f"the mean of their {self.averaged}, with the shares {shares}"

    @property
    def averaged(self) -> str | None:
        """What the mean is taken of: "probabilities" or "logits"; None where each row has its own teacher."""
        return None if self.choose is not None else self.combine or ("logits", "probabilities")[self._distributions]

    # ---- What they answer ----

    def prepare(self, trainer: Trainer) -> None:
        """Prepare each; see ``Teacher.prepare``."""
        if not self.members:
            raise ValueError(
                f"the {self.facts.name} hold models that nobody loaded: pass them as teacher_model, or as Teachers."
            )
        self._distributions = trainer.task.distributions
        if self.combine == "probabilities" and not self._distributions:
            raise ValueError(
                "combine='probabilities' was asked for, the student's problem is regression, whose outputs are none: "
                "use combine='logits'."
            )
        for name, member in self.members.items():
            member.prepare(trainer)
            if member.temperature is not None:
                raise ValueError(
                    f"the teacher {name} keeps a few ids, which have no mean with others: keep whole logits."
                )
        if self.choose is None:
            return
        if self.collective:
            raise ValueError(
                f"choose={self.choose!r} was asked for, but a teacher is sharded, and ranks would call it unequally "
                "often: use teachers that are whole on each rank, or leave choose out."
            )
        data = trainer.train_dataset
        if isinstance(data, datasets.Dataset) and self.choose in data.column_names:
            check_choice(np.asarray(data.with_format("numpy")[self.choose]), list(self.given), self.choose)

    def collator(self, collator: Any) -> Any:
        """Put each one's around those of the others; see ``Teacher.collator``."""
        for member in self.members.values():
            collator = member.collator(collator)
        return collator

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return what any of them is fed; a cache belongs around each, not around all. See ``Teacher.inputs``."""
        return {n: value for member in self.members.values() for n, value in member.inputs(self._rest(batch)).items()}

    def __call__(self, batch: Mapping[str, Any], needs: frozenset[str]) -> Signals:
        """Ask those that are needed, each once; see ``Teacher.__call__``."""
        if self.choose is not None:
            return self._chosen(batch, needs)
        ready = {n: plain(batch) if one.uncached is one else batch for n, one in self.members.items()}
        shown = {name: self.members[name](ready[name], own) for name, own in self._asked(needs).items()}
        heads = self._mean({n: one for n, one in shown.items() if self.weights[n]}) if "heads" in needs else {}
        return Signals(heads, mask=next(iter(shown.values())).mask, named=shown)

    def _asked(self, needs: frozenset[str]) -> dict[str, frozenset[str]]:
        """What each one is needed for; nobody else is asked."""
        asked: dict[str, set[str]] = {name: set() for name in self.members}
        for need, _, name in (need.partition("@") for need in needs):
            for one in [name] if name else [n for n, share in self.weights.items() if share]:
                asked[one].add(need)
        return {name: frozenset(own) for name, own in asked.items() if own}

    def _mean(self, shown: Mapping[str, Signals]) -> dict[str, Head]:
        shares, heads = [self.weights[name] for name in shown], {}
        for key, head in next(iter(shown.values())).heads.items():
            each = {name: theirs.heads[key].logits for name, theirs in shown.items()}
            same_shapes({name: list(logits.shape) for name, logits in each.items()}, key)
            mean = MeanLogits(list(each.values()), shares, self.averaged == "probabilities")
            heads[key] = Head(mean, head.rows, share=head.share)
        return heads

    # ---- What a trainer tells them ----

    @property
    def uncached(self) -> Several:
        """The same without a cache around any; see ``Teacher.uncached``."""
        return self.each(lambda _, one: one.uncached)

    def prefetch(self, batches: Sequence[dict[str, Any]], needs: frozenset[str]) -> None:
        """Let each see the micro-batches of an optimizer step; not with ``choose``, where each has rows of its own."""
        for name, own in (self._asked(needs) if self.choose is None else {}).items():
            self.members[name].prefetch(batches, own)

    def cache_hits(self) -> tuple[int, int] | None:
        """Return how many rows of training batches were kept ones, of how many, over all of them."""
        counted = [hits for one in self.members.values() if (hits := one.cache_hits()) is not None]
        return (sum(hits for hits, _ in counted), sum(rows for _, rows in counted)) if counted else None

    def expect(self, epochs: int) -> None:
        """Tell each; see ``Teacher.expect``."""
        for one in self.members.values():
            one.expect(epochs)

    def save(self, checkpoint: str | Path, rank: int, name: str = "", answers: bool = True) -> None:
        """Let each write what it must know again, under its number; see ``Teacher.save``."""
        for number, one in enumerate(self.members.values()):
            one.save(checkpoint, rank, f"{name}-{number}", answers)

    def load(self, checkpoint: str | Path, name: str = "") -> None:
        """Let each go on from a checkpoint; see ``Teacher.load``."""
        for number, one in enumerate(self.members.values()):
            one.load(checkpoint, f"{name}-{number}")

    # ---- One of them for each row ----

    def _rest(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in batch.items() if name != self.choose}

    def _chosen(self, batch: Mapping[str, Any], needs: frozenset[str]) -> Signals:
        """Ask each teacher for its own rows."""
        if self.choose not in batch:
            raise ValueError(
                f"choose={self.choose!r} was asked for, the batch has {sorted(without_layout(batch))}: "
                "keep the column in the data "
                "set, also in the one for evaluation."
            )
        column = batch[self.choose]
        choice = column.cpu().numpy() if isinstance(column, Tensor) else np.asarray(column)
        check_choice(choice, list(self.given), self.choose)
        return by_row(self.members, choice, self._rest(batch), needs)


def _is_ready(one: Any) -> bool:
    """Whether it is a Teacher, all of it."""
    return bool(one.members) if isinstance(one, Several) else isinstance(one, Teacher)
