"""A term for two vocabularies that have nothing in common but that both are probabilities.

Knows: heads. Does not know: tokens, tokenizers, which positions were put together.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from hf_distill.objectives.logits import LogitTerm


class ULD(LogitTerm):
    """Universal Logit Distillation: the distance between sorted probabilities, whatever they are probabilities of.

    Both distributions are sorted, the shorter one is given zeros, and the absolute differences are added: up to a
    factor the Wasserstein distance where moving any probability to any other class costs the same. It says how sure
    the student should be, and never of what, so it belongs beside labels (``alpha`` below 1).

    Args:
        temperature: both logits are divided by it, greater than 0. The paper's is 1, and the run's is not taken: the
            value has no factor that would make up for another one.

    Reference:
        Boizard et al.: Towards Cross-Tokenizer Distillation: the Universal Logit Distillation Loss for LLMs,
        arXiv:2402.12030, the closed form of the Wasserstein distance under a uniform cost.

    Example:
        >>> student, teacher = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.1, 0.7, 0.2]]).log()
        >>> ULD().divergence(student, teacher)  # |0.5 - 0.7| + |0.5 - 0.2| + |0 - 0.1|
        tensor([0.6000])
    """

    citation: ClassVar[str] = "Boizard et al.: Universal Logit Distillation Loss for LLMs, arXiv:2402.12030"
    few: ClassVar[bool] = False
    compares_sorted: ClassVar[bool] = True

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"temperature={temperature} was given to ULD: give one greater than 0.")
        self.temperature = temperature

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return [n]; the numbers of classes may differ."""
        size = max(student.shape[-1], teacher.shape[-1])
        ours, theirs = (
            torch.nn.functional.pad(
                (logits / self.temperature).softmax(dim=-1).sort(dim=-1, descending=True).values,
                (0, size - logits.shape[-1]),
            )
            for logits in (student, teacher)
        )
        return (ours - theirs).abs().sum(dim=-1)

    def extra_repr(self) -> str:
        """Show the temperature in ``print(term)``."""
        return f"temperature={self.temperature}"
