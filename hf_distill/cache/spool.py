"""Rows on their way into a folder: gathered until they make a file.

Knows: a store, how many rows and bytes make a file. Does not know: models, whether a row is needed again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from hf_distill.cache.arrow import columns_of
from hf_distill.cache.block import Block
from hf_distill.cache.store import Store

logger = logging.getLogger(__name__)
FLUSH_ROWS, FLUSH_BYTES = 8192, 64 * 2**20
"""After how many rows, or bytes, a file is written; at the latest at the end of an epoch."""


class Spool:
    """Appends to a store, a file at a time.

    Args:
        store: the folder.
        header: makes the header of a new folder, once the first rows are there.

    Example:
        >>> import tempfile, torch
        >>> spool = Spool(Store(tempfile.mkdtemp()), lambda: {"format": 1})
        >>> spool.add([b"k" * 16], Block.of({"logits": torch.ones(1, 3)}, set()))
        >>> spool.flush(), len(list(Store(spool.store.folder).news()))
        (True, 1)
    """

    def __init__(self, store: Store, header: Callable[[], dict[str, Any]]) -> None:
        self.store, self.header, self.broken = store, header, False
        self._waiting: list[tuple[list[bytes], Block]] = []

    @property
    def full(self) -> bool:
        """Whether what waits makes a file."""
        rows, held = sum(len(k) for k, _ in self._waiting), sum(block.nbytes for _, block in self._waiting)
        return rows >= FLUSH_ROWS or held >= FLUSH_BYTES

    def add(self, keys: Sequence[bytes], block: Block) -> None:
        """Let rows wait.

        Args:
            keys: of the rows.
            block: the rows.
        """
        if not self.broken:
            self._waiting.append((list(keys), block))

    def flush(self) -> bool:
        """Write what waits; where that fails, say so once and write no more.

        Returns:
            Whether a file was written.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting or self.broken:
            return False
        if self.store.header is None:
            self.store.header = {**self.header(), "columns": columns_of(waiting[0][1])}
        try:
            self.store.write([key for keys, _ in waiting for key in keys], *(block for _, block in waiting))
        except OSError as error:
            self.broken = True
            logger.warning(
                "Answers could not be written to %s (%s): nothing is lost, they are kept in memory alone.",
                self.store.folder,
                error,
            )
            return False
        return True
