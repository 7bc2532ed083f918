"""Tiny depth models with random weights, and images with a distance for each pixel."""

import torch
from tiny_images import QUIET, made, without_batch_statistics
from transformers import (
    BeitConfig,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
    GLPNConfig,
    GLPNForDepthEstimation,
    ZoeDepthConfig,
    ZoeDepthForDepthEstimation,
)

FLAT = {
    "image_size": 16, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
    "initializer_range": 0.2,
}  # fmt: skip
NECK = {"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8, "initializer_range": 0.2}


def glpn(widths=(8, 16), stride=2, seed=0, **config):
    stages = len(widths)
    shape = GLPNConfig(
        num_encoder_blocks=stages, depths=[1] * stages, hidden_sizes=list(widths), num_attention_heads=[2] * stages,
        patch_sizes=[3] * stages, strides=[stride] + [2] * (stages - 1), sr_ratios=[1] * stages,
        mlp_ratios=[2] * stages, decoder_hidden_size=8, drop_path_rate=0.0, initializer_range=0.2, **QUIET, **config,
    )  # fmt: skip
    return without_batch_statistics(made(GLPNForDepthEstimation, shape, seed))


def dpt(seed=0, **config):
    shape = DPTConfig(
        **FLAT, neck_hidden_sizes=[8] * 4, fusion_hidden_size=8, intermediate_size=16, is_hybrid=False,
        backbone_out_indices=[0, 1, 2, 3], reassemble_factors=[4, 2, 1, 0.5], **QUIET, **config,
    )  # fmt: skip
    return made(DPTForDepthEstimation, shape, seed)


def depth_anything(seed=0, **config):
    backbone = Dinov2Config(**FLAT, mlp_ratio=1, out_indices=[1, 2, 3, 4], reshape_hidden_states=False, **QUIET)
    sizes = {"patch_size": 4, "reassemble_hidden_size": 16, "head_hidden_size": 8}
    shape = DepthAnythingConfig(backbone_config=backbone, **NECK, **sizes, **config)
    return made(DepthAnythingForDepthEstimation, shape, seed)


def zoedepth(seed=0, **config):
    backbone = BeitConfig(
        **FLAT, intermediate_size=16, use_relative_position_bias=True, reshape_hidden_states=False, drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"], **QUIET,
    )  # fmt: skip
    shape = ZoeDepthConfig(
        backbone_config=backbone, **NECK, bottleneck_features=8, num_relative_features=8, bin_embedding_dim=8,
        num_attractors=[4, 2, 2, 1], bin_configurations=[{"n_bins": 8, "min_depth": 1e-3, "max_depth": 10.0}],
        **config,
    )  # fmt: skip
    return made(ZoeDepthForDepthEstimation, shape, seed)


KINDS = {"glpn": glpn, "dpt": dpt, "depth_anything": depth_anything, "zoedepth": zoedepth}


def scenes(n=8, seed=1, size=16, labels=16):
    """Images and distances; of some pixels it is not known, of the third image of none."""
    generator = torch.Generator().manual_seed(seed)
    made_of = []
    for number in range(n):
        depth = 0.5 + 8 * torch.rand(labels, labels, generator=generator)
        depth[torch.rand(labels, labels, generator=generator) < 0.2] = 0.0
        depth[0, 0] = float("nan")
        pixels = torch.randn(3, size, size, generator=generator)
        made_of.append({"pixel_values": pixels, "labels": depth * 0 if number == 2 else depth})
    return made_of
