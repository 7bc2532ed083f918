"""One process, accumulation, DDP, FSDP2 and ZeRO give the same numbers, checkpoints and students.

Each strategy is started once, as users start it, and leaves what it did in files; see strategies.py.
"""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import strategies
import tiny
import tiny_language
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.distributed.checkpoint import FileSystemReader
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, DataCollatorWithPadding

from hf_distill import AdapterOffTeacher

CONFIGS = Path(__file__).parents[2] / "recipes" / "accelerate"
SHARDED = ("fsdp2", "zero3")
ZERO = tuple(
    pytest.param(f"zero{stage}", marks=(pytest.mark.slow, pytest.mark.skipif(
        importlib.util.find_spec("deepspeed") is None, reason='needs pip install -e ".[deepspeed]"')))
    for stage in (1, 2, 3)
)  # fmt: skip
ONE, ACCUMULATION, DDP, FSDP2 = (
    pytest.param(name, marks=pytest.mark.slow) for name in ("one", "accumulation", "ddp", "fsdp2")
)
OTHERS = (ACCUMULATION, DDP, FSDP2, *ZERO)
OBJECTIVES = tuple(strategies.OBJECTIVES)
RUNS = (*OBJECTIVES, "lora", "paths")


@pytest.fixture(scope="session")
def ran(tmp_path_factory):
    """Start a strategy the first time that somebody asks for it; returns its folder."""
    folder, started = tmp_path_factory.mktemp("strategies"), set()

    def run(strategy):
        if strategy not in started:
            alone = ("one", "accumulation")
            names = alone if strategy in alone else (strategy,)
            started.update(names)
            cpus = {"ACCELERATE_USE_CPU": "true"} if strategy == "ddp" else {}
            found = subprocess.run(
                [sys.executable, *launched(strategy), strategies.__file__, str(folder), *names],
                env={**os.environ, "OMP_NUM_THREADS": "1", **cpus},
                capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip
            (folder / f"{strategy}.log").write_text(found.stdout + found.stderr)
            assert found.returncode == 0, found.stderr[-6000:]
        return folder / strategy

    return run


def launched(strategy):
    """As README says: with the files that users copy, or as `torchrun` does."""
    if (config := CONFIGS / f"{strategy}.yaml").is_file():
        return ["-m", "accelerate.commands.launch", "--config_file", config, "--mixed_precision", "no"]
    alone = strategy in ("one", "accumulation")
    return [] if alone else "-m torch.distributed.run --nproc_per_node 2 --standalone".split()


def facts(folder, name, rank=0):
    return json.loads((folder / name / f"facts-{rank}.json").read_text())


def change(folder, name):
    """What the first step changed in each weight: with a rate of one, its gradient."""
    before, after = tiny.bert().state_dict(), load_file(folder / name / "step.safetensors")
    carried = {key: value for key, value in after.items() if key not in before}
    return {**{key: after[key] - before[key] for key in before}, **carried}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("strategy", OTHERS)
def test_the_first_gradients_and_eight_losses_equal_those_of_one_process(ran, strategy, name):
    ours, one = ran(strategy), ran("one")
    mine, theirs = facts(ours, name), facts(one, name)
    assert mine["world_size"] == (1 if strategy == "accumulation" else 2)  # else nothing would be shown
    assert ("distillation.terms.hidden_mse.projections.1_2.weight" in change(one, name)) == (name == "hidden_mse")
    assert max(float(value.abs().max()) for value in change(one, name).values()) > 0.1  # there is something to compare
    assert tiny.relative(change(ours, name), change(one, name)) < 1e-5
    assert mine["parts"] == pytest.approx(theirs["parts"], rel=1e-5)
    assert len(mine["losses"]) == 8
    assert mine["losses"] == pytest.approx(theirs["losses"], rel=1e-5)
    assert mine["norms"] == pytest.approx(theirs["norms"], rel=1e-5)  # of what is clipped, projections included
    assert mine["evaluated"] == pytest.approx(theirs["evaluated"], rel=1e-5)
    if strategy != "accumulation":
        assert facts(ours, name, 1)["losses"] == mine["losses"]


@pytest.mark.parametrize("name", ["lora", "paths"])
@pytest.mark.parametrize("strategy", OTHERS)
def test_lora_students_and_models_from_folders_too(ran, strategy, name):
    mine, theirs = facts(ran(strategy), name), facts(ran("one"), name)
    assert mine["losses"] == pytest.approx(theirs["losses"], rel=1e-5)
    if name == "lora":
        assert mine["adapter_off"] == pytest.approx(theirs["adapter_off"], rel=1e-5)


def test_the_student_with_its_adapter_off_teaches_what_a_copy_of_its_base_would(tmp_path):
    student = strategies.lora_student(init_lora_weights=False)
    run = strategies.trainer(tmp_path, "one", "forward_kl", student, max_steps=4, teacher=tiny.bert())
    run.train()
    student = strategies.lora_student(init_lora_weights=False)
    off = strategies.trainer(tmp_path, "one", "forward_kl", student, max_steps=4, teacher=AdapterOffTeacher())
    off.train()
    assert tiny.losses(off) == pytest.approx(tiny.losses(run), rel=1e-6)


@pytest.mark.parametrize("strategy", OTHERS)
def test_the_moving_average_follows_the_student_alike(ran, strategy):
    mine, theirs = facts(ran(strategy), "average"), facts(ran("one"), "average")
    if strategy == "zero3":
        assert mine["refused"].startswith("EMATeacher was asked for under DeepSpeed ZeRO-3, where no rank has")
        return
    assert len(mine["losses"]) == 8
    assert mine["losses"] == pytest.approx(theirs["losses"], rel=1e-5)
    assert mine["evaluated"] == pytest.approx(theirs["evaluated"], rel=1e-5)
    assert mine["resumed"] == pytest.approx(mine["losses"], rel=1e-6)
    assert theirs["evaluated"]["eval_loss/forward_kl"] > 1e-4  # it is not the student itself


@pytest.mark.parametrize("strategy", OTHERS)
def test_a_rank_or_a_micro_batch_without_a_label_changes_nothing(ran, strategy):
    """Run with average_tokens_across_devices=False, which must not change what a step is divided by."""
    ours, one = ran(strategy), ran("one")
    assert facts(ours, "unlabelled") == pytest.approx(facts(one, "unlabelled"), rel=1e-5)
    assert tiny.relative(change(ours, "unlabelled"), change(one, "unlabelled")) < 1e-5
    assert facts(ours, "nothing")["loss/hard"] == 0.0
    assert all(value.isfinite().all() for value in change(ours, "nothing").values())
    assert tiny.relative(change(ours, "nothing"), change(one, "nothing")) < 1e-5


@pytest.mark.parametrize("strategy", OTHERS)
def test_answers_are_kept_and_shared_between_ranks(ran, strategy):
    """A sharded teacher must be called by all ranks together, also where only one has a row that is new."""
    mine, plain = facts(ran(strategy), "cached"), facts(ran("one"), "cached")["off"]
    kept = [way for way in ("auto", "folder") if way in mine]
    assert kept == (["auto"] if strategy in ("accumulation", "zero1", "zero2") else ["auto", "folder"])
    for way in kept:
        assert mine[way] == pytest.approx(plain, rel=1e-5)
        assert mine[f"{way}_hits"][3:] == [1.0] * 3  # shared at the end of the first epoch
        assert 0 < sum(mine[f"{way}_hits"][:3]) < 1.01  # eight rows of three batches occur a second or third time
    assert mine.get("alone", plain) == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("strategy", OTHERS)
def test_an_uneven_last_step_is_exact(ran, strategy):
    ours, one = ran(strategy), ran("one")
    assert facts(ours, "uneven") == pytest.approx(facts(one, "uneven"), rel=1e-5)
    assert tiny.relative(change(ours, "uneven"), change(one, "uneven")) < 1e-5


@pytest.mark.parametrize("strategy", OTHERS)
def test_several_teachers_are_exact_too(ran, strategy):
    ours, one = ran(strategy), ran("one")
    mine, theirs = facts(ours, "several"), facts(one, "several")
    assert mine.pop("sharded") == (strategy in SHARDED)
    assert not theirs.pop("sharded")
    assert mine == pytest.approx(theirs, rel=1e-5)
    assert tiny.relative(change(ours, "several"), change(one, "several")) < 1e-5
    mine, theirs = facts(ours, "chosen"), facts(one, "chosen")
    if strategy in SHARDED:
        assert "choose='source' was asked for, but a teacher is sharded" in mine["refused"]
        return
    assert mine == pytest.approx(theirs, rel=1e-5)
    assert tiny.relative(change(ours, "chosen"), change(one, "chosen")) < 1e-5


@pytest.mark.parametrize("strategy", OTHERS)
def test_a_decoder_is_exact_too(ran, strategy):
    for name in ("decoder-untied", "decoder-tied"):
        ours, one = ran(strategy), ran("one")
        assert facts(ours, name) == pytest.approx(facts(one, name), rel=1e-5)
        after, wanted = (load_file(folder / name / "step.safetensors") for folder in (ours, one))
        start = tiny_language.llama(tie_word_embeddings=name == "decoder-tied").state_dict()
        changed = [{key: value - start.get(key, 0) for key, value in held.items()} for held in (after, wanted)]
        assert tiny.relative(*changed) < 1e-5


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("strategy", [ONE, *OTHERS])
def test_a_resumed_run_goes_on_exactly(ran, strategy, name):
    found = facts(ran(strategy), name)
    assert found["resumed"] == found["losses"]  # the first four come from the checkpoint, the others are run again


@pytest.mark.parametrize("name", [*OBJECTIVES, "paths"])
@pytest.mark.parametrize("strategy", [ONE, *OTHERS])
def test_the_final_student_is_whole_and_nothing_but_the_student(ran, strategy, name):
    final = ran(strategy) / name / "final"
    student, info = AutoModelForSequenceClassification.from_pretrained(final, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    logits = predictions(student)
    assert torch.allclose(logits, load_file(final.parent / "logits.safetensors")["logits"], atol=1e-5)
    assert all(key.startswith(("bert.", "classifier.")) for key in keys(final / "model.safetensors"))


@pytest.mark.parametrize("strategy", [ONE, *OTHERS])
def test_a_lora_checkpoint_holds_the_adapter_and_merges_into_the_same_student(ran, strategy):
    folder = ran(strategy) / "lora"
    shards = folder / "checkpoint-4" / "pytorch_model_fsdp_0"
    assert shards.is_dir() == (strategy == "fsdp2")  # its file asks for shards, which hold the adapter instead
    for saved in [folder / "final"] if shards.is_dir() else [folder / "final", folder / "checkpoint-4"]:
        assert not (saved / "model.safetensors").exists()
        assert all("lora_" in key or "classifier" in key for key in keys(saved / "adapter_model.safetensors"))
    merged = peft.PeftModel.from_pretrained(tiny.bert(), folder / "final").merge_and_unload()
    assert torch.allclose(predictions(merged), load_file(folder / "logits.safetensors")["logits"], atol=1e-5)


@pytest.mark.parametrize("strategy", [ONE, *OTHERS])
def test_no_tensor_of_the_teacher_is_saved_and_projections_only_in_checkpoints(ran, strategy):
    folder = ran(strategy) / "hidden_mse"
    assert not list((folder / "final").glob("distillation*"))
    wide = tiny.teacher().config.hidden_size
    for path in folder.rglob("*.safetensors"):
        if path.name != "step.safetensors":
            with safe_open(path, "pt") as file:
                shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}
            if path.name == "distillation.safetensors":
                assert shapes == {"terms.hidden_mse.projections.1_2.weight": [wide, 16]}
            else:
                assert not [key for key, shape in shapes.items() if wide in shape], path
    if not strategy.startswith("zero"):  # DeepSpeed's own checkpoint holds all that it trains
        assert (folder / "checkpoint-4" / "distillation.safetensors").is_file()


@pytest.mark.parametrize("strategy", [ONE, *OTHERS])
def test_the_strategys_own_files_have_no_room_for_a_teacher(ran, strategy):
    """Weights, two moments and a copy of the weights for each of the student's numbers, and hardly anything else."""
    folder = ran(strategy) / "hidden_mse" / "checkpoint-4"
    student = sum(p.numel() for p in tiny.bert().parameters()) + 24 * 16
    held = 0
    for path in (*folder.rglob("*.pt"), *folder.rglob("optimizer.bin")):
        held += numbers(torch.load(path, map_location="cpu", weights_only=False))
    for shards in folder.glob("*_0"):  # FSDP2's folders
        if (shards / ".metadata").is_file():
            kept = FileSystemReader(shards).read_metadata().state_dict_metadata.values()
            held += sum(math.prod(tensor.size) for tensor in kept if hasattr(tensor, "size"))
    assert 2 * student <= held < 4.5 * student
    assert sum(p.numel() for p in tiny.teacher().parameters()) > 2.5 * student  # it would show


def numbers(held):
    """How many numbers the tensors of a nested structure hold."""
    if isinstance(held, torch.Tensor):
        return held.numel()
    values = held.values() if isinstance(held, dict) else held if isinstance(held, (list, tuple)) else ()
    return sum(map(numbers, values))


@pytest.mark.parametrize("strategy", [DDP, FSDP2, *ZERO])
def test_a_rank_holds_its_share_of_the_teacher(ran, strategy):
    whole = sum(p.numel() for p in tiny.teacher().parameters())
    for name in ("forward_kl", "paths"):
        for rank in (0, 1):
            share = facts(ran(strategy), name, rank)["teacher"] / whole
            assert math.isclose(share, 0.5 if strategy in SHARDED else 1.0, abs_tol=0.01)


@pytest.mark.parametrize("strategy", OTHERS)
def test_launches_and_trials_in_one_process_do_not_disturb_each_other(ran, strategy):
    mine, theirs = facts(ran(strategy), "again"), facts(ran("one"), "again")
    for losses in mine["losses"]:  # the second with activation checkpointing
        assert losses == pytest.approx(theirs["losses"][0], rel=1e-5)
    if strategy not in ("zero2", "zero3"):
        assert len(set(mine["searched"])) == 2
    if strategy != "accumulation":
        assert facts(ran(strategy), "again", 1)["searched"] == mine["searched"]


@pytest.mark.parametrize("strategy", OTHERS)
def test_a_student_learns_to_be_quantised(ran, strategy):
    """The first step is that of one process; later the last digit of a weight may decide between two integers."""
    pytest.importorskip("torchao", reason='needs pip install -e ".[torchao]"')
    mine, theirs = facts(ran(strategy), "quantized"), facts(ran("one"), "quantized")
    if strategy == "zero3":
        assert "use ZeRO-2 or FSDP2" in mine["refused"]
        return
    for name in ("losses", "norms"):
        assert mine[name][0] == pytest.approx(theirs[name][0], rel=1e-5)
    assert mine["resumed"] == pytest.approx(mine["losses"], rel=1e-5)
    final, predicted = ran(strategy) / "quantized" / "final", load_file(ran(strategy) / "quantized/logits.safetensors")
    for folder in (final, final / "quantized"):
        loaded = AutoModelForSequenceClassification.from_pretrained(folder)
        near = float((predictions(loaded) - predicted["logits"]).abs().max())
        assert (near < 1e-5) == (folder != final)


@pytest.mark.parametrize("strategy", OTHERS)
def test_trls_trainer_is_exact_too(ran, strategy):
    pytest.importorskip("trl", reason='needs pip install -e ".[trl]"')
    mine, theirs = facts(ran(strategy), "sft"), facts(ran("one"), "sft")
    assert len(mine["loss"]) == 8
    for name in ("loss", "grad_norm"):
        assert mine[name] == pytest.approx(theirs[name], rel=1e-5)
    assert mine["num_tokens"] == theirs["num_tokens"]


@pytest.mark.slow
def test_tensor_parallel_ranks_share_their_rows_and_equal_one_process(ran):
    mine, theirs = facts(ran("tensor"), "split"), facts(ran("one"), "split")
    assert mine["world_size"] == 2
    assert mine["student"] < 0.7 * theirs["student"]  # what is split; norms and projections are on both
    assert mine["losses"] == pytest.approx(theirs["losses"], rel=1e-5)
    assert mine["norms"] == pytest.approx(theirs["norms"], rel=1e-5)
    final = ran("tensor") / "split" / "final"
    student, info = AutoModelForCausalLM.from_pretrained(final, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    wanted = AutoModelForCausalLM.from_pretrained(ran("one") / "split" / "final").state_dict()
    for name, value in student.state_dict().items():
        assert torch.allclose(value, wanted[name], atol=1e-3)  # Adam makes noise of gradients that are truly zero


@pytest.mark.parametrize("strategy", [ONE, *OTHERS])
def test_what_is_sharded_can_be_made_whole_again(ran, strategy):
    for rank in range(1 if strategy in ("one", "accumulation") else 2):
        assert facts(ran(strategy), "paths", rank)["whole"] == [True, True]


def keys(path):
    with safe_open(path, "pt") as file:
        return set(file.keys())


def predictions(model):
    rows = [{k: v for k, v in row.items() if k != "labels"} for row in tiny.rows(8, seed=9)]
    with torch.no_grad():
        return model.eval()(**DataCollatorWithPadding(tiny.tokenizer())(rows)).logits


@pytest.mark.parametrize("kind", ["llama", "t5"])
@pytest.mark.parametrize("strategy", OTHERS)
def test_students_and_teachers_write_the_same_texts(ran, strategy, kind):
    if (strategy, kind) == ("fsdp2", "t5"):
        assert "encoder-decoder models under FSDP" in (ran(strategy) / "t5-refused").read_text()
        return
    one, name = ran("one"), f"rollout-{kind}"
    wanted, found = facts(one, name), facts(ran(strategy), name)
    assert found["world_size"] == (1 if strategy == "accumulation" else 2)
    assert found["parts"] == pytest.approx(wanted["parts"], rel=1e-5)
    assert found["losses"] == pytest.approx(wanted["losses"], rel=1e-5)
    for share in ("student", "teacher", "tokens"):
        assert found[share] == pytest.approx(wanted[share])
    before = {"llama": tiny_language.llama, "t5": tiny_language.t5}[kind]().state_dict()
    changes = []
    for folder in (one, ran(strategy)):
        after = load_file(folder / name / "step.safetensors")
        changes.append({key: value - before[key] for key, value in after.items()})
    keys = changes[0].keys() & changes[1].keys()  # tied weights are saved once, under a name of the strategy's choice
    assert len(keys) > 5
    assert tiny.relative(*({key: change[key] for key in keys} for change in reversed(changes))) < 1e-4
    assert sum(found["texts"].values()) == sum(wanted["texts"].values()) == 6  # ranks write no text twice
