"""Tiny image classifiers with random weights, and images."""

import torch
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    LevitConfig,
    LevitForImageClassificationWithTeacher,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def made(kind, config, seed=0):
    torch.manual_seed(seed)
    return kind(config)


def flat_sizes(width=16, layers=2, patch=4, **config):
    return {
        "image_size": 16, "patch_size": patch, "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": 2, "intermediate_size": 16, "num_labels": 3, "initializer_range": 0.2, **QUIET,
        **config,
    }  # fmt: skip


def vit(seed=0, **sizes):
    return made(ViTForImageClassification, ViTConfig(**flat_sizes(**sizes)), seed)


def deit(seed=0, **sizes):
    return made(DeiTForImageClassification, DeiTConfig(**flat_sizes(**sizes)), seed)


def deit_with_token(seed=0, **sizes):
    return made(DeiTForImageClassificationWithTeacher, DeiTConfig(**flat_sizes(**sizes)), seed)


def levit_with_token(seed=0, **config):
    sizes = {"image_size": 32, "hidden_sizes": [16, 16, 16], "num_attention_heads": [2] * 3, "depths": [1] * 3}
    sizes |= {"key_dim": [4] * 3, "mlp_ratio": [2] * 3, "attention_ratio": [2] * 3}
    shape = LevitConfig(num_labels=3, **{**sizes, **config})
    return made(LevitForImageClassificationWithTeacher, shape, seed)


def resnet(depths=(1, 1), widths=(8, 12), seed=0, **config):
    sizes = {"embedding_size": 8, "hidden_sizes": list(widths), "depths": list(depths), "layer_type": "basic"}
    return made(ResNetForImageClassification, ResNetConfig(num_labels=3, **sizes, **config), seed)


def convnext(seed=0, **config):
    sizes = {"hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2, "patch_size": 2, "image_size": 16}
    return made(ConvNextForImageClassification, ConvNextConfig(num_labels=3, **{**sizes, **config}), seed)


def swin(seed=0, **config):
    sizes = {
        "image_size": 16,
        "patch_size": 2,
        "embed_dim": 8,
        "depths": [1, 1],
        "num_heads": [2, 2],
        "window_size": 2,
    }
    shape = SwinConfig(num_labels=3, drop_path_rate=0.0, **QUIET, **{**sizes, **config})
    return made(SwinForImageClassification, shape, seed)


def mobilenet(seed=0, **config):
    sizes = {"depth_multiplier": 0.25, "image_size": 32, "min_depth": 8, "classifier_dropout_prob": 0.0}
    return made(MobileNetV2ForImageClassification, MobileNetV2Config(num_labels=3, **sizes, **config), seed)


KINDS = {
    "vit": vit, "deit": deit, "deit_with_token": deit_with_token, "resnet": resnet, "convnext": convnext, "swin": swin,
    "mobilenet": mobilenet,
}  # fmt: skip


def images(n=16, seed=1, size=16, label=lambda i: i % 3):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(n, 3, size, size, generator=generator)
    return [{"pixel_values": pixels[i], "labels": label(i)} for i in range(n)]


def without_batch_statistics(model):
    """A batch norm's statistics depend on how a batch is cut, whoever trains."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
            module.train = lambda mode=True, module=module: module
    return model
