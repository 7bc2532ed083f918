"""Several students that learn from one teacher side by side, so that it runs once for each batch.

Knows: trainers, what of their settings has to be equal. Does not know: how a turn is taken, how an answer is kept.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from transformers import enable_full_determinism, set_seed
from transformers.trainer_utils import TrainOutput

from hf_distill.teachers import Teacher
from hf_distill.trainer import DistillationMixin
from hf_distill.training.shared_answers import SharedAnswers
from hf_distill.training.turns import Turns

EQUAL = (
    "per_device_train_batch_size", "gradient_accumulation_steps", "seed", "data_seed", "train_sampling_strategy",
    "dataloader_drop_last", "bf16", "fp16",
)  # fmt: skip
"""The settings that say which rows are in a batch, and how a teacher answers it."""
ALONE = ("teacher_prepass", "teacher_whole_window", "auto_find_batch_size", "enable_jit_checkpoint")
"""What a training does outside of its turns."""


def train_together(
    trainers: Sequence[DistillationMixin], resume_from_checkpoint: str | bool | None = None
) -> list[TrainOutput]:
    """Train several students under one teacher, which is run once for each batch and not once for each student.

    The trainers take turns, a batch each; the first asks the teacher, the others have its answer. Each keeps its own
    arguments, objective, optimizer, logs and checkpoints, and learns, bit for bit, what it would learn alone under
    its seed. Only where batches are drawn with the numbers that dropout moves (hidden tokens,
    ``group_by_length``) does it learn from those that the first one drew. Answers to evaluation rows are shared where
    the trainers evaluate at the same steps.

    Worth it where rows never come again as they were; of others a cache keeps the answers, and the students can be
    trained one after the other.

    Args:
        trainers: two or more, with the same training rows, the same teacher object, and equal settings of what is in
            a batch. Their students, learning rates, objectives and lengths may be any.
        resume_from_checkpoint: as in ``Trainer.train``; with True each goes on from its own newest checkpoint, and
            one that is behind catches up first.

    Returns:
        What each one's ``train`` returned.

    Raises:
        ValueError: in one sentence, before any step, if they cannot be trained together.

    Example:
        >>> import contextlib, io, tempfile
        >>> from datasets import Dataset
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> from hf_distill import DistillationTrainer, DistillationTrainingArguments
        >>> def bert(width):
        ...     sizes = {"hidden_size": width, "intermediate_size": width, "num_attention_heads": 2}
        ...     return BertForSequenceClassification(BertConfig(vocab_size=9, num_hidden_layers=1, **sizes))
        >>> rows = Dataset.from_dict({"input_ids": [[2, 3], [4, 5]], "labels": [0, 1]})
        >>> teacher, folder = bert(16), tempfile.mkdtemp()
        >>> trainers = [
        ...     DistillationTrainer(
        ...         bert(width),
        ...         DistillationTrainingArguments(f"{folder}/{width}", report_to="none", disable_tqdm=True),
        ...         train_dataset=rows, teacher_model=teacher,
        ...     )
        ...     for width in (4, 8)
        ... ]
        >>> with contextlib.redirect_stdout(io.StringIO()):  # the logs
        ...     outputs = train_together(trainers)
        >>> [output.global_step for output in outputs]
        [3, 3]
    """
    trainers = [*trainers]
    check_together(trainers)
    turns = Turns(len(trainers))
    shared = SharedAnswers(turns, [functools.partial(needed, one) for one in trainers])
    own = [one.teacher for one in trainers]
    try:
        for number, one in enumerate(trainers):
            one.teacher = one.distillation.teacher = own[0]  # whose memory serves all
            one.distillation.answered = functools.partial(shared.answer, number)
            one.shared_draw = functools.partial(shared.draw, number)
        return turns.run([functools.partial(begin, one, resume_from_checkpoint) for one in trainers])
    finally:
        for one, teacher in zip(trainers, own, strict=True):
            one.teacher = one.distillation.teacher = teacher
            del one.distillation.answered, one.shared_draw


def begin(trainer: DistillationMixin, resume_from_checkpoint: str | bool | None) -> TrainOutput:
    """Train one of them in its turns, with the random numbers that it has when it is trained right after it is made.

    Args:
        trainer: the trainer.
        resume_from_checkpoint: as in ``Trainer.train``.
    """
    args = trainer.args
    (enable_full_determinism if args.full_determinism else set_seed)(args.seed)
    return trainer.train(resume_from_checkpoint=resume_from_checkpoint)


def needed(trainer: DistillationMixin) -> frozenset[str]:
    """What a trainer asks of its teacher.

    Args:
        trainer: the trainer.
    """
    return trainer.distillation.teacher_needs


def speakers(teacher: Teacher) -> list[int]:
    """Who is asked, behind caches and means: the identity of each.

    Args:
        teacher: any.
    """
    if teacher.members:
        return [one for member in teacher.members.values() for one in speakers(member)]
    return [id(teacher.uncached if teacher.model is None else teacher.model)]


def check_together(trainers: Sequence[DistillationMixin]) -> None:
    """Refuse trainers that cannot take turns, or have no teacher in common.

    Args:
        trainers: all of them.

    Raises:
        ValueError: in one sentence.
    """
    if len(trainers) < 2 or len({id(one) for one in trainers}) < len(trainers):
        raise ValueError(f"train_together was given {len(trainers)} trainers: give two different ones, or more.")
    for number, one in enumerate(trainers):
        who = f"trainer {number} of train_together"
        if one.distillation is None or not one.distillation.asks:
            raise ValueError(f"{who} asks no teacher: pass teacher_model= and alpha above 0, or train it alone.")
        if one.teacher.moves:
            raise ValueError(
                f"{who} has the teacher {one.teacher.facts.name}, whose answers change while a student "
                "learns: train it alone."
            )
        if one.is_fsdp_enabled or one.is_deepspeed_enabled:
            raise ValueError(f"{who} is sharded by FSDP or DeepSpeed, which one process has once: use DDP.")
        if one.rollouts.asked(one.alpha) is not None:
            raise ValueError(
                f"{who} has a rollout, whose texts are its student's own, so nobody else can use what the teacher "
                "says of them: leave rollout out, or train it alone."
            )
        if asked := [name for name in ALONE if getattr(one.args, name, False)]:
            raise ValueError(f"{who} has {asked[0]}={getattr(one.args, asked[0])}: leave it out, or train it alone.")
        if getattr(one.args, "teacher_cache", "auto") not in ("auto", "off"):
            raise ValueError(
                f"{who} keeps its teacher's answers in {one.args.teacher_cache}, from where they serve any number of "
                "students: train these one after the other, or leave teacher_cache out."
            )
        for earlier, other in enumerate(trainers[:number]):
            check_alike(one, other, who, f"trainer {earlier}")


def check_alike(one: DistillationMixin, other: DistillationMixin, who: str, whom: str) -> None:
    """Refuse a trainer that has other rows, batches or another teacher than one before it, or what is that one's own.

    Args:
        one: the trainer.
        other: the one before it.
        who: what to call the trainer.
        whom: what to call the one before it.

    Raises:
        ValueError: in one sentence.
    """
    if speakers(one.teacher) != speakers(other.teacher):
        raise ValueError(
            f"{who} has the teacher {one.teacher.facts.name}, but not the one of {whom}: load it once, and pass "
            "the same object to all."
        )
    if type(one.task) is not type(other.task):
        raise ValueError(
            f"{who} reads models as {type(one.task).__name__} and {whom} as {type(other.task).__name__}: train "
            "together what learns the same task."
        )
    ours, theirs = (getattr(rows, "_fingerprint", rows) for rows in (one.train_dataset, other.train_dataset))
    if ours is not theirs and not (isinstance(ours, str) and ours == theirs):
        raise ValueError(f"{who} has other training rows than {whom}: pass the same data set to all.")
    for name in EQUAL:
        found, wanted = (getattr(trainer.args, name, None) for trainer in (one, other))
        if found != wanted:
            raise ValueError(
                f"{who} has {name}={found!r} and {whom} has {wanted!r}, so a batch of one is none of the other's: "
                "set the same for all."
            )
    if {id(p) for p in one.model.parameters()} & {id(p) for p in other.model.parameters()}:
        raise ValueError(f"{who} trains parameters of the student of {whom}: give each a student of its own.")
    if Path(one.args.output_dir).resolve() == Path(other.args.output_dir).resolve():
        raise ValueError(f"{who} writes into {one.args.output_dir}, as {whom} does: give each its own output_dir.")
