"""Decoders of diffusers' autoencoders: latents in, an image or a wave out, as a module of their own.

Knows: classes of diffusers by their names, how a pipeline scales latents. Does not know: batches, losses, teachers.
diffusers is imported where a model is loaded, and nowhere else: where there is a model of it, it is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hf_distill.models.denoisers import config_of, load_diffusers_model, of_diffusers, save_config
from hf_distill.models.outputs import core_of

FAMILY = ("Autoencoder", "AsymmetricAutoencoder")
"""What the names of the classes begin with."""
ENCODING = ("encoder", "quant_conv")
"""What of them makes latents: a student's latents stay what they were."""
INSIDE = "vae"
"""The attribute of ``VAEDecoder`` that holds the autoencoder, and its folder in a pipeline."""


def is_autoencoder(model: Any) -> bool:
    """Say whether a model is an autoencoder of diffusers, which reads images and not latents.

    Args:
        model: any module.

    Example:
        >>> is_autoencoder(nn.Linear(1, 1))
        False
    """
    return of_diffusers(model) and type(core_of(model)).__name__.startswith(FAMILY)


class VAEDecoder(nn.Module):
    """The decoder of an autoencoder of diffusers: its forward reads latents, and the encoder is not trained.

    Latents are as a diffusion model of that autoencoder makes them, scaled: two autoencoders that read the same ones,
    as Stable Diffusion's and its ``AutoencoderTiny`` do, read the same column, whatever each multiplies them by. What
    is saved at the end is the whole autoencoder, which diffusers loads.

    Args:
        vae: an autoencoder with ``decode``: ``AutoencoderKL``, ``AutoencoderTiny``, ``AutoencoderDC``, ...

    Raises:
        TypeError: something else.
    """

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        if not is_autoencoder(vae):
            raise TypeError(
                f"a {type(vae).__name__} was given to VAEDecoder: give an autoencoder of diffusers (pip install "
                '"hf_distill[diffusers]"), such as AutoencoderKL; any other decoder is a student as it is.'
            )
        self.vae = vae
        for name in ENCODING:
            if isinstance(part := getattr(vae, name, None), nn.Module):
                part.requires_grad_(False)

    @property
    def config(self) -> Any:
        """The autoencoder's own, as a card reads it."""
        return self.vae.config

    def forward(self, latents: Tensor) -> Tensor:
        """Decode.

        Args:
            latents: [B, C, height, width], scaled.

        Returns:
            Images from -1 to 1 [B, C, height, width], not clamped; or waves.
        """
        factor, shift = _scales(self.vae, latents)
        return self.vae.decode(latents / factor + shift, return_dict=False)[0]


@torch.no_grad()
def encode_latents(model: nn.Module, images: Tensor, batch_size: int = 64) -> Tensor:
    """Make latents of images, as ``VAEDecoder`` reads them: the mean, where an encoder gives a distribution.

    Args:
        model: an autoencoder of diffusers, or a ``VAEDecoder``.
        images: [N, C, height, width], from -1 to 1.
        batch_size: how many at once.

    Returns:
        [N, channels, height, width], on the CPU.
    """
    vae = model.vae if isinstance(model, VAEDecoder) else core_of(model)
    some = next(vae.parameters())
    training, made = vae.training, []
    vae.eval()
    for part in images.split(batch_size):
        shown = vae.encode(part.to(some.device, some.dtype))
        found = shown.latent_dist.mode() if hasattr(shown, "latent_dist") else shown[0]
        factor, shift = _scales(vae, found)
        made.append(((found - shift) * factor).cpu())
    vae.train(training)
    return torch.cat(made)


def latent_channels(model: nn.Module) -> int | None:
    """Return how many channels the latents of a ``VAEDecoder`` have; None: of another model, or not known.

    Args:
        model: any module.

    Example:
        >>> latent_channels(nn.Linear(1, 1)) is None
        True
    """
    core = core_of(model)
    return config_of(core.vae).get("latent_channels") if isinstance(core, VAEDecoder) else None


def save_whole(decoder: VAEDecoder, saved: Path, weights: Path) -> None:
    """Turn what was saved of a decoder into a folder that diffusers loads as an autoencoder.

    Args:
        decoder: it.
        saved: its weights, whole, as Trainer wrote them; the file goes.
        weights: where the autoencoder's own are to be.
    """
    state = {name.removeprefix(f"{INSIDE}."): value for name, value in load_file(saved).items()}
    save_file(state, weights, metadata={"format": "pt"})
    save_config(decoder.vae, weights.parent)
    saved.unlink()


def load_decoder(path: str | Path, who: str) -> nn.Module:
    """Load a decoder of diffusers from its autoencoder's own folder, that of its pipeline, or the Hub.

    Args:
        path: a folder or an id.
        who: how a message names it.

    Raises:
        ImportError: diffusers is not installed.
        ValueError: it cannot be read so, or is no autoencoder.
    """
    model = load_diffusers_model(path, who, (INSIDE,))
    if not is_autoencoder(model):
        raise ValueError(
            f"{who} is a {type(model).__name__}: name the folder of an autoencoder of diffusers, or pass the model."
        )
    return VAEDecoder(model)


def _scales(vae: nn.Module, latents: Tensor) -> tuple[Any, Any]:
    """What a diffusion model's latents are divided by, and what is added then, as pipelines do."""
    config: Mapping[str, Any] = config_of(vae)
    factor, shift = config.get("scaling_factor") or 1.0, config.get("shift_factor") or 0.0
    if (spread := config.get("latents_std")) is not None and (mean := config.get("latents_mean")) is not None:
        each = (1, -1, *[1] * (latents.ndim - 2))
        return factor / latents.new_tensor(spread).view(each), latents.new_tensor(mean).view(each)
    return factor, shift
