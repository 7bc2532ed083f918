"""What ``help()`` and editors show of a trainer that takes whatever its base takes.

Knows: signatures. Does not know: trainers, what an argument means.
"""

from __future__ import annotations

import inspect


def signature_of(mixin: type, base: type) -> inspect.Signature:
    """Return the base's parameters, then those that a mixin before it takes by keyword.

    Args:
        mixin: the class that is put first.
        base: the class that it is put before.

    Example:
        >>> class Base:
        ...     def __init__(self, model): ...
        >>> class Mixin:
        ...     def __init__(self, *args, task=None, **kwargs): ...
        >>> signature_of(Mixin, Base)
        <Signature (model, *, task=None)>
    """
    ours = [p for p in inspect.signature(mixin.__init__).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return inspect.Signature([*inspect.signature(base).parameters.values(), *ours])
