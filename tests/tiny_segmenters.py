"""Tiny segmenters with random weights, and images with a class for each pixel."""

import torch
from tiny_images import QUIET, made
from transformers import (
    BeitConfig,
    BeitForSemanticSegmentation,
    MobileNetV2Config,
    MobileNetV2ForSemanticSegmentation,
    ResNetConfig,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)


def segformer(widths=(8, 16), depths=(1, 1), labels=3, stride=2, seed=0, **config):
    stages = len(widths)
    shape = SegformerConfig(
        num_labels=labels, num_encoder_blocks=stages, depths=list(depths), hidden_sizes=list(widths),
        num_attention_heads=[2] * stages, patch_sizes=[3] * stages, strides=[stride] + [2] * (stages - 1),
        sr_ratios=[1] * stages, mlp_ratios=[2] * stages, decoder_hidden_size=8, drop_path_rate=0.0,
        classifier_dropout_prob=0.0, initializer_range=0.2, **QUIET, **config,
    )  # fmt: skip
    model = made(SegformerForSemanticSegmentation, shape, seed)
    norm = model.decode_head.batch_norm  # its statistics depend on how a batch is cut
    norm.eval()
    norm.train = lambda mode=True: norm
    return model


def beit(seed=0, **config):
    shape = BeitConfig(
        num_labels=3, image_size=16, patch_size=4, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=16, out_indices=[1, 2, 3, 4], pool_scales=[1], auxiliary_channels=4,
        use_relative_position_bias=True, drop_path_rate=0.0, **QUIET, **config,
    )  # fmt: skip
    return made(BeitForSemanticSegmentation, shape, seed)


def mobilenet(seed=0, **config):
    sizes = {"depth_multiplier": 0.25, "image_size": 32, "min_depth": 8, "classifier_dropout_prob": 0.0}
    return made(MobileNetV2ForSemanticSegmentation, MobileNetV2Config(num_labels=3, **sizes, **config), seed)


def upernet(seed=0, **config):
    stages = [f"stage{number}" for number in range(1, 5)]
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], layer_type="basic", out_features=stages
    )
    sizes = {"hidden_size": 8, "pool_scales": [1], "auxiliary_channels": 4, "auxiliary_in_channels": 8}
    return made(
        UperNetForSemanticSegmentation, UperNetConfig(backbone_config=backbone, num_labels=3, **sizes, **config), seed
    )


KINDS = {"segformer": segformer, "beit": beit, "mobilenet": mobilenet, "upernet": upernet}


def maps(n=8, seed=1, size=16, labels=3, ignored=255):
    """Images and maps; some pixels have no class."""
    generator = torch.Generator().manual_seed(seed)
    made_of = []
    for _ in range(n):
        classes = torch.randint(labels, (size, size), generator=generator)
        classes[torch.rand(size, size, generator=generator) < 0.1] = ignored
        pixels = torch.randn(3, size, size, generator=generator)
        made_of.append({"pixel_values": pixels, "labels": classes})
    return made_of
