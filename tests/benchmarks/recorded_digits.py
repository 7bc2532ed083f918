"""Writes what tiny trainings of every task, objective and teacher compute, digit by digit: for same_digits.py.

    python tests/benchmarks/recorded_digits.py FILE.json [--only PART_OF_A_NAME]

Runs the ``hf_distill`` that PYTHONPATH finds, an older one too: public names only, each taken where it is used.
"""

import argparse
import gc
import json
import tempfile
import warnings
from functools import partial
from inspect import isroutine, signature
from pathlib import Path
from typing import Any, NamedTuple

import tiny
import tiny_language
import tiny_tasks
import torch
import transformers
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq

import hf_distill
from hf_distill.objectives import TERMS

llama, t5 = tiny_language.llama, tiny_language.t5
SPLITS = {"8x1": (8, 1), "4x2": (4, 2), "2x4": (2, 4), "3x3": (3, 3)}
CLOCKS = ("runtime", "_per_second", "epoch", "total_flos", "step")
MIXED = {"forward_kl": 1.0, "jsd": {"weight": 0.5, "beta": 0.1}}
STATES = {"hidden_mse": 1.0, "pooled_cosine": 1.0, "attention_mse": 1.0}
SETTINGS = {}
"""Name -> what computes its numbers in a folder."""


def seq2seq():
    return DataCollatorForSeq2Seq(tiny_language.tokenizer())


class Kind(NamedTuple):
    """How the student, the teacher, some rows and the collator of one task are made."""

    student: Any
    teacher_model: Any
    rows: Any
    data_collator: Any = seq2seq


def of_problem(problem):
    rows = partial(tiny.rows, problem=problem)

    def padded():
        return tiny.DataCollatorWithPadding(tiny.tokenizer())

    return Kind(partial(tiny.bert, problem=problem), partial(tiny.teacher, problem), rows, padded)


KINDS = {
    **{problem.removesuffix("_classification"): of_problem(problem) for problem in tiny.PROBLEMS},
    **{name: Kind(case.model, case.teacher, case.rows, case.collate) for name, case in tiny_tasks.CASES.items()},
    "llama": Kind(llama, tiny_language.teacher, tiny_language.texts),
    "t5": Kind(t5, partial(tiny_language.teacher, t5), tiny_language.pairs),
}


class Digits(tiny.TrainerCallback):
    """The first step's gradients, each as the sum of its absolute values and its norm."""

    def __init__(self):
        self.found = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if not self.found:
            for name, value in model.named_parameters():
                if value.grad is not None:
                    exact = value.grad.detach().double()
                    self.found |= {f"sum {name}": exact.abs().sum().item(), f"norm {name}": exact.norm().item()}


def trained(folder, of="single_label", split="2x4", resume=None, **parts):
    """Train, log every step, evaluate. ``parts`` are the trainer's and make what the kind does not; ``args`` too."""
    kind, digits = KINDS[of], Digits()
    (size, accumulation), asked = SPLITS[split], parts.pop("args", {})
    parts = {"data": lambda: kind.rows(8, seed=3), "eval_dataset": lambda: kind.rows(12, seed=9), **parts}
    for name in ("student", "teacher_model", "data_collator", "data", "eval_dataset"):
        made = parts.get(name, getattr(kind, name, None))
        parts[name] = made() if isroutine(made) or isinstance(made, partial) else made
    args = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, **asked}
    run = tiny.trainer(folder, callbacks=[digits], plain_args=tiny.arguments(folder, **args), **parts)
    run.train(resume_from_checkpoint=resume and str(folder / resume))
    found = dict(digits.found)
    for at, entry in enumerate([*run.state.log_history, run.evaluate()]):
        numbers = {name: value for name, value in entry.items() if isinstance(value, (int, float))}
        found |= {f"{at} {name}": float(value) for name, value in numbers.items() if not name.endswith(CLOCKS)}
    return found


def add(name, **parts):
    """Put one training into the table."""
    SETTINGS[name] = partial(trained, **parts)


def recorded(make):
    """Put what is more than one training into the table, or what is made of a newer name."""
    SETTINGS[make.__name__.replace("_", " ")] = make
    return make


# ---- Tasks, however a batch is cut ----

for kind in KINDS:
    for split in SPLITS:
        add(f"{kind} {split}", of=kind, split=split)
    if kind != "embedding":
        add(f"{kind} alone", of=kind, teacher_model=None)
        several = {"logit_mse": 1.0, "hidden_cosine": 0.5} if kind == "regression" else MIXED
        add(f"{kind} several terms", of=kind, objective=several, args={"temperature": 4.0, "alpha": 0.3})
    add(f"{kind} taught only", of=kind, args={"alpha": 1.0})
    add(f"{kind} auto", of=kind, objective="auto")
    add(f"{kind} states", of=kind, objective=STATES)
    add(f"{kind} cache off", of=kind, args={"teacher_cache": "off"})

# ---- Every objective ----


def options(name, kind):
    """What a term needs to be told of tiny models: of a decoder the last token's vector, sizes, paths."""
    takes, decoder = signature(TERMS[name]).parameters, kind == "llama"
    paths = ("model.layers.0.mlp", "model.layers.1.mlp") if decoder else ("bert.pooler.dense", None)
    told = {"candidates": 3, "widths": [16, 24], "path": paths[0], "teacher_path": paths[1]}
    told |= {"pool": "last", "token": "last"} if decoder else {}
    return {option: value for option, value in told.items() if option in takes and value is not None}


for term in (one for one in TERMS if not one.startswith(("value_", "vector_"))):  # tasks that show these are tests'
    for kind in ("single_label", "llama"):
        for split in ("8x1", "4x2"):
            objective = {term: options(term, kind)}
            add(f"{term} {kind} {split}", of=kind, split=split, objective=objective, args={"alpha": 0.7})
for name, weight in {"until": {"until": 0.5}, "linear": {"kind": "linear", "start": 1.0, "end": 0.0}}.items():
    add(f"weight {name}", objective={"forward_kl": 1.0, "hidden_mse": {"weight": weight}})
add("temperature linear", objective={"forward_kl": {"temperature": {"kind": "linear", "start": 1.0, "end": 4.0}}})

# ---- Arguments ----

ARGUMENTS = {
    "label smoothing": {"label_smoothing_factor": 0.1},
    "bfloat16": {"bf16": True},
    "clipped": {"max_grad_norm": 0.5},
    "recomputed": {tiny.CHECKPOINTING: True},
    "whole window": {"teacher_whole_window": True},
    "prepass": {"teacher_prepass": True},
    "bfloat16 teacher": {"teacher_dtype": "bfloat16"},
    "evaluated in between": {"eval_strategy": "steps", "eval_steps": 1},
    "mean of micro-batches": {"average_tokens_across_devices": False},
}
for name, args in ARGUMENTS.items():
    for kind in ("single_label", "llama"):
        add(f"{name} {kind}", of=kind, args=args)
for kind in ("llama", "t5"):
    for name, objective in {"kl": None, "several terms": MIXED, "auto": "auto", "topk": "topk_kl"}.items():
        add(f"fused {kind} {name}", of=kind, objective=objective, args={"fused_logits": "on"})
    for name, mean in {"mixed": {"on_policy": 0.4, "seq_kd": 0.3}, "own": {"on_policy": 1.0}}.items():
        args = {"rollout": {**mean, "max_new_tokens": 6}, "train_sampling_strategy": "sequential"}
        add(f"rollouts {kind} {name}", of=kind, args=args)
tied = partial(llama, tie_word_embeddings=True)
add("fused tied", of="llama", student=tied, args={"fused_logits": "on"})
for name, asked in {"mask": 0.3, "crop": 0.4, "mix": True, "mask and crop": None}.items():
    given = {"crop": 0.4, "mask": 0.3, "copies": 2} if asked is None else {name: asked}
    for split in ("8x1", "2x4"):
        add(f"augmented {name} {split}", split=split, args={"augmentation": given})

# ---- Students ----


def lora(make, **options):
    torch.manual_seed(0)
    return get_peft_model(make(), LoraConfig(r=2, init_lora_weights=False, **options))


for name, targets in {"lora": ["q_proj"], "lora on the head": ["q_proj", "lm_head"]}.items():
    for how in ("off", "on"):
        student = partial(lora, llama, target_modules=targets)
        add(f"{name} fused {how}", of="llama", student=student, args={"fused_logits": how})
for kind, task in {"single_label": "SEQ_CLS", "llama": "CAUSAL_LM"}.items():
    student = partial(lora, KINDS[kind].student, task_type=task, target_modules="all-linear")
    add(f"lora {kind}", of=kind, student=student, objective=STATES)
    for base in ("another", "its own"):
        own = {"teacher_model": lambda: hf_distill.AdapterOffTeacher()} if base == "its own" else {}
        add(f"lora {kind} {base} base", of=kind, student=student, **own)


def of_layers():
    return hf_distill.keep_layers(tiny.teacher(), 1)


def of_width():
    batch = dict(tiny.DataCollatorWithPadding(tiny.tokenizer())(tiny.rows(6)))
    return hf_distill.shrink_width(tiny.teacher(), 12, 1, 24, batches=[batch])


def made_fresh():
    torch.manual_seed(0)
    return hf_distill.fresh_student(tiny.teacher(), hidden_size=12, num_attention_heads=2, num_hidden_layers=1)


for student in (of_layers, of_width, made_fresh):
    add(f"student {student.__name__.replace('_', ' ')}", student=student, objective="auto")

# ---- Teachers ----


def teachers():
    return {name: tiny.bert(width, 2, seed=seed) for name, width, seed in (("big", 24, 7), ("small", 16, 8))}


def from_two(n, seed):
    return [{**row, "source": i % 2} for i, row in enumerate(tiny.rows(n, seed=seed))]


for how in ("probabilities", "logits"):
    add(f"two teachers {how}", teacher_model=partial(lambda h: hf_distill.Several(teachers(), [1, 2], h), how))
named = {"forward_kl": {"teacher": "small"}, "hidden_mse": {"teacher": "big"}}
add("two teachers by name", teacher_model=lambda: hf_distill.Several(teachers()), objective=named)
for split in ("8x1", "3x3"):
    add(f"two teachers chosen {split}", split=split, data=lambda: Dataset.from_list(from_two(8, 3)),
        eval_dataset=lambda: Dataset.from_list(from_two(6, 9)),
        teacher_model=lambda: hf_distill.Several(teachers(), choose="source"))  # fmt: skip
add("average of the student", teacher_model=lambda: hf_distill.EMATeacher(0.9))
add("a function", teacher_model=lambda: hf_distill.FunctionTeacher(lambda b: b["input_ids"][:, :3] / 9.0))


def with_logits(n, seed):
    answers = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)).tolist()
    return Dataset.from_list([{**r, "answer": a} for r, a in zip(tiny.rows(n, seed=seed), answers, strict=True)])


add("a column of logits", data=partial(with_logits, 8, 3), eval_dataset=partial(with_logits, 6, 9),
    teacher_model=lambda: hf_distill.ColumnTeacher("answer"))  # fmt: skip


@recorded
def kept_in_a_folder_and_resumed(folder):
    """The second run reads what the first wrote; the third goes on from its second step."""
    args = {"teacher_cache": str(folder / "kept"), "save_strategy": "steps", "save_steps": 2}
    runs = [trained(folder, args=args, objective=STATES, resume=at) for at in (None, None, "checkpoint-2")]
    return {f"run {at}: {name}": value for at, run in enumerate(runs) for name, value in run.items()}


def candidates(n, seed):
    drawn = torch.Generator().manual_seed(seed)
    texts = [" ".join(tiny.WORDS[int(i)] for i in torch.randint(20, (5,), generator=drawn)) for _ in range(3 * n)]
    return Dataset.from_list([{"query": texts[3 * i], "candidates": texts[3 * i + 1 : 3 * i + 3]} for i in range(n)])


for term in ("margin_mse", "score_kl"):
    for split in ("8x1", "2x4"):
        add(f"candidates {term} {split}", of="embedding", split=split, data=partial(candidates, 8, 3),
            eval_dataset=partial(candidates, 6, 9), objective={term: {"candidates": 2}},
            data_collator=lambda: hf_distill.CandidateCollator(tiny.tokenizer()))  # fmt: skip


# ---- Two vocabularies ----


def knowing(make, **sizes):
    return hf_distill.LiveTeacher(tiny_language.teacher(make, **sizes), tokenizer=tiny_language.tokenizer())


for kind in ("llama", "t5"):
    for ours, theirs in ((32, 40), (40, 32)):
        make, untied = KINDS[kind].student, {"tie_word_embeddings": False}
        add(f"padded heads {kind} {ours} {theirs}", of=kind, student=partial(make, vocab_size=ours, **untied),
            teacher_model=partial(knowing, make, vocab_size=theirs, **untied),
            processing_class=tiny_language.tokenizer())  # fmt: skip


def two_tokenizers(folder, way, objective, turned):
    import two_texts

    ours, theirs = two_texts.words(), two_texts.characters()
    ours, theirs = (theirs, ours) if turned else (ours, theirs)
    collate, data = two_texts.two_texts(ours, theirs)
    return trained(
        folder, "llama", data=data, eval_dataset=data, data_collator=lambda: collate, processing_class=ours,
        teacher_model=two_texts.taught(tiny_language.teacher(), theirs), objective=objective,
        args={"teacher_alignment": way, "alpha": 0.7},
    )  # fmt: skip


for way, objective in (("span", "forward_kl"), ("span", "jsd"), ("uld", "uld")):
    for turned in (False, True):
        parts = {"way": way, "objective": objective, "turned": turned}
        SETTINGS[f"tokenizers {way} {objective}{' turned' * turned}"] = partial(two_tokenizers, **parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", default="", help="settings whose name holds this")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    gc.freeze()  # Trainer collects garbage after every training: what was imported need not be looked at again
    made = {}
    for name, compute in SETTINGS.items():
        if asked.only in name:
            torch.manual_seed(0)
            with tempfile.TemporaryDirectory() as folder:
                try:
                    made[name] = {key: value.hex() for key, value in compute(Path(folder)).items()}
                except Exception as error:
                    made[name] = {"refused": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    asked.file.write_text(json.dumps({"package": hf_distill.__file__, "settings": made}))


if __name__ == "__main__":
    main()
