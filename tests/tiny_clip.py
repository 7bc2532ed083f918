"""Tiny models of two towers, and pairs of pixels and tokens for them."""

import torch
from transformers import (
    AlignConfig,
    AlignModel,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPModel,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
)

SIZES = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
KINDS = {
    "clip": (CLIPModel, CLIPConfig), "chinese_clip": (ChineseCLIPModel, ChineseCLIPConfig),
    "siglip": (SiglipModel, SiglipConfig), "siglip2": (Siglip2Model, Siglip2Config),
    "align": (AlignModel, AlignConfig),
}  # fmt: skip


def model(kind="clip", width=16, seed=0, vectors=12, dropout=0.0):
    torch.manual_seed(seed)
    text = {**SIZES, "hidden_size": width, "vocab_size": 50, "max_position_embeddings": 16, "pad_token_id": 0}
    text |= {"projection_dim": vectors, "bos_token_id": 1, "eos_token_id": 2, "attention_dropout": dropout}
    vision = {**SIZES, "hidden_size": width, "image_size": 8, "patch_size": 4, "projection_dim": vectors}
    if kind == "align":
        vectors = 32  # what EfficientNet's width is rounded to
        vision = {"image_size": 32, "width_coefficient": 0.1, "depth_coefficient": 0.1, "hidden_dim": vectors}
    cls, config = KINDS[kind]
    made = cls(config(text_config=text, vision_config=vision, projection_dim=vectors))
    for module in made.modules():
        if isinstance(module, torch.nn.Conv2d) and kind == "align":  # as they are drawn, all images vanish
            torch.nn.init.kaiming_normal_(module.weight)
    return made


def pairs(count=8, kind="clip", seed=0, lengths=(6, 6)):
    numbers = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        length = int(torch.randint(lengths[0], lengths[1] + 1, (), generator=numbers))
        ids = torch.cat((torch.randint(3, 50, (length - 1,), generator=numbers), torch.tensor([2])))
        row = {"input_ids": ids, "attention_mask": torch.ones(length, dtype=torch.long)}
        if kind == "siglip2":
            row = {"input_ids": ids, "pixel_values": torch.randn(4, 48, generator=numbers)}
            row |= {"pixel_attention_mask": torch.ones(4, dtype=torch.long), "spatial_shapes": torch.tensor([2, 2])}
        else:
            size = 32 if kind == "align" else 8
            row["pixel_values"] = torch.randn(3, size, size, generator=numbers)
        made.append(row)
    return made


def batch(rows):
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
