"""What a cached teacher remembers, beside a checkpoint: a resumed run goes on with the very answers it had.

Knows: a memory, files in a checkpoint's folder. Does not know: what else a checkpoint holds, when it is written.

Asked anew in another batch, a teacher answers with another rounding; so without this a resumed run would not repeat
its losses bit for bit. A memory with a folder of its own needs nothing here.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hf_distill.cache.arrow import columns_of, from_arrow, header_in, layout, to_arrow
from hf_distill.cache.block import joined
from hf_distill.cache.header import check_header
from hf_distill.cache.memory import Memory
from hf_distill.cache.store import difference

logger = logging.getLogger(__name__)
NAME = "teacher_answers{}_{}.parquet"
LIMIT = 2**29
"""More than this many bytes of answers are not written beside every checkpoint."""


def keep(memory: Memory, checkpoint: str | Path, rank: int, name: str = "") -> None:
    """Write what is remembered beside a checkpoint; rank 0 what all know, the others what they alone know.

    Args:
        memory: any; one with a folder writes there.
        checkpoint: its folder.
        rank: of this process.
        name: tells the teacher from others of the same run.
    """
    memory.flush()
    rows = list(memory.table) if rank == 0 else memory.unshared
    size = sum(block.nbytes for _, block in rows)
    if memory.folder is not None or not rows or memory.off:
        return
    if size > LIMIT:
        logger.warning(
            "%.1f GB of the teacher's answers are not written into the checkpoint: name a teacher_cache folder to "
            "resume bit for bit.",
            size / 1e9,
        )
        return
    keys, block = [key for keys, _ in rows for key in keys], joined([block for _, block in rows])
    table = to_arrow(keys, block, {**memory.described(), "columns": columns_of(block)})
    pq.write_table(table, Path(checkpoint) / NAME.format(name, f"{rank:05d}"), **layout(table))


def recall(memory: Memory, checkpoint: str | Path, name: str = "") -> None:
    """Read what was remembered when a checkpoint was written; another teacher's answers are left alone.

    Args:
        memory: what to fill.
        checkpoint: its folder.
        name: as it was written under.
    """
    for path in sorted(Path(checkpoint).glob(NAME.format(name, "[0-9]*"))):
        try:
            table = pq.read_table(path, page_checksum_verification=True)
            header = check_header(header_in(table.schema, path), path)
            keys, block = from_arrow(table, header["columns"])
        except (OSError, ValueError, pa.ArrowException) as error:
            logger.warning("%s could not be read (%s): the teacher is asked again.", path, error)
            continue
        if difference(header, memory.known) or memory.folder is not None:
            continue
        if memory.kept is None or not memory.kept >= frozenset(header["needs"]):
            memory.adopt(header)
        if any(key not in memory.table for key in keys):
            memory.table.add(keys, block)
