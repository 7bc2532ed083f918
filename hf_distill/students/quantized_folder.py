"""The folder of a quantised model, in the format of transformers and torchao.

Knows: transformers' folders, torchao's notes in them. Does not know: what a user asked for, trainers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

FOLDER = "quantized"
"""Where the quantised student lies in the folder of the float one."""


def write_quantized(quantized: PreTrainedModel, config: Any, folder: str | Path) -> Path:
    """Save a quantised model beside the float one.

    ``from_pretrained(..., quantization_config=config)`` would quantise too, but not classes without input embeddings.

    Args:
        quantized: the model, whose layers torchao has quantised.
        config: transformers' ``TorchAoConfig`` of it.
        folder: of the float model.

    Returns:
        The folder that was written.
    """
    from transformers.quantizers.auto import AutoHfQuantizer

    quantized.hf_quantizer, quantized.config.quantization_config = AutoHfQuantizer.from_config(config), config
    into = Path(folder) / FOLDER
    quantized.save_pretrained(into)
    for path in into.glob("*.safetensors"):
        _leave_out_bare_names(path)
    return into


def _leave_out_bare_names(path: Path) -> None:
    """Take parameters of the model itself, such as CLIP's ``logit_scale``, out of torchao's list of tensors.

    torchao 0.18 takes each name in it apart at its last dot when it loads any; plain tensors need not be there.
    """
    with safe_open(path, "pt") as file:
        notes = file.metadata() or {}
    names = json.loads(notes.get("tensor_names", "[]"))
    if bare := {name for name in names if "." not in name}:
        kept = {key: value for key, value in notes.items() if key not in bare}
        save_file(load_file(path), path, {**kept, "tensor_names": json.dumps([n for n in names if n not in bare])})
