"""The two models of a recipe: a teacher and a student, given by path or made here, over the same tokens.

Knows: configurations, checkpoints, layers, adapters. Does not know: data sets, training, what is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from hf_distill.experiments.budgets import Budget, check_budget
from hf_distill.models.timm import timm_named
from hf_distill.students import keep_layers, resized_config
from hf_distill.students.layers import PRESETS


@dataclass
class ModelArguments:
    """Which models, and how large those are that are made here."""

    teacher_model_name_or_path: str | None = field(
        default=None, metadata={"help": "A path or Hub id. Default: a teacher is trained here, once, and kept."}
    )
    finetune_teacher: bool = field(
        default=False, metadata={"help": "Fine-tune the given teacher on the training rows first (kept, too)."}
    )
    teacher_layers: int = field(default=4, metadata={"help": "Layers of a teacher that is trained from nothing."})
    teacher_hidden_size: int = field(default=256, metadata={"help": "Its width, in heads of 64."})
    teacher_epochs: float = field(default=2.0, metadata={"help": "Epochs of training or fine-tuning the teacher."})
    teacher_learning_rate: float = field(default=5e-4, metadata={"help": "Its peak learning rate."})
    student_model_name_or_path: str | None = field(
        default=None, metadata={"help": "A path or Hub id. Default: a small model of the teacher's kind."}
    )
    student_layers: int = field(default=1, metadata={"help": "Layers of a student made here."})
    student_hidden_size: int = field(default=128, metadata={"help": "Its width, in heads of 64."})
    student_from_teacher: bool = field(
        default=False, metadata={"help": "Copy the student's layers from the teacher; same width."}
    )
    student_preset: str = field(default="uniform", metadata={"help": "Which ones: uniform (evenly), top or lowest."})
    student_parameters: float | None = field(
        default=None,
        metadata={
            "help": "Cut the student from the teacher, in depth and width, to at most so many parameters; below 1 a "
            "share of the teacher's."
        },
    )
    shrink_rounds: int = field(
        default=1, metadata={"help": "Shrink to student_parameters in so many rounds, with training after each."}
    )
    lora_rank: int = field(default=0, metadata={"help": "Train a LoRA adapter of this rank on the student (PEFT)."})
    merge_lora: bool = field(default=False, metadata={"help": "Save full weights instead of the adapter."})
    skip_alone: bool = field(default=False, metadata={"help": "Do not train the student without its teacher."})
    num_threads: int | None = field(
        default=None, metadata={"help": "Threads of a process on a CPU. Default: all cores, shared by the processes."}
    )
    max_length: int = field(default=128, metadata={"help": "Longer texts are cut to this many tokens."})

    def check(self) -> None:
        """Refuse settings that contradict each other, before a teacher is trained with them.

        Raises:
            ValueError: an adapter without a base, a width that heads do not divide, layers that no teacher has, or a
                budget beside what it chooses.
        """
        check_budget(self)
        trained, made = self.teacher_model_name_or_path is None, self.student_model_name_or_path is None
        widths = {"teacher_hidden_size": trained, "student_hidden_size": made and not self.student_from_teacher}
        for name in (name for name, used in widths.items() if used):
            self.check_width(name)
        epochs = self.teacher_epochs  # None: the recipe chooses, by the rows
        if (trained or self.finetune_teacher) and epochs is not None and epochs <= 0:
            raise ValueError(f"teacher_epochs={self.teacher_epochs} was given: give more than 0.")
        if self.lora_rank < 0:
            raise ValueError(f"lora_rank={self.lora_rank} was given: give 1 or more, or 0 for no adapter.")
        if made and self.student_from_teacher and self.student_parameters is None:
            self._check_layers()
        if self.lora_rank and not (self.student_model_name_or_path or self.merge_lora):
            raise ValueError(
                "lora_rank was given for a student that is made here, and an adapter is of no use without its base: "
                "name the base with --student_model_name_or_path, or write full weights with --merge_lora."
            )

    def check_width(self, name: str) -> None:
        """Refuse a width of a model that is made here.

        Args:
            name: of the setting.

        Raises:
            ValueError: heads of 64 do not divide it.
        """
        width = getattr(self, name)
        if width % (heads := max(1, width // 64)):
            raise ValueError(f"{name}={width} was given, which {heads} heads do not divide: give a multiple of 64.")

    def _check_layers(self) -> None:
        """Refuse layers that the teacher will not have."""
        if self.student_preset not in PRESETS:
            raise ValueError(f"student_preset={self.student_preset} was given: use {', '.join(PRESETS)}.")
        there = [self.teacher_layers] * 2
        if self.teacher_model_name_or_path is not None:
            with timm_named(f"the teacher {self.teacher_model_name_or_path}"):
                config = AutoConfig.from_pretrained(self.teacher_model_name_or_path).get_text_config()
            names = [("num_hidden_layers",), ("decoder_layers", "num_decoder_layers")]
            there = [next((n for one in own if (n := getattr(config, one, None))), None) for own in names]
        for name, depth in zip(("student_layers", "student_decoder_layers"), there, strict=True):
            asked = getattr(self, name, None)
            if asked is not None and depth is not None and asked > depth:
                raise ValueError(
                    f"{name}={asked} of the teacher's were asked for, and it has {depth}: ask for 1 to {depth}."
                )


def blank_bert(recipe: ModelArguments, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """Shape a BERT that is trained from nothing: heads of 64, an inner layer four times as wide.

    Args:
        recipe: its sizes.
        tokenizer: of its vocabulary.
    """
    width = recipe.teacher_hidden_size
    return BertConfig(
        vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=recipe.teacher_layers,
        num_attention_heads=max(1, width // 64), intermediate_size=4 * width,
        max_position_embeddings=max(64, recipe.max_length),
    )  # fmt: skip


def small_like(recipe: ModelArguments, shape: PreTrainedModel) -> PretrainedConfig:
    """Shape a student as its teacher is, with fewer layers and another width.

    Args:
        recipe: its sizes.
        shape: the teacher.
    """
    sizes = {"hidden_size": recipe.student_hidden_size, "num_hidden_layers": recipe.student_layers}
    return resized_config(shape, **sizes)


@dataclass
class ModelKind:
    """What both models are for.

    Args:
        auto: the transformers class that loads them, such as ``AutoModelForTokenClassification``.
        adapter: PEFT's word for the task.
        names: the classes, in their order; None where the model has none.
        problem_type: as the configuration of a sequence classifier has it; None for others.
        blank: shapes a teacher that is trained from nothing.
        decoder_layers: of an encoder-decoder student of its teacher's layers; None: as many as its encoder has.
        vision_layers: of a student of its teacher's layers that reads images beside a text: how many read the images;
            None: all that do.
        small: shapes a student that is made new, of its teacher's kind.
        other_classes: whether a checkpoint that will be trained may have other classes: its layers of them, as wide
            as there are classes, are made anew.
    """

    auto: Any
    adapter: str
    names: list[str] | None = None
    problem_type: str | None = None
    blank: Callable[[ModelArguments, PreTrainedTokenizerBase], PretrainedConfig] = blank_bert
    decoder_layers: int | None = None
    vision_layers: int | None = None
    small: Callable[[ModelArguments, PreTrainedModel], PretrainedConfig] = small_like
    other_classes: bool = False

    def labelled(self, config: PretrainedConfig) -> PretrainedConfig:
        """Write the data set's class names into a configuration."""
        if self.names is not None:
            config.num_labels = len(self.names)
            config.id2label = dict(enumerate(self.names))
            config.label2id = {name: i for i, name in enumerate(self.names)}
        if self.problem_type is not None:
            config.problem_type = self.problem_type
        return config

    def load(self, source: str | Path) -> PreTrainedModel:
        """Load a model that will be trained, with the data set's classes.

        In float32, whatever it was saved in: an optimizer's small steps are lost in bfloat16 weights.
        """
        fresh = {"ignore_mismatched_sizes": True} if self.other_classes else {}
        with timm_named(f"the model {source}"):
            config = self.labelled(AutoConfig.from_pretrained(source))
            return self.auto.from_pretrained(source, config=config, dtype=torch.float32, **fresh)

    def empty(self, source: str) -> PreTrainedModel:
        """Build a model without its weights: what its configuration means, layer by layer."""
        with timm_named(f"the model {source}"):
            config = AutoConfig.from_pretrained(source)
        with torch.device("meta"):  # by its class: under ZeRO-3 `from_config` would draw weights, which are not there
            return self.auto._model_mapping[type(config)](config)

    def kept(self, source: str | Path) -> PreTrainedModel:
        """Load a model that is finished."""
        kept = self.auto.from_pretrained(source)
        kept.config._name_or_path = ""  # on a card, its class says more than a folder's name
        return kept


def teachers_labels(recipe: ModelArguments) -> dict[str, int] | None:
    """Read the label order of a finished teacher: the rows' labels are numbered in it."""
    finished = recipe.teacher_model_name_or_path and not recipe.finetune_teacher
    with timm_named(f"the teacher {recipe.teacher_model_name_or_path}"):
        return AutoConfig.from_pretrained(recipe.teacher_model_name_or_path).label2id if finished else None


def shared_tokenizer(
    recipe: ModelArguments, make: Callable[[], PreTrainedTokenizerBase] | None = None, aligned: bool = False
) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the rows: that of the given models, or one that is made here.

    Args:
        recipe: the models.
        make: makes one of the training texts; None where a model is always given.
        aligned: whether the trainer compares the vocabularies itself, as it does of language models.

    Raises:
        ValueError: the models read the same token ids, and their tokenizers differ.
    """
    paths = [path for path in (recipe.student_model_name_or_path, recipe.teacher_model_name_or_path) if path]
    found = [AutoTokenizer.from_pretrained(path) for path in paths]
    if not aligned and len(found) == 2 and found[0].get_vocab() != found[1].get_vocab():
        raise ValueError(
            f"the student {paths[0]} and the teacher {paths[1]} read the same token ids, but their tokenizers differ "
            f"({len(found[0])} and {len(found[1])} tokens): name a student with the teacher's tokenizer, or have one "
            "made here."
        )
    return found[0] if found else make()


def untrained_teacher(
    recipe: ModelArguments, kind: ModelKind, tokenizer: PreTrainedTokenizerBase, seed: int
) -> PreTrainedModel:
    """Make the teacher that is trained here: the given one, or a new one.

    Args:
        recipe: which, or its sizes.
        kind: what it is for.
        tokenizer: of its vocabulary.
        seed: of its weights.
    """
    set_seed(seed)
    if recipe.teacher_model_name_or_path:
        return kind.load(recipe.teacher_model_name_or_path)
    return kind.auto.from_config(kind.labelled(kind.blank(recipe, tokenizer)))


def make_student(
    recipe: ModelArguments, kind: ModelKind, teacher: PreTrainedModel | str, seed: int, budget: Budget | None = None
) -> PreTrainedModel:
    """Make the student: a checkpoint, a part of the teacher, or a new model of the teacher's kind.

    Args:
        recipe: which, or its sizes.
        kind: what it is for.
        teacher: a model or its path.
        seed: of what is new in it.
        budget: what the part of the teacher may cost; None: the recipe says which layers.
    """
    set_seed(seed)  # alone and distilled start from the same weights
    if recipe.student_model_name_or_path:
        student = kind.load(recipe.student_model_name_or_path)
    elif budget is not None or recipe.student_from_teacher:
        if isinstance(teacher, str):
            teacher = kind.auto.from_pretrained(teacher, dtype=torch.float32)
        others = {"decoder_layers": kind.decoder_layers, "vision_layers": kind.vision_layers}
        if budget is None:
            student = keep_layers(teacher, recipe.student_layers, recipe.student_preset, **others)
        else:
            student = budget.student(teacher)
            set_seed(seed)  # again: the first time rows were collated, and the student cut
        kind.labelled(student.config)
    else:
        shape = kind.empty(teacher) if isinstance(teacher, str) else teacher
        set_seed(seed)  # again: to build the empty teacher may have drawn numbers
        student = kind.auto.from_config(kind.labelled(kind.small(recipe, shape)))
    if recipe.lora_rank:
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(
            task_type=kind.adapter, r=recipe.lora_rank, lora_alpha=2 * recipe.lora_rank, target_modules="all-linear"
        )
        student = get_peft_model(student, lora)
    return student
