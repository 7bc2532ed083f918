"""Logits that are never whole: the same losses and gradients as with whole ones, whatever the head."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import tiny
import tiny_language
import torch
from accelerate import PartialState
from default_run import slow_but
from tiny_encoder_decoders import FAMILIES
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    DataCollatorForSeq2Seq,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
)

from hf_distill import AdapterOffTeacher, DistillationTrainingArguments, LiveTeacher
from hf_distill.models.linear_logits import LinearLogits
from hf_distill.objectives.chunked import linear_pass, one_pass


def small(kind, config, **more):
    def make(width=16, layers=1, seed=0):
        torch.manual_seed(seed)
        sizes = dict(
            vocab_size=32, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers, head_dim=8,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.5,
            pad_token_id=0, bos_token_id=1, eos_token_id=2,
        )  # fmt: skip
        return kind(config(**sizes, **more))

    return make


MODELS = {
    "llama": tiny_language.llama,
    "tied": lambda **k: tiny_language.llama(tie_word_embeddings=True, **k),
    "t5": tiny_language.t5,
    "soft cap": small(Gemma2ForCausalLM, Gemma2Config, final_logit_softcapping=2.0),
    "logit scale": small(CohereForCausalLM, CohereConfig, logit_scale=0.25),
    "logits scaling": small(GraniteForCausalLM, GraniteConfig, logits_scaling=6.0),
}


@pytest.fixture(autouse=True)
def _two_rows_a_chunk(monkeypatch):
    monkeypatch.setattr(one_pass, "CHUNK_ELEMENTS", 64)


def step(folder, kind="llama", how="on", size=8, accumulation=1, student=None, data=None, **parts):
    make, seen = MODELS[kind], tiny.Gradients()
    rows = data or (tiny_language.pairs if kind == "t5" else tiny_language.texts)()
    args = dict(
        per_device_train_batch_size=size, gradient_accumulation_steps=accumulation, max_steps=1, fused_logits=how,
        **parts.pop("args", {}),
    )  # fmt: skip
    torch.manual_seed(5)
    run = tiny.trainer(
        folder, student or make(), rows, args=args, callbacks=[seen],
        data_collator=DataCollatorForSeq2Seq(tiny_language.tokenizer()),
        **{"teacher_model": make(width=24, layers=2, seed=7), **parts},
    )  # fmt: skip
    run.train()
    return {k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first, run


def equal(one, other, near=1e-5):
    assert one[0] == pytest.approx(other[0], rel=near)
    assert tiny.relative(one[1], other[1]) < near


@pytest.mark.parametrize("family", slow_but(["marian", "bart"], FAMILIES))
def test_every_family_of_encoder_decoders_gives_its_own_losses_and_gradients(tmp_path, family):
    make, rows, collate = FAMILIES[family]
    found = {}
    for how in ("off", "on"):
        seen = tiny.Gradients()
        run = tiny.trainer(
            tmp_path, make(), rows(), teacher_model=make(seed=7, width=24), data_collator=collate, callbacks=[seen],
            args={"fused_logits": how, "max_steps": 1, "per_device_train_batch_size": 8},
        )  # fmt: skip
        run.train()
        found[how] = {k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first
    equal(found["on"], found["off"])


@pytest.fixture
def counted(monkeypatch):
    """How often heads were gone through a chunk at a time."""
    calls = []
    inside = linear_pass._Pass.apply
    monkeypatch.setattr(
        linear_pass._Pass, "apply", lambda *args: calls.append(len(args[4]) / args[2]) or inside(*args)
    )
    return calls


@pytest.mark.parametrize("kind", MODELS)
def test_losses_and_gradients_are_those_of_whole_logits(tmp_path, kind, counted):
    whole = step(tmp_path, kind, "off", objective={"forward_kl": 1.0, "jsd": 0.5})
    assert not counted
    found = step(tmp_path, kind, objective={"forward_kl": 1.0, "jsd": 0.5})
    assert counted[0] > 10
    equal(found, whole)
    assert {"loss", "loss/hard", "loss/forward_kl", "loss/jsd"} == found[0].keys()
    equal(step(tmp_path, kind, size=2, accumulation=4, objective={"forward_kl": 1.0, "jsd": 0.5}), whole)


@pytest.mark.parametrize(
    "parts",
    [
        {"args": {"alpha": 1.0}},
        {"args": {"bf16": True}},
        {"args": {tiny.CHECKPOINTING: True}},
        {"args": {"max_grad_norm": 0.5, "average_tokens_across_devices": False}},
        {"objective": {"forward_kl": 1.0, "hidden_mse": 0.3}},
        {"objective": {"dist": 1.0, "forward_kl": {"temperature": 4.0}}},
        {"objective": {"forward_kl": {"weight": {"until": 0.0001}}, "reverse_kl": 1.0}},
    ],
    ids=str,
)
def test_with_every_setting(tmp_path, parts, counted):
    near = 2e-2 if "bf16" in str(parts) else 1e-5
    whole = step(tmp_path, how="off", **copy.deepcopy(parts))
    equal(step(tmp_path, **copy.deepcopy(parts)), whole, near)
    assert counted


@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "lm_head"]], ids=["head frozen", "adapter on the head"])
@pytest.mark.parametrize("base", [False, True], ids=["another teacher", "its own base"])
def test_lora(tmp_path, targets, base, counted):
    def student():
        torch.manual_seed(0)
        config = peft.LoraConfig(target_modules=targets, init_lora_weights=False)
        return peft.get_peft_model(tiny_language.llama(), config)

    found = []
    for how in ("off", "on"):
        parts = {"teacher_model": AdapterOffTeacher()} if base else {}
        found.append(step(tmp_path, how=how, student=student(), **parts))
    assert counted
    equal(found[1], found[0])
    assert all("lora" in name for name in found[1][1])


def test_heads_that_are_padded_otherwise_go_through_one_pass_too(tmp_path, counted):
    """The soft targets of the tokens that both have, the label among all of the student's."""
    for sizes in ((40, 32), (32, 40)):
        found = []
        for how in ("off", "on"):
            parts = {
                "student": tiny_language.llama(vocab_size=sizes[0]), "processing_class": tiny_language.tokenizer(),
                "teacher_model": LiveTeacher(
                    tiny_language.teacher(vocab_size=sizes[1]), tokenizer=tiny_language.tokenizer()
                ),
            }  # fmt: skip
            found.append(step(tmp_path, how=how, **parts))
        equal(found[1], found[0])
        assert counted
        counted.clear()


def test_rows_without_any_label(tmp_path):
    rows = tiny_language.texts()
    for row in rows[:6]:
        row["labels"] = [-100] * len(row["labels"])
    equal(step(tmp_path, data=rows, size=2, accumulation=4), step(tmp_path, how="off", data=rows))


def test_evaluation_makes_whole_logits_only_where_somebody_wants_them(tmp_path, monkeypatch):
    made = []
    inside = LinearLogits.chunk
    monkeypatch.setattr(LinearLogits, "chunk", lambda *args: made.append(args) or inside(*args))
    run = step(tmp_path)[2]
    whole = step(tmp_path, how="off")[2]
    rows = tiny_language.texts(6, seed=9)
    made.clear()
    loss = run.evaluate(rows)["eval_loss"]  # nobody computes metrics
    assert made
    made.clear()
    seen = run.predict(rows)
    assert not made
    assert seen.predictions.shape[-1] == 32
    assert seen.metrics["test_loss"] == pytest.approx(loss, rel=1e-5)
    assert loss == pytest.approx(whole.evaluate(rows)["eval_loss"], rel=1e-4)


@pytest.mark.parametrize("bf16", [False, True])  # autocast is there when a student is first looked at
def test_small_vocabularies_are_made_whole_by_themselves(tmp_path, counted, monkeypatch, bf16):
    step(tmp_path, how="auto", args={"bf16": bf16})
    assert not counted
    monkeypatch.setattr("hf_distill.training.fused_logits.WHOLE", 100)
    whole = step(tmp_path, how="off", args={"bf16": bf16})
    equal(step(tmp_path, how="auto", args={"bf16": bf16}), whole, 2e-2 if bf16 else 1e-5)
    assert counted


def test_teachers_that_keep_their_answers_show_them_whole(tmp_path, counted):
    args = {"num_train_epochs": 3, "max_steps": -1}
    runs = [
        tiny.trainer(
            tmp_path, tiny_language.llama(), tiny_language.texts(), args={**args, "fused_logits": how},
            data_collator=DataCollatorForSeq2Seq(tiny_language.tokenizer()), teacher_model=tiny_language.teacher(),
        )
        for how in ("off", "on")
    ]  # fmt: skip
    for run in runs:
        run.train()
    assert tiny.losses(runs[1]) == pytest.approx(tiny.losses(runs[0]), rel=1e-4)
    assert runs[1].state.log_history[2]["teacher_cache_hits"] == 1
    assert counted


def test_where_logits_must_be_whole(tmp_path):
    with pytest.raises(ValueError, match="fused_logits=on was asked for, but compute_loss_func or label smoothing"):
        step(tmp_path, args={"label_smoothing_factor": 0.1})
    with pytest.raises(ValueError, match="but it is for language models and terms that compare their logits: leave"):
        step(tmp_path, objective="hidden_mse")
    with pytest.raises(ValueError, match="but it is for language models"):
        tiny.trainer(tmp_path, args={"fused_logits": "on"}, teacher_model=tiny.teacher())
    unlabelled = [{n: v for n, v in row.items() if n != "labels"} for row in tiny_language.texts()]
    with pytest.raises(ValueError, match=r"alpha=0.5 trains on labels, the batch has .*: add a 'labels' column"):
        step(tmp_path, data=unlabelled)
    assert DistillationTrainingArguments(str(tmp_path), fused_logits=False, use_cpu=True).fused_logits == "off"


STRATEGIES = {
    "ddp": {},
    "fsdp2": {"fsdp": True, "fsdp_config": {"version": 2, "transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"]}},
    "zero3": {"deepspeed": {
        **dict.fromkeys(("train_micro_batch_size_per_gpu", "train_batch_size", "gradient_clipping"), "auto"),
        "gradient_accumulation_steps": "auto", "zero_optimization": {"stage": 3},
    }},
}  # fmt: skip


def descended(folder, how="on", size=8, accumulation=1, **args):
    """Two steps of gradient descent, whatever the strategy: the second loss is wrong if a gradient was."""
    descent = {"optim": "sgd", "learning_rate": 0.5, "seed": 42, "train_sampling_strategy": "sequential"}
    args = {"max_steps": 2, "per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, **args}
    run = tiny.trainer(
        folder, tiny_language.llama(), tiny_language.texts(16), args={**descent, **args, "fused_logits": how},
        data_collator=DataCollatorForSeq2Seq(tiny_language.tokenizer()), teacher_model=tiny_language.teacher(),
        objective={"forward_kl": 1.0, "jsd": 0.5},
    )  # fmt: skip
    run.train()
    return run, [entry for entry in run.state.log_history if "loss" in entry]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_ranks_make_no_difference(tmp_path, strategy):
    """Two ranks with 2 x 2 rows each against one process with whole logits."""
    if strategy == "zero3":
        pytest.importorskip("deepspeed", reason='needs pip install -e ".[deepspeed]"')
    found = subprocess.run(
        [sys.executable, *"-m torch.distributed.run --nproc_per_node 2 --standalone".split(), __file__, tmp_path,
         strategy],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-3000:]
    _, whole = descended(tmp_path, how="off")
    for ours, theirs in zip(json.loads((tmp_path / "two.json").read_text()), whole, strict=True):
        for name in ("loss", "loss/hard", "loss/forward_kl", "loss/jsd"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5)
    assert abs(whole[1]["loss"] - whole[0]["loss"]) > 0.05


if __name__ == "__main__":
    one_pass.CHUNK_ELEMENTS = 64
    calls, inside = [], linear_pass._Pass.apply
    linear_pass._Pass.apply = lambda *args: calls.append(args) or inside(*args)
    run, history = descended(sys.argv[1], size=2, accumulation=2, **STRATEGIES[sys.argv[2]])
    assert run.accelerator.num_processes == 2
    assert len(calls) == 4
    if run.is_world_process_zero():
        Path(sys.argv[1], "two.json").write_text(json.dumps(history))
    PartialState().destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # see strategies.py
