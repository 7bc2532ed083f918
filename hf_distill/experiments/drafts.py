"""Two drafts of one teacher: a head that reads what it saw, and a plain layer that does not.

Knows: how both are made, which settings there are. Does not know: where texts come from, how a
draft is measured, how a loss is computed.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel, Trainer, set_seed

from hf_distill import DraftHead
from hf_distill.experiments.experiment import Experiment
from hf_distill.experiments.models import ModelArguments
from hf_distill.experiments.settings import RecipeTrainingArguments, arguments_for
from hf_distill.students.draft_layout import COPIED


def plain_draft(head: DraftHead) -> LlamaForCausalLM:
    """Make the control: one Llama layer with the same embeddings, norm and head, frozen, that reads no state.

    Args:
        head: whose embeddings it has; the layer is random.
    """
    sizes = ("num_hidden_layers", "tie_word_embeddings", "head_dim", "rope_parameters", *COPIED)
    made = LlamaForCausalLM(LlamaConfig(**{name: copy.deepcopy(getattr(head.config, name)) for name in sizes}))
    parts = {made.model.embed_tokens: head.embed_tokens, made.model.norm: head.norm, made.lm_head: head.lm_head}
    for own, theirs in parts.items():
        own.load_state_dict(theirs.state_dict())
        own.requires_grad_(False)
    return made


@dataclass
class DraftArguments(ModelArguments):
    """The teacher, and the drafts, which are as wide as it is."""

    teacher_layers: int = field(default=6, metadata={"help": "Layers of a teacher that is trained from nothing."})
    teacher_hidden_size: int = field(default=128, metadata={"help": "Its width, in heads of 64; the drafts' too."})
    teacher_epochs: float = field(default=3.0, metadata={"help": "Epochs of training or fine-tuning the teacher."})
    teacher_learning_rate: float = field(default=2e-3, metadata={"help": "Its peak learning rate."})
    student_from_teacher: bool = field(default=True, metadata={"help": "The drafts have the teacher's width."})
    unrolled: int = field(default=3, metadata={"help": "Tokens of a draft that are learned, and written at a time."})
    prompts: int = field(default=20, metadata={"help": "Behind so many test rows' beginnings a text is written."})
    prompt_tokens: int = field(default=8, metadata={"help": "So long are these, where a row has no prompt."})
    new_tokens: int = field(default=48, metadata={"help": "How many tokens are written at most."})

    def check(self) -> None:
        """Refuse what no draft head can be; see the base."""
        for name in ("student_model_name_or_path", "lora_rank", "student_parameters"):
            if given := getattr(self, name):
                raise ValueError(
                    f"{name}={given} was given, and a draft head is one new layer made of its teacher: leave it out."
                )
        for name in ("unrolled", "prompt_tokens", "new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} was given: give 1 or more.")
        super().check()


class DraftExperiment(Experiment):
    """The teacher, a draft head that reads it, and a plain draft under the same teacher for as many steps."""

    def distilled(self, teacher: PreTrainedModel | str, args: RecipeTrainingArguments) -> Trainer:
        """Make the trainer of the draft head; see the base."""
        return self.trainer(self.head(teacher, args.seed), args, teacher)

    def alone(self, teacher: PreTrainedModel | str, args: RecipeTrainingArguments) -> Trainer:
        """Make the trainer of the plain draft, which has the same teacher; see the base."""
        return self.trainer(plain_draft(self.head(teacher, args.seed)), args, teacher)

    def arguments_alone(self, **changes: Any) -> RecipeTrainingArguments:
        """Return the head's arguments for the plain draft: the teacher's share is the same; see the base."""
        return arguments_for(self.args, "_plain", alpha=self.args.alpha, **changes)

    def head(self, teacher: PreTrainedModel | str, seed: int) -> DraftHead:
        """Make a draft head, in float32 whatever its teacher is in.

        Args:
            teacher: a model or its path.
            seed: of its layer.
        """
        if isinstance(teacher, str):
            teacher = AutoModelForCausalLM.from_pretrained(teacher, dtype="auto")
        set_seed(seed)
        return DraftHead.from_teacher(teacher, unrolled=self.recipe.unrolled).float()
