"""A teacher that is asked once for each row.

Knows: keys of rows, where answers are kept, when to ask. Does not know: which model answers, terms, the student.

The key is the content that the teacher is given, so a row that was augmented is asked anew, one that occurs twice is
asked once, and no data set or collator has to be touched. A batch that nobody has seen runs as it came; of any other
only the unseen rows run, as one smaller batch.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hf_distill.cache.answers import KEPT
from hf_distill.cache.callback import Watch
from hf_distill.cache.checkpoint import keep, recall
from hf_distill.cache.encoding import Encoding
from hf_distill.cache.identity import known_of
from hf_distill.cache.memory import Memory, Places
from hf_distill.cache.offline_teacher import AbsentTeacher
from hf_distill.cache.packed import PLACES, Texts
from hf_distill.cache.rows import Rows
from hf_distill.models.hooks import ENCODED, LINEAR
from hf_distill.signals import Signals
from hf_distill.tasks.batches import KEYS, join, plain
from hf_distill.tasks.pairing import placeholders_of
from hf_distill.teachers.around import TeacherAround
from hf_distill.teachers.changes import Changes
from hf_distill.teachers.teacher import Teacher

if TYPE_CHECKING:
    from transformers import Trainer

logger = logging.getLogger(__name__)
EXACT, HALF = 1e-3, 3e-2
"""By how many standard deviations two answers to one row may differ, in float32 and in anything narrower."""

NUMBERS = count()
"""Each cached teacher puts its keys into a batch under a column of its own."""


class CachedTeacher(TeacherAround):
    """A memory around another teacher, or around none: then a row that was not kept is an error.

    Args:
        teacher: who is asked for rows that are not kept; None: nobody, everything is in ``folder``.
        folder: where answers are kept beside memory, for the next run too; None: nowhere.
        gb: how many 10**9 bytes of memory the answers may take, in each process.
        encoding: how values are held; None: as the folder holds them, in a new one and in memory exactly.
        always: keep answers whatever the run looks like; otherwise only if it sees rows more than once. A folder is
            always filled.
        whole_window: ask for all micro-batches of an optimizer step at once.
        prepass: ask for all training rows before the first step, sorted by length.

    Raises:
        ValueError: neither a teacher nor a filled folder, or a folder that holds something else.

    Example:
        >>> from torch import nn
        >>> from hf_distill.tasks import SequenceClassification
        >>> from hf_distill.teachers.live import LiveTeacher
        >>> task = SequenceClassification(num_labels=2)
        >>> teacher = CachedTeacher(LiveTeacher(nn.Linear(4, 2), task), always=True)
        >>> teacher.task = task  # a trainer gives it its own
        >>> batch = {"input": torch.arange(12.0).view(3, 4)}
        >>> first, again = (teacher(batch, frozenset({"heads"})).heads["logits"].logits.tensor for _ in range(2))
        >>> torch.equal(first, again), teacher.cache_hits()
        (True, (0, 0))
    """

    def __init__(
        self,
        teacher: Teacher | None = None,
        folder: str | Path | None = None,
        gb: float = 4.0,
        encoding: Encoding | None = None,
        always: bool = False,
        whole_window: bool = False,
        prepass: bool = False,
    ) -> None:
        self.column = f"{KEYS}{next(NUMBERS)}"
        self.memory = Memory(folder, gb * 1e9, encoding)
        if teacher is None and self.memory.header is None:
            raise ValueError(
                f"answers were asked from {folder}, it holds none: fill it with hf-distill cache, or pass a teacher."
            )
        self.teacher: Teacher = teacher or AbsentTeacher(folder, self.memory.header)
        self.facts, self.whole_window = self.teacher.facts, whole_window
        self.always = always or folder is not None
        self.task = self.teacher.task
        self.watch = Watch(self, prepass)
        self._world, self._counted, self._placeholders, self._told = 1, False, {}, False
        self._packs = 0 if teacher else 2  # which packed texts were tried: none, single ones, several in a row
        self._weights, self._moved, self._changes = None, False, Changes(lambda: self.teacher.held())

    # What the teacher can show, or the folder holds; the keys that `prefetch` puts into a batch are a column too.
    serves = property(lambda self: self.teacher.serves if self.memory.needs is None else self.memory.needs)
    columns = property(lambda self: self.teacher.columns | {self.column})

    @property
    def temperature(self) -> float | None:
        """The only temperature at which what is kept can be used; None: any."""
        return self.memory.encoding.temperature

    def prepare(self, trainer: Trainer) -> None:
        """Prepare the teacher, and learn how often the run sees a row; see ``Teacher.prepare``."""
        self.task = self.task or trainer.task
        self._world = trainer.accelerator.num_processes
        if self._moved:  # under another trainer: it is another teacher from here on, and may stay so
            self.memory.off, self._moved = "", False
        self._weights = self.teacher.fingerprint(trainer.model)  # before they are sharded
        self.teacher.prepare(trainer)
        self.facts = self.teacher.facts
        ours, rows, mixed = trainer.processing_class, trainer.train_dataset, trainer.accelerator.mixed_precision
        known = known_of(self.teacher, self.facts, self._weights, ours, rows, mixed)
        self.memory.meet(known, self.task.positions, trainer.accelerator.process_index, self.task.frames)
        self._placeholders = placeholders_of(self.teacher.model or trainer.model)
        self.memory.expected = len(rows) if hasattr(rows, "__len__") else 0
        self.watch.follow(trainer)
        self._changes.found()  # from here on it stays as it is
        if self.teacher.moves:
            self._stop("it changes while the student learns")

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """What the teacher reads, and what it would make its decoder's inputs of; see ``Teacher.inputs``."""
        inputs = self.teacher.inputs(plain(batch))
        return {**inputs, **self.task.labels_read(inputs, self.task.teacher_batch(batch))}

    # ---- Asking ----

    def prefetch(self, batches: Sequence[dict[str, Any]], needs: frozenset[str]) -> None:
        """Put the keys of rows into the batches, made before anything is cast or moved; see ``Teacher.prefetch``."""
        self.memory.window, self._counted = {}, False
        self.notice()
        if not batches or not self.keeps(needs, training=True) or not all(self.check(b, needs) for b in batches):
            return
        looked = [self.rows(batch) for batch in batches]
        for batch, rows in zip(batches, looked, strict=True):
            batch[self.column] = tuple(rows.keys(self.memory.padding))
        self.watch.foresee(batches)
        joins = self.whole_window and len(batches) > 1 and self.memory.padding.right
        if joins and not self.anywhere(any(rows.packed for rows in looked)):
            self._ask_window(batches, looked, self.memory.serve(needs))

    def __call__(self, batch: Mapping[str, Any], needs: frozenset[str]) -> Signals:
        """Answer a batch, asking only for rows that are not kept; see ``Teacher.__call__``."""
        keys = batch.get(self.column)
        training = keys is not None or self.watch.training
        batch = plain(batch)
        self.notice()
        kept, seen = needs - {LINEAR, ENCODED}, needs & {ENCODED}  # what is kept is kept whole, or not at all
        if not self.keeps(kept, training) or not self.check(batch, kept):
            return self.teacher(batch, needs)
        needs, rows = self.memory.serve(kept), self.rows(batch)
        keys = keys or rows.keys(self.memory.padding)
        found, missing = self.memory.look(keys)
        if training and not self._counted:
            self.watch.count(len(keys), len(keys) - len(missing))
        if self.anywhere(bool(missing)):
            all_new = len(missing) == len(keys)
            asked = rows if all_new else rows.cut(missing or [0])
            shown = self.teacher(asked.batch, needs | seen if all_new else needs)
            if not self._can_keep(shown, asked):
                return shown if all_new and not self.collective else self.teacher(batch, needs)
            exact = all_new and self.memory.encoding.exact
            if missing and not (exact and self.memory.full):  # without room it is not even taken apart
                found.update(self._take_in(shown, [keys[i] for i in missing], asked))
            if exact:
                return shown
        layout = rows.layout
        return self.memory.answers.signals([found[key] for key in keys], rows.spans, layout.rows, layout.mask)

    def _ask_window(self, batches: Sequence[Mapping[str, Any]], looked: Sequence[Rows], needs: frozenset[str]) -> None:
        new, seen = [], set()
        for batch, rows in zip(batches, looked, strict=True):
            keys = batch[self.column]
            missing = [i for i in self.memory.look(keys)[1] if keys[i] not in seen]
            seen.update(keys)
            if missing:
                new.append((rows.cut(missing), [keys[i] for i in missing]))
        self._counted, every = True, sum(len(batch[self.column]) for batch in batches)
        self.watch.count(every, every - sum(len(keys) for _, keys in new))
        if self.anywhere(bool(new)):
            asked = self.rows(join([rows.batch for rows, _ in new])) if new else looked[0].cut([0])
            shown = self.teacher(asked.batch, needs)
            if self._can_keep(shown, asked) and new:
                self.memory.window = self._take_in(shown, [key for _, keys in new for key in keys], asked)

    # ---- Keys and rows ----

    def rows(self, batch: Mapping[str, Any]) -> Rows:
        """Look at what of a batch has an answer each: its rows, or the texts that are packed into them.

        Args:
            batch: the batch.
        """
        rows = Rows(plain(batch), self.inputs, self.task, self._placeholders)
        return Texts.of(rows, placed=PLACES in (self.memory.takes or ()))

    def keys(self, batch: Mapping[str, Any]) -> list[bytes]:
        """Name the rows of a batch; see ``keys_of``.

        Args:
            batch: the batch.
        """
        return self.rows(batch).keys(self.memory.padding)

    def _take_in(self, shown: Signals, keys: Sequence[bytes], asked: Rows) -> Places:
        again = (self.always or self.watch.repeats or self.watch.reevaluates) and not self.watch.stopped
        return self.memory.take_in(shown, keys, asked.spans_in(shown), again, asked.packed)

    # ---- Whether ----

    def keeps(self, needs: frozenset[str], training: bool) -> bool:
        """Say whether answers are kept, or looked for, at all.

        Args:
            needs: what is going to be asked for.
            training: whether it is asked in a training step.
        """
        strangers = sorted(need for need in needs if need not in KEPT and not need.startswith("tap:"))
        others = [need for need in strangers if need.partition(":")[0] in KEPT]
        if others and not (self.memory.off or self._told):
            self._told = True
            logger.warning(
                "The answers of %s are not kept: an objective needs %s of it, and only the main stream's can be. It "
                "is asked each time.", self.facts.name, others[0],
            )  # fmt: skip
        if self.memory.off or strangers:
            return False
        wanted = self.always or (self.watch.repeats if training else self.watch.reevaluates)
        return self.whole_window or (not self.watch.stopped and (wanted or len(self.memory) > 0))

    def check(self, batch: Mapping[str, Any], needs: frozenset[str]) -> bool:
        """Say whether this batch has rows; ask the teacher, once, whether its answers to them can be kept.

        Args:
            batch: any batch.
            needs: what is going to be asked for.
        """
        rows = self.rows(batch)
        # Of every batch: packed texts may come one at a time for a while, and rows with one image each.
        reason = rows.inseparable()
        tolerance = EXACT if self.memory.known.get("precision", "float32") == "float32" else HALF
        how = (lambda asked: self.teacher(asked, needs), tolerance, self.collective)
        if not self.memory.probed and (not reason or self.collective):
            reason, padding = rows.examine(*how)
            if padding is None:
                return False
            self.memory.learn(padding, sorted(rows.alone().inputs))
        packs = rows.packed + rows.several
        if (not reason or self.collective) and self.anywhere(packs > self._packs):
            found = rows.alike(*how)
            if found is None:
                return False
            self._packs, reason = max(packs, self._packs), reason or found
        return not self._stop(reason)

    def _can_keep(self, shown: Signals, asked: Rows) -> bool:
        """Whether an answer to some rows can be taken apart, which the first one's does not say of a later one's."""
        return not self._stop(asked.unkeepable(shown) or self.memory.answers.other_form(shown))

    def notice(self, whole: bool = False) -> None:
        """Keep nothing from now on if the teacher has changed, as one that somebody trains does.

        Args:
            whole: look at every byte of its weights, not only where changes are likely to show.
        """
        if self.memory.off:
            return
        changed = self._changes.found()
        if whole and not changed and self._weights is not None:
            found = self.teacher.fingerprint(self.watch.trainer.model)
            changed = found not in (None, self._weights)  # None: it is sharded
        self._moved = self._stop("it has changed since it was asked" if changed else "")

    def _stop(self, reason: str) -> bool:
        """Keep nothing from now on, if there is a reason here or, where all ranks ask together, anywhere."""
        if self.anywhere(bool(reason)):
            self.memory.off = reason = reason or "they cannot be on another rank"
            self.memory.forget()
            logger.warning("The answers of %s are not kept: %s. It is asked each time.", self.facts.name, reason)
        return bool(self.memory.off)

    def anywhere(self, flag: bool) -> bool:
        """Say whether it is so on any rank, where all must ask together; otherwise whether it is so here."""
        if not self.collective or self._world == 1:
            return flag
        told = torch.tensor(float(flag), device=self.watch.device)
        torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MAX)
        return bool(told)

    # ---- What a trainer tells it ----

    def expect(self, epochs: int) -> None:
        """Keep answers for all of several trainings; see ``Teacher.expect``."""
        self.watch.ahead = epochs

    def cache_hits(self) -> tuple[int, int]:
        """Return how many rows of training batches were kept ones, of how many; see ``Teacher.cache_hits``."""
        return self.watch.drain()

    def save(self, checkpoint: str | Path, rank: int, name: str = "", answers: bool = True) -> None:
        """Write what is remembered beside a checkpoint; see ``Teacher.save`` and ``checkpoint.keep``."""
        self.teacher.save(checkpoint, rank, name, answers)
        if answers:
            self.notice(whole=True)
            keep(self.memory, checkpoint, rank, name)

    def load(self, checkpoint: str | Path, name: str = "") -> None:
        """Read what was remembered when a checkpoint was written; see ``checkpoint.recall``."""
        self.teacher.load(checkpoint, name)
        recall(self.memory, checkpoint, name)
