"""Task: how to read a model's outputs for one kind of problem.

Knows: batches, model outputs, the supervised loss as a sum. Does not know: objectives, teachers, trainers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from hf_distill.models.classes import strangers_of
from hf_distill.models.facts import Facts
from hf_distill.models.hooks import Captured, taken_apart
from hf_distill.models.outputs import core_of
from hf_distill.signals import NUMBER, HeadSpec, Signals, Sum
from hf_distill.tasks.comparing import Comparing
from hf_distill.tasks.counting import Counting
from hf_distill.tasks.prompts import virtual_tokens, without_prompt


class Task(Counting, Comparing):
    """The contract of every task; what it says of a batch is in ``Counting``, of two models in ``Comparing``.

    Attributes:
        library: whose class that is, ``transformers`` or ``diffusers``.
        auto_class: the class that loads a model for this task from a path or the Hub.
        pipeline_tag: the task's name on the Hub.
        processor_class: the transformers class that loads what makes a model's inputs, for the card.
        noun: what its models read, for the card.
        example: what a pipeline of transformers is given, in Python, for the card.
        usage: how a student is used, in Python, for the card, where ``library`` has no class that loads it; in braces
            ``repository`` and ``teacher``.
        default_objective: what is learned from the teacher if the user names nothing.
        hidden_first: ``objective="auto"`` compares hidden states in the first half of a run and predictions in the
            second, and not both all the time: what won where each token has an answer.
        own_loss: only the model itself knows its supervised loss: it is given the labels, and ``hard`` returns None,
            or makes a sum of what the model returned.
        shifts_labels: the model predicts position t + 1 at position t, as causal language models do.
        reads_labels: where the batch has no decoder inputs, the model makes them of the labels.
        label_names: the columns that hold its labels; none where nothing but a teacher can teach it (``alpha=1``).
        paired: each row is its own label, as an image with its text, so the supervised loss needs no column.
        of_text: it reads the tokens of a text, and a model that reads none is refused.
        plain_labels: its labels are numbers or lists of them, of which the checks of a run know what is wrong; others
            are looked at by ``check_batch``.
        frames: the positions of an answer are the answering model's own, as those of waves; its ``Signals`` then bring
            their mask, and a cache keeps each row with its own length.
        reads: what the student reads of its teacher (``"hidden"``, ``"hidden@big"``, ...): the teacher is asked for it
            too, also with ``alpha=0``, and ``inputs`` is given what it showed.
        values, vectors: the names of what its models show beside heads (boxes, depth, noise; a text's vector).
        loss_unit: where only the model itself knows its loss, what that is a mean over: one of ``counts``.
        known: the tasks of this package, in the order in which they are tried for a model.
    """

    library: ClassVar[str] = "transformers"
    auto_class: ClassVar[str]
    pipeline_tag: ClassVar[str]
    processor_class: ClassVar[str] = "AutoTokenizer"
    noun: ClassVar[str] = "texts"
    example: ClassVar[str] = '"Some text of yours."'
    usage: ClassVar[str] = ""
    default_objective: str | Mapping[str, Any] = "forward_kl"
    hidden_first: ClassVar[bool] = False
    own_loss: bool = False
    shifts_labels: bool = False
    reads_labels: ClassVar[bool] = False
    label_names: tuple[str, ...] = ("labels",)
    paired: ClassVar[bool] = False
    of_text: ClassVar[bool] = False
    plain_labels: ClassVar[bool] = True
    frames: ClassVar[bool] = False
    reads: frozenset[str] = frozenset()
    values: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()
    loss_unit: str = "samples"
    known: ClassVar[tuple[type[Task], ...]] = ()

    @classmethod
    def of(cls, model: nn.Module) -> Task:
        """Find the task that a model was made for.

        Args:
            model: a transformers model or a PEFT model around one.

        Raises:
            ValueError: no task knows this class of model.

        Example:
            >>> from transformers import BertConfig, BertForSequenceClassification
            >>> tiny = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
            >>> type(Task.of(BertForSequenceClassification(tiny))).__name__
            'SequenceClassification'
        """
        if (task := cls.find(model, taught=True)) is not None:
            return task
        reads = f", which reads {', '.join(strangers)}" if (strangers := strangers_of(model)) else ""
        raise ValueError(
            f"no task is known for {type(core_of(model)).__name__}{reads}, only for those of "
            f"{', '.join(task.auto_class for task in Task.known)}: pass task= an instance of hf_distill.Task."
        )

    @classmethod
    def find(cls, model: nn.Module, taught: bool = False) -> Task | None:
        """Find the task that a model was made for, as ``of`` does, or None.

        Args:
            model: any module.
            taught: there is a teacher, so the task needs no labels of its own.
        """
        known = (task for task in Task.known if taught or task.label_names or task.paired)
        return next((found for task in known if (found := task.from_model(model)) is not None), None)

    @classmethod
    @abstractmethod
    def from_model(cls, model: nn.Module) -> Task | None:
        """Return this task for the model, or None if the model is made for another one.

        Args:
            model: any module.
        """

    def supervises(self) -> bool:
        """Say whether anything but a teacher can teach it: labels, or pairs."""
        return bool(self.label_names) or self.paired

    def labelled_by(self, found: Sequence[str] | None, asked: Sequence[str] | None) -> bool:
        """Say whether the names that a trainer has for labels may stay, and are not to be the task's.

        Args:
            found: those that it has; by itself it takes any argument of a forward for one that is called so, as the
                classes that a denoiser is told.
            asked: those that the user named.
        """
        return bool(found) and (bool(asked) or set(self.label_names) <= set(found))

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """The heads that its models show, and what they are; by default one class of several a sample."""
        return (HeadSpec("logits"),)

    @property
    def distributions(self) -> bool:
        """Whether the model's outputs are distributions; regression predictions are not."""
        return all(head.kind != NUMBER for head in self.heads)

    @property
    def positions(self) -> bool:
        """Whether a head holds one distribution for each position of ``mask``, and not one a sample."""
        return any(head.per_position for head in self.heads)

    @property
    def linear(self) -> bool:
        """Whether its head is the model's output embeddings, and its hard loss the cross-entropy with their labels."""
        return any(head.linear for head in self.heads)

    def infer_from_batch(self, model: nn.Module, batch: Mapping[str, Any]) -> bool:
        """Learn from a first batch what the model's configuration leaves open, and write it there.

        Args:
            model: the student.
            batch: any batch.

        Returns:
            Whether something was learned.
        """
        return False

    def check(self, student: Facts, teacher: Facts) -> None:
        """Refuse a pair of models that cannot be compared.

        Args:
            student: what is known of the student.
            teacher: what is known of the teacher.

        Raises:
            ValueError: in one sentence, what differs and what to do.
        """

    def check_batch(self, batch: Mapping[str, Any]) -> None:
        """Refuse a batch whose labels are none of this task.

        Args:
            batch: the batch, as the collator made it.

        Raises:
            ValueError: in one sentence, what stands in which row.
        """

    def check_inputs(self, batch: Mapping[str, Any]) -> None:
        """Refuse a batch whose columns do not belong together, whatever its labels are.

        Args:
            batch: the batch, as the collator made it.

        Raises:
            ValueError: in one sentence, in which row.
        """

    def asked(self, needs: frozenset[str]) -> frozenset[str]:
        """Say what a teacher is asked for, so that terms can be given what they need: by default the same.

        Args:
            needs: as in ``Term.teacher_needs``.
        """
        return needs

    def references(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Return what stands in the place of labels for ``compute_metrics``, where no column holds some.

        Args:
            batch: the batch.

        Returns:
            [B, ...]; None where there is nothing.
        """
        return None

    def predicted(self, outputs: Any) -> Any:
        """Return what of a model's outputs are predictions: by default all that it returned.

        Args:
            outputs: what the student returned.
        """
        return outputs

    def noted(self) -> dict[str, float]:
        """Return what else is to be logged beside the training loss, since it was last asked: by default nothing."""
        return {}

    def labels_read(self, inputs: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the labels where a model makes what it reads of them, so that they are a part of its input.

        Args:
            inputs: what a model reads of the batch.
            batch: the batch.
        """
        return {}

    def inputs(
        self, model: nn.Module, fed: dict[str, Any], batch: Mapping[str, Any], teacher: Signals | None = None
    ) -> dict[str, Any]:
        """Add what the model would have made of the labels itself, had it been given them, or reads of its teacher.

        Args:
            model: the student or the teacher.
            fed: what it is about to be called with, without labels unless the model computes its own loss.
            batch: the batch, with labels.
            teacher: what the teacher showed, without gradients, for the student of a task that ``reads``, or whose
                encoder is the teacher's (``Signals.encoded``, see ``SharedEncoder``); None for the teacher itself. A
                task that reads nothing may leave the argument out.

        Returns:
            What to call it with.
        """
        return fed

    @abstractmethod
    def hard(self, outputs: Any, batch: Mapping[str, Any], shown: Signals | None) -> Sum | Mapping[str, Sum] | None:
        """Compute the supervised loss as a sum.

        Beside a teacher it runs inside of the student's wrapped forward, where its parameters may be used, under its
        autocast: take ``.float()`` of what may be narrower. One of two arguments runs behind it, on float32 outputs.

        Args:
            outputs: what the student returned.
            batch: the batch, with labels.
            shown: what the student shows, as ``read`` found it, before it is matched with a teacher. Give it a default
                of None only where the loss can do without: nothing is then read for its sake alone.

        Returns:
            The sum over the labels that count; for a loss with several divisors, unit -> sum, each of which is divided
            by what the whole step counts of its unit; None if only the model itself knows its loss.
        """

    @abstractmethod
    def signals(self, model: nn.Module, batch: Mapping[str, Any], outputs: Any, captured: Any = None) -> Signals:
        """Read a model's outputs.

        Args:
            model: who made them.
            batch: the batch.
            outputs: a ``ModelOutput``, a tuple or a tensor.
            captured: what a hook heard on the way, or None.

        Returns:
            The heads, values and vectors of this task, and the hidden states, attention maps and mask that are there.

        Raises:
            ValueError: the outputs hold no logits.
        """

    def read(
        self, model: nn.Module, batch: Mapping[str, Any], outputs: Any, captured: Captured | None = None
    ) -> Signals:
        """Read a model's outputs, and what was heard inside it.

        Args:
            model: who made them.
            batch: the batch.
            outputs: a ``ModelOutput``, a tuple or a tensor.
            captured: what hooks heard on the way; None where nothing was to be heard.

        Returns:
            What it shows; see ``signals``.
        """
        signals = self.signals(model, batch, outputs, captured)
        if captured is not None:
            qkv, encoded = taken_apart(core_of(model), captured.qkv), next(iter(captured.encoded), None)
            signals = replace(signals, taps=captured.taps, qkv=qkv, encoded=encoded)
        return without_prompt(replace(signals, main=self.streams[0]), virtual_tokens(model))
