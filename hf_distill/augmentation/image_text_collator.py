"""A collator of pairs of an image and a text, for models of two towers: pixels and tokens, of both models.

Knows: rows with an image and captions, processors that hold an image processor and a tokenizer. Does not know: models,
losses, trainers, how an image is changed by chance (``ImageCollator`` does that).
"""

from __future__ import annotations

import copy
from array import array
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import xxhash
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hf_distill.augmentation.image_collator import ImageCollator
from hf_distill.augmentation.views import View
from hf_distill.tasks.alignment.tokenizers import PREFIX


class ImageTextCollator:
    """Makes batches of pairs, with the same view of an image and the same caption for the teacher and the student.

    A caption is a text, or several, of which chance takes one in training and the first is taken otherwise. As the
    view of an image, it hangs on ``seed``, the image's own pixels and the epoch alone; with ``recurring=K`` on the
    epoch modulo K, so a teacher whose vectors are kept is asked K times for an image, however long the training is.

    Args:
        processor: the student's, which holds an ``image_processor`` and a ``tokenizer`` (CLIPProcessor, ...).
        teacher_processor: the teacher's, if its own differs: the batch then has ``teacher_pixel_values``,
            ``teacher_input_ids`` and its mask too.
        views: what changes images in training; see ``ImageCollator``.
        recurring: how many views, and captions, a pair has; None: a new one in every epoch.
        image_column: of the rows: images, arrays, or bytes of an encoded image.
        text_column: of the rows: a text, or a list of texts.
        max_length: longer texts are cut to so many tokens; None: to what the tokenizer says.
        padding: ``"longest"`` of a batch, or ``"max_length"``, which SigLIP wants; None: as the tokenizer is used by
            its processor, which is ``"max_length"`` for SigLIP and ``"longest"`` for all others.
        seed: of what is drawn.

    Raises:
        TypeError: a processor that holds no image processor or no tokenizer.
        ValueError: a row without an image or without a text; see ``ImageCollator`` for images.

    Example:
        >>> from PIL import Image
        >>> from transformers import BertTokenizer, VisionTextDualEncoderProcessor
        >>> from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
        >>> words = BertTokenizer({word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "one"])})
        >>> pixels = ViTImageProcessorPil(size={"height": 8, "width": 8})
        >>> rows = [{"image": Image.new("L", (4, 4), 9), "text": text} for text in ("one", "1")]
        >>> batch = ImageTextCollator(VisionTextDualEncoderProcessor(pixels, words))(rows)
        >>> batch["pixel_values"].shape, batch["input_ids"].tolist()
        (torch.Size([2, 3, 8, 8]), [[2, 4, 3], [2, 1, 3]])
    """

    def __init__(
        self,
        processor: Any,
        teacher_processor: Any = None,
        views: Sequence[View] = (),
        recurring: int | None = None,
        image_column: str = "image",
        text_column: str = "text",
        max_length: int | None = None,
        padding: str | None = None,
        seed: int = 0,
    ) -> None:
        self.processor = processor
        (images, self.tokenizer), theirs = _parts(processor), teacher_processor and _parts(teacher_processor)
        self.images = ImageCollator(images, theirs and theirs[0], views, image_column=image_column, seed=seed)
        if recurring is not None and (isinstance(recurring, bool) or not isinstance(recurring, int) or recurring < 1):
            raise ValueError(f"recurring={recurring!r} was given: give how many views a pair has, at least 1.")
        self.images.recurring = self.recurring = recurring
        own_images = self.images.teacher_processor is not None
        own_texts = theirs is not None and not _same(self.tokenizer, theirs[1])
        self.teacher_tokenizer = (theirs[1] if own_texts else self.tokenizer) if own_images or own_texts else None
        self.teacher_processor = teacher_processor
        self.text_column, self.max_length, self.seed, self.epoch, self.copies = text_column, max_length, seed, 0, 0
        fixed = {True: "max_length", False: "longest"}
        self.padding = padding or fixed["siglip" in type(processor).__name__.lower()]
        self.training = False

    @property
    def columns(self) -> frozenset[str]:
        """The columns of the data set that it reads."""
        return frozenset({self.images.image_column, self.text_column})

    @property
    def teacher_columns(self) -> tuple[str, ...]:
        """What it makes for the teacher alone."""
        return () if self.teacher_tokenizer is None else (f"{PREFIX}pixel_values", f"{PREFIX}input_ids")

    def for_training(self, taught: bool = True) -> ImageTextCollator:
        """Return the collator of training batches.

        Args:
            taught: whether a teacher is heard; nothing hangs on it.
        """
        changing = copy.copy(self)
        changing.training, changing.images = True, self.images.for_training(taught) or copy.copy(self.images)
        return changing

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make a batch.

        Args:
            rows: what the data set gave for one micro-batch.

        Returns:
            ``pixel_values``, ``input_ids`` and, if the tokenizer makes one, ``attention_mask``; the same with
            ``teacher_`` where the teacher reads its own.
        """
        self.images.epoch = self.epoch
        pixels = {name: one for name, one in self.images(rows).items() if name != "labels"}
        texts = [self._text(row, number) for number, row in enumerate(rows)]
        batch = {**pixels, **self._tokens(self.tokenizer, texts)}
        if self.teacher_tokenizer is not None:
            theirs = self._tokens(self.teacher_tokenizer, texts)
            batch |= {PREFIX + name: one for name, one in theirs.items()}
            batch.setdefault(f"{PREFIX}pixel_values", pixels["pixel_values"])
        return batch

    def _tokens(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> dict[str, Tensor]:
        long = {} if self.max_length is None else {"max_length": self.max_length}
        made = tokenizer(list(texts), padding=self.padding, truncation=True, return_tensors="pt", **long)
        return {name: one for name, one in made.items() if name != "token_type_ids"}

    def _text(self, row: Mapping[str, Any], number: int) -> str:
        found = row.get(self.text_column)
        found = found.tolist() if hasattr(found, "tolist") else found
        texts = [found] if isinstance(found, str) else found
        if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(one, str) for one in texts):
            raise ValueError(
                f"row {number} of a batch has no text under {self.text_column!r}, only {sorted(row)}: name the column "
                "of the captions (text_column), a text or a list of texts, and set remove_unused_columns=False if a "
                "transform makes it."
            )
        if not self.training or len(texts) == 1:
            return texts[0]
        epoch = self.epoch if self.recurring is None else self.epoch % self.recurring
        content = array("q", [self.seed, epoch]).tobytes() + "\0".join(texts).encode() + self._content(row, number)
        return texts[Random(xxhash.xxh3_64_intdigest(content)).randrange(len(texts))]

    def _content(self, row: Mapping[str, Any], number: int) -> bytes:
        return self.images._image(row, number).tobytes()


def _parts(processor: Any) -> tuple[Any, PreTrainedTokenizerBase]:
    images, tokenizer = (getattr(processor, name, None) for name in ("image_processor", "tokenizer"))
    if images is None or tokenizer is None:
        raise TypeError(
            f"ImageTextCollator was given a {type(processor).__name__}, which does not hold both an image_processor "
            "and a tokenizer: pass the processor of the model (AutoProcessor.from_pretrained), or "
            "VisionTextDualEncoderProcessor(image_processor, tokenizer)."
        )
    return images, tokenizer


def _same(ours: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase) -> bool:
    return type(ours) is type(theirs) and ours.get_vocab() == theirs.get_vocab()
