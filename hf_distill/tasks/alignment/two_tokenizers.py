"""One text, two tokenizers: the columns that the student and the teacher read, made and padded.

Knows: tokenizers, column names. Does not know: models, tasks, how the two are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerBase

from hf_distill.tasks.alignment.spans import OFFSETS
from hf_distill.tasks.alignment.tokens import PREFIX


class TwoTokenizers:
    """Tokenises a text for both models, and collates such rows: ``dataset.map(both.encode)``, ``data_collator=both``.

    Args:
        tokenizer: the student's; a fast one.
        teacher: the teacher's; a fast one.

    Example:
        >>> from transformers import BertTokenizer
        >>> def tokenizer(*tokens):
        ...     return BertTokenizer(vocab={t: i for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *tokens])})
        >>> both = TwoTokenizers(tokenizer("good", "film"), tokenizer("g", "##ood", "film"))
        >>> row = both.encode("good film")
        >>> row["input_ids"], row["teacher_input_ids"], row["teacher_offset_mapping"]
        ([2, 4, 5, 3], [2, 4, 5, 6, 3], [(0, 0), (0, 1), (1, 4), (5, 9), (0, 0)])
        >>> both([row, both.encode("good")])["teacher_offset_mapping"].shape
        torch.Size([2, 5, 2])
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> None:
        self.tokenizers = {"": tokenizer, PREFIX: teacher}
        for one in self.tokenizers.values():
            if not getattr(one, "is_fast", False):
                raise ValueError(
                    f"a {type(one).__name__} was given, which does not say where its tokens are in the text: load a "
                    "fast tokenizer (use_fast=True)."
                )

    def encode(self, text: str, target: str | None = None, **options: Any) -> dict[str, list]:
        """Tokenise one text.

        Args:
            text: what is read, and in a decoder predicted.
            target: what an encoder-decoder predicts; None: there is no encoder.
            **options: for both tokenizers, such as ``truncation`` and ``max_length``.

        Returns:
            ``input_ids``, ``attention_mask``, ``labels`` and ``offset_mapping`` (of the labels), and the same with
            ``teacher_`` before their names. Without ``target`` all tokens are labels: set those that are not to be
            learned to -100, in both. Where a text was cut, what a tokenizer put behind it is no label: the text does
            not end there, and the other tokenizer cuts it elsewhere.
        """
        made: dict[str, list] = {}
        for prefix, tokenizer in self.tokenizers.items():
            read = tokenizer(text, return_offsets_mapping=True, **options)
            said = read if target is None else tokenizer(text_target=target, return_offsets_mapping=True, **options)
            made |= {f"{prefix}{name}": read[name] for name in ("input_ids", "attention_mask")}
            labels = _labels(said["input_ids"], said[OFFSETS], text if target is None else target)
            made |= {f"{prefix}labels": labels, f"{prefix}{OFFSETS}": said[OFFSETS]}
        return made

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Collate rows; every tokenizer pads its own columns.

        Args:
            features: rows as ``encode`` made them; other columns of the student are padded as its tokenizer does.

        Returns:
            A batch; labels are padded with -100, offsets with (0, 0).
        """
        batch: dict[str, Tensor] = {}
        for prefix, tokenizer in self.tokenizers.items():
            other = PREFIX if not prefix else None
            own = [
                {n.removeprefix(prefix): v for n, v in row.items() if n.startswith(prefix) and not _has(n, other)}
                for row in features
            ]
            offsets = [row.pop(OFFSETS, None) for row in own]
            padded = DataCollatorForSeq2Seq(tokenizer)(own)
            if None not in offsets:  # a trainer that does not read them takes them out
                width = padded["labels" if "labels" in padded else "input_ids"].shape[1]
                padded[OFFSETS] = _padded(offsets, width, tokenizer.padding_side == "left")
            batch |= {f"{prefix}{name}": value for name, value in padded.items()}
        return batch


def _labels(ids: Sequence[int], offsets: Sequence[tuple[int, int]], text: str) -> list[int]:
    """Return the tokens themselves, with -100 for those behind a text that goes on."""
    stops = [stop if stop > start else 0 for start, stop in offsets]
    if max(stops, default=0) >= len(text.rstrip()):
        return list(ids)
    known = max((place for place, stop in enumerate(stops, 1) if stop), default=0)
    return [*ids[:known], *[-100] * (len(ids) - known)]


def _padded(offsets: Sequence[Any], width: int, left: bool) -> Tensor:
    """Pad pairs with (0, 0): int64 [B, width, 2]."""
    rows = [torch.as_tensor(one, dtype=torch.int64).view(-1, 2) for one in offsets]
    sides = [((width - len(row)) * left, (width - len(row)) * (not left)) for row in rows]
    return torch.stack([torch.nn.functional.pad(row, (0, 0, *side)) for row, side in zip(rows, sides, strict=True)])


def _has(name: str, prefix: str | None) -> bool:
    return prefix is not None and name.startswith(prefix)
