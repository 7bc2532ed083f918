"""A distribution at each position, and a target for some of them: what taggers and language models share.

Knows: labels that go with positions, how their losses are summed. Does not know: what a class means, two models at
once, objectives, teachers' whereabouts, trainers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from hf_distill.models.classes import own_loss_of
from hf_distill.models.outputs import core_of, logits_in
from hf_distill.signals import DenseLogits, Head, HeadSpec, Signals, Sum
from hf_distill.tasks.prompts import virtual_tokens
from hf_distill.tasks.supervision import supervised
from hf_distill.tasks.task import Task


class EachPosition(Task):
    """A distribution at each position; a subclass says what each of them should predict.

    Args:
        own_loss: the model computes a loss of its own that this class does not know.

    Attributes:
        classes: the names of the transformers classes that it reads.
        suffix: how the names of others end that it reads too; None: there are none.
        hidden: how the names of the outputs begin that hold its hidden states.
    """

    of_text: ClassVar[bool] = True
    classes: ClassVar[frozenset[str]]
    suffix: ClassVar[str | None] = None
    hidden: ClassVar[str] = ""

    def __init__(self, own_loss: bool = False) -> None:
        self.own_loss = own_loss

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """One head, a distribution at each position."""
        return (HeadSpec("logits", per_position=True),)

    @classmethod
    def from_model(cls, model: nn.Module) -> EachPosition | None:
        """Return the task for a model of these classes, None for any other; see ``Task.from_model``."""
        own = own_loss_of(model, cls.classes, cls.suffix)
        return None if own is None else cls(own_loss=own)

    @abstractmethod
    def targets(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Say what each position of the logits should predict.

        Args:
            batch: the batch.

        Returns:
            Token ids [B, T], -100 where nothing is asked for; None where the batch has no labels.
        """

    def labels(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Positions whose target is known and is not what the student wrote; see ``Task.labels``."""
        targets = self.targets(supervised(batch))
        return None if targets is None else targets != -100

    def hard(self, outputs: Any, batch: Mapping[str, Any], shown: Signals | None = None) -> Sum | None:
        """Sum the cross-entropy over the positions whose target is known; see ``Task.hard``."""
        if self.own_loss:
            return None
        targets = self.targets(supervised(batch))
        logits, counted = self._logits(outputs, batch, "the student"), targets != -100
        loss = F.cross_entropy(logits[counted].float(), targets[counted], reduction="sum")
        return Sum(loss, counted.sum())

    def signals(self, model: nn.Module, batch: Mapping[str, Any], outputs: Any, captured: Any = None) -> Signals:
        """Read logits, and the decoder's hidden states and attention maps if they are there; see ``Task.signals``."""
        name = "the teacher" if model is None else type(core_of(model)).__name__  # a function has no model
        layout, prefix = self.layout(batch), self.hidden
        rows = layout.rows
        shown = outputs if isinstance(outputs, Mapping) else {}
        if captured is not None and captured.linear:
            logits = captured.linear[-1].last(rows.shape[1])
        else:
            logits = DenseLogits(self._logits(outputs, batch, name, virtual_tokens(model)))
        return Signals(
            heads={
                "logits": Head(logits, rows, self.targets(supervised(batch)), written=self.targets(batch)),
            },
            hidden=tuple(shown.get(f"{prefix}hidden_states") or ()),
            attention=tuple(shown.get(f"{prefix}attentions") or ()),
            mask=layout.mask,
        )

    def _logits(self, outputs: Any, batch: Mapping[str, Any], name: str, prompt: int | None = None) -> Tensor:
        """Find the logits of the text, behind a ``prompt`` of so many vectors that PEFT puts before it; None: any."""
        logits, rows = logits_in(outputs, name), self.layout(batch).rows
        before = logits.shape[1] - rows.shape[1] if logits.ndim == 3 else 0
        if before > 0 and prompt is not None and before != prompt:
            raise ValueError(
                f"{name} gave logits for {logits.shape[1]} positions, the batch has {rows.shape[1]}: "
                f"{type(self).__name__} needs one distribution for each token."
            )
        return logits[:, -rows.shape[1] :]  # the prompt has no target
