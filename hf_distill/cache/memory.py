"""What a cached teacher remembers: a table in memory, a folder beside it, and whose answers they are.

Knows: rows, headers, other ranks. Does not know: models, when a teacher is asked, trainers.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import gather_object

from hf_distill.cache.answers import Answers, finite_rows
from hf_distill.cache.arrow import NoRoom
from hf_distill.cache.block import Block, Table, chosen
from hf_distill.cache.encoding import Encoding
from hf_distill.cache.header import check_header
from hf_distill.cache.keys import NEITHER, Padding
from hf_distill.cache.spool import Spool
from hf_distill.cache.store import FORMAT, HEADER, Store, difference, remedy
from hf_distill.signals import Signals

logger = logging.getLogger(__name__)
FULL = "The teacher cache is full (%d rows, %.1f GB): others are asked each time; raise teacher_cache_gb."
TOO_MUCH = (
    "The teacher's answers would take %.0f GB, teacher_cache_gb allows %.1f: they are not kept; name a folder, fill "
    "one with a few ids (hf-distill cache --top), or raise it."
)
Places = dict[bytes, tuple[Block, int]]


class Memory:
    """Rows by their key.

    Args:
        folder: where they are kept beside memory; None: nowhere.
        limit: how many bytes of memory they may take.
        encoding: how values are held; None: as the folder says, otherwise exactly.

    Raises:
        ValueError: the folder holds something else.

    Example:
        >>> import torch
        >>> memory = Memory(None, 1e6)
        >>> memory.add([b"a"], Block.of({"logits": torch.ones(1, 3)}, set()))
        >>> found, missing = memory.look([b"b", b"a", b"b"])
        >>> sorted(found), missing
        ([b'a'], [0])
    """

    def __init__(self, folder: str | Path | None, limit: float, encoding: Encoding | None = None) -> None:
        self.folder, self.limit, self.off = folder, limit, ""  # why nothing can be kept
        self.store = None if folder is None else Store(folder)
        if self.header is not None:
            check_header(self.header, Path(folder) / HEADER)
        found = None if self.header is None else Encoding(**self.header["encoding"])
        if None not in (found, encoding) and found != encoding:
            raise ValueError(
                f"{folder} holds answers as {found}, {encoding} was asked: leave the encoding out, or fill an empty "
                "folder."
            )
        self.encoding = encoding or found or Encoding()
        self.known: dict[str, Any] = {}
        self.padding, self.probed, self.takes = NEITHER, False, None
        self.needs: frozenset[str] | None = None
        self.positions, self.frames, self.expected, self.passing = (
            False,
            False,
            0,
            frozenset(),
        )  # keys that will not come again
        self.answers = Answers(self.encoding, self.positions)
        self.forget()
        if self.header is not None:
            self.adopt(self.header)
            self.needs = self.kept

    @property
    def header(self) -> dict[str, Any] | None:
        """The folder's; None where it has none yet, or there is no folder."""
        return None if self.store is None else self.store.header

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.table)

    # ---- Who ----

    def meet(self, known: Mapping[str, Any], positions: bool, rank: int = 0, frames: bool = False) -> None:
        """Compare the folder's teacher with this run's, and read what it holds.

        Args:
            known: this run's header, as far as it is known; see ``identity.header_of``.
            positions: whether heads have one distribution a position.
            rank: of this process.
            frames: whether the positions of an answer are the teacher's own.

        Raises:
            ValueError: in one sentence, if they differ or a file cannot be used.
        """
        known = {**known, "format": FORMAT, "encoding": self.encoding.asdict()}
        if self.known and (difference(self.known, known) or positions != self.positions):
            self.forget()  # the same object, another teacher: what it remembers is not this one's
        self.known, self.positions, self.frames = known, positions, frames
        self.answers.positions, self.answers.frames = positions, frames
        if self.store is None:
            return
        self.store.rank = rank
        if self.header is not None and (told := difference(self.header, known)):
            raise ValueError(
                f"{self.folder} holds the answers of {self.header['teacher']}, but {told}: "
                f"{remedy(self.header, known)}."
            )
        self._read()

    def learn(self, padding: Padding, takes: Sequence[str]) -> None:
        """Take over what was found out about the teacher.

        Args:
            padding: on which sides it ignores padding.
            takes: the names of what it reads.
        """
        self.padding, self.probed, self.takes = padding, True, tuple(takes)

    def adopt(self, header: Mapping[str, Any]) -> None:
        """Take over what was found out about the teacher when its answers were written.

        Args:
            header: of a folder, or of a file in a checkpoint.
        """
        self.learn(Padding(*header["padding"]), header["takes"])
        self.kept, self.answers.shapes = frozenset(header["needs"]), dict(header["shapes"])

    def serve(self, needs: frozenset[str]) -> frozenset[str]:
        """Say what to ask for, so that all rows hold the same; what is needed may grow, a folder's cannot.

        Args:
            needs: what is needed.

        Raises:
            ValueError: the folder holds less.
        """
        if self.needs is not None and not needs <= self.needs:
            raise ValueError(
                f"{sorted(needs)} was asked for, {self.folder} holds {sorted(self.needs)}: fill another folder."
            )
        if self.kept is None or not needs <= self.kept:
            self.forget()
            self.kept = needs
        return self.kept

    def forget(self) -> None:
        """Free the memory; what is in the folder stays there."""
        self.table, self.kept, self.window, self.full = Table(self.limit), self.needs, {}, False
        self.answers = Answers(self.encoding, self.positions, self.answers.shapes if self.needs else None, self.frames)
        self.spool = None if self.store is None else Spool(self.store, self.described)
        self.unshared: list[tuple[Sequence[bytes], Block]] = []

    def described(self) -> dict[str, Any]:
        """Return the header of what is kept, without its columns."""
        found = {"padding": list(self.padding), "takes": list(self.takes), "shapes": self.answers.shapes}
        return {**self.known, "needs": sorted(self.kept), **found}

    # ---- Rows ----

    def look(self, keys: Sequence[bytes]) -> tuple[Places, list[int]]:
        """Find rows.

        Args:
            keys: of the rows.

        Returns:
            Where those are that are kept, and the numbers of the others, each key once.
        """
        found, missing = {}, {}
        for number, key in enumerate(keys):
            if key not in found and key not in missing:
                place = self.window.get(key) or self.table.find(key)
                if place is None:
                    missing[key] = number
                else:
                    found[key] = place
        return found, list(missing.values())

    def take_in(
        self,
        shown: Signals,
        keys: Sequence[bytes],
        spans: np.ndarray | None,
        last: bool = True,
        packed: bool = False,
    ) -> Places:
        """Take an answer apart into rows.

        Args:
            shown: the answer.
            keys: of its rows, or of the texts in them.
            spans: int64 [n, 3], where their positions are, see ``Answers.block``; None: everywhere.
            last: whether to keep them; what is not finite or passes is not; the former raises where it is used.
            packed: whether they are texts of packed rows.

        Returns:
            Where the rows are.
        """
        block = self.answers.block(shown, keys, spans)
        wanted = block.nbytes / len(keys) * self.expected
        if not len(self.table) and self.store is None and wanted > 10 * self.limit > 0:
            self.full, last = True, False
            logger.warning(TOO_MUCH, wanted / 1e9, self.limit / 1e9)
        if last:
            rows = [row for row in finite_rows(shown, spans if packed else None) if keys[row] not in self.passing]
            if len(rows) == len(keys):
                self.add(keys, block)
            elif rows:
                self.add([keys[row] for row in rows], chosen(block, rows))
        return {key: (block, number) for number, key in enumerate(keys)}

    def add(self, keys: Sequence[bytes], block: Block) -> None:
        """Keep rows, as long as there is room.

        Args:
            keys: of the rows.
            block: the rows.
        """
        room = self.table.add(keys, block)
        if room:
            self.unshared.append((keys, block))
        if self.spool is not None and not self.spool.broken:
            self.spool.add(keys, block)
            if self.spool.full:
                self.flush()
        elif not room and not self.full:
            self.full = True
            if self.limit:  # 0: nothing was to be kept
                logger.warning(FULL, len(self.table), self.limit / 1e9)

    def flush(self) -> None:
        """Write what is not in the folder yet."""
        if self.spool is None or not self.spool.flush() or self.table.nbytes <= self.limit / 2:
            return
        try:
            for rows in self.store.reopen():
                self.table.add(*rows)  # where memory was full: mapped, it takes none
        except NoRoom as error:
            logger.warning("Answers that were written could not be unpacked (%s): they may be asked again.", error)

    # ---- Other ranks ----

    def share(self, ranks: int) -> None:
        """Let every rank know the rows of all; all ranks must call it together.

        Args:
            ranks: how many there are.
        """
        self.flush()
        fresh, self.unshared = self.unshared, []
        if ranks == 1:
            return
        if self.folder is not None:
            gather_object([None])  # every rank has written
            self._read()
            return
        for keys, block in gather_object(fresh):
            if any(key not in self.table for key in keys):
                self.table.add(keys, block)

    def _read(self) -> None:
        try:
            for keys, block in self.store.news(in_memory=self.store.nbytes <= self.limit):
                self.table.add(keys, block)
        except NoRoom as error:
            raise ValueError(
                f"{self.folder} holds {self.store.nbytes / 1e9:.1f} GB, memory may hold {self.limit / 1e9:.1f} GB, "
                f"and nothing could be unpacked beside it ({error}): raise teacher_cache_gb."
            ) from error
        for told in self.store.bad:
            logger.warning("A file of the teacher cache could not be read and is left out: %s.", told)
        self.store.bad.clear()
