"""Run by test_strategies_by_kind.py on each rank of a strategy: other students than classifiers and decoders of text.

Knows: one student of each kind, what it reads. Does not know: how a strategy is started; see strategies.py.
"""

import os
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
import tiny_drafts
import tiny_generators
import tiny_language
import torch
from strategies import Weights, finish, here_of, pass_for_gpus, settings, write
from transformers import DataCollatorForSeq2Seq, default_data_collator

from hf_distill import DenoisingCollator, Generating, LatentCollator, latent_rows
from hf_distill.models.sharding import whole_state

JUDGED = {"value_mse": 1.0, "adversarial": {"on": "sample", "channels": 1, "hidden": 8}}


def denoiser(make, classes):
    import tiny_denoisers

    student, conditions = make(1), {"class_labels": "label"}
    collate = DenoisingCollator(
        student, tiny_denoisers.ddpm(), conditions=conditions, nothing={"class_labels": classes}, drop=0.3
    )
    return student, make(3, seed=7), tiny_denoisers.latents(32), {"data_collator": collate}


def dit():
    import tiny_denoisers

    return denoiser(tiny_denoisers.dit, 3)


def unet():
    import tiny_denoisers

    return denoiser(tiny_denoisers.unet, 3)


def gan():
    collate = LatentCollator({"z": (3,)}, {"class_labels": "label"})
    more = {"data_collator": collate, "task": Generating(supervised=False), "objective": JUDGED}
    return tiny_generators.Gan(4), tiny_generators.Gan(8, seed=7), latent_rows(32, 3), more


def decoder():
    collate = LatentCollator(columns={"latents": "latents"}, target="target")
    make = tiny_generators.decoder
    return make(4), make(8, seed=7), tiny_generators.latents(32), {"data_collator": collate}


def vocoder():
    make = tiny_generators.hifigan
    return make(4), make(8, seed=7), tiny_generators.mels(32), {"data_collator": default_data_collator}


def draft():
    collate = DataCollatorForSeq2Seq(tiny_language.tokenizer())
    return tiny_drafts.draft(), tiny_drafts.teacher(), tiny_language.texts(32), {"data_collator": collate}


def reader():
    return tiny.bert(), tiny.teacher(), tiny.rows(32), {}


KINDS = {
    **({"dit": dit, "unet": unet, "decoder": decoder} if find_spec("diffusers") else {}),
    "gan": gan, "vocoder": vocoder, "draft": draft, "reader": reader,
}  # fmt: skip
BLOCKS = {
    "dit": "FeedForward", "unet": "ResnetBlock2D", "decoder": "ResnetBlock2D", "gan": "Linear",
    "vocoder": "HifiGanResidualBlock", "draft": "DraftLayer", "reader": "BertLayer",
}  # fmt: skip
"""What FSDP2 gathers at a time."""


def trainer(folder, strategy, kind, callbacks=(), **changes):
    student, teacher, data, more = KINDS[kind]()
    os.environ["FSDP_TRANSFORMER_CLS_TO_WRAP"] = BLOCKS[kind]
    objective = more.pop("objective", None)
    if kind == "reader":
        changes["reader"] = {"reads": "logits", "keep": 0.5}
    args = {"lr_scheduler_type": "constant", "learning_rate": 1e-2, "max_steps": 4, "max_grad_norm": 1.0}
    return tiny.trainer(
        folder, student, data, teacher_model=teacher, objective=objective, callbacks=list(callbacks),
        args={**args, **settings(strategy), **changes}, **more,
    )  # fmt: skip


def record(folder, strategy, kind):
    """The first step, then four, a checkpoint to resume from, and the student at the end."""
    here, seen = folder / strategy / kind, Weights()
    sgd = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0, "max_steps": 1}
    run = trainer(here, strategy, kind, [seen], **sgd)
    run.train()
    parts = {name: value for name, value in run.state.log_history[0].items() if name.startswith("loss")}
    facts = {
        "world_size": run.args.world_size,
        "parts": parts,
        "student": sum(map(here_of, run.model.parameters())),
        "teacher": sum(map(here_of, run.teacher.model.parameters())),
    }
    make = partial(trainer, here, strategy, kind, save_strategy="steps", save_steps=2)
    run = make()
    run.train()
    facts |= {"losses": tiny.losses(run), "norms": tiny.losses(run, "grad_norm")}
    run.save_model(str(here / "final"))
    last = {name: one for name, one in whole_state(run.model).items() if not name.startswith("distillation.")}
    again = make()
    again.train(resume_from_checkpoint=str(here / "checkpoint-2"))
    write(here, run, {**facts, "resumed": tiny.losses(again)}, step=seen.first, last=last)


def main(folder, strategy):
    torch.set_num_threads(1)
    pass_for_gpus(strategy)
    for kind in KINDS:
        if (strategy, kind) == ("fsdp2", "vocoder"):
            continue  # refused, see test_checks.py
        record(folder, strategy, kind)
    finish()


if __name__ == "__main__":
    for name in sys.argv[2:]:
        main(Path(sys.argv[1]), name)
    sys.stdout.flush()
    os._exit(0)  # see strategies.py
