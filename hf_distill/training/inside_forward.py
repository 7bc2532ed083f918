"""Run something inside a student's wrapped forward, for one call.

Knows: modules and their ``forward``. Does not know: what is run there, tasks, teachers, trainers.

Why inside: DDP, FSDP and ZeRO watch what happens between entering and leaving the forward that they wrap. A trainable
projection, or a borrowed weight, that is used after it breaks them ("Expected to mark a variable ready only once").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn


@contextmanager
def run_inside_forward(
    student: nn.Module,
    after: Callable[[Any], Any],
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> Iterator[None]:
    """While open, ``student``'s forward also runs ``after`` and returns ``{"parts", "outputs"}``.

    Args:
        student: the unwrapped model; call the wrapper (DDP, a compiled module) around it, or the model itself.
        after: takes what the plain forward returned; what it returns is ``parts``. A plain dict holds both, because
            DDP rebuilds what a forward returns and a ``ModelOutput`` refuses a key that it does not know.
        autocast: makes the context in which ``after`` runs. Accelerate's own ends inside the plain forward.

    Example:
        >>> import torch
        >>> model = nn.Linear(2, 1)
        >>> with run_inside_forward(model, after=lambda outputs: outputs.shape):
        ...     model(torch.ones(3, 2))["parts"]
        torch.Size([3, 1])
        >>> model(torch.ones(3, 2)).shape
        torch.Size([3, 1])
    """
    plain, own = student.forward, "forward" in vars(student)  # accelerate keeps an instance forward too

    # A compiled student stays one graph: terms choose rows, whose number changes from batch to batch, and would be cut
    # into a dozen pieces of their own, each compiled again for new shapes.
    @torch.compiler.disable
    def listen(outputs: Any) -> Any:
        with autocast():
            return after(outputs)

    def forward(*args: Any, **kwargs: Any) -> dict[str, Any]:
        outputs = plain(*args, **kwargs)
        return {"parts": listen(outputs), "outputs": outputs}

    student.forward = forward
    try:
        yield
    finally:
        if own:
            student.forward = plain
        else:
            del student.forward
