"""Where the prompt of a row is, and how a row looks when another text follows it.

Knows: the columns of language models' batches, with and without an encoder. Does not know: who writes, which rows are
chosen, trainers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hf_distill.models.outputs import core_of
from hf_distill.rollouts.padding import Row, is_left, span, stacked
from hf_distill.tasks.alignment.tokenizers import PREFIX

PACKED = ("cu_seq", "seq_idx", "max_length_q", "max_length_k")
IGNORED = -100


class Layout(ABC):
    """The contract of both layouts.

    Args:
        pad: the token that fills a row.
        left: on which side a batch is padded that has no padding.
    """

    left_prompts: bool  # whether a model that is to write wants padding before the prompt
    main: str = "input_ids"  # the column that holds what a text follows

    def __init__(self, pad: int, left: bool = False) -> None:
        self.pad, self.left = pad, left
        tokens = {"input_ids": pad, "token_type_ids": 0, "attention_mask": 0, "position_ids": 0, "labels": IGNORED}
        self.fill = {**tokens, "decoder_input_ids": pad, "decoder_attention_mask": 0}

    def check(self, batch: Mapping[str, Any]) -> None:
        """Refuse a batch whose rows cannot be told apart or continued.

        Args:
            batch: the batch.

        Raises:
            ValueError: in one sentence.
        """
        ids, mask, starts = (batch.get(name) for name in ("input_ids", "attention_mask", "position_ids"))
        if ids is None or ids.ndim != 2:
            raise ValueError(f"rollout reads prompts from input_ids [B, T], the batch has {sorted(batch)}: add them.")
        if own := [name for name in batch if name.startswith(PREFIX)]:
            raise ValueError(
                f"rollout writes tokens that both models read, the batch has {own[0]} for the teacher alone: use two "
                "models with one tokenizer."
            )
        packed = any(name.startswith(PACKED) for name in batch)
        if mask is not None and (mask.ndim != 2 or int(mask.max()) > 1):
            packed = True
        if starts is not None and starts.shape == ids.shape and not packed:
            known = self.mask(batch)
            both = known[:, 1:] & known[:, :-1]
            packed = bool(((starts[:, 1:] <= starts[:, :-1]) & both).any())
        if packed:
            raise ValueError(
                "rollout was asked for rows into which several texts are packed, where none can be continued: give "
                "one text a row (packing=False, padding_free=False)."
            )
        for name, value in batch.items():
            if name == "shift_labels" or (isinstance(value, Tensor) and self._unknown(name, value, ids)):
                raise ValueError(
                    f"rollout does not know how the column {name!r} goes on behind a prompt: leave it out."
                )

    def _unknown(self, name: str, value: Tensor, ids: Tensor) -> bool:
        return name not in self.fill and (value.shape[:2] == ids.shape or name.startswith("decoder_"))

    def size(self, batch: Mapping[str, Any]) -> int:
        """Count the rows of a batch.

        Args:
            batch: the batch.
        """
        return len(batch[self.main])

    def mask(self, batch: Mapping[str, Any]) -> Tensor:
        """Return which tokens are no padding, bool [B, T].

        Args:
            batch: the batch.
        """
        mask, ids = batch.get("attention_mask"), batch["input_ids"]
        return torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()

    @abstractmethod
    def prompts(self, batch: Mapping[str, Any]) -> list[Row | None]:
        """Find what a text may follow.

        Args:
            batch: the batch.

        Returns:
            For each row its prompt, None where it has none.
        """

    def stack(self, rows: Sequence[Row], left: bool) -> dict[str, Tensor]:
        """Make of prompts what a model reads that continues them.

        Args:
            rows: prompts, each with its mask.
            left: whether padding comes before a prompt.
        """
        return stacked(rows, self.fill, left)

    @abstractmethod
    def labelled(self, batch: Mapping[str, Any]) -> Tensor:
        """Say which rows have something to learn as they came: bool [B].

        Args:
            batch: the batch.
        """

    def several(self, batch: Mapping[str, Any]) -> Tensor:
        """Say which rows lose something behind the text that is written: bool [B].

        Args:
            batch: the batch.
        """
        return torch.zeros(self.size(batch), dtype=torch.bool)

    @abstractmethod
    def rewritten(self, batch: Mapping[str, Any], texts: Mapping[int, Tensor], student: nn.Module) -> dict[str, Any]:
        """Put texts behind their prompts; the batch is padded anew, on the side on which it came.

        Args:
            batch: the batch; any column that has no entry for each token stays.
            texts: row -> the tokens that follow its prompt; the other rows stay as they are.
            student: the student.

        Returns:
            The batch; the labels of a rewritten row are its text.
        """


class DecoderLayout(Layout):
    """A decoder: the prompt is what comes before the first label, or the whole row where it has no label.

    Example:
        >>> batch = {"input_ids": torch.tensor([[5, 6, 7], [5, 8, 0]]), "attention_mask": torch.ones(2, 3).triu(-1)}
        >>> batch["labels"] = torch.tensor([[-100, 6, 7], [5, 8, -100]])
        >>> batch["attention_mask"][1, 2] = 0
        >>> layout = DecoderLayout(pad=0)
        >>> [None if prompt is None else prompt["input_ids"].tolist() for prompt in layout.prompts(batch)]
        [[5], None]
        >>> layout.rewritten(batch, {0: torch.tensor([9])}, nn.Identity())["labels"].tolist()
        [[-100, 9], [5, 8]]
    """

    left_prompts = True

    def prompts(self, batch: Mapping[str, Any]) -> list[Row | None]:
        """See ``Layout.prompts``."""
        names = [name for name in ("input_ids", "token_type_ids") if name in batch]
        return [
            {name: batch[name][row, where] for name in names} if len(where) else None
            for row, where in enumerate(self._before(batch))
        ]

    def _before(self, batch: Mapping[str, Any]) -> list[Tensor]:
        """Where the tokens of each row's prompt are."""
        mask, labels, found = self.mask(batch), batch.get("labels"), []
        for row, there in enumerate(mask):
            where = there.nonzero()[:, 0]
            known = [] if labels is None else (labels[row] != IGNORED).nonzero()[:, 0]
            found.append(where[where < known[0]] if len(known) else where)
        return found

    def labelled(self, batch: Mapping[str, Any]) -> Tensor:
        """See ``Layout.labelled``; a label of the first token is learned by nobody."""
        if (labels := batch.get("labels")) is None:
            return self.mask(batch).sum(dim=1) > 1
        return (labels[:, 1:] != IGNORED).any(dim=1)

    def several(self, batch: Mapping[str, Any]) -> Tensor:
        """Rows whose labels are in several parts, as those of a chat with several answers; see ``Layout.several``."""
        if (labels := batch.get("labels")) is None:
            return super().several(batch)
        known = torch.nn.functional.pad(labels != IGNORED, (1, 0), value=False)
        return (known[:, 1:] & ~known[:, :-1]).sum(dim=1) > 1

    def rewritten(self, batch: Mapping[str, Any], texts: Mapping[int, Tensor], student: nn.Module) -> dict[str, Any]:
        """See ``Layout.rewritten``."""
        ids, mask, rows = batch["input_ids"], self.mask(batch), []
        before = self._before(batch)
        # Without labels every token is a target, and stays one in the rows that nobody rewrote.
        labels = ids.masked_fill(~mask, IGNORED) if batch.get("labels") is None else batch["labels"]
        columns = {**batch, "attention_mask": mask.to(ids.dtype), "labels": labels}
        columns = {name: value for name, value in columns.items() if name in self.fill}
        for row in range(len(ids)):
            if (text := texts.get(row)) is None:
                where = span(mask[row])
                rows.append({name: value[row, where] for name, value in columns.items()})
                continue
            prompt = {name: value[row, before[row]] for name, value in columns.items()}
            after, last = torch.arange(1, len(text) + 1, device=ids.device), {n: v[-1] for n, v in prompt.items()}
            follows = {
                "input_ids": text,
                "labels": text,
                "attention_mask": torch.ones_like(text),
                "position_ids": last.get("position_ids", 0) + after,
                "token_type_ids": last.get("token_type_ids", 0) + 0 * after,  # as `generate` goes on
                "mm_token_type_ids": 0 * after,
            }
            prompt["labels"] = torch.full_like(prompt["labels"], IGNORED)
            rows.append({name: torch.cat((value, follows[name].to(value))) for name, value in prompt.items()})
        return {**batch, **stacked(rows, self.fill, is_left(mask, self.left))}


class EncoderDecoderLayout(Layout):
    """An encoder and a decoder: the prompt is what the encoder reads.

    Example:
        >>> batch = {"input_ids": torch.tensor([[5, 6], [7, 8]]), "labels": torch.tensor([[4], [3]])}
        >>> layout = EncoderDecoderLayout(pad=0)
        >>> layout.rewritten(batch, {0: torch.tensor([9, 1])}, nn.Identity())["labels"].tolist()
        [[9, 1], [3, -100]]
    """

    left_prompts = False

    def prompts(self, batch: Mapping[str, Any]) -> list[Row | None]:
        """See ``Layout.prompts``."""
        names, mask = [name for name in ("input_ids", "token_type_ids") if name in batch], self.mask(batch)
        return [
            {name: batch[name][row, there] for name in names} if there.any() else None
            for row, there in enumerate(mask)
        ]

    def labelled(self, batch: Mapping[str, Any]) -> Tensor:
        """See ``Layout.labelled``."""
        if (labels := batch.get("labels")) is None:
            return torch.zeros(self.size(batch), dtype=torch.bool)
        return (labels != IGNORED).any(dim=1)

    def rewritten(self, batch: Mapping[str, Any], texts: Mapping[int, Tensor], student: nn.Module) -> dict[str, Any]:
        """See ``Layout.rewritten``; decoder inputs that came with the batch are made of the texts as of its labels."""
        labels, rows = batch.get("labels"), []
        if labels is None:
            labels = torch.full((self.size(batch), 1), IGNORED, device=batch[self.main].device)
        columns = {"labels": labels}
        columns |= {name: batch[name] for name in ("decoder_input_ids", "decoder_attention_mask") if name in batch}
        if strange := [name for name, value in columns.items() if value.shape != labels.shape]:
            raise ValueError(
                f"rollout found {strange[0]} of shape {list(columns[strange[0]].shape)} beside labels of shape "
                f"{list(labels.shape)}: give both the same length, or leave {strange[0]} out."
            )
        known = labels != IGNORED
        left = self.left and is_left(known, default=False)  # otherwise what is not labelled is no padding before a row
        for row in range(len(labels)):
            if (text := texts.get(row)) is None:
                where = span(known[row]) if left else slice(span(known[row]).stop)
                rows.append({name: value[row, where] for name, value in columns.items()})
                continue
            made = {"labels": text, "decoder_attention_mask": torch.ones_like(text)}
            if "decoder_input_ids" in columns:
                made["decoder_input_ids"] = core_of(student).prepare_decoder_input_ids_from_labels(labels=text[None])[
                    0
                ]
            rows.append({name: made[name].to(value) for name, value in columns.items()})
        return {**batch, **stacked(rows, self.fill, left)}
