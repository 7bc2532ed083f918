"""How well masked language models fill what was hidden, how near they are to their teacher there; a teacher made here.

Knows: trainers, distributions over hidden tokens, shapes of ModernBERT, how figures are shown. Does not know: who
hides tokens, where texts come from, how models were trained.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from datasets import Dataset
from torch import Tensor
from transformers import EvalPrediction, ModernBertConfig, PreTrainedTokenizerBase

from hf_distill.experiments.causal_lm import LanguageModelScoring, averaged, losses_of, tokens_in

NEXT_STEP = (
    "It is made to be fine-tuned on a task, from these weights (its head for hidden tokens is left behind):\n\n"
    "```bash\nhf-distill train text_classification --train_file rows.jsonl --student_model_name_or_path {student}\n```"
)
"""What the card says of what comes next."""
WINDOW = 16
"""How many neighbours a token sees in each layer, half of them before it."""


def blank_modern_bert(recipe: Any, tokenizer: PreTrainedTokenizerBase) -> ModernBertConfig:
    """Shape a ModernBERT that is pretrained from nothing, and learns from few texts to look at neighbours.

    A BERT of this size on the embedded reviews learns in minutes no more than how often each token stands. Two things
    ended that soonest on the validation rows: layers that see only what is near, and weights drawn as wide as this
    width needs (ModernBERT's own 0.02 is for 768). Of a text's classes the mean of its tokens tells: no single one
    sees all of it.

    Args:
        recipe: its sizes.
        tokenizer: of its vocabulary.

    Reference:
        Warner et al.: Smarter, Better, Faster, Longer, arXiv:2412.13663 (local and global attention, 30 % hidden).
    """
    width, depth = recipe.teacher_hidden_size, recipe.teacher_layers
    begin, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    return ModernBertConfig(
        vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=depth,
        num_attention_heads=max(1, width // 64), intermediate_size=4 * width,
        max_position_embeddings=max(64, recipe.max_length), initializer_range=0.02 * (768 / width) ** 0.5,
        layer_types=["sliding_attention"] * depth, local_attention=WINDOW,
        classifier_pooling="mean",
        pad_token_id=tokenizer.pad_token_id, cls_token_id=begin, bos_token_id=begin,
        sep_token_id=end, eos_token_id=end,
    )  # fmt: skip


def hidden_losses(logits: Tensor | tuple, labels: Tensor) -> Tensor:
    """Keep what metrics need of a batch's logits, which would fill the memory: Trainer's preprocessing of logits.

    Args:
        logits: [B, T, V], or a tuple that begins with them.
        labels: [B, T]; -100 does not count.

    Returns:
        [B, T, 2], as ``losses_of`` has it.
    """
    return losses_of(logits[0] if isinstance(logits, tuple) else logits, labels)


def hidden_perplexity(found: EvalPrediction) -> dict[str, float]:
    """Average what ``hidden_losses`` kept: Trainer's ``compute_metrics``.

    Args:
        found: its predictions and labels.

    Returns:
        ``perplexity`` and ``accuracy`` (of the likeliest token), over the tokens that were hidden.
    """
    return averaged(found.predictions, found.label_ids)


class MaskedScoring(LanguageModelScoring):
    """The loss of the tokens that were hidden, how many are found, and nearness to the teacher there.

    All models are asked for the same tokens: the rows have labels. The perplexity is that of hidden tokens, each with
    its text on both sides, and is no figure of a whole text.

    Args:
        special: ids of the tokens that are never hidden.
    """

    plotted: ClassVar[tuple[str, str]] = ("accuracy", "hidden tokens found")
    right: ClassVar[str] = "found"

    def __init__(self, special: list[int]) -> None:
        super().__init__()
        self.special, self.commonest = special, float("nan")

    def targets(self, labels: Tensor) -> Tensor:
        """The token that was hidden there; see ``LanguageModelScoring.targets``."""
        return labels

    def counted_tokens(self, rows: Dataset) -> np.ndarray:
        """Of rows in which tokens are hidden anew each time, all that can be; see ``LanguageModelScoring``."""
        if "labels" in rows.column_names:
            return np.bincount(tokens_in(rows, "labels"))
        tokens = tokens_in(rows, "input_ids")
        return np.bincount(tokens[~np.isin(tokens, self.special)])

    def counted(self, rows: Dataset) -> str:
        """With the tokens that were hidden; see ``Scoring.counted``."""
        return f"{len(tokens_in(rows, 'labels')):,} hidden tokens of {super().counted(rows)}"

    def floor(self, test: Dataset, train: Dataset) -> float:
        """Who knows how often each token stands in the training rows; see ``LanguageModelScoring.floor``."""
        asked = self.counted_tokens(test)
        commonest = self.counted_tokens(train).argmax()
        self.commonest = float(asked[commonest] / asked.sum()) if commonest < len(asked) else 0.0
        return super().floor(test, train)

    def floor_row(self, floor: float | None) -> dict[str, Any]:
        """Who always says the most frequent token finds so many; see ``Scoring.floor_row``."""
        return {**super().floor_row(floor), **({} if floor is None else {"accuracy": self.commonest})}
