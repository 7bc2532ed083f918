"""A teacher of images and texts that is asked once for each image and once for each text, and not for each pair.

Knows: which columns either tower reads, two memories, when a pair must be asked whole. Does not know: what models
compute, what is kept of an answer, how long.

A vector hangs on its own image or text alone. So each tower has a memory of its own: a caption that is known is not
asked again beside a new view of its image, nor an image with another of its captions. One tower is asked by asking the
model for all rows of its side beside a single row of the other: its own forward, whatever its class, precision or
wrapper. That no vector hangs on its partner is tried, for each is asked beside another one (``answers_alone``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from hf_distill.cache.teacher import CachedTeacher
from hf_distill.models.facts import Facts
from hf_distill.models.image_text import TOWERS, tower_columns
from hf_distill.signals import Signals
from hf_distill.tasks.batches import take
from hf_distill.tasks.samples import rows_of
from hf_distill.teachers.around import TeacherAround
from hf_distill.teachers.live import LiveTeacher

if TYPE_CHECKING:
    from transformers import Trainer

VECTORS = frozenset({"vectors"})
"""What two towers can be asked for apart."""


class Tower(TeacherAround):
    """One tower of a model of two: it shows the vectors of one side, and reads the columns of that side alone.

    Args:
        whole: who asks the model for pairs: it prepares the model, and notices where that changes.
        side: ``"image"`` or ``"text"``.
        own: the names of what this tower reads; see ``tower_columns``.
    """

    serves = VECTORS

    def __init__(self, whole: CachedTeacher, side: str, own: frozenset[str]) -> None:
        self.whole, self.teacher, self.side, self.own = whole, whole.teacher, side, own
        self.shown: Signals | None = None  # what the model has just shown for the very pairs that are asked for next

    @property
    def facts(self) -> Facts:
        """What is known of the model, under the tower's name."""
        return replace(self.teacher.facts, name=f"{self.teacher.facts.name} ({self.side} tower)")

    @property
    def columns(self) -> frozenset[str]:
        """As of the model; of a batch it takes its own."""
        return self.teacher.columns

    def prepare(self, trainer: Trainer) -> None:
        """Take over the model's task; see ``Teacher.prepare``."""
        self.task = self.teacher.task

    def held(self) -> list[nn.Module | Tensor]:
        """Nothing, for one look at the model is enough; see ``Teacher.held``."""
        return []

    def fingerprint(self, student: nn.Module | None = None) -> str | None:
        """Return the hash that was made of the model's weights; see ``Teacher.fingerprint``."""
        return self.whole.memory.known.get("weights")

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return what the tower reads; see ``Teacher.inputs``."""
        return {name: value for name, value in self.teacher.inputs(batch).items() if name in self.own}

    def __call__(self, batch: Mapping[str, Any], needs: frozenset[str]) -> Signals:
        """Ask for all rows of this side beside the first of the other; see ``Teacher.__call__``."""
        if (shown := self.shown) is None:
            every = self.teacher.inputs(batch)
            beside = take({name: value for name, value in every.items() if name not in self.own}, [0])
            shown = self.teacher({**every, **beside}, needs)
        vectors = {name: one for name, one in shown.vectors.items() if (name == "text") == (self.side == "text")}
        return Signals({}, mask=shown.mask if self.side == "text" else None, vectors=vectors)


class CachedTowers(TeacherAround):
    """A memory for each tower of a teacher of images and texts, and one for whole pairs, where more is asked for.

    Pairs are asked whole where an objective compares more than vectors, where one pair comes as often as its image and
    its text do (nothing is kept), and where the towers cannot be asked apart: sharded weights, columns that neither or
    both of them read, vectors that hang on their partners.

    Args:
        teacher: a model of two towers.
        gb: how many 10**9 bytes of memory the answers may take, in each process; half of them for each tower.

    Example:
        >>> from transformers import CLIPConfig, CLIPModel
        >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        >>> shape = CLIPConfig(text_config=sizes, vision_config={**sizes, "image_size": 8, "patch_size": 4})
        >>> sorted(CachedTowers(LiveTeacher(CLIPModel(shape))).towers)
        ['image', 'text']
    """

    def __init__(self, teacher: LiveTeacher, gb: float = 4.0) -> None:
        self.teacher = CachedTeacher(teacher, gb=gb)
        own, share = tower_columns(teacher.model), gb / len(TOWERS)
        self.towers = {side: CachedTeacher(Tower(self.teacher, side, own[side]), gb=share) for side in TOWERS}
        self.towers["text"].watch.each_epoch = True  # however many views an image has
        self.task, self._unkept = teacher.task, 0  # and how many rows a tower was asked for that keeps none

    facts = property(lambda self: self.teacher.facts)
    serves = property(lambda self: self.teacher.serves)

    @property
    def columns(self) -> frozenset[str]:
        """What the model reads, and the keys that ``prefetch`` puts into a batch."""
        return frozenset().union(*(one.columns for one in self._every))

    @property
    def _every(self) -> list[CachedTeacher]:
        return [self.teacher, *self.towers.values()]

    def prepare(self, trainer: Trainer) -> None:
        """Prepare the model, then its towers; see ``Teacher.prepare``."""
        for one in self._every:
            one.prepare(trainer)
        self.task = self.teacher.task

    def expect(self, epochs: int) -> None:
        """Tell the model and its towers; see ``Teacher.expect``."""
        for one in self._every:
            one.expect(epochs)

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return what the model reads; see ``Teacher.inputs``."""
        return self.teacher.inputs(batch)

    # ---- Asking ----

    def prefetch(self, batches: Sequence[dict[str, Any]], needs: frozenset[str]) -> None:
        """Let those see the batches that are going to be asked; see ``Teacher.prefetch``."""
        for one in self._asked(batches, needs, training=True):
            one.prefetch(batches, needs)

    def __call__(self, batch: Mapping[str, Any], needs: frozenset[str]) -> Signals:
        """Answer a batch, by both towers or whole; see ``Teacher.__call__``."""
        training = self.teacher.watch.training or any(one.column in batch for one in self._every)
        if len(asked := self._asked([batch], needs, training)) > 1:
            keeping = [one.keeps(needs, training) for one in asked]
            self._unkept += training * rows_of(batch) * keeping.count(False)
            new = all(not keeps or _all_new(one, batch) for one, keeps in zip(asked, keeping, strict=True))
            shown = self.teacher.teacher(batch, needs) if new else None  # both in one forward
            for one in asked:
                one.teacher.shown = shown
            try:
                image, text = (one(batch, needs) for one in asked)
            finally:
                for one in asked:
                    one.teacher.shown = None
            if not any(one.memory.off for one in asked):  # which the answers may have shown
                return replace(text, vectors={**image.vectors, **text.vectors})
        return self.teacher(batch, needs)

    def _asked(
        self, batches: Sequence[Mapping[str, Any]], needs: frozenset[str], training: bool
    ) -> list[CachedTeacher]:
        """Who is asked: the towers, or the model for pairs. What the others know is not needed any more."""
        asked = list(self.towers.values()) if self._apart(batches, needs, training) else [self.teacher]
        for one in self._every:
            if one not in asked and len(one.memory):
                one.memory.forget()
        return asked

    def _apart(self, batches: Sequence[Mapping[str, Any]], needs: frozenset[str], training: bool) -> bool:
        """Whether the towers can be asked apart, and one of them keeps what it shows."""
        towers = self.towers.values()
        if needs != VECTORS or not self.task.paired or self.collective or any(one.memory.off for one in towers):
            return False
        if not any(one.keeps(needs, training) for one in towers):
            return False
        own = frozenset().union(*(one.teacher.own for one in towers))
        if not all(self.teacher.teacher.inputs(batch).keys() <= own for batch in batches):
            return False
        self.teacher.notice()
        return not self.teacher.memory.off

    # ---- What a trainer tells it ----

    def cache_hits(self) -> tuple[int, int]:
        """Return how many images and texts of training batches were kept ones, of how many."""
        counted = [one.cache_hits() for one in self._every]
        unkept, self._unkept = self._unkept, 0
        return sum(hits for hits, _ in counted), sum(rows for _, rows in counted) + unkept

    def save(self, checkpoint: str | Path, rank: int, name: str = "", answers: bool = True) -> None:
        """Let each write what it remembers, under its tower's name; see ``Teacher.save``."""
        self.teacher.save(checkpoint, rank, name, answers)
        for side, one in self.towers.items():
            one.save(checkpoint, rank, f"{name}-{side}", answers)

    def load(self, checkpoint: str | Path, name: str = "") -> None:
        """Let each go on from a checkpoint; see ``Teacher.load``."""
        self.teacher.load(checkpoint, name)
        for side, one in self.towers.items():
            one.load(checkpoint, f"{name}-{side}")


def _all_new(one: CachedTeacher, batch: Mapping[str, Any]) -> bool:
    """Whether a tower has to be asked for every row of a batch, and is not going to be tried with others."""
    keys = batch.get(one.column) or one.keys(batch)
    return one.memory.probed and len(one.memory.look(keys)[1]) == len(keys)
