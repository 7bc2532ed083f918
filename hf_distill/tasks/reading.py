"""What a student's forward is given of what its teacher showed: ``Student(Input, TeacherOutput)``.

Knows: how a part of ``Signals`` is written in words, the arguments of a forward. Does not know: who is asked for it,
losses, trainers.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from hf_distill.models.outputs import core_of
from hf_distill.signals import BINARY, DenseLogits, Signals
from hf_distill.tasks.task import Task

LAYERS, NAMED = ("hidden", "attention"), ("heads", "vectors", "values", "taps")
"""What is called by the number of a layer, and by a name."""
FORM = re.compile(r"(\w+)((?:\[[^\[\]]+\])*)(?:@(.+))?")
KNOWN = "hidden[-1], attention[-1], logits, heads[NAME], vectors[NAME], values[NAME], taps[PATH] or streams[NAME][-1]"


@dataclass
class ReadingArguments:
    """The field that students which read their teacher add to ``TrainingArguments``.

    Args:
        reads_teacher: name of an argument of the student's forward -> what it is given of what the teacher shows for
            the same batch: ``hidden[-1]``, ``logits``, ``vectors[image]``, ``streams[vision][-1]``, with ``@NAME`` of
            one of several teachers. None: what the student's own attribute ``reads_teacher`` says, if it has one.

    Raises:
        ValueError: in one sentence, something that is no part of ``Signals``.

    Example:
        >>> ReadingArguments(reads_teacher={"told": "hidden"})
        Traceback (most recent call last):
        ...
        ValueError: reads_teacher gives told 'hidden', which is nothing that a teacher shows: use hidden[-1], ...
    """

    reads_teacher: dict | str | None = field(
        default=None,
        metadata={
            "help": "What the student's forward is given of what the teacher shows, as JSON: "
            '\'{"teacher_hidden_states": "hidden[-1]"}\'. Default: what the student\'s attribute of that name says.'
        },
    )

    def __post_init__(self) -> None:
        """Check the value, then let ``TrainingArguments`` check its own."""
        if self.reads_teacher is not None:
            TeacherReading(self.reads_teacher)
        if hasattr(super(), "__post_init__"):
            super().__post_init__()


class Place(NamedTuple):
    """Where a tensor stands in ``Signals``.

    Args:
        kind: ``hidden``, ``attention``, ``heads``, ``vectors``, ``values``, ``taps`` or ``streams``.
        name: of the head, vector, value, module or stream; empty for a layer of the main stream.
        layer: which hidden state or map, that of the embeddings first; None where there is but one.
        who: which one of several teachers; empty: all of them together.
    """

    kind: str
    name: str = ""
    layer: int | None = None
    who: str = ""

    @classmethod
    def of(cls, words: Any, told: str) -> Place:
        """Read what a user wrote.

        Args:
            words: such as ``"streams[vision][-1]@big"``.
            told: who is given it, for a message.

        Raises:
            ValueError: in one sentence.

        Example:
            >>> Place.of("streams[vision][-1]@big", "reads_teacher gives told")
            Place(kind='streams', name='vision', layer=-1, who='big')
        """
        found = FORM.fullmatch(words) if isinstance(words, str) else None
        kind, steps, who = (found[1], re.findall(r"\[([^\]]+)\]", found[2]), found[3] or "") if found else ("", [], "")
        if kind == "logits" and not steps:
            return cls("heads", "logits", None, who)
        layered = kind in LAYERS or kind == "streams"
        names = steps[:-1] if layered else steps
        number = re.fullmatch(r"-?\d+", steps[-1]) if steps and layered else None
        if len(names) == (kind not in LAYERS) and (number if layered else kind in NAMED):
            return cls(kind, *(names or [""]), int(number[0]) if number else None, who)
        raise ValueError(f"{told} {words!r}, which is nothing that a teacher shows: use {KNOWN}.")

    def need(self, streams: Sequence[str]) -> str:
        """Return what a teacher is asked for, as ``Term.needs`` writes it.

        Args:
            streams: of the task, the main one first.

        Example:
            >>> Place("streams", "encoder", -1).need(["decoder", "encoder"])
            'hidden:encoder'
        """
        if self.kind == "streams":
            need = "hidden" if self.name == streams[0] else f"hidden:{self.name}"
        elif self.kind == "taps":
            need = f"tap:{self.name}"
        else:
            need = self.kind
        return f"{need}@{self.who}" if self.who else need

    def take(self, shown: Signals, task: Task) -> Tensor:
        """Take the tensor out of what a teacher showed; what stands at padding is 0, as it is nobody's.

        Args:
            shown: what the teacher showed, whole.
            task: how it was read.

        Returns:
            As the teacher showed it; of a head with several classes a sample their logits [..., C].

        Raises:
            ValueError: it is not there.
        """
        shown = shown.named[self.who] if self.who else shown
        mask = shown.mask
        if self.kind == "heads":
            logits = shown.heads[self.name].logits
            if not isinstance(logits, DenseLogits):
                raise ValueError(f"the student reads {self}, of which the teacher gave a few ids: keep whole logits.")
            found = logits.tensor
            if {head.name: head.kind for head in task.heads}.get(self.name) == BINARY:
                found = found[..., 1] - found[..., 0]
        elif self.kind in ("vectors", "values", "taps"):
            found = getattr(shown, self.kind)[self.name]
            found = found.tensor if self.kind == "values" else found
        else:
            stream = shown.stream(self.name or None)
            layers, mask = stream.attention if self.kind == "attention" else stream.hidden, stream.mask
            if not -len(layers) <= self.layer < len(layers):
                raise ValueError(f"the student reads {self} of its teacher, which shows {_range(len(layers))}.")
            found = layers[self.layer]
        if mask is not None and found.ndim == 3 and found.shape[:2] == mask.shape:
            found = found.masked_fill(~mask.unsqueeze(-1).to(found.device), 0)
        return found

    def __str__(self) -> str:
        """As a user writes it."""
        what = "logits" if (self.kind, self.name) == ("heads", "logits") else self.kind
        name = f"[{self.name}]" if self.name and what != "logits" else ""
        return what + name + ("" if self.layer is None else f"[{self.layer}]") + (f"@{self.who}" if self.who else "")


class TeacherReading:
    """Which arguments of a student's forward are given what of its teacher's ``Signals``.

    Args:
        spec: name of the argument -> what it is given; see ``ReadingArguments``.

    Raises:
        ValueError: in one sentence.

    Example:
        >>> import torch
        >>> from hf_distill.tasks import SequenceClassification
        >>> shown = Signals({}, hidden=(torch.zeros(1, 2, 4), torch.ones(1, 2, 4)))
        >>> reading = TeacherReading({"told": "hidden[-1]"})
        >>> reading.needs(("text",)), reading.given(shown, SequenceClassification(3), nn.Linear(2, 2))["told"].shape
        (frozenset({'hidden'}), torch.Size([1, 2, 4]))
    """

    def __init__(self, spec: Mapping[str, str]) -> None:
        if not isinstance(spec, Mapping) or not spec:
            raise ValueError(
                f"reads_teacher={spec!r} was given: give a mapping from an argument of the student's forward to what "
                'it reads, such as {"teacher_hidden_states": "hidden[-1]"}.'
            )
        self.places = {name: Place.of(words, f"reads_teacher gives {name}") for name, words in spec.items()}

    @classmethod
    def of(cls, args: Any, student: nn.Module) -> TeacherReading | None:
        """Return what a student reads: as the arguments say, or as its attribute ``reads_teacher`` does.

        Args:
            args: the run's arguments.
            student: the unwrapped student, which may be a PEFT model.

        Returns:
            None where it reads nothing.

        Raises:
            ValueError: in one sentence; also where its forward does not name an argument.
        """
        spec = getattr(args, "reads_teacher", None) or getattr(core_of(student), "reads_teacher", None)
        if spec is None:
            return None
        reading, takes = cls(spec), _takes(student)
        if strangers := sorted(set(reading.places) - set(takes)):
            raise ValueError(
                f"reads_teacher gives {type(core_of(student)).__name__} {', '.join(strangers)}, its forward takes "
                f"{', '.join(takes)}: name one of these, or add the argument."
            )
        return reading

    def __str__(self) -> str:
        """What is read, as a user writes it."""
        return ", ".join(map(str, self.places.values()))

    def needs(self, streams: Sequence[str]) -> frozenset[str]:
        """Return what the teacher is asked for.

        Args:
            streams: of the task, the main one first.
        """
        return frozenset(place.need(streams) for place in self.places.values())

    def required(self, model: nn.Module) -> list[str]:
        """Return what a model's forward cannot do without: the names that it gives no default.

        Args:
            model: the unwrapped student, or a teacher that may be of its kind.
        """
        takes = _takes(model)
        return [name for name in self.places if name in takes and takes[name].default is inspect.Parameter.empty]

    def given(self, shown: Signals, task: Task, student: nn.Module) -> dict[str, Tensor]:
        """Return the arguments of a call.

        Args:
            shown: what the teacher showed.
            task: how it was read.
            student: the unwrapped student, whose dtype and device they are brought to.
        """
        like = next((p for p in student.parameters() if p.is_floating_point()), None)
        found = {name: place.take(shown, task) for name, place in self.places.items()}
        return found if like is None else {n: value.to(like.device, like.dtype) for n, value in found.items()}


def _takes(model: nn.Module) -> dict[str, inspect.Parameter]:
    """The arguments that a forward names; one that takes anything would not miss what nobody reads."""
    some = inspect.signature(type(core_of(model)).forward).parameters
    loose = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: one for name, one in some.items() if name != "self" and one.kind not in loose}


def _range(number: int) -> str:
    return f"{number} of them: name one from 0 to {number - 1}, or from the end" if number else "none: read another"
