"""Pairs of texts, one to be read and one to be written: two columns, or Chinese words and their pinyin.

Knows: columns, rows with an empty side. Does not know: tokenizers, models, training.
"""

from __future__ import annotations

from collections.abc import Sequence

from datasets import DatasetDict

from hf_distill.experiments.data.chinese_pinyin import pinyin
from hf_distill.experiments.data.chinese_words import load_words
from hf_distill.experiments.data.files import DataArguments, check_columns, limited, read_splits
from hf_distill.experiments.data.text_rows import as_texts


def load_pairs(
    data: DataArguments, seed: int, columns: Sequence[str], tones: bool = True
) -> tuple[DatasetDict, list[str]]:
    """Load the splits, with the columns ``source`` and ``target``; rows with an empty side are left out.

    Args:
        data: where the pairs come from; with nothing given, Chinese words are read and their pinyin is written.
        seed: of the draw, where fewer rows are asked for than there are.
        columns: with the text that is read and the text to be written; ``de.text`` is ``text`` within ``de``.
        tones: whether pinyin has tones.

    Returns:
        ``train``, ``validation`` and ``test``, and in how many of each one side was empty.

    Raises:
        ValueError: a missing file or column, or a split in which no row is left.
        ImportError: the embedded words' packages are not installed.
    """
    splits, empty = limited(data, read_splits(data, seed, load_words), seed), []
    if data.source == data.embedded:
        return splits.map(
            lambda row: {"source": row["text"], "target": pinyin(row["text"], tones)},
            remove_columns=splits["train"].column_names,
        ), empty
    splits = splits.flatten()  # the Hub's sets of translations have one column with both languages
    columns = list(columns)
    check_columns(data, splits, columns, "--source_column and --target_column")
    names = dict(zip(columns, ("source", "target"), strict=True))
    for name, rows in splits.items():
        rows = as_texts(rows, columns, f"the {name} rows of {data.source}")
        rows = rows.select_columns(columns).rename_columns({a: b for a, b in names.items() if a != b})
        kept = rows.filter(lambda row: bool(row["source"]) and bool(row["target"]))
        empty += [f"{len(rows) - len(kept)} {name}"] if len(kept) < len(rows) else []
        if not len(kept):
            raise ValueError(f"none of the {len(rows)} {name} rows has both texts, {columns}: give rows with both.")
        splits[name] = kept
    return splits, empty
