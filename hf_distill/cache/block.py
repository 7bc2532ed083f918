"""Rows of named values: how answers lie in memory, and how a batch is put together from them again.

Knows: arrays, positions, bytes. Does not know: what the values mean, where rows come from, files.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

ROW_COST = 180
"""Bytes that one row costs beside its values: its key and its place in the table."""


class Column(NamedTuple):
    """One value of every row of a block.

    Args:
        values: [n, ...]; or, for values with one entry a position, those of all rows behind each other [N, ...].
            bfloat16, which NumPy lacks, is held as its bits.
        dtype: what the values are.
        positional: whether there is one entry a position.
    """

    values: np.ndarray
    dtype: torch.dtype
    positional: bool


class Block:
    """Some rows, in the order in which they were answered; it is never changed.

    Args:
        columns: name -> Column.
        offsets: int64 [n + 1], where each row's positions begin and end; None where no column is positional.
        in_memory: False where the values are those of a mapped file, which cost nothing until they are read.

    Example:
        >>> block = Block.of({"tokens": torch.arange(5)}, {"tokens"}, np.array([0, 2, 5]))
        >>> block.row("tokens", 1).tolist()
        [2, 3, 4]
    """

    def __init__(
        self, columns: Mapping[str, Column], offsets: np.ndarray | None = None, in_memory: bool = True
    ) -> None:
        self.columns, self.offsets, self.in_memory = dict(columns), offsets, in_memory

    @classmethod
    def of(cls, values: Mapping[str, Tensor], positional: set[str], offsets: np.ndarray | None = None) -> Block:
        """Take tensors over.

        Args:
            values: name -> tensor, as in ``Column``.
            positional: the names of those with one entry a position.
            offsets: as in ``Block``.
        """
        return cls({n: Column(_array(v), v.dtype, n in positional) for n, v in values.items()}, offsets)

    def __len__(self) -> int:
        """Count the rows."""
        first = next(iter(self.columns.values()))
        return len(self.offsets) - 1 if first.positional else len(first.values)

    @property
    def nbytes(self) -> int:
        """What the rows cost in memory."""
        values = sum(column.values.nbytes for column in self.columns.values()) if self.in_memory else 0
        return values + ROW_COST * len(self)

    def length(self, index: int) -> int:
        """Count one row's positions; 0 where no column has any.

        Args:
            index: of the row.
        """
        return 0 if self.offsets is None else int(self.offsets[index + 1] - self.offsets[index])

    def row(self, name: str, index: int) -> np.ndarray:
        """Return one row's value: [...], or [t, ...] with its t positions.

        Args:
            name: of the column.
            index: of the row.
        """
        column = self.columns[name]
        if not column.positional:
            return column.values[index]
        return column.values[self.offsets[index] : self.offsets[index + 1]]


def gather(rows: Sequence[tuple[Block, int]], spans: np.ndarray, shape: tuple[int, int]) -> dict[str, Tensor]:
    """Put rows of many blocks together to the tensors of one batch.

    Args:
        rows: the block that has each, and its number there.
        spans: int64 [n, 3], where each row's positions are in this batch: in which of its rows, from which position
            to before which; several may share one. The rest is padded with zeros.
        shape: how many rows and positions the batch has.

    Returns:
        name -> [n, ...], or [*shape, ...] where there is one entry a position.

    Raises:
        ValueError: a row has another number of positions than its place in the batch.

    Example:
        >>> block = Block.of({"tokens": torch.arange(1, 6)}, {"tokens"}, np.array([0, 2, 5]))
        >>> gather([(block, 0), (block, 1)], np.array([[0, 1, 3], [1, 0, 3]]), (2, 3))["tokens"].tolist()
        [[0, 1, 2], [3, 4, 5]]
    """
    gathered = {}
    for name, column in rows[0][0].columns.items():
        found = [block.row(name, index) for block, index in rows]
        if column.positional:
            values = np.zeros((*shape, *found[0].shape[1:]), column.values.dtype)
            for (row, start, stop), value in zip(spans, found, strict=True):
                if len(value) != stop - start:  # one of a single position would be repeated
                    raise ValueError(
                        f"a kept answer has {len(value)} positions, the row that it belongs to has {stop - start}: "
                        "its folder is damaged, fill an empty one."
                    )
                values[row, start:stop] = value
        elif len({value.shape for value in found}) > 1:
            shapes = sorted({str(list(value.shape)) for value in found})
            raise ValueError(
                f"the rows of a batch have kept answers {name!r} of the forms {' and '.join(shapes)}: fill an empty "
                "folder, with the images or texts of this run."
            )
        else:
            values = np.stack(found)
        tensor = torch.from_numpy(values)
        gathered[name] = tensor if tensor.dtype == column.dtype else tensor.view(column.dtype)
    return gathered


class Table:
    """A dictionary from keys to rows of blocks, with a limit.

    Args:
        limit: in bytes.

    Example:
        >>> table = Table(limit=1000)
        >>> table.add([b"a", b"b"], Block.of({"logits": torch.ones(2, 3)}, set()))
        True
        >>> table.find(b"b")[1], table.find(b"c"), len(table)
        (1, None, 2)
    """

    def __init__(self, limit: float) -> None:
        self.limit, self.nbytes = limit, 0
        self._places: dict[bytes, int] = {}
        self._blocks: list[Block] = []
        self._keys: list[Sequence[bytes]] = []
        self._starts: list[int] = []

    def __len__(self) -> int:
        """Count the rows."""
        return len(self._places)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def find(self, key: bytes) -> tuple[Block, int] | None:
        """Return the block that has a row, and its number there; None if no block has it.

        Args:
            key: of the row.
        """
        place = self._places.get(key)
        if place is None:
            return None
        block = bisect_right(self._starts, place) - 1
        return self._blocks[block], place - self._starts[block]

    def __iter__(self) -> Iterator[tuple[Sequence[bytes], Block]]:
        """Give back the blocks, each with its keys."""
        return zip(self._keys, self._blocks, strict=True)

    def add(self, keys: Sequence[bytes], block: Block) -> bool:
        """Take a block in, unless it would go over the limit; the first copy of a row stays.

        Args:
            keys: of its rows, in their order.
            block: the rows.

        Returns:
            Whether there was room.
        """
        if self.nbytes + block.nbytes > self.limit:
            return False
        start = self._starts[-1] + len(self._blocks[-1]) if self._blocks else 0
        self._blocks.append(block)
        self._keys.append(keys)
        self._starts.append(start)
        self.nbytes += block.nbytes
        for number, key in enumerate(keys):
            self._places.setdefault(key, start + number)
        return True


def joined(blocks: Sequence[Block]) -> Block:
    """Put the rows of several blocks behind each other.

    Args:
        blocks: with the same columns.

    Returns:
        One block.

    Example:
        >>> one = Block.of({"tokens": torch.arange(3)}, {"tokens"}, np.array([0, 1, 3]))
        >>> joined([one, one]).offsets.tolist()
        [0, 1, 3, 4, 6]
    """
    columns = {
        name: column._replace(values=np.concatenate([block.columns[name].values for block in blocks]))
        for name, column in blocks[0].columns.items()
    }
    if blocks[0].offsets is None:
        return Block(columns)
    lengths = np.concatenate([np.diff(block.offsets) for block in blocks])
    return Block(columns, np.concatenate(([0], np.cumsum(lengths))))


def chosen(block: Block, rows: Sequence[int]) -> Block:
    """Keep some rows of a block.

    Args:
        block: any.
        rows: which ones, in which order.

    Example:
        >>> one = Block.of({"tokens": torch.arange(3)}, {"tokens"}, np.array([0, 1, 3]))
        >>> chosen(one, [1]).row("tokens", 0).tolist()
        [1, 2]
    """
    columns = {}
    for name, column in block.columns.items():
        values = [block.row(name, row) for row in rows]
        columns[name] = column._replace(values=np.concatenate(values) if column.positional else np.stack(values))
    if block.offsets is None:
        return Block(columns)
    return Block(columns, np.concatenate(([0], np.cumsum(np.diff(block.offsets)[list(rows)]))))


def _array(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu().contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
