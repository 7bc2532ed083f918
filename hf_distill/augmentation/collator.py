"""A collator that adds augmented copies to the rows of a batch, and hands all of them to the user's own.

Knows: rows as a data set gives them, chance that hangs on a row's content alone. Does not know: models, losses,
trainers, what an augmentation does.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor
from transformers import DefaultDataCollator, default_data_collator

from hf_distill.augmentation.augment import Augmentation, Marks, Tokens
from hf_distill.tasks.alignment.tokenizers import PREFIX

LABELS = ("label", "labels", "label_ids")
"""Columns that hold a label, whatever the model calls it."""

ALONG = ("input_ids", "attention_mask", "token_type_ids")
"""Columns with one entry a token that can follow a changed text."""


def minus_100(label: Any) -> int:
    """Return what stands for no label where a label is one class; a task knows the others.

    Args:
        label: the row's own.
    """
    return -100


class AugmentingCollator:
    """Calls another collator on the rows and on copies of them, augmented and without a label.

    The rows come first, as they are, then all first copies, then all second ones. What becomes of a row hangs on
    ``seed``, ``epoch``, its own tokens and the number of the copy: not on ranks, workers, the order of the rows or the
    step at which a run was resumed, and no other random state is touched. (A partner, and what a masked language model
    rounds, hang on the micro-batch too.)

    Args:
        collator: the user's own.
        augmentations: each copy goes through all of them, in their order.
        copies: how many a row gets.
        seed: of the run.
        tokenizer: names the special tokens, and what masks and pads.
        no_label: a row's label -> a label of the same kind that the hard loss skips; see
            ``SequenceClassification.no_label``.

    Raises:
        ValueError: nothing to do, or a tokenizer without the token that an augmentation needs.

    Example:
        >>> from types import SimpleNamespace
        >>> from hf_distill.augmentation.augment import Mask
        >>> special = {"cls_token_id": 2, "sep_token_id": 3, "pad_token_id": 0, "bos_token_id": None}
        >>> words = {"unk_token_id": 1, "mask_token_id": 4, "eos_token_id": None, "all_special_ids": [0, 1, 2, 3, 4]}
        >>> tokenizer = SimpleNamespace(**special, **words)
        >>> collate = AugmentingCollator(lambda rows: rows, [Mask(0.5)], seed=0, tokenizer=tokenizer)
        >>> for row in collate([{"input_ids": [2, 7, 8, 9, 3], "labels": 1}]):
        ...     print(row)
        {'input_ids': [2, 7, 8, 9, 3], 'labels': 1}
        {'input_ids': [2, 4, 8, 4, 3], 'labels': -100}
    """

    def __init__(
        self,
        collator: Callable[[list[Any]], Any],
        augmentations: Sequence[Augmentation],
        copies: int = 1,
        *,
        seed: int,
        tokenizer: Any,
        no_label: Callable[[Any], Any] = minus_100,
    ) -> None:
        if not augmentations or isinstance(copies, bool) or not isinstance(copies, int) or copies < 1:
            raise ValueError(
                f"{len(augmentations)} augmentations and copies={copies!r} were given: give at least one of each."
            )
        self.collator, self.augmentations, self.copies = collator, list(augmentations), copies
        self.seed, self.no_label, self.epoch = seed, no_label, 0
        self.marks = Marks.of(tokenizer)
        self.pad = tokenizer.pad_token_id or 0
        # These stack rows as they are, so a copy must be as long as its row.
        self.fixed = collator is default_data_collator or isinstance(collator, DefaultDataCollator)
        for one in self.augmentations:
            if one.masks and self.marks.mask is None:
                raise ValueError(
                    f"augmentation {type(one).__name__.lower()} hides tokens, the tokenizer has no mask token and no "
                    "unknown token of its own: use crop or mix."
                )

    def __call__(self, rows: list[Any]) -> Any:
        """Collate the rows and their copies.

        Args:
            rows: what the data set gave for one micro-batch, B rows.

        Returns:
            What the user's collator makes of B * (1 + copies) rows.

        Raises:
            ValueError: the rows cannot be augmented.
        """
        for row in rows:
            self._check(row)
        read = [_tokens(row) for row in rows]
        keys = [xxhash.xxh3_64_digest(array("q", one.ids).tobytes()) for one in read]
        # Sorted, and each text once: the partner is the same one in whatever order the rows come.
        pool = sorted(set(keys))
        texts, place = dict(zip(keys, read, strict=True)), {key: at for at, key in enumerate(pool)}
        made: list[Any] = []
        for copy in range(self.copies):
            draws = [Random(self._chance(key, copy)) for key in keys]
            new = read
            for augmentation in self.augmentations:
                partners: list[Tokens | None] = [None] * len(rows)
                if augmentation.partners and len(pool) > 1:
                    steps = [draw.randrange(1, len(pool)) for draw in draws]
                    others = [(place[key] + step) % len(pool) for key, step in zip(keys, steps, strict=True)]
                    partners = [texts[pool[other]] for other in others]
                new = augmentation(new, draws, self.marks, partners)
            made += [self._row(row, one) for row, one in zip(rows, new, strict=True)]
        return self.collator([*rows, *made])

    def _chance(self, key: bytes, copy: int) -> int:
        return xxhash.xxh3_64_intdigest(array("q", [self.seed, self.epoch, copy]).tobytes() + key)

    def _row(self, row: Mapping[str, Any], new: Tokens) -> dict[str, Any]:
        """Write new tokens in the place of a row's, as wide as it was where nobody would pad it again."""
        length, mask = len(row["input_ids"]), row.get("attention_mask")
        padded = mask is not None and int(sum(mask)) < length
        missing = max(0, length - len(new.ids)) if padded or self.fixed else 0
        before = padded and not mask[0]
        columns = {
            "input_ids": (new.ids, self.pad),
            "attention_mask": ([1] * len(new.ids), 0),
            "token_type_ids": (new.types, 0),
        }
        made = dict(row)
        for name, (values, filling) in columns.items():
            if name in row:
                fill = [filling] * missing
                made[name] = _like(row[name], [*fill, *values] if before else [*values, *fill])
        for name in LABELS:
            if name in row:
                made[name] = self.no_label(row[name])
        return made

    def _check(self, row: Any) -> None:
        if not isinstance(row, Mapping) or "input_ids" not in row:
            there = sorted(row) if isinstance(row, Mapping) else f"a {type(row).__name__}"
            raise ValueError(
                f"augmentation changes the tokens of a row, the rows have {there}: give rows with input_ids, or leave "
                "augmentation out."
            )
        check_columns(row)
        length = len(row["input_ids"])
        for name, value in row.items():
            if name not in (*ALONG, *LABELS) and _length(value) == length:
                raise ValueError(
                    f"augmentation changes the tokens of a row, and its column {name!r} has an entry for each token, "
                    "which cannot follow: leave that column or augmentation out."
                )


def check_columns(names: Any) -> None:
    """Refuse rows that a teacher reads in tokens of its own, which do not change with the student's.

    Args:
        names: of the columns.

    Raises:
        ValueError: in one sentence.

    Example:
        >>> check_columns(["input_ids", "labels"])
    """
    if theirs := sorted(name for name in names if name.startswith(PREFIX)):
        raise ValueError(
            f"augmentation changes the student's tokens, and {', '.join(theirs)} are the teacher's own of the same "
            "text: leave augmentation out, or use models that share a tokenizer."
        )


def _tokens(row: Mapping[str, Any]) -> Tokens:
    """Read a row without its padding."""
    ids, types, mask = (_listed(row.get(name)) for name in ("input_ids", "token_type_ids", "attention_mask"))
    if mask is not None:
        ids, types = ([v for v, one in zip(own, mask, strict=True) if one] if own else own for own in (ids, types))
    return Tokens(ids, types)


def _listed(values: Any) -> list[int] | None:
    return None if values is None else values.tolist() if hasattr(values, "tolist") else list(values)


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) else None


def _like(old: Any, values: list[int]) -> Any:
    """Hold values as a row held the old ones: a collator looks at one row to know what all are."""
    if isinstance(old, Tensor):
        return torch.tensor(values, dtype=old.dtype)
    return np.array(values, dtype=old.dtype) if isinstance(old, np.ndarray) else values
