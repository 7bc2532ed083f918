"""What the teacher wrote, kept so that it is written once.

Knows: keys and tokens, files of one line a text. Does not know: models, batches, whether a text is good.

The key is the content: the prompt, the teacher's weights and how it writes. So one folder serves all ranks, epochs and
runs, also those with another teacher. Each process writes a file of its own; a line that a killed process did not
finish is no JSON and is left out.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash

from hf_distill.cache.keys import bytes_of


class Texts:
    """Texts by their key, in memory and in a folder.

    Args:
        folder: where they are kept; it is made if it is not there.
        rank: of this process.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> Texts(folder).add({"a1": np.array([5, 6])})
        >>> again = Texts(folder)
        >>> again.missing(["a1", "b2", "b2"]), again["a1"].tolist()
        (['b2'], [5, 6])
    """

    def __init__(self, folder: str | Path, rank: int = 0) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.own = self.folder / f"texts-{rank}-{os.getpid()}-{time.time_ns()}.jsonl"
        self._held: dict[str, np.ndarray] = {}
        self._read: dict[Path, int] = {}

    def __getitem__(self, key: str) -> np.ndarray:
        """Return the tokens of a text, int32 [n]."""
        return self._held[key]

    def __len__(self) -> int:
        """Count the texts that are known here."""
        return len(self._held)

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Say which texts nobody has written, looking into the folder only if one is not known here.

        Args:
            keys: of the texts.

        Returns:
            The keys of those that are missing, each once.
        """
        keys = list(dict.fromkeys(keys))
        if any(key not in self._held for key in keys):
            self._look()
        return [key for key in keys if key not in self._held]

    def add(self, texts: Mapping[str, np.ndarray]) -> None:
        """Keep texts.

        Args:
            texts: key -> tokens.
        """
        self._held.update({key: np.asarray(tokens, dtype=np.int32) for key, tokens in texts.items()})
        with self.own.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"key": k, "tokens": np.asarray(t).tolist()}) + "\n" for k, t in texts.items())

    def _look(self) -> None:
        for path in sorted(self.folder.glob("texts-*.jsonl")):
            if path == self.own or path.stat().st_size == self._read.get(path):
                continue
            with path.open("rb") as file:
                file.seek(start := self._read.get(path, 0))
                whole, newline, _ = file.read().rpartition(b"\n")
            self._read[path] = start + len(whole) + len(newline)
            for line in whole.splitlines():
                try:
                    row = json.loads(line)
                    self._held.setdefault(row["key"], np.asarray(row["tokens"], dtype=np.int32))
                except (ValueError, KeyError, TypeError):
                    continue  # a process was killed while it wrote


def keys_for(prompts: Sequence[Mapping[str, Any]], writer: str) -> list[str]:
    """Name what a teacher writes for each prompt.

    Args:
        prompts: name -> what is read, any tensor: tokens, whose integer type does not matter, or the numbers of a wave
            or an image, which count by their bytes and type.
        writer: who writes, and how.

    Returns:
        A key for each prompt, 32 hexadecimal digits.

    Example:
        >>> one, same, other = ({"input_ids": np.array(ids)} for ids in ([5, 6], [5, 6], [5]))
        >>> keys = keys_for([one, same, other], "a teacher")
        >>> keys[0] == keys[1], keys[0] == keys[2], keys == keys_for([one, same, other], "another")
        (True, False, False)
    """
    made = []
    for prompt in prompts:
        state = xxhash.xxh3_128(writer.encode())
        for name in sorted(prompt):
            values, kind = bytes_of(torch.as_tensor(prompt[name]))
            state.update(f"|{name}|{kind}|{values.shape}|".encode())
            state.update(values)
        made.append(state.hexdigest())
    return made
