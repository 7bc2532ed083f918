"""Where a frozen model is put; sharding itself is shown by tests/trainer/test_strategies.py on two ranks."""

from types import SimpleNamespace

import tiny
import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from hf_distill.teachers.placement import blocks_of, place


def test_what_is_placed_already_is_left_where_it_is(tmp_path):
    run = tiny.trainer(tmp_path)
    for name, value in (("hf_device_map", {"": "meta"}), ("quantization_method", "bitsandbytes")):
        model = tiny.teacher().to("meta")  # moving it anywhere would fail
        setattr(model, name, value)
        assert place(model, run.accelerator) == (model, False)
        assert {p.device.type for p in model.parameters()} == {"meta"}


def test_a_teacher_that_is_quantised_and_can_be_moved_goes_to_the_device():
    model = tiny.teacher()
    model.quantization_method = "torchao"
    away = SimpleNamespace(device=torch.device("meta"), state=SimpleNamespace())
    assert place(model, away) == (model, False)
    assert {p.device.type for p in model.parameters()} == {"meta"}


def test_a_device_map_teacher_is_asked_where_it_is(tmp_path):
    """Its weights stay on disk and come in block by block; its logits go to the student."""
    tiny.teacher().save_pretrained(tmp_path / "teacher")
    spread = type(tiny.teacher()).from_pretrained(
        tmp_path / "teacher", device_map={"bert": "cpu", "classifier": "disk"}, offload_folder=tmp_path / "offload"
    )
    assert spread.classifier.weight.device.type == "meta"
    run = tiny.trainer(tmp_path, teacher_model=spread)
    run.train()
    plain = tiny.trainer(tmp_path, teacher_model=tiny.teacher())
    plain.train()
    assert tiny.losses(run) == tiny.losses(plain)
    assert spread.classifier.weight.device.type == "meta"


def test_blocks_are_the_models_own_or_the_items_of_its_lists():
    assert {type(block).__name__ for block in blocks_of(tiny.teacher())} == {"BertLayer", "BertEmbeddings"}

    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            inner = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
            self.outer = nn.ModuleList([inner, nn.Sequential(nn.ModuleList([nn.Linear(1, 1)]))])

    assert [type(block).__name__ for block in blocks_of(Nested())] == ["Linear", "Linear", "Sequential"]


def test_a_parameter_that_is_shared_keeps_its_modules_out_of_the_blocks():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
            self.head = nn.Linear(2, 2)
            self.head.weight = self.layers[0].weight

    model = Tied()
    assert blocks_of(model) == [model.layers[1]]
    shape = T5Config(d_model=8, d_ff=8, num_layers=2, num_heads=1, d_kv=8, vocab_size=16)
    blocks = blocks_of(T5ForConditionalGeneration(shape))
    assert {type(block).__name__ for block in blocks} == {"T5Block"}
    assert len(blocks) == 4


def test_a_model_goes_to_the_trainers_device(tmp_path):
    model = tiny.teacher()
    run, collective = place(model, tiny.trainer(tmp_path).accelerator)
    assert run is model
    assert not collective
    assert model.device == torch.device("cpu")
