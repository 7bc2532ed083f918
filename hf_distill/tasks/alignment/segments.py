"""Where two tokenizations of one text have read the same part of it, and what tokens lie between two such places.

Knows: character offsets, which tokens are predicted. Does not know: token strings, logits, models.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

END = 2**40
"""Where the token ends that stands behind the text: behind every text, whatever its length."""


class Tokens(NamedTuple):
    """The tokens of one model for a batch, and where they are in the text.

    Args:
        ids: int64 [B, T].
        offsets: int64 [B, T, 2], the first character of each and the one after its last, as a tokenizer gives them
            (``return_offsets_mapping=True``); equal for a token that stands for no text.
        real: bool [B, T], which are not padding.
        predicted: bool [B, T], which have a row of the head that speaks of them and counts.
        shift: how many positions before its token a row stands: 1 in a decoder that reads what it predicts, else 0.
    """

    ids: Tensor
    offsets: Tensor
    real: Tensor
    predicted: Tensor
    shift: int


class Side(NamedTuple):
    """What one model says of N spans, each of one token or more.

    Args:
        rows: bool [B, T], the rows of the head that speak of the spans' tokens; in their order, span by span.
        tokens: int64 [m], the token that each of these rows should predict.
        lengths: int64 [N], how many tokens each span has; m together.
    """

    rows: Tensor
    tokens: Tensor
    lengths: Tensor

    def chosen(self, spans: Tensor) -> Side:
        """Keep some spans.

        Args:
            spans: bool [N], which.
        """
        kept = spans.repeat_interleave(self.lengths)
        rows = self.rows.clone()
        rows[self.rows] = kept
        return Side(rows, self.tokens[kept], self.lengths[spans])

    @property
    def firsts(self) -> Tensor:
        """The first token of each span, int64 [N]."""
        return self.tokens[self.lengths.cumsum(0) - self.lengths]


def spans(ours: Tokens, theirs: Tokens) -> tuple[Side, Side]:
    """Cut a batch of texts wherever a token of both models ends, and keep the parts that both predict.

    A span is the text between two neighbouring characters behind which both tokenizations have the end of a token.
    At its beginning both models have read exactly the same text. It is kept if each of its tokens, in both models,
    has a row that counts. Of several tokens that end behind the same character (the bytes of one) the last ends it.
    A token for no text is in no span, but the first one behind the whole text, that of its end, ends the last span.

    Args:
        ours: the student's tokens.
        theirs: the teacher's, of the same texts in the same order.

    Returns:
        The student's and the teacher's side of the same N spans.

    Example:
        >>> def row(*ends):
        ...     offsets = torch.tensor([[(a, b) for a, b in zip((0, *ends), ends)]])
        ...     predicted = torch.ones(1, len(ends), dtype=torch.bool)
        ...     return Tokens(torch.arange(len(ends))[None], offsets, predicted, predicted, shift=0)
        >>> ours, theirs = spans(row(2, 5, 6), row(1, 2, 4, 6))  # ab cde f, and a b cd ef
        >>> ours.lengths.tolist(), theirs.lengths.tolist()
        ([1, 2], [2, 2])
    """
    both = [_ends(one) for one in (ours, theirs)]
    marked = [_among(*mine, other[0]) for mine, other in zip(both, both[::-1], strict=True)]
    count = marked[0].sum(dim=-1)
    first = (count.cumsum(0) - count).unsqueeze(-1)
    sides, whole = [], []
    for tokens, (_, text), cut in zip((ours, theirs), both, marked, strict=True):
        group = cut.cumsum(dim=-1) - cut.long()  # how many cuts lie before the token's end
        inside = text & (group < count.unsqueeze(-1))
        group = (group + first)[inside]
        size, total = (torch.zeros(int(count.sum()), dtype=torch.int64, device=group.device) for _ in range(2))
        size.index_add_(0, group, torch.ones_like(group))
        total.index_add_(0, group, tokens.predicted[inside].long())
        whole.append(size == total)
        sides.append((tokens, inside, size))
    kept = whole[0] & whole[1]
    return _side(*sides[0], kept), _side(*sides[1], kept)


def _ends(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Where each token ends, never falling along a row, and which tokens are part of a span."""
    start, end = tokens.offsets.unbind(dim=-1)
    text = tokens.real & (end > start)
    ends = torch.where(text, end, 0).cummax(dim=-1).values
    behind = tokens.real & ~text & (ends == ends[:, -1:]) & (ends > 0)
    behind &= behind.cumsum(dim=-1) == 1
    return torch.where(behind, END, ends).cummax(dim=-1).values, text | behind


def _among(ends: Tensor, text: Tensor, others: Tensor) -> Tensor:
    """Which tokens are the last that end behind a character where a token of the other model ends too."""
    following = torch.where(text, ends, 2 * END).flip(-1).cummin(dim=-1).values.flip(-1)
    following = torch.nn.functional.pad(following[:, 1:], (0, 1), value=2 * END)
    found = torch.searchsorted(others.contiguous(), ends.contiguous()).clamp(max=others.shape[1] - 1)
    return text & (following > ends) & (others.gather(-1, found) == ends)


def _side(tokens: Tokens, inside: Tensor, lengths: Tensor, kept: Tensor) -> Side:
    taken = inside.clone()
    taken[inside] = kept.repeat_interleave(lengths)
    rows = torch.nn.functional.pad(taken[:, tokens.shift :], (0, tokens.shift), value=False)
    return Side(rows, tokens.ids[taken], lengths[kept])
