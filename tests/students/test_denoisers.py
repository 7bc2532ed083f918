"""Fewer blocks of a denoiser: the kept ones are the teacher's, and the class builds the student from its folder."""

import pytest
import tiny_denoisers as tiny_d
import torch
from torch import nn

from hf_distill import DenoisingCollator, cut_unet, keep_layers, lineage


def shown(model, scheduler=None, **conditions):
    batch = DenoisingCollator(model, scheduler or tiny_d.ddpm(), conditions=conditions)(tiny_d.latents())
    with torch.no_grad():
        return model.eval()(**{name: value for name, value in batch.items() if name != "target"}).sample


def same(ours, theirs):
    state, other = ours.state_dict(), theirs.state_dict()
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


@pytest.mark.parametrize(("layers", "kept"), [([0, 3], [0, 3]), (2, [0, 5]), (3, [0, 2, 5]), (None, [*range(6)])])
def test_blocks_of_a_transformer_are_kept(layers, kept):
    teacher = tiny_d.dit(6)
    student = keep_layers(teacher, layers)
    assert student.config.num_layers == len(student.transformer_blocks) == len(kept)
    for ours, theirs in zip(kept, student.transformer_blocks, strict=True):
        assert same(teacher.transformer_blocks[ours], theirs)
    assert same(student.pos_embed, teacher.pos_embed)
    assert not {p.data_ptr() for p in student.parameters()} & {p.data_ptr() for p in teacher.parameters()}
    # What is left out changes nothing else: the teacher without these blocks says the same.
    teacher.transformer_blocks = nn.ModuleList(teacher.transformer_blocks[number] for number in kept)
    assert torch.equal(shown(student, class_labels="label"), shown(teacher, class_labels="label"))


@pytest.mark.parametrize("pairs", [1, 2, 3])
def test_a_unet_keeps_the_first_layers_of_each_stage_and_the_last_on_the_way_up(pairs):
    teacher = tiny_d.unet(3)
    student = keep_layers(teacher, pairs)
    assert student.config.layers_per_block == pairs
    for ours, theirs in zip(student.down_blocks, teacher.down_blocks, strict=True):
        assert all(same(*both) for both in zip(ours.resnets, theirs.resnets[:pairs], strict=True))
    for ours, theirs in zip(student.up_blocks, teacher.up_blocks, strict=True):
        kept = [*theirs.resnets[:pairs], theirs.resnets[3]]
        assert all(same(*both) for both in zip(ours.resnets, kept, strict=True))
    assert same(student.mid_block, teacher.mid_block)
    assert shown(student, class_labels="label").isfinite().all()
    assert (pairs == 3) == torch.equal(shown(student, class_labels="label"), shown(teacher, class_labels="label"))


def test_a_unet_without_its_middle():
    student = cut_unet(tiny_d.unet(2), 1, mid_block=False)
    assert student.mid_block is None
    assert shown(student, class_labels="label").isfinite().all()
    assert lineage(student) == ["Of `UNet2DModel` each stage kept 1 of 2 layers, and no middle block."]


def test_how_it_was_made_is_saved_with_it(tmp_path, caplog):
    student = keep_layers(keep_layers(tiny_d.dit(6), [0, 2, 5]), [0, 2])
    student.save_pretrained(tmp_path)
    loaded = tiny_d.diffusers.AutoModel.from_pretrained(str(tmp_path))
    assert same(loaded, student)
    assert lineage(loaded)[0] == "Layers 0, 2 and 5 of `DiTTransformer2DModel` were kept."
    assert len(lineage(loaded)) == 2
    assert not caplog.records


@pytest.mark.parametrize(
    ("make", "layers", "told"),
    [
        (lambda: tiny_d.dit(2), 3, "3 layers were asked of a model with 2: ask for 1 to 2"),
        (lambda: tiny_d.dit(2), [1, 0], r"layers \[1, 0\] were asked of a model with 2"),
        (lambda: tiny_d.unet(2), 3, "3 layers a stage were asked of UNet2DModel, which has 2"),
        (lambda: tiny_d.unet(2), [0], r"layers \[0\] were asked of UNet2DModel, whose stages are cut alike"),
        (lambda: tiny_d.diffusers.AutoencoderTiny(), 1, "layers of AutoencoderTiny were asked for, which has no"),
    ],
)
def test_what_is_not_there_is_refused(make, layers, told):
    with pytest.raises(ValueError, match=told):
        keep_layers(make(), layers)


def test_a_model_of_transformers_is_not_cut_as_a_unet():
    with pytest.raises(ValueError, match="cut_unet was given a DiTTransformer2DModel: give a UNet"):
        cut_unet(tiny_d.dit())
