"""The conductor: a Trainer that also listens to a teacher.

Knows: when each part speaks, and what a loss is divided by. Does not know: how a task reads a model, where a teacher's
answers come from, or what a term compares; a new task, teacher or objective changes nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import Trainer

from hf_distill.arguments import cache_settings, check_blend, teacher_dtype
from hf_distill.augmentation.source import Augmenting
from hf_distill.hub.card import Trained, add_distillation
from hf_distill.hub.push import PushMixin
from hf_distill.models.context import limits_of
from hf_distill.models.facts import Facts
from hf_distill.models.outputs import without
from hf_distill.objectives import Objective, Term
from hf_distill.rollouts import Rollout
from hf_distill.rollouts.source import Rollouts
from hf_distill.tasks import Task
from hf_distill.tasks.alignment.settings import align_by
from hf_distill.tasks.alignment.tokenizers import introduce, own_tokens
from hf_distill.tasks.layout import LAYOUT
from hf_distill.teachers import Teacher
from hf_distill.training import checks, image_checks, reading_checks, recording_checks, text_checks
from hf_distill.training.alpha import TEMPERATURE, alpha_of
from hf_distill.training.batches import BatchMixin
from hf_distill.training.blend import blend
from hf_distill.training.build_teacher import build_teacher, with_cache
from hf_distill.training.checkpoint import CheckpointMixin
from hf_distill.training.compared import Compared
from hf_distill.training.data_checks import check_data
from hf_distill.training.distillation import Distillation
from hf_distill.training.label_checks import check_labels, wanted_of
from hf_distill.training.metrics import LogMixin
from hf_distill.training.quantized_student import QuantizationMixin
from hf_distill.training.signature import signature_of
from hf_distill.training.supervised_loss import SupervisedLoss, check_supervision
from hf_distill.training.tally import Tally
from hf_distill.training.window import Window


class DistillationMixin(PushMixin, CheckpointMixin, QuantizationMixin, LogMixin, BatchMixin):
    """What distillation adds to any ``Trainer``; put it before the class that it extends.

    Args:
        *args: the base trainer's own parameters, in its own order.
        teacher_model: a model or module, a path or Hub id, a ``Teacher``, a function ``batch -> logits``, or a list of
            these. None: no teacher, and the class behaves as the one it extends.
        objective: what to learn from the teacher, before ``args.objective``: a name, a mapping, a ``Term`` or an
            ``Objective``; see ``hf_distill.objectives.build``.
        task: how to read the models' outputs; None finds it by the student's class.
        rollout: samples that the student or the teacher writes anew, before ``args.rollout``; see ``Rollout``.
        **kwargs: the base trainer's own parameters.

    Raises:
        ValueError: in one sentence, before any step: what was asked, what there was, what to do.

    Example:
        >>> from transformers import Trainer
        >>> class MyTrainer(Trainer): ...
        >>> class MyDistillationTrainer(DistillationMixin, MyTrainer): ...
    """

    # Our losses are divided by what the whole step counts, so Trainer must not divide by the accumulation again.
    # None leaves a student without a task to Trainer's own rules. Older versions do not read this: see `_undivided`.
    loss_is_scaled_for_ga: bool | None = None

    def __init__(
        self,
        *args: Any,
        teacher_model: Any = None,
        objective: str | Mapping[str, Any] | Term | Objective | None = None,
        task: Task | None = None,
        rollout: Rollout | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        teacher_model = self._quantize_student(teacher_model)
        self.report: dict[str, Any] | None = None  # what a recipe measured, for the model card
        self.distillation: Distillation | None = None  # its `objective`: Trainer's search keeps its score under that
        self.rollout = rollout
        self._bare: tuple[nn.Module | None, nn.Module | None] = (None, None)  # a model, and what is in its wrappers
        self._window, self._training, self._evaluating, self._loss_only = None, Tally(), None, False
        task = task or (Task.find(self.model) if teacher_model is None else Task.of(self.model))
        if task is not None:
            text_checks.check_text(task, self.model)
            align_by(task, getattr(self.args, "teacher_alignment", "tokens"))
        self.task = task
        if task is not None and not task.labelled_by(self.label_names, self.args.label_names):
            self.label_names = list(task.label_names)  # Trainer finds them by the names of forward's arguments
            self.can_return_loss |= task.paired
        self.loss_is_scaled_for_ga = None if task is None else True
        self.teacher: Teacher | None = None
        if teacher_model is not None:
            quantization = getattr(self.args, "teacher_quantization", None)
            teacher = build_teacher(teacher_model, task, teacher_dtype(self.args), quantization)
            self.teacher = with_cache(teacher, **cache_settings(self.args))
            own = own_tokens(self.train_dataset)
            self.distillation = Distillation(task, self.teacher, self.args, objective, own)
        ours = self.processing_class
        tokenizer = getattr(self.data_collator, "tokenizer", None) if ours is None else ours
        self.rollouts = Rollouts(task, self.teacher, self.args, rollout, tokenizer)
        self.augmentation = Augmenting(task, self.teacher is not None)
        self._check_settings()
        if self.teacher is None:
            checks.check_alone(self.args, objective)
            reading_checks.check_reads_alone(self.args, task, self._unwrapped(self.model))
        else:
            self.can_return_loss |= not task.label_names  # without labels there is a loss to evaluate too
            self._prepare_distillation()

    def _prepare_distillation(self) -> None:
        """Refuse what cannot be distilled, give the teacher its place, and the student what it has to carry."""
        task, wanted = self.task, wanted_of(self.task, self.compute_loss_func is not None)
        checks.check_parallelism(self.args, self.accelerator)
        checks.check_blocks(self._unwrapped(self.model), self.accelerator)
        checks.check_kernels(self.args, task, self.alpha, type(self.model).__name__)

        data = self.train_dataset, self.eval_dataset, self._kept_columns
        image_checks.check_images(self.model, self.processing_class, self.data_collator, *data)
        recording_checks.check_recordings(self.model, self.teacher, self.data_collator, *data)

        def look(rows: Any, which: str, trained: bool) -> None:
            check_labels(rows, self.label_names, self.data_collator, wanted, which, trained)

        check_data(*data, look if self.alpha < 1 and task.label_names else None)
        self.rollouts.prepare(self.alpha, self._now())
        self.teacher.prepare(self)
        self.data_collator = self.teacher.collator(self.data_collator)
        facts, ours = Facts.of(self.model), self.processing_class
        if task.alignment is not None:
            introduce(task.alignment, facts, ours, self.teacher, self.train_dataset)
        self._equip()
        checks.check_optimizer(self.optimizer, self.distillation.objective)
        checks.check_pair(task, facts, self.teacher)
        self.augmenting()  # refuses what cannot be augmented
        text_checks.check_texts(task, self.model, ours, self.teacher, self.train_dataset, self.data_collator)

    def _equip(self) -> None:
        """Let the student at hand carry what is learned; see ``Distillation.equip``."""
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        self.distillation.equip(self._unwrapped(self.model), self._supervised(), sharded)

    def _unwrapped(self, model: nn.Module) -> nn.Module:
        if self._bare[0] is not model:  # Accelerate looks each time which packages are installed, for a millisecond
            self._bare = (model, self.accelerator.unwrap_model(model, keep_torch_compile=False))
        return self._bare[1]

    # ---- Settings: read anew each time, because a hyperparameter search changes them between trials ----

    @property
    def alpha(self) -> float:
        """The teacher's share of the loss; see ``alpha_of``."""
        return alpha_of(self.args, self.task, self.teacher is not None)

    @property
    def temperature(self) -> float:
        """The run's temperature: ``args.temperature``, or the field's default under plain TrainingArguments."""
        return getattr(self.args, "temperature", TEMPERATURE)

    def _supervised(self) -> SupervisedLoss:
        across = self.args.average_tokens_across_devices
        return SupervisedLoss(self.task, self.alpha, self.compute_loss_func, self.label_smoother, across)

    def _follow_args(self) -> None:
        """Let those that read the arguments read the trainer's, which a user may have put others in the place of."""
        self.rollouts.args = self.args
        if self.distillation is not None:
            self.distillation.args = self.args

    def _check_settings(self) -> None:
        self._follow_args()
        check_blend(getattr(self.args, "alpha", None), self.temperature, self.teacher is not None)
        if self.task is not None and (self.teacher is not None or self.task.label_names):
            check_supervision(self.task, self.alpha, self.label_smoother is not None)

    # ---- The loss ----

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Blend: ``(1 - alpha) * hard + alpha * soft``, each divided by what the whole optimizer step counts.

        Args:
            model: the student, wrapped or not.
            inputs: one micro-batch.
            return_outputs: whether to return the student's outputs too.
            num_items_in_batch: Trainer's count of labels; only a user's ``compute_loss_func`` is given it.

        Returns:
            The loss, and the outputs if they were asked for. Outside of training the batch is its own window.

        Raises:
            ValueError: the teacher gave a logit that is not finite.
        """
        if self.task is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        stepping = model.training and self.is_in_train and self._window is not None
        layout, units = self._layout(inputs), self.task.units
        inputs = {**inputs, LAYOUT: layout}
        window = self._window if stepping else Window.of(layout.units(units), units)
        student, whole = self._unwrapped(model), return_outputs and not self._loss_only
        found = self._run(model, student, inputs, window, whole)
        parts, loss = blend(student, found, inputs, window, self._supervised(), self.distillation, num_items_in_batch)
        self._note(parts, window, stepping)
        if stepping and (undivided := self._undivided(num_items_in_batch)) != 1:
            loss = loss * undivided
        outputs = found.outputs
        if isinstance(outputs, tuple) and not self._supervised().of_the_model:
            outputs = (loss, *outputs)  # prediction_step drops the first entry, where a model puts its loss
        return (loss, self.task.predicted(without(outputs, found.asked))) if return_outputs else loss

    def _run(
        self, model: nn.Module, student: nn.Module, inputs: Mapping[str, Any], window: Window, whole: bool
    ) -> Compared:
        """Run the student, and beside it, where a teacher is asked, all that is compared inside of its forward."""
        fed, supervised = self._student_columns(inputs), self._supervised()
        if self.distillation is None or not self.distillation.asks:
            return Compared(model(**supervised.inputs(student, fed, inputs)))
        told = (self.state, self.accelerator.autocast, self._note_fidelity, whole)
        return self.distillation.forward(model, student, fed, inputs, window, supervised, *told)

    def _student_columns(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Drop the teacher's columns; keep labels only where the model must compute its own loss."""
        # `skip_logits` is Trainer's word to Liger's fused loss in evaluation, where the task needs the logits too.
        own = self._supervised().of_the_model
        drop = self.foreign | (set() if own else {*self.label_names, "skip_logits"})
        fed = {name: value for name, value in inputs.items() if name not in drop}
        limits_of(self.model, self.processing_class).check(fed)
        return fed

    def _undivided(self, num_items: Any) -> int:
        """What to multiply by where Trainer, not reading ``loss_is_scaled_for_ga`` yet, will divide by it again."""
        reads = hasattr(Trainer, "loss_is_scaled_for_ga") or self.compute_loss_func is not None
        trusted = self.model_accepts_loss_kwargs and num_items is not None
        return 1 if reads or trusted else self.current_gradient_accumulation_steps

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, *args: Any, **kwargs: Any
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Predict as Trainer does; without labels the student is called directly, so the teacher's columns go first.

        Args:
            model: the student, wrapped or not.
            inputs: one batch.
            prediction_loss_only: whether to return the loss alone.
            *args: as in ``Trainer.prediction_step``.
            **kwargs: as in ``Trainer.prediction_step``.

        Returns:
            Loss, predictions and labels, each where there are some.
        """
        if self.teacher is not None and not all(inputs.get(name) is not None for name in self.label_names):
            inputs, student = self._prepare_inputs(inputs), self._unwrapped(model)
            told = (self._student_columns(inputs), inputs, self._supervised(), self.state)
            inputs = self.distillation.read(student, *told)
        self._loss_only = prediction_loss_only
        try:
            return super().prediction_step(model, inputs, prediction_loss_only, *args, **kwargs)
        finally:
            self._loss_only = False

    # ---- A training ----

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Start clean, also when Trainer starts again with a smaller batch after running out of memory."""
        self._window, self._training, self._evaluating = None, Tally(), None
        self._check_settings()
        if self.teacher is not None:  # a search may have changed what is asked, model_init the student
            self._equip()
            self._judge.start()
        return super()._inner_training_loop(*args, **kwargs)

    # ---- The card ----

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write Trainer's card, then what was distilled from whom, how, and what it gave.

        Args:
            *args: as in ``Trainer.create_model_card``.
            **kwargs: as in ``Trainer.create_model_card``.
        """
        super().create_model_card(*args, **kwargs)
        if self.teacher is not None and self.is_world_process_zero():
            told = Trained(self.distillation, self.model, self.args, self.state, self.report or {}, self.train_dataset)
            add_distillation(told, self.hub_model_id, str(self.rollouts.asked(self.alpha) or ""), kwargs)


class DistillationTrainer(DistillationMixin, Trainer):
    """``Trainer`` that also listens to a teacher; see ``DistillationMixin`` for what is added.

    ``eval_loss`` is the blend that is trained, which ``load_best_model_at_end`` looks at. The supervised loss beside
    it is ``eval_loss/hard``, a language model's perplexity ``eval_perplexity``; ``exp(eval_loss)`` is none.

    Example:
        >>> import tempfile
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> from hf_distill import DistillationTrainingArguments
        >>> def tiny(width):
        ...     shape = BertConfig(hidden_size=width, num_hidden_layers=1, num_attention_heads=1)
        ...     return BertForSequenceClassification(shape)
        >>> rows = [{"input_ids": [i % 9, 1], "labels": i % 2} for i in range(8)]
        >>> args = DistillationTrainingArguments(tempfile.mkdtemp(), alpha=0.9, use_cpu=True)
        >>> trainer = DistillationTrainer(tiny(4), args, train_dataset=rows, teacher_model=tiny(8))
        >>> trainer.alpha, trainer.distillation.objective.weights  # trainer.train() follows
        (0.9, {'forward_kl': 1.0})
    """


DistillationTrainer.__signature__ = signature_of(DistillationMixin, Trainer)
