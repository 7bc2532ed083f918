"""Run by test_strategies.py on each rank of a strategy: steps, losses, checkpoints and shares of the teacher to files.

The same file runs in one process, which is what every strategy is held against.
"""

import gc
import importlib.util
import json
import os
import sys
from functools import partial
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DS_ACCELERATOR"] = "cpu"
sys.path.insert(0, str(Path(__file__).parents[1]))

import peft
import tiny
import tiny_language
import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    DataCollatorForSeq2Seq,
    TrainerCallback,
)
from transformers.distributed import DistributedConfig

from hf_distill import AdapterOffTeacher, CachedTeacher, EMATeacher, LiveTeacher, Several
from hf_distill.models.sharding import unsharded, whole_state
from hf_distill.students import keep_layers

FIXED = DataCollatorForSeq2Seq(tiny_language.tokenizer(), padding="max_length", max_length=16)
OBJECTIVES = {
    "forward_kl": "forward_kl",
    "hidden_mse": {"hidden_mse": {"weight": 1.0, "layers": {"1": 2}}, "forward_kl": 0.5},
}
HALVES = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}  # 2 ranks x 2 x 2 rows = 8
SETTINGS = {
    "one": {"per_device_train_batch_size": 8},
    "accumulation": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    "ddp": HALVES,
    "fsdp2": {**HALVES, "use_cpu": False},
    "zero1": HALVES,
    "zero2": HALVES,
    "zero3": HALVES,
    "tensor": {"per_device_train_batch_size": 8, "use_cpu": False},  # the two ranks share every row
}


def settings(strategy):
    """What a user writes beside the configuration that accelerate was launched with."""
    if strategy != "zero1":
        return dict(SETTINGS[strategy])
    auto = ("train_micro_batch_size_per_gpu", "train_batch_size", "gradient_accumulation_steps", "gradient_clipping")
    return {**HALVES, "deepspeed": {**dict.fromkeys(auto, "auto"), "zero_optimization": {"stage": 1}}}


class Weights(TrainerCallback):
    """Keeps all weights as they are after the first optimizer step."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == 1:
            self.first = whole_state(getattr(model, "module", model))


def trainer(folder, strategy, objective, student=None, **changes):
    teacher = changes.pop("teacher", None)
    callbacks = changes.pop("callbacks", ())
    data = changes.pop("data", None)
    parts = {name: changes.pop(name) for name in ("data_collator", "model_init", "rollout") if name in changes}
    student = None if "model_init" in parts else student or tiny.bert()
    args = {"lr_scheduler_type": "constant", "learning_rate": 1e-2, "max_steps": 8, "max_grad_norm": 1.0}
    return tiny.trainer(
        folder, student, data or tiny.rows(64), teacher_model=teacher or tiny.teacher(),
        objective=OBJECTIVES[objective] if isinstance(objective, str) else objective, callbacks=list(callbacks),
        eval_dataset=None if "data_collator" in parts else tiny.rows(8, seed=9),  # of classifiers
        args={**args, **settings(strategy), **changes}, **parts,
    )  # fmt: skip


def one_step(folder, strategy, objective, **changes):
    """A step of gradient descent with a rate of one: the change of each weight is its gradient."""
    seen = Weights()
    once = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0, "max_steps": 1, "callbacks": [seen]}
    run = trainer(folder, strategy, objective, **once, **changes)
    run.train()
    parts = {name: value for name, value in run.state.log_history[0].items() if name.startswith("loss")}
    return run, seen.first, parts


def write(folder, run, facts, **tensors):
    """One file of facts for each rank, one of tensors for all."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"facts-{run.args.process_index}.json").write_text(json.dumps(facts))
    if run.args.process_index == 0:
        for name, held in tensors.items():
            save_file(
                held if isinstance(held, dict) else {name: torch.from_numpy(held)}, folder / f"{name}.safetensors"
            )


def record(folder, strategy):
    """The first step, eight losses, a checkpoint to resume from, the student at the end."""
    for objective in OBJECTIVES:
        here = folder / strategy / objective
        run, weights, parts = one_step(here, strategy, objective)
        facts = {
            "world_size": run.args.world_size,
            "parts": parts,
            "teacher": sum(map(here_of, run.teacher.model.parameters())),
            "student": sum(map(here_of, run.model.parameters())),
        }
        saving = {"save_strategy": "steps", "save_steps": 4}
        facts |= eight_steps(here, partial(trainer, here, strategy, objective, **saving))
        write(here, run, facts, step=weights)


def eight_steps(here, make):
    """Train, save, and train again from the middle; ``make`` makes the same trainer each time."""
    run = make()
    run.train()
    facts = {"losses": tiny.losses(run), "norms": tiny.losses(run, "grad_norm")}
    run.save_model(str(here / "final"))
    facts["evaluated"] = {name: value for name, value in run.evaluate().items() if "loss" in name}
    logits = run.predict(tiny.rows(8, seed=9)).predictions
    again = make()
    again.train(resume_from_checkpoint=str(here / "checkpoint-4"))
    write(here, run, {}, logits=logits)
    return {**facts, "resumed": tiny.losses(again)}


def record_again(folder, strategy):
    """Several launches in one process: a teacher placed already, its model alone, a new accelerator for each trial."""
    here, teacher = folder / strategy / "again", LiveTeacher(tiny.teacher())
    found = []
    for asked, checkpointing in ((teacher, False), (teacher, True), (teacher.model, False)):
        run = trainer(here, strategy, "hidden_mse", teacher=asked, max_steps=3, **{tiny.CHECKPOINTING: checkpointing})
        run.train()
        found.append(tiny.losses(run))
    seen = Settings()
    run = trainer(
        here, strategy, "hidden_mse", model_init=tiny_student, teacher=teacher, max_steps=3, callbacks=[seen]
    )
    if strategy not in ("zero2", "zero3"):  # Trainer searches under DeepSpeed only if its arguments name the file
        run.hyperparameter_search(propose, n_trials=2, compute_objective=lambda metrics: metrics["eval_loss"])
    write(here, run, {"losses": found, "searched": seen.alphas})


def tiny_student():
    return tiny.bert()


def propose(trial):
    return {"alpha": trial.suggest_float("alpha", 0.1, 1.0)}


class Settings(TrainerCallback):
    """Keeps the alpha of every training, and what the first loss was."""

    def __init__(self):
        self.alphas = []

    def on_train_begin(self, args, state, control, **kwargs):
        self.alphas.append(args.alpha)


def record_sft(folder, strategy):
    """TRL's trainer, where TRL is installed."""
    if importlib.util.find_spec("trl") is None:
        return
    from datasets import Dataset

    from hf_distill.integrations.trl import SFTDistillationConfig, SFTDistillationTrainer

    os.environ["FSDP_TRANSFORMER_CLS_TO_WRAP"] = "LlamaDecoderLayer"
    here, args = folder / strategy / "sft", {"max_steps": 8, "assistant_only_loss": True, "bf16": False}
    run = SFTDistillationTrainer(
        tiny_language.llama(), tiny.arguments(here, SFTDistillationConfig, **args, **settings(strategy)),
        train_dataset=Dataset.from_list(tiny_language.chats(64)), processing_class=tiny_language.tokenizer(),
        teacher_model=tiny_language.teacher(), objective=OBJECTIVES["hidden_mse"],
    )  # fmt: skip
    run.train()
    names = ("loss", "grad_norm", "mean_token_accuracy", "num_tokens")
    write(here, run, {name: tiny.losses(run, name) for name in names})


def record_decoder(folder, strategy):
    """One step of a decoder, whose embeddings and head are units of their own under FSDP2."""
    here = folder / strategy
    os.environ["FSDP_TRANSFORMER_CLS_TO_WRAP"] = "LlamaDecoderLayer"
    for tied in (False, True):
        student, teacher = (make(tie_word_embeddings=tied) for make in (tiny_language.llama, tiny_language.teacher))
        run, weights, parts = one_step(
            here, strategy, "hidden_mse", student=student, teacher=teacher, data=tiny_language.texts(),
            data_collator=DataCollatorForSeq2Seq(tiny_language.tokenizer()), train_sampling_strategy="sequential",
        )  # fmt: skip
        write(here / f"decoder-{'tied' if tied else 'untied'}", run, parts, step=weights)


def record_rollouts(folder, strategy):
    """A step, then four, on what student and teacher write; some ranks have nothing to write in some of them."""
    here, order = folder / strategy, {"train_sampling_strategy": "sequential"}
    for kind, make in (("llama", tiny_language.llama), ("t5", tiny_language.t5)):
        os.environ["FSDP_TRANSFORMER_CLS_TO_WRAP"] = "LlamaDecoderLayer" if kind == "llama" else "T5Block"
        parts = {
            "data_collator": FIXED, **order,
            "data": tiny_language.texts() if kind == "llama" else tiny_language.pairs(),
            "rollout": {"on_policy": 0.4, "seq_kd": 0.3, "max_new_tokens": 6, "folder": str(here / f"{kind}-texts")},
        }  # fmt: skip
        try:
            pair = {"student": make(), "teacher": tiny_language.teacher(make)}
            run, weights, logged = one_step(here, strategy, "forward_kl", **pair, **parts)
        except ValueError as refusal:
            (here / f"{kind}-refused").write_text(str(refusal))
            continue
        pair = {"student": make(), "teacher": tiny_language.teacher(make)}
        again = trainer(here, strategy, "forward_kl", **pair, **parts, max_steps=4)
        again.train()
        kept = {file.name: file.read_text().count("\n") for file in (here / f"{kind}-texts").iterdir()}
        shares = {name: tiny.losses(again, f"rollout/{name}") for name in ("student", "teacher", "tokens")}
        facts = {"world_size": run.args.world_size, "parts": logged, "losses": tiny.losses(again), "texts": kept}
        write(here / f"rollout-{kind}", run, {**facts, **shares}, step=weights)


def record_tensor_parallel(folder, strategy):
    """A decoder whose matrices are split over the ranks, or in one process the same decoder whole."""
    here = folder / strategy / "split"
    tiny_language.llama().save_pretrained(here / "student")
    tiny_language.teacher().save_pretrained(here / "teacher")
    split = {"distributed_config": DistributedConfig(tp_plan="auto")} if strategy == "tensor" else {}
    arguments = tiny.arguments(here, max_steps=8, max_grad_norm=1.0, **settings(strategy))
    student, teacher = (AutoModelForCausalLM.from_pretrained(here / name, **split) for name in ("student", "teacher"))
    run = tiny.trainer(
        here, student, tiny_language.texts(64), plain_args=arguments, teacher_model=teacher,
        objective=OBJECTIVES["hidden_mse"], data_collator=DataCollatorForSeq2Seq(tiny_language.tokenizer()),
    )  # fmt: skip
    run.train()
    run.save_model(str(here / "final"))
    share = sum(map(here_of, run.model.parameters()))
    facts = {"losses": tiny.losses(run), "norms": tiny.losses(run, "grad_norm"), "student": share}
    write(here, run, {**facts, "world_size": run.args.world_size})


def record_edges(folder, strategy):
    """Ranks and micro-batches without a label, and a last step for which there are not enough rows."""
    order = {"train_sampling_strategy": "sequential"}
    data = tiny.rows(8)
    for unlabelled in (2, 3, 6, 7, 0, 1):  # the second rank has none, the first one only in its second micro-batch
        data[unlabelled]["labels"] = -100
    local = {"average_tokens_across_devices": False}
    run, weights, parts = one_step(folder / strategy, strategy, "forward_kl", data=data, **order, **local)
    write(folder / strategy / "unlabelled", run, parts, step=weights)
    data = [{**row, "labels": -100} for row in data]
    run, weights, parts = one_step(folder / strategy, strategy, "forward_kl", data=data, **order)
    write(folder / strategy / "nothing", run, parts, step=weights)
    data = tiny.rows(6)
    if strategy in ("one", "accumulation"):
        data = [*data, *data[:2]]  # what accelerate does for ranks: the first rows again
    run, weights, parts = one_step(folder / strategy, strategy, "forward_kl", data=data, **order)
    write(folder / strategy / "uneven", run, parts, step=weights)


def record_several(folder, strategy):
    """Two teachers, one of them listened to by its name too; then one of them for each row."""
    here, order = folder / strategy, {"train_sampling_strategy": "sequential"}
    teachers = {"big": tiny.teacher(), "small": tiny.bert(seed=5)}
    spec = {"forward_kl": 1.0, "hidden_mse": {"teacher": "big", "layers": {"1": 2}}}
    run, weights, parts = one_step(here, strategy, spec, teacher=teachers)
    write(here / "several", run, {**parts, "sharded": run.teacher.collective}, step=weights)
    data = [{**row, "source": source} for row, source in zip(tiny.rows(8), (0, 0, 1, 0, 0, 0, 1, 0), strict=True)]
    given = Several(list(teachers.values()), choose="source")  # some ranks have no row for the second
    try:
        run, weights, parts = one_step(here, strategy, "forward_kl", teacher=given, data=data, **order)
    except ValueError as refusal:
        weights, parts = {}, {"refused": str(refusal)}
    write(here / "chosen", run, parts, step=weights)


def record_paths(folder, strategy):
    """Both models from folders, so that ZeRO-3 partitions them while they are loaded; FSDP2 by arguments."""
    here, args = folder / strategy / "paths", dict(settings(strategy))
    if strategy == "fsdp2":  # by arguments, and whole files, where the configuration file asks for shards
        block = {"auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "transformer_layer_cls_to_wrap": ["BertLayer"]}
        args |= {"fsdp": "full_shard", "fsdp_config": {"version": 2, "state_dict_type": "FULL_STATE_DICT", **block}}
    if torch.distributed.is_initialized() is False or torch.distributed.get_rank() == 0:
        tiny.bert().save_pretrained(folder / strategy / "student")
        tiny.teacher().save_pretrained(folder / strategy / "teacher")
    if torch.distributed.is_initialized():
        torch.distributed.barrier()

    def make():
        common = {"lr_scheduler_type": "constant", "max_steps": 8, "max_grad_norm": 1.0, "save_strategy": "steps"}
        arguments = tiny.arguments(here, **{**common, **args, "save_steps": 4})
        if strategy.startswith("zero"):  # with use_cpu Trainer leaves this out
            import deepspeed

            deepspeed.init_distributed("gloo", auto_mpi_discovery=False)
        student = AutoModelForSequenceClassification.from_pretrained(folder / strategy / "student")
        return tiny.trainer(
            here, student, tiny.rows(64), plain_args=arguments, objective=OBJECTIVES["hidden_mse"],
            teacher_model=str(folder / strategy / "teacher"), eval_dataset=tiny.rows(8, seed=9),
        )  # fmt: skip

    facts = eight_steps(here, make)
    run = make()
    facts["teacher"] = sum(map(here_of, run.teacher.model.parameters()))
    loaded = AutoModelForSequenceClassification.from_pretrained(folder / strategy / "teacher")
    facts["whole"] = [same(unsharded(run.teacher.model)), same(keep_layers(loaded, [0, 1]))]
    write(here, run, facts)


def same(model):
    """Whether a model is the teacher again, whole."""
    ours, theirs = model.state_dict(), tiny.teacher().state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name].cpu(), theirs[name]) for name in theirs)


def lora_student(**changes):
    """Tiny BERT with an adapter on its attention and a head that is trained whole."""
    torch.manual_seed(5)
    config = peft.LoraConfig(r=4, target_modules=["query", "value"], modules_to_save=["classifier"], **changes)
    return peft.get_peft_model(tiny.bert(), config)


def record_lora(folder, strategy):
    """An adapter with projections, and its own base as teacher."""
    here = folder / strategy / "lora"

    def make():
        return trainer(here, strategy, "hidden_mse", lora_student(), save_strategy="steps", save_steps=4)

    facts = eight_steps(here, make)
    student = lora_student(init_lora_weights=False)  # else the adapter adds nothing at the first step
    run = trainer(here, strategy, "forward_kl", student, max_steps=4, teacher=AdapterOffTeacher())
    run.train()
    write(here, run, {**facts, "adapter_off": tiny.losses(run)})


def record_average(folder, strategy):
    """The student's own moving average as its teacher."""
    here = folder / strategy / "average"

    def make():
        saving = {"save_strategy": "steps", "save_steps": 4}
        return trainer(here, strategy, "forward_kl", teacher=EMATeacher(0.8), alpha=0.9, **saving)

    try:
        facts = eight_steps(here, make)
    except ValueError as refusal:
        facts = {"refused": str(refusal)}
    here.mkdir(parents=True, exist_ok=True)
    (here / f"facts-{os.environ.get('RANK', 0)}.json").write_text(json.dumps(facts))


def record_cached(folder, strategy):
    """Two epochs over rows of which some occur often, so that ranks miss unequally; then from the folder alone."""
    here = folder / strategy / "cached"
    rows = [*tiny.rows(16), *tiny.rows(4), *tiny.rows(4)]
    facts, more = {}, {"data": rows, "max_steps": 6}
    ways = {"off": "off", "auto": "auto", "folder": str(folder / f"answers-{strategy}")}
    if strategy != "one":
        ways.pop("off")
    if strategy in ("accumulation", "zero1", "zero2"):  # a folder knows nothing of what they differ in
        ways.pop("folder")
    for name, cache in ways.items():
        run = trainer(here, strategy, "hidden_mse", teacher_cache=cache, **more)
        run.train()
        facts[name] = tiny.losses(run)
        facts[f"{name}_hits"] = tiny.losses(run, "teacher_cache_hits")
        assert run.teacher.collective is (strategy in ("fsdp2", "zero3"))
    if "folder" in ways:
        alone = trainer(here, strategy, "hidden_mse", teacher=CachedTeacher(folder=ways["folder"]), **more)
        alone.train()
        facts["alone"] = tiny.losses(alone)
    write(here, run, facts)


def record_quantized(folder, strategy):
    """A student that learns to be quantised, from what it was; where torchao is installed."""
    if importlib.util.find_spec("torchao") is None:
        return
    os.environ["FSDP_TRANSFORMER_CLS_TO_WRAP"] = "BertLayer"  # the part before named others
    here, args = folder / strategy / "quantized", {"save_strategy": "steps", "save_steps": 4, **settings(strategy)}
    args |= {"max_steps": 8, "max_grad_norm": 1.0, "student_quantization": {"weights": "int4", "group_size": 8}}
    parts = {"objective": OBJECTIVES["hidden_mse"], "eval_dataset": tiny.rows(8, seed=9), "args": args}
    make = partial(quantized, here, data=tiny.rows(64), **parts)
    facts = eight_steps(here, make) if strategy != "zero3" else {"refused": refusal(make)}
    write(here, tiny.trainer(here, args=settings(strategy)), facts)


def quantized(here, **parts):
    return tiny.trainer(here, tiny.bert(layers=2), **parts)


def refusal(make):
    try:
        make()
    except ValueError as error:
        return str(error)


def here_of(parameter):
    """How many numbers of a parameter this rank holds."""
    if hasattr(parameter, "ds_tensor"):
        return parameter.ds_tensor.numel()
    return (parameter.to_local() if hasattr(parameter, "to_local") else parameter).numel()


def pass_for_gpus(strategy):
    """Let the ranks pass for GPUs where accelerate offers a strategy to nothing else."""
    if strategy in ("fsdp2", "tensor"):
        PartialState._prepare_backend = lambda self, cpu=False, sagemaker_dp=False, backend=None: (
            "gloo", DistributedType.MULTI_GPU,
        )  # fmt: skip
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"


def main(folder, strategy):
    torch.set_num_threads(1)
    pass_for_gpus(strategy)
    everything = (
        record, record_average, record_cached, record_lora, record_edges, record_again, record_several, record_paths,
        record_decoder, record_sft, record_rollouts, record_quantized,
    )  # fmt: skip
    chosen = {"one": (*everything, record_tensor_parallel), "tensor": (record_tensor_parallel,)}
    for part in chosen.get(strategy, everything):
        part(folder, strategy)
        gc.collect()
        gc.freeze()  # Trainer collects after each training, and DeepSpeed and TRL are large: see tiny.py
    finish()


def finish():
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    for name in sys.argv[2:]:
        main(Path(sys.argv[1]), name)
    # All is written. Leaving by the door, one launch in twenty is aborted by a thread of gloo or DeepSpeed that nobody
    # joins ("terminate called without an active exception"), whatever was trained.
    sys.stdout.flush()
    os._exit(0)
