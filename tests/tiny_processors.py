"""Processors of tiny models that read images beside a text, and pictures for them."""

import numpy as np
import tiny_vision_language as tiny_vl
from PIL import Image
from transformers import BertTokenizer, CLIPProcessor, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

WORDS = [f"w{i}" for i in range(45)]


def pictures(n=4, seed=0):
    draw = np.random.default_rng(seed)
    return [Image.fromarray(draw.integers(0, 256, (12, 20, 3), dtype=np.uint8)) for _ in range(n)]


def pixels(size):
    both = {"height": size, "width": size}
    return CLIPImageProcessorPil(size=both, crop_size=both)


def clip():
    """Of ``tiny_clip``'s: 50 tokens, 8 pixels a side."""
    names = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[MASK]",
        *WORDS,
        "[SEP]",
    ]  # the end of a text is the highest: CLIP pools there
    return CLIPProcessor(
        pixels(8), BertTokenizer(vocab={name: i for i, name in enumerate(names)}, model_max_length=16)
    )


def llava():
    """Of ``tiny_vision_language``'s: 120 tokens, of which 100 stands for an image, 16 pixels a side."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(95)), "<image>"]
    words = BertTokenizer(vocab={name: i for i, name in enumerate(names)}, extra_special_tokens=["<image>"])
    made = LlavaProcessor(
        pixels(tiny_vl.SIZE), words, patch_size=tiny_vl.PATCH, vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )  # fmt: skip
    made.chat_template = (
        "{% for m in messages %}{% for c in m.content %}{{ c.text or '<image>' }}{% endfor %}{% endfor %}"
    )
    return made
