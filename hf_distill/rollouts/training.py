"""The part of the trainer that lets a student and a teacher write training samples, and only those.

Knows: when rows are seen before they are counted, which of them are chosen, who is asked. Does not know: where a
prompt is, how a model writes, how a loss is computed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hf_distill.models.outputs import core_of
from hf_distill.rollouts.draws import STUDENT, TEACHER, draw, places
from hf_distill.rollouts.settings import Rollout, rollout_of
from hf_distill.rollouts.writers import Writers, check_context, check_student
from hf_distill.tasks import CausalLM
from hf_distill.tasks.supervision import STUDENT_WROTE, supervised

logger = logging.getLogger(__name__)
LEFT_OUT = "rollout=%r is left out: %s."
SILENT = (
    "A row of the training set has no label and stayed as it came, so nobody learns from it: give it an answer, or "
    "raise on_policy or seq_kd; rollout/silent in the log says how many there are."
)
UNPROMPTED = (
    "A row that was to be written anew has no prompt, its labels begin with its first token, and stayed as it came: "
    "set the prompt's labels to -100; rollout/unprompted in the log says how many there are."
)
SHORTENED = (
    "A row that was written anew has several answers: a text was written in place of the first, and all that came "
    "behind it is left out; give each answer a row of its own, or set the labels of all but one to -100; "
    "rollout/shortened in the log says how many there are."
)
COUNTED = ("rows", "student", "teacher", "silent", "unprompted", "shortened", "tokens")


class RolloutMixin:
    """The part of the trainer that rewrites samples; it reads ``rollout=`` and ``args.rollout``, see ``Rollout``."""

    teacher: Any
    task: Any
    rollout: Any = None  # what was given to the trainer, before the arguments' own
    _writers: Writers | None = None
    _told: frozenset[str] = frozenset()
    _rolled: Tensor | None = None

    def rolling(self) -> Rollout | None:
        """Return what is asked; None where nothing is written anew."""
        asked = rollout_of(self.rollout if self.rollout is not None else getattr(self.args, "rollout", None))
        if asked is not None and self.teacher is None:
            self._tell(LEFT_OUT, asked, "only a teacher can speak about what is written, and there is none")
            return None
        if asked is not None and asked.on_policy and self.alpha == 0:
            self._tell(LEFT_OUT, asked, "alpha=0 hears no teacher, who alone speaks about what the student writes")
            return Rollout(**{**vars(asked), "on_policy": 0.0}) if asked.seq_kd else None
        return asked

    def prepare_rollout(self) -> None:
        """Refuse what cannot be written, and learn who the teacher is while its weights are whole.

        Raises:
            ValueError: in one sentence.
        """
        if (asked := self.rolling()) is None:
            return
        check_student(self, asked)
        if isinstance(self.task, CausalLM) and not self.task.shifts_labels:
            raise ValueError(
                f"rollout was asked for {type(core_of(self.model)).__name__}, whose labels are those of the next "
                "position, which do not say where a prompt ends: use a model that shifts its labels itself, or leave "
                "rollout out."
            )
        self._writers = Writers(self, asked)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor | int | None]:
        """Take the micro-batches of one optimizer step, and let those rows be written anew that chance names.

        Args:
            epoch_iterator: the batches of the epoch.
            num_batches: how many the step takes.
            device: the trainer's device.

        Returns:
            The batches, and Trainer's own count of labels.
        """
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if (asked := self.rolling()) is None:
            return batches, num_items
        batches = self._rewrite(asked, batches, num_batches)
        return batches, self._get_num_items_in_batch([supervised(batch) for batch in batches], device)

    def _rewrite(self, asked: Rollout, batches: Sequence[Mapping[str, Any]], turns: int) -> list[dict[str, Any]]:
        if self._writers is None or self._writers.asked != asked:  # a search may have changed what is asked
            self.prepare_rollout()
        layout, seed = self._writers.layout, self.args.seed if self.args.data_seed is None else self.args.data_seed
        for batch in batches:
            layout.check(batch)
        begins, step = self._begins(batches, turns), self.state.global_step
        chosen: dict[str, list] = {STUDENT: [], TEACHER: []}
        counts = dict.fromkeys(COUNTED, 0)
        for number, batch in enumerate(batches):
            labelled, several = layout.labelled(batch).tolist(), layout.several(batch).tolist()
            for row, prompt in enumerate(layout.prompts(batch)):
                drawn = draw(asked, seed, step, begins[number] + row)
                counts["rows"] += 1
                if drawn.writer and prompt is not None:
                    chosen[drawn.writer].append(((number, row), prompt, drawn.uniform))
                    counts[drawn.writer] += 1
                    counts["shortened"] += several[row]
                    continue
                counts["unprompted"] += bool(drawn.writer)
                counts["silent"] += not labelled[row]
                if batch.get("labels") is None and labelled[row] and self.alpha < 1:
                    raise ValueError(
                        f"alpha={self.alpha:g} trains on labels, and a row without any stays as it came: add a "
                        "'labels' column, set alpha=1, or let on_policy and seq_kd add up to 1."
                    )
        texts = {**self._writers.student(chosen[STUDENT]), **self._writers.teacher(chosen[TEACHER])}
        counts["tokens"] = sum(map(len, texts.values()))
        self._count(counts)
        return [
            self._rewritten(batch, {row: text for (n, row), text in texts.items() if n == number}, number, chosen)
            for number, batch in enumerate(batches)
        ]

    def _rewritten(
        self, batch: Mapping[str, Any], texts: dict[int, Tensor], number: int, chosen: Mapping[str, list]
    ) -> dict[str, Any]:
        ids = batch["input_ids"]
        rewritten = dict(batch)
        if texts or not {"labels", "attention_mask"} <= batch.keys():  # all batches of a step get the same columns
            texts = {row: text.to(ids.device) for row, text in texts.items()}
            rewritten = self._writers.layout.rewritten(batch, texts, self._writers.core)
        wrote = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        wrote[[row for (n, row), _, _ in chosen[STUDENT] if n == number]] = True
        check_context(self, rewritten)
        return {**rewritten, STUDENT_WROTE: wrote}

    def _begins(self, batches: Sequence[Mapping[str, Any]], turns: int) -> list[int]:
        """Where this rank's micro-batches begin among all rows of the step."""
        sizes = [len(batch["input_ids"]) for batch in batches]
        sizes += [0] * (turns - len(sizes))
        everybody = self.accelerator.gather(torch.tensor([sizes], device=self.args.device)).tolist()
        shared = self.accelerator.num_processes // self.data_ranks()  # ranks that hold the same rows
        return places(everybody[::shared], self.accelerator.process_index // shared)

    # ---- What is told ----

    def _count(self, counts: Mapping[str, int]) -> None:
        if counts["silent"]:
            self._tell(SILENT)
        if counts["unprompted"]:
            self._tell(UNPROMPTED)
        if counts["shortened"]:
            self._tell(SHORTENED)
        here = torch.tensor([counts[name] for name in COUNTED])
        self._rolled = here if self._rolled is None else self._rolled + here

    def _tell(self, text: str, *words: Any) -> None:
        if text not in self._told:
            self._told |= {text}
            logger.warning(text, *words)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add which shares of the training rows were written anew since the last log, and how long the texts are.

        Args:
            logs: what Trainer logs; ``rollout/student``, ``rollout/teacher``, ``rollout/silent`` (as they came, and
                without a label), ``rollout/unprompted`` and ``rollout/shortened`` (of several answers, which became
                one) are shares of the rows, ``rollout/tokens`` is a mean.
            start_time: when training started.
        """
        if "loss" in logs and self.rolling() is not None:
            here = torch.zeros(len(COUNTED), dtype=torch.int64) if self._rolled is None else self._rolled
            everywhere = self.accelerator.reduce(here.to(self.args.device), reduction="sum").tolist()
            total, self._rolled = dict(zip(COUNTED, everywhere, strict=True)), None
            rows, texts = max(total["rows"], 1), max(total["student"] + total["teacher"], 1)
            logs.update({f"rollout/{name}": total[name] / rows for name in COUNTED[1:-1]})
            logs["rollout/tokens"] = total["tokens"] / texts
        super().log(logs, start_time)
