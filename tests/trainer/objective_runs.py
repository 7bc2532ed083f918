"""One optimizer step of every objective, for an encoder and a decoder: what test_objectives.py compares.

Run as a script it is one of two ranks, and writes the gradients of all of them to files.
"""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
import tiny_language
import torch
from safetensors.torch import save_file
from transformers import DataCollatorForSeq2Seq

from hf_distill.objectives import TERMS
from hf_distill.objectives.phi_s import PhiS
from hf_distill.objectives.pooled import PooledTerm
from hf_distill.objectives.scores import ScoreTerm

MODELS = ("encoder", "decoder")
NAMES = [name for name, term in TERMS.items() if not (term.needs & {"values", "vectors"} or term.of_frames)]
NAMES += ["phi_s"]  # pooled_mse with a teacher that is standardised
"""The terms on what these models show: others have tests of their own, tests/objectives/test_values.py, test_ctc_*."""
GROUPS = {name: {"candidates": 3} for name, term in TERMS.items() if issubclass(term, ScoreTerm)}
STANDARD = {
    "term": "pooled_mse",
    "standardise": PhiS.of(torch.randn(90, 24, generator=torch.Generator().manual_seed(1))),
}
"""Statistics of a teacher as wide as ours; what they are of makes no difference to what is compared here."""
OPTIONS = {
    ("phi_s", "encoder"): STANDARD,
    ("phi_s", "decoder"): {**STANDARD, "pool": "last"},
    ("tap_mse", "encoder"): {"path": "bert.pooler.dense", "widths": [16, 24]},
    ("tap_mse", "decoder"): {"path": "model.layers.0.mlp", "teacher_path": "model.layers.1.mlp", "widths": [16, 24]},
    ("pkd", "decoder"): {"token": "last"},
    **{(name, "encoder"): options for name, options in GROUPS.items()},
    **{
        (name, "decoder"): {"pool": "last", **GROUPS.get(name, {})}
        for name, term in TERMS.items() if issubclass(term, PooledTerm)
    },
}  # fmt: skip
WRITTEN = {("distillm2", "decoder"): {"on_policy": 0.5, "max_new_tokens": 4}}
"""Rows that the student writes anew, for terms that ask who wrote one."""
TOGETHER = {"cka", "dist", "rkd_distance", "rkd_angle", "similarity", "similarity_kl", *GROUPS}
"""Terms whose rows see each other within a micro-batch."""
EVERYONE = {"contrastive"}
"""Terms whose rows see each other over the micro-batches of all ranks."""
ROWS = {"rkd_distance": 4, "rkd_angle": 4, "similarity_kl": 4, **dict.fromkeys(GROUPS, 4)}
"""How many rows a micro-batch of two ranks gets, where 2 say nothing: one distance is its own mean."""


def pair(kind):
    """Student, teacher, rows and collator; the student is narrower and shallower."""
    if kind == "encoder":
        return tiny.bert(), tiny.teacher(), tiny.rows(8), None
    collator = DataCollatorForSeq2Seq(tiny_language.tokenizer())
    return tiny_language.llama(), tiny_language.teacher(), tiny_language.texts(8), collator


def trainer(folder, name, kind, student=None, teacher=None, callbacks=(), **args):
    own, theirs, rows, collator = pair(kind)
    parts = {"data_collator": collator} if collator else {}
    return tiny.trainer(
        folder, student or own, rows, teacher_model=teacher or theirs, callbacks=list(callbacks),
        objective={name: OPTIONS.get((name, kind), {})}, rollout=WRITTEN.get((name, kind)),
        args={"max_steps": 1, "alpha": 0.7, **args}, **parts,
    )  # fmt: skip


def gradients(folder, name, kind, batch, accumulation):
    """The first step's gradients, of the student and of what the objective trains, and the run."""
    seen = tiny.Gradients()
    args = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    run = trainer(folder, name, kind, callbacks=[seen], **args)
    run.train()
    return {key.removeprefix("module."): value.contiguous() for key, value in seen.first.items()}, run


def main(folder):
    for kind in MODELS:
        for name in NAMES:
            rows = ROWS.get(name, 2)
            found, run = gradients(folder, name, kind, rows, 4 // rows)
            if run.args.world_size != 2:
                raise RuntimeError("one process would prove nothing")
            save_file(found, folder / f"{name}-{kind}-{run.args.process_index}.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # see strategies.py
