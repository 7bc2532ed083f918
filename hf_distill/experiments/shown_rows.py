"""What a person sees of a row: its texts, and its image.

Knows: columns of rows. Does not know: models, what they say of a row, how a page shows it.
"""

from __future__ import annotations

from typing import Any

from datasets import Dataset, Image, Value

from hf_distill.reports.samples import Shown

IMAGE = "image"


def shown_rows(rows: Dataset) -> Shown | None:
    r"""Say how rows are shown, one at a time: no image is decoded that is not looked at.

    Args:
        rows: all columns of texts are shown, one below the other, and the column ``image``.

    Returns:
        A row's place -> its text and its picture, None where it has none; None where rows have neither.

    Example:
        >>> rows = Dataset.from_dict({"text": ["谁?", "哪里?"], "pair": ["我", "这里"], "label": [0, 1]})
        >>> shown_rows(rows)(1)
        ('哪里?\n这里', None)
        >>> shown_rows(rows.select_columns("label")) is None
        True
    """
    texts = [name for name, feature in rows.features.items() if feature in (Value("string"), Value("large_string"))]
    images = [IMAGE] if isinstance(rows.features.get(IMAGE), Image) else []
    if not texts and not images:
        return None
    rows = rows.select_columns([*texts, *images])

    def shown(place: int) -> tuple[str, Any]:
        row, picture = rows[place], None
        if images:
            from hf_distill.augmentation.image_collator import decoded  # needs Pillow, as images do

            picture = decoded(row[IMAGE], f"row {place}")
        return "\n".join(row[name] for name in texts if row[name]), picture

    return shown
