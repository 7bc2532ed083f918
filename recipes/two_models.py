"""The two models of a recipe: a teacher and a student, given by path or made here, over the same tokens.

Knows: configurations, checkpoints, layers, adapters. Does not know: data sets, training, what is measured.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers
from chinese_words import character_tokenizer
from transformers import AutoConfig, AutoTokenizer, BertConfig, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from hf_distill.students import keep_layers


@dataclass
class ModelArguments:
    """Which models, and how large those are that are made here."""

    teacher_model_name_or_path: str | None = field(
        default=None, metadata={"help": "A path or Hub id. Default: a BERT is trained here, once, and kept."}
    )
    finetune_teacher: bool = field(
        default=False, metadata={"help": "Fine-tune the given teacher on the training rows first (kept, too)."}
    )
    teacher_layers: int = field(default=4, metadata={"help": "Layers of a teacher that is trained from nothing."})
    teacher_hidden_size: int = field(default=256, metadata={"help": "Its width."})
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
    lora_rank: int = field(default=0, metadata={"help": "Train a LoRA adapter of this rank on the student (PEFT)."})
    merge_lora: bool = field(default=False, metadata={"help": "Save full weights instead of the adapter."})
    skip_alone: bool = field(default=False, metadata={"help": "Do not train the student without its teacher."})
    num_threads: int | None = field(
        default=None, metadata={"help": "Threads of a process on a CPU. Default: all cores, shared by the processes."}
    )
    max_length: int = field(default=128, metadata={"help": "Longer texts are cut to this many tokens."})

    def check(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            ValueError: an adapter without a base.
        """
        if self.lora_rank and not (self.student_model_name_or_path or self.merge_lora):
            raise ValueError(
                "lora_rank was given for a student that is made here, and an adapter is of no use without its base: "
                "name the base with --student_model_name_or_path, or write full weights with --merge_lora."
            )


@dataclass
class Kind:
    """What both models are for.

    Args:
        auto: the transformers class that loads them, such as ``AutoModelForTokenClassification``.
        adapter: PEFT's word for the task.
        names: the classes, in their order; None where the model has none.
        problem_type: as the configuration of a sequence classifier has it; None for others.
    """

    auto: Any
    adapter: str
    names: list[str] | None = None
    problem_type: str | None = None

    def labelled(self, config: transformers.PretrainedConfig) -> transformers.PretrainedConfig:
        """Write the data set's class names into a configuration."""
        if self.names is not None:
            config.num_labels = len(self.names)
            config.id2label = dict(enumerate(self.names))
            config.label2id = {name: i for i, name in enumerate(self.names)}
        if self.problem_type is not None:
            config.problem_type = self.problem_type
        return config

    def load(self, source: str | Path) -> PreTrainedModel:
        """Load a model, with the data set's classes."""
        return self.auto.from_pretrained(source, config=self.labelled(AutoConfig.from_pretrained(source)))

    def kept(self, folder: Path) -> PreTrainedModel:
        """Load a teacher that was trained here."""
        kept = self.auto.from_pretrained(folder)
        kept.config._name_or_path = ""  # on a card, its class says more than a folder's name
        return kept


def teachers_labels(recipe: ModelArguments) -> dict[str, int] | None:
    """Read the label order of a finished teacher: the rows' labels are numbered in it."""
    finished = recipe.teacher_model_name_or_path and not recipe.finetune_teacher
    return AutoConfig.from_pretrained(recipe.teacher_model_name_or_path).label2id if finished else None


def shared_tokenizer(recipe: ModelArguments, texts: list[str]) -> PreTrainedTokenizerBase:
    """Return the one tokenizer of both models: that of the given ones, which must agree, or the texts' characters."""
    paths = [path for path in (recipe.student_model_name_or_path, recipe.teacher_model_name_or_path) if path]
    found = [AutoTokenizer.from_pretrained(path) for path in paths]
    if len(found) == 2 and found[0].get_vocab() != found[1].get_vocab():
        raise ValueError(
            f"the student {paths[0]} and the teacher {paths[1]} read the same token ids, but their tokenizers differ "
            f"({len(found[0])} and {len(found[1])} tokens): name a student with the teacher's tokenizer, or have one "
            "made here."
        )
    return found[0] if found else character_tokenizer(texts)


def shaped(config: transformers.PretrainedConfig, layers: int, width: int) -> transformers.PretrainedConfig:
    """Return a configuration of the same kind with other sizes: heads of 64, an inner layer four times as wide."""
    config = copy.deepcopy(config)
    config._name_or_path = ""  # only the kind is taken over, so the card must not name a base model
    config.num_hidden_layers, config.hidden_size = layers, width
    config.num_attention_heads, config.intermediate_size = max(1, width // 64), 4 * width
    return config


def untrained_teacher(
    recipe: ModelArguments, kind: Kind, tokenizer: PreTrainedTokenizerBase, seed: int
) -> PreTrainedModel:
    """Make the teacher that is trained here: the given one, or a new BERT."""
    set_seed(seed)
    if recipe.teacher_model_name_or_path:
        return kind.load(recipe.teacher_model_name_or_path)
    empty = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=max(64, recipe.max_length))
    return kind.auto.from_config(kind.labelled(shaped(empty, recipe.teacher_layers, recipe.teacher_hidden_size)))


def make_student(recipe: ModelArguments, kind: Kind, teacher: PreTrainedModel | str, seed: int) -> PreTrainedModel:
    """Make the student: a checkpoint, some of the teacher's layers, or a new model of the teacher's kind."""
    set_seed(seed)  # alone and distilled start from the same weights
    if recipe.student_model_name_or_path:
        student = kind.load(recipe.student_model_name_or_path)
    elif recipe.student_from_teacher:
        if isinstance(teacher, str):
            teacher = kind.auto.from_pretrained(teacher)
        student = keep_layers(teacher, recipe.student_layers, recipe.student_preset)
        kind.labelled(student.config)
    else:
        config = AutoConfig.from_pretrained(teacher) if isinstance(teacher, str) else teacher.config
        student = kind.auto.from_config(
            kind.labelled(shaped(config, recipe.student_layers, recipe.student_hidden_size))
        )
    if recipe.lora_rank:
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(
            task_type=kind.adapter, r=recipe.lora_rank, lora_alpha=2 * recipe.lora_rank, target_modules="all-linear"
        )
        student = get_peft_model(student, lora)
    return student
