"""A collator of questions about pictures: a chat's prompt with its picture, and the answer behind it.

Knows: rows with an image, a question and an answer, processors with a chat template. Does not know: models, losses,
trainers, files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn

from hf_distill.augmentation.image_collator import decoded
from hf_distill.experiments.data.visual_questions import ANSWER, IMAGE, QUESTION
from hf_distill.rollouts.images import ImageTextLayout
from hf_distill.rollouts.padding import Row

IGNORED = -100


class QuestionCollator:
    """Makes batches of questions: the prompt is no label, the answer is one; a row without an answer is a prompt.

    Prompt and answer are cut into tokens each for itself, as an answer is written behind a prompt.

    Args:
        processor: of the student and its teacher: it holds an image processor, a tokenizer and a chat template.
        max_length: a longer answer is cut to so many tokens.
        keep: whether what the processor makes of an image and a question is kept in memory: for small images.

    Raises:
        ValueError: a processor without a chat template, or whose template does not end a prompt before its answer.

    Example:
        >>> from hf_distill.experiments.vision_language import small_processor
        >>> from PIL import Image
        >>> collate = QuestionCollator(small_processor(["which ? which ?", "7 7"], 16, 8, 32))
        >>> row = {"image": Image.new("L", (16, 16)), "question": "which ?", "answer": "7"}
        >>> batch = collate([row, {**row, "answer": None}])
        >>> batch["labels"][:, -3:].tolist(), batch["pixel_values"].shape
        ([[-100, 14, 2], [-100, -100, -100]], torch.Size([2, 3, 16, 16]))
    """

    columns = frozenset({IMAGE, QUESTION, ANSWER})

    def __init__(self, processor: Any, max_length: int | None = None, keep: bool = False) -> None:
        self.processor, self.max_length = processor, max_length
        self.kept: dict[tuple[bytes, str, str | None], Row] | None = {} if keep else None
        tokenizer = processor.tokenizer
        pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        marks = {kind: getattr(processor, f"{kind}_token_id", None) for kind in ("image", "video")}
        self.layout = ImageTextLayout(pad, placeholders={kind: one for kind, one in marks.items() if one is not None})
        if not getattr(processor, "chat_template", None):
            raise ValueError(
                f"{type(processor).__name__} has no chat template to write a question with: name a model with one, "
                "such as an Instruct model."
            )
        whole, prompt = self._written("?", "!"), self._written("?")
        if not whole.startswith(prompt):
            raise ValueError(
                "the chat template writes a prompt otherwise where an answer follows it, so the answer cannot be told "
                "from the prompt: give the processor a template that only adds to what it wrote."
            )
        self.begins = prompt.startswith(tokenizer.bos_token or "\0")

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make a batch.

        Args:
            rows: what the data set gave for one micro-batch.

        Returns:
            What the processor makes of the images and prompts, with the answers behind them, and ``labels`` [B, T].

        Raises:
            ValueError: an image that cannot be decoded.
        """
        if self.kept is None:
            return self._processed(rows)
        keys = [(_content(row[IMAGE]), row[QUESTION], row.get(ANSWER)) for row in rows]
        missing = {key: row for key, row in zip(keys, rows, strict=True) if key not in self.kept}
        if missing:
            self.kept.update(zip(missing, self._apart(self._processed([*missing.values()])), strict=True))
        return self.layout.stack([self.kept[key] for key in keys], left=False)

    def longest(self, rows: Dataset) -> int:
        """Count the tokens of the longest answer, its end included.

        Args:
            rows: with answers.
        """
        texts = {one for one in rows[ANSWER][:] if one is not None}
        return max(len(self._answer("?", text)) for text in texts)

    def answer_of(self, ids: Sequence[int]) -> str:
        """Turn the tokens of an answer back into a text.

        Args:
            ids: of one row; -100 is no token.
        """
        return self.processor.tokenizer.decode(
            [one for one in ids if one != IGNORED], skip_special_tokens=True
        ).strip()

    def _processed(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        images = [[decoded(row[IMAGE], f"row {number} of a batch")] for number, row in enumerate(rows)]
        made = self.processor(
            text=[self._written(row[QUESTION]) for row in rows],
            images=images,
            padding=True,
            return_tensors="pt",
            add_special_tokens=not self.begins,
        )
        batch = {name: one for name, one in made.items() if isinstance(one, Tensor)}
        batch["labels"] = torch.full_like(batch["input_ids"], IGNORED)
        told = {number: row for number, row in enumerate(rows) if row.get(ANSWER) is not None}
        answers = {number: self._answer(row[QUESTION], row[ANSWER]) for number, row in told.items()}
        return self.layout.rewritten(batch, answers, nn.Identity())

    def _apart(self, batch: dict[str, Tensor]) -> list[Row]:
        """The rows of a batch, each with its own image and without padding."""
        whole = {**batch, "labels": torch.full_like(batch["labels"], IGNORED)}  # all of a text is a prompt then
        known = self.layout.mask(batch)
        return [
            {**row, "labels": batch["labels"][n, known[n]], "attention_mask": batch["attention_mask"][n, known[n]]}
            for n, row in enumerate(self.layout.prompts(whole))
        ]

    def _written(self, question: str, answer: str | None = None) -> str:
        asked = [{"type": "image"}, {"type": "text", "text": question}]
        chat = [{"role": "user", "content": asked}]
        if answer is None:
            return self.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        chat.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        return self.processor.apply_chat_template(chat, tokenize=False)

    def _answer(self, question: str, answer: str) -> Tensor:
        text = self._written(question, answer)[len(self._written(question)) :]
        ids = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return torch.tensor(ids[: self.max_length])


def _content(image: Any) -> bytes:
    if isinstance(image, Mapping):
        return image["bytes"] if image["bytes"] is not None else image["path"].encode()
    return image.tobytes()
