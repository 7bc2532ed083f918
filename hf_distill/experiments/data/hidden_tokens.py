"""Texts some of whose tokens are hidden: once, so that every model is asked the same, or anew in each batch.

Knows: texts, token ids, tokenizers. Does not know: files, models, training.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import DataCollatorForLanguageModeling, DataCollatorForSeq2Seq, PreTrainedTokenizerBase

IGNORED = -100


class HidingCollator:
    """Makes batches for masked language models: a row without labels has tokens hidden, another anew each time.

    As BERT is trained: of the tokens that are drawn 80 % become the mask, 10 % any token, and 10 % stay. A row that
    has ``labels`` is only padded: its tokens were hidden once, see ``hide_once``.

    Args:
        tokenizer: with a mask token.
        probability: of each token, to be drawn.

    Example:
        >>> from hf_distill.experiments.tokenizers import character_tokenizer
        >>> made = character_tokenizer(["天气", "天气"])
        >>> batch = HidingCollator(made)([{"input_ids": [2, 4, 3], "labels": [-100, 5, -100]}])
        >>> batch["input_ids"].tolist(), batch["labels"].tolist()
        ([[2, 4, 3]], [[-100, 5, -100]])
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, probability: float = 0.15) -> None:
        # Both draw from torch's own generator, whose state a checkpoint keeps: a resumed run hides what it would have.
        self.hide = DataCollatorForLanguageModeling(tokenizer, mlm_probability=probability)
        self.pad = DataCollatorForSeq2Seq(tokenizer)  # it pads labels too

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch.

        Args:
            rows: tokenised.
        """
        return dict(self.pad([*rows]) if "labels" in rows[0] else self.hide([*rows]))


def check_hiding(tokenizer: PreTrainedTokenizerBase, probability: float) -> None:
    """Refuse what no token can be hidden with.

    Args:
        tokenizer: of the models.
        probability: of each token, to be hidden.

    Raises:
        ValueError: there is no mask token, or it is no probability.
    """
    if tokenizer.mask_token_id is None:
        raise ValueError(
            f"the tokenizer of the models ({type(tokenizer).__name__}) has no mask token to hide others with: name "
            "masked language models, or use causal_lm for those that write."
        )
    if not 0 < probability < 1:
        raise ValueError(f"mlm_probability={probability:g} was given: give a share of the tokens, such as 0.15.")


def encoded(
    splits: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase, column: str, max_length: int, divide: bool
) -> tuple[DatasetDict, str]:
    """Turn texts into token ids, and leave out those in which no token could be hidden.

    Args:
        splits: the rows.
        tokenizer: of the models.
        column: with the texts.
        max_length: in tokens.
        divide: whether a longer text becomes several rows; else it is cut.

    Returns:
        The rows with their ``input_ids`` and masks; and in words how many were left out.

    Raises:
        ValueError: a split in which no row is left.
    """
    found, said, special = DatasetDict(), [], set(tokenizer.all_special_ids)

    def encode(rows: dict[str, list]) -> dict[str, list]:
        made = tokenizer(rows[column], truncation=True, max_length=max_length, return_overflowing_tokens=divide)
        made.pop("overflow_to_sample_mapping", None)
        return {**made, "some": [not special.issuperset(ids) for ids in made["input_ids"]]}

    for name, rows in splits.items():
        made = rows.map(encode, batched=True, remove_columns=rows.column_names, desc="tokenising")
        kept = np.flatnonzero(made["some"][:])
        if not len(kept):
            raise ValueError(f"none of the {len(rows)} {name} rows has a token that is known: give other texts.")
        if len(kept) < len(made):
            said.append(f"{len(made) - len(kept)} {name}")
            made = made.select(kept)
        found[name] = made.remove_columns("some")
    return found, f"left out without a token to hide: {', '.join(said)}" if said else ""


def hide_once(rows: Dataset, tokenizer: PreTrainedTokenizerBase, probability: float = 0.15) -> Dataset:
    """Hide tokens of each row, one at least: the same ones of the same text, wherever it stands and in every run.

    Args:
        rows: with ``input_ids``.
        tokenizer: with a mask token, which takes the place of every token that is drawn.
        probability: of each token, to be drawn.

    Returns:
        The rows, with ``labels``: the token that was hidden, -100 elsewhere.

    Example:
        >>> from hf_distill.experiments.tokenizers import character_tokenizer
        >>> made = character_tokenizer(["天气很好"] * 2)
        >>> row = hide_once(Dataset.from_dict({"input_ids": [made("天气很好")["input_ids"]]}), made, 0.3)[0]
        >>> made.decode(row["input_ids"]), made.decode([one for one in row["labels"] if one != -100])
        ('[CLS] 天 气 [MASK] 好 [SEP]', '很')
    """
    special, mask = np.array(tokenizer.all_special_ids), tokenizer.mask_token_id

    def hide(row: dict[str, Any]) -> dict[str, list[int]]:
        ids = np.array(row["input_ids"])
        draw = np.random.default_rng(zlib.crc32(ids.astype("<i8").tobytes()))
        free = ~np.isin(ids, special)
        chances = np.where(free, draw.random(len(ids)), np.inf)
        drawn = chances < max(probability, chances.min() * (1 + 1e-9))
        return {"input_ids": np.where(drawn, mask, ids).tolist(), "labels": np.where(drawn, ids, IGNORED).tolist()}

    return rows.map(hide, desc="hiding tokens")
