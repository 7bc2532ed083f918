"""PHI-S: the features of teachers of different scale, brought to one scale by a rotation and one number each.

Knows: features of one teacher. Does not know: whose they are, which term compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hf_distill.objectives.hadamard import hadamard


class PhiS(nn.Module):
    """The standardisation of one teacher's features, and its inverse.

    ``y = R (x - mean) / scale`` with R = H U.T: U are the principal axes of the features, H a normalised Hadamard
    matrix, which gives every dimension the same share of each axis, and scale**2 the mean of their variances. Every
    dimension of y then has mean 0 and variance 1, and an error in y is as large an error in x in every direction,
    which is not so where each dimension is divided by its own deviation.

    It is measured once, before training, and never changes: all ranks and micro-batches see the same. It is kept in
    the checkpoints of a run with the objective, in float32 whatever the student is.

    Args:
        mean: [C].
        rotation: [C, C], orthogonal.
        scale: scalar, greater than 0.

    Reference:
        Ranzinger et al.: PHI-S: Distribution Balancing for Label-Free Multi-Teacher Distillation, arXiv:2410.01680.

    Example:
        >>> features = torch.randn(500, 4) @ torch.diag(torch.tensor([9.0, 3.0, 1.0, 0.1])) + 5.0
        >>> phi_s = PhiS.of(features)
        >>> phi_s(features).std(dim=0, correction=0).round(decimals=3)
        tensor([1., 1., 1., 1.])
        >>> torch.allclose(phi_s.inverse(phi_s(features)), features, atol=1e-4)
        True
    """

    def __init__(self, mean: Tensor, rotation: Tensor, scale: Tensor) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("rotation", rotation), ("scale", scale)):
            self.register_buffer(name, value.detach().float().clone())

    @classmethod
    def of(cls, features: Tensor | Iterable[Tensor]) -> PhiS:
        """Measure a teacher's features.

        Args:
            features: [N, C], or batches of such; some thousand rows are enough, and more than C should be.

        Returns:
            The standardisation; the same features, in whatever batches, give the same but for rounding in float64.

        Raises:
            ValueError: there are fewer than two rows, none that differ, what is not finite, or a width for which no
                Hadamard matrix is known.
        """
        count, total, products = 0, 0.0, 0.0
        for batch in [features] if isinstance(features, Tensor) else features:
            rows = batch.detach().flatten(0, -2).double().cpu()
            count, total, products = count + len(rows), total + rows.sum(dim=0), products + rows.T @ rows
        if count < 2:
            raise ValueError(
                f"PhiS.of was given {count} rows of features, of which nothing can be measured: give more."
            )
        mean = total / count
        covariance = products / count - torch.outer(mean, mean)
        scale = covariance.diagonal().mean().clamp(min=0.0).sqrt()
        if not scale > 0 or not scale.isfinite():
            raise ValueError(
                "PhiS.of was given features that are all the same, or not finite: give a teacher's, of different rows."
            )
        axes = torch.linalg.eigh(covariance).eigenvectors
        largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
        axes = axes * largest.sign()  # an axis has two directions: always the same one
        size = len(mean)
        return cls(mean, hadamard(size) @ axes.T / size**0.5, scale)

    @classmethod
    def load(cls, path: str | Path) -> PhiS:
        """Read what ``save`` wrote.

        Args:
            path: the file.

        Raises:
            ValueError: there is none, or it holds something else.
        """
        found = load_file(path) if Path(path).is_file() else {}
        if set(found) != {"mean", "rotation", "scale"}:
            raise ValueError(
                f"standardise={str(path)!r} was given, where no statistics are: write them with "
                "PhiS.of(features).save(path)."
            )
        return cls(**found)

    @classmethod
    def read(cls, given: PhiS | str | Path | None) -> PhiS | None:
        """Take what a user gave to a term: a file, or the statistics themselves; None: nothing is standardised.

        Args:
            given: as a user wrote it.
        """
        return cls.load(given) if isinstance(given, (str, Path)) else given

    def save(self, path: str | Path) -> None:
        """Write a file for ``load``, and for whoever wants the teacher's own features of what a student shows.

        Args:
            path: the file, by convention ``<teacher>.safetensors``.
        """
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, path)

    @property
    def width(self) -> int:
        """How wide the features are."""
        return len(self.mean)

    def check(self, width: int | None, name: str) -> None:
        """Refuse features of another width.

        Args:
            width: the teacher's; None: nobody knows.
            name: how a message calls the term.

        Raises:
            ValueError: it is another one.
        """
        if width not in (None, self.width):
            raise ValueError(
                f"{name} was given statistics of features of width {self.width}, the teacher's have {width}: measure "
                "this teacher, at the layer that is compared."
            )

    def forward(self, features: Tensor) -> Tensor:
        """Standardise a teacher's features.

        Args:
            features: [..., C], any floating dtype.

        Returns:
            float32 [..., C].
        """
        with torch.autocast(features.device.type, enabled=False):
            mean, rotation, scale = self._on(features)
            return (features.float() - mean) @ rotation.T / scale

    def inverse(self, standardised: Tensor) -> Tensor:
        """Give the teacher's own features back, of what a student that learned standardised ones shows.

        Args:
            standardised: [..., C], any floating dtype.

        Returns:
            float32 [..., C].
        """
        with torch.autocast(standardised.device.type, enabled=False):
            mean, rotation, scale = self._on(standardised)
            return standardised.float() * scale @ rotation + mean

    def _on(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(one.to(like.device) for one in (self.mean, self.rotation, self.scale))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PhiS:
        """Move with the student, and stay float32 where that becomes narrower."""
        exact = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, value in exact.items():
            moved = getattr(self, name)
            setattr(self, name, moved if moved.dtype == torch.float32 else value.to(moved.device))
        return self

    def extra_repr(self) -> str:
        """Show the width and the scale in ``print(term)``."""
        return f"width={self.width}, scale={float(self.scale):.3g}"
