"""Where the prompt of a row is whose text has images in it: each prompt carries its own.

Knows: whose each image is, what a text is that goes on behind one. Does not know: who writes, processors, files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from hf_distill.rollouts.padding import Row, stacked
from hf_distill.rollouts.prompts import DecoderLayout
from hf_distill.tasks.batches import entries_of, join
from hf_distill.tasks.pairing import kind_of, owners_of

KINDS_OF_TOKENS = "mm_token_type_ids"
"""The column that says of each token whether it is text (0), of an image or of a video."""


class NoPlaces(LogitsProcessor):
    """Leaves out the tokens that stand for an image, a video or a wave: what is written has none behind it.

    Args:
        tokens: their ids.

    Example:
        >>> NoPlaces([1])(torch.zeros(1, 1), torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[1., -inf, 3.]])
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = list(tokens)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the logits [B, V] without those of the tokens; see ``writing.Draw``."""
        there = [token for token in self.tokens if token < scores.shape[-1]]
        return scores.index_fill(1, torch.tensor(there, dtype=torch.long, device=scores.device), -torch.inf)


class ImageTextLayout(DecoderLayout):
    """A decoder that reads images among its text: the prompt is the text before the first label, with its images.

    A row in which an image stands behind its first label, as in a chat of several turns, has no prompt.

    Args:
        pad: the token that fills a row.
        left: on which side a batch is padded that has no padding.
        placeholders: kind -> the token that stands for an image; see ``pairing.placeholders_of``.

    Example:
        >>> batch = {"input_ids": torch.tensor([[9, 9, 5, 6], [7, 5, 6, 6]]), "pixel_values": torch.ones(1, 3, 2, 2)}
        >>> batch["labels"] = torch.tensor([[-100, -100, 5, 6], [-100, 5, 6, 6]])
        >>> layout = ImageTextLayout(pad=0, placeholders={"image": 9})
        >>> [sorted(prompt) for prompt in layout.prompts(batch)]
        [['input_ids', 'pixel_values'], ['input_ids']]
        >>> layout.stack(layout.prompts(batch), left=True)["input_ids"].tolist()
        [[9, 9], [0, 7]]
    """

    def __init__(self, pad: int, left: bool = False, placeholders: Mapping[str, int] | None = None) -> None:
        super().__init__(pad, left)
        self.placeholders = dict(placeholders or {})
        self.fill[KINDS_OF_TOKENS] = 0

    def check(self, batch: Mapping[str, Any]) -> None:
        """See ``Layout.check``; images must be known to be one row's or another's."""
        super().check(batch)
        owners_of(self._read(batch), self.placeholders)

    def prompts(self, batch: Mapping[str, Any]) -> list[Row | None]:
        """See ``Layout.prompts``."""
        ids, found = batch["input_ids"], super().prompts(batch)
        other = torch.isin(ids, torch.tensor([*self.placeholders.values()], dtype=ids.dtype, device=ids.device))
        read = self._read(batch)
        owners = owners_of(read, self.placeholders)
        for row, where in enumerate(self._before(batch)):
            if found[row] is None:
                continue
            if int(other[row].sum()) > int(other[row, where].sum()):
                found[row] = None
                continue
            if KINDS_OF_TOKENS in batch:
                found[row][KINDS_OF_TOKENS] = batch[KINDS_OF_TOKENS][row, where]
            own = {n: entries_of(v, owners[n], [row]) if n in owners else v[[row]] for n, v in read.items() if _is(n)}
            found[row] |= {name: value for name, value in own.items() if value.numel()}
        return found

    def _read(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        there = {n: v for n, v in batch.items() if isinstance(v, Tensor) and _is(n) and n not in self.fill}
        return {"input_ids": batch["input_ids"], **there}

    def stack(self, rows: Sequence[Row], left: bool) -> dict[str, Tensor]:
        """Pad the texts, and put the images behind each other; see ``Layout.stack``."""
        texts = [{name: value for name, value in row.items() if not _is(name)} for row in rows]
        images = [{name: value for name, value in row.items() if _is(name)} for row in rows]
        filled = next((v for one in images for n, v in one.items() if v.ndim >= 5 and "image_sizes" not in one), None)
        if filled is not None:  # as many places a row as the fullest has: a row without an image has empty ones
            whole = next(one for one in images if one)
            empty = {name: value.new_zeros((1, 1, *value.shape[2:])) for name, value in whole.items()}
            images = [one or empty for one in images]
        return {**stacked(texts, self.fill, left), **join(images)}


def _is(name: str) -> bool:
    """Whether a column holds images or the like, and no tokens."""
    return kind_of(name) is not None
