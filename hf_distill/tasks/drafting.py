"""Drafting: what a draft head says of the next token, and of later ones that it drafts itself, beside its teacher.

Knows: which positions each pass of a draft predicts, that a teacher's one answer is compared with all of them. Does
not know: how a pass is made, objectives, teachers' whereabouts, trainers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hf_distill.models.facts import Facts
from hf_distill.models.outputs import core_of
from hf_distill.signals import DenseLogits, Head, HeadSpec, Signals, Sum
from hf_distill.tasks.comparing import Comparing
from hf_distill.tasks.language_modeling import CausalLM
from hf_distill.tasks.supervision import supervised

PACKED = ("position_ids", "cu_seq_lens_q", "seq_idx")
"""Columns by which rows of several texts are told."""

USAGE = """from hf_distill import DraftHead, speculate
from transformers import AutoModelForCausalLM, AutoTokenizer

teacher = AutoModelForCausalLM.from_pretrained("{teacher}")
tokenizer = AutoTokenizer.from_pretrained("{teacher}")
draft = DraftHead.from_pretrained("{repository}")
ids = tokenizer("Some text of yours.", return_tensors="pt").input_ids
print(tokenizer.decode(speculate(teacher, draft, ids).ids[0]))"""


class Drafting(CausalLM):
    """The next token at every position, as each pass of a draft predicts it.

    The head ``logits`` is the first pass, which reads the teacher's states; ``ahead_1`` the next one, which reads
    those of the first, and so on. All predict the token behind their position, so each is compared with what the
    teacher says there, and each is a row more. A pass counts from that position of a text on at which a draft can
    have come so far: the first from its second token.

    Args:
        passes: how many tokens a draft has.

    Example:
        >>> batch = {"input_ids": torch.tensor([[5, 6, 7, 8]]), "labels": torch.tensor([[5, 6, 7, 8]])}
        >>> [rows.tolist() for rows in Drafting(2).each_pass(batch)]
        [[[False, True, True, False]], [[False, False, True, False]]]
        >>> {unit: n.item() for unit, n in Drafting(2).counts(batch).items()}
        {'rows': 3, 'tokens': 4, 'samples': 1, 'labels': 3}
    """

    packs: ClassVar[bool] = False
    usage: ClassVar[str] = USAGE

    def __init__(self, passes: int = 1) -> None:
        super().__init__()
        self.passes = passes

    @classmethod
    def from_model(cls, model: nn.Module) -> Drafting | None:
        """Return the task for a draft head, None for any other model; see ``Task.from_model``."""
        passes = getattr(core_of(model), "drafts", None)
        return cls(passes) if isinstance(passes, int) else None

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """One head a pass, at each position."""
        return tuple(HeadSpec(name, per_position=True) for name in self._names)

    @property
    def _names(self) -> tuple[str, ...]:
        return ("logits", *(f"ahead_{number}" for number in range(1, self.passes)))

    def each_pass(self, batch: Mapping[str, Any]) -> list[Tensor]:
        """Say which positions count in each pass.

        Args:
            batch: the batch.

        Returns:
            bool [B, T] of each.
        """
        rows, mask, found = super().rows(batch), self.mask(batch), []
        mask = torch.ones_like(rows) if mask is None else mask
        before = mask
        for _ in range(self.passes):
            before = mask & F.pad(before[:, :-1], (1, 0), value=False)
            found.append(rows & before)
        return found

    def rows(self, batch: Mapping[str, Any]) -> Tensor:
        """Those of the first pass; see ``Task.rows``."""
        return self.each_pass(batch)[0]

    def labels(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Positions whose target is known, of each pass, bool [B, T, passes]; see ``Task.labels``."""
        known = super().labels(batch)
        return None if known is None else torch.stack([rows & known for rows in self.each_pass(batch)], dim=-1)

    def counts(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Rows are those of all passes; see ``Task.counts``."""
        return {**super().counts(batch), "rows": torch.stack(self.each_pass(batch)).sum()}

    def check(self, student: Facts, teacher: Facts) -> None:
        """Refuse a teacher of another width, of which a draft head cannot read a state; see ``Task.check``."""
        if None not in (teacher.hidden_size, student.hidden_size) and teacher.hidden_size != student.hidden_size:
            raise ValueError(
                f"the teacher {teacher.name} has states of width {teacher.hidden_size}, the draft head reads those of "
                f"width {student.hidden_size}: make it from this teacher (DraftHead.from_teacher)."
            )

    def check_inputs(self, batch: Mapping[str, Any]) -> None:
        """Refuse rows of several texts; see ``Task.check_inputs``."""
        if there := [name for name in PACKED if batch.get(name) is not None]:
            raise ValueError(
                f"the batch has {there[0]}, as packed rows do, and a draft head reads one text a row: leave out the "
                "packing (padding_free, DataCollatorWithFlattening)."
            )

    def hard(self, outputs: Any, batch: Mapping[str, Any], shown: Signals | None = None) -> Sum | None:
        """Sum the cross-entropy of all passes over the positions whose target is known; see ``Task.hard``."""
        batch = supervised(batch)
        targets, known = self.targets(batch), self.labels(batch).unbind(-1)
        totals = [
            F.cross_entropy(logits[rows].float(), targets[rows], reduction="sum")
            for logits, rows in zip(self._passes(outputs, batch), known, strict=True)
        ]
        return Sum(torch.stack(totals).sum(), torch.stack(known).sum())

    def signals(self, model: nn.Module, batch: Mapping[str, Any], outputs: Any, captured: Any = None) -> Signals:
        """Read the logits of all passes; a teacher has one, see ``align``. See ``Task.signals``."""
        shown = super().signals(model, batch, outputs, captured)
        if not hasattr(outputs, "further_logits"):
            return shown
        targets = shown.heads["logits"].labels
        passes = zip(self._names, self._passes(outputs, batch), self.each_pass(batch), strict=True)
        return replace(shown, heads={name: Head(DenseLogits(one), rows, targets) for name, one, rows in passes})

    def align(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Signals:
        """Let each pass be compared with what the teacher says at its position; see ``Task.align``."""
        whole = teacher.heads["logits"]
        heads = {name: whole._replace(rows=head.rows) for name, head in student.heads.items()}
        return Comparing.align(self, student, replace(teacher, heads=heads), batch)

    def match(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> tuple[Signals, Signals]:
        """Compare token by token: a draft head has its teacher's vocabulary; see ``Task.match``."""
        return Comparing.match(self, student, teacher, batch)

    def truths(self, student: Signals, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Nothing: a draft is right where its teacher says the same; see ``Task.truths``."""
        return {}

    def _passes(self, outputs: Any, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """The logits of each pass [B, T, V]."""
        return self._logits(outputs, batch, "the student"), *(outputs.get("further_logits") or ())
