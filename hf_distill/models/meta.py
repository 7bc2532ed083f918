"""Models without memory for their weights: what their outputs look like, at no cost.

Knows: configurations, how an image model is called. Does not know: weights, tasks, terms.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from hf_distill.models.outputs import core_of

IMAGES = "pixel_values"
MANY = 32
"""So many forms of images are tried of a model; a run with more of them has its own sizes, and one that reads them."""


@dataclass
class _Shown:
    """What was seen of models of one class and configuration: how wide their states are, why a form is not read."""

    measured: bool = False
    widths: tuple[int, ...] | None = None
    tried: dict[tuple[int, ...], str] = field(default_factory=dict)


_OF_SHAPE: dict[tuple[type, str], _Shown] = {}
_OF_MODEL: WeakKeyDictionary[nn.Module, _Shown] = WeakKeyDictionary()


def built(kind: type[PreTrainedModel], config: PretrainedConfig) -> PreTrainedModel:
    """Build a model of a configuration without memory for its weights, and without a draw from the random generator.

    Args:
        kind: the model's class.
        config: is left as it is.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> next(built(BertModel, BertConfig(num_hidden_layers=1)).parameters()).device
        device(type='meta')
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return kind(copy.deepcopy(config))
        except (NotImplementedError, RuntimeError):  # it reads a number from a tensor while it is built
            return kind(copy.deepcopy(config))


def flat(state: Tensor) -> Tensor:
    """Lay a feature map out as positions.

    Args:
        state: a map [B, C, H, W], or positions [B, T, C] already.

    Returns:
        [B, H * W, C], or what it was.

    Example:
        >>> flat(torch.zeros(2, 8, 3, 5)).shape, flat(torch.zeros(2, 15, 8)).shape
        (torch.Size([2, 15, 8]), torch.Size([2, 15, 8]))
    """
    return state.flatten(2).transpose(1, 2) if state.ndim == 4 else state


def reads_images_alone(model: nn.Module) -> bool:
    """Say whether a model of transformers reads images and nothing else, and writes no text about them.

    Args:
        model: any module.

    Example:
        >>> reads_images_alone(nn.Linear(1, 1))
        False
    """
    core = core_of(model)
    return isinstance(core, PreTrainedModel) and core.main_input_name == IMAGES and not core.can_generate()


def image_widths(model: nn.Module) -> tuple[int, ...] | None:
    """Measure how wide each hidden state of an image model is; configurations are silent, or speak of another layer.

    Args:
        model: any module; it is not run itself.

    Returns:
        The width of each hidden state, that of the embeddings first; None of a model that does not read images alone,
        that shows no hidden states, or that cannot be run so.

    Example:
        >>> from transformers import ResNetConfig, ResNetForImageClassification
        >>> tiny = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic")
        >>> image_widths(ResNetForImageClassification(tiny))
        (4, 4, 6)
    """
    core = core_of(model)
    if not reads_images_alone(core):
        return None
    shown = _shown(core)
    if not shown.measured:
        shown.measured, shown.widths = True, _measured(core)
    return shown.widths


def form_of(model: nn.Module) -> tuple[int, int, int]:
    """Return channels, height and width of the images that a model's configuration names.

    Args:
        model: any module with a configuration.

    Example:
        >>> from transformers import ViTConfig, ViTModel
        >>> small = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}
        >>> form_of(ViTModel(ViTConfig(image_size=32, num_channels=1, **small)))
        (1, 32, 32)
    """
    config = core_of(model).config
    parts = [getattr(config, name, None) for name in ("vision_config", "backbone_config")]
    known = [config, *(one for one in parts if one is not None)]
    size = next((one.image_size for one in known if getattr(one, "image_size", None) is not None), 224)
    channels = next((one.num_channels for one in known if getattr(one, "num_channels", None) is not None), 3)
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    return channels, height, width


def unread(model: nn.Module, form: tuple[int, ...]) -> str:
    """Say why a model cannot read images of a form, as its class does; empty where it can, or nothing is known.

    Args:
        model: any module; it is not run itself.
        form: of one image, as a batch has it: channels, height, width.

    Example:
        >>> from transformers import ViTConfig, ViTModel
        >>> small = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}
        >>> model = ViTModel(ViTConfig(image_size=32, **small))
        >>> unread(model, (3, 32, 32)), unread(model, (3, 64, 64))
        ('', "Input image size (64*64) doesn't match model (32*32)")
    """
    core = core_of(model)
    if not reads_images_alone(core) or form == (named := form_of(core)):
        return ""
    shown = _shown(core)
    tried = shown.tried
    if form not in tried and len(tried) < MANY:
        tried[form] = ""
        try:
            twin = _twin(core)
            if shown.widths is None:  # which are measured by such a run
                _run(twin, named)
        except Exception:  # it cannot be run so at all: nothing is known
            return ""
        try:
            _run(twin, form)
        except Exception as error:  # whatever its class says
            tried[form] = " ".join(str(error).split())[:100].rstrip(".") or type(error).__name__
    return tried.get(form, "")


def _shown(core: PreTrainedModel) -> _Shown:
    """What is known of a model; another one of the same class and configuration, a copy of it say, shows the same."""
    if core not in _OF_MODEL:
        try:
            shape = type(core), core.config.to_json_string(use_diff=False)
        except TypeError:  # a user's own configuration, which cannot be written down
            _OF_MODEL[core] = _Shown()
        else:
            _OF_MODEL[core] = _OF_SHAPE.setdefault(shape, _Shown())
    return _OF_MODEL[core]


def _twin(core: PreTrainedModel) -> PreTrainedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return built(type(core), core.config).eval()


def _run(twin: PreTrainedModel, form: tuple[int, ...]) -> Any:
    """What a model without weights shows for one image."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        pixels = torch.zeros(1, *form, device=next(twin.parameters()).device)
        return twin(pixel_values=pixels, output_hidden_states=True, return_dict=True)


def _measured(core: PreTrainedModel) -> tuple[int, ...] | None:
    try:
        shown = _run(_twin(core), form_of(core))
        states = shown.get("hidden_states") or shown["encoder_hidden_states"]  # a detector's, before its queries
        return tuple(flat(state).shape[-1] for state in states) or None
    except Exception:  # a class that cannot be built or run without weights is one that nothing is known of
        return None
