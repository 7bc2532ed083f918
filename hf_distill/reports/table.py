"""Tables for a terminal and a model card alike.

Knows: strings. Does not know: what they say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import east_asian_width


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""Lay out a Markdown table whose columns line up as it stands: the first to the left, the others to the right.

    Args:
        header: the column names.
        rows: the cells, as many in each row as in the header. Chinese characters count as two columns. What would end
            a cell or its line, as a name may have it, is written so that it does not: ``|`` as ``\|``, a newline as
            a space.

    Returns:
        The lines, without a newline at the end.

    Example:
        >>> print(markdown_table(["model", "accuracy"], [["teacher", "81.4"], ["学生", "9.5"]]))
        | model   | accuracy |
        | :------ | -------: |
        | teacher |     81.4 |
        | 学生    |      9.5 |
    """
    header, *rows = ([_cell(text) for text in cells] for cells in (header, *rows))
    widths = [max(map(_width, column)) for column in zip(header, *rows, strict=True)]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for cells in (header, rule, *rows):
        padding = [" " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True)]
        first, *rest = zip(cells, padding, strict=True)
        lines.append("| " + " | ".join([first[0] + first[1], *(pad + cell for cell, pad in rest)]) + " |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(re.sub(r"\\*\|", r"\\|", text).split())


def _width(text: str) -> int:
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)
