"""Terms that compare distributions: many divergences of two chunks of rows.

Knows: two chunks of logits. Does not know: the task they belong to, how they are held, or who goes through them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_distill.models.topk_logits import TopKLogits
from hf_distill.objectives import functional, topk_functional
from hf_distill.objectives.chunked.one_pass import compared
from hf_distill.objectives.term import Term
from hf_distill.signals import BINARY, CATEGORICAL, NUMBER, POINTER, Head, Signals, Sum

logger = logging.getLogger(__name__)


class LogitTerm(Term):
    """What the terms below share: every head of the two models, chunk by chunk, only the rows that count.

    A subclass implements ``divergence``: two float32 chunks [n, V] in, a value per row [n] out. Of a teacher that
    keeps a few ids (``TopKLogits``) it is then given h + 1 classes, see ``divergence_from_few``; where joining classes
    may raise the value, set ``few = False`` and such a teacher is refused. If ``labelled``, labels [n] come third;
    what ``beside`` says of the rows comes last.

    Example:
        >>> class TotalVariation(LogitTerm):
        ...     def divergence(self, student, teacher):
        ...         return 0.5 * (student.softmax(-1) - teacher.softmax(-1)).abs().sum(-1)
        >>> from hf_distill.signals import DenseLogits, Head
        >>> def shown(*rows):
        ...     return Signals({"logits": Head(DenseLogits(torch.tensor(rows)), torch.tensor([True, False]))})
        >>> TotalVariation()(shown([0.0, 0.0], [9.0, 9.0]), shown([0.0, 99.0], [7.0, 1.0]), {})
        Sum(total=tensor(0.5000), count=tensor(1))
    """

    needs: ClassVar[frozenset[str]] = frozenset({"heads"})
    unit: ClassVar[str] = "rows"
    accepts: ClassVar[frozenset[str]] = frozenset({CATEGORICAL, BINARY, POINTER})
    few: ClassVar[bool] = True
    labelled: ClassVar[bool] = False
    _said: bool = False

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare two float32 chunks of logits [n, V].

        Args:
            student: logits [n, V], with gradients.
            teacher: logits [n, V].

        Returns:
            [n], what each row costs.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement divergence(student, teacher) -> [n].")

    def beside(self, student: Head, teacher: Head, batch: Mapping[str, Any]) -> Tensor | None:
        """Say of each row what ``divergence`` must know beside the two models' logits.

        Args:
            student: a head of the student.
            teacher: the teacher's.
            batch: the batch.

        Returns:
            [leading shape, ...], of which the n rows of a chunk come last in ``divergence``; None: nothing.
        """

    def divergence_from_few(self, student: Tensor, teacher: TopKLogits, *more: Tensor) -> Tensor:
        """Compare with a teacher that keeps a few ids: over these and one class for all others, a lower bound.

        Args:
            student: logits [n, V], with gradients.
            teacher: the same n rows, at this term's temperature.
            *more: what ``divergence`` is told beside.

        Returns:
            [n], what each row costs; see ``topk_functional.coarsened``.
        """
        if not self._said:
            self._said = True
            logger.warning(
                "%s is computed from %d classes of a teacher that has %d, all others taken together: its value is a "
                "lower bound; keep whole logits, or use forward_kl with a sampled tail, for an exact one.",
                type(self).__name__, teacher.ids.shape[-1], teacher.classes,
            )  # fmt: skip
        both = topk_functional.coarsened(student, teacher.ids, teacher.log_p, teacher.tail, teacher.temperature)
        return self.divergence(*both, *more)

    def forward(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Sum:
        """Add the divergence of every row that counts in every head; see ``Term.forward``."""
        return compared({"": (self, student, teacher)}, batch=batch)[""]


class TemperedTerm(LogitTerm):
    """A divergence with a temperature.

    Args:
        temperature: greater than 0; None takes the run's ``temperature``, also when that changes during a search.
    """

    def __init__(self, temperature: float | None = None) -> None:
        super().__init__()
        if temperature is not None and not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"temperature={temperature} was given to {type(self).__name__}: give one greater than 0.")
        self.own_temperature = temperature
        self.temperature = 1.0 if temperature is None else temperature

    def set_temperature(self, temperature: float) -> None:
        """Take the run's temperature, if the term was not given one of its own; see ``Term.set_temperature``."""
        if self.own_temperature is None:
            self.temperature = temperature

    def extra_repr(self) -> str:
        """Show the temperature in ``print(term)``."""
        return f"temperature={self.temperature}"


class ForwardKL(TemperedTerm):
    """KL(teacher || student) * T**2: the soft targets of Hinton et al., 2015. See ``functional.forward_kl``.

    Args:
        temperature: greater than 0; None takes the run's.
    """

    citation: ClassVar[str] = "Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, arXiv:1503.02531"

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return [n]; see ``functional.forward_kl``."""
        return functional.forward_kl(student, teacher, self.temperature)

    def divergence_from_few(self, student: Tensor, teacher: TopKLogits) -> Tensor:
        """Return [n], unbiased, see ``sampled_forward_kl``; a teacher without draws gives a lower bound."""
        if not teacher.tail_ids.shape[-1]:
            return super().divergence_from_few(student, teacher)
        return topk_functional.sampled_forward_kl(
            student, teacher.ids, teacher.log_p, teacher.tail_ids, teacher.tail, teacher.entropy, self.temperature
        )


class ReverseKL(TemperedTerm):
    """KL(student || teacher) * T**2, which seeks the teacher's modes. See ``functional.reverse_kl``.

    Args:
        temperature: greater than 0; None takes the run's.
    """

    citation: ClassVar[str] = "Gu, Dong, Wei, Huang: MiniLLM, arXiv:2306.08543"

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return [n]; see ``functional.reverse_kl``."""
        return functional.reverse_kl(student, teacher, self.temperature)


class _MixedTerm(TemperedTerm):
    """A divergence from a mixture of both models, with a share strictly between 0 and 1."""

    share: ClassVar[str]

    def __init__(self, share: float, temperature: float | None) -> None:
        super().__init__(temperature)
        if not 0 < share < 1:
            raise ValueError(
                f"{self.share}={share} was given to {type(self).__name__}, which needs it strictly between 0 and 1: "
                "use forward_kl or reverse_kl for the two ends."
            )
        setattr(self, self.share, share)

    def extra_repr(self) -> str:
        """Show the share and the temperature in ``print(term)``."""
        return f"{self.share}={getattr(self, self.share)}, {super().extra_repr()}"


class JSD(_MixedTerm):
    """Generalised Jensen-Shannon divergence * T**2. See ``functional.jsd``.

    Args:
        beta: strictly between 0 and 1, the teacher's share of the mixture.
        temperature: greater than 0; None takes the run's.
    """

    citation: ClassVar[str] = "Agarwal et al.: On-Policy Distillation of Language Models, arXiv:2306.13649"
    share: ClassVar[str] = "beta"

    def __init__(self, beta: float = 0.5, temperature: float | None = None) -> None:
        super().__init__(beta, temperature)

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return [n]; see ``functional.jsd``."""
        return functional.jsd(student, teacher, self.beta, self.temperature)


class SkewKL(_MixedTerm):
    """KL(teacher || mixture) * T**2. See ``functional.skew_forward_kl``.

    Args:
        skew: strictly between 0 and 1, the teacher's share of the mixture.
        temperature: greater than 0; None takes the run's.
    """

    citation: ClassVar[str] = "Ko, Kim, Chen, Yun: DistiLLM, arXiv:2402.03898"
    share: ClassVar[str] = "skew"

    def __init__(self, skew: float = 0.1, temperature: float | None = None) -> None:
        super().__init__(skew, temperature)

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return [n]; see ``functional.skew_forward_kl``."""
        return functional.skew_forward_kl(student, teacher, self.skew, self.temperature)


class SkewReverseKL(SkewKL):
    """KL(student || mixture) * T**2. See ``functional.skew_reverse_kl``.

    Args:
        skew: strictly between 0 and 1, the student's share of the mixture.
        temperature: greater than 0; None takes the run's.
    """

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return [n]; see ``functional.skew_reverse_kl``."""
        return functional.skew_reverse_kl(student, teacher, self.skew, self.temperature)


class LogitMSE(LogitTerm):
    """Mean squared difference of the raw outputs; the soft target of regression. See ``functional.logit_mse``."""

    accepts: ClassVar[frozenset[str]] = frozenset({CATEGORICAL, BINARY, NUMBER})
    needs_raw_logits: ClassVar[bool] = True
    few: ClassVar[bool] = False
    citation: ClassVar[str] = "Ba, Caruana: Do Deep Nets Really Need to be Deep?, arXiv:1312.6184"

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return [n]; see ``functional.logit_mse``."""
        return functional.logit_mse(student, teacher)


class Top1CrossEntropy(LogitTerm):
    """Cross-entropy with the teacher's first choice. See ``functional.top1_cross_entropy``."""

    citation: ClassVar[str] = "Touvron et al.: Training data-efficient image transformers, arXiv:2012.12877"

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return [n]; see ``functional.top1_cross_entropy``."""
        return functional.top1_cross_entropy(student, teacher)

    def check_few(self, temperature: float) -> None:
        """Accept any temperature: the first choice is the same; see ``Term.check_few``."""

    def divergence_from_few(self, student: Tensor, teacher: TopKLogits) -> Tensor:
        """Return [n], for the highest id."""
        first = teacher.ids.gather(-1, teacher.log_p.argmax(dim=-1, keepdim=True)).squeeze(-1)
        return torch.nn.functional.cross_entropy(student.float(), first, reduction="none")


class LabelCrossEntropy(LogitTerm):
    """Cross-entropy with the label of each row: the supervised loss, where it is computed beside the soft one."""

    labelled: ClassVar[bool] = True

    def divergence(self, student: Tensor, labels: Tensor) -> Tensor:
        """Return [n], 0 for a row without a label."""
        return torch.nn.functional.cross_entropy(student, labels, reduction="none")
