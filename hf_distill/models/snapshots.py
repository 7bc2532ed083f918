"""Which commits of a model on the Hub this machine has.

Knows: the layout of the Hub's cache. Does not know: models, what is in a file.

A model no longer says by itself which commit it was loaded from (transformers 5.23 keeps no ``_commit_hash``).
"""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import constants

REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")


def commits_of(name: str) -> list[str]:
    """List the commits of which the cache has files; none for a folder, or for what was never on the Hub.

    Args:
        name: an id, a path, or the name of a class.

    Example:
        >>> commits_of("BertModel"), commits_of("/data/me/teacher")
        ([], [])
    """
    if not REPOSITORY.fullmatch(name) or Path(name).is_dir():
        return []
    snapshots = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "snapshots"
    return sorted(path.name for path in snapshots.glob("*") if path.is_dir())


def commit_of(name: str) -> str | None:
    """Return the commit a model was loaded from, where there is no doubt: the cache has files of one.

    Args:
        name: as in ``commits_of``.

    Example:
        >>> print(commit_of("BertModel"))
        None
    """
    found = commits_of(name)
    return found[0] if len(found) == 1 else None
