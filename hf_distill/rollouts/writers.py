"""Who writes in a run: its student as it is now, its teacher once for each prompt.

Knows: a run's two models, whether ranks must write together. Does not know: which rows are chosen, losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import GenerationConfig

from hf_distill.models.outputs import core_of
from hf_distill.rollouts.filtering import Filter
from hf_distill.rollouts.images import ImageTextLayout, NoPlaces
from hf_distill.rollouts.padding import Row
from hf_distill.rollouts.prompts import DecoderLayout, EncoderDecoderLayout
from hf_distill.rollouts.recordings import RecordingLayout
from hf_distill.rollouts.room import check_room, contexts_of
from hf_distill.rollouts.served import Served
from hf_distill.rollouts.settings import Rollout
from hf_distill.rollouts.texts import Texts, keys_for
from hf_distill.rollouts.writing import (
    OnlyTokens,
    begins_with,
    drawing,
    ends_of,
    students_way,
    teachers_way,
    write,
)
from hf_distill.tasks import CausalLM, ImageTextToText, ImageTextToTextSeq2Seq, Seq2SeqLM, Task
from hf_distill.tasks.reading import TeacherReading
from hf_distill.teachers.adapter_off import evaluating
from hf_distill.teachers.teacher import Teacher

Chosen = Sequence[tuple[tuple[int, int], Row, np.ndarray]]
"""(micro-batch, row), its prompt, and a number for each token that is drawn."""

FOLDER = "_teacher_texts"
"""Under ``output_dir``; what begins with ``_`` is not uploaded with a student."""


@dataclass(frozen=True)
class Now:
    """Who writes at a step, and where.

    Args:
        student: the student as it is now, without the wrappers of a strategy; ``model_init`` makes one for every
            training.
        accelerator: the run's; a search makes one for every trial.
        autocast: makes the context that the student computes in.
    """

    student: nn.Module
    accelerator: Accelerator
    autocast: Callable[[], AbstractContextManager]

    @property
    def fsdp(self) -> bool:
        """Whether the student is sharded by FSDP."""
        return getattr(self.accelerator.state, "fsdp_plugin", None) is not None

    @property
    def synced(self) -> bool:
        """Whether the student is spread over ranks, which must then write together."""
        deepspeed = getattr(self.accelerator.state, "deepspeed_plugin", None)
        spread = self.fsdp or (deepspeed is not None and deepspeed.zero_stage == 3)
        return spread and self.accelerator.num_processes > 1

    def anywhere(self, flag: bool, together: bool) -> bool:
        """Say whether somebody writes: a sharded model needs all ranks, also those that have nothing to write.

        Args:
            flag: whether this rank does.
            together: whether ranks must write together.
        """
        if not together:
            return flag
        told = torch.tensor(float(flag), device=self.accelerator.device)
        return bool(self.accelerator.reduce(told, reduction="sum"))


class Writers:
    """The student and the teacher of a run, as writers.

    Args:
        asked: what is written.
        task: how the models are read.
        student: the student.
        teacher: the teacher; its weights are still whole.
        tokenizer: the student's, or None.
        folder: where the teacher's texts are kept, if nothing else was asked.
        rank: of this process.

    Raises:
        ValueError: the teacher was asked to write and cannot.
    """

    def __init__(
        self,
        asked: Rollout,
        task: Task,
        student: nn.Module,
        teacher: Teacher,
        tokenizer: Any,
        folder: str | Path,
        rank: int,
    ) -> None:
        self.asked, self.tokenizer = asked, tokenizer
        vocabulary = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else None
        self.only = [OnlyTokens(1 + max(vocabulary.values()))] if vocabulary else []
        pad = students_way(core_of(student), asked, tokenizer).pad_token_id
        left, main = getattr(tokenizer, "padding_side", "right") == "left", core_of(student).main_input_name
        if not task.shifts_labels and main != EncoderDecoderLayout.main:
            self.layout = RecordingLayout(pad, left, main)
        elif isinstance(task, ImageTextToText):
            self.layout, places = ImageTextLayout(pad, left, task.placeholders), task.placeholders.values()
            self.only += [NoPlaces([*places])]
        else:
            self.layout = (DecoderLayout if task.shifts_labels else EncoderDecoderLayout)(pad, left)
        self.models: dict[str, nn.Module | None] = {"the teacher": teacher.model}
        self.author: Teacher | None = None
        self.served: Served | None = None
        self.filter: Filter | None = None
        if asked.seq_kd:
            self.author = _author(teacher)
            self.texts = Texts(asked.folder or Path(folder) / FOLDER, rank)
            self._who = self.author.fingerprint(student) or repr(self.author.facts)
            way = teachers_way(self.author.model, asked, tokenizer)
            self.filter = Filter(asked, tokenizer, ends_of(way), loops=task.of_text, english=_is_english(way))
            if asked.server:
                name = getattr(core_of(self.author.model), "name_or_path", "") or self.author.facts.name
                self.served = Served(asked.server, name)
                self.served.check(way)
                self._who += f" {self.served.model}"  # it may serve other weights than the teacher's

    def student(self, chosen: Chosen, now: Now, spare: Row | None = None) -> dict[tuple[int, int], Tensor]:
        """Let the student write, in eval mode.

        Args:
            chosen: what to continue.
            now: the student as it is.
            spare: a prompt for a rank that has nothing to write while others do.

        Returns:
            (micro-batch, row) -> tokens.
        """
        if not self.asked.on_policy or not now.anywhere(bool(chosen), now.synced):
            return {}
        prompts, uniform = [prompt for _, prompt, _ in chosen], [numbers for _, _, numbers in chosen]
        if not chosen:
            prompts, uniform = [spare or self._anything()], [np.zeros(self.asked.max_new_tokens)]
        model, left = now.student, self.layout.left_prompts
        check_room(self.contexts(now), prompts, self.asked, left)
        way = students_way(model, self.asked, self.tokenizer)
        with evaluating(model), now.autocast():
            processors = [*self.only, *drawing(self.asked, uniform)]
            texts = write(model, prompts, way, left, processors, synced=now.synced, stack=self.layout.stack)
        return {place: text for (place, _, _), text in zip(chosen, texts, strict=False)}

    def teacher(self, chosen: Chosen, now: Now, spare: Row | None = None) -> dict[tuple[int, int], Tensor]:
        """Return what the teacher writes, which it is asked for once for each prompt.

        Args:
            chosen: what to continue.
            now: where the run is.
            spare: a prompt for a rank that has nothing to write while others do.

        Returns:
            (micro-batch, row) -> tokens.
        """
        if self.author is None:
            return {}
        model, left = self.author.model, self.layout.left_prompts
        way = teachers_way(model, self.asked, self.tokenizer)
        prompts = [{name: tokens.cpu() for name, tokens in prompt.items()} for _, prompt, _ in chosen]
        keys = keys_for(prompts, f"{self._who} {way.to_json_string(use_diff=True, ignore_metadata=True)}")
        missing = self.texts.missing(keys)
        collective = self.author.collective and not self.served  # a server waits for no rank
        if now.anywhere(bool(missing), collective):
            new = [prompts[keys.index(key)] for key in missing] or [spare or self._anything()]
            check_room(self.contexts(now), new, self.asked, left)
            if self.served:
                texts = self.served.write(new, way)
            else:
                synced = collective and now.accelerator.num_processes > 1
                texts = write(model, new, way, left, self.only, self.author.generate, synced, self.layout.stack)
            if missing:
                self.texts.add({key: text.numpy() for key, text in zip(missing, texts, strict=True)})
        written = (torch.from_numpy(self.texts[key].astype(np.int64)) for key in keys)
        return {place: text for (place, _, _), text in zip(chosen, written, strict=True)}

    def contexts(self, now: Now) -> dict[str, int]:
        """Return how many positions each model reads, where its configuration says so.

        Args:
            now: the student as it is.
        """
        return contexts_of({"the student": now.student, **self.models})

    def _anything(self) -> Row:
        return {"input_ids": torch.tensor([self.layout.pad])}


def check_student(asked: Rollout, task: Task, alpha: float, teacher: Teacher, now: Now) -> None:
    """Refuse rollouts for a model that does not write, or that would learn from what it wrote.

    Args:
        asked: what is written.
        task: how the models are read.
        alpha: the teacher's share of the loss.
        teacher: the teacher.
        now: the student.

    Raises:
        ValueError: in one sentence.
    """
    core = core_of(now.student)
    if not isinstance(task, (CausalLM, Seq2SeqLM)) or not getattr(core, "can_generate", lambda: False)():
        raise ValueError(
            f"rollout was asked for {type(core).__name__}, but only a causal or an encoder-decoder language model "
            "writes: leave it out."
        )
    if asked.server and not task.shifts_labels:
        raise ValueError(
            f"rollout was given server={asked.server!r}, and vLLM does not write for encoder-decoder models such as "
            f"{type(core).__name__}: leave server out."
        )
    if asked.server and isinstance(task, ImageTextToText):
        raise ValueError(
            f"rollout was given server={asked.server!r}, which is sent tokens and no images, and "
            f"{type(core).__name__} reads both: leave server out."
        )
    if isinstance(task, ImageTextToTextSeq2Seq) and core.main_input_name == EncoderDecoderLayout.main:
        raise ValueError(
            f"rollout was asked for {type(core).__name__}, whose encoder reads a text beside the image: leave it out, "
            "and let the teacher write the labels beforehand."
        )
    if asked.on_policy and task.own_loss and alpha < 1:
        raise ValueError(
            f"on_policy={asked.on_policy:g} adds rows that the supervised loss must not count, and "
            f"{type(core).__name__} computes a loss of its own: set alpha=1, or on_policy=0."
        )
    if asked.on_policy and now.fsdp and not getattr(now.accelerator, "is_fsdp2", False):
        raise ValueError("on_policy was asked for under FSDP1, whose student cannot write: set fsdp_version to 2.")
    if now.fsdp and not task.shifts_labels:
        raise ValueError(
            "rollout was asked for encoder-decoder models under FSDP, which cannot run an encoder alone as generating "
            "does: use DDP or ZeRO, or leave it out."
        )
    begun = max(begins_with(model) for model in (now.student, teacher.model) if model is not None)
    contexts = contexts_of({"the student": now.student, "the teacher": teacher.model})
    check_room(contexts, [], asked, task.shifts_labels, begun)
    if isinstance(task, CausalLM) and not task.shifts_labels:
        raise ValueError(
            f"rollout was asked for {type(core).__name__}, whose labels are those of the next "
            "position, which do not say where a prompt ends: use a model that shifts its labels itself, or leave "
            "rollout out."
        )


def check_reads_nothing(on_policy: float, task: Task, reading: TeacherReading | None, student: nn.Module) -> None:
    """Refuse to let a student write that cannot do without what its teacher shows.

    Args:
        on_policy: the share of rows that it writes.
        task: how the models are read.
        reading: what its forward is given of the teacher; None: nothing.
        student: the unwrapped student.

    Raises:
        ValueError: in one sentence.
    """
    read = ", ".join(sorted(task.reads)) or (str(reading) if reading and reading.required(student) else "")
    if read:
        raise ValueError(
            f"on_policy={on_policy:g} lets the student write, which reads {read} of its teacher, who is not asked "
            "while it writes: set on_policy=0."
        )


def _is_english(way: GenerationConfig) -> bool:
    """Whether a teacher writes English and nothing else, as Whisper's generation_config says it."""
    language = str(getattr(way, "language", None) or "").lower().strip("<|>")
    return language in ("en", "english") or getattr(way, "is_multilingual", None) is False


def _author(teacher: Teacher) -> Teacher:
    """The model that writes: the teacher, or the one whose answers are kept."""
    author = teacher.uncached
    if not author.writes:
        raise ValueError(
            f"seq_kd lets the teacher write, and {author.facts.name} cannot: pass one language model as "
            "teacher_model, or set seq_kd=0."
        )
    return author
