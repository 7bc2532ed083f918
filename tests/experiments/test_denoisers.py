"""Samplers of a recipe: with a denoiser that knows the image, they end at that image."""

from types import SimpleNamespace

import pytest
import tiny_denoisers as tiny_d
import torch

from hf_distill.experiments.denoisers import same_noise, sampled
from hf_distill.experiments.image_generation import trained_features


def knows(images, scheduler):
    """A model that predicts the noise, or the velocity, which was laid over these images."""
    table = getattr(scheduler, "alphas_cumprod", None)

    def model(noisy, timestep, **conditions):
        if table is None:
            share = (timestep / scheduler.config.num_train_timesteps).view(-1, 1, 1, 1)
            return SimpleNamespace(sample=(noisy - images) / share)
        kept = table[timestep].view(-1, 1, 1, 1)
        return SimpleNamespace(sample=(noisy - kept.sqrt() * images) / (1 - kept).sqrt())

    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda: tiny_d.ddpm(steps=100, beta_schedule="squaredcos_cap_v2"),
        lambda: tiny_d.diffusers.DDPMScheduler(100),  # its own configuration takes the 100 for a default
        lambda: tiny_d.flow(num_train_timesteps=100),
        lambda: tiny_d.flow(shift=3.0),
    ],
)
def test_samples_end_where_the_denoiser_says(make):
    scheduler, noise = make(), same_noise(6, (1, 4, 4), 0)
    images = torch.linspace(-0.9, 0.9, 6).view(6, 1, 1, 1).expand_as(noise)
    made = sampled(knows(images, scheduler), scheduler, noise, 10, {})
    torch.testing.assert_close(made, images, rtol=0, atol=5e-3)


def test_the_classifier_is_the_same_whatever_was_drawn_before():
    images, labels = same_noise(40, (1, 8, 8), 1), torch.arange(40) % 2
    images[labels == 1, :, :4] += 3
    torch.manual_seed(1)
    first = trained_features(images, labels, 2, epochs=20)
    torch.manual_seed(2)
    with torch.no_grad():
        second = trained_features(images, labels, 2, epochs=20)
        assert torch.equal(first(images), second(images))
        assert (first(images).argmax(dim=1) == labels).float().mean() > 0.9
