"""Several texts packed into one row: where each begins, and what a model shows for each of them.

Knows: position ids that begin anew, sequence numbers, cumulated lengths; Signals. Does not know: models, terms.

A packed row is no text. What is taken of a text as a whole (its vector, its first token, which of its tokens look at
which) is taken of each document, so that packing changes nothing but the padding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_distill.signals import Signals


class Documents(NamedTuple):
    """Where the texts of a packed batch are.

    Args:
        index: int64 [D, L], for each document its positions among those of all rows, B * T; 0 where it is shorter.
        mask: bool [D, L], where it is not shorter.
        shape: B and T.
    """

    index: Tensor
    mask: Tensor
    shape: torch.Size

    @classmethod
    def of(cls, batch: Mapping[str, Any], real: Tensor | None) -> Documents | None:
        """Find the documents of a batch.

        Args:
            batch: the batch.
            real: bool [B, T], the positions that are not padding; None: there are none that are known.

        Returns:
            Where they are; None where each row is one text.

        Example:
            >>> packed = {"position_ids": torch.tensor([[0, 1, 2, 0, 1]])}
            >>> Documents.of(packed, torch.ones(1, 5, dtype=torch.bool)).index.tolist()
            [[0, 1, 2], [3, 4, 0]]
        """
        begins = None if real is None else beginnings(batch, real)
        if begins is None or int(begins.sum()) <= len(begins):  # waits for the device, of batches that may be packed
            return None
        places = real.flatten().nonzero()[:, 0]
        numbers = begins.flatten().cumsum(0)[places] - 1
        lengths = torch.bincount(numbers)
        mask = torch.arange(int(lengths.max()), device=real.device) < lengths.unsqueeze(-1)
        return cls(torch.zeros_like(mask, dtype=torch.int64).masked_scatter(mask, places), mask, real.shape)

    def split(self, states: Tensor) -> Tensor:
        """Cut what has one entry a position.

        Args:
            states: [B, T, ...].

        Returns:
            [D, L, ...]; behind a shorter document stands anything.
        """
        return states.flatten(0, 1)[self.index.to(states.device)]

    def split_maps(self, maps: Tensor) -> Tensor:
        """Cut attention maps; what looks at another document's tokens is left out.

        Args:
            maps: [B, heads, T, T].

        Returns:
            [D, heads, L, L].
        """
        index = self.index.to(maps.device)
        row, place = index[:, :1] // self.shape[1], index % self.shape[1]
        return maps[row.unsqueeze(-1), :, place.unsqueeze(-1), place.unsqueeze(1)].permute(0, 3, 1, 2)

    def signals(self, shown: Signals) -> Signals:
        """Show each document as a row of its own; heads, whose rows are positions already, stay as they are.

        So do other streams than the main one, whose positions are not those of these texts.

        Args:
            shown: what a model shows of the batch.

        Returns:
            The same, of D rows; a layer is cut when it is looked at.
        """
        taps = {p: self.split(tap) if tap.shape[:2] == self.shape else tap for p, tap in shown.taps.items()}
        return replace(
            shown,
            hidden=_Cut(shown.hidden, self.split),
            attention=_Cut(shown.attention, self.split_maps),
            qkv=_Cut(shown.qkv, lambda layer: tuple(map(self.split, layer))),
            taps=taps,
            mask=self.mask,
        )


def apart(student: Signals, teacher: Signals, ours: Documents, theirs: Documents | None) -> tuple[Signals, Signals]:
    """Cut what two models show of the same packed texts; and what each has under the name of one of several teachers.

    Args:
        student: what the student shows.
        teacher: what the teacher shows, comparable with it.
        ours: where the texts are in what the student reads.
        theirs: where they are in what the teacher reads; None: each of its rows is one text.

    Returns:
        The student's and the teacher's signals, a text a row.

    Raises:
        ValueError: the teacher reads other texts.
    """
    if theirs is None or len(theirs.index) != len(ours.index):
        raise ValueError(
            f"the student reads {len(ours.index)} packed texts, the teacher "
            f"{'one in each row' if theirs is None else len(theirs.index)}: pack the same texts for both."
        )
    cut = (
        replace(documents.signals(one), named={name: documents.signals(own) for name, own in one.named.items()})
        for documents, one in ((ours, student), (theirs, teacher))
    )
    return tuple(cut)


def beginnings(batch: Mapping[str, Any], real: Tensor) -> Tensor | None:
    """Say at which positions a document begins.

    Args:
        batch: the batch; read are ``seq_idx`` [B, T], ``cu_seq_lens_q`` of a batch of one row, or ``position_ids``
            [B, T] that do not rise.
        real: bool [B, T], the positions that are not padding.

    Returns:
        bool [B, T]; None where the batch has none of these columns, so that each row is one text.

    Example:
        >>> beginnings({"position_ids": torch.tensor([[0, 1, 0, 1]])}, torch.tensor([[True, True, True, True]]))
        tensor([[ True, False,  True, False]])
    """
    first = real & (real.cumsum(dim=-1) == 1)
    numbers, ends, places = (batch.get(name) for name in ("seq_idx", "cu_seq_lens_q", "position_ids"))
    if isinstance(numbers, Tensor) and numbers.shape == real.shape:
        return first | (real & _differs(numbers, lambda now, before: now != before))
    if isinstance(ends, Tensor) and len(real) == 1:
        begins = torch.zeros(real.shape[1] + 1, dtype=torch.bool, device=real.device)
        begins[ends.flatten().long().to(real.device)] = True
        return first | (real & begins[:-1])
    if isinstance(places, Tensor) and places.shape == real.shape:
        return first | (real & _differs(places, lambda now, before: now <= before))
    return None


def without_filling(batch: Mapping[str, Any], real: Tensor) -> Tensor:
    """Leave out what only fills up packed rows: positions that are all 0 at a row's end, without a label.

    Collators that pack give no mask, because attention would not look at position ids beside one.

    Args:
        batch: the batch.
        real: bool [B, T], the positions that may be a text's.

    Returns:
        bool [B, T].

    Example:
        >>> batch = {"position_ids": torch.tensor([[0, 1, 0, 0, 0]])}
        >>> without_filling(batch, torch.ones(1, 5, dtype=torch.bool))
        tensor([[ True,  True, False, False, False]])
    """
    places, labels = batch.get("position_ids"), batch.get("labels")
    if "attention_mask" in batch or not isinstance(places, Tensor) or places.shape != real.shape:
        return real
    zero = (places == 0) if labels is None or labels.shape != real.shape else (places == 0) & (labels == -100)
    tail = zero.flip(-1).cumprod(dim=-1).flip(-1).bool()
    tail[:, 0] = False  # a row begins with a text
    return real & ~(tail & (tail.sum(dim=-1, keepdim=True) > 1))  # a single 0 may be a text of one token


def _differs(numbers: Tensor, compare: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    return F.pad(compare(numbers[:, 1:], numbers[:, :-1]), (1, 0), value=False)


class _Cut(Sequence):
    """Layers that are cut into documents when they are looked at: a term compares few of them."""

    def __init__(self, layers: Sequence[Any], cut: Callable[[Any], Any]) -> None:
        self.layers, self.cut = layers, cut

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, layer: int) -> Any:
        return self.cut(self.layers[layer])
