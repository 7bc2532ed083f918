"""Batches whose rows a student or a teacher writes anew, in training only.

Knows: when rows are seen before they are counted, which of them are chosen, who is asked. Does not know: where a
prompt is, how a model writes, how a loss is computed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import TrainingArguments

from hf_distill.models.outputs import core_of
from hf_distill.rollouts.draws import STUDENT, TEACHER, draw, places
from hf_distill.rollouts.room import check_context
from hf_distill.rollouts.settings import Rollout, rollout_of
from hf_distill.rollouts.writers import Now, Writers, check_reads_nothing, check_student
from hf_distill.tasks.reading import TeacherReading
from hf_distill.tasks.supervision import STUDENT_WROTE
from hf_distill.teachers import Teacher

logger = logging.getLogger(__name__)
LEFT_OUT = "rollout=%r is left out: %s."
SILENT = (
    "A row of the training set has no label and stayed as it came, so nobody learns from it: give it an answer, or "
    "raise on_policy or seq_kd; rollout/silent in the log says how many there are."
)
UNPROMPTED = (
    "A row that was to be written anew has no prompt, its labels begin with its first token, and stayed as it came: "
    "set the prompt's labels to -100; rollout/no_prompt in the log says how many there are."
)
SHORTENED = (
    "A row that was written anew has several answers: a text was written in place of the first, and all that came "
    "behind it is left out; give each answer a row of its own, or set the labels of all but one to -100; "
    "rollout/shortened in the log says how many there are."
)
FILTERED = (
    "A text of the teacher was refused, being a loop or further from the row's transcript than keep_if allows: the "
    "row stays as it came, and without a label nobody learns from it; rollout/filtered in the log says how many there "
    "are."
)
COUNTED = ("rows", "student", "teacher", "filtered", "silent", "no_prompt", "shortened", "tokens")


class Rollouts:
    """Rewrites the micro-batches of an optimizer step; see ``Rollout``.

    Args:
        task: how the models are read.
        teacher: the teacher, or None.
        args: the run's arguments, read anew each time.
        given: what was given to the trainer, before ``args.rollout``.
        tokenizer: the run's tokenizer, a processor, or None.
    """

    def __init__(
        self, task: Any, teacher: Teacher | None, args: TrainingArguments, given: Any = None, tokenizer: Any = None
    ) -> None:
        self.task, self.teacher, self.args, self.given = task, teacher, args, given
        self.tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # of a processor
        self._writers: Writers | None = None
        self._told: frozenset[str] = frozenset()
        self._counted: Tensor | None = None

    def asked(self, alpha: float) -> Rollout | None:
        """Return what is asked; None where nothing is written anew.

        Args:
            alpha: the teacher's share of the loss.
        """
        asked = rollout_of(self.given if self.given is not None else getattr(self.args, "rollout", None))
        if asked is not None and self.teacher is None:
            self._tell(LEFT_OUT, asked, "only a teacher can speak about what is written, and there is none")
            return None
        if asked is not None and asked.on_policy and alpha == 0:
            self._tell(LEFT_OUT, asked, "alpha=0 hears no teacher, who alone speaks about what the student writes")
            return Rollout(**{**vars(asked), "on_policy": 0.0}) if asked.seq_kd else None
        return asked

    def prepare(self, alpha: float, now: Now) -> None:
        """Refuse what cannot be written, and learn who the teacher is while its weights are whole.

        Args:
            alpha: the teacher's share of the loss.
            now: the student.

        Raises:
            ValueError: in one sentence.
        """
        if (asked := self.asked(alpha)) is None:
            return
        if asked.on_policy:
            check_reads_nothing(asked.on_policy, self.task, TeacherReading.of(self.args, now.student), now.student)
        check_student(asked, self.task, alpha, self.teacher, now)
        here = (now.student, self.teacher, self.tokenizer, self.args.output_dir, self.args.process_index)
        self._writers = Writers(asked, self.task, *here)

    def rewrite(
        self, batches: Sequence[Mapping[str, Any]], turns: int, step: int, alpha: float, data_ranks: int, now: Now
    ) -> list[dict[str, Any]]:
        """Let those rows of a step be written anew that chance names.

        Args:
            batches: this rank's micro-batches.
            turns: how many the step takes.
            step: how many optimizer steps there were.
            alpha: the teacher's share of the loss.
            data_ranks: how many ranks hold different data.
            now: who writes.

        Returns:
            The batches, each with a column that says which rows the student wrote.

        Raises:
            ValueError: in one sentence.
        """
        asked = self.asked(alpha)
        if self._writers is None or self._writers.asked != asked:  # a search may have changed what is asked
            self.prepare(alpha, now)
        layout, seed = self._writers.layout, self.args.seed if self.args.data_seed is None else self.args.data_seed
        for batch in batches:
            layout.check(batch)
        begins = self._begins(batches, turns, data_ranks, now.accelerator)
        chosen: dict[str, list] = {STUDENT: [], TEACHER: []}
        counts = dict.fromkeys(COUNTED, 0)
        labelled = [layout.labelled(batch).tolist() for batch in batches]
        prompts = [layout.prompts(batch) for batch in batches]
        for number, batch in enumerate(batches):
            several = layout.several(batch).tolist()
            for row, prompt in enumerate(prompts[number]):
                drawn = draw(asked, seed, step, begins[number] + row)
                counts["rows"] += 1
                if drawn.writer and prompt is not None:
                    chosen[drawn.writer].append(((number, row), prompt, drawn.uniform))
                    counts[drawn.writer] += 1
                    counts["shortened"] += several[row]
                    continue
                counts["no_prompt"] += bool(drawn.writer)
                counts["silent"] += not labelled[number][row]
                if batch.get("labels") is None and labelled[number][row] and alpha < 1:
                    raise ValueError(
                        f"alpha={alpha:g} trains on labels, and a row without any stays as it came: add a "
                        "'labels' column, set alpha=1, or let on_policy and seq_kd add up to 1."
                    )
        if counts["silent"]:
            self._tell(SILENT)
        writers, spare = self._writers, next((one for some in prompts for one in some if one is not None), None)
        texts = writers.student(chosen[STUDENT], now, spare)
        for (number, row), text in writers.teacher(chosen[TEACHER], now, spare).items():
            labels = batches[number].get("labels")
            if writers.filter.keeps(text, None if labels is None else labels[row].cpu()):
                texts[number, row] = text
                continue
            counts["teacher"] -= 1
            counts["filtered"] += 1
            counts["silent"] += not labelled[number][row]
        counts["tokens"] = sum(map(len, texts.values()))
        self._count(counts)
        return [
            self._rewritten(batch, {row: text for (n, row), text in texts.items() if n == number}, number, chosen, now)
            for number, batch in enumerate(batches)
        ]

    def _rewritten(
        self, batch: Mapping[str, Any], texts: dict[int, Tensor], number: int, chosen: Mapping[str, list], now: Now
    ) -> dict[str, Any]:
        size, device = self._writers.layout.size(batch), batch[self._writers.layout.main].device
        rewritten = dict(batch)
        if texts or not {"labels", "attention_mask"} <= batch.keys():  # all batches of a step get the same columns
            texts = {row: text.to(device) for row, text in texts.items()}
            rewritten = self._writers.layout.rewritten(batch, texts, core_of(now.student))
        wrote = torch.zeros(size, dtype=torch.bool, device=device)
        wrote[[row for (n, row), _, _ in chosen[STUDENT] if n == number]] = True
        check_context(self._writers.contexts(now), rewritten)
        return {**rewritten, STUDENT_WROTE: wrote}

    def _begins(
        self, batches: Sequence[Mapping[str, Any]], turns: int, data_ranks: int, accelerator: Accelerator
    ) -> list[int]:
        """Where this rank's micro-batches begin among all rows of the step."""
        sizes = [self._writers.layout.size(batch) for batch in batches]
        sizes += [0] * (turns - len(sizes))
        everybody = accelerator.gather(torch.tensor([sizes], device=accelerator.device)).tolist()
        shared = accelerator.num_processes // data_ranks  # ranks that hold the same rows
        return places(everybody[::shared], accelerator.process_index // shared)

    # ---- What is told ----

    def _count(self, counts: Mapping[str, int]) -> None:
        if counts["filtered"]:
            self._tell(FILTERED)
        if counts["no_prompt"]:
            self._tell(UNPROMPTED)
        if counts["shortened"]:
            self._tell(SHORTENED)
        here = torch.tensor([counts[name] for name in COUNTED])
        self._counted = here if self._counted is None else self._counted + here

    def _tell(self, text: str, *words: Any) -> None:
        if text not in self._told:
            self._told |= {text}
            logger.warning(text, *words)

    def drain(self, accelerator: Accelerator) -> dict[str, float]:
        """Return which shares of the training rows were written anew since the last time, and how long the texts are.

        Args:
            accelerator: the run's; all ranks call it together.

        Returns:
            ``rollout/student``, ``rollout/teacher``, ``rollout/filtered`` (the teacher's text was refused),
            ``rollout/silent`` (as they came, and without a label),
            ``rollout/no_prompt`` and ``rollout/shortened`` (of several answers, which became one) are shares of the
            rows, ``rollout/tokens`` is a mean.
        """
        here = torch.zeros(len(COUNTED), dtype=torch.int64) if self._counted is None else self._counted
        everywhere = accelerator.reduce(here.to(accelerator.device), reduction="sum").tolist()
        total, self._counted = dict(zip(COUNTED, everywhere, strict=True)), None
        rows, texts = max(total["rows"], 1), max(total["student"] + total["teacher"], 1)
        shares = {f"rollout/{name}": total[name] / rows for name in COUNTED[1:-1]}
        return {**shares, "rollout/tokens": total["tokens"] / texts}
