"""A tiny model that reads images and texts, and batches for it."""

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

IMAGE, SLOTS = 39, 4  # the token that stands for an image, and how many of them an image is


def llava(seed=0, layers=1):
    torch.manual_seed(seed)
    sizes = {"num_attention_heads": 1, "intermediate_size": 8, "hidden_size": 8}
    vision = {"model_type": "clip_vision_model", "image_size": 8, "patch_size": 4, "projection_dim": 8, **sizes}
    text = {"model_type": "llama", "vocab_size": 40, "num_key_value_heads": 1, "pad_token_id": 0, **sizes}
    vision, text = {**vision, "num_hidden_layers": 1}, {**text, "num_hidden_layers": layers}
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=IMAGE, image_seq_length=SLOTS)
    return LlavaForConditionalGeneration(config).eval()


def batch(images, seed=0):
    """As many images in each row as asked, and text behind them."""
    numbers = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 30, (len(images), 11), generator=numbers)
    for row, count in zip(ids, images, strict=True):
        row[: SLOTS * count] = IMAGE
    pixels = torch.randn(sum(images), 3, 8, 8, generator=numbers)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone(), "pixel_values": pixels}
