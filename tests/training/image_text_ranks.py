"""Run by test_whole_step.py on each of two ranks: one step, its logged parts and its weights to files."""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(1, str(Path(__file__).parents[1]))
sys.path.insert(1, str(Path(__file__).parent))

import torch
from safetensors.torch import save_file
from test_whole_step import CUTS, step

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    for name, cut in CUTS.items():
        run, parts, weights = step(folder / name, **cut)
        file = folder / f"{name}-{run.args.process_index}"
        file.with_suffix(".json").write_text(json.dumps({"world_size": run.args.world_size, "parts": parts}))
        save_file(weights, file.with_suffix(".safetensors"))
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # see strategies.py
