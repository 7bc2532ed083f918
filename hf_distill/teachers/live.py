"""Teachers that are asked each time: a model, or a plain function.

Knows: how to freeze, place and feed a model. Does not know: terms, the student, caches, optimizers.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from hf_distill.signals import Facts, Signals
from hf_distill.tasks import Task
from hf_distill.tasks.task import core_of
from hf_distill.teachers.teacher import Teacher

if TYPE_CHECKING:
    from transformers import Trainer

PREFIX = "teacher_"
"""A batch column ``teacher_input_ids`` is the teacher's ``input_ids``, and nobody else's."""


class LiveTeacher:
    """A frozen model that is run for each batch: in eval mode, without gradients, under the student's autocast.

    Args:
        model: any module whose outputs hold logits. ``prepare`` sets it to eval mode and its parameters stop
            requiring gradients; nothing else of it changes, ever.
        task: how to read its outputs; None takes the trainer's.
        tokenizer: its tokenizer, if it is known: it is compared with the student's.

    Raises:
        ValueError: a transformers model without a head (``AutoModel``), which cannot give logits.

    Example:
        >>> from hf_distill.tasks import SequenceClassification
        >>> teacher = LiveTeacher(nn.Linear(4, 2), SequenceClassification(num_labels=2))
        >>> teacher({"input": torch.ones(3, 4)}, frozenset({"heads"})).heads["logits"].logits.shape
        torch.Size([3, 2])
    """

    serves = frozenset({"heads", "hidden", "attention"})
    collective = False

    def __init__(
        self, model: nn.Module, task: Task | None = None, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> None:
        if type(model).__name__ in MODEL_MAPPING_NAMES.values():
            raise ValueError(
                f"{type(model).__name__} was given as teacher, but it gives hidden states and no logits: load it with "
                "the AutoModelFor... class of your task."
            )
        self.model = model
        self.task, self.tokenizer = task, tokenizer
        self.facts = Facts.of(model)
        parameters = inspect.signature(core_of(model).forward).parameters
        self._takes = {n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        self._takes -= {"labels", "return_dict", "output_hidden_states", "output_attentions", "use_cache"}
        self._accepts = set(parameters)
        self._takes_any = not self._takes and any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        self.columns = frozenset(self._takes | {PREFIX + name for name in self._takes})
        self._autocast: Callable[[], Any] = contextlib.nullcontext

    def prepare(self, trainer: Trainer) -> None:
        """Freeze, and move to the trainer's device unless already spread over devices; see ``Teacher.prepare``."""
        self.task = self.task or trainer.task
        shared = {id(p) for p in trainer.model.parameters()} & {id(p) for p in self.model.parameters()}
        if shared:
            raise ValueError(
                f"the teacher {self.facts.name} shares {len(shared)} parameters with the student, which would train "
                "or freeze both: pass a copy (copy.deepcopy(model)) as teacher_model."
            )
        self.model.eval().requires_grad_(False)
        placed = getattr(self.model, "hf_device_map", None) or getattr(self.model, "quantization_method", None)
        if not placed:
            self.model.to(trainer.args.device)
        # Asked anew for each call: a hyperparameter search replaces the accelerator in every trial.
        self._autocast = lambda: trainer.accelerator.autocast()
        columns = getattr(trainer.train_dataset, "column_names", None) or ()
        self._compare_tokenizers(trainer.processing_class, columns)

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Keep what the model's forward takes; ``teacher_x`` comes before ``x``. See ``Teacher.inputs``."""
        own = {name.removeprefix(PREFIX): value for name, value in batch.items() if name.startswith(PREFIX)}
        taken = own or batch  # a teacher with its own tokens must not be given the student's mask beside them
        return {n: v for n, v in taken.items() if n in self._takes or (self._takes_any and n != "labels")}

    def __call__(self, batch: Mapping[str, Any], needs: frozenset[str]) -> Signals:
        """Run the model; see ``Teacher.__call__``."""
        extra = {"use_cache": False} if "use_cache" in self._accepts else {}
        for need, flag in (("hidden", "output_hidden_states"), ("attention", "output_attentions")):
            if need in needs:  # transformers models take these among their **kwargs, whatever their signature says
                extra[flag] = True
        inputs = self.inputs(batch)
        if not inputs:
            raise ValueError(
                f"the teacher {self.facts.name} takes {sorted(self._takes)}, the batch has {sorted(batch)}: keep the "
                "teacher's columns in the data set."
            )
        self.model.eval()  # someone who owns the model elsewhere may have called train()
        with torch.no_grad(), self._autocast():
            outputs = self.model(**inputs, **extra)
        return self.task.signals(self.model, batch, outputs)

    def _compare_tokenizers(self, ours: Any, columns: Iterable[str]) -> None:
        """Refuse a teacher that would read the student's token ids as other tokens."""
        if not isinstance(ours, PreTrainedTokenizerBase) or any(name.startswith(PREFIX) for name in columns):
            return
        theirs = self.tokenizer or _tokenizer_at(self.facts.name)
        if theirs is None:
            known = self.facts.vocab_size
            if known is not None and len(ours) > known:
                raise ValueError(
                    f"the student's tokenizer has {len(ours)} tokens, the teacher {self.facts.name} knows {known}: "
                    f"use the teacher's tokenizer for both, or {_TWO_TOKENIZERS}."
                )
            return
        vocabulary = theirs.get_vocab()
        moved = sum(vocabulary.get(token) != index for token, index in ours.get_vocab().items())
        if moved:
            raise ValueError(
                f"the teacher {self.facts.name} and the student read the same input_ids, but {moved} of the student's "
                f"{len(ours)} tokens have another id or none in the teacher's tokenizer: use one tokenizer for both, "
                f"or {_TWO_TOKENIZERS}."
            )


class FunctionTeacher:
    """A plain function ``batch -> logits``: a scikit-learn pipeline, a table, a remote service.

    Args:
        function: takes the batch (a mapping, on the trainer's device) and returns logits as a tensor or an array;
            log-probabilities are logits too.
        task: how to read them; None takes the trainer's.
        columns: the batch columns that it reads beside the student's; they are kept in the data set for it.

    Example:
        >>> from hf_distill.tasks import SequenceClassification
        >>> teacher = FunctionTeacher(lambda batch: [[0.0, 1.0]] * 3, SequenceClassification(num_labels=2))
        >>> teacher({"input_ids": torch.ones(3, 4)}, frozenset({"heads"})).heads["logits"].logits.shape
        torch.Size([3, 2])
    """

    serves = frozenset({"heads"})
    collective = False

    def __init__(
        self, function: Callable[[Mapping[str, Any]], Any], task: Task | None = None, columns: Iterable[str] = ()
    ) -> None:
        self.function, self.task, self.columns = function, task, frozenset(columns)
        self.facts = Facts(name=getattr(function, "__name__", type(function).__name__))

    def prepare(self, trainer: Trainer) -> None:
        """Take the trainer's task; see ``Teacher.prepare``."""
        self.task = self.task or trainer.task

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Everything but the labels; see ``Teacher.inputs``."""
        return {name: value for name, value in batch.items() if name != "labels"}

    def __call__(self, batch: Mapping[str, Any], needs: frozenset[str]) -> Signals:
        """Call the function; see ``Teacher.__call__``."""
        with torch.no_grad():
            outputs = self.function(self.inputs(batch))
        if not isinstance(outputs, (Tensor, Mapping, tuple)):
            outputs = torch.as_tensor(outputs)
        return self.task.signals(None, batch, outputs)


def teacher_of(spec: Any, task: Task) -> Teacher:
    """Make a teacher of whatever a user passes as ``teacher_model``.

    Args:
        spec: a model or module, a path or Hub id, a Teacher, or a function ``batch -> logits``.
        task: how to load and read it.

    Returns:
        The Teacher; a Teacher is returned as it is.

    Raises:
        ValueError: the path or Hub id holds a model without a trained head.
        TypeError: ``spec`` is something else.

    Example:
        >>> from hf_distill.tasks import SequenceClassification
        >>> teacher_of(nn.Linear(4, 2), SequenceClassification(num_labels=2)).facts.name
        'Linear'
    """
    if isinstance(spec, (str, Path)):
        auto = getattr(transformers, task.auto_class)
        model, info = auto.from_pretrained(spec, output_loading_info=True)
        if missing := sorted(info["missing_keys"]):
            raise ValueError(
                f"the teacher at {spec} has no trained weights for {', '.join(missing)}: fine-tune it on your task "
                "first, an untrained head teaches noise."
            )
        return LiveTeacher(model, tokenizer=_tokenizer_at(spec))
    if isinstance(spec, nn.Module):
        return LiveTeacher(spec)
    if isinstance(spec, Teacher):
        return spec
    if callable(spec):
        return FunctionTeacher(spec)
    raise TypeError(
        f"teacher_model is a {type(spec).__name__}: give a model, a path or Hub id, a hf_distill.Teacher, or a "
        "function from a batch to logits."
    )


_TWO_TOKENIZERS = (
    "tokenise with both and put the teacher's into columns teacher_input_ids, teacher_attention_mask, ..."
)


def _tokenizer_at(name: str | Path) -> PreTrainedTokenizerBase | None:
    """Load the tokenizer beside a model; None where there is none, or none without asking the network again."""
    if Path(name).is_dir() and not (Path(name) / "tokenizer_config.json").is_file():
        return None
    try:
        return AutoTokenizer.from_pretrained(name, local_files_only=not Path(name).is_dir())
    except (OSError, ValueError, KeyError):
        return None
