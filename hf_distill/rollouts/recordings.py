"""Where the prompt of a row is that is no text: a recording, which an encoder hears, and a decoder writes down.

Knows: waves, features, masks of them. Does not know: who writes, what a model's decoder begins with, files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hf_distill.rollouts.padding import Row
from hf_distill.rollouts.prompts import EncoderDecoderLayout
from hf_distill.tasks.alignment.tokenizers import PREFIX
from hf_distill.tasks.columns import Columns

MASK = "attention_mask"


class RecordingLayout(EncoderDecoderLayout):
    """An encoder of recordings and a decoder: the prompt is the recording, with its mask where the batch has one.

    Padding is cut off where the mask says which it is: of waves [B, T] and features [B, T, F]. Features [B, F, T], as
    Whisper reads them, and everything without a mask stay whole: there padding is content.

    Args:
        pad: the token that fills a text.
        left: on which side texts are padded.
        main: the column of the recordings, ``main_input_name`` of the model.

    Example:
        >>> import torch
        >>> batch = {"input_values": torch.tensor([[0.5, 0.1], [0.2, 0.0]]), "labels": torch.tensor([[4], [-100]])}
        >>> batch["attention_mask"] = torch.tensor([[1, 1], [1, 0]])
        >>> layout = RecordingLayout(pad=0, main="input_values")
        >>> [prompt["input_values"].tolist() for prompt in layout.prompts(batch)], layout.labelled(batch).tolist()
        ([[0.5, 0.10000000149011612], [0.20000000298023224]], [True, False])
    """

    def __init__(self, pad: int, left: bool = False, main: str = "input_features") -> None:
        super().__init__(pad, left)
        self.main = main

    def check(self, batch: Mapping[str, Any]) -> None:
        """See ``Layout.check``."""
        if not isinstance(batch.get(self.main), Tensor):
            raise ValueError(
                f"rollout reads recordings from {self.main}, the batch has {sorted(batch)}: add them, as the model's "
                "processor makes them."
            )
        if PREFIX + self.main in batch:
            raise ValueError(
                f"rollout writes down what both models hear, and the batch has {PREFIX + self.main} for the teacher "
                "alone: use two models that read the same features."
            )
        if strange := [name for name in batch if name.startswith("decoder_") and name not in self.fill]:
            raise ValueError(
                f"rollout does not know how the column {strange[0]!r} goes on behind a prompt: leave it out."
            )

    def prompts(self, batch: Mapping[str, Any]) -> list[Row | None]:
        """See ``Layout.prompts``."""
        read = {name: batch[name] for name in (self.main, MASK) if isinstance(batch.get(name), Tensor)}
        laid = Columns.of(read)
        if not laid.cuttable or self.main not in laid.padded:
            return [{name: value[row] for name, value in read.items()} for row in range(self.size(batch))]
        return [
            {name: value[row, there] for name, value in read.items()} if there.any() else None
            for row, there in enumerate(laid.mask.bool())
        ]
