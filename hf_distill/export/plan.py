"""What of a model is exported: the columns that it reads, the outputs that it gives, and which sizes are free.

Knows: tasks, processors, the names of columns. Does not know: file formats, runtimes, how models are measured.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_distill.models.texts import IDS, MASK
from hf_distill.tasks import (
    CTC,
    AudioClassification,
    AudioFeatures,
    CausalLM,
    Denoising,
    DepthEstimation,
    Drafting,
    Generating,
    ImageClassification,
    ImageText,
    ImageTextToText,
    ImageTextToTextSeq2Seq,
    MaskedLM,
    MultipleChoice,
    ObjectDetection,
    QuestionAnswering,
    SemanticSegmentation,
    SentenceEmbedding,
    Seq2SeqLM,
    SequenceClassification,
    SpeechSeq2Seq,
    Task,
    TokenClassification,
)

TYPES = "token_type_ids"
WAVES = "input_values"
LOGITS = ("logits",)
EXPORTED: Mapping[type[Task], tuple[str, ...]] = {
    SequenceClassification: LOGITS,
    TokenClassification: LOGITS,
    QuestionAnswering: ("start_logits", "end_logits"),
    MaskedLM: LOGITS,
    SentenceEmbedding: ("last_hidden_state",),
    ImageClassification: LOGITS,
    SemanticSegmentation: LOGITS,
    ObjectDetection: ("logits", "pred_boxes"),
    DepthEstimation: ("predicted_depth",),
    AudioClassification: LOGITS,
    CTC: LOGITS,
    CausalLM: LOGITS,
}
"""Task -> the outputs of an export."""

WITH_OPTIMUM = "writes with a cache between its steps: export it with optimum-cli, which writes its parts apart"
REFUSED: Mapping[type[Task], str] = {
    Seq2SeqLM: WITH_OPTIMUM,
    SpeechSeq2Seq: WITH_OPTIMUM,
    ImageTextToText: "reads images of any number beside a text: serve it with PyTorch, or export it with optimum-cli",
    ImageTextToTextSeq2Seq: WITH_OPTIMUM,
    ImageText: "is two models: save its towers apart (model.text_model, model.vision_model) and export each",
    Denoising: "is run many times by a pipeline of diffusers: export that pipeline with optimum-cli",
    Generating: "draws noise inside of a pipeline: run it with PyTorch (torch.compile makes it faster)",
    Drafting: "only works beside its language model: serve both with what reads draft heads",
    MultipleChoice: "has a third size, the choices: train it as a sequence classifier of pairs, which has an export",
    AudioFeatures: "has frames and no head: put a head on it, and export that",
}
"""Task -> why it has no export, and what to do."""


@dataclass(frozen=True)
class Plan:
    """What is exported.

    Args:
        task: how the model is read.
        example: column -> a tensor of two rows or more, in the order in which the export takes them.
        outputs: their names.
        free: column -> axis -> the name of a size that may be any other than the example's.

    Example:
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> tiny = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
        >>> plan = Plan.of(model := BertForSequenceClassification(tiny), Task.of(model))
        >>> list(plan.example), plan.outputs, plan.free["input_ids"]
        (['input_ids', 'attention_mask', 'token_type_ids'], ('logits',), {0: 'rows', 1: 'tokens'})
    """

    task: Task
    example: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    free: Mapping[str, Mapping[int, str]]

    @classmethod
    def of(cls, model: nn.Module, task: Task, batch: Mapping[str, Any] | None = None, processor: Any = None) -> Plan:
        """Plan the export of a model.

        Args:
            model: in float32, on the CPU.
            task: how it is read.
            batch: rows as a collator makes them; None: random ones.
            processor: what makes such rows of images or recordings; not asked for those of texts.

        Raises:
            ValueError: the task has no export, or nobody knows what the model reads.
        """
        outputs = outputs_of(task, type(model).__name__)
        takes = inspect.signature(model.forward).parameters
        if task.of_text or IDS in takes:
            names = [IDS, MASK] + [TYPES] * (getattr(model.config, "type_vocab_size", 0) > 1)
            example = {name: torch.ones(2, 8, dtype=torch.int64) for name in names if name in takes}
            return cls(task, example, outputs, {name: {0: "rows", 1: "tokens"} for name in example})
        made = batch if batch is not None else random_rows(model, processor)
        known = {name: one for name, one in made.items() if name in takes and name != "labels"}
        example = {name: _two(one) for name, one in known.items() if isinstance(one, Tensor)}
        if not example:
            raise ValueError(
                f"an export of {type(model).__name__} was asked for, and the columns {sorted(made)} are none of those "
                f"that it reads ({', '.join(list(takes)[:4])}, ...): put its processor beside it."
            )
        return cls(task, example, outputs, {name: _free(name, example) for name in example})


def outputs_of(task: Task, name: str) -> tuple[str, ...]:
    """Name the outputs of an export.

    Args:
        task: of the model.
        name: of the model, for the error.

    Raises:
        ValueError: there is no export for the task; it says what to do.
    """
    for kind in type(task).__mro__:
        if kind in EXPORTED:
            return EXPORTED[kind]
        if kind in REFUSED:
            raise ValueError(f"an export of {name} was asked for, which {REFUSED[kind]}.")
    raise ValueError(
        f"an export of {name} was asked for, and none is known for {type(task).__name__}: there is one for those of "
        f"{', '.join(kind.auto_class for kind in EXPORTED)}."
    )


def random_rows(model: nn.Module, processor: Any = None) -> dict[str, Tensor]:
    """Make two random rows of a model that reads images or recordings.

    Args:
        model: says what it reads, where there is no processor.
        processor: makes the rows of random images or waves; None: sizes are the configuration's.

    Raises:
        ValueError: the configuration does not say how large an image is.
    """
    draw = torch.Generator().manual_seed(0)
    column, config = getattr(model, "main_input_name", "pixel_values"), model.config
    processor = getattr(processor, "image_processor", None) or getattr(processor, "feature_extractor", processor)
    if column != "pixel_values":
        if processor is None:
            return {WAVES: torch.randn(2, 16_000, generator=draw)}
        waves = list(torch.randn(2, processor.sampling_rate, generator=draw).numpy())
        return dict(processor(waves, sampling_rate=processor.sampling_rate, return_tensors="pt"))
    channels = getattr(config, "num_channels", 3)
    if processor is not None:
        images = list(torch.randint(0, 256, (2, channels, 96, 96), generator=draw, dtype=torch.uint8).numpy())
        return dict(processor(images, return_tensors="pt", input_data_format="channels_first"))
    if (size := getattr(config, "image_size", None)) is None:
        raise ValueError(
            f"an export of {type(model).__name__} was asked for, whose configuration does not say how large an image "
            "is: put its image processor beside it."
        )
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return {"pixel_values": torch.randn(2, channels, height, width, generator=draw)}


def _two(column: Tensor) -> Tensor:
    """A size of one in an example would be one for ever, and how a column lies in memory would be asked for."""
    return (column[:2] if len(column) > 1 else torch.cat((column, column))).contiguous()


def _free(name: str, example: Mapping[str, Tensor]) -> dict[int, str]:
    """Waves have any length, and features whose padding is masked; images and masked pixels have their size."""
    sounds = not any(one.startswith("pixel") for one in example)
    own_length = sounds and ((WAVES in example and example[WAVES].ndim == 2) or MASK in example)
    return {0: "rows", **({1: "samples" if WAVES in example else "frames"} if own_length else {})}
