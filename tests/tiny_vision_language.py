"""Tiny random models of many families that read images among texts, and rows and batches in each one's own form.

A family's own configuration is made small wherever it says a size. A row is a text with the places of its images, and
those images; ``collate`` gives a batch the form that the family's processor would.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
import transformers
from transformers import CONFIG_MAPPING, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

IMAGE = 100
"""The token that stands for an image."""
SIZE, PATCH = 16, 4

SMALL = {
    **dict.fromkeys(("hidden_size", "d_model", "embed_dim", "out_hidden_size", "projection_dim"), 32),
    "text_hidden_size": 32,
    **dict.fromkeys(("intermediate_size", "ffn_dim", "mlp_dim", "encoder_ffn_dim", "decoder_ffn_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "depth", "n_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "num_heads", "num_key_value_heads", "attention_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 2),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token"), 1),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "head_dim"), 16),
    **dict.fromkeys(("num_image_tokens", "image_seq_length"), 16),
    "vocab_size": 120, "image_size": SIZE, "patch_size": PATCH, "max_position_embeddings": 128,
    "mm_tokens_per_image": 4,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
"""What a configuration calls a size, and how large it is here."""
TOKENS = {"image_token": IMAGE, "video_token": 101, "audio_token": 102}


class Family(NamedTuple):
    """How a family's batches are made.

    Args:
        form: ``images`` one behind the other; ``typed``, with types of tokens; ``sizes``, with their sizes;
            ``patched``, with tiles of each; ``grid``: patches of all of them, with their grids; ``padded``: as many a
            row as the fullest has; ``shapes``: patches of each, with their shapes.
        slots: how many tokens an image is.
        changes: what else its configuration needs to be small, by its part ("" is the configuration itself).
    """

    form: str
    slots: int
    changes: Mapping = MappingProxyType({})


def _turned(size):
    return {"text_config": {"rope_parameters": {"mrope_section": size}}}


FAMILIES = {
    "llava": Family("images", 16),
    "qwen2_vl": Family("grid", 4, _turned([4, 2, 2])),
    "idefics3": Family("padded", 4),
    "qwen2_5_vl": Family("grid", 4, _turned([4, 2, 2])),
    "qwen3_vl": Family("grid", 4),
    "qwen3_vl_moe": Family("grid", 4),
    "qwen3_5": Family("grid", 4),
    "glm4v": Family("grid", 4, _turned([4, 2, 2])),
    "glm4v_moe": Family("grid", 4, _turned([2, 1, 1])),
    "glm_ocr": Family("grid", 4, _turned([4, 2, 2])),
    "exaone4_5": Family("grid", 4),
    "hyperclovax_vision_v2": Family("grid", 4),
    "idefics2": Family("padded", 64),
    "smolvlm": Family("padded", 4),
    "paligemma": Family("typed", 16),
    "gemma3": Family("images", 4),
    "internvl": Family("images", 4, {"vision_config": {"image_size": [16, 16], "patch_size": [4, 4]}}),
    "qianfan_ocr": Family("images", 4, {"vision_config": {"image_size": [16, 16], "patch_size": [4, 4]}}),
    "llava_next": Family("patched", 36, {"": {"image_grid_pinpoints": [[16, 16]]}}),
    "llava_onevision": Family("patched", 36, {"": {"image_grid_pinpoints": [[16, 16]]}}),
    "mistral3": Family("sizes", 4),
    "lighton_ocr": Family("sizes", 4),
    "lfm2_vl": Family("shapes", 4),
    "cohere2_vision": Family("images", 4),
    "aya_vision": Family("images", 4),
    "deepseek_vl": Family("images", 16),
    "ovis2": Family("images", 16),
    "video_llava": Family("images", 16),
}


def shrunk(config):
    for key, value in list(vars(config).items()):
        if isinstance(value, PretrainedConfig):
            shrunk(value)
        elif key.startswith(tuple(TOKENS)) and isinstance(value, int):
            setattr(config, key, TOKENS[key.rpartition("_")[0]])
        elif key == "layer_types" and value:
            config.layer_types = [value[0], value[-1]]
        elif key in ("fullatt_block_indexes", "deepstack_visual_indexes"):
            setattr(config, key, [0, 1] if key[0] == "d" else [1])
        elif key in SMALL and isinstance(value, (int, float)):
            setattr(config, key, SMALL[key])
    return config


def config_of(family):
    config = shrunk(CONFIG_MAPPING[family]())
    for part, changes in FAMILIES[family].changes.items():
        held = getattr(config, part) if part else config
        for key, value in changes.items():
            setattr(held, key, {**getattr(held, key), **value} if isinstance(value, dict) else value)
    return config


def model(family, seed=0):
    torch.manual_seed(seed)
    made = getattr(transformers, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[family])(config_of(family))
    for weight in made.parameters():  # as they begin, all are nearly one model, and some projections are 0
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.1)
    return made.eval()


def rows(family, images=(1, 2, 0, 1), seed=0):
    """As many images in each row as asked, and texts of different lengths around them."""
    numbers, made = torch.Generator().manual_seed(seed), []
    for count in images:
        before, behind = torch.randint(5, 90, (2,), generator=numbers), torch.randint(3, 7, (1,), generator=numbers)
        image = [IMAGE] * FAMILIES[family].slots + ([4] if FAMILIES[family].form == "grid" else [])  # Qwen ends each
        ids = [1, *before.tolist(), *image * count]
        ids += torch.randint(5, 90, (int(behind),), generator=numbers).tolist()
        pixels = [torch.randn(3, SIZE, SIZE, generator=numbers) for _ in range(count)]
        made.append({"input_ids": ids, "labels": [-100] * 3 + ids[3:], "images": pixels})
    return made


def collate(family, some):
    """Pad the texts on the right, and give the images the family's form."""
    texts = [torch.tensor(row["input_ids"]) for row in some]
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad(texts, batch_first=True)
    mask = pad([torch.ones_like(text) for text in texts], batch_first=True)
    batch = {"input_ids": ids, "attention_mask": mask}
    if all("labels" in row for row in some):
        batch["labels"] = pad([torch.tensor(row["labels"]) for row in some], True, -100)
    return {**batch, **_FORMS[FAMILIES[family].form](some, ids)}


def batch(family, images=(1, 2, 0, 1), seed=0):
    return collate(family, rows(family, images, seed))


def _all(some):
    return [image for row in some for image in row["images"]]


def _images(some, ids):
    return {"pixel_values": torch.stack(images)} if (images := _all(some)) else {}


def _typed(some, ids):
    return {**_images(some, ids), "token_type_ids": (torch.arange(ids.shape[1]) > 2).long().expand(ids.shape)}


def _sizes(some, ids):
    made = _images(some, ids)
    return {**made, "image_sizes": torch.tensor([[SIZE, SIZE]] * len(made["pixel_values"]))} if made else {}


def _patched(some, ids):
    made = _sizes(some, ids)  # the whole image, and one tile of it
    return {**made, "pixel_values": torch.stack((made["pixel_values"],) * 2, 1)} if made else {}


def _grid(some, ids):
    kinds = {"mm_token_type_ids": (ids == IMAGE).long()}
    if not (images := _all(some)):
        return kinds
    patches = torch.cat([_patches(torch.cat((image, image))) for image in images])
    return {**kinds, "pixel_values": patches, "image_grid_thw": torch.tensor([[1, 4, 4]] * len(images))}


def _patches(image):
    return torch.nn.functional.unfold(image[None], PATCH, stride=PATCH)[0].T


def _padded(some, ids):
    if not (most := max(len(row["images"]) for row in some)):
        return {}
    pixels = torch.zeros(len(some), most, 3, SIZE, SIZE)
    for row, one in enumerate(some):
        for place, image in enumerate(one["images"]):
            pixels[row, place] = image
    return {"pixel_values": pixels, "pixel_attention_mask": pixels.ne(0).any(2).long()}


def _shapes(some, ids):
    if not (images := _all(some)):
        return {}
    patches = torch.stack([_patches(image) for image in images])
    shapes = torch.tensor([[4, 4]] * len(images))
    return {
        "pixel_values": patches,
        "spatial_shapes": shapes,
        "pixel_attention_mask": torch.ones(len(images), 16).long(),
    }


_FORMS = {
    "images": _images, "typed": _typed, "sizes": _sizes, "patched": _patched, "grid": _grid, "padded": _padded,
    "shapes": _shapes,
}  # fmt: skip
