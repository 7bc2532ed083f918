"""Frames of two rates: which frame of one model belongs to which of the other.

Knows: how many frames each row has, how blank each is. Does not know: letters, models, losses.
"""

from __future__ import annotations

import torch
from torch import Tensor


def places(ours: Tensor, theirs: Tensor, silent: Tensor) -> Tensor:
    """Choose a frame of the other model for each of one's own.

    Where the other has more frames, several fall onto one: the least blank of them is taken, because the mean of them,
    or the nearest, would lose the letters, which are spoken in few. Where it has fewer, frames recur.

    Args:
        ours: bool [B, T], frames that count, from the first on.
        theirs: bool [B, S].
        silent: [B, S], how blank each of the other's frames is.

    Returns:
        int64 [B, T]; 0 where nothing counts.

    Example:
        >>> coarse, fine = torch.ones(1, 2).bool(), torch.ones(1, 6).bool()
        >>> places(coarse, fine, torch.tensor([[0.9, 0.1, 0.9, 0.9, 0.9, 0.2]]))
        tensor([[1, 5]])
        >>> places(fine, coarse, torch.zeros(1, 2))
        tensor([[0, 0, 0, 1, 1, 1]])
    """
    lengths, others = ours.sum(dim=1, keepdim=True), theirs.sum(dim=1, keepdim=True)
    at, there = (torch.arange(one.shape[1], device=one.device).expand(one.shape) for one in (ours, theirs))
    # Where the other has fewer: the one in whose time the middle of a frame lies.
    nearest = ((2 * at + 1) * others).div(2 * lengths.clamp(min=1), rounding_mode="floor")
    nearest = nearest.clamp(min=0).minimum((others - 1).clamp(min=0))
    # Where it has more: the frame of ours onto which each of its falls, and the least blank of those.
    bins = (there * lengths).div(others.clamp(min=1), rounding_mode="floor").clamp(max=max(0, ours.shape[1] - 1))
    shown = silent.float().masked_fill(~theirs, torch.inf)
    least = shown.new_full(ours.shape, torch.inf).scatter_reduce(1, bins, shown, "amin")
    first = torch.where((shown == least.gather(1, bins)) & theirs, there, theirs.shape[1])
    chosen = torch.full_like(at, theirs.shape[1]).scatter_reduce(1, bins, first, "amin")
    return torch.where(others > lengths, chosen.clamp(max=max(0, theirs.shape[1] - 1)), nearest).masked_fill(~ours, 0)


def taken(state: Tensor, place: Tensor) -> Tensor:
    """Take frames by their place.

    Args:
        state: [B, S, ...].
        place: int64 [B, T].

    Returns:
        [B, T, ...].

    Example:
        >>> taken(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[1, 1, 0]])).flatten().tolist()
        [2.0, 2.0, 1.0]
    """
    return state.gather(1, place.view(*place.shape, *[1] * (state.ndim - 2)).expand(-1, -1, *state.shape[2:]))


def averaged(state: Tensor, ours: Tensor, theirs: Tensor) -> Tensor:
    """Bring frames that say nothing of letters to another rate: the mean of those that fall onto one, or recurring.

    Args:
        state: [B, S, H].
        ours: bool [B, T], frames that count, from the first on.
        theirs: bool [B, S], of the state's.

    Returns:
        [B, T, H]; zero where nothing counts.

    Example:
        >>> fine = torch.tensor([[[1.0], [3.0], [5.0], [9.0]]])
        >>> averaged(fine, torch.ones(1, 2).bool(), torch.ones(1, 4).bool()).flatten().tolist()
        [2.0, 7.0]
        >>> averaged(fine, torch.ones(1, 8).bool(), torch.ones(1, 4).bool()).flatten().tolist()
        [1.0, 1.0, 3.0, 3.0, 5.0, 5.0, 9.0, 9.0]
    """
    lengths, others = ours.sum(dim=1, keepdim=True), theirs.sum(dim=1, keepdim=True)
    there = torch.arange(theirs.shape[1], device=theirs.device).expand(theirs.shape)
    bins = (there * lengths).div(others.clamp(min=1), rounding_mode="floor").clamp(max=max(0, ours.shape[1] - 1))
    wide = bins.unsqueeze(-1).expand(state.shape)
    counted = state.masked_fill(~theirs.unsqueeze(-1), 0)
    added = state.new_zeros(*ours.shape, state.shape[-1]).scatter_add(1, wide, counted)
    several = state.new_zeros(ours.shape).scatter_add(1, bins, theirs.to(state.dtype))
    nearest = taken(state, places(ours, theirs, torch.zeros_like(theirs, dtype=torch.float32)))
    found = torch.where((others > lengths).unsqueeze(-1), added / several.clamp(min=1).unsqueeze(-1), nearest)
    return found.masked_fill(~ours.unsqueeze(-1), 0)
