"""A function that PyTorch's compiler may turn into a few kernels, and that runs as it is where it cannot.

Knows: the compiler and how it fails. Does not know: losses, heads, chunks.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch

logger = logging.getLogger(__name__)


class Compiled:
    """A function, compiled when it is first wanted so; one that cannot be compiled is never tried again.

    Compiled code may first be made when a gradient is taken, so what is given is not called but handed to ``use``,
    which does all of it.

    Args:
        function: what is compiled.

    Example:
        >>> twice = Compiled(lambda x: 2 * x)
        >>> twice.as_it_is(lambda function, x: function(x) + 1, torch.tensor(3))
        tensor(7)
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.broken = function, False

    @functools.cached_property
    def made(self) -> Callable[..., Any]:
        """The function, to be compiled for what it is called with."""
        return torch.compile(self.function)

    def as_it_is(self, use: Callable[..., Any], *args: Any) -> Any:
        """Return ``use(function, *args)``.

        Args:
            use: takes the function, and its arguments.
            *args: the arguments.
        """
        return use(self.function, *args)

    def __call__(self, use: Callable[..., Any], *args: Any) -> Any:
        """Return ``use(function, *args)`` with the compiled function, if it can be made.

        Args:
            use: takes the function, and its arguments; it is called twice where the compiler fails.
            *args: the arguments.
        """
        from torch._dynamo.exc import TorchDynamoException  # of every fault of the compiler; it is slow to import

        if not self.broken:
            try:
                return use(self.made, *args)
            except TorchDynamoException as error:
                self.broken = True
                logger.warning(
                    "the losses of a large vocabulary are computed without PyTorch's compiler, which is slower: %s",
                    str(error).strip().split("\n")[0],
                )
        return self.as_it_is(use, *args)
