"""Tiny detectors with random weights, none of which needs timm or torchvision, and images with boxes."""

import torch
from tiny_images import made, without_batch_statistics
from transformers import (
    ConditionalDetrConfig,
    ConditionalDetrForObjectDetection,
    DabDetrConfig,
    DabDetrForObjectDetection,
    DeformableDetrConfig,
    DeformableDetrForObjectDetection,
    DetrConfig,
    DetrForObjectDetection,
    DFineConfig,
    DFineForObjectDetection,
    LwDetrConfig,
    LwDetrForObjectDetection,
    LwDetrViTConfig,
    ResNetConfig,
    RfDetrConfig,
    RfDetrForObjectDetection,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrResNetConfig,
    RTDetrV2Config,
    RTDetrV2ForObjectDetection,
    TableTransformerConfig,
    TableTransformerForObjectDetection,
    YolosConfig,
    YolosForObjectDetection,
)
from transformers.models.rf_detr.configuration_rf_detr import RfDetrDinov2Config

QUERIES, CLASSES = 6, 3


def _resnet():
    return ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )


def _detr(kind, shape, seed, width=16, layers=1, queries=QUERIES, **config):
    sizes = {
        "d_model": width, "encoder_layers": 1, "decoder_layers": layers, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": width, "decoder_ffn_dim": width, "num_queries": queries,
        "num_labels": CLASSES, "dropout": 0.0,
    }  # fmt: skip
    parts = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
    return made(kind, shape(**parts, backbone_config=_resnet(), **{**sizes, **config}), seed)


def detr(seed=0, **config):
    return _detr(DetrForObjectDetection, DetrConfig, seed, **config)


def table(seed=0, **config):
    return _detr(TableTransformerForObjectDetection, TableTransformerConfig, seed, **config)


def conditional(seed=0, **config):
    return _detr(ConditionalDetrForObjectDetection, ConditionalDetrConfig, seed, **config)


def dab(seed=0, width=16, **config):
    return _detr(DabDetrForObjectDetection, DabDetrConfig, seed, width, hidden_size=width, **config)


def deformable(seed=0, width=32, layers=2, **config):
    return _detr(
        DeformableDetrForObjectDetection, DeformableDetrConfig, seed, width, layers, num_feature_levels=1,
        encoder_n_points=2, decoder_n_points=2, **config,
    )  # fmt: skip


def yolos(seed=0, width=16, layers=2, queries=QUERIES, **config):
    shape = YolosConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=width,
        image_size=[32, 32], patch_size=8, num_detection_tokens=queries, num_labels=CLASSES, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, initializer_range=0.2, **config,
    )  # fmt: skip
    return made(YolosForObjectDetection, shape, seed)


def _hybrid(width, layers, queries, **config):
    return {
        "encoder_hidden_dim": width, "encoder_in_channels": [8, 16], "feat_strides": [8, 16], "encoder_layers": 1,
        "encoder_ffn_dim": width, "encoder_attention_heads": 2, "d_model": width, "num_queries": queries,
        "decoder_in_channels": [width, width], "decoder_ffn_dim": width, "num_feature_levels": 2,
        "decoder_layers": layers, "decoder_attention_heads": 2, "decoder_n_points": 2, "encode_proj_layers": [1],
        "num_denoising": 0, "num_labels": CLASSES, "eval_size": None, "hidden_expansion": 0.5,
        "freeze_backbone_batch_norms": False, "dropout": 0.0, "initializer_range": 0.2, **config,
    }  # fmt: skip


def _backbone():
    return RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16], depths=[1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3"],
    )  # fmt: skip


def rtdetr(seed=0, width=16, layers=1, queries=QUERIES, **config):
    shape = RTDetrConfig(backbone_config=_backbone(), **_hybrid(width, layers, queries, **config))
    return made(RTDetrForObjectDetection, shape, seed)


def rtdetr_v2(seed=0, width=16, layers=2, queries=QUERIES, **config):
    shape = RTDetrV2Config(
        backbone_config=_backbone(), decoder_n_levels=2, **_hybrid(width, layers, queries, **config)
    )
    return made(RTDetrV2ForObjectDetection, shape, seed)


def dfine(seed=0, width=16, layers=2, queries=QUERIES, **config):
    shape = DFineConfig(backbone_config=_backbone(), **_hybrid(width, layers, queries, **config))
    return made(DFineForObjectDetection, shape, seed)


def _grouped(width, layers, queries, **config):
    return {
        "d_model": width, "decoder_ffn_dim": width, "decoder_layers": layers, "decoder_self_attention_heads": 2,
        "decoder_cross_attention_heads": 2, "num_queries": queries, "group_detr": 2, "num_labels": CLASSES,
        "decoder_n_points": 2, "num_feature_levels": 1, "dropout": 0.0, **config,
    }  # fmt: skip


PATCHES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 1, "image_size": 32,
    "patch_size": 8, "out_indices": [1, 2], "initializer_range": 0.2,
}  # fmt: skip


def lw_detr(seed=0, width=16, layers=1, queries=QUERIES, **config):
    backbone = LwDetrViTConfig(**PATCHES, pretrain_image_size=32, num_windows=4, window_block_indices=[0])
    sizes = _grouped(width, layers, queries, projector_scale_factors=[1.0], **config)
    return made(LwDetrForObjectDetection, LwDetrConfig(backbone_config=backbone, **sizes), seed)


def rf_detr(seed=0, width=16, layers=1, queries=QUERIES, **config):
    backbone = RfDetrDinov2Config(**PATCHES, num_windows=2)
    sizes = _grouped(width, layers, queries, **config)
    return made(RfDetrForObjectDetection, RfDetrConfig(backbone_config=backbone, **sizes), seed)


KINDS = {
    "detr": detr, "table": table, "conditional": conditional, "dab": dab, "deformable": deformable, "yolos": yolos,
    "rtdetr": rtdetr, "rtdetr_v2": rtdetr_v2, "dfine": dfine, "lw_detr": lw_detr,
    "rf_detr": rf_detr,
}  # fmt: skip
SOFTMAX = ("detr", "table", "yolos")


def still(model):
    """No batch statistics, and none that are trained: a detector's loss is then a sum over its images."""
    return without_batch_statistics(model)


def boxes(n=8, seed=1, size=32):
    """Images with no box to three of them."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for number in range(n):
        count = number % 4
        where = torch.rand(count, 4, generator=generator) * 0.3 + 0.2
        what = torch.randint(CLASSES, (count,), generator=generator)
        pixels = torch.randn(3, size, size, generator=generator)
        rows.append({"pixel_values": pixels, "labels": {"class_labels": what, "boxes": where}})
    return rows


def collate(rows):
    batch = {"pixel_values": torch.stack([row["pixel_values"] for row in rows])}
    return {**batch, "labels": [row["labels"] for row in rows]} if "labels" in rows[0] else batch
