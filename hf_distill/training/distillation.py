"""Distillation: one task, one teacher, one objective, and how a student's forward is compared with an answer.

Knows: when each of them speaks. Does not know: how a task reads a model, where a teacher's answers come from, what a
term compares; optimizers, data loaders, logging.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerState, TrainingArguments

from hf_distill.models.facts import Facts
from hf_distill.models.hooks import LINEAR, capture
from hf_distill.models.outputs import asking
from hf_distill.objectives import Objective
from hf_distill.signals import Signals, Sum
from hf_distill.tasks import Task
from hf_distill.tasks.layout import LAYOUT, STEP, Layout
from hf_distill.tasks.pairing import naming_lost_places
from hf_distill.tasks.reading import TeacherReading
from hf_distill.teachers import Teacher
from hf_distill.training.alpha import TEMPERATURE, alpha_of
from hf_distill.training.answered import answered
from hf_distill.training.build_objective import build_objective, check_positions, make_visible
from hf_distill.training.checks import check_objective, named_facts
from hf_distill.training.compared import Compared
from hf_distill.training.fused_logits import FusedLogits, FusionArguments, loss_weights
from hf_distill.training.inside_forward import run_inside_forward
from hf_distill.training.projections import attach_to_student
from hf_distill.training.reader import Reader
from hf_distill.training.reading_checks import check_reads
from hf_distill.training.shared_encoder import SharedEncoder
from hf_distill.training.supervised_loss import SupervisedLoss
from hf_distill.training.tally import Tally
from hf_distill.training.window import Window

logger = logging.getLogger(__name__)
ASTRAY = (
    "The term %s counted %d %s than the %s of its batches, by which its loss is divided: let its Sum count what "
    "its unit says, or name another unit (rows, tokens, samples)."
)


class Distillation:
    """What a trainer holds beside its student.

    Args:
        task: how the models are read.
        teacher: who is asked.
        args: the run's arguments, read anew each time, because a hyperparameter search changes them between trials.
        objective: what to learn, before ``args.objective``; None leaves it to these.
        own_tokens: whether the teacher reads tokens of its own.

    Attributes:
        objective: what is learned; None until ``equip``.
        reading: what the student's forward is given of the teacher; None: nothing, and until ``equip``.
    """

    answered = staticmethod(answered)  # how the teacher is asked; several trainings may ask as one

    def __init__(
        self,
        task: Task,
        teacher: Teacher,
        args: TrainingArguments,
        objective: str | Mapping[str, Any] | Objective | None = None,
        own_tokens: bool = False,
    ) -> None:
        self.task, self.teacher, self.args, self.own_tokens = task, teacher, args, own_tokens
        self.objective: Objective | None = None
        self.reading: TeacherReading | None = None
        self._asked, self._built = objective, (None, None)  # what to learn, and for whom it was built
        self._astray, self._told = Tally(), set()  # by how much terms count otherwise than they are divided by

    @property
    def alpha(self) -> float:
        """The teacher's share of the loss."""
        return alpha_of(self.args, self.task, True)

    @property
    def temperature(self) -> float:
        """The run's temperature: ``args.temperature``, or the field's default under plain TrainingArguments."""
        return getattr(self.args, "temperature", TEMPERATURE)

    @property
    def columns(self) -> frozenset[str]:
        """The batch columns that are read beside the student's: the teacher's, and how two tokenizers belong."""
        return self.teacher.columns | self.task.alignment_columns

    @property
    def reads(self) -> frozenset[str]:
        """What the student reads of its teacher, as its task says or its forward names it."""
        streams, reader = self.task.streams, self.reader
        named = frozenset() if self.reading is None else self.reading.needs(streams)
        return self.task.reads | named | (frozenset() if reader is None else {reader.place.need(streams)})

    @property
    def reader(self) -> Reader | None:
        """What is added to the student's embeddings while it learns."""
        return None if self.objective is None else self.objective.reader

    @property
    def asks(self) -> bool:
        """Whether the teacher is asked at all: something is compared, or the student reads what it shows."""
        return self.alpha > 0 or bool(self.reads)

    @property
    def teacher_needs(self) -> frozenset[str]:
        """What the teacher is asked for: what is compared of it, where something is, and what the student reads."""
        return (self.task.asked(self.objective.teacher_needs) if self.alpha > 0 else frozenset()) | self.reads

    @property
    def needs_hidden(self) -> bool:
        """Whether more than distributions is compared."""
        return self.alpha > 0 and self.objective.needs != {"heads"}

    # ---- Before the first step ----

    def equip(self, student: nn.Module, supervised: SupervisedLoss, sharded: bool) -> None:
        """Build what is learned for the student at hand, and let the student carry what has to be trained with it.

        It is called whenever the student or what was asked may have changed: ``model_init`` makes a new student for
        every training, a search may change the objective. What is still right is kept, with what it has learned.

        Args:
            student: the unwrapped student.
            supervised: the supervised half of the loss.
            sharded: whether a strategy is going to shard the student.

        Raises:
            ValueError: in one sentence, if the two models cannot be compared by the objective.
        """
        spec = self._asked if self._asked is not None else getattr(self.args, "objective", None)
        asked = spec, getattr(self.args, "reader", None)
        kept, facts = self._built[0] is student and self._built[1] == asked, Facts.of(student)
        objective = self.objective
        if not kept:
            first = objective is None
            objective = build_objective(spec, self.task, facts, self.teacher, self.own_tokens, first)
        # Before it is checked: a teacher's few ids may hold for one temperature.
        objective.set_temperature(self.temperature)
        objective.set_streams(self.task.streams)
        objective.set_vectors(self.task.vectors)
        check_objective(objective, self.task, self.teacher)
        self.reading = TeacherReading.of(self.args, student)
        check_reads(self.task, self.teacher, self.args, self.reading, student)
        check_positions(objective, self.task, self.own_tokens)
        if not kept:
            reader = None if asked[1] is None else Reader.of(asked[1])
            # Equal on all ranks, and nobody else's random numbers move: with alpha=0 a run is plain Trainer's.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(self.args.seed)
                objective.build(facts, self.teacher.facts, named_facts(self.teacher))
                objective.reader = None if reader is None else reader.build(student, self.task, self.teacher)
            self.objective, self._built = objective, (student, asked)
            self._fusing(supervised).check(student, sharded)
            make_visible(objective, student, self.teacher, self._compiled, self.reads)
        self._sharing = SharedEncoder(self.args, student, self.task, self.teacher, objective.needs, sharded)
        attach_to_student(student, self.objective if self.alpha > 0 or self.reader is not None else None)

    @property
    def _compiled(self) -> bool:
        return getattr(self.args, "torch_compile", False)

    def _fusing(self, supervised: SupervisedLoss) -> FusedLogits:
        asked = getattr(self.args, "fused_logits", FusionArguments.fused_logits)
        return FusedLogits(asked, supervised, self.objective.needs, self._compiled)

    # ---- A step ----

    def ask(self, batch: Mapping[str, Any], fused: bool, state: TrainerState) -> Signals:
        """Ask the teacher about a micro-batch.

        Args:
            batch: the micro-batch.
            fused: ask for what enters the teacher's head in place of its logits, if it can show that.
            state: at which step the run is.

        Returns:
            What the teacher shows.

        Raises:
            ValueError: a logit that is not finite, or a step at which nothing is learned.
        """
        objective, teacher = self.objective, self.teacher
        objective.set_temperature(self.temperature)
        objective.set_step(state.global_step, state.max_steps)
        if self.alpha == 1 and (gap := objective.gap(state.max_steps)) is not None:
            raise ValueError(
                f"alpha=1 learns from the teacher alone, and from step {gap} of {state.max_steps} no term has a "
                "weight: let the schedules of the weights meet, or set alpha below 1."
            )
        if (told := getattr(batch.get(STEP), "answer", None)) is not None:
            return told
        whole = any(need.partition("@")[0] == "heads" for need in self.reads)  # what a student reads are logits
        linear = {LINEAR} if fused and teacher.linear and not whole else set()
        encoded = self._sharing.wants(batch) if self.alpha > 0 else frozenset()
        return self.answered(self.teacher, batch, self.teacher_needs | linear | encoded, state.global_step)

    def read(
        self,
        student: nn.Module,
        fed: Mapping[str, Any],
        batch: Mapping[str, Any],
        supervised: SupervisedLoss,
        state: TrainerState,
    ) -> dict[str, Any]:
        """Return what the student is called with where nothing is compared; the teacher is asked for that alone.

        Args:
            student: the unwrapped student.
            fed: what the student reads of the batch.
            batch: the batch, on the trainer's device.
            supervised: the supervised half of the loss.
            state: at which step the run is.
        """
        shown = self.answered(self.teacher, batch, self.reads, state.global_step) if self.reads else None
        return self._inputs(student, fed, batch, supervised, shown)

    def _inputs(
        self,
        student: nn.Module,
        fed: Mapping[str, Any],
        batch: Mapping[str, Any],
        supervised: SupervisedLoss,
        shown: Signals | None,
    ) -> dict[str, Any]:
        fed = supervised.inputs(student, fed, batch, shown)
        return fed if self.reading is None else {**fed, **self.reading.given(shown, self.task, student)}

    def forward(
        self,
        model: nn.Module,
        student: nn.Module,
        fed: Mapping[str, Any],
        batch: Mapping[str, Any],
        window: Window,
        supervised: SupervisedLoss,
        state: TrainerState,
        autocast: Callable[[], AbstractContextManager],
        note: Callable[[tuple[Signals, Signals], Mapping[str, Any]], None],
        whole: bool = False,
    ) -> Compared:
        """Ask the teacher, run the student, and compare the two inside the student's wrapped forward.

        The student's inputs are made when the teacher has answered, because it may read some of that. The supervised
        loss of the task is computed beside the terms, where the student's own parameters may still be used.

        Args:
            model: the student as it is called: wrapped by DDP, an engine, a compiler.
            student: what is inside of that.
            fed: what the student reads of the batch.
            batch: the micro-batch.
            window: what the whole optimizer step counts.
            supervised: the supervised half of the loss.
            state: at which step the run is.
            autocast: makes the context that the comparison runs in.
            note: is shown both models' signals, and the batch.
            whole: somebody wants the student's logits.

        Returns:
            The student's outputs, the sums of the terms and of the supervised loss.
        """
        learns = self.alpha > 0
        fused = learns and not whole and self._fusing(supervised).applies(student, batch)
        taught = self.ask(batch, fused, state)
        fed = self._inputs(student, fed, batch, supervised, taught)
        needs = (self.objective.needs if learns else frozenset()) | ({LINEAR} if fused else set())
        asked = asking(needs, student)
        weights = loss_weights(self.objective, self.alpha, window) if fused else None

        def compare(outputs: Any) -> tuple[dict[str, Sum | Mapping[str, Sum]], Tensor | float]:
            read = learns or supervised.needs_signals
            shown = self.task.read(student, batch, outputs, captured) if read else None
            idle = 0.0 if learns or self.reader is None else self.objective.zero_for_unused_parameters(False)
            sums, unused = soft(shown) if learns else ({}, idle)
            if supervised.of_the_task and "hard" not in sums:  # last: gradients are then added in the order of old
                sums["hard"] = supervised.sum(outputs, batch, shown)
            return sums, unused

        def soft(shown: Signals) -> tuple[dict[str, Sum], Tensor | float]:
            both = self.task.match(shown, taught, batch)
            note(both, batch)
            if self.objective.needs != {"heads"}:
                both = self.task.each_text(*both, batch)
            return self.objective(*both, batch, weights, shown), self.objective.zero_for_unused_parameters()

        told = (taught, self.task, fed, batch[LAYOUT], self.args.seed, state)
        reads = nullcontext() if self.reader is None else self.reader.on(student, *told)
        with reads, capture(student, needs) as captured, run_inside_forward(student, compare, autocast):
            with naming_lost_places(student, fed):
                found = model(**fed, **asked)
        sums, unused = found["parts"]
        return Compared(found["outputs"], sums, unused, asked)

    def parts(self, sums: Mapping[str, Sum], window: Window, layout: Layout) -> dict[str, Tensor]:
        """Divide each term's sum by what the whole step counts of its unit.

        Args:
            sums: name -> sum, of the terms.
            window: what the whole optimizer step counts.
            layout: what this micro-batch holds, which the terms should have counted too.
        """
        units = {name: self.objective.terms[name].unit for name in sums}
        self._astray.add({n: one.count - layout.counts[units[n]].to(one.count.device) for n, one in sums.items()})
        return {name: window.divide(one.total, units[name]) for name, one in sums.items()}

    def check_counts(self) -> None:
        """Tell once of a term that counts otherwise than it is divided by; waits for the device."""
        for name, difference in self._astray.drain().items():
            if difference and name not in self._told:
                self._told.add(name)
                unit, way = self.objective.terms[name].unit, "more" if difference > 0 else "fewer"
                logger.warning(ASTRAY, name, abs(difference), way, unit)
