"""A term by which the student's vector of a row must find the teacher's among those of all rows.

Knows: one vector for each row, and the teacher's vectors of every rank. Does not know: how these come together, tasks,
heads, queues of earlier batches.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hf_distill.models.facts import Facts
from hf_distill.objectives.all_gather import gathered
from hf_distill.objectives.layers import Layers
from hf_distill.objectives.pooled import PooledTerm
from hf_distill.objectives.unit_vectors import unit_vectors


class Contrastive(PooledTerm):
    """InfoNCE between the two models: each row's student vector must find its teacher vector among all others.

    With ``s_i`` and ``t_j`` the vectors after a trained linear map each to ``dim`` dimensions, given length 1:
    ``-log(exp(s_i . t_i / temperature) / sum_j exp(s_i . t_j / temperature))``, added over samples. The sum goes over
    the different teacher vectors of the micro-batches of all ranks: two rows for which the teacher shows exactly the
    same are one, so neither is the other's negative, and rows that several ranks share (tensor parallelism) count
    once. The mean over pairs of layers is taken.

    A row's loss depends on the rows beside it: as many rows on two ranks as in one process give equal results if they
    are the same rows, micro-batches of another size do not. Only the teacher's vectors travel, without a gradient; the
    student's stay where they are, so gradients added over ranks are those of one process. Every rank must take part.

    Args:
        layers: which layers learn from which; None: the two last. See ``PooledTerm``.
        pool: ``"mean"``, ``"first"`` or ``"last"``; see ``PooledTerm``.
        dim: the width in which vectors are compared; at least 1.
        temperature: of the similarities, greater than 0; the run's temperature is for logits, and does not apply.
        stream: which sequence of positions; see ``HiddenTerm``.

    Raises:
        ValueError: layers that cannot be read, another word for pool, or a number that is too small.

    Reference:
        Tian, Krishnan, Isola: Contrastive Representation Distillation, arXiv:1910.10699, in the form of van den Oord,
        Li, Vinyals: Representation Learning with Contrastive Predictive Coding, arXiv:1807.03748, equation 4, with the
        rows of the step in place of a memory of earlier ones.

    Example:
        >>> from hf_distill.signals import Signals
        >>> term = Contrastive(dim=8)
        >>> term.build(Facts(hidden_size=4, num_layers=1), Facts(hidden_size=6, num_layers=2))
        >>> term.students["1_2"].weight.shape, term.teachers["1_2"].weight.shape
        (torch.Size([8, 4]), torch.Size([8, 6]))
        >>> ours, theirs = (Signals({}, hidden=(torch.ones(1, 2, width),) * 3) for width in (4, 6))
        >>> term(ours, theirs, {}).total.abs().item()  # the only row is found
        0.0
    """

    citation: ClassVar[str] = "Tian, Krishnan, Isola: Contrastive Representation Distillation, arXiv:1910.10699"
    name: ClassVar[str] = "contrastive"

    def __init__(
        self,
        layers: Layers | None = None,
        pool: str = "mean",
        dim: int = 128,
        temperature: float = 0.07,
        stream: str | None = None,
    ) -> None:
        super().__init__(layers, pool, stream)
        if dim < 1:
            raise ValueError(f"dim={dim} was given to contrastive: give at least 1.")
        if not math.isfinite(temperature) or temperature <= 0:
            raise ValueError(f"temperature={temperature} was given to contrastive: give a number greater than 0.")
        self.dim, self.temperature = dim, temperature
        self.students, self.teachers = nn.ModuleDict(), nn.ModuleDict()

    def build(self, student: Facts, teacher: Facts) -> None:
        """Make two linear maps for each pair of layers; see ``Term.build``."""
        super().build(student, teacher)
        self.students, self.teachers = nn.ModuleDict(), nn.ModuleDict()
        for name in self.own:
            if student.vector_size is None or teacher.vector_size is None:
                silent = (student if student.vector_size is None else teacher).name
                raise ValueError(
                    f"contrastive maps vectors to {self.dim} numbers, {silent} does not say how long its own are: use "
                    "vector_cosine or similarity."
                )
            self.students[name] = nn.Linear(student.vector_size, self.dim)
            self.teachers[name] = nn.Linear(teacher.vector_size, self.dim)
        if self.own:
            return
        student, teacher = student.stream(self.other), teacher.stream(self.other)
        for ours, theirs in self.pairs:  # with a bias, as the paper's: the rows of one model share a large part
            self.students[f"{ours}_{theirs}"] = nn.Linear(student.width(ours), self.dim)
            self.teachers[f"{ours}_{theirs}"] = nn.Linear(teacher.width(theirs), self.dim)

    def cost(self, pair: str, student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
        """Let each row look for its teacher vector; see ``HiddenTerm.cost``."""
        everyone, first = gathered(teacher)
        # The device is waited for: only it knows how many are different.
        different, places = everyone.unique(dim=0, return_inverse=True)
        ours, theirs = _mapped(self.students[pair], student), _mapped(self.teachers[pair], different)
        with torch.autocast(student.device.type, enabled=False):
            similar = ours @ theirs.T / self.temperature
        return F.cross_entropy(similar, places[first : first + len(student)], reduction="sum")

    def extra_repr(self) -> str:
        """Show the width and the temperature too in ``print(term)``."""
        return f"{super().extra_repr()}, dim={self.dim}, temperature={self.temperature:g}"


def _mapped(linear: nn.Linear, vectors: Tensor) -> Tensor:
    """Return the directions of what a linear map gives, float32."""
    return unit_vectors(linear(vectors.to(linear.weight.dtype)).float())
