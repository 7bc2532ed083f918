"""Denoisers: how far what they make of noise is from real images, and whether it shows the class that was asked for.

Knows: samples, a small classifier of the training images whose features are compared. Does not know: data sets' files,
how a model is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Trainer, TrainerCallback

from hf_distill.experiments.denoisers import DenoiserArguments, same_noise, sampled
from hf_distill.experiments.scoring import Column, Measurement, Scoring, percent
from hf_distill.models.outputs import core_of
from hf_distill.reports.fidelity import GapClosed
from hf_distill.reports.frechet import distance_shares, frechet_distance
from hf_distill.reports.plot_samples import plot_samples

TESTED, JUDGED = 0, 1
"""Seeds of the noise of the test, and of that by which a learning rate is chosen."""
SHOWN = 20
BATCH = 250


class Features(nn.Module):
    """A small convolutional network: its last layer but one are the features that samples are compared by.

    Args:
        channels: of the images.
        side: their height and width.
        classes: how many.
    """

    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        small = -(-side // 2)
        self.body = nn.Sequential(
            nn.Conv2d(channels, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, stride=2, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(min(small, 4)), nn.Flatten(), nn.Linear(24 * min(small, 4) ** 2, 32), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(32, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images [N, C, height, width]."""
        return self.head(self.body(images))


def trained_features(images: Tensor, labels: Tensor, classes: int, epochs: int = 30) -> Features:
    """Train the classifier, from the same random state whatever was done before.

    Args:
        images: float32 [N, C, height, width], from -1 to 1.
        labels: int64 [N].
        classes: how many.
        epochs: of training.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        model = Features(images.shape[1], images.shape[2], classes)
        optimizer = torch.optim.Adam(model.parameters(), 2e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(images)).split(64):
                optimizer.zero_grad()
                noisy = images[rows] + 0.1 * torch.randn_like(images[rows])
                F.cross_entropy(model(noisy), labels[rows]).backward()
                optimizer.step()
    return model.eval().requires_grad_(False)


class GenerationScoring(Scoring):
    """The Frechet distance of samples to real images, lower is better, and how often they show their class.

    All models make as many samples, of the same noise and for the same classes, in as many steps.

    Args:
        recipe: how many samples, in how many steps.
        scheduler: of all models.
        collator: reads images.
        train: the training rows, with ``image`` and ``class``.
        classes: how many there are.
        conditioned: whether models are told the class.
    """

    score: ClassVar[str] = "fd"
    lower_is_better: ClassVar[bool] = True
    hub: ClassVar[Mapping[str, str]] = {"frechet_distance": "fd"}
    speed_rows: ClassVar[int] = 512
    unit: ClassVar[str] = "denoised"
    each: ClassVar[str] = "groups of samples"

    def __init__(
        self, recipe: DenoiserArguments, scheduler: Any, collator: Any, train: Dataset, classes: int, conditioned: bool
    ) -> None:
        self.recipe, self.scheduler, self.collator, self.train = recipe, scheduler, collator, train
        self.classes, self.conditioned = classes, conditioned
        self._features: Features | None = None
        self._tested: float | None = None
        self._real: dict[str, np.ndarray] = {}
        self._teachers: dict[str, Measurement] = {}  # the teacher makes the same samples each time

    @property
    def plotted(self) -> tuple[str, str]:
        """A share, as pictures show one: how often the class is seen, or how sure the classifier is of any."""
        if self.conditioned:
            return "class_accuracy", "samples that show their class"
        return "sureness", "how sure a classifier is of the samples' class"

    @property
    def columns(self) -> Mapping[str, Column]:
        """The distance, and of models that are told a class how often it is seen."""
        distance: dict[str, Column] = {"FD": lambda row: f"{row['fd']:.1f} ± {row['fd_error']:.1f}"}
        return distance | ({"class %": percent("class_accuracy")} if self.conditioned else {})

    def counted(self, rows: Dataset) -> str:
        """Say of what the figures are; see ``Scoring.counted``."""
        return f"{self.recipe.samples:,} samples of {self.recipe.sampling_steps} steps against {len(rows):,} images"

    def judge(self, rows: Dataset) -> TrainerCallback:
        """Return what adds ``eval_fd`` to an evaluation, of other noise than the test's.

        Args:
            rows: the validation rows.
        """
        return Judge(self, rows)

    def evaluate(self, trainers: Mapping[str, Trainer], rows: Dataset, reference: Trainer) -> dict[str, Measurement]:
        """Let all models make samples; each process makes them all. See ``Scoring.measure``."""
        if (known := self._teachers.get(rows._fingerprint)) is None:
            known = self.measurement(reference.teacher.model, rows, TESTED)
            self._teachers = {rows._fingerprint: known}
            self._tested = frechet_distance(self.real(self.train), self.real(rows))
        students = {
            name: self.measurement(trainer.accelerator.unwrap_model(trainer.model), rows, TESTED)
            for name, trainer in trainers.items()
        }
        return {"teacher": known, **students}

    def measurement(self, model: nn.Module, rows: Dataset, seed: int) -> Measurement:
        """Measure a model.

        Args:
            model: a denoiser.
            rows: real images, with their classes.
            seed: of the noise.
        """
        images, wanted = self.samples(model, seed)
        with torch.no_grad():
            seen = self.features.body(images)
            shares = self.features.head(seen).softmax(dim=1).double()
        each = {"fd": distance_shares(seen.numpy(), self.real(rows)), "sureness": shares.amax(dim=1).numpy()}
        if self.conditioned:
            each["class_accuracy"] = (shares.argmax(dim=1) == wanted).numpy().astype(np.float64)
        shown = images[:SHOWN].numpy()
        return Measurement(each, predictions=(shown[:, 0] if shown.shape[1] == 1 else shown.transpose(0, 2, 3, 1)))

    def samples(self, model: nn.Module, seed: int) -> tuple[Tensor, Tensor]:
        """Make samples, the classes in turn.

        Args:
            model: a denoiser.
            seed: of the noise.

        Returns:
            Images from -1 to 1 on the CPU, and their classes.
        """
        model, training = core_of(model), model.training
        device = next(model.parameters()).device
        size = tuple(self._images(self.train.select([0]))[0].shape)
        noise, wanted = same_noise(self.recipe.samples, size, seed), torch.arange(self.recipe.samples) % self.classes
        made, steps = [], self.recipe.sampling_steps
        model.eval()
        for some, classes in zip(noise.split(BATCH), wanted.split(BATCH), strict=True):
            told = {"class_labels": classes.to(device)} if self.conditioned else {}
            made.append(sampled(model, self.scheduler, some.to(device), steps, told).cpu())
        model.train(training)
        return torch.cat(made), wanted

    @property
    def features(self) -> Features:
        """The classifier of the training images, trained when it is first asked for."""
        if self._features is None:
            self._features = trained_features(
                self._images(self.train), torch.tensor(self.train["class"][:]), self.classes
            )
        return self._features

    def real(self, rows: Dataset) -> np.ndarray:
        """The features of real images, [N, D].

        Args:
            rows: with ``image``.
        """
        if rows._fingerprint not in self._real:
            with torch.no_grad():
                self._real[rows._fingerprint] = self.features.body(self._images(rows)).numpy()
        return self._real[rows._fingerprint]

    def summary(self, gap: GapClosed) -> str:
        """Say what the teacher gave, in the distance's own numbers."""
        share = gap.withheld
        if gap.ratio is not None:
            share = f"{100 * gap.ratio:.0f} ± {100 * gap.ratio_error:.0f} % of the gap closed"
        return (
            f"the Frechet distance is {gap.gain:.1f} ± {gap.gain_error:.1f} less than that of the student alone, the "
            f"teacher's {gap.gap:.1f} ± {gap.gap_error:.1f}: {share}"
        )

    def details(self, measurements: Mapping[str, Measurement]) -> dict[str, Any]:
        """How many samples there are, and how far real images of the training are from those of the test."""
        found = {} if self._tested is None else {"training_images_fd": self._tested}
        return {**found, "samples": self.recipe.samples, "sampling_steps": self.recipe.sampling_steps}

    def pictures(self, measurements: Mapping[str, Measurement], folder: Path) -> dict[str, str]:
        """Draw what the models make of the same noise; see ``Scoring.pictures``."""
        shown = {name: (measurement.predictions + 1) / 2 for name, measurement in measurements.items()}
        plot_samples(shown, folder / "samples.png")
        return {"samples.png": "What each model makes of the same noise"}

    def _images(self, rows: Dataset) -> Tensor:
        pictures: Sequence[Any] = rows["image"][:]
        return torch.stack([self.collator.read({"image": one}, "image", 0) for one in pictures])


class Judge(TrainerCallback):
    """Adds the Frechet distance to what an evaluation found.

    Args:
        scoring: makes and measures samples.
        rows: the validation rows.
    """

    def __init__(self, scoring: GenerationScoring, rows: Dataset) -> None:
        self.scoring, self.rows = scoring, rows

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, model: Any = None, **told: Any):
        """Measure the model at hand."""
        found = self.scoring.measurement(model, self.rows, JUDGED)
        metrics |= {f"eval_{name}": value for name, value in found.means().items()}
