"""Ways to make another row of a row, for which nobody has a label and the teacher has an answer.

Knows: token ids, which of them are special, a generator for each row. Does not know: labels, batches, models, epochs.

No way keeps what a row means, and none needs to: the teacher is asked what it makes of the new row (Tang et al. 2019,
arXiv:1903.12136, section 3.2).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar, NamedTuple


class Tokens(NamedTuple):
    """A row without its padding.

    Args:
        ids: the token ids, special ones included.
        types: the segment of each token, as in ``token_type_ids``; None where rows have none.
    """

    ids: list[int]
    types: list[int] | None = None

    def part(self, start: int, stop: int) -> Tokens:
        """Return some of the tokens.

        Args:
            start: the first of them.
            stop: one past the last.
        """
        return Tokens(self.ids[start:stop], None if self.types is None else self.types[start:stop])

    def __add__(self, other: Tokens) -> Tokens:  # tokens behind tokens, not a tuple of four
        """Put other tokens behind these."""
        both = None if self.types is None or other.types is None else [*self.types, *other.types]
        return Tokens([*self.ids, *other.ids], both)


class Marks(NamedTuple):
    """The tokens that a tokenizer itself puts into a text.

    Args:
        special: ids that are never changed: those around the text, and padding.
        mask: what stands for a word that cannot be seen; None where there is none.
    """

    special: frozenset[int]
    mask: int | None = None

    @classmethod
    def of(cls, tokenizer: Any) -> Marks:
        """Read a tokenizer.

        An unknown word is a word, so its token is not special; it stands for a masked one where there is no mask.
        Decoders that call all their special tokens by one name have neither.

        Args:
            tokenizer: as transformers has them.
        """
        unknown, mask = tokenizer.unk_token_id, tokenizer.mask_token_id
        around = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        ends = {*around, tokenizer.cls_token_id, tokenizer.sep_token_id} - {None}
        words = {unknown, mask} - ends
        stands = mask if mask is not None else next(iter(words - {None}), None)
        return cls(frozenset({*tokenizer.all_special_ids, *ends} - words), stands)

    def inside(self, ids: Sequence[int]) -> tuple[int, int]:
        """Find the text between the special tokens at both ends.

        Args:
            ids: of a row.

        Returns:
            Where it starts and one past its end; the same number twice where a row has nothing but special tokens.

        Example:
            >>> Marks(frozenset({0, 2, 3})).inside([2, 7, 3, 8, 3, 0])
            (1, 4)
            >>> Marks(frozenset({0, 2, 3})).inside([2, 3])
            (2, 2)
        """
        start, stop = 0, len(ids)
        while start < stop and ids[start] in self.special:
            start += 1
        while stop > start and ids[stop - 1] in self.special:
            stop -= 1
        return start, stop


class Augmentation(ABC):
    """The contract: a row, and the generator of this row's copy, make another row.

    Attributes:
        masks: it needs a token that stands for a word that cannot be seen.
        partners: it needs a second row.
        here: it runs a model, and so in the process that trains, never in a worker.
    """

    masks: ClassVar[bool] = False
    partners: ClassVar[bool] = False
    here: ClassVar[bool] = False

    @abstractmethod
    def one(self, row: Tokens, draw: Random, marks: Marks, partner: Tokens | None = None) -> Tokens:
        """Make another row of a row; the same of the same, whatever else is in the batch.

        Args:
            row: the row, which is not changed.
            draw: the generator of this row's copy, the only source of chance.
            marks: which tokens are special.
            partner: another row of the micro-batch, where ``partners``; None where there is no other.
        """

    def __call__(
        self, rows: Sequence[Tokens], draws: Sequence[Random], marks: Marks, partners: Sequence[Tokens | None]
    ) -> list[Tokens]:
        """Make another row of each row.

        Args:
            rows: the rows.
            draws: a generator for each.
            marks: which tokens are special.
            partners: another row for each, or None.
        """
        each = zip(rows, draws, partners, strict=True)
        return [self.one(row, draw, marks, partner) for row, draw, partner in each]


@dataclass(frozen=True)
class Mask(Augmentation):
    """Hide words: each token that is not special becomes the mask with a probability.

    Tang et al. 2019, arXiv:1903.12136, section 3.2 (masking), whose probability is 0.1.

    Args:
        p: the probability, over 0 to 1.

    Raises:
        ValueError: another probability.

    Example:
        >>> marks = Marks(special=frozenset({2, 3}), mask=4)
        >>> Mask(0.5).one(Tokens([2, 7, 8, 9, 3]), Random(0), marks).ids
        [2, 7, 8, 4, 3]
    """

    p: float = 0.1
    masks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_share("mask", "p", self.p, whole=True)

    def one(self, row: Tokens, draw: Random, marks: Marks, partner: Tokens | None = None) -> Tokens:
        """Mask a row; see ``Augmentation.one``."""
        hidden = [one not in marks.special and draw.random() < self.p for one in row.ids]
        return Tokens([marks.mask if hide else one for one, hide in zip(row.ids, hidden, strict=True)], row.types)


@dataclass(frozen=True)
class Crop(Augmentation):
    """Keep one contiguous span of the text, between its special tokens.

    Tang et al. 2019, arXiv:1903.12136, section 3.2 (n-gram sampling). A pair of texts is cut as one text.

    Args:
        keep: the least share of the text's tokens that is kept, over 0 and under 1; the share is drawn evenly.

    Raises:
        ValueError: another share.

    Example:
        >>> Crop(0.5).one(Tokens([2, 5, 6, 7, 8, 3]), Random(2), Marks(frozenset({2, 3}))).ids
        [2, 5, 6, 3]
    """

    keep: float = 0.5

    def __post_init__(self) -> None:
        check_share("crop", "keep", self.keep)

    def one(self, row: Tokens, draw: Random, marks: Marks, partner: Tokens | None = None) -> Tokens:
        """Crop a row; see ``Augmentation.one``."""
        start, stop = marks.inside(row.ids)
        length = stop - start
        if length < 2:
            return row
        least = math.ceil(self.keep * length)  # a token is always left
        size = draw.randint(least, length)
        first = start + draw.randint(0, length - size)
        return row.part(0, start) + row.part(first, first + size) + row.part(stop, len(row.ids))


@dataclass(frozen=True)
class Mix(Augmentation):
    """Put the beginning of one text before the end of another, both cut at the same random share of their length.

    MixKD (Liang et al. 2021, arXiv:2011.00593) mixes embeddings and both labels by one weight; here tokens are mixed,
    so that any teacher can read the row, and there is no label and no weight. The other row is of the same
    micro-batch: 8 x 1 and 2 x 4 mix other pairs. A row without another one in its micro-batch is left as it is; of a
    text of a few tokens nothing may be left, or all.

    Example:
        >>> marks = Marks(frozenset({2, 3}))
        >>> Mix().one(Tokens([2, 5, 5, 5, 3]), Random(3), marks, Tokens([2, 6, 6, 6, 6, 6, 3])).ids
        [2, 6, 6, 6, 6, 3]
    """

    partners: ClassVar[bool] = True

    def one(self, row: Tokens, draw: Random, marks: Marks, partner: Tokens | None = None) -> Tokens:
        """Mix a row with another; see ``Augmentation.one``."""
        share = draw.random()
        if partner is None:
            return row
        start, stop = marks.inside(row.ids)
        theirs, their_stop = marks.inside(partner.ids)
        # Cut at one share, the new text is never longer than the longer one of the two.
        head = row.part(0, start + int(share * (stop - start)))
        tail = partner.part(theirs + int(share * (their_stop - theirs)), their_stop)
        return head + tail + row.part(stop, len(row.ids))


def check_share(name: str, option: str, value: Any, whole: bool = False) -> None:
    """Refuse what is no share.

    Args:
        name: of the augmentation.
        option: which of its options it is.
        value: what was given.
        whole: whether it may be 1.

    Raises:
        ValueError: in one sentence.

    Example:
        >>> check_share("mask", "p", 1.5, whole=True)
        Traceback (most recent call last):
        ...
        ValueError: augmentation mask was given p=1.5: give a share of the tokens, over 0 and at most 1.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and 0 < value and (value <= 1 if whole else value < 1)):
        limit = "at most 1" if whole else "under 1"
        raise ValueError(
            f"augmentation {name} was given {option}={value!r}: give a share of the tokens, over 0 and {limit}."
        )
