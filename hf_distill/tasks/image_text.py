"""Pairs of an image and a text, of which a model of two towers makes a vector each: CLIP, SigLIP, ALIGN, ...

Knows: how these models show vectors and a learned scale, their two supervised losses. Does not know: how vectors of
other ranks and micro-batches come together (``company``), what a term compares, teachers.

A product of two vectors hangs on no other pair, but a distribution over products does. So a teacher answers with
vectors, which can be kept for each row, and heads are made where both models are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hf_distill.models.image_text import has_two_towers, scale_and_bias
from hf_distill.models.meta import IMAGES
from hf_distill.models.outputs import core_of
from hf_distill.models.texts import IDS, MASK
from hf_distill.objectives.unit_vectors import unit_vectors
from hf_distill.signals import DenseLogits, Head, HeadSpec, Signals, Stream, Sum
from hf_distill.tasks.alignment.tokens import PREFIX
from hf_distill.tasks.company import Company, same_pairs
from hf_distill.tasks.comparing import teachers_columns
from hf_distill.tasks.equal_rows import row_numbers
from hf_distill.tasks.samples import rows_of
from hf_distill.tasks.task import Task

SOFTMAX, SIGMOID = "softmax", "sigmoid"
SIDES = ("image", "text")
SMOOTHED = 0.1
"""What ALIGN's loss in transformers spreads of a label."""
USUAL_SCALE = 100.0
"""What cosines of a function's vectors are multiplied by where it names no scale: CLIP's, when it is trained."""


class ImageText(Task):
    """An image and a text a row, each with a vector of its own; no column of labels is needed, ``alpha`` is 0.5.

    The heads are ``image`` [B, N], of each image its products with all texts, and ``text`` [B, N], of each text those
    with all images, times the model's own learned scale: N pairs of all ranks, whose gradients find their way back. So
    every term on logits compares affinities, at the temperature 1, for the scale is a temperature already. Rows are
    those of both heads. Vectors are compared by ``vector_mse`` and ``vector_cosine`` and, without options for layers,
    by ``pooled_mse``, ``pooled_cosine``, ``rkd_distance``, ``rkd_angle``, ``similarity`` and ``contrastive``.

    Two pairs with the same caption (the same tokens) or the same image (the same pixels) are no negatives of each
    other in the supervised loss; ``negatives`` in the log is how many a pair has. With several micro-batches a step
    these are of its own micro-batch on all ranks, unless ``accumulate_negatives=True`` is set.

    Args:
        criterion: the supervised loss, ``"softmax"``, the mean of the cross-entropies of both heads (CLIP, Chinese-
            CLIP, ALIGN), or ``"sigmoid"``, a sum over all pairs (SigLIP); both divided by the pairs.
        smoothing: which share of a label is spread over all pairs under ``"softmax"``; ALIGN has 0.1.

    Raises:
        ValueError: another criterion.

    Reference:
        Radford et al.: Learning Transferable Visual Models From Natural Language Supervision, arXiv:2103.00020; Zhai,
        Mustafa, Kolesnikov, Beyer: Sigmoid Loss for Language Image Pre-Training, arXiv:2303.15343; Yang et al.:
        CLIP-KD, arXiv:2307.12732, for affinities and vectors as what is learned.

    Example:
        >>> batch = {"input_ids": torch.ones(3, 4, dtype=torch.long), "pixel_values": torch.zeros(3, 3, 8, 8)}
        >>> counts = ImageText().counts(batch)
        >>> {unit: counts[unit].item() for unit in ("rows", "samples", "labels")}
        {'rows': 6, 'samples': 3, 'labels': 3}
    """

    auto_class: ClassVar[str] = "AutoModel"
    processor_class: ClassVar[str] = "AutoProcessor"
    pipeline_tag: ClassVar[str] = "zero-shot-image-classification"
    noun: ClassVar[str] = "pairs of an image and a text"
    example: ClassVar[str] = '"an image of yours.png", candidate_labels=["a cat", "a dog"]'
    default_objective: Mapping[str, Any] = {"vector_cosine": 1.0, "forward_kl": {"temperature": 1.0}}
    label_names: ClassVar[tuple[str, ...]] = ()
    paired: ClassVar[bool] = True
    vectors: tuple[str, ...] = SIDES
    streams: ClassVar[tuple[str, ...]] = ("text", "vision")

    def __init__(self, criterion: str = SOFTMAX, smoothing: float = 0.0) -> None:
        if criterion not in (SOFTMAX, SIGMOID):
            raise ValueError(f"criterion={criterion!r} was given to ImageText: use {SOFTMAX} or {SIGMOID}.")
        self.criterion, self.smoothing = criterion, smoothing
        self._negatives: Tensor | None = None  # how many there were, and how many pairs had them

    @classmethod
    def from_model(cls, model: nn.Module) -> ImageText | None:
        """Return the task for a model of two towers, None for any other; see ``Task.from_model``."""
        if not has_two_towers(model):
            return None
        core = core_of(model)
        smoothing = SMOOTHED if type(core).__name__ == "AlignModel" else 0.0
        return cls(SIGMOID if hasattr(core, "logit_bias") else SOFTMAX, smoothing)

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """Two, over the pairs at hand; see the class."""
        return tuple(HeadSpec(side) for side in SIDES)

    def asked(self, needs: frozenset[str]) -> frozenset[str]:
        """Ask for vectors where terms compare heads, which are made of them; see ``Task.asked``."""
        return frozenset("@".join(["vectors", *need.split("@")[1:]]) if _of_heads(need) else need for need in needs)

    # ---- A batch ----

    def check_batch(self, batch: Mapping[str, Any]) -> None:
        """Refuse a batch without images or texts, or with another number of each; see ``Task.check_batch``."""
        missing = [name for name in (IMAGES, IDS) if batch.get(name) is None]
        if missing:
            raise ValueError(
                f"pairs of an image and a text were asked for, the batch has {sorted(map(str, batch))} and no "
                f"{' and no '.join(missing)}: let a collator make both (ImageTextCollator), with "
                "remove_unused_columns=False if it reads other columns."
            )
        images, texts = len(batch[IMAGES]), len(batch[IDS])
        if images != texts:
            raise ValueError(
                f"a batch has {images} images for {texts} texts: give each text its image, one pair a row."
            )
        own = [name for name in (IMAGES, IDS) if batch.get(PREFIX + name) is not None]
        if len(own) == 1:
            raise ValueError(
                f"a batch has {PREFIX}{own[0]} and not the other of {PREFIX}{IMAGES} and {PREFIX}{IDS}: a teacher "
                "that reads columns of its own reads both there (ImageTextCollator(processor, teacher_processor))."
            )

    def rows(self, batch: Mapping[str, Any]) -> Tensor:
        """Every pair counts; bool [B]. See ``Task.rows``."""
        device = next((value.device for value in batch.values() if isinstance(value, Tensor)), None)
        return torch.ones(rows_of(batch), dtype=torch.bool, device=device)

    def labels(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Every pair is its own label; bool [B]. See ``Task.labels``."""
        self.check_batch(batch)
        return self.rows(batch)

    def counts(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Rows are those of both heads; see ``Task.counts``."""
        counts = super().counts(batch)
        return {**counts, "rows": counts["rows"] * len(SIDES)}

    def stream_mask(self, name: str, batch: Mapping[str, Any]) -> Tensor | None:
        """How many positions an image becomes is known to its model alone; see ``Task.stream_mask``."""
        return self.mask(batch) if name == "text" else None

    def teacher_batch(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the columns ``teacher_x`` as ``x``, and the others as they are; see ``Task.teacher_batch``."""
        own = teachers_columns(batch)
        return batch if own is batch else {**batch, **own}

    def inputs(
        self, model: nn.Module, fed: dict[str, Any], batch: Mapping[str, Any], teacher: Signals | None = None
    ) -> dict[str, Any]:
        """Take away a label of the data set, and let no model compute a loss of its own; see ``Task.inputs``."""
        return {name: value for name, value in fed.items() if name not in ("labels", "return_loss")}

    def numbers(self, batch: Mapping[str, Any]) -> Tensor:
        """Number each image and each text by what it is: equal ones have equal numbers.

        Args:
            batch: the batch.

        Returns:
            int64 [B, 2].
        """
        return torch.stack((row_numbers(batch[IMAGES]), row_numbers(batch[IDS], batch.get(MASK))), dim=1)

    def references(self, batch: Mapping[str, Any]) -> Tensor | None:
        """The numbers of images and texts, by which a metric knows which belong together; see ``Task.references``."""
        return self.numbers(batch)

    # ---- A model ----

    def predicted(self, outputs: Any) -> Any:
        """The two vectors alone: products within a batch are of no use to a metric; see ``Task.predicted``."""
        return dict(zip(SIDES, _embeds(outputs), strict=True))

    def signals(self, model: nn.Module, batch: Mapping[str, Any], outputs: Any, captured: Any = None) -> Signals:
        """Read vectors, scale and bias, and what each tower shows along its positions; see ``Task.signals``."""
        image, text = _embeds(outputs)
        if model is None:  # a function's answer
            scale = torch.as_tensor(outputs.get("logit_scale", USUAL_SCALE)).float().to(image.device)
            bias = outputs.get("logit_bias")
        else:
            scale, bias = scale_and_bias(core_of(model))
        bias = torch.zeros(()) if bias is None else torch.as_tensor(bias).float()
        scale, bias = (one.to(image.device).reshape(1, 1).expand(len(image), 1) for one in (scale, bias))
        tower = {name: outputs.get(f"{name}_model_output") or {} for name in self.streams}
        shown = {n: [tuple(one.get(k) or ()) for k in ("hidden_states", "attentions")] for n, one in tower.items()}
        (hidden, attention), vision = shown["text"], shown["vision"]
        return Signals(
            heads={},
            hidden=hidden,
            attention=attention,
            mask=self.layout(batch).mask,
            streams={"vision": Stream(*vision)},
            vectors={"image": image, "text": text, "scale": scale, "bias": bias},
        )

    # ---- Two models ----

    def match(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> tuple[Signals, Signals]:
        """Make the heads of both, over the pairs of all ranks; see ``Task.match``."""
        ours = self._with_heads(student, batch, None)
        if student.vectors["image"].requires_grad:
            self._note(same_pairs(self.numbers(batch), batch))
        theirs = {name: self._with_heads(shown, batch, name) for name, shown in teacher.named.items()}
        alone = self._with_heads(teacher, batch, "") if teacher.vectors else teacher
        return ours, replace(alone, named=theirs)

    def truths(self, student: Signals, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Nothing: which pair is the right one is asked among those of a batch, whose size would be the answer."""
        return {}

    def _with_heads(self, shown: Signals, batch: Mapping[str, Any], who: str | None) -> Signals:
        company = Company.of(shown.vectors, batch, who)
        rows = torch.ones(len(company.image), dtype=torch.bool, device=company.image.device)
        heads = {
            side: Head(DenseLogits(logits), rows, company.places, share=company.share)
            for side, logits in zip(SIDES, _products(company, shown), strict=True)
        }
        return replace(shown, heads=heads, vectors={side: shown.vectors[side] for side in SIDES})

    def hard(self, outputs: Any, batch: Mapping[str, Any], shown: Signals) -> Sum:
        """Sum over the pairs of this batch what they cost among all; see ``Task.hard``."""
        company = Company.of(shown.vectors, batch, None)
        same = same_pairs(self.numbers(batch), batch)
        if shown.vectors["image"].requires_grad:
            self._note(same)
        own = torch.zeros_like(same).scatter_(1, company.places.unsqueeze(1), True)
        by_image, by_text = _products(company, shown)
        if self.criterion == SIGMOID:
            signed = torch.where(own, by_text, -by_text)
            total = -F.logsigmoid(signed).masked_fill(same & ~own, 0.0).sum()
        else:
            total = 0.5 * sum(self._softmax(logits, own, same & ~own) for logits in (by_image, by_text))
        return Sum(total * company.share, torch.tensor(len(shown.vectors["image"]), device=total.device))

    def _softmax(self, logits: Tensor, own: Tensor, equal: Tensor) -> Tensor:
        log = logits.masked_fill(equal, float("-inf")).log_softmax(dim=-1).masked_fill(equal, 0.0)
        spread = log.sum(dim=-1) / (~equal).sum(dim=-1) if self.smoothing else 0.0
        return -((1.0 - self.smoothing) * (log * own).sum(dim=-1) + self.smoothing * spread).sum()

    def _note(self, same: Tensor) -> None:
        both = torch.stack(((~same).sum(), torch.tensor(len(same), device=same.device)))
        self._negatives = both if self._negatives is None else self._negatives + both

    def noted(self) -> dict[str, float]:
        """``negatives``: how many each pair had in the steps since it was last asked; see ``Task.noted``."""
        told, self._negatives = self._negatives, None
        if told is None:
            return {}
        negatives, pairs = told.tolist()
        return {"negatives": negatives / max(1, pairs)}


def _of_heads(need: str) -> bool:
    return need.partition("@")[0] == "heads"


def _products(company: Company, shown: Signals) -> tuple[Tensor, Tensor]:
    """Each image with all texts, each text with all images: float32 [M, N] both."""
    scale, bias = (shown.vectors[name][:1].float() for name in ("scale", "bias"))
    with torch.autocast(company.image.device.type, enabled=False):
        return company.image @ company.texts.T * scale + bias, company.text @ company.images.T * scale + bias


def _embeds(outputs: Any) -> tuple[Tensor, Tensor]:
    """The vectors of length 1 that a model returned, float32 [B, D] of images and of texts."""
    found = [outputs.get(f"{side}_embeds") if isinstance(outputs, Mapping) else None for side in SIDES]
    if any(one is None for one in found):
        shown = ", ".join(outputs) if isinstance(outputs, Mapping) else f"a {type(outputs).__name__}"
        raise ValueError(
            f"vectors of images and of texts were asked for, a model returned {shown}: use a model of two towers such "
            "as CLIPModel, with both pixel_values and input_ids in the batch, or a function that returns image_embeds "
            "and text_embeds."
        )
    image, text = (unit_vectors(one.float()) for one in found)
    return image, text
