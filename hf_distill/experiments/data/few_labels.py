"""Few labels, many rows: which rows a student is told the labels of, and what it and its teacher learn from.

Knows: columns, classes. Does not know: what a row is, models, training.
"""

from __future__ import annotations

import numpy as np
from datasets import Dataset, DatasetDict, concatenate_datasets


def few_labels(splits: DatasetDict, asked: int, seed: int, noun: str) -> DatasetDict:
    """Hide the labels of all training rows but a few, as many of each class as can be.

    Args:
        splits: with the class under ``label``.
        asked: how many keep theirs.
        seed: of the draw.
        noun: what a row is, in a message: "images".

    Returns:
        The splits, and ``unlabeled``, whose rows have their label under ``hidden_label`` and -100 under ``label``.

    Raises:
        ValueError: there are not as many rows, or more classes.
    """
    train = splits["train"]
    labels = np.array(train["label"][:])
    if not len(set(labels.tolist())) <= asked < len(labels):
        raise ValueError(
            f"labeled_samples={asked} was given for {len(labels)} training {noun} of {len(set(labels.tolist()))} "
            "classes: give at least one a class and fewer than there are, or leave it out."
        )
    drawn = np.random.default_rng(seed).permutation(len(labels))
    # Each class in turn gives one: the order of a row within its class, then chance.
    turn = np.empty(len(labels), dtype=np.int64)
    for label in set(labels.tolist()):
        own = drawn[labels[drawn] == label]
        turn[own] = np.arange(len(own))
    chosen = drawn[np.argsort(turn[drawn], kind="stable")][:asked]
    others = np.setdiff1d(np.arange(len(labels)), chosen)
    hidden = train.select(others)
    feature = train.features["label"]
    hidden = hidden.rename_column("label", "hidden_label")
    hidden = hidden.add_column("label", [-100] * len(others)).cast_column("label", feature)
    return DatasetDict({**splits, "train": train.select(np.sort(chosen)), "unlabeled": hidden})


def everything(splits: DatasetDict, column: str = "label") -> tuple[Dataset, Dataset]:
    """Put all training rows together: as a student reads them, and as a teacher that knows all labels.

    Args:
        splits: as ``few_labels`` returns them, or with all labels.
        column: with the label; what a row without one hides stands under ``hidden_`` and its name, None where nobody
            knows it: then the teacher does not learn from the row.
    """
    train, hidden = splits["train"], splits.get("unlabeled")
    if hidden is None:
        return train, train
    secret = f"hidden_{column}"
    known = hidden
    if hidden.data.column(secret).null_count:
        known = hidden.filter(lambda one: one is not None, input_columns=secret)
    known = known.remove_columns(column).rename_column(secret, column)
    parts = [part.select_columns(train.column_names) for part in (hidden, known)]
    if parts[0].features != train.features:  # no row of it may have a label, and its column no type then
        parts = [part.cast(train.features) for part in parts]
    taught, known = (concatenate_datasets([train, part]) for part in parts)
    return taught, known
