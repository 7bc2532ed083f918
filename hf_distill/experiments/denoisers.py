"""Denoisers of a recipe: a teacher and a student of diffusers, given by path or made here, and their scheduler.

Knows: classes of diffusers, shapes of DiT. Does not know: data sets, training, what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hf_distill.experiments.models import ModelArguments, ModelKind
from hf_distill.models.denoisers import load_diffusers_model
from hf_distill.students.layers import PRESETS

MISSING = 'this recipe needs diffusers, which is not installed: pip install "hf_distill[diffusers]".'
PATCH, HEAD = 2, 16


@dataclass
class DenoiserArguments(ModelArguments):
    """Which denoisers, and how large those are that are made here: diffusion transformers (DiT) with a class."""

    teacher_layers: int = field(default=6, metadata={"help": "Blocks of a teacher that is trained from nothing."})
    teacher_hidden_size: int = field(default=64, metadata={"help": "Its width, in heads of 16."})
    teacher_epochs: float = field(default=160.0, metadata={"help": "Epochs of training or fine-tuning the teacher."})
    teacher_learning_rate: float = field(default=2e-3, metadata={"help": "Its peak learning rate."})
    student_layers: int = field(
        default=2, metadata={"help": "Blocks that stay of the teacher's; of a UNet layers in each of its stages."}
    )
    student_hidden_size: int = field(default=64, metadata={"help": "Width of a student that is made from nothing."})
    student_from_teacher: bool = field(default=True, metadata={"help": "Copy the student's blocks from the teacher."})
    timesteps: int = field(default=100, metadata={"help": "Timesteps of a scheduler that is made here."})
    prediction: str = field(
        default="epsilon", metadata={"help": "What a teacher made here predicts: epsilon, v_prediction or flow."}
    )
    noises: int | None = field(
        default=4,
        metadata={
            "help": "So many noises of an image recur under the teacher, whose answers are kept. null in a file: "
            "always new ones, as the student alone has."
        },
    )
    drop: float = field(default=0.0, metadata={"help": "The share of rows whose class is dropped."})
    samples: int = field(default=1000, metadata={"help": "So many samples of each model are measured."})
    sampling_steps: int = field(default=20, metadata={"help": "In so many steps each."})

    def check(self) -> None:
        """Refuse settings that contradict each other; see the base."""
        if self.student_parameters is not None:
            raise ValueError(
                f"student_parameters={self.student_parameters:g} was given, and of a denoiser only blocks are left "
                "out: give --student_layers."
            )
        if self.lora_rank:
            raise ValueError(
                f"lora_rank={self.lora_rank} was given, which this recipe does not train: leave it out, or pass a "
                "PEFT model to DistillationTrainer in a script of your own."
            )
        if self.prediction not in ("epsilon", "v_prediction", "flow"):
            raise ValueError(f"prediction={self.prediction} was given: use epsilon, v_prediction or flow.")
        if self.samples < 40 or self.sampling_steps < 1:
            raise ValueError(
                f"samples={self.samples} and sampling_steps={self.sampling_steps} were given: give 40 and 1 at least."
            )
        super().check()

    def check_width(self, name: str) -> None:
        """Refuse a width that heads of 16 do not divide; see the base."""
        if (width := getattr(self, name)) < HEAD or width % HEAD:
            raise ValueError(f"{name}={width} was given: give a multiple of {HEAD}.")

    def _check_layers(self) -> None:
        if self.student_preset not in PRESETS:
            raise ValueError(f"student_preset={self.student_preset} was given: use {', '.join(PRESETS)}.")
        if self.teacher_model_name_or_path is None and self.student_layers > self.teacher_layers:
            raise ValueError(
                f"student_layers={self.student_layers} of the teacher's were asked for, and it has "
                f"{self.teacher_layers}: ask for 1 to {self.teacher_layers}."
            )


class Denoisers:
    """Loads and builds denoisers as an ``AutoModel`` of transformers does its models."""

    @staticmethod
    def from_pretrained(path: str | Path, dtype: torch.dtype | None = None) -> nn.Module:
        """Load one.

        Args:
            path: a folder or an id.
            dtype: of its weights; None: as they are.
        """
        model = load_diffusers_model(path, f"the model {path}")
        return model if dtype is None else model.to(dtype)

    @staticmethod
    def from_config(config: dict[str, Any]) -> nn.Module:
        """Build one.

        Args:
            config: with the name of its class under ``_class_name``.
        """
        import diffusers

        given = {name: value for name, value in config.items() if not name.startswith("_")}
        return getattr(diffusers, config["_class_name"])(**given)


class DenoiserKind(ModelKind):
    """What both models are for, as ``ModelKind``; their configurations are mappings.

    Args:
        size: of the images: channels, height, width.
        classes: how many there are.
    """

    def __init__(self, size: tuple[int, int, int], classes: int) -> None:
        super().__init__(Denoisers, "", blank=self._blank, small=self._small)
        self.size, self.classes = size, classes

    def labelled(self, config: Any) -> Any:
        """Leave a configuration as it is: classes have no names there."""
        return config

    def load(self, source: str | Path) -> nn.Module:
        """Load a model that will be trained, in float32."""
        return Denoisers.from_pretrained(source, torch.float32)

    def empty(self, source: str) -> nn.Module:
        """Load a model whose kind is asked for."""
        return Denoisers.from_pretrained(source)

    def kept(self, source: str | Path) -> nn.Module:
        """Load a model that is finished."""
        model = Denoisers.from_pretrained(source)
        model.register_to_config(_name_or_path="")  # on a card, its class says more than a folder's name
        return model

    def example(self, recipe: DenoiserArguments) -> nn.Module:
        """Return a model of the kind, which says how latents are read; it is not trained."""
        path = recipe.student_model_name_or_path or recipe.teacher_model_name_or_path
        return Denoisers.from_pretrained(path) if path else Denoisers.from_config(self._blank(recipe, None))

    def _blank(self, recipe: DenoiserArguments, processor: Any) -> dict[str, Any]:
        return self._dit(recipe.teacher_hidden_size, recipe.teacher_layers)

    def _small(self, recipe: DenoiserArguments, shape: Any) -> dict[str, Any]:
        if type(shape).__name__ != "DiTTransformer2DModel":
            raise ValueError(
                f"a student is made here of a DiT teacher, the teacher is {type(shape).__name__}: leave "
                "student_from_teacher on, or name a student with --student_model_name_or_path."
            )
        return self._dit(recipe.student_hidden_size, recipe.student_layers)

    def _dit(self, width: int, layers: int) -> dict[str, Any]:
        channels, height, width_of = self.size
        if height != width_of or height % PATCH:
            raise ValueError(
                f"images of {height} x {width_of} pixels were given, and models are made here for squares of an even "
                "side: resize them, or name a teacher with --teacher_model_name_or_path."
            )
        return {
            "_class_name": "DiTTransformer2DModel", "num_attention_heads": width // HEAD, "attention_head_dim": HEAD,
            "in_channels": channels, "num_layers": layers, "sample_size": height, "patch_size": PATCH,
            "num_embeds_ada_norm": self.classes, "norm_num_groups": 1,
        }  # fmt: skip


def shared_scheduler(recipe: DenoiserArguments) -> Any:
    """Return the scheduler of the given models, or one that is made here.

    Args:
        recipe: the models.

    Raises:
        ImportError: diffusers is not installed.
        ValueError: the given model has none.
    """
    try:
        import diffusers
    except ImportError as error:
        raise ImportError(MISSING) from error
    if path := recipe.teacher_model_name_or_path or recipe.student_model_name_or_path:
        for inside in ("scheduler", None):
            try:
                config = diffusers.DDPMScheduler.load_config(path, **({"subfolder": inside} if inside else {}))
            except (OSError, ValueError):
                continue
            return getattr(diffusers, config["_class_name"]).from_config(config)
        raise ValueError(f"{path} has no scheduler_config.json, which says what its model predicts: put it there.")
    if recipe.prediction == "flow":
        return diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=recipe.timesteps)
    return diffusers.DDPMScheduler(
        num_train_timesteps=recipe.timesteps, beta_schedule="squaredcos_cap_v2", prediction_type=recipe.prediction
    )


@torch.no_grad()
def sampled(
    model: nn.Module, scheduler: Any, noise: torch.Tensor, steps: int, conditions: dict[str, torch.Tensor]
) -> torch.Tensor:
    """Make images of noise, by DDIM or along the flow: nothing is drawn on the way.

    Args:
        model: a denoiser.
        scheduler: it was trained with.
        noise: [N, C, height, width].
        steps: how many.
        conditions: what the model reads beside, [N, ...].

    Returns:
        float32 [N, C, height, width], from -1 to 1.
    """
    import diffusers

    flow = "Flow" in type(scheduler).__name__
    kind = diffusers.FlowMatchEulerDiscreteScheduler if flow else diffusers.DDIMScheduler
    # Without what it says of its defaults, among which it counts all that was given without a name.
    own = kind.from_config({name: value for name, value in scheduler.config.items() if not name.startswith("_")})
    own.set_timesteps(steps)
    images = noise
    for time in own.timesteps:
        shown = model(images, timestep=time.expand(len(images)).to(images.device), **conditions).sample
        images = own.step(shown[:, : noise.shape[1]], time, images).prev_sample
    return images.float().clamp(-1, 1)


def same_noise(count: int, size: tuple[int, ...], seed: int) -> torch.Tensor:
    """Draw the noise that all models make samples of.

    Args:
        count: how many samples.
        size: of each.
        seed: of the draw.
    """
    return torch.randn(count, *size, generator=torch.Generator().manual_seed(seed))
