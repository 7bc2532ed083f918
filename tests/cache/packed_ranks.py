"""Run by test_packed.py on each of two ranks: three epochs of packed texts, what was found and learned to files."""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(1, str(Path(__file__).parents[1]))
sys.path.insert(1, str(Path(__file__).parent))

import tiny
import torch
from safetensors.torch import save_file
from test_packed import trained

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    run, losses = trained(folder / "run")
    told = {"world_size": run.args.world_size, "losses": losses, "hits": tiny.losses(run, "teacher_cache_hits")}
    file = folder / str(run.args.process_index)
    file.with_suffix(".json").write_text(json.dumps({**told, "kept": len(run.teacher.memory)}))
    model = run.accelerator.unwrap_model(run.model)
    save_file({name: value.detach().clone() for name, value in model.named_parameters()}, f"{file}.safetensors")
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # see strategies.py
