"""Run by test_seq2seq.py on each of two ranks, and by itself in one process: a Whisper is trained, and writes."""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "rollouts"))

import numpy as np
import speech_runs
import tiny
import tiny_speech
import torch

from hf_distill import Seq2SeqDistillationTrainer, keep_layers
from hf_distill.arguments import Seq2SeqDistillationTrainingArguments


def trained(folder, batch):
    """Two steps under a teacher whose encoder is shared: losses, and what is written of five recordings."""
    teacher = speech_runs.whisper(7, layers=2, ends=0.01)
    student = keep_layers(teacher, None, decoder_layers=1)
    student.model.encoder.requires_grad_(False)
    args = {
        "predict_with_generate": True, "generation_max_length": 8, "per_device_train_batch_size": batch, "alpha": 0.5,
        "per_device_eval_batch_size": 2, "max_steps": 2, "train_sampling_strategy": "sequential", "optim": "sgd",
    }  # fmt: skip
    rows = tiny_speech.recordings(8, kind="whisper")
    run = tiny.trainer(
        folder, student, rows, Seq2SeqDistillationTrainer, teacher_model=teacher, data_collator=tiny_speech.collate,
        plain_args=tiny.arguments(folder, Seq2SeqDistillationTrainingArguments, **args),
    )  # fmt: skip
    run.train()
    written = run.predict(tiny_speech.recordings(5, 3, kind="whisper"))
    return run, {
        "losses": np.array(tiny.losses(run)), "written": written.predictions, "labels": written.label_ids,
        "weights": student.model.decoder.embed_tokens.weight.detach().numpy(), "world_size": run.args.world_size,
    }  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    run, found = trained(Path(sys.argv[1]), 4)
    np.savez(Path(sys.argv[1]) / f"{run.args.process_index}.npz", **found)
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # the interpreter's end may wait for threads of gloo
