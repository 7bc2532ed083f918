"""Terms that compare the one vector that a model makes of each sample: of an image, of a text.

Knows: vectors. Does not know: how a model makes them (the terms that pool hidden states do), what they are of.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hf_distill.models.facts import Facts
from hf_distill.objectives.phi_s import PhiS
from hf_distill.objectives.term import Term
from hf_distill.objectives.unit_vectors import unit_vectors
from hf_distill.signals import Signals, Sum


class VectorTerm(Term):
    """What the terms on vectors share: which of them, and a projection where it was asked for.

    A subclass implements ``compare``: two float32 [B, D] in, what each sample costs out, float32 [B].

    Args:
        of: the vector, one of ``Task.vectors``; None: all that the task shows, added up.
        widths: how long a vector is in both models, (student, teacher); given, a projection is trained between them.
            None: as long as the models say, if they do, and a projection where they differ: one for all vectors, so
            that an image and a text that are near each other stay so.

    Raises:
        ValueError: widths that are not two numbers.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"vectors"})
    unit: ClassVar[str] = "samples"
    by_position: ClassVar[bool] = False
    name: ClassVar[str]

    def __init__(self, of: str | None = None, widths: tuple[int, int] | list[int] | None = None) -> None:
        super().__init__()
        if widths is not None and (len(widths) != 2 or not all(isinstance(w, int) and w > 0 for w in widths)):
            raise ValueError(f"widths={widths} was given to {self.name}: give two numbers, (student, teacher).")
        self.of, self.given, self.widths = of, widths, widths
        self.projection: nn.Linear | None = None

    def build(self, student: Facts, teacher: Facts) -> None:
        """Make the projection; see ``Term.build``."""
        told = student.vector_size, teacher.vector_size
        self.widths = self.given or (told if all(told) and told[0] != told[1] else None)
        self.projection = nn.Linear(*self.widths, bias=False) if self.widths else None

    @abstractmethod
    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare two models' vectors.

        Args:
            student: float32 [B, D], with gradients.
            teacher: float32 [B, D].

        Returns:
            float32 [B].
        """

    def forward(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Sum:
        """Add over the samples; see ``Term.forward``."""
        names = list(student.vectors) if self.of is None else [self.of]
        each = torch.stack([self._cost(name, student.vectors[name], teacher.vectors.get(name)) for name in names])
        return Sum(each.sum(), torch.tensor(each.shape[1], device=each.device))

    def _cost(self, name: str, ours: Tensor, theirs: Tensor | None) -> Tensor:
        shapes = [None if one is None else list(one.shape) for one in (ours, theirs)]
        wanted = self.widths or (ours.shape[-1], ours.shape[-1])
        if theirs is None or [[ours.shape[0], width] for width in wanted] != shapes:
            raise ValueError(
                f"{self.name} was asked to compare the vectors {name}, of shape {shapes[0]}, with the teacher's, of "
                f"shape {shapes[1]}{f', by widths={self.widths}' if self.widths else ''}: give widths=(student, "
                "teacher) as they are, and of= where a task shows vectors of several widths."
            )
        if self.projection is not None:
            ours = self.projection(ours.to(self.projection.weight.dtype))
        return self.compare(ours.float(), theirs.to(ours.device).float())

    def extra_repr(self) -> str:
        """Show what is compared in ``print(term)``."""
        return f"of={self.of}"


class VectorMSE(VectorTerm):
    """Mean squared difference of two models' vectors: a student whose vectors are the teacher's stands in for it.

    ``|| W v_s - v_t ||**2 / width of the teacher``, added over samples; W is there only where ``widths`` is given.

    Args:
        of: the vector, one of ``Task.vectors``; None: all that the task shows, added up.
        widths: how long a vector is in both models, (student, teacher); given, a projection is trained between them.
        standardise: statistics of this vector of the teacher, or the file where they are; it then has mean 0 and
            variance 1 as every other teacher's. See ``PhiS``.

    Raises:
        ValueError: widths that are not two numbers, or statistics where several vectors are compared.

    Reference:
        Yang et al.: CLIP-KD: An Empirical Study of CLIP Model Distillation, arXiv:2307.12732, feature distillation.

    Example:
        >>> ours, theirs = (Signals({}, vectors={"image": torch.tensor([[1.0, 3.0]]) + more}) for more in (0.0, 2.0))
        >>> VectorMSE()(ours, theirs, {})
        Sum(total=tensor(4.), count=tensor(1))
    """

    citation: ClassVar[str] = "Yang et al.: CLIP-KD: An Empirical Study of CLIP Model Distillation, arXiv:2307.12732"
    name: ClassVar[str] = "vector_mse"

    def __init__(
        self,
        of: str | None = None,
        widths: tuple[int, int] | list[int] | None = None,
        standardise: PhiS | str | Path | None = None,
    ) -> None:
        super().__init__(of, widths)
        self.standardise = PhiS.read(standardise)

    def set_vectors(self, names: Sequence[str]) -> None:
        """Refuse statistics where several vectors are compared; see ``Term.set_vectors``."""
        if self.standardise is not None and self.of is None and len(names) > 1:
            raise ValueError(
                f"vector_mse was given statistics of one vector, the models show {', '.join(names)}: name it in of=."
            )

    def build(self, student: Facts, teacher: Facts) -> None:
        """Make the projection, and refuse statistics of another width; see ``Term.build``."""
        super().build(student, teacher)
        if self.standardise is not None:
            self.standardise.check(self.widths[1] if self.widths else teacher.vector_size, self.name)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the squared difference, divided by the width; see ``VectorTerm``."""
        teacher = teacher if self.standardise is None else self.standardise(teacher)
        return (student - teacher).square().mean(dim=-1)


class VectorCosine(VectorTerm):
    """One minus the cosine of two models' vectors: for vectors that are searched by direction.

    ``1 - cos(W v_s, v_t)``, added over samples; 1 where one of the two is zero, without a gradient.

    Args:
        of: the vector, one of ``Task.vectors``; None: all that the task shows, added up.
        widths: how long a vector is in both models, (student, teacher); given, a projection is trained between them.

    Raises:
        ValueError: widths that are not two numbers.

    Reference:
        Reimers, Gurevych: Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation,
        arXiv:2004.09813, section 2, with the cosine in place of the squared difference.

    Example:
        >>> pair = (torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]]))
        >>> VectorCosine()(*(Signals({}, vectors={"text": one}) for one in pair), {}).total.round(decimals=4)
        tensor(0.0400)
    """

    citation: ClassVar[str] = (
        "Reimers, Gurevych: Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation, "
        "arXiv:2004.09813"
    )
    name: ClassVar[str] = "vector_cosine"

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return one minus the cosine; see ``VectorTerm``."""
        return 1.0 - (unit_vectors(student) * unit_vectors(teacher)).sum(dim=-1)
