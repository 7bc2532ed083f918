"""Noise as schedulers of diffusers lay it over latents, and what a denoiser is to say of the sum.

Knows: configurations of schedulers, the three things that are predicted. Does not know: models, batches, chance's
seeds; it does not import diffusers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

KINDS = ("epsilon", "v_prediction", "sample", "flow")
"""What a denoiser may predict: the noise, a velocity of diffusion, what is under the noise, a velocity of a flow."""


def predicted_by(scheduler: Any) -> str:
    """Say what the denoiser of a scheduler predicts.

    Args:
        scheduler: of diffusers.

    Raises:
        ValueError: it does not say, or something that is not known.

    Example:
        >>> from types import SimpleNamespace
        >>> predicted_by(SimpleNamespace(config={"prediction_type": "v_prediction"}))
        'v_prediction'
    """
    config, name = getattr(scheduler, "config", None), type(scheduler).__name__
    if config is None or not hasattr(config, "get"):
        raise ValueError(
            f"a {name} was given as scheduler, which has no configuration: give a scheduler of diffusers "
            '(pip install "hf_distill[diffusers]"), such as DDPMScheduler.from_pretrained(id, subfolder="scheduler").'
        )
    found = config.get("prediction_type")
    if found == "flow_prediction" or (found is None and "Flow" in name):
        found = "flow"
    if found not in KINDS:
        raise ValueError(
            f"{name} says prediction_type={found!r}, known are {', '.join(KINDS)}: give another scheduler."
        )
    return found


def check_schedulers(student: Any, teacher: Any) -> None:
    """Refuse two schedulers under which the same numbers mean different things.

    Args:
        student: of diffusers.
        teacher: likewise.

    Raises:
        ValueError: in one sentence.
    """
    ours, theirs = predicted_by(student), predicted_by(teacher)
    if ours != theirs:
        raise ValueError(
            f"the student's scheduler says prediction_type={ours}, the teacher's {theirs}, so the same output means "
            "different things: give the student the teacher's scheduler."
        )
    steps = [one.config.get("num_train_timesteps") for one in (student, teacher)]
    tables = [getattr(one, "alphas_cumprod", None) for one in (student, teacher)]
    same = steps[0] == steps[1]
    if same and ours != "flow" and all(table is not None for table in tables):
        same = torch.allclose(*(table.float().cpu() for table in tables), rtol=1e-4, atol=1e-6)
    if not same:
        raise ValueError(
            f"the student's scheduler has {steps[0]} timesteps, the teacher's {steps[1]}, and how much noise a "
            "timestep means differs: give the student the teacher's scheduler."
        )


class Noise:
    """Lays noise over latents at a time, and says what is to be predicted.

    Args:
        scheduler: of diffusers.
        times: how times are drawn, ``uniform`` or ``logit_normal``.
        scaled: whether the model reads timesteps of a flow from 0 to their number, and not from 0 to 1.

    Raises:
        ValueError: a scheduler or a way that is not known.
    """

    def __init__(self, scheduler: Any, times: str = "uniform", scaled: bool = True) -> None:
        self.predicts = predicted_by(scheduler)
        if times not in ("uniform", "logit_normal") or (times != "uniform" and self.predicts != "flow"):
            raise ValueError(f"times={times!r} was given: use uniform, or logit_normal with a scheduler of flows.")
        self.times, self.scaled = times, scaled
        config = scheduler.config
        self.steps, self.shift = int(config["num_train_timesteps"]), float(config.get("shift") or 1.0)
        table = None if self.predicts == "flow" else getattr(scheduler, "alphas_cumprod", None)
        if self.predicts != "flow" and table is None:
            raise ValueError(
                f"{type(scheduler).__name__} has no alphas_cumprod, by which latents are noised: give DDPMScheduler "
                "with the same configuration (DDPMScheduler.from_config(scheduler.config))."
            )
        self.kept = None if table is None else table.double().cpu()

    def time(self, draw: torch.Generator) -> Tensor:
        """Draw a time: the number of a timestep, or of a flow the share of noise.

        Args:
            draw: what it is drawn from.
        """
        if self.predicts != "flow":
            return torch.randint(self.steps, (), generator=draw)
        share = (
            torch.randn((), generator=draw).sigmoid() if self.times != "uniform" else torch.rand((), generator=draw)
        )
        return self.shift * share / (1 + (self.shift - 1) * share)

    def __call__(self, clean: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Lay noise over latents.

        Args:
            clean: [B, C, height, width].
            noise: likewise, of variance 1.
            times: [B], as ``time`` draws them.

        Returns:
            Noisy latents, what the model is told of the time [B], and what it is to predict.
        """
        each = (-1, *[1] * (clean.ndim - 1))
        if self.predicts == "flow":
            share = times.view(each)
            return (1 - share) * clean + share * noise, times * (self.steps if self.scaled else 1), noise - clean
        kept = self.kept[times].view(each)
        signal, spread = kept.sqrt().float(), (1 - kept).sqrt().float()
        target = {
            "epsilon": lambda: noise,
            "sample": lambda: clean,
            "v_prediction": lambda: signal * noise - spread * clean,
        }[self.predicts]()
        return signal * clean + spread * noise, times, target
