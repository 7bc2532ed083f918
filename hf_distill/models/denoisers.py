"""Models of diffusers that remove noise: which they are, what they call it, which latents they read.

Knows: classes of diffusers by their names, configurations. Does not know: schedules of noise, batches, losses.
diffusers is imported where a model is loaded, and nowhere else: where there is a model of it, it is there.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hf_distill.models.outputs import core_of

DENOISERS = frozenset({
    "UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel", "PixArtTransformer2DModel",
    "SD3Transformer2DModel", "FluxTransformer2DModel",
})  # fmt: skip
"""The classes whose timesteps and outputs mean what ``DenoisingCollator`` takes them for; others have their own."""
UNETS = frozenset({"UNet2DModel", "UNet2DConditionModel"})
LENDING, LENT = frozenset({"DiTTransformer2DModel"}), "BasicTransformerBlock"
"""Classes that also use a part of their first block outside of it, where FSDP2 has not gathered it; their blocks."""
NOISY = ("sample", "hidden_states")
"""What a forward may call the noisy latents; the first that it takes."""
IDS = ("img_ids", "txt_ids")
"""Where tokens stand, of a model that reads latents as tokens: one table for all rows of a batch."""


def class_in(model: nn.Module, names: frozenset[str]) -> bool:
    """Say whether a model, or what it extends, is a class of diffusers of one of these names.

    Args:
        model: any module.
        names: of classes.

    Example:
        >>> class_in(nn.Linear(1, 1), DENOISERS)
        False
    """
    kinds = type(core_of(model)).__mro__
    return any(kind.__name__ in names and kind.__module__.startswith("diffusers.") for kind in kinds)


def of_diffusers(model: Any) -> bool:
    """Say whether a model is one of diffusers, which saves and loads itself.

    Args:
        model: any module; of a PEFT model the one inside.

    Example:
        >>> of_diffusers(nn.Linear(1, 1))
        False
    """
    kinds = type(core_of(model)).__mro__
    return any(kind.__name__ == "ModelMixin" and kind.__module__.startswith("diffusers.") for kind in kinds)


def config_of(model: nn.Module) -> Mapping[str, Any]:
    """Return the configuration of a model of diffusers; of any other model nothing.

    Args:
        model: any module; of a PEFT model the one inside.

    Example:
        >>> config_of(nn.Linear(1, 1))
        {}
    """
    config = getattr(core_of(model), "config", None)
    return config if of_diffusers(model) and isinstance(config, Mapping) else {}


def noisy_name(model: nn.Module) -> str:
    """Return what a model calls the noisy latents that it reads.

    Args:
        model: a denoiser.

    Raises:
        TypeError: it reads none.

    Example:
        >>> class Own(nn.Module):
        ...     def forward(self, hidden_states, timestep): ...
        >>> noisy_name(Own())
        'hidden_states'
    """
    takes = inspect.signature(core_of(model).forward).parameters
    found = next((name for name in NOISY if name in takes), None)
    if found is None or "timestep" not in takes:
        raise TypeError(
            f"a {type(core_of(model)).__name__} was given, whose forward takes {', '.join(takes)}: give a denoiser of "
            "diffusers, which reads sample or hidden_states at a timestep."
        )
    return found


def reads_tokens(model: nn.Module) -> bool:
    """Say whether a model reads latents as tokens of 2 x 2 of them, with their places beside, as Flux does.

    Args:
        model: a denoiser.
    """
    return IDS[0] in inspect.signature(core_of(model).forward).parameters


def noisy_in(batch: Mapping[str, Any]) -> Tensor | None:
    """Find the noisy latents of a batch; None: it has none.

    Args:
        batch: the batch.
    """
    return next((batch[name] for name in NOISY if isinstance(batch.get(name), Tensor)), None)


def learns_variance(model: nn.Module) -> bool:
    """Say whether a model gives a variance beside what it predicts: twice as many channels as it reads.

    Args:
        model: a denoiser.
    """
    config = config_of(model)
    read, given = (config.get(name) for name in ("in_channels", "out_channels"))
    return read is not None and given == 2 * read


def check_latents(model: nn.Module, who: str, form: tuple[int, ...]) -> None:
    """Refuse latents that a model cannot read, which torch would say deep inside of it.

    Args:
        model: a denoiser.
        who: how a message names it.
        form: of one row: channels, height, width; or tokens and their width.

    Raises:
        ValueError: in one sentence.
    """
    config, tokens = config_of(model), reads_tokens(model)
    channels = config.get("in_channels")
    if len(form) != (2 if tokens else 3) or channels is None:
        if channels is not None and len(form) < 4:  # videos have an axis more
            raise ValueError(
                f"latents of the shape {list(form)} were given to {who}, which reads "
                f"{'tokens and their width' if tokens else 'channels, height and width'}: give each row as many axes."
            )
        return
    if (there := form[-1 if tokens else 0]) != channels:
        raise ValueError(
            f"latents of the shape {list(form)} were given to {who}, which reads {channels} channels and not {there}: "
            "use latents of its own autoencoder, or a model for these."
        )
    step = 1 if tokens else _step(model, config)
    if any(side % step for side in form[1:]):
        raise ValueError(
            f"latents of the shape {list(form)} were given to {who}, which halves or cuts them: give sides that are "
            f"multiples of {step}."
        )


def _step(model: nn.Module, config: Mapping[str, Any]) -> int:
    """What the sides of latents must be multiples of."""
    if class_in(model, UNETS):
        return 2 ** (len(config["block_out_channels"]) - 1)
    return config.get("patch_size") or 1


def quieten(model: nn.Module) -> None:
    """Let a model drop no classes by itself: whoever makes batches does, alike for the teacher and the student.

    Args:
        model: a denoiser, whose embeddings of labels drop some while it is trained.
    """
    for module in core_of(model).modules():
        if type(module).__name__ == "LabelEmbedding" and getattr(module, "dropout_prob", 0.0):
            module.dropout_prob = 0.0


def save_config(model: nn.Module, folder: Path) -> None:
    """Write the configuration of a model of diffusers, with the name of its own class.

    FSDP2 gives a model a class of its making (``FSDPUNet2DModel``), whose name diffusers would write down.

    Args:
        model: of diffusers.
        folder: where ``config.json`` goes.
    """
    model.save_config(folder)
    path = folder / "config.json"
    own = next(one for one in type(model).__mro__ if not one.__module__.startswith("torch."))
    config = json.loads(path.read_text(encoding="utf-8")) | {"_class_name": own.__name__}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_diffusers_model(path: str | Path, who: str, parts: tuple[str, ...] = ("transformer", "unet")) -> nn.Module:
    """Load a model of diffusers from its own folder, that of its pipeline, or the Hub.

    Args:
        path: a folder or an id.
        who: how a message names it.
        parts: what its folder is called inside of a pipeline's.

    Raises:
        ImportError: diffusers is not installed.
        ValueError: it cannot be read so, or lacks weights.
    """
    try:
        import diffusers
    except ImportError as error:
        raise ImportError(
            f'{who} is loaded by diffusers, which is not installed: pip install "hf_distill[diffusers]".'
        ) from error
    inside = next((name for name in parts if (Path(path) / name).is_dir()), None)
    options = {} if inside is None else {"subfolder": inside}
    try:
        kind = getattr(diffusers, diffusers.AutoModel.load_config(str(path), **options)["_class_name"])
    except (OSError, KeyError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{who} could not be read as a model of diffusers ({reason}): name the folder of its "
            f"{' or '.join(parts)}, or pass the model."
        ) from error
    model, info = kind.from_pretrained(str(path), output_loading_info=True, **options)
    if missing := sorted(info["missing_keys"]):
        raise ValueError(
            f"{who} has no trained weights for {', '.join(missing[:3])}: train it first, what is random teaches noise."
        )
    return model
