"""A block of rows as an Arrow table, and as the bytes of a Parquet file.

Knows: Arrow types, encodings, the header in a schema. Does not know: folders, models, who wrote a file.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hf_distill.cache.block import Block, Column
from hf_distill.cache.header import check_columns

METADATA = b"hf_distill"
"""Under which name the header is in the schema of every file."""

SOURCE = b"hf_distill_source"
"""Under which name an unpacked file says what it was made of."""


class Damaged(ValueError):
    """A file that can be opened, but does not hold the rows that it should."""


class NoRoom(OSError):
    """An unpacked file could not be written; nothing is wrong with the one that it was to be made of."""


def columns_of(block: Block) -> dict[str, list[Any]]:
    """Describe the columns of a block: type, whether there is one entry a position, and the shape of one entry.

    Args:
        block: any.

    Example:
        >>> columns_of(Block.of({"logits": torch.ones(5, 3, dtype=torch.bfloat16)}, set()))
        {'logits': ['bfloat16', False, 3]}
    """
    return {
        name: [str(column.dtype).removeprefix("torch."), column.positional, *column.values.shape[1:]]
        for name, column in block.columns.items()
    }


def header_in(schema: pa.Schema, path: Path) -> dict[str, Any]:
    """Read the header that every file of a store carries.

    Args:
        schema: the file's.
        path: for the message.

    Raises:
        Damaged: it cannot be read.
        ValueError: the file is somebody else's.
    """
    held = (schema.metadata or {}).get(METADATA)
    if held is None:
        raise ValueError(f"{path} is no file of a teacher cache: move it away, or give an empty folder.")
    try:
        return check_columns(json.loads(held), path.name)
    except ValueError as error:
        raise Damaged(str(error)) from error


def to_arrow(keys: Sequence[bytes], block: Block, header: Mapping[str, Any]) -> pa.Table:
    """Make a table: a column ``key``, and for each value a list of numbers a row.

    Args:
        keys: of the rows.
        block: the rows.
        header: goes into the schema.

    Example:
        >>> table = to_arrow([b"k"], Block.of({"logits": torch.ones(1, 2)}, set()), {})
        >>> table.to_pylist()
        [{'key': b'k', 'logits': [1.0, 1.0]}]
    """
    columns = {"key": pa.array(keys, pa.binary())}
    for name, column in block.columns.items():
        values = column.values.view(np.uint16) if column.dtype == torch.bfloat16 else column.values
        ends = block.offsets if column.positional else np.arange(len(block) + 1)
        width = int(np.prod(values.shape[1:], dtype=np.int64))
        columns[name] = pa.LargeListArray.from_arrays(pa.array(ends * width, pa.int64()), pa.array(values.reshape(-1)))
    return pa.table(columns).replace_schema_metadata({METADATA: json.dumps(header)})


def from_arrow(table: pa.Table, columns: Mapping[str, Any], in_memory: bool = True) -> tuple[list[bytes], Block]:
    """Make keys and rows of a table again.

    Args:
        table: as ``to_arrow`` made it.
        columns: as ``columns_of`` told it.
        in_memory: whether the table's buffers are in memory, and not those of a mapped file.

    Raises:
        Damaged: a column is missing or of another type, or a row has not as many numbers as it should: those behind
            it would be read as other rows'.

    Example:
        >>> rows = Block.of({"tokens": torch.arange(5)}, {"tokens"}, np.array([0, 2, 5]))
        >>> keys, block = from_arrow(to_arrow([b"a", b"b"], rows, {}), columns_of(rows))
        >>> keys, block.row("tokens", 1).tolist()
        ([b'a', b'b'], [2, 3, 4])
    """
    keys = _column(table, "key")
    if not (pa.types.is_binary(keys.type) or pa.types.is_large_binary(keys.type)) or keys.null_count:
        raise Damaged("its column 'key' holds no keys")
    held, offsets = {}, None
    for name, (kind, positional, *shape) in columns.items():
        dtype, width = getattr(torch, kind), int(np.prod(shape, dtype=np.int64))
        values, ends = _numbers(_column(table, name), name, dtype)
        lengths = np.diff(ends)
        wrong = np.flatnonzero(lengths % width if positional and width else lengths - width)
        if len(wrong):
            must = f"{'a multiple of ' if positional else ''}{width} must be"
            raise Damaged(f"row {wrong[0]} of its column {name!r} has {lengths[wrong[0]]} numbers where {must}")
        if positional and width:
            positions = ends // width
            if offsets is not None and len(wrong := np.flatnonzero(np.diff(offsets) != np.diff(positions))):
                raise Damaged(f"row {wrong[0]} of its column {name!r} has other positions than in the columns before")
            offsets = positions
        held[name] = (values, dtype, positional, shape)
    for name, (values, dtype, positional, shape) in held.items():
        count = offsets[-1] if positional and offsets is not None else len(keys)
        values = values.reshape(count, *shape)  # drawn ids of which there are none have no numbers to count
        held[name] = Column(values.view(np.int16) if dtype == torch.bfloat16 else values, dtype, positional)
    return keys.to_pylist(), Block(held, offsets, in_memory)


def _column(table: pa.Table, name: str) -> pa.Array:
    if table.column_names.count(name) != 1:
        raise Damaged(f"it has no column {name!r}, or several")
    chunks = table[name].chunks or [pa.array([], table[name].type)]
    return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)


def _numbers(lists: pa.Array, name: str, dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of all rows behind each other, and where each row begins and ends among them."""
    kind = np.dtype("uint16") if dtype == torch.bfloat16 else torch.empty(0, dtype=dtype).numpy().dtype
    listed = pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type)
    if not listed or lists.type.value_type != pa.from_numpy_dtype(kind):
        raise Damaged(f"its column {name!r} holds {lists.type} where lists of {kind} must be")
    values = lists.flatten()  # of the rows of this table alone, if it is a part of another one
    if lists.null_count or values.null_count:
        raise Damaged(f"its column {name!r} has rows without numbers")
    ends = lists.offsets.to_numpy().astype(np.int64, copy=False)
    return values.to_numpy(zero_copy_only=False), ends - ends[0]


def layout(table: pa.Table) -> dict[str, Any]:
    """Return how a table is written: with checksums, and the bytes of numbers in streams that zstd can shorten.

    Parquet holds numbers of one byte in four, so they are split as well.

    Args:
        table: as ``to_arrow`` made it.
    """
    return {
        "compression": "zstd",
        "use_dictionary": False,
        "write_page_checksum": True,
        "column_encoding": {f"{n}.list.element": "BYTE_STREAM_SPLIT" for n in table.column_names if n != "key"},
    }


def mapped(source: Path, target: Path, anew: bool = False) -> pa.Table:
    """Unpack a Parquet file to a file that is read without being loaded.

    Args:
        source: the Parquet file.
        target: the unpacked one; it is made if it is not there, or was made of another file than ``source`` is now.
        anew: make it whatever is there, because that could not be read.

    Raises:
        NoRoom: the target cannot be written.
    """
    stat = source.stat()
    made_of = f"{stat.st_size} {stat.st_mtime_ns}".encode()
    if not anew and target.is_file():
        table = pa.ipc.open_file(pa.memory_map(str(target))).read_all()
        if (table.schema.metadata or {}).get(SOURCE) == made_of:
            return table
    table = pq.ParquetFile(source, page_checksum_verification=True).read().combine_chunks()
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), SOURCE: made_of})
    hidden = target.with_name(f".{os.getpid()}-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with hidden.open("wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        hidden.replace(target)
    except OSError as error:
        raise NoRoom(f"{target.parent} cannot be written: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            hidden.unlink(missing_ok=True)
    return pa.ipc.open_file(pa.memory_map(str(target))).read_all()
