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

from torch import Tensor

from hf_distill.cache.teacher import CachedTeacher
from hf_distill.models.facts import Facts
from hf_distill.models.image_text import TOWERS, tower_columns
from hf_distill.signals import Signals
from hf_distill.tasks.batches import plain, take
from hf_distill.teachers.around import TeacherAround
from hf_distill.teachers.live import LiveTeacher

if TYPE_CHECKING:
    from transformers import Trainer

VECTORS = frozenset({"vectors"})
"""What two towers can be asked for apart."""


class Tower(TeacherAround):
    """One tower of a model of two: it shows the vectors of one side, and reads the columns of that side alone.

    Args:
        teacher: the model, prepared by whoever else asks it.
        side: ``"image"`` or ``"text"``.
    """

    serves = VECTORS

    def __init__(self, teacher: LiveTeacher, side: str) -> None:
        self.teacher, self.side = teacher, side

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

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return what the tower reads; see ``Teacher.inputs``."""
        own = tower_columns(self.model)[self.side]
        return {name: value for name, value in self.teacher.inputs(batch).items() if name in own}

    def __call__(self, batch: Mapping[str, Any], needs: frozenset[str]) -> Signals:
        """Ask for all rows of this side beside the first of the other; see ``Teacher.__call__``."""
        every = self.teacher.inputs(batch)
        own = self.inputs(batch)
        beside = take({name: value for name, value in every.items() if name not in own}, [0])
        shown = self.teacher({**own, **beside}, needs)
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
        self.towers = {side: CachedTeacher(Tower(teacher, side), gb=gb / len(TOWERS)) for side in TOWERS}
        self.towers["text"].watch.each_epoch = True  # however many views an image has
        self.task = teacher.task

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
        asked = self._asked([batch], needs, training)
        shown = [one(batch, needs) for one in asked]
        if len(shown) == 1 or any(one.memory.off for one in asked):  # which an answer may have shown
            return shown[0] if len(shown) == 1 else self.teacher(batch, needs)
        image, text = shown
        return replace(text, vectors={**image.vectors, **text.vectors})

    def _asked(self, batches: Sequence[Mapping[str, Any]], needs: frozenset[str], training: bool) -> list[CachedTeacher]:
        """Who is asked: the towers, or the whole model. The others forget what they were asked before."""
        towers = list(self.towers.values())
        apart = needs == VECTORS and self.task.paired and not self.collective
        apart = apart and any(one.keeps(needs, training) for one in towers)
        apart = apart and not any(one.memory.off for one in towers)
        apart = apart and all(self._reads_apart(batch) for batch in batches)
        asked = towers if apart else [self.teacher]
        for one in self._every:
            if one not in asked and len(one.memory):
                one.memory.forget()
        return asked

    def _reads_apart(self, batch: Mapping[str, Any]) -> bool:
        """Whether each column is read by one tower, and by one alone."""
        read = self.inputs(plain(batch)).keys()
        own = tower_columns(self.model)
        return bool(own) and read <= frozenset().union(*own.values())

    # ---- What a trainer tells it ----

    def cache_hits(self) -> tuple[int, int]:
        """Return how many images and texts of training batches were kept ones, of how many."""
        counted = [one.cache_hits() for one in self._every]
        return sum(hits for hits, _ in counted), sum(rows for _, rows in counted)

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
