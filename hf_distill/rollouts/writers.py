"""Who writes in a run: its student as it is now, its teacher once for each prompt.

Knows: a trainer's two models, whether ranks must write together. Does not know: which rows are chosen, losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from hf_distill.models.context import context_of
from hf_distill.models.outputs import core_of
from hf_distill.rollouts.padding import Row
from hf_distill.rollouts.prompts import DecoderLayout, EncoderDecoderLayout
from hf_distill.rollouts.served import Served
from hf_distill.rollouts.settings import Rollout
from hf_distill.rollouts.texts import Texts, keys_for
from hf_distill.rollouts.writing import OnlyTokens, drawing, students_way, teachers_way, write
from hf_distill.tasks import CausalLM, Seq2SeqLM
from hf_distill.teachers.adapter_off import evaluating
from hf_distill.teachers.teacher import Teacher

if TYPE_CHECKING:
    from transformers import Trainer

Chosen = Sequence[tuple[tuple[int, int], Row, np.ndarray]]
"""(micro-batch, row), its prompt, and a number for each token that is drawn."""

FOLDER = "_teacher_texts"
"""Under ``output_dir``; what begins with ``_`` is not uploaded with a student."""


class Writers:
    """The student and the teacher of a trainer, as writers.

    Args:
        trainer: the trainer; its teacher's weights are still whole.
        asked: what is written.

    Raises:
        ValueError: the teacher was asked to write and cannot.
    """

    def __init__(self, trainer: Trainer, asked: Rollout) -> None:
        self.trainer, self.asked, self.tokenizer = trainer, asked, trainer.processing_class
        self.tokenizer = getattr(self.tokenizer, "tokenizer", self.tokenizer)  # of a processor
        if self.tokenizer is None:
            self.tokenizer = getattr(trainer.data_collator, "tokenizer", None)
        vocabulary = self.tokenizer.get_vocab() if hasattr(self.tokenizer, "get_vocab") else None
        self.only = [OnlyTokens(1 + max(vocabulary.values()))] if vocabulary else []
        kind = DecoderLayout if trainer.task.shifts_labels else EncoderDecoderLayout
        pad = students_way(self.core, asked, self.tokenizer).pad_token_id
        self.layout = kind(pad, getattr(self.tokenizer, "padding_side", "right") == "left")
        self.author: Any = None
        self.served: Served | None = None
        if asked.seq_kd:
            self.author = _author(trainer.teacher)
            self.texts = Texts(asked.folder or Path(trainer.args.output_dir) / FOLDER, trainer.args.process_index)
            self._who = self.author.fingerprint(trainer) or repr(self.author.facts)
            if asked.server:
                name = getattr(core_of(self.author.model), "name_or_path", "") or self.author.facts.name
                self.served = Served(asked.server, name)
                self.served.check(teachers_way(self.author.model, asked, self.tokenizer))
                self._who += f" {self.served.model}"  # it may serve other weights than the teacher's

    @property
    def student_model(self) -> nn.Module:
        """The student without the wrappers of a strategy; asked anew, ``model_init`` makes one for every training."""
        return self.trainer.accelerator.unwrap_model(self.trainer.model, keep_torch_compile=False)

    @property
    def core(self) -> nn.Module:
        """The transformers model inside the student."""
        return core_of(self.student_model)

    def student(self, chosen: Chosen) -> dict[tuple[int, int], Tensor]:
        """Let the student write, in eval mode.

        Args:
            chosen: what to continue.

        Returns:
            (micro-batch, row) -> tokens.
        """
        trainer, model = self.trainer, self.student_model
        synced = trainer.accelerator.num_processes > 1 and (trainer.is_fsdp_enabled or _is_zero3(trainer))
        if not self.asked.on_policy or not self._anywhere(bool(chosen), synced):
            return {}
        prompts, uniform = [prompt for _, prompt, _ in chosen], [numbers for _, _, numbers in chosen]
        if not chosen:
            prompts, uniform = [self._anything()], [np.zeros(self.asked.max_new_tokens)]
        check_room(trainer, prompts, self.asked, self.layout.left_prompts)
        way = students_way(model, self.asked, self.tokenizer)
        with evaluating(model), trainer.compute_loss_context_manager():
            processors = [*self.only, *drawing(self.asked, uniform)]
            texts = write(model, prompts, way, self.layout.left_prompts, processors, synced=synced)
        return {place: text for (place, _, _), text in zip(chosen, texts, strict=False)}

    def teacher(self, chosen: Chosen) -> dict[tuple[int, int], Tensor]:
        """Return what the teacher writes, which it is asked for once for each prompt.

        Args:
            chosen: what to continue.

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
        if self._anywhere(bool(missing), collective):
            new = [prompts[keys.index(key)] for key in missing] or [self._anything()]
            check_room(self.trainer, new, self.asked, left)
            if self.served:
                texts = self.served.write(new, way)
            else:
                synced = collective and self.trainer.accelerator.num_processes > 1
                texts = write(model, new, way, left, self.only, self.author.generate, synced)
            if missing:
                self.texts.add({key: text.numpy() for key, text in zip(missing, texts, strict=True)})
        written = (torch.from_numpy(self.texts[key].astype(np.int64)) for key in keys)
        return {place: text for (place, _, _), text in zip(chosen, written, strict=True)}

    def _anywhere(self, flag: bool, together: bool) -> bool:
        """Whether somebody writes: a sharded model needs all ranks, also those that have nothing to write."""
        if not together:
            return flag
        told = torch.tensor(float(flag), device=self.trainer.args.device)
        return bool(self.trainer.accelerator.reduce(told, reduction="sum"))

    def _anything(self) -> Row:
        return {"input_ids": torch.tensor([self.layout.pad])}


def check_student(trainer: Trainer, asked: Rollout) -> None:
    """Refuse rollouts for a model that does not write, or that would learn from what it wrote.

    Args:
        trainer: the trainer, constructed, with its task.
        asked: what is written.

    Raises:
        ValueError: in one sentence.
    """
    core = core_of(trainer.model)
    if not isinstance(trainer.task, (CausalLM, Seq2SeqLM)) or not getattr(core, "can_generate", lambda: False)():
        raise ValueError(
            f"rollout was asked for {type(core).__name__}, but only a causal or an encoder-decoder language model "
            "writes: leave it out."
        )
    if asked.server and not trainer.task.shifts_labels:
        raise ValueError(
            f"rollout was given server={asked.server!r}, and vLLM does not write for encoder-decoder models such as "
            f"{type(core).__name__}: leave server out."
        )
    if asked.on_policy and trainer.task.own_loss and trainer.alpha < 1:
        raise ValueError(
            f"on_policy={asked.on_policy:g} adds rows that the supervised loss must not count, and "
            f"{type(core).__name__} computes a loss of its own: set alpha=1, or on_policy=0."
        )
    if asked.on_policy and trainer.is_fsdp_enabled and not getattr(trainer.accelerator, "is_fsdp2", False):
        raise ValueError("on_policy was asked for under FSDP1, whose student cannot write: set fsdp_version to 2.")
    if trainer.is_fsdp_enabled and not trainer.task.shifts_labels:
        raise ValueError(
            "rollout was asked for encoder-decoder models under FSDP, which cannot run an encoder alone as generating "
            "does: use DDP or ZeRO, or leave it out."
        )
    check_room(trainer, [], asked, trainer.task.shifts_labels)


def check_room(trainer: Trainer, prompts: Sequence[Row], asked: Rollout, behind: bool) -> None:
    """Refuse a text that one of the models could not read to its end.

    Args:
        trainer: the trainer.
        prompts: what is continued; none: only the text itself is looked at.
        asked: how long a text may be.
        behind: whether a text stands behind its prompt, or in a decoder of its own.

    Raises:
        ValueError: in one sentence.
    """
    longest = max((len(prompt["input_ids"]) for prompt in prompts), default=0) if behind else 0
    for name, limit in _contexts(trainer).items():
        if longest + asked.max_new_tokens > limit:
            prompt = f"a prompt of {longest} tokens and " if longest else ""
            raise ValueError(
                f"rollout may make {prompt}a text of max_new_tokens={asked.max_new_tokens}, {name} reads {limit} "
                "positions (max_position_embeddings): lower max_new_tokens, or shorten the prompts."
            )


def check_context(trainer: Trainer, batch: Mapping[str, Any]) -> None:
    """Refuse a batch that is longer than one of the models reads.

    Args:
        trainer: the trainer.
        batch: the batch, rewritten.

    Raises:
        ValueError: in one sentence.
    """
    length = max(batch[name].shape[1] for name in ("input_ids", "labels") if name in batch)
    for name, limit in _contexts(trainer).items():
        if length > limit:
            raise ValueError(
                f"the batch is {length} tokens long, {name} reads {limit} positions (max_position_embeddings): cut "
                "the rows, or use models that read as much."
            )


def _contexts(trainer: Trainer) -> dict[str, int]:
    """How many positions each model reads, where its configuration says so."""
    found = {}
    for name, model in (("the student", trainer.model), ("the teacher", trainer.teacher.model)):
        if model is not None and (limit := context_of(model)) is not None:
            found[f"{name} {type(core_of(model)).__name__}"] = limit
    return found


def _author(teacher: Teacher) -> Teacher:
    """The model that writes: the teacher, or the one whose answers are kept."""
    author = teacher.uncached
    if not author.writes:
        raise ValueError(
            f"seq_kd lets the teacher write, and {author.facts.name} cannot: pass one language model as "
            "teacher_model, or set seq_kd=0."
        )
    return author


def _is_zero3(trainer: Trainer) -> bool:
    return trainer.is_deepspeed_enabled and trainer.accelerator.state.deepspeed_plugin.zero_stage == 3
