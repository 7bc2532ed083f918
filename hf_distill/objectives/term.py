"""Term: one comparison of what the student shows with what the teacher shows.

Knows: two Signals and the batch they came from. Does not know: tasks, trainers, process groups, weights, reductions.
A new objective is one subclass: say what it needs, return a total and a count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from hf_distill.models.facts import Facts
from hf_distill.signals import BINARY, CATEGORICAL, NUMBER, POINTER, Signals, Sum


class Term(nn.Module):
    """The contract of every objective.

    Attributes:
        needs: what both models must show: ``"heads"``, ``"hidden"``, ``"attention"``, ``"qkv"`` (queries, keys and
            values of each layer), ``"tap:<module path>"``, ``"values"`` (what is no distribution), ``"vectors"`` (one
            for each sample); of another stream than the main one ``"hidden:encoder"``.
        unit: what ``Sum.count`` counts, and what the total is divided by, over all micro-batches and ranks: ``"rows"``
            (distributions that count), ``"tokens"`` (positions that are not padding), ``"tokens:encoder"`` (those of
            another stream) or ``"samples"``.
        accepts: the kinds of heads that it may read, see ``HeadSpec``: a number is no distribution, and where rows
            have other classes no term can give every class the same weight.
        of: the one among the task's values or vectors that it reads; None: all of them.
        needs_raw_logits: it compares logits as they are, so it can learn nothing from a mean of several teachers'
            probabilities.
        citation: the paper, for the model card.
        compares_sorted: it compares sorted probabilities, so the two heads may have other classes, and another number
            of them.
        of_frames: it compares transcripts of frames, one of whose classes is a blank (CTC), and no other heads.
        by_position: beside heads it compares token with token, so both models must read the same tokens.
        few: it can compare heads of which the teacher keeps a few ids (``TopKLogits``), at one temperature.
        stream: the stream that a user named; None: the task's main one. See ``StreamTerm``.

    Example:
        >>> from hf_distill.signals import DenseLogits, Head
        >>> class SameMean(Term):
        ...     needs, unit = frozenset({"heads"}), "samples"
        ...
        ...     def forward(self, student, teacher, batch):
        ...         ours, theirs = (shown.heads["logits"].logits.tensor for shown in (student, teacher))
        ...         gap = (ours.mean(-1) - theirs.mean(-1)).abs()
        ...         return Sum(gap.sum(), torch.tensor(len(gap)))
        >>> import torch
        >>> logits = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
        >>> shown = Signals({"logits": Head(DenseLogits(logits), torch.ones(2, dtype=torch.bool))})
        >>> SameMean()(shown, shown, {})
        Sum(total=tensor(0.), count=tensor(2))
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    unit: ClassVar[str] = "rows"
    accepts: ClassVar[frozenset[str]] = frozenset({CATEGORICAL, BINARY, POINTER, NUMBER})
    of: str | None = None
    needs_raw_logits: ClassVar[bool] = False
    citation: ClassVar[str] = ""
    by_position: ClassVar[bool] = True
    few: ClassVar[bool] = False
    compares_sorted: ClassVar[bool] = False
    of_frames: ClassVar[bool] = False
    stream: str | None = None

    @property
    def teacher_needs(self) -> frozenset[str]:
        """What the teacher must show: the same as the student, where a term does not say otherwise."""
        return self.needs

    def build(self, student: Facts, teacher: Facts) -> None:
        """Make what depends on the two models (a projection, a layer map); called once, before the optimizer.

        Args:
            student: what is known of the student.
            teacher: what is known of the teacher.

        Raises:
            ValueError: in one sentence, if the two cannot be compared by this term.
        """

    def set_streams(self, names: Sequence[str]) -> None:
        """Learn which streams the models of a task show; called before ``build``.

        Args:
            names: as in ``Task.streams``, the main one first; the term's own is one of them.
        """

    def set_vectors(self, names: Sequence[str]) -> None:
        """Learn which vectors the models of a task show of each sample; called before ``build``.

        Args:
            names: as in ``Task.vectors``; none where they show none.
        """

    def set_temperature(self, temperature: float) -> None:
        """Take the run's temperature, if the term was not given one of its own.

        Args:
            temperature: the run's, greater than 0.
        """

    def check_few(self, temperature: float) -> None:
        """Refuse a teacher that keeps a few ids of each head, if this term needs more or has another temperature.

        Args:
            temperature: at which the teacher kept its probabilities; a term without one of its own reads them at 1.

        Raises:
            ValueError: in one sentence.
        """
        if "heads" not in self.needs:
            return
        name, asked = type(self).__name__, getattr(self, "temperature", 1.0)
        if not self.few:
            raise ValueError(
                f"{name} compares whole logits, of which the teacher keeps a few ids: use forward_kl, or keep whole "
                "logits."
            )
        if asked != temperature:
            raise ValueError(
                f"{name} was asked for temperature {asked:g}, the teacher's few ids were kept at {temperature:g} and "
                f"hold for no other: set temperature={temperature:g}, or keep them anew."
            )

    def forward(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Sum:
        """Compare.

        Args:
            student: what the student shows, with gradients.
            teacher: what the teacher shows, aligned to the student: same heads, rows and classes.
            batch: the batch, for terms that need more than the signals.

        Returns:
            The sum over everything that counts, and how many that are. Never a mean: 8 x 1 must equal 2 x 4.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement forward(student, teacher, batch) -> Sum.")
