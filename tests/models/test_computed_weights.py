"""Weights that a module computes from others: saved as its class has them, and resumed as they were."""

import pytest
import tiny
import tiny_images
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import parametrize, prune
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification, default_data_collator

from hf_distill.models.computed_weights import computed_weights, split_state
from hf_distill.training.checkpoint import MASKS, CheckpointMixin


def masked(seed=0):
    """A student that a user has pruned at random: what is under its masks is not zero."""
    student = tiny.bert(hidden_dropout_prob=0.1)
    torch.manual_seed(seed)
    for layer in (student.bert.encoder.layer[0].intermediate.dense, student.classifier):
        prune.random_unstructured(layer, "weight", 0.5)
    prune.l1_unstructured(student.classifier, "bias", 1)
    return student


def trainer(folder, student, **args):
    args = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "weight_decay": 0.1, **args}
    return tiny.trainer(
        folder, student, tiny.rows(64), teacher_model=tiny.teacher(), args=args, objective={"hidden_mse": {}},
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = trainer(tmp_path_factory.mktemp("whole"), masked(), optim="adafactor")
    run.train()
    run.save_model()
    return run


@pytest.mark.parametrize("folder", [".", "checkpoint-6"])
def test_every_folder_is_read_as_it_is(whole, folder):
    path = f"{whole.args.output_dir}/{folder}"
    loaded, told = AutoModelForSequenceClassification.from_pretrained(path, output_loading_info=True)
    assert not any(told.values())
    batch = whole.data_collator(tiny.rows(4))
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, whole.model.eval()(**batch).logits)
    inside = loaded.bert.encoder.layer[0].intermediate.dense.weight
    assert 2 * int(inside.count_nonzero()) == inside.numel()
    assert prune.is_pruned(whole.model)


def test_a_resumed_run_is_bit_equal_under_the_masks_too(tmp_path, whole):
    again = trainer(tmp_path, masked(seed=1), optim="adafactor")  # the masks are the checkpoint's
    again.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-2")
    assert tiny.losses(again) == tiny.losses(whole)
    ours, theirs = again.model.state_dict(), whole.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_other_masks_than_the_checkpoints_are_refused(tmp_path, whole):
    plain = trainer(tmp_path, tiny.bert())
    with pytest.raises(ValueError, match=r"the student has 0 parts of masked weights, .* holds 6"):
        plain.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-2")
    plain.train()
    with pytest.raises(ValueError, match=r"the student has 6 parts of masked weights, .* holds 0"):
        trainer(tmp_path, masked()).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_the_best_model_comes_with_its_masks(tmp_path):
    student = masked()
    run = tiny.trainer(
        tmp_path, student, tiny.rows(16), teacher_model=tiny.teacher(), eval_dataset=tiny.rows(8, seed=9),
        args=dict(
            max_steps=4, save_steps=2, eval_steps=2, save_strategy="steps", eval_strategy="steps", learning_rate=0.5,
            load_best_model_at_end=True,
        ),
    )  # fmt: skip
    run.train()
    parts = load_file(f"{run.state.best_model_checkpoint}/{MASKS}")
    assert all(torch.equal(run.model.state_dict()[name], value) for name, value in parts.items())
    assert run.evaluate()["eval_loss"] == pytest.approx(run.state.best_metric, rel=1e-6)


def test_a_class_whose_files_have_other_names(tmp_path):
    def vit():
        student = tiny_images.vit()
        prune.l1_unstructured(student.vit.layers[0].mlp.fc1, "weight", 0.5)
        return student

    def run(folder):
        args = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
        parts = {"data_collator": default_data_collator, "teacher_model": tiny_images.vit(seed=1)}
        return tiny.trainer(folder, vit(), tiny_images.images(8), args=args, **parts)

    first, again = run(tmp_path / "a"), run(tmp_path / "b")
    first.train()
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    theirs = first.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in again.model.state_dict().items())
    told = AutoModelForImageClassification.from_pretrained(tmp_path / "a" / "checkpoint-4", output_loading_info=True)[
        1
    ]
    assert not any(told.values())


class Sharded:
    """What FSDP leaves of a Trainer when it has been made."""

    is_fsdp_enabled, is_deepspeed_enabled = True, False

    def __init__(self, model):
        self.model = model


def test_ranks_that_have_pieces_of_weights_are_refused():
    run = type("Run", (CheckpointMixin, Sharded), {})
    with pytest.raises(ValueError, match=r"dense.weight from others .*FSDP and DeepSpeed would spread .* with DDP"):
        run(masked())
    assert run(tiny.bert()).model is not None


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


def test_a_parametrized_weight_is_saved_as_what_it_is_and_one_of_the_class_is_not_touched(tmp_path):
    student = tiny.bert()
    parametrize.register_parametrization(student.classifier, "weight", Halved())
    assert list(computed_weights(student)) == ["classifier.weight"]
    run = trainer(tmp_path, student, max_steps=2)
    run.train()
    run.save_model()
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded.classifier.weight, student.classifier.weight)
    assert parametrize.is_parametrized(student.classifier)

    from transformers import Wav2Vec2Config, Wav2Vec2Model

    sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, conv_dim=(8,))
    shapes = dict(conv_kernel=(3,), conv_stride=(2,), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2)
    own = Wav2Vec2Model(Wav2Vec2Config(**sizes, **shapes, num_feat_extract_layers=1))
    assert any(parametrize.is_parametrized(module) for module in own.modules())
    assert computed_weights(own) == {}
    assert split_state(own, own.state_dict())[1] == {}
