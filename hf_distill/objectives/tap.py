"""A term that compares what any module of the two models gives.

Knows: two paths. Does not know: what stands there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hf_distill.models.facts import Facts
from hf_distill.models.meta import flat
from hf_distill.objectives.maps import on_one_grid
from hf_distill.objectives.term import Term
from hf_distill.signals import Signals, Sum


class TapMSE(Term):
    """Mean squared difference of the outputs of two modules; where their widths differ the student's is projected.

    Of outputs [B, T, H] the positions that are not padding count, of all others [B, ...] whole samples: each
    sample's value is the mean over its positions, so rows of every length weigh the same. Feature maps [B, C, H, W]
    are compared on the smaller of their grids.

    Args:
        path: the student's module, as in ``model.named_modules()``; a tuple's first tensor is taken.
        teacher_path: the teacher's; None: the same path.
        widths: the last dimension of both outputs, of maps their channels, (student, teacher); given, a projection is
            trained between them.

    Raises:
        ValueError: no path, or widths that are not two numbers.

    Reference:
        Romero et al.: FitNets, arXiv:1412.6550, equation 3.

    Example:
        >>> term, shown = TapMSE("bert.pooler"), torch.tensor([[1.0, 3.0]])
        >>> sorted(term.needs)
        ['tap:bert.pooler']
        >>> student, teacher = (Signals({}, taps={"bert.pooler": state}) for state in (shown, shown + 2.0))
        >>> term(student, teacher, {})
        Sum(total=tensor(4.), count=tensor(1))
    """

    unit: ClassVar[str] = "samples"
    citation: ClassVar[str] = "Romero et al.: FitNets: Hints for Thin Deep Nets, arXiv:1412.6550"

    def __init__(
        self, path: str, teacher_path: str | None = None, widths: tuple[int, int] | list[int] | None = None
    ) -> None:
        super().__init__()
        if not path:
            raise ValueError("tap_mse was given an empty path: name a module, as in model.named_modules().")
        if widths is not None and (len(widths) != 2 or not all(isinstance(w, int) and w > 0 for w in widths)):
            raise ValueError(f"widths={widths} was given to tap_mse: give two numbers, (student, teacher).")
        self.path, self.teacher_path, self.widths = path, teacher_path or path, widths
        self.needs = frozenset({f"tap:{self.path}"})
        self.projection: nn.Linear | None = None

    @property
    def teacher_needs(self) -> frozenset[str]:
        """The teacher's path; see ``Term.teacher_needs``."""
        return frozenset({f"tap:{self.teacher_path}"})

    def build(self, student: Facts, teacher: Facts) -> None:
        """Make the projection; see ``Term.build``."""
        self.projection = nn.Linear(*self.widths, bias=False) if self.widths else None

    def forward(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Sum:
        """Add over the samples; see ``Term.forward``."""
        shown = student.taps[self.path]
        wanted = teacher.taps[self.teacher_path].to(shown.device).float()
        if shown.ndim == wanted.ndim == 4 and (self.projection is not None or shown.shape[2:] != wanted.shape[2:]):
            grids = tuple(shown.shape[2:]), tuple(wanted.shape[2:])
            shown, wanted = on_one_grid(flat(shown), flat(wanted), "tap_mse", grids)
            share = torch.ones(len(shown), device=shown.device)
        else:
            share = _shares(shown, student.mask)
        if self.projection is not None:
            shown = self.projection(_zeroed(shown, share))
        if shown.shape != wanted.shape:
            raise ValueError(
                f"tap_mse was asked to compare {self.path}, of shape {list(shown.shape)}, with the teacher's "
                f"{self.teacher_path}, of shape {list(wanted.shape)}: give widths=(student, teacher) if only the last "
                "dimension differs, or name other modules."
            )
        gap = _zeroed(shown.float(), share) - _zeroed(wanted, share)
        each = gap.square().mean(dim=-1) * share if share.ndim > 1 else gap.flatten(1).square().mean(dim=1)
        return Sum(each.sum(), torch.tensor(len(shown), device=shown.device))


def _shares(shown: Tensor, mask: Tensor | None) -> Tensor:
    """Return how much of its sample each position is [B, T]; ones [B] where there are no positions."""
    if shown.ndim != 3 or mask is None or shown.shape[:2] != mask.shape:
        return torch.ones(len(shown), device=shown.device)
    real = mask.to(shown.device).float()
    return real / real.sum(dim=1, keepdim=True).clamp(min=1)


def _zeroed(state: Tensor, share: Tensor) -> Tensor:
    """Zero padding: not-a-number times zero is not zero."""
    return state.masked_fill((share == 0).unsqueeze(-1), 0) if share.ndim > 1 else state
