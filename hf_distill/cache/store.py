"""A folder of answers: small Parquet files, each whole or not there, each saying whose answers it holds.

Knows: files, headers, how a block becomes a table. Does not know: models, batches, who asks.

A file is written under a hidden name, synchronised and renamed, and never opened for writing again: whoever is killed
loses what was not yet written and nothing else. Two fillers write files of different names. The header is in the
schema of every file, so a stray file is known by itself; page checksums tell a flipped bit. ``load_dataset`` opens the
folder too, but training does not read through it: its own cache may be older than the folder.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from hf_distill.cache.arrow import Damaged, NoRoom, from_arrow, header_in, layout, mapped, to_arrow
from hf_distill.cache.block import ROW_COST, Block, chosen, joined
from hf_distill.cache.header import check_columns

HEADER, DATA, MAPPED, FORMAT = "teacher.json", "data", ".mapped", 1
UNREADABLE = (OSError, pa.ArrowException, Damaged)
"""What a file that is broken raises while it is read."""

IDENTITY = ("format", "precision", "encoding", "tokenizer", "weights", "columns", "padding")
"""What two runs must have in common to use one store; names, revisions and versions are only told."""


class Store:
    """A folder that one process appends to and every process reads.

    Args:
        folder: made when the first rows are written.
        rank: of this process, for the names of its files.

    Raises:
        ValueError: the folder holds something else, or a header that cannot be read.

    Example:
        >>> import tempfile, torch
        >>> from hf_distill.cache.arrow import columns_of
        >>> store = Store(tempfile.mkdtemp())
        >>> rows = Block.of({"logits": torch.ones(1, 3)}, set())
        >>> store.header = {"format": FORMAT, "columns": columns_of(rows)}
        >>> store.write([b"a" * 16], rows)
        >>> [(keys, block.row("logits", 0).tolist()) for keys, block in Store(store.folder).news()]
        [([b'aaaaaaaaaaaaaaaa'], [1.0, 1.0, 1.0])]
    """

    def __init__(self, folder: str | Path, rank: int = 0) -> None:
        self.folder, self.rank = Path(folder), rank
        self.run, self.written = uuid.uuid4().hex[:12], 0
        self.bad: list[str] = []
        self._read: set[str] = set()
        self.header: dict[str, Any] | None = self._header()
        if self.header is None and self.folder.is_dir():
            if strangers := sorted(path.name for path in self.folder.iterdir() if path.name != DATA):
                raise ValueError(
                    f"{self.folder} was given as teacher cache, it holds {', '.join(strangers[:3])} and no {HEADER}: "
                    "give an empty folder, or one that hf_distill filled."
                )

    def _header(self) -> dict[str, Any] | None:
        path = self.folder / HEADER
        if not path.is_file():
            for found in self._files():  # the header was lost, or these are somebody else's files
                try:
                    return header_in(pq.read_schema(found), found)
                except UNREADABLE:
                    continue
            return None
        try:
            header = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} could not be read ({error}): restore it, or fill an empty folder.") from error
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise ValueError(f"{path} is no teacher cache of format {FORMAT}: fill an empty folder with this version.")
        return check_columns(header, path)

    def _files(self) -> list[Path]:
        return sorted(path for path in (self.folder / DATA).glob("*.parquet") if not path.name.startswith("."))

    # ---- Reading ----

    @property
    def nbytes(self) -> int:
        """What all rows cost in memory."""
        total = 0
        for path in self._files():
            try:
                held = pq.read_metadata(path)
                total += sum(held.row_group(i).total_byte_size for i in range(held.num_row_groups))
                total += ROW_COST * held.num_rows
            except (OSError, pa.ArrowException):
                continue
        return total

    def news(self, in_memory: bool = True) -> Iterator[tuple[list[bytes], Block]]:
        """Read the files that were not read yet, in the order of their names.

        A file that cannot be read is named in ``bad`` and skipped: its rows are missing, nothing is wrong.

        Args:
            in_memory: False unpacks each file once beside the store and maps it, for a store larger than memory.

        Yields:
            Keys and their rows.

        Raises:
            ValueError: a file that is another teacher's, or nobody's.
            NoRoom: it was to be unpacked, and could not be.
        """
        for path in self._files():
            if path.name in self._read:
                continue
            self._read.add(path.name)
            try:
                yield self._rows_of(path, in_memory)
            except FileNotFoundError:  # compacted by another process since it was listed: its rows are elsewhere
                continue
            except NoRoom:
                raise
            except UNREADABLE as error:
                self.bad.append(f"{path} ({' '.join(str(error).split())[:200]})")

    def _rows_of(self, path: Path, in_memory: bool) -> tuple[list[bytes], Block]:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        header = header_in(file.schema_arrow, path)
        if told := difference(header, self.header):
            raise ValueError(f"{path} is not of this teacher cache: {told}: move the file away.")
        if in_memory:
            return from_arrow(file.read(), header["columns"])
        copy = self.folder / MAPPED / f"{path.stem}.arrow"
        try:
            return from_arrow(mapped(path, copy), header["columns"], in_memory=False)
        except NoRoom:
            raise
        except UNREADABLE:  # the copy, or the file itself, which is then found out by making another copy of it
            return from_arrow(mapped(path, copy, anew=True), header["columns"], in_memory=False)

    def reopen(self) -> Iterator[tuple[list[bytes], Block]]:
        """Read the file that was written last again, mapped and not in memory.

        Yields:
            Keys and their rows.
        """
        self._read.discard(f"{self.rank:05d}-{self.run}-{self.written - 1:06d}.parquet")
        return self.news(in_memory=False)

    # ---- Writing ----

    def write(self, keys: Sequence[bytes], *blocks: Block) -> None:
        """Write rows as one file; it is there as a whole or not at all.

        Args:
            keys: of the rows, in their order.
            *blocks: the rows.

        Raises:
            OSError: the folder cannot be written, or the disk is full; no half file is left.
        """
        name = f"{self.rank:05d}-{self.run}-{self.written:06d}.parquet"
        table = to_arrow(keys, joined(blocks) if len(blocks) > 1 else blocks[0], self.header)
        (self.folder / DATA).mkdir(parents=True, exist_ok=True)
        if self.written == 0:
            self.sweep()
            if not (self.folder / HEADER).is_file():
                self._write_header()
        hidden = self.folder / DATA / f".{socket.gethostname()}-{os.getpid()}-{name}"
        try:
            with hidden.open("wb") as file:
                pq.write_table(table, file, **layout(table))
                file.flush()
                os.fsync(file.fileno())
            hidden.replace(self.folder / DATA / name)
        finally:
            hidden.unlink(missing_ok=True)
        self._read.add(name)
        self.written += 1

    def _write_header(self) -> None:
        hidden = self.folder / f".{socket.gethostname()}-{os.getpid()}-{HEADER}"
        try:
            hidden.write_text(json.dumps(self.header, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            hidden.replace(self.folder / HEADER)
        finally:
            hidden.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove the half files of processes that are no more: killed on this machine, or a day ago on another."""
        for path in (self.folder / DATA).glob(".*.parquet"):
            host, pid, *_ = [*path.name[1:].rsplit("-", 4), ""]
            if host == socket.gethostname() and pid.isdecimal():
                dead = not psutil.pid_exists(int(pid))
            else:
                dead = time.time() - path.stat().st_mtime > 24 * 3600
            if dead:
                path.unlink(missing_ok=True)

    def compact(self, size: int = 100 * 2**20) -> None:
        """Join small files to larger ones; only one process, when nobody else writes.

        The large file is there before the small ones go, and the first copy of a row counts: being killed in between
        loses nothing.

        Args:
            size: of a large file, in bytes of values.
        """
        small = [path for path in self._files() if path.stat().st_size < size // 2]
        group, held, seen = [], 0, set()
        for path in [*small, None]:
            if path is not None:
                try:
                    keys, block = from_arrow(
                        pq.read_table(path, page_checksum_verification=True), self.header["columns"]
                    )
                except UNREADABLE:  # left where it is: whoever reads the folder names it
                    continue
                fresh = [i for i, key in enumerate(keys) if key not in seen]
                seen.update(keys)
                group.append((path, keys, block, fresh))
                held += block.nbytes
            if group and (path is None or held >= size):
                if len(group) > 1:
                    self.write([k[i] for _, k, _, f in group for i in f], *(chosen(b, f) for _, _, b, f in group if f))
                    for old, *_ in group:
                        old.unlink(missing_ok=True)
                group, held = [], 0


def holds_answers(folder: str | Path) -> bool:
    """Say whether a folder is a store; one that lost its header is known by its files.

    Args:
        folder: any, or the name of something else.

    Example:
        >>> holds_answers("my/teacher")
        False
    """
    return (Path(folder) / HEADER).is_file() or any((Path(folder) / DATA).glob("*.parquet"))


def difference(found: Mapping[str, Any], asked: Mapping[str, Any] | None) -> str:
    """Say in what a header differs from the one of this run; empty where the store can be used.

    Args:
        found: the header that is there.
        asked: the header of this run; what it does not know is not compared.

    Example:
        >>> difference({"format": 1, "weights": "a1"}, {"format": 1, "weights": "b2"})
        "its weights are 'a1', this run has 'b2'"
    """
    for name in IDENTITY:
        ours, theirs = (asked or {}).get(name), found.get(name)
        if ours is not None and theirs is not None and ours != theirs:
            return f"its {name} {'are' if name.endswith('s') else 'is'} {theirs!r}, this run has {ours!r}"
    if (asked or {}).get("weights") is None and (asked or {}).get("teacher") not in (None, found.get("teacher")):
        return f"its teacher is {found.get('teacher')!r}, this run has {asked['teacher']!r}"
    return ""


def remedy(found: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Say what makes a run's header that of the store, where ``difference`` found one.

    Args:
        found: the header that is there.
        asked: the header of this run.

    Example:
        >>> remedy({"precision": "float32"}, {"precision": "bf16 autocast"})
        'set teacher_dtype=float32 (--teacher_dtype float32), or use another folder'
        >>> remedy({"precision": "bf16 autocast"}, {"precision": "float32"})
        'set bf16=True and leave teacher_dtype out, or use another folder'
        >>> remedy({"weights": "a1"}, {"weights": "b2"})
        'use that teacher, or another folder'
    """
    theirs, ours = (one.get("precision") for one in (found, asked))
    if None in (theirs, ours) or theirs == ours:
        return "use that teacher, or another folder"
    kind, _, how = theirs.partition(" ")
    if how == "autocast":
        return f"set {kind}=True and leave teacher_dtype out, or use another folder"
    if how:  # by a runtime that only the command has
        return "use --onnx where it is filled, the folder itself as teacher_model where it teaches, or another folder"
    return f"set teacher_dtype={kind} (--teacher_dtype {kind}), or use another folder"
