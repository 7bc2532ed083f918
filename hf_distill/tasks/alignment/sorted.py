"""Two tokenizers of which only sorted probabilities are compared, token k of one with token k of the other.

Knows: heads, which positions a task counts. Does not know: tokenizers, objectives, teachers, trainers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_distill.signals import Head, Signals
from hf_distill.tasks.alignment.tokens import Alignment, own_columns, whole_heads
from hf_distill.tasks.alignment.vocabulary import Columns


class SortedAlignment(Alignment):
    """Sorted probabilities, whatever the tokens are: what ``uld`` compares (Boizard et al., arXiv:2402.12030).

    As in the paper, the k-th predicted token of a text is compared with the teacher's k-th, as far as both have one;
    nothing sees to it that they have read the same text. ``SpanAlignment`` does. Columns that only pad a head are
    left out where the tokenizer is known. The teacher reads ``teacher_input_ids``; ``teacher_labels`` say which of its
    tokens count, where not all of them do.
    """

    objective: ClassVar[str] = "uld"
    same_classes: ClassVar[bool] = False
    same_positions: ClassVar[bool] = False

    def count(self, task: Any, batch: Mapping[str, Any]) -> Tensor:
        """Count the pairs; see ``Alignment.count``."""
        return self._pairs(task, batch)[0].sum()

    def pair(
        self,
        task: Any,
        student: Signals,
        teacher: Signals,
        batch: Mapping[str, Any],
        name: str | None = None,
    ) -> tuple[Signals, Signals]:
        """Choose the k-th positions of both; see ``Alignment.pair``."""
        made = []
        heads, chosen = whole_heads(student, teacher, "uld"), self._pairs(task, batch)
        known = self.known.get(name, (None, None))
        for shown, head, rows, vocabulary in zip((student, teacher), heads, chosen, known, strict=True):
            logits = head.logits.select(rows)
            if vocabulary is not None:
                logits = Columns(logits, own_columns(vocabulary, logits.shape[-1]).to(rows.device))
            counted = torch.ones(logits.shape[0], dtype=torch.bool, device=rows.device)
            made.append(replace(shown, heads={"logits": Head(logits, counted)}))
        return made[0], made[1]

    def _pairs(self, task: Any, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        read = task.teacher_batch(batch)
        both = task.rows(batch), task.rows(read)
        without = {name: value for name, value in batch.items() if name not in ("labels", "shift_labels")}
        if "labels" not in read and not task.reads_labels and bool((task.rows(without) & ~both[0]).any()):
            raise ValueError(
                "the student's labels leave some of its tokens out, of the teacher's all count: add a column "
                "teacher_labels, with -100 at those that do not."
            )
        rank = [rows.cumsum(dim=-1) for rows in both]
        count = torch.minimum(rank[0][:, -1:], rank[1][:, -1:])
        return both[0] & (rank[0] <= count), both[1] & (rank[1] <= count)
