"""A teacher that is asked each time: a frozen model.

Knows: how to freeze, cast and feed a model. Does not know: where it is placed, terms, the student, caches, optimizers.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import find_device, send_to_device
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from hf_distill.models.context import Limits, embedded
from hf_distill.models.encoder import encoder_of
from hf_distill.models.facts import Facts
from hf_distill.models.frames import in_own_dtype
from hf_distill.models.head import logit_transform
from hf_distill.models.hooks import CAPTURED, ENCODED, capture
from hf_distill.models.outputs import SHOWN, asking, core_of
from hf_distill.signals import Signals
from hf_distill.tasks import Task
from hf_distill.tasks.alignment.tokenizers import PREFIX, check_tokenizers, columns_of
from hf_distill.tasks.comparing import reads_own
from hf_distill.tasks.layout import without_layout
from hf_distill.tasks.pairing import naming_lost_places
from hf_distill.tasks.processors import check_processors
from hf_distill.tasks.sentence_embedding import HEADLESS
from hf_distill.teachers.placement import place
from hf_distill.teachers.teacher import Teacher

if TYPE_CHECKING:
    from transformers import Trainer

logger = logging.getLogger(__name__)
NOT_READ = {"labels", "return_dict", "return_loss", "output_hidden_states", "output_attentions", "use_cache"}
"""What a forward takes beside its inputs."""


class LiveTeacher(Teacher):
    """A frozen model that is run for each batch, in eval mode and without gradients.

    Args:
        model: any module whose outputs hold logits; hidden states, where the task has no head. ``prepare`` sets it to
            eval mode, stops its gradients and puts it where the student is: on its device, or sharded with it under
            FSDP2 and ZeRO-3. One from ``torch.compile`` is run compiled, but for what hooks have to hear.
        task: how to read its outputs; None takes the trainer's.
        tokenizer: its tokenizer, if it is known: it is compared with the student's.
        dtype: the precision of its weights and of what it computes. None leaves the weights as they are and runs
            them under the student's autocast.

    Raises:
        ValueError: a transformers model without a head (``AutoModel``) for a task that needs logits; or a dtype for a
            quantised model.

    Example:
        >>> from hf_distill.tasks import SequenceClassification
        >>> teacher = LiveTeacher(nn.Linear(4, 2), SequenceClassification(num_labels=2))
        >>> teacher({"input": torch.ones(3, 4)}, frozenset({"heads"})).heads["logits"].logits.shape
        torch.Size([3, 2])
    """

    serves = frozenset({"heads", "values", "vectors", *SHOWN, *CAPTURED})

    def __init__(
        self,
        model: nn.Module,
        task: Task | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if dtype is not None and (method := getattr(model, "quantization_method", None)):
            raise ValueError(
                f"teacher_dtype={dtype} was given for a teacher that is quantised ({method}): leave teacher_dtype out."
            )
        # A compiled model is read, placed and heard as what is inside of it, and called as it was given.
        self._compiled = model if hasattr(model, "_orig_mod") else None
        model = getattr(model, "_orig_mod", model)
        self.model, self.task, self.tokenizer, self.dtype = model, task, tokenizer, dtype
        if task is not None:
            self._check_head(task)
        self._autocast: Callable[[], Any] = contextlib.nullcontext
        self._run: Callable[..., Any] | None = None
        self._smaller = False  # whether the student's texts may have tokens that it does not have
        self._read(model)

    def _read(self, model: nn.Module) -> None:
        """Learn what the model is, what it shows and what its forward takes."""
        self.facts = Facts.of(model)
        headless = type(core_of(model)).__name__ in HEADLESS
        encodes = {ENCODED} if encoder_of(model) is not None else set()
        self.serves = LiveTeacher.serves - ({"heads"} if headless else set()) | encodes
        parameters = inspect.signature(core_of(model).forward).parameters
        self._takes = {n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        self._takes -= NOT_READ
        self._accepts = set(parameters)
        self._takes_any = not self._takes and any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        self.columns = frozenset(self._takes | {PREFIX + name for name in self._takes})

    @property
    def linear(self) -> bool:
        """Whether it can show what enters its head in place of its logits; a head that is sharded cannot."""
        return not self.collective and logit_transform(self.model) is not None

    def prepare(self, trainer: Trainer) -> None:
        """Freeze, cast and place the model; see ``Teacher.prepare``."""
        self.task = self.task or trainer.task
        self._check_head(self.task)
        # What both have and neither trains, as an encoder, may be one; not where it is cast or sharded for both.
        apart = self.dtype is not None or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
        trained = {id(p) for p in trainer.model.parameters() if apart or p.requires_grad}
        shared = trained & {id(p) for p in self.model.parameters()}
        if shared:
            raise ValueError(
                f"the teacher {self.facts.name} shares {len(shared)} parameters with the student, which would train "
                "or freeze both: pass a copy (copy.deepcopy(model)) as teacher_model."
            )
        self._smaller = (embedded(self.model) or 0) < (embedded(trainer.model) or 0)
        ours, collator = trainer.processing_class, trainer.data_collator
        columns = {*columns_of(trainer.train_dataset), *getattr(collator, "teacher_columns", ())}
        words = ours
        if self.task.paired:  # a processor of images holds the tokenizer of the texts
            words = getattr(ours or getattr(collator, "processor", None), "tokenizer", ours)
        elif self.task.alignment is not None:
            words = getattr(ours, "tokenizer", ours)
        check_tokenizers(self.facts, self.tokenizer, words, columns)
        if self.task.paired or not reads_own(columns):
            check_processors(self.facts, ours, collator)
        self.model.eval().requires_grad_(False)
        if self._run is None:  # a second trainer takes the teacher as the first one left it
            if self.dtype is not None:
                self.model.to(self.dtype)
            self._run, self.collective = place(self.model, trainer.accelerator, self.dtype)
            if self._compiled is not None and self._run is self.model and not self.collective:
                self._run = self._compiled
        self._precision(trainer.args.device.type, lambda: trainer.accelerator.autocast())

    def _check_head(self, task: Task) -> None:
        name = type(core_of(self.model)).__name__
        if task.label_names and name in HEADLESS and name != task.auto_class:
            raise ValueError(
                f"{name} was given as teacher, but it gives hidden states and no logits: load it with the "
                "AutoModelFor... class of your task."
            )

    def _precision(self, device: str, autocast: Callable[[], Any]) -> None:
        # The student's is asked anew for each call: a search replaces the accelerator in every trial.
        self._autocast = autocast if self.dtype is None else lambda: torch.autocast(device, enabled=False)

    def held(self) -> list[nn.Module]:
        """What its answers depend on; see ``Teacher.held``."""
        return [self.model]

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Keep what the model's forward takes; ``teacher_x`` comes before ``x``. See ``Teacher.inputs``."""
        own = {name.removeprefix(PREFIX): value for name, value in batch.items() if name.startswith(PREFIX)}
        if not (self._takes_any or self._takes & own.keys()):
            own = {}  # a column such as teacher_logits, which another one reads
        taken = own or batch  # a teacher with its own tokens must not be given the student's mask beside them
        labels = {"labels", *(() if self.task is None else self.task.label_names)}
        return {n: v for n, v in taken.items() if n not in labels and (n in self._takes or self._takes_any)}

    def __call__(self, batch: Mapping[str, Any], needs: frozenset[str]) -> Signals:
        """Run the model; see ``Teacher.__call__``."""
        inputs = self.inputs(batch)
        if not inputs:
            raise ValueError(
                f"the teacher {self.facts.name} takes {sorted(self._takes)}, the batch has "
                f"{sorted(without_layout(batch))}: keep the teacher's columns in the data set."
            )
        # Flags go in whatever the signature says: transformers models take them among their **kwargs.
        flags = {**asking(needs, self.model), **({"use_cache": False} if "use_cache" in self._accepts else {})}
        read = self.task.teacher_batch(batch)
        inputs = self.task.inputs(self.model, inputs, read)
        self.limits.check(inputs)
        inputs = in_own_dtype(self.model, inputs)
        with torch.no_grad(), self._autocast():
            with capture(self.model, needs) as captured:
                # Compiled code does not run hooks that were not there when it was compiled.
                eager = contextlib.nullcontext() if captured is None else torch.compiler.set_stance("force_eager")
                with eager, naming_lost_places(self.model, inputs):
                    outputs = self._forward(**inputs, **flags)
        # A model that is spread over devices, or lives on another one, may answer there.
        outputs, captured = (send_to_device(one, find_device(batch)) for one in (outputs, captured))
        return self.task.read(self.model, read, outputs, captured)

    @functools.cached_property
    def limits(self) -> Limits:
        """What it can read."""
        return Limits(
            self.model,
            f"the teacher {self.facts.name}",
            "cut the rows (max_length), or use a teacher that reads as much",
            "give it tokens of its own (columns teacher_input_ids, teacher_attention_mask), or use a teacher with the "
            "student's vocabulary",
            every=self._smaller,
        )

    @property
    def writes(self) -> bool:
        """Whether its model can write a text."""
        return getattr(core_of(self.model), "can_generate", lambda: False)()

    def generate(self, **inputs: Any) -> Tensor:
        """Let the model write.

        Args:
            **inputs: as transformers' ``generate``.

        Returns:
            Token ids [B, T].
        """
        self.model.eval()
        with torch.no_grad(), self._autocast():
            return self.model.generate(**inputs)

    def _forward(self, **inputs: Any) -> Any:
        self.model.eval()  # someone who owns the model elsewhere may have called train()
        return (self.model if self._run is None else self._run)(**inputs)
