"""A section of a model card that is written after the training, in the place of the same of last time.

Knows: Markdown's headings. Does not know: what a section says, how anything was measured.
"""

from __future__ import annotations

import re
from pathlib import Path

BEFORE = "## Intended use and limits"
"""Figures stand before what a card says of limits."""


def put_section(path: Path, heading: str, table: str, said: str) -> bool:
    """Put a table into the card of a model, in the place of the one that it has under this heading.

    Args:
        path: of the card.
        heading: such as ``## Exports``.
        table: in Markdown.
        said: what is to be known of it.

    Returns:
        Whether there is a card.
    """
    if not path.is_file():
        return False
    text = path.read_text(encoding="utf-8")
    section = f"{heading}\n\n{table}\n\n{said}\n"
    kept = re.sub(rf"^{re.escape(heading)}\n.*?(?=^## |\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
    before, use, rest = kept.partition(BEFORE)
    after = f"{section}\n{use}{rest}" if use else f"\n{section}"
    path.write_text(f"{before.rstrip()}\n\n{after.lstrip()}", encoding="utf-8")
    return True
