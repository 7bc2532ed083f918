"""What is asked of folders and processes before the first step."""

import logging
from types import SimpleNamespace

import pytest
import tiny

from hf_distill.training.checks import check_blocks, check_output_dir, check_parallelism


@pytest.mark.parametrize("name", ["report.json", "model.safetensors", "adapter_model.safetensors"])
def test_a_finished_run_is_not_written_over(tmp_path, name):
    check_output_dir(tmp_path, None)
    check_output_dir(tmp_path / "new", None)
    (tmp_path / name).write_text("kept")
    with pytest.raises(ValueError, match=f"finished run \\({name}\\): choose another --output_dir, or continue"):
        check_output_dir(tmp_path, None)
    check_output_dir(tmp_path, "true")
    assert (tmp_path / name).read_text() == "kept"


@pytest.mark.parametrize(
    ("gpus", "sizes", "message"),
    [
        (2, None, r"2 GPUs were found in one process \(DataParallel\).*accelerate launch or torchrun"),
        (
            1,
            {"cp_size": 2, "sp_size": 1},
            "each rank a part of each row, but the teacher reads whole rows: set cp_size",
        ),
        (1, {"cp_size": 1, "sp_size": 4}, "context or sequence parallelism was asked for"),
    ],
)
def test_a_batch_split_where_no_teacher_can_follow_is_refused(gpus, sizes, message):
    config = None if sizes is None else SimpleNamespace(**sizes)
    with pytest.raises(ValueError, match=message):
        check_parallelism(SimpleNamespace(n_gpu=gpus), SimpleNamespace(parallelism_config=config))


def test_an_objective_is_refused_without_a_teacher(tmp_path):
    with pytest.raises(ValueError, match="objective='reverse_kl' was given without a teacher to learn from: pass"):
        tiny.trainer(tmp_path, objective="reverse_kl")


@pytest.mark.parametrize(("args", "told"), [({}, 1), ({"alpha": 0.0}, 0)])
def test_an_objective_in_the_arguments_without_a_teacher_is_told_once(tmp_path, caplog, args, told):
    with caplog.at_level(logging.WARNING):
        tiny.trainer(tmp_path, args={"objective": "reverse_kl", **args})
    assert caplog.text.count("but there is no teacher: this is plain training") == told


def test_blocks_that_lend_a_part_are_not_sharded_one_by_one():
    tiny_denoisers = pytest.importorskip("tiny_denoisers")

    def run(*named):
        return SimpleNamespace(state=SimpleNamespace(fsdp_plugin=SimpleNamespace(transformer_cls_names_to_wrap=named)))

    with pytest.raises(ValueError, match="FSDP was asked to shard DiTTransformer2DModel by its BasicTransformerBlock"):
        check_blocks(tiny_denoisers.dit(), run("BasicTransformerBlock"))
    check_blocks(tiny_denoisers.dit(), run("FeedForward"))
    check_blocks(tiny_denoisers.unet(), run("BasicTransformerBlock"))


def test_a_vocoder_is_refused_under_fsdp():
    import tiny_generators

    plugin = SimpleNamespace(transformer_cls_names_to_wrap=["HifiGanResidualBlock"])
    with pytest.raises(ValueError, match=r"FSDP was asked for SpeechT5HifiGan, which .* use DDP or DeepSpeed ZeRO"):
        check_blocks(tiny_generators.hifigan(), SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin)))
    check_blocks(tiny_generators.hifigan(), SimpleNamespace(state=SimpleNamespace(fsdp_plugin=None)))
