"""Logits over what two vocabularies can both say of a span of text, made of one model's own logits.

Knows: logits, which tokens a model has for a span, which columns are whose. Does not know: offsets, the other model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_distill.signals import Logits

CHUNK_ELEMENTS = 2**24
"""How many float32 logits are held at once: a span has one row or more of a whole vocabulary."""

EMPTY = -30.0
"""The log of what is left of a probability that was moved elsewhere: a zero that every divergence can bear."""


class SpanLogits:
    """Log-probabilities of what comes next, where a span of text begins, in classes that both models have.

    With q the model's probabilities, over its own tokens, and y_1 ... y_k its tokens of the span, the classes are:

    - each token that both vocabularies have, with q(token) of the span's first row;
    - the span itself, with q(span) = q(y_1) q(y_2 | y_1) ... q(y_k | y_1 ... y_k-1), where no shared token stands for
      it alone; where one does in either model, the span is that token's class (``place``), and q(span) is added to it;
    - all tokens that only this model has, together; it is there only if the other model has such tokens too.
      Otherwise the classes before are all, as in ``Columns``.

    What is counted as the span is taken from its first token: q(y_1) becomes q(y_1) - q(span), so that the classes
    are disjoint events and their probabilities add up to 1. A span that is one and the same shared token in both
    models is just the model's own distribution over the shared tokens.

    Args:
        logits: [m, V], the rows of the spans' tokens, span by span.
        tokens: int64 [m], the token that each row should predict.
        lengths: int64 [N], how many tokens each span has.
        own: int64, the columns of all tokens of this model; the others are padding.
        shared: int64 [n], those that the other model has too, in an order that both models share.
        rest: int64, those that it has not; None: they are left out.
        place: int64 [N], for each span the shared token, counted from 0, that stands for it; None: for none one does.

    Example:
        >>> from hf_distill.signals import DenseLogits
        >>> rows = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]]).log()  # of tokens a, b, c; the text is a b
        >>> one, a, bc = torch.tensor([2]), torch.tensor([0]), torch.tensor([1, 2])
        >>> SpanLogits(DenseLogits(rows), torch.tensor([0, 1]), one, torch.arange(3), a, bc, None).chunk(0, 1).exp()
        tensor([[0.1000, 0.4000, 0.5000]])
    """

    def __init__(
        self,
        logits: Logits,
        tokens: Tensor,
        lengths: Tensor,
        own: Tensor,
        shared: Tensor,
        rest: Tensor | None,
        place: Tensor | None,
    ) -> None:
        self.logits, self.tokens, self.lengths = logits, tokens, lengths
        self.own, self.shared, self.rest, self.place = own, shared, rest, place

    @property
    def shape(self) -> torch.Size:
        """The number of spans, then of classes."""
        return torch.Size((len(self.lengths), len(self.shared) + (self.place is None) + (self.rest is not None)))

    def select(self, rows: Tensor) -> SpanLogits:
        """Keep the spans where ``rows`` (bool [N]) is true."""
        rows = rows.to(self.lengths.device)
        kept = rows.repeat_interleave(self.lengths)
        place = None if self.place is None else self.place[rows]
        each = (self.own, self.shared, self.rest, place)
        return SpanLogits(self.logits.select(kept), self.tokens[kept], self.lengths[rows], *each)

    def finite(self) -> Tensor:
        """Return for each span (bool [N]) whether all its rows hold neither infinity nor NaN."""
        lost = (~self.logits.finite()).long()
        return torch.zeros_like(self.lengths).index_add(0, self._span(self.lengths).to(lost.device), lost) == 0

    def chunk(self, start: int, stop: int) -> Tensor:
        """Return spans ``start:stop`` as float32 [stop - start, classes]."""
        stop = min(stop, len(self.lengths))
        step = max(1, CHUNK_ELEMENTS // max(1, self.logits.shape[-1]))
        parts = [self._classes(at, min(at + step, stop)) for at in range(start, max(stop, start + 1), step)]
        return torch.cat(parts)

    def _classes(self, start: int, stop: int) -> Tensor:
        before = int(self.lengths[:start].sum())
        lengths = self.lengths[start:stop]
        first = lengths.cumsum(0) - lengths
        whole = self.logits.chunk(before, before + int(lengths.sum()))
        tokens, own, lengths, first = (one.to(whole.device) for one in (self.tokens, self.own, lengths, first))
        log_q = whole - whole.index_select(-1, own).logsumexp(dim=-1, keepdim=True)
        tokens = tokens[before : before + len(log_q)].unsqueeze(-1)
        said = log_q.gather(-1, tokens).squeeze(-1)
        leading = torch.zeros_like(said, dtype=torch.bool).index_fill(0, first, True)
        others = torch.zeros(len(lengths), device=said.device).index_add(
            0, self._span(lengths), said.masked_fill(leading, 0.0)
        )
        return self._moved(log_q[first], tokens[first], said[first], others, lengths == 1, start, stop)

    def _moved(
        self, log_q: Tensor, token: Tensor, said: Tensor, others: Tensor, single: Tensor, start: int, stop: int
    ) -> Tensor:
        """Move the probability of each span from its first token to its class; see the class.

        Args:
            log_q: [n, V], of the first rows.
            token: int64 [n, 1], the first tokens.
            said: [n], their log-probabilities.
            others: [n], the log-probability of all others of the span, given the first.
            single: bool [n], there are no others.
            start: the first span.
            stop: the span after the last.
        """
        shared = self.shared.to(log_q.device)
        place = None if self.place is None else self.place[start:stop].to(log_q.device).unsqueeze(-1)
        # log(1 - exp(others)), which float32 can tell from 0 only as long as others is not within its rounding of 0.
        left = torch.where(single, EMPTY, (-others.masked_fill(single, -1.0).clamp(max=-(2.0**-20)).expm1()).log())
        stays = torch.zeros_like(single) if place is None else single & (shared[place] == token).squeeze(-1)
        log_q = log_q.scatter(-1, token, torch.where(stays, said, said + left).unsqueeze(-1))
        span, classes = (said + others).unsqueeze(-1), log_q.index_select(-1, shared)
        if place is None:
            classes = torch.cat((classes, span), dim=-1)
        else:
            there = classes.gather(-1, place)
            joined = torch.where(stays.unsqueeze(-1), there, torch.logaddexp(there, span))
            classes = classes.scatter(-1, place, joined)
        if self.rest is None:
            return classes
        rest = log_q.index_select(-1, self.rest.to(log_q.device)).logsumexp(dim=-1, keepdim=True)
        return torch.cat((classes, rest), dim=-1)

    def _span(self, lengths: Tensor) -> Tensor:
        return torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
