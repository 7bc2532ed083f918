"""How long the texts of a data set are, before any batch is made of them.

Knows: rows of tokens. Does not know: models, collators, what a batch may hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from hf_distill.models.texts import IDS


def length_of(row: Mapping[str, Any]) -> int:
    """Return how many tokens a row has, in all of its texts; 1 where it is no text.

    Args:
        row: of a data set.

    Example:
        >>> length_of({"input_ids": [5, 6, 7]}), length_of({"input_ids": [[5, 6], [7]]}), length_of({"pixels": [0.5]})
        (3, 3, 1)
    """
    ids = row.get(IDS, row.get(f"teacher_{IDS}"))
    if isinstance(ids, Tensor):
        return max(1, ids.numel())
    if ids is not None and len(ids) and hasattr(ids[0], "__len__"):
        return sum(map(len, ids))
    return 1 if ids is None else max(1, len(ids))


def lengths_of(dataset: Any) -> np.ndarray | None:
    """Return how many tokens each row of a data set has; None where it does not say so at once.

    Args:
        dataset: only a ``datasets.Dataset`` of tokens says it; one whose rows have positions of their own is packed.

    Returns:
        int [N].

    Example:
        >>> lengths_of(datasets.Dataset.from_dict({"input_ids": [[5, 6, 7], [8]]})).tolist()
        [3, 1]
    """
    if not isinstance(dataset, datasets.Dataset) or not holds_tokens(dataset.column_names):
        return None
    column = dataset.data.column(IDS)
    packed = "position_ids" in dataset.column_names or dataset.format["type"] == "custom"
    if packed or not pa.types.is_list(column.type) or not len(dataset):
        return None
    lengths = pc.list_value_length(column).combine_chunks().fill_null(0).to_numpy(zero_copy_only=False)
    return lengths if dataset._indices is None else lengths[dataset._indices.column(0).to_numpy()]


def holds_tokens(names: Iterable[str]) -> bool:
    """Say whether rows are tokenised already.

    Args:
        names: of their columns.
    """
    return IDS in names
