"""The parts of a model that read or write a sequence of their own, as its configuration tells of them.

Knows: what configurations of transformers call an encoder, a decoder, a tower of images or of sound. Does not know:
weights, tasks, terms.
"""

from __future__ import annotations

from typing import NamedTuple

from transformers import PretrainedConfig

SIDES = ("encoder", "decoder")
"""The two sides of an encoder-decoder."""

INSIDE = {
    "text": ("text_config",), "encoder": ("encoder", "encoder_config"), "decoder": ("decoder", "decoder_config"),
    "vision": ("vision_config",), "audio": ("audio_config",),
}  # fmt: skip
"""A stream's name -> what a configuration calls the configuration of the part that shows it."""

SIZES = {
    "hidden_size": ("{}_hidden_size",),
    "num_layers": ("{}_layers", "num_{}_layers", "{}_num_hidden_layers", "{}_num_layers"),
    "num_heads": ("{}_attention_heads", "num_{}_attention_heads", "{}_num_attention_heads", "num_{}_heads"),
}
"""What a configuration that holds both sides calls the sizes of one."""

USUAL = {"hidden_size": "hidden_size", "num_layers": "num_hidden_layers", "num_heads": "num_attention_heads"}
"""What it calls them where it does not tell the sides apart."""


class Part(NamedTuple):
    """The sizes of one part; None: not known.

    Args:
        hidden_size: width of its hidden states.
        num_layers: number of its layers, without the embeddings.
        num_heads: number of its attention heads.
    """

    hidden_size: int | None = None
    num_layers: int | None = None
    num_heads: int | None = None


def main_part(config: PretrainedConfig) -> Part:
    """Read the sizes of the part that a text model's answers come from: of an encoder-decoder this is the decoder.

    Args:
        config: a model's configuration.

    Example:
        >>> from transformers import BartConfig
        >>> main_part(BartConfig(d_model=8, encoder_layers=6, decoder_layers=3, decoder_attention_heads=2))
        Part(hidden_size=8, num_layers=3, num_heads=2)
    """
    text = _core(config)
    return side_of(text, "decoder") if _decodes(config) or _decodes(text) else _sizes(text)


def parts_of(config: PretrainedConfig) -> dict[str, Part]:
    """Read the sizes of each part of a model that has several.

    Args:
        config: a model's configuration.

    Returns:
        A stream's name -> sizes; empty for a model of one part.

    Example:
        >>> from transformers import BertConfig, T5Config
        >>> parts_of(T5Config(d_model=8, num_layers=4, num_decoder_layers=2, num_heads=1))["encoder"].num_layers
        4
        >>> parts_of(BertConfig())
        {}
    """
    found = {}
    for name, keys in INSIDE.items():
        inner = next((one for key in keys if isinstance(one := getattr(config, key, None), PretrainedConfig)), None)
        if inner is not None:
            found[name] = main_part(inner) if name != "encoder" else _sizes(_core(inner))
            if name == "vision" and isinstance(width := getattr(inner, "embed_dim", None), int):
                found[name] = found[name]._replace(hidden_size=width)  # hidden_size is then the text's (Qwen2-VL)
    text = _core(config)
    if getattr(text, "is_encoder_decoder", False):  # one configuration for both sides
        found = {**{side: side_of(text, side) for side in SIDES}, **found}
    return found


def side_of(config: PretrainedConfig, side: str) -> Part:
    """Read the sizes of one side of an encoder-decoder.

    Args:
        config: holds the sizes of both sides, or of one only.
        side: ``"encoder"`` or ``"decoder"``.

    Example:
        >>> from transformers import BartConfig
        >>> side_of(BartConfig(d_model=8, encoder_layers=6, decoder_layers=3), "encoder").num_layers
        6
    """
    usual = _sizes(config)._asdict()
    own = {size: [getattr(config, key.format(side), None) for key in keys] for size, keys in SIZES.items()}
    return Part(**{size: next((n for n in found if isinstance(n, int)), usual[size]) for size, found in own.items()})


def _decodes(config: PretrainedConfig) -> bool:
    """Whether what it shows first is a decoder: beside an encoder, or taken from such a model."""
    return bool(getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False))


def _core(config: PretrainedConfig) -> PretrainedConfig:
    """The part that reads or writes text; the whole where there is no such part."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _sizes(config: PretrainedConfig) -> Part:
    return Part(**{size: getattr(config, key, None) for size, key in USUAL.items()})
