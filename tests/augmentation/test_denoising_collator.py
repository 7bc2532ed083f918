"""Noise, times and dropped conditions are drawn by the collator: they hang on a row and an epoch alone."""

import pickle

import pytest
import tiny_denoisers as tiny_d
import torch

from hf_distill import DenoisingCollator

CLASSES = {"conditions": {"class_labels": "label"}, "nothing": {"class_labels": 3}, "drop": 0.5}


def collator(scheduler=None, model=None, **options):
    return DenoisingCollator(model or tiny_d.dit(), scheduler or tiny_d.ddpm(), **{**CLASSES, **options})


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction", "sample"])
def test_noise_and_target_are_the_schedulers_own(predicts):
    scheduler = tiny_d.ddpm(predicts)
    rows = tiny_d.latents()
    batch = collator(scheduler)(rows)
    clean, times = torch.stack([row["latents"] for row in rows]), batch["timestep"]
    kept = scheduler.alphas_cumprod[times].view(-1, 1, 1, 1)
    noise = (batch["hidden_states"] - kept.sqrt() * clean) / (1 - kept).sqrt()
    wanted = {"epsilon": noise, "sample": clean, "v_prediction": scheduler.get_velocity(clean, noise, times)}[predicts]
    torch.testing.assert_close(scheduler.add_noise(clean, noise, times), batch["hidden_states"])
    torch.testing.assert_close(batch["target"], wanted, rtol=1e-3, atol=1e-3)
    assert len(set(times.tolist())) > 2


@pytest.mark.parametrize("times", ["uniform", "logit_normal"])
def test_a_flow_goes_straight_from_the_latents_to_noise(times):
    rows = tiny_d.latents(64)
    batch = collator(tiny_d.flow(shift=3.0), times=times)(rows)
    clean, share = torch.stack([row["latents"] for row in rows]), batch["timestep"].view(-1, 1, 1, 1) / 1000
    torch.testing.assert_close(batch["hidden_states"], clean + share * batch["target"], rtol=1e-4, atol=1e-4)
    assert 0 < share.min() < share.max() < 1
    assert share.mean() > 0.6  # shifted towards noise


def test_a_row_has_its_own_noise_in_whatever_company_and_epoch_after_epoch_another():
    rows, training = tiny_d.latents(), collator().for_training()
    batch = training(rows)
    alone = [training([row]) for row in reversed(rows)]
    assert equal(batch, {name: torch.cat([one[name] for one in reversed(alone)]) for name in batch})
    training.epoch = 1
    again = training(rows)
    assert not any(torch.equal(*pair) for pair in zip(batch["target"], again["target"], strict=True))
    assert not torch.equal(collator(seed=1).for_training()(rows)["target"], batch["target"])
    assert equal(pickle.loads(pickle.dumps(training))(rows), again)  # in a worker


def test_k_noises_recur():
    rows, training, seen = tiny_d.latents(), collator(recurring=3).for_training(), []
    for epoch in range(6):
        training.epoch = epoch
        seen.append(training(rows))
    assert all(equal(*pair) for pair in zip(seen[:3], seen[3:], strict=True))
    assert not torch.equal(seen[0]["target"], seen[1]["target"])


def test_an_evaluation_has_one_noise_a_row_and_drops_nothing():
    rows, one = tiny_d.latents(), collator()
    first = one(rows)
    one.epoch = 5
    assert equal(one(rows), first)
    assert not torch.equal(one.for_training()(rows)["target"], first["target"])
    assert first["class_labels"].tolist() == [row["label"] for row in rows]


def test_dropping_conditions_changes_nothing_else():
    rows = tiny_d.latents(64)
    kept, dropped = (collator(drop=share).for_training()(rows) for share in (0.0, 0.3))
    gone = dropped["class_labels"] == 3
    assert 0.1 < gone.float().mean() < 0.5
    assert torch.equal(kept["class_labels"][~gone], dropped["class_labels"][~gone])
    assert all(torch.equal(kept[name], dropped[name]) for name in ("hidden_states", "timestep", "target"))


def test_embeddings_of_prompts_are_replaced_by_those_of_none_all_at_once():
    rows = [
        {"latents": row["latents"], "prompt": torch.ones(3, 8), "pooled": torch.ones(5)} for row in tiny_d.latents(32)
    ]
    names = {"encoder_hidden_states": "prompt", "added_cond_kwargs.text_embeds": "pooled"}
    nothing = {"encoder_hidden_states": torch.full((3, 8), 2.0), "added_cond_kwargs.text_embeds": torch.zeros(5)}
    batch = collator(conditions=names, nothing=nothing).for_training()(rows)
    gone = (batch["encoder_hidden_states"] == 2).all(dim=(1, 2))
    assert 0 < gone.sum() < 32
    assert torch.equal(batch["added_cond_kwargs"]["text_embeds"], (~gone).float().unsqueeze(1).expand(-1, 5))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"teacher_scheduler": tiny_d.ddpm("v_prediction")}, "prediction_type=epsilon, the teacher's v_prediction"),
        ({"teacher_scheduler": tiny_d.flow()}, "prediction_type=epsilon, the teacher's flow, so the same output"),
        ({"teacher_scheduler": tiny_d.ddpm(steps=30)}, "has 20 timesteps, the teacher's 30"),
        ({"teacher_scheduler": tiny_d.ddpm(beta_schedule="squaredcos_cap_v2")}, "how much noise a timestep means"),
        ({"scheduler": "ddpm"}, r"a str was given as scheduler, .* \(pip install .hf_distill.diffusers.."),
        ({"times": "logit_normal"}, "times='logit_normal' was given: use uniform, or"),
        ({"nothing": {}}, r"drop=0.5 was given without nothing=: say what stands"),
        ({"nothing": {"prompt": 1}}, "nothing was given for prompt, which is no condition"),
        ({"drop": 1.0}, "drop=1.0 was given: give the share of rows"),
        ({"recurring": 0}, "recurring=0 was given: give how many noises a row has"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_sentence(options, told):
    with pytest.raises(ValueError, match=told):
        collator(**options)


@pytest.mark.parametrize(
    ("rows", "model", "told"),
    [
        ([{"pixels": torch.zeros(1, 4, 4)}], "dit", r"row 0 of a batch has no 'latents', only \['pixels'\]"),
        (tiny_d.latents(1) + tiny_d.latents(1, size=6), "dit", r"shapes \[1, 4, 4\], \[1, 6, 6\] are in one batch"),
        (tiny_d.latents(2, channels=4), "dit", r"shape \[4, 4, 4\] were given to DiT.* reads 1 channels and not 4"),
        (tiny_d.latents(2, size=5), "dit", r"shape \[1, 5, 5\] .* multiples of 2"),
        (tiny_d.latents(2, size=3), "unet", r"shape \[1, 3, 3\] were given to UNet2DModel.* multiples of 2"),
        ([{"latents": torch.zeros(4, 4), "label": 0}], "dit", r"shape \[4, 4\] .* which reads channels, height"),
    ],
)
def test_rows_that_cannot_be_are_refused_in_one_sentence(rows, model, told):
    with pytest.raises(ValueError, match=told):
        collator(model=getattr(tiny_d, model)())(rows)


def test_a_model_that_reads_no_latents_is_refused():
    with pytest.raises(TypeError, match="a Linear was given, whose forward takes input: give a denoiser"):
        collator(model=torch.nn.Linear(1, 1))


def test_without_a_teacher_no_noise_recurs():
    rows, training = tiny_d.latents(), collator(recurring=1).for_training(taught=False)
    first = training(rows)
    training.epoch = 1
    assert not torch.equal(training(rows)["target"], first["target"])
