"""Hadamard matrices: plus and minus one, and rows that are orthogonal.

Knows: two constructions and their products. Does not know: what is rotated by them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def hadamard(size: int) -> Tensor:
    """Make a Hadamard matrix by Sylvester's construction, both of Paley's with a prime, and products of the two.

    Args:
        size: how many rows; 1, 2, or a multiple of 4 that one of them reaches, as they do all usual widths of models
            (384, 768, 1024, 1152, 1280, 1408, 1664, 3584, ...).

    Returns:
        float64 [size, size] of 1 and -1, with ``H @ H.T == size * I``.

    Raises:
        ValueError: no such matrix is known here.

    Reference:
        Paley: On Orthogonal Matrices, 1933.

    Example:
        >>> hadamard(12)[:2].int().tolist()
        [[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], [-1, 1, 1, -1, 1, 1, 1, -1, -1, -1, 1, -1]]
        >>> torch.equal(hadamard(12) @ hadamard(12).T, 12.0 * torch.eye(12, dtype=torch.float64))
        True
    """
    doubled, rest = torch.ones(1, 1, dtype=torch.float64), size
    while rest > 0:
        if (base := _base(rest)) is not None:
            return torch.kron(doubled, base)
        if rest % 2:
            break
        doubled, rest = torch.kron(doubled, torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)), rest // 2
    raise ValueError(
        f"a Hadamard matrix of {size} rows was asked for, and none is known here: use features whose width is 1, 2, "
        "or a multiple of 4 such as 12, 20, 28 or 36 times a power of 2."
    )


def _base(size: int) -> Tensor | None:
    """Return the matrix of a size that is no double of another; None: there is none here."""
    if size == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    if size % 4 == 0 and _is_prime(size - 1):  # then it is 3 modulo 4
        skew = _bordered(size - 1)
        skew[1:, 0] = -1.0
        return skew + torch.eye(size, dtype=torch.float64)
    half = size // 2
    if size % 4 == 0 and half % 4 == 2 and _is_prime(half - 1):  # 1 modulo 4
        off = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
        on = torch.tensor([[1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
        return torch.kron(_bordered(half - 1), off) + torch.kron(torch.eye(half, dtype=torch.float64), on)
    return None


def _bordered(prime: int) -> Tensor:
    """Return which differences of two numbers are squares modulo a prime, below a row and beside a column of ones."""
    squares = {n * n % prime for n in range(1, prime)}
    signs = torch.tensor([0.0, *(1.0 if n in squares else -1.0 for n in range(1, prime))], dtype=torch.float64)
    numbers = torch.arange(prime)
    made = torch.ones(prime + 1, prime + 1, dtype=torch.float64)
    made[0, 0] = 0.0
    made[1:, 1:] = signs[(numbers[None, :] - numbers[:, None]) % prime]
    return made


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % n for n in range(2, int(number**0.5) + 1))
