"""DistiLLM-2: other divergences on the teacher's texts than on the student's own.

Knows: logits, which rows the student wrote. Does not know: who writes them and when, how logits are held.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_distill.objectives.functional import kl_of_log_probs
from hf_distill.objectives.logits import TemperedTerm
from hf_distill.signals import STUDENT_WROTE, Head, Logits

LEAST = 0.01
"""How small the teacher's share of a mixture may become."""
CHUNK_ELEMENTS = 2**24


def skewed_by_writer(
    student: Tensor, teacher: Tensor, wrote: Tensor, skew: Tensor, temperature: float = 1.0
) -> Tensor:
    """Skewed forward KL where the teacher wrote, skewed reverse KL where the student did.

    Args:
        student: logits [n, V], the distribution q.
        teacher: logits [n, V], the distribution p.
        wrote: bool [n], the rows that the student wrote.
        skew: float32 [n], strictly between 0 and 1: the share of a KL's own first distribution in the mixture.
        temperature: both logits are divided by it, the value is multiplied by its square.

    Returns:
        [n], float32, T**2 KL(p || skew p + (1 - skew) q), or T**2 KL(q || skew q + (1 - skew) p) of the student's.

    Reference:
        Ko et al.: DistiLLM-2: A Contrastive Approach Boosts the Distillation of LLMs, arXiv:2503.07067.

    Example:
        >>> both = torch.tensor([[0.0, 0.0]] * 2), torch.tensor([[0.0, math.log(3.0)]] * 2)
        >>> skewed_by_writer(*both, torch.tensor([False, True]), torch.tensor([0.1, 0.1]))
        tensor([0.1070, 0.1131])
    """
    p, q = ((logits.float() / temperature).log_softmax(dim=-1) for logits in (teacher, student))
    wrote, skew = wrote.unsqueeze(-1), skew.unsqueeze(-1)
    first, second = torch.where(wrote, q, p), torch.where(wrote, p, q)
    mixture = torch.logaddexp(first + skew.log(), second + (-skew).log1p())
    return temperature**2 * kl_of_log_probs(first, mixture)


def adapted_skew(gap: Tensor, anchor: Tensor, skew: float) -> Tensor:
    """Say how much of itself a sample's mixture has: less where the two models are as near as usual, or nearer.

    Args:
        gap: float32 [B], by how much the writer finds a text likelier than the other model does; see ``gaps``.
        anchor: float32 [B], what is usual for a text of this writer: the mean gap.
        skew: the share of a sample whose gap is the greatest; the one of all where nothing is adapted.

    Returns:
        float32 [B], ``1 - (1 - skew) * anchor / gap``, at least 0.01 and at most ``skew``.

    Example:
        >>> adapted_skew(torch.tensor([0.05, 0.092, 0.2]), torch.tensor(0.1), skew=0.1)
        tensor([0.0100, 0.0218, 0.1000])
    """
    return (1.0 - (1.0 - skew) * anchor / (gap + 1e-5)).clamp(min(LEAST, skew), skew)


@torch.no_grad()
def gaps(student: Head, teacher: Head, wrote: Tensor) -> Tensor:
    """Compare how likely two models find each text, token by token.

    Args:
        student: the student's logits [B, T, V], and in ``written`` what stands there.
        teacher: the teacher's, over the same tokens.
        wrote: bool [B], the texts that the student wrote.

    Returns:
        float32 [B], the geometric mean of a text's probabilities under the model that wrote it (the teacher, if it
        was not the student), less that under the other; 0 for a text without tokens.
    """
    counted = student.rows & (student.written >= 0)
    of, tokens = counted.nonzero()[:, 0], student.written[counted]
    means = []
    for logits in (teacher.logits, student.logits):
        logs = _log_probs_of(logits.select(counted), tokens).to(counted.device)
        total = torch.zeros(len(counted), device=counted.device).index_add(0, of, logs)
        means.append((total / counted.sum(dim=1).clamp(min=1)).exp())
    return torch.where(wrote, means[1] - means[0], means[0] - means[1])


def _log_probs_of(logits: Logits, tokens: Tensor) -> Tensor:
    size, found = max(1, CHUNK_ELEMENTS // logits.shape[-1]), [torch.zeros(0, device=tokens.device)]
    for start in range(0, len(tokens), size):
        chunk, asked = logits.chunk(start, start + size), tokens[start : start + size, None]
        found.append(chunk.log_softmax(dim=-1).gather(-1, asked.to(chunk.device)).squeeze(-1).to(tokens.device))
    return torch.cat(found)


class DistiLLM2(TemperedTerm):
    """Skewed forward KL on what the teacher wrote, skewed reverse KL on the student's own texts; all times T**2.

    It is made for rows of both kinds, ``rollout={"on_policy": 0.5, "seq_kd": 0.5}``; a row that nobody wrote anew
    counts as one of the teacher's. All rows are counted together, so the share of the student's is ``on_policy``.

    Args:
        skew: strictly between 0 and 1, the share of a KL's own first distribution in the mixture.
        anchors: the usual gap between both models on the teacher's texts and on the student's, two numbers greater
            than 0, as ``gaps`` measures them; each sample's skew then follows from its own gap, see ``adapted_skew``.
            They stay as they are during the run, so a sample's skew depends on nothing but itself. None: ``skew`` for
            all, as in the authors' code unless it is told otherwise.
        temperature: greater than 0; None takes the run's.

    Raises:
        ValueError: a skew or anchors that cannot be used; rows of two tokenizers that belong to no sample.

    Reference:
        Ko et al., arXiv:2503.07067. The authors' code takes no gradient through the student's share of the mixture in
        the reverse KL; here it is taken, as their formula has it.

    Example:
        >>> DistiLLM2(skew=0.1)
        DistiLLM2(skew=0.1, anchors=None, temperature=1.0)
    """

    citation: ClassVar[str] = (
        "Ko et al.: DistiLLM-2: A Contrastive Approach Boosts the Distillation of LLMs, arXiv:2503.07067"
    )

    def __init__(
        self, skew: float = 0.1, anchors: Sequence[float] | None = None, temperature: float | None = None
    ) -> None:
        super().__init__(temperature)
        if not 0 < skew < 1:
            raise ValueError(f"skew={skew} was given to distillm2: give a share strictly between 0 and 1.")
        if anchors is not None and (len(anchors) != 2 or not all(0 < one < math.inf for one in anchors)):
            raise ValueError(
                f"anchors={anchors} was given to distillm2: give two numbers greater than 0, the mean gap on the "
                "teacher's texts and on the student's, or leave it out."
            )
        self.skew, self.anchors = skew, anchors
        self.few = anchors is None  # a few ids may lack the ones that stand in a text

    def beside(self, student: Head, teacher: Head, batch: Mapping[str, Any]) -> Tensor:
        """Say of each row whether the student wrote it, and its skew: float32 [..., 2]; see ``LogitTerm.beside``."""
        rows = student.rows
        wrote = batch.get(STUDENT_WROTE, torch.zeros(len(rows), dtype=torch.bool)).to(rows.device)
        if rows.ndim < 2 and STUDENT_WROTE in batch:
            raise ValueError(
                "distillm2 asks who wrote each text, and the rows that two tokenizers share belong to none: use "
                "skew_kl or skew_reverse_kl, or models with one tokenizer."
            )
        skew = torch.full(wrote.shape, self.skew, device=rows.device)
        if self.anchors is not None:
            if student.written is None or rows.ndim < 2:
                raise ValueError(
                    "anchors were given to distillm2, and nobody knows which tokens stand in the rows: use it for a "
                    "language model with its teacher's tokenizer, or leave anchors out."
                )
            anchor = torch.where(wrote, self.anchors[1], self.anchors[0])
            skew = adapted_skew(gaps(student, teacher, wrote), anchor, self.skew)
        both = torch.stack((wrote.float(), skew), dim=-1)
        return both.view(len(rows), *[1] * (rows.ndim - 1), 2).expand(*rows.shape, 2)

    def divergence(self, student: Tensor, teacher: Tensor, beside: Tensor) -> Tensor:
        """Return [n]; see ``skewed_by_writer``."""
        wrote, skew = beside.unbind(dim=-1)
        return skewed_by_writer(student, teacher, wrote > 0, skew, self.temperature)

    def extra_repr(self) -> str:
        """Show the options in ``print(term)``."""
        return f"skew={self.skew}, anchors={self.anchors}, {super().extra_repr()}"
