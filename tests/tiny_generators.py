"""Tiny generators with random weights: autoencoders of diffusers, vocoders, a GAN's, and rows for them."""

import pytest
import torch
from torch import nn
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig, UnivNetConfig, UnivNetModel

from hf_distill import VAEDecoder


def vae(width=8, seed=0, kind="AutoencoderKL", **config):
    diffusers = pytest.importorskip("diffusers", reason='needs pip install -e ".[diffusers]"')
    torch.manual_seed(seed)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    sizes = {"block_out_channels": (width, width), "latent_channels": 2, "norm_num_groups": 4, "scaling_factor": 0.5}
    if kind == "AutoencoderTiny":
        widths = dict.fromkeys(("encoder_block_out_channels", "decoder_block_out_channels"), (width, width))
        blocks = {**widths, **dict.fromkeys(("num_encoder_blocks", "num_decoder_blocks"), (1, 1))}
        sizes = {"latent_channels": 2}
    return getattr(diffusers, kind)(**{**blocks, **sizes, **config})


def decoder(width=8, seed=0, **config):
    return VAEDecoder(vae(width, seed, **config))


def hifigan(width=8, seed=0, rates=(2, 2), **config):
    torch.manual_seed(seed)
    sizes = {"model_in_dim": 4, "upsample_initial_channel": width, "upsample_rates": rates}
    kernels = {"upsample_kernel_sizes": [2 * one for one in rates], "resblock_kernel_sizes": [3]}
    rest = {"resblock_dilation_sizes": [[1]], "normalize_before": False, "initializer_range": 0.3}
    return SpeechT5HifiGan(SpeechT5HifiGanConfig(**{**sizes, **kernels, **rest, **config}))


def univnet(width=4, seed=0):
    torch.manual_seed(seed)
    sizes = {"model_in_channels": 4, "model_hidden_channels": width, "num_mel_bins": 4, "initializer_range": 0.3}
    blocks = {"resblock_kernel_sizes": [3], "resblock_stride_sizes": [2], "resblock_dilation_sizes": [[1]]}
    inner = {"kernel_predictor_num_blocks": 1, "kernel_predictor_hidden_channels": 4}
    return UnivNetModel(UnivNetConfig(**sizes, **blocks, **inner))


class Gan(nn.Module):
    """A generator of one's own: a vector and a class in, an image out."""

    def __init__(self, width=8, seed=0, side=4, latent=3):
        super().__init__()
        torch.manual_seed(seed)
        self.classes = nn.Embedding(3, latent)
        self.body = nn.Sequential(nn.Linear(latent, width), nn.Tanh(), nn.Linear(width, side * side))
        self.side = side

    def forward(self, z, class_labels):
        return self.body(z + self.classes(class_labels)).unflatten(1, (1, self.side, self.side)).tanh()


def latents(n=8, seed=1, channels=2, size=4, target=True):
    """Rows of latents, with an image of twice the size."""
    chance = torch.Generator().manual_seed(seed)
    rows = [{"latents": torch.randn(channels, size, size, generator=chance)} for _ in range(n)]
    images = [
        {"target": torch.rand(3, 2 * size, 2 * size, generator=chance) * 2 - 1} for _ in range(n if target else 0)
    ]
    return [{**row, **image} for row, image in zip(rows, images or [{}] * n, strict=True)]


def mels(n=8, seed=1, frames=5, samples=20, target=True):
    chance = torch.Generator().manual_seed(seed)
    rows = [{"spectrogram": torch.randn(frames, 4, generator=chance)} for _ in range(n)]
    waves = [{"target": torch.rand(samples, generator=chance) * 2 - 1} for _ in range(n if target else 0)]
    return [{**row, **wave} for row, wave in zip(rows, waves or [{}] * n, strict=True)]
