"""Students from the layers of image models: those in stages, and those with a tensor for each layer."""

import copy

import pytest
import tiny
import tiny_images
import torch
from default_run import slow_but
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    BeitConfig,
    BeitForImageClassification,
    DeformableDetrConfig,
    DeformableDetrForObjectDetection,
    Dinov2Config,
    Dinov2ForImageClassification,
    ResNetConfig,
    RTDetrConfig,
    TextNetConfig,
    TextNetForImageClassification,
    YolosConfig,
    YolosForObjectDetection,
    default_data_collator,
)

from hf_distill.students import keep_layers, lineage
from hf_distill.students.depth import Stack, find_stacks, reshaped
from hf_distill.students.stages import counts_of

TWO = {"hidden_sizes": [8, 16], "depths": [2, 4]}
WINDOWS = {"image_size": 16, "patch_size": 2, "embed_dim": 8, "num_heads": [2, 2], "window_size": 2, "depths": [2, 4]}
PYRAMID = {
    "image_size": 32, "num_encoder_blocks": 2, "sr_ratios": [2, 1], "patch_sizes": [3, 3], "strides": [4, 2],
    "num_attention_heads": [1, 2], "mlp_ratios": [2, 2],
}  # fmt: skip
FAMILIES = {
    "resnet": {"embedding_size": 8, "layer_type": "basic", **TWO},
    "regnet": {"embedding_size": 8, "groups_width": 4, **TWO},
    "bit": {"embedding_size": 8, "num_groups": 2, **TWO},
    "convnext": {"num_stages": 2, "patch_size": 2, "drop_path_rate": 0.1, **TWO},
    "convnextv2": {"num_stages": 2, "patch_size": 2, **TWO},
    "swin": WINDOWS,
    "swinv2": WINDOWS,
    "donut-swin": WINDOWS,
    "segformer": {**PYRAMID, **TWO, "decoder_hidden_size": 8},
    "pvt": {**PYRAMID, **TWO, "patch_sizes": [4, 2], "sequence_reduction_ratios": [2, 1], "strides": [4, 2]},
    "pvt_v2": {**PYRAMID, **TWO},
    "poolformer": {**PYRAMID, **TWO, "padding": [1, 1], "mlp_ratio": 2.0},
    "focalnet": {
        "image_size": 16, "patch_size": 2, "embed_dim": 8, "focal_levels": [1, 1], "focal_windows": [3, 3], **TWO,
    },
    "hiera": {
        "image_size": [16, 16], "patch_size": [3, 3], "patch_stride": [2, 2], "patch_padding": [1, 1], "embed_dim": 8,
        "masked_unit_size": [4, 4], "num_query_pool": 1, "masked_unit_attention": [True, False], "num_heads": [1, 2],
        "depths": [2, 4],
    },
    "swiftformer": {"depths": [2, 4], "embed_dims": [8, 16], "downsamples": [True, False], "down_patch_size": 3},
    "mobilevitv2": {"image_size": 64, "n_attn_blocks": [2, 2, 4], "width_multiplier": 0.25},
}  # fmt: skip
FEW = "resnet", "convnext", "swin", "segformer"


def made(name, **more):
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, num_labels=3, **{**FAMILIES[name], **more})
    model = AutoModelForImageClassification.from_config(config).eval()
    for parameter in model.parameters():  # biases and heads too, some of which begin at 0
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def answers(model):
    generator = torch.Generator().manual_seed(1)
    size = getattr(model.config, "image_size", 32)
    size = size if isinstance(size, int) else size[0]
    with torch.no_grad():
        return model.eval()(pixel_values=torch.randn(2, 3, size, size, generator=generator)).logits


def moved(student):
    """Where each tensor of a student was in its teacher."""
    kept = student.config.distillation[0]["layers"]
    lists = {}
    for stack, layers in zip(find_stacks(student), kept, strict=True):
        lists |= {path: layers for path in stack.paths}
    for name in student.state_dict():
        path = next((path for path in lists if name.startswith(f"{path}.")), None)
        if path is None:
            yield name, name
        else:
            position, dot, rest = name[len(path) + 1 :].partition(".")
            yield name, f"{path}.{lists[path][int(position)]}{dot}{rest}"


@pytest.mark.parametrize("name", slow_but(FEW, FAMILIES))
def test_a_model_in_stages_is_cut_stage_by_stage(name, tmp_path):
    teacher = made(name).requires_grad_(False)
    before = copy.deepcopy(teacher.state_dict())
    key = find_stacks(teacher)[0].key
    depths = list(getattr(teacher.config, key))
    whole = keep_layers(teacher, None)
    assert all(torch.equal(before[key], value) for key, value in whole.state_dict().items())
    # How a convolution rounds depends on where its weights lie in memory: two copies may differ in the last digit.
    assert torch.allclose(answers(whole), answers(teacher), rtol=1e-6, atol=1e-6)

    student = keep_layers(teacher, sum(depths) // 2)
    shorter = counts_of(sum(depths) // 2, depths)
    assert getattr(student.config, key) == shorter
    assert [len(kept) for kept in student.config.distillation[0]["layers"]] == shorter
    held = student.state_dict()
    assert all(torch.equal(held[new], before[old]) for new, old in moved(student))
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    assert all(p.requires_grad for p in student.parameters())

    shown = answers(student)
    assert shown.shape == (2, 3)
    assert not torch.allclose(shown, answers(teacher), rtol=1e-3, atol=1e-3)
    student.save_pretrained(tmp_path)
    loaded, info = type(student).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert all(torch.equal(held[key], value) for key, value in loaded.state_dict().items())
    assert torch.allclose(answers(loaded), shown, rtol=1e-6, atol=1e-6)
    assert [len(dict(loaded.named_modules())[stack.paths[0]]) for stack in find_stacks(student)] == shorter


@pytest.mark.parametrize("name", slow_but(FEW, FAMILIES))
def test_a_student_in_stages_learns_from_its_teacher(name, tmp_path):
    teacher = made(name)
    student = keep_layers(teacher, len(find_stacks(teacher)))
    size = getattr(teacher.config, "image_size", 32)
    rows = tiny_images.images(4, size=size if isinstance(size, int) else size[0])
    first = copy.deepcopy(student.state_dict())
    run = tiny.trainer(
        tmp_path, student, rows, teacher_model=teacher, data_collator=default_data_collator,
        args={"objective": "auto", "max_steps": 1, "per_device_train_batch_size": 4},
    )  # fmt: skip
    assert run.train().training_loss > 0
    assert any(not torch.equal(first[key], value) for key, value in student.state_dict().items())


def kept(student):
    return student.config.distillation[0]["layers"]


def test_how_many_layers_a_stage_keeps_and_which():
    teacher = made("convnext", depths=[2, 6])
    assert kept(keep_layers(teacher, 4)) == [[0], [0, 2, 5]]
    assert kept(keep_layers(teacher, 2)) == [[0], [0]]
    assert kept(keep_layers(teacher, [2, 3])) == [[0, 1], [0, 2, 5]]
    assert kept(keep_layers(teacher, [1, 3], preset="lowest")) == [[0], [0, 1, 2]]
    assert kept(keep_layers(teacher, [1, 3], preset="top")) == [[1], [3, 4, 5]]
    assert kept(keep_layers(teacher, [[1], [0, 2, 4, 5]])) == [[1], [0, 2, 4, 5]]
    assert kept(keep_layers(teacher, [2, [1]])) == [[0, 1], [1]]
    assert lineage(keep_layers(teacher, [1, 2])) == [
        "Of `ConvNextForImageClassification` layer 0 of stage 1; layers 0 and 5 of stage 2 were kept."
    ]
    twice = keep_layers(keep_layers(teacher, [2, 3]), [1, 2])
    assert len(lineage(twice)) == 2


@pytest.mark.parametrize("name", ["resnet", "regnet", "bit", "hiera"])
def test_the_layer_that_changes_the_width_of_a_stage_stays(name):
    teacher = made(name)
    assert kept(keep_layers(teacher, [2, 2], preset="top"))[1] == [0, 3]
    with pytest.raises(ValueError, match=r"its class builds a layer by its position, and .* keep other layers"):
        keep_layers(teacher, [[0], [1, 2]])


def test_the_last_layer_of_a_stage_stays_where_it_is_of_another_kind():
    assert kept(keep_layers(made("swiftformer"), [1, 2], preset="lowest")) == [[1], [0, 3]]
    with pytest.raises(ValueError, match="its class builds a layer by its position"):
        keep_layers(made("swiftformer"), [[0], [0, 1]])


def test_layers_that_shift_their_windows_go_to_places_that_shift_them():
    teacher = made("swin", depths=[2, 6])
    chosen = kept(keep_layers(teacher, [1, 4]))[1]
    assert [layer % 2 for layer in chosen] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("layers", "match"),
    [
        (1, r"1 layers were asked of ResNet.*, whose 2 stages have \[2, 4\] layers, and no stage may vanish: ask"),
        (7, "7 layers were asked of ResNetFor.*: ask for 2 to 6"),
        ([0, 2], r"layers \[0, 2\] were asked of ResNetFor.*: give for each stage how many stay, .* such as \[1, 2\]"),
        ([1], "give for each stage"),
        ([1, 5], "give for each stage"),
        ([[], [0]], "give for each stage"),
        ([[0], [2, 0]], "give for each stage"),
        ([[0], [4]], "give for each stage"),
    ],
)  # fmt: skip
def test_stages_that_would_vanish_or_layers_that_are_not_there_are_refused(layers, match):
    with pytest.raises(ValueError, match=match):
        keep_layers(made("resnet"), layers)


def test_a_decoder_is_not_asked_of_a_model_in_stages():
    with pytest.raises(ValueError, match="decoder_layers=1 was asked of ResNetForImageClassification"):
        keep_layers(made("resnet"), 2, decoder_layers=1)


def test_a_model_whose_depths_are_derived_is_refused():
    layers = [[[3, 3], [3, 3]], [[3, 3], [3, 3]], [[3, 3]], [[3, 3]]]
    config = TextNetConfig(
        conv_layer_kernel_sizes=layers, conv_layer_strides=[[1, 2], [2, 1], [2], [2]],
        hidden_sizes=[8, 8, 8, 8, 8], stem_out_channels=8,
    )  # fmt: skip
    with pytest.raises(ValueError, match="no number in its configuration makes a list of layers longer"):
        keep_layers(TextNetForImageClassification(config), 4)


def yolos(layers=4, seed=0):
    torch.manual_seed(seed)
    config = YolosConfig(
        image_size=[16, 16], patch_size=8, hidden_size=8, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=8, num_detection_tokens=2, hidden_dropout_prob=0.0, num_labels=3,
    )  # fmt: skip
    model = YolosForObjectDetection(config).eval()
    torch.nn.init.normal_(model.vit.encoder.interpolation.mid_position_embeddings)
    return model


def test_positions_between_layers_go_with_the_layer_before_them(tmp_path):
    teacher = yolos()
    theirs = teacher.vit.encoder.interpolation.mid_position_embeddings
    assert torch.equal(looked(keep_layers(teacher, 4)), looked(teacher))
    student = keep_layers(teacher, [0, 2, 3])
    ours = student.vit.encoder.interpolation.mid_position_embeddings
    assert torch.equal(ours, theirs[[0, 2]])
    assert isinstance(ours, torch.nn.Parameter)
    student.save_pretrained(tmp_path)
    loaded, info = type(student).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(looked(loaded), looked(student))
    with pytest.raises(ValueError, match="has an entry between each two layers: keep 2 layers or more"):
        keep_layers(teacher, 1)


def looked(model):
    with torch.no_grad():
        return model.eval()(pixel_values=torch.linspace(-1, 1, 3 * 256).view(1, 3, 16, 16)).logits


@pytest.mark.parametrize(
    ("kind", "config"), [(Dinov2ForImageClassification, Dinov2Config), (BeitForImageClassification, BeitConfig)]
)
def test_a_backbone_shows_the_layers_that_it_showed(kind, config, tmp_path):
    torch.manual_seed(0)
    sizes = dict(hidden_size=8, num_hidden_layers=4, num_attention_heads=2, image_size=16, patch_size=8)
    teacher = kind(config(**sizes, num_labels=3, drop_path_rate=0.1, out_features=["stage1", "stage3"])).eval()
    student = keep_layers(teacher, [1, 2, 3])
    assert student.config.out_features == ["stem", "stage2"]  # below stage1 nothing is left
    assert keep_layers(teacher, [0, 2]).config.out_features == ["stage1", "stage2"]
    assert keep_layers(teacher, [0, 3]).config.out_features == ["stem", "stage1"]
    student.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path)
    assert loaded.config.out_indices == student.config.out_indices
    assert torch.equal(answers(loaded), answers(student))
    many = kind(config(**sizes, num_labels=3, out_features=["stem", "stage1", "stage2"]))
    with pytest.raises(ValueError, match=r"shows the outputs of 3 .* keep 3 or more"):
        keep_layers(many, 1)


def test_layers_that_name_a_place_elsewhere_stay_as_they_are():
    """RT-DETR's ``encode_proj_layers`` are levels of its backbone."""
    stack = Stack((), "decoder_layers", 6, ("model.decoder.layers",))
    student = reshaped(RTDetrConfig(decoder_layers=6, encode_proj_layers=[2]), {stack: [0, 3]})
    assert (student.decoder_layers, student.encode_proj_layers) == (2, [2])


def test_a_decoder_with_a_head_for_each_layer():
    torch.manual_seed(0)
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage1", "stage2"]
    )
    sizes = dict(encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8)
    config = DeformableDetrConfig(
        backbone_config=backbone, d_model=32, encoder_layers=2, decoder_layers=3, num_queries=4, num_labels=3,
        num_feature_levels=2, with_box_refine=True, **sizes,
    )  # fmt: skip
    teacher = DeformableDetrForObjectDetection(config).eval()
    student = keep_layers(teacher, [0], decoder_layers=[0, 2]).eval()
    assert (student.config.encoder_layers, student.config.decoder_layers) == (1, 2)
    assert torch.equal(student.class_embed[1].weight, teacher.class_embed[2].weight)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert student(pixel_values=pixels).logits.shape == teacher(pixel_values=pixels).logits.shape
