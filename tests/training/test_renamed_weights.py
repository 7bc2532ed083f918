"""Trainer loads a checkpoint by the names of its file, which for some classes are not those of the model."""

import pytest
import tiny
import tiny_images
import torch
from transformers import default_data_collator

from hf_distill.training.renamed_weights import load_renamed


def trainer(folder, **args):
    return tiny.trainer(
        folder, tiny_images.vit(), tiny_images.images(8), teacher_model=tiny_images.vit(width=24, layers=4, seed=7),
        data_collator=default_data_collator, args={"objective": "auto", **args},
        eval_dataset=tiny_images.images(8, seed=2),
    )  # fmt: skip


def test_resumed_equals_uninterrupted(tmp_path):
    args = {"max_steps": 6, "per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 3}
    whole = trainer(tmp_path, **args)
    whole.train()
    again = trainer(tmp_path, **args)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert tiny.losses(again) == pytest.approx(tiny.losses(whole), rel=1e-6)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name


def test_the_best_model_is_the_one_that_was_best(tmp_path):
    args = {
        "max_steps": 4, "save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1,
        "load_best_model_at_end": True, "learning_rate": 1.0,
    }  # fmt: skip
    run = trainer(tmp_path, **args)
    run.train()
    best = run.state.best_model_checkpoint
    assert best.endswith("checkpoint-1")  # so large a rate only harms
    kept = type(run.model).from_pretrained(best).state_dict()
    assert all(torch.equal(run.model.state_dict()[name], weight) for name, weight in kept.items())


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    tiny_images.vit(layers=1).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="resume with the model that the checkpoint was made of"):
        load_renamed(tiny_images.vit(layers=2), tmp_path)


def test_a_module_of_the_users_own_is_left_alone(tmp_path):
    assert not load_renamed(torch.nn.Linear(1, 1), tmp_path)
