"""Facts: what can be said of a model before it runs.

Knows: configurations, and what a student's says of where it was cut from. Does not know: tasks, terms, batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hf_distill.models.copies import copied_layers
from hf_distill.models.denoisers import config_of
from hf_distill.models.image_text import vector_size
from hf_distill.models.meta import image_widths, reads_images_alone
from hf_distill.models.outputs import core_of
from hf_distill.models.parts import Part, main_part, parts_of
from hf_distill.models.snapshots import commit_of


@dataclass(frozen=True)
class Facts:
    """What can be said of a model before it runs. None means: not known, nothing can be checked against it.

    Args:
        name: how to name the model in a message or a card.
        revision: the Hub commit it was loaded from.
        hidden_size: width of its hidden states.
        num_layers: number of its layers, without the embeddings.
        num_heads: number of attention heads.
        vocab_size: number of token embeddings.
        problem_type: as in ``config.problem_type``.
        labels: class names in the order of the logits.
        widths: how wide each hidden state is, that of the embeddings first; None: all as wide as ``hidden_size``.
        kept: which of its first teacher's hidden dimensions it has, if its width was cut (``config.distillation``).
        copies: for each of its layers which one of its first teacher's it is a copy of, both from 0
            (``config.distillation``).
        copied_from: how many layers that teacher has.
        streams: what is known of its parts, where it has several: ``encoder``, ``decoder``, ``vision``, ``audio``,
            ``text``.
        blank: the class that says nothing, of a model that recognises speech by frames (CTC).
        vector_size: how long the vectors of a model of two towers are (CLIP).

    Of an encoder-decoder the sizes are the decoder's, whose hidden states its tasks show first.
    """

    name: str = "a model"
    revision: str | None = None
    hidden_size: int | None = None
    num_layers: int | None = None
    num_heads: int | None = None
    vocab_size: int | None = None
    problem_type: str | None = None
    labels: tuple[str, ...] | None = None
    kept: tuple[int, ...] | None = None
    widths: tuple[int, ...] | None = None
    copies: tuple[int, ...] | None = None
    copied_from: int | None = None
    streams: dict[str, Facts] = field(default_factory=dict)
    blank: int | None = None
    vector_size: int | None = None

    @classmethod
    def of(cls, model: Any) -> Facts:
        """Read the facts from a model's ``config``; a module without one has only a name.

        Of an image model the layers are measured: configurations are silent about them, or speak of another tower.

        Args:
            model: a ``PreTrainedModel``, a PEFT model, or any module.

        Example:
            >>> import torch
            >>> Facts.of(torch.nn.Linear(2, 2)).name
            'Linear'
        """
        config = getattr(model, "config", None)
        if known := config_of(model):
            return cls(name=known.get("_name_or_path") or type(core_of(model)).__name__, **_of_diffusers(known))
        if config is None or not hasattr(config, "to_dict"):
            return cls(name=type(model).__name__)
        id2label = getattr(config, "id2label", None)
        name = getattr(config, "_name_or_path", "") or ""
        images, widths = reads_images_alone(model), image_widths(model)
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        sizes, streams = main_part(config), parts_of(config)
        steps, first = getattr(config, "distillation", None) or (), None
        inner = getattr(config, "encoder_config", None)  # all that there is beside a head, as of Parakeet
        if "encoder" in streams and not _has_decoder(model) and (inner is None or sizes.hidden_size is None):
            sizes, streams, first = streams["encoder"], {}, "encoder"
        if images:
            text = getattr(config, "vision_config", None) or config
            heads = getattr(text, "num_attention_heads", None)
            sizes = Part(widths[-1], len(widths) - 1, heads) if widths else Part(num_heads=heads)
            streams, first = {}, "encoder"

        def of_part(part: Part, stream: str | None) -> dict[str, Any]:
            copies, copied_from = copied_layers(steps, stream, part.num_layers)
            return {**part._asdict(), "copies": copies, "copied_from": copied_from}

        return cls(
            name=name or type(model).__name__,
            revision=getattr(config, "_commit_hash", None) or commit_of(name),
            **of_part(sizes, first),
            vocab_size=getattr(text, "vocab_size", None),
            problem_type=getattr(config, "problem_type", None),
            labels=tuple(str(id2label[i]) for i in sorted(id2label)) if id2label else None,
            kept=_kept(steps),
            widths=widths,
            blank=getattr(config, "pad_token_id", None) if type(core_of(model)).__name__.endswith("ForCTC") else None,
            vector_size=vector_size(model),
            streams={stream: cls(**of_part(part, stream)) for stream, part in streams.items()},
        )

    def stream(self, name: str | None) -> Facts:
        """Return what is known of the part that shows a stream; see ``Signals.streams``.

        Args:
            name: the stream's; None: the main one.

        Returns:
            Sizes alone; of a stream that is not known none is.

        Example:
            >>> both = Facts("t5", num_layers=2, streams={"encoder": Facts(num_layers=4)})
            >>> both.stream("encoder").num_layers, both.stream("encoder").name, both.stream(None).num_layers
            (4, "t5's encoder", 2)
        """
        if name is None:
            return self
        return replace(self.streams.get(name, Facts()), name=f"{self.name}'s {name}")

    @classmethod
    def shared(cls, several: Iterable[Facts]) -> Facts:
        """Return what several models have in common; what only some of them have is not known.

        Args:
            several: what is known of each.

        Example:
            >>> both = Facts.shared([Facts("a", hidden_size=4, num_layers=2), Facts("b", hidden_size=4, num_layers=3)])
            >>> both.name, both.hidden_size, both.num_layers
            ('a model', 4, None)
        """
        first, *others = several = list(several)
        same = {key: value for key, value in vars(first).items() if all(vars(one)[key] == value for one in others)}
        names = [name for name in first.streams if all(name in one.streams for one in others)]
        streams = {name: cls.shared(one.streams[name] for one in several) for name in names}
        return cls(**{**same, "streams": streams})

    def width(self, layer: int) -> int | None:
        """Return how wide a hidden state is; None: nobody knows.

        Args:
            layer: 0 for the embeddings, then the layers.

        Example:
            >>> Facts(hidden_size=4).width(2), Facts(widths=(8, 16)).width(1)
            (4, 16)
        """
        return self.hidden_size if self.widths is None else self.widths[layer]

    def places(self, other: Facts) -> tuple[int, ...] | None:
        """Say where another model has the hidden dimensions that this one kept; None: nowhere that is known.

        Args:
            other: the model that this one's width was cut from, or one that was cut from it before.

        Example:
            >>> wide, first = Facts(hidden_size=6), Facts(hidden_size=3, kept=(0, 2, 5))
            >>> second = Facts(hidden_size=2, kept=(2, 5))
            >>> first.places(wide), second.places(wide), second.places(first), wide.places(first)
            ((0, 2, 5), (2, 5), (1, 2), None)
        """
        theirs = other.kept if other.kept is not None else range(other.hidden_size or 0)
        if self.kept is None or len(self.kept) != self.hidden_size or not set(self.kept) <= set(theirs):
            return None
        return tuple(theirs.index(dimension) for dimension in self.kept)

    def origins(self, other: Facts) -> tuple[int, ...] | None:
        """Say which of another model's layers this one's are copies of, both from 0; None: that is not known.

        Args:
            other: the model that this one was made from, one that was made from the same before, or one as deep, such
                as the same model after fine-tuning.

        Example:
            >>> deep, first = Facts(num_layers=6), Facts(num_layers=3, copies=(0, 2, 5), copied_from=6)
            >>> second = Facts(num_layers=2, copies=(2, 5), copied_from=6)
            >>> first.origins(deep), second.origins(first), deep.origins(first), first.origins(Facts(num_layers=12))
            ((0, 2, 5), (1, 2), None, None)
        """
        if self.copies is None or other.num_layers is None:
            return None
        if other.copies is not None and other.copied_from == self.copied_from:
            theirs = other.copies
        elif self.copied_from in (None, other.num_layers):  # earlier versions did not write down how many there were
            theirs = range(other.num_layers)
        else:
            return None
        return tuple(map(theirs.index, self.copies)) if set(self.copies) <= set(theirs) else None


def _of_diffusers(config: Mapping[str, Any]) -> dict[str, int | None]:
    """The sizes of a transformer of diffusers; a UNet has no one width."""
    heads, size = config.get("num_attention_heads"), config.get("attention_head_dim")
    if "num_layers" not in config or not isinstance(heads, int) or not isinstance(size, int):
        return {}
    return {"num_layers": config["num_layers"], "num_heads": heads, "hidden_size": heads * size}


def _has_decoder(model: Any) -> bool:
    """Whether there is one: a classifier on Whisper's encoder has the configuration of both sides."""
    modules = getattr(model, "named_modules", None)
    return modules is None or any(path.rpartition(".")[2] == "decoder" for path, _ in modules())


def _kept(steps: Iterable[Mapping[str, Any]]) -> tuple[int, ...] | None:
    kept = None
    for step in steps:
        if (some := step.get("kept")) is not None:
            kept = tuple(some) if kept is None else tuple(kept[dimension] for dimension in some)
    return kept
