"""Models that read images among a text and write text: LLaVA, Qwen-VL, Idefics, PaliGemma, Gemma 3 and their like.

Knows: which models these are, the tokens that stand in a text for an image, a video or a wave. Does not know: whose
image is whose, how a processor makes them, generation, losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from hf_distill.models.classes import names_in
from hf_distill.models.outputs import core_of
from hf_distill.models.texts import IDS
from hf_distill.models.vision_tower import STREAM, states_of
from hf_distill.signals import Signals, Stream
from hf_distill.tasks.language_modeling import CausalLM, Seq2SeqLM
from hf_distill.tasks.pairing import check_images, images_in, misread, placeholders_of

NOT_TOKENS = {
    "DiffusionGemmaForBlockDiffusion": "fills whole blocks of a text anew",
    "PI0ForConditionalGeneration": "moves a robot and predicts no tokens",
}
"""Classes of the mapping that predict no next token of what they are shown, and what they do."""


class _OfImagesAndTexts:
    """What both kinds have; put it before the class that it extends."""

    auto_class: ClassVar[str] = "AutoModelForImageTextToText"
    processor_class: ClassVar[str] = "AutoProcessor"
    pipeline_tag: ClassVar[str] = "image-text-to-text"
    noun: ClassVar[str] = "images and texts"
    example: ClassVar[str] = 'text="<image>What is this?", images="an image of yours.png"'
    classes: ClassVar[frozenset[str]] = names_in(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    writes_behind: ClassVar[bool]
    placeholders: Mapping[str, int] = {}

    @classmethod
    def from_model(cls, model: nn.Module) -> Any:
        """Return the task for such a model, None for any other; see ``Task.from_model``.

        Raises:
            ValueError: a class of transformers' mapping that writes no text token by token.
        """
        core = core_of(model)
        if getattr(getattr(core, "config", None), "is_encoder_decoder", False) is cls.writes_behind:
            return None
        if (task := super().from_model(model)) is None:
            return None
        name = next((base.__name__ for base in type(core).__mro__ if base.__name__ in NOT_TOKENS), None)
        if name is not None:
            raise ValueError(
                f"{name} was given, which {NOT_TOKENS[name]}: {cls.__name__} compares the next token at each "
                "position, so pass task= an instance of hf_distill.Task of your own."
            )
        task.placeholders = placeholders_of(model)
        return task


class ImageTextToText(_OfImagesAndTexts, CausalLM):
    """The next token at every position of a text with images in it; all else as ``CausalLM``.

    A token that stands for an image, a video or a wave is no target, whether the labels name it or not, nor where
    there are none (``alpha=1``): nobody predicts it. Terms on hidden states and attention compare the text's stack,
    whose positions the images' are among; those on hidden states with ``stream="vision"`` that of the images, of which
    each counts as much as another (of a model that reads the patches of all in one row, each patch).

    Args:
        own_loss: the model computes a loss of its own that this class does not know.
        shifts_labels: see ``CausalLM``.
        align: how two vocabularies are compared; see ``AlignmentArguments``.
        placeholders: ``image``, ``video``, ``audio`` -> the token that stands for one.

    Example:
        >>> batch = {"input_ids": torch.tensor([[5, 9, 9, 6, 7]])}
        >>> ImageTextToText(placeholders={"image": 9}).rows(batch)
        tensor([[False, False,  True,  True, False]])
        >>> CausalLM().rows(batch)
        tensor([[ True,  True,  True,  True, False]])
    """

    writes_behind: ClassVar[bool] = True
    streams: ClassVar[tuple[str, ...]] = ("text", STREAM)

    def __init__(
        self,
        own_loss: bool = False,
        shifts_labels: bool = True,
        align: str = "tokens",
        placeholders: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(own_loss, shifts_labels, align)
        self.placeholders = dict(placeholders or {})

    def targets(self, batch: Mapping[str, Any]) -> Tensor | None:
        """The label of the next position, unless it stands for no text; see ``EachPosition.targets``."""
        targets = super().targets(batch)
        return targets if targets is None else targets.masked_fill(self._stands_for_other(targets), -100)

    def rows(self, batch: Mapping[str, Any]) -> Tensor:
        """Positions with a target; without labels those before a token of the text itself. See ``Task.rows``."""
        rows, ids = super().rows(batch), batch.get(IDS)
        if ids is None or self.targets(batch) is not None:
            return rows
        return rows & ~F.pad(self._stands_for_other(ids)[:, 1:], (0, 1), value=False)

    def stream_mask(self, name: str, batch: Mapping[str, Any]) -> Tensor | None:
        """How many positions a tower makes of an image is known to it alone; see ``Task.stream_mask``."""
        return None if name == STREAM else super().stream_mask(name, batch)

    def counts(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Of the stream of images the images are counted, or the patches where all stand in one row; see ``Task``."""
        made = super().counts(batch)
        return {**made, f"tokens:{STREAM}": made["samples"].new_tensor(images_in(batch))}

    def signals(self, model: nn.Module, batch: Mapping[str, Any], outputs: Any, captured: Any = None) -> Signals:
        """Show the hidden states of the tower of images too, where they were asked for; see ``Task.signals``."""
        shown = super().signals(model, batch, outputs, captured)
        if captured is None or captured.vision is None:
            return shown
        return replace(shown, streams={STREAM: Stream(states_of(core_of(model), captured.vision))})

    def _stands_for_other(self, ids: Tensor) -> Tensor:
        return torch.isin(ids, torch.tensor(list(self.placeholders.values()), dtype=ids.dtype, device=ids.device))

    def check_inputs(self, batch: Mapping[str, Any]) -> None:
        """Refuse places for images without images, and images without places; see ``Task.check_inputs``."""
        check_images(batch, self.placeholders)

    def inputs(
        self, model: nn.Module, fed: dict[str, Any], batch: Mapping[str, Any], teacher: Signals | None = None
    ) -> dict[str, Any]:
        """Refuse images in another model's form, as a teacher of another family would read them; see ``Task.inputs``.

        Raises:
            ValueError: in one sentence, what is in another form.
        """
        fed = super().inputs(model, fed, batch, teacher)
        if (reason := misread(model, fed, batch)) is not None:
            raise ValueError(
                f"{type(core_of(model)).__name__} cannot read images in this form ({reason}): give a teacher of "
                "another family columns of its own, made by its processor (teacher_input_ids, teacher_pixel_values, "
                '...), and teacher_alignment="span".'
            )
        return fed


class ImageTextToTextSeq2Seq(_OfImagesAndTexts, Seq2SeqLM):
    """The label at every position of the decoder, of what an encoder reads of images and texts; as ``Seq2SeqLM``.

    Args:
        own_loss: the model computes a loss of its own that this class does not know.
        align: how two vocabularies are compared; see ``AlignmentArguments``.

    Example:
        >>> batch = {"labels": torch.tensor([[7, 1, -100]]), "pixel_values": torch.zeros(1, 3, 8, 8)}
        >>> ImageTextToTextSeq2Seq().rows(batch)
        tensor([[ True,  True, False]])
    """

    of_text: ClassVar[bool] = False
    writes_behind: ClassVar[bool] = False

    def stream_mask(self, name: str, batch: Mapping[str, Any]) -> Tensor | None:
        """Where no token stands for an image, the encoder alone knows its positions; see ``Task.stream_mask``."""
        return None if name == "encoder" and not self.placeholders else super().stream_mask(name, batch)

    def check_inputs(self, batch: Mapping[str, Any]) -> None:
        """Refuse places for images without images, and images without places; see ``Task.check_inputs``."""
        check_images(batch, self.placeholders)
