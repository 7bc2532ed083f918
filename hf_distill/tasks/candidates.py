"""Queries with their candidates, as the terms of retrieval read them: a batch of groups.

Knows: rows of texts, tokenizers. Does not know: vectors, scores, terms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

PAIRS = "teacher_"


class CandidateCollator:
    """Makes a batch of B groups, B * (1 + n) rows: a query, then its n candidates, the relevant one first.

    A row of the data set is one group, so groups stay whole however rows are shuffled, and
    ``per_device_train_batch_size`` counts groups. Any other column is left to the collator of a teacher
    (``"column:teacher_scores"``).

    Args:
        tokenizer: the student's.
        query: the column with the query, a text.
        candidates: the column with a list of texts, or the names of the columns with one text each.
        max_length: longer texts are cut to this many tokens; None: not at all.
        cross_encoder: the tokenizer of a teacher that reads a query and a candidate as one pair: the batch then has
            ``teacher_input_ids`` and so on, [B * n, T]. None: it has none, and a teacher of vectors reads the rows.

    Raises:
        ValueError: no names of columns; with a batch, groups with different numbers of candidates.

    Example:
        >>> from transformers import BertTokenizer
        >>> words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "fox", "hen"])}
        >>> collate = CandidateCollator(BertTokenizer(words))
        >>> collate([{"query": "red", "candidates": ["red fox", "hen"]}])["input_ids"].tolist()
        [[2, 4, 3, 0], [2, 4, 5, 3], [2, 6, 3, 0]]
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        query: str = "query",
        candidates: str | Sequence[str] = "candidates",
        max_length: int | None = None,
        cross_encoder: PreTrainedTokenizerBase | None = None,
    ) -> None:
        self.names = [candidates] if isinstance(candidates, str) else list(candidates)
        if not self.names:
            raise ValueError("candidates=[] was given: name the column with the list of texts, or one for each.")
        self.listed = isinstance(candidates, str)
        self.tokenizer, self.query, self.max_length = tokenizer, query, max_length
        self.cross_encoder = cross_encoder

    @property
    def columns(self) -> frozenset[str]:
        """The columns of the data set that it reads, which no model does."""
        return frozenset({self.query, *self.names})

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Collate; see the class.

        Args:
            rows: of a data set, one a group.

        Returns:
            What the tokenizer makes of the texts, int64 [B * (1 + n), T]; pairs under ``teacher_`` if they are asked.

        Raises:
            ValueError: in one sentence, a row without a column, or with another number of candidates than the first.
        """
        groups = [self._group(number, row, len(rows)) for number, row in enumerate(rows)]
        first = len(groups[0]) - 1
        for number, group in enumerate(groups):
            if len(group) - 1 != first or not first:
                raise ValueError(
                    f"row {number} of a batch has {len(group) - 1} candidates, row 0 has {first}: give each query as "
                    "many, at least one."
                )
        batch = self._tokens(self.tokenizer, [text for group in groups for text in group])
        if self.cross_encoder is not None:
            queries = [group[0] for group in groups for _ in group[1:]]
            pairs = self._tokens(self.cross_encoder, queries, [text for group in groups for text in group[1:]])
            batch |= {PAIRS + name: value for name, value in pairs.items()}
        return batch

    def _group(self, number: int, row: Mapping[str, Any], size: int) -> list[str]:
        if missing := sorted(self.columns - row.keys()):
            raise ValueError(
                f"row {number} of a batch of {size} has the columns {sorted(row)}: CandidateCollator reads "
                f"{missing[0]!r} too, name its own columns (query=, candidates=)."
            )
        found = row[self.names[0]] if self.listed else [row[name] for name in self.names]
        group = [row[self.query], *found] if isinstance(found, (list, tuple)) else [row[self.query], found]
        if strangers := [text for text in group if not isinstance(text, str)]:
            raise ValueError(
                f"row {number} of a batch has {strangers[0]!r} where a text is read: give a query and a list of texts."
            )
        return group

    def _tokens(self, tokenizer: PreTrainedTokenizerBase, *texts: list[str]) -> dict[str, Tensor]:
        cut = {"truncation": True, "max_length": self.max_length} if self.max_length else {}
        return dict(tokenizer(*texts, padding=True, return_tensors="pt", **cut))
