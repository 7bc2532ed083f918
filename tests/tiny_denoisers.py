"""Tiny denoisers of diffusers with random weights, schedulers, and rows of latents."""

import pytest
import torch

diffusers = pytest.importorskip("diffusers", reason='needs pip install -e ".[diffusers]"')


def made(kind, seed, **config):
    """Layers that begin at zero, as those behind a block do, are drawn too: else every output is alike."""
    torch.manual_seed(seed)
    model = getattr(diffusers, kind)(**config)
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def dit(layers=2, seed=0, **config):
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 1, "num_layers": layers}
    rest = {"sample_size": 4, "patch_size": 2, "num_embeds_ada_norm": 3, "norm_num_groups": 1}
    return made("DiTTransformer2DModel", seed, **{**sizes, **rest, **config})


def unet(layers=1, seed=0, **config):
    sizes = {"sample_size": 4, "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 16)}
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    rest = {"layers_per_block": layers, "norm_num_groups": 4, "attention_head_dim": 8, "num_class_embeds": 4}
    return made("UNet2DModel", seed, **{**sizes, **blocks, **rest, **config})


def ddpm(predicts="epsilon", steps=20, **config):
    return diffusers.DDPMScheduler(num_train_timesteps=steps, prediction_type=predicts, **config)


def flow(**config):
    return diffusers.FlowMatchEulerDiscreteScheduler(**config)


def latents(n=8, seed=1, size=4, channels=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        {"latents": torch.randn(channels, size, size, generator=generator), "label": number % 3} for number in range(n)
    ]


def prompted_unet(layers=1, seed=0, **config):
    sizes = {"sample_size": 4, "in_channels": 4, "out_channels": 4, "block_out_channels": (8, 16)}
    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    rest = {"layers_per_block": layers, "norm_num_groups": 4, "attention_head_dim": 2, "cross_attention_dim": 8}
    return made("UNet2DConditionModel", seed, **{**sizes, **blocks, **rest, **config})


def sdxl(layers=1, seed=0):
    more = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
    return prompted_unet(layers, seed, projection_class_embeddings_input_dim=6 * 4 + 6, **more)


def pixart(layers=2, seed=0, **config):
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 8}
    rest = {"num_layers": layers, "sample_size": 4, "patch_size": 2, "caption_channels": 8, "cross_attention_dim": 16}
    more = {"norm_num_groups": 1, "use_additional_conditions": False}
    return made("PixArtTransformer2DModel", seed, **{**sizes, **rest, **more, **config})


def sd3(layers=2, seed=0, **config):
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 4}
    rest = {"num_layers": layers, "sample_size": 4, "patch_size": 2, "joint_attention_dim": 8}
    more = {"caption_projection_dim": 16, "pooled_projection_dim": 6, "pos_embed_max_size": 4}
    return made("SD3Transformer2DModel", seed, **{**sizes, **rest, **more, **config})


def flux(layers=2, single=2, seed=0, **config):
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 16, "axes_dims_rope": (2, 2, 4)}
    rest = {"num_layers": layers, "num_single_layers": single, "joint_attention_dim": 8, "pooled_projection_dim": 6}
    return made(
        "FluxTransformer2DModel", seed, **{"patch_size": 1, "guidance_embeds": False, **sizes, **rest, **config}
    )


def prompts(n=8, seed=2, size=4):
    """Latents of four channels, with embeddings of a prompt of three tokens, and what SDXL and SD3 read beside."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"latents": (4, size, size), "prompt_embeds": (3, 8), "pooled": (6,), "time_ids": (6,)}
    return [{name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()} for _ in range(n)]
