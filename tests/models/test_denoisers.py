"""What is written down of a model of diffusers: the class that diffusers has, whatever FSDP2 made of it."""

import json

import tiny_denoisers
import torch
from diffusers import AutoModel

from hf_distill.models.denoisers import save_config


def test_a_class_of_fsdps_making_is_not_written_down(tmp_path):
    model = tiny_denoisers.unet(1)
    named = type(model).__name__
    model.__class__ = type(f"FSDP{named}", (type(model),), {"__module__": "torch.distributed.fsdp"})
    save_config(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["_class_name"] == named == "UNet2DModel"
    model.save_pretrained(tmp_path / "weights")
    (tmp_path / "weights" / "diffusion_pytorch_model.safetensors").rename(
        tmp_path / "diffusion_pytorch_model.safetensors"
    )
    loaded = AutoModel.from_pretrained(str(tmp_path)).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())
