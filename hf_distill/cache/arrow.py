"""A block of rows as an Arrow table, and as the bytes of a Parquet file.

Knows: Arrow types, encodings, the header in a schema. Does not know: folders, models, who wrote a file.
"""

from __future__ import annotations

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

METADATA = b"hf_distill"
"""Under which name the header is in the schema of every file."""


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
        ValueError: the file is somebody else's.
    """
    held = (schema.metadata or {}).get(METADATA)
    if held is None:
        raise ValueError(f"{path} is no file of a teacher cache: move it away, or give an empty folder.")
    return json.loads(held)


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

    Example:
        >>> rows = Block.of({"tokens": torch.arange(5)}, {"tokens"}, np.array([0, 2, 5]))
        >>> keys, block = from_arrow(to_arrow([b"a", b"b"], rows, {}), columns_of(rows))
        >>> keys, block.row("tokens", 1).tolist()
        ([b'a', b'b'], [2, 3, 4])
    """
    held, offsets, table = {}, None, table.combine_chunks()
    for name, (kind, positional, *shape) in columns.items():
        lists, dtype = table[name].chunk(0), getattr(torch, kind)
        values = lists.values.to_numpy(zero_copy_only=False).reshape(-1, *shape)
        held[name] = Column(values.view(np.int16) if dtype == torch.bfloat16 else values, dtype, positional)
        if positional:
            offsets = lists.offsets.to_numpy() // int(np.prod(shape, dtype=np.int64))
    return table["key"].to_pylist(), Block(held, offsets, in_memory)


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


def mapped(source: Path, target: Path) -> pa.Table:
    """Unpack a Parquet file to a file that is read without being loaded.

    Args:
        source: the Parquet file.
        target: the unpacked one; it is made if it is not there.

    Raises:
        OSError: the target cannot be written.
    """
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        hidden = target.with_name(f".{os.getpid()}-{target.name}")
        table = pq.read_table(source, page_checksum_verification=True).combine_chunks()
        with pa.OSFile(str(hidden), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        hidden.replace(target)
    return pa.ipc.open_file(pa.memory_map(str(target))).read_all()
