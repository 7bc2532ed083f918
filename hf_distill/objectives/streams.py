"""Terms on what stands along a sequence of positions: which sequence, of a model that has several.

Knows: names of streams. Does not know: what is compared there, tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

from hf_distill.objectives.term import Term

TOKENS = "tokens"


class StreamTerm(Term):
    """A term on hidden states or attention maps, of the main stream or of another.

    Args:
        stream: the name of the stream that is compared, such as ``"encoder"``; None: the task's main one.

    Attributes:
        other: the stream that is compared, where it is not the main one; None: it is.

    Example:
        >>> from hf_distill.objectives.hidden import HiddenMSE
        >>> term = HiddenMSE(stream="encoder")
        >>> sorted(term.needs), term.unit
        (['hidden:encoder'], 'tokens:encoder')
        >>> term.set_streams(["encoder"])
        >>> sorted(term.needs), term.unit
        (['hidden'], 'tokens')
    """

    def __init__(self, stream: str | None = None) -> None:
        super().__init__()
        self.stream = stream
        self._follow(stream)

    def set_streams(self, names: Sequence[str]) -> None:
        """Take the main stream for what it is, also where it was named; see ``Term.set_streams``."""
        self._follow(None if self.stream == names[0] else self.stream)

    def _follow(self, other: str | None) -> None:
        """Need and count what is of this stream; of the main one what the class says."""
        self.other, kind = other, type(self)
        for name in ("needs", "unit"):
            self.__dict__.pop(name, None)
        if other is not None:
            self.needs = frozenset(f"{need}:{other}" for need in kind.needs)
            self.unit = f"{TOKENS}:{other}" if kind.unit == TOKENS else kind.unit

    def extra_repr(self) -> str:
        """Show the stream in ``print(term)``, where one was named."""
        return "" if self.stream is None else f", stream={self.stream}"
