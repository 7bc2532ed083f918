"""A token that opens doors and is in no file.

Knows: pickle, copies. Does not know: the Hub, trainers.
"""

from __future__ import annotations

from typing import Any


class Secret(str):
    """A token that works as it is and becomes None where it is pickled: Trainer saves and pushes its arguments.

    Example:
        >>> import copy, pickle
        >>> token = Secret("hf_abc")
        >>> f"Bearer {token}", copy.deepcopy(token), token, pickle.loads(pickle.dumps([token]))
        ('Bearer hf_abc', <a token>, <a token>, [None])
    """

    def __reduce_ex__(self, protocol: Any) -> tuple[type, tuple]:
        return type(None), ()

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: Any) -> Secret:
        return self

    def __repr__(self) -> str:
        return "<a token>"
