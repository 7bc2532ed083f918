"""How well language models predict held-out text, and how near they are to their teacher there; a teacher made here.

Knows: trainers, distributions over the next token, shapes of Llama, how figures are shown. Does not know: where texts
come from, how models were trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import EvalPrediction, LlamaConfig, PreTrainedTokenizerBase, Trainer

from hf_distill.experiments.assisted_generation import accepted_tokens
from hf_distill.experiments.scoring import Column, Measurement, Scoring, percent
from hf_distill.objectives.functional import forward_kl
from hf_distill.reports import GapClosed, ratio_shares

IGNORED = -100
ROWS = 1_000
"""Rows that are read at once, where all are counted."""
KEYS = ("loss", "accuracy", "kl", "agreement")


def blank_llama(recipe: Any, tokenizer: PreTrainedTokenizerBase) -> LlamaConfig:
    """Shape a teacher that is trained from nothing.

    Args:
        recipe: its sizes.
        tokenizer: of its vocabulary.
    """
    width = recipe.teacher_hidden_size
    return LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=3 * width, tie_word_embeddings=True,
        num_hidden_layers=recipe.teacher_layers, num_attention_heads=max(1, width // 64),
        max_position_embeddings=max(512, recipe.max_length), pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip


def token_losses(logits: Tensor | tuple, labels: Tensor) -> Tensor:
    """Keep what metrics need of a batch's logits, which would fill the memory: Trainer's preprocessing of logits.

    Args:
        logits: [B, T, V], or a tuple that begins with them.
        labels: [B, T]; -100 does not count.

    Returns:
        [B, T - 1, 2] float32: the loss in nats, and whether the likeliest token is right (1) or not (0).
    """
    logits = logits[0] if isinstance(logits, tuple) else logits
    return losses_of(logits[:, :-1], labels[:, 1:])


def losses_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Compare distributions with the tokens that were right.

    Args:
        logits: [B, T, V].
        targets: [B, T]; -100 does not count.

    Returns:
        [B, T, 2] float32: the loss in nats, and whether the likeliest token is right (1) or not (0).
    """
    loss = F.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none", ignore_index=IGNORED)
    return torch.stack((loss, (logits.argmax(-1) == targets).float()), dim=-1)


def perplexity(found: EvalPrediction) -> dict[str, float]:
    """Average what ``token_losses`` kept: Trainer's ``compute_metrics``.

    Args:
        found: its predictions and labels.

    Returns:
        ``perplexity`` and ``accuracy`` (of the likeliest token), over the labels that count.
    """
    return averaged(found.predictions, found.label_ids[:, 1:])


def averaged(losses: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Average what ``losses_of`` returned.

    Args:
        losses: [N, T, 2].
        targets: [N, T]; -100 does not count.
    """
    loss, right = (losses[..., i][targets != IGNORED].mean() for i in range(2))
    return {"perplexity": float(np.exp(loss)), "accuracy": float(right)}


class LanguageModelScoring(Scoring):
    """Perplexity, and nearness to the teacher, token by token of held-out text.

    Args:
        prompts: token ids [1, T] behind which the teacher writes with each student's help; empty: it does not.
        new_tokens: how many it writes at most.
    """

    score: ClassVar[str] = "loss"
    lower_is_better: ClassVar[bool] = True
    plotted: ClassVar[tuple[str, str]] = ("accuracy", "next token right")
    hub: ClassVar[Mapping[str, str]] = {"accuracy": "accuracy", "perplexity": "perplexity"}
    speed_rows: ClassVar[int] = 256
    unit: ClassVar[str] = "texts"
    right: ClassVar[str] = "next token right"

    def __init__(self, prompts: Sequence[Tensor] = (), new_tokens: int = 48) -> None:
        self.prompts, self.new_tokens = prompts, new_tokens
        helped: dict[str, Column] = {
            "accepted a step": lambda row: f"{row['accepted']:.2f}" if "accepted" in row else ""
        }
        self.columns = {
            "perplexity": lambda row: f"{row['perplexity']:.2f}",
            "loss, nats": lambda row: (
                f"{row['loss']:.3f}" + (f" ± {row['loss_error']:.3f}" if "loss_error" in row else "")
            ),
            f"{self.right} %": percent("accuracy"),
            "KL to the teacher": lambda row: f"{row['kl']:.3f}",
            "agrees with teacher %": lambda row: f"{100 * row['agreement']:.1f}",
            **(helped if prompts else {}),
        }

    def evaluate(self, trainers: Mapping[str, Trainer], rows: Dataset, reference: Trainer) -> dict[str, Measurement]:
        """Let the students and their teacher read the same text, each true token after the other; see ``Scoring``.

        The mean over rows is the mean over all tokens, see ``ratio_shares``.
        """
        models = {name: one.model.eval() for name, one in trainers.items()}
        names, sums, counts = ["teacher", *models], [], []
        for batch in reference.get_test_dataloader(rows):
            batch = reference._prepare_inputs(batch)
            known = reference.task.rows(batch)
            targets = self.targets(batch["labels"])[known]
            fed = {name: value for name, value in batch.items() if name in ("input_ids", "attention_mask")}
            with torch.no_grad():
                signals = reference.teacher(batch, frozenset({"heads"}))
                teacher_logits = signals.heads["logits"].logits.tensor[known].float()
                shown = {name: model(**fed).logits[known].float() for name, model in models.items()}
            found = [_compared(one, teacher_logits, targets) for one in (teacher_logits, *shown.values())]
            found = torch.stack(found)  # [M, 4, n]
            place = known.nonzero()[:, 0]
            total = found.new_zeros(len(known), *found.shape[:2]).index_add_(0, place, found.permute(2, 0, 1))
            total, count = reference.accelerator.gather_for_metrics((total, known.sum(dim=1)))
            sums.append(total.cpu().numpy())
            counts.append(count.cpu().numpy())
        sums, counts = np.concatenate(sums).astype(np.float64), np.concatenate(counts)
        shares = ratio_shares(sums, counts)
        each = {name: {key: shares[:, m, k] for k, key in enumerate(KEYS)} for m, name in enumerate(names)}
        return {
            name: Measurement(one, {"perplexity": float(np.exp(one["loss"].mean()))}) for name, one in each.items()
        }

    def targets(self, labels: Tensor) -> Tensor:
        """Say what is right at each position: the token behind it.

        Args:
            labels: [B, T].

        Returns:
            [B, T]; -100 where nothing is predicted.
        """
        return F.pad(labels[:, 1:], (0, 1), value=IGNORED)

    def counted_tokens(self, rows: Dataset) -> np.ndarray:
        """Count how often each token is to be predicted: the first one of a text is not.

        Args:
            rows: tokenised.

        Returns:
            [V], as far as there are any.
        """
        return np.bincount(tokens_in(rows, "labels", behind=1))

    def floor(self, test: Dataset, train: Dataset) -> float:
        """Who knows how often each token stands in the training labels, each once more; see ``Scoring.floor``."""
        learnt, asked = (self.counted_tokens(rows) for rows in (train, test))
        counts = np.zeros(max(len(learnt), len(asked)))
        counts[: len(learnt)] += learnt
        known = np.count_nonzero(counts + np.pad(asked, (0, len(counts) - len(asked))))
        chosen = asked.nonzero()[0]
        nats = np.log(counts.sum() + known) - np.log(counts[chosen] + 1)
        return float((asked[chosen] * nats).sum() / asked.sum())

    def floor_row(self, floor: float | None) -> dict[str, Any]:
        """With its perplexity; see ``Scoring.floor_row``."""
        return {**super().floor_row(floor), **({} if floor is None else {"perplexity": float(np.exp(floor))})}

    def floor_named(self, floor: float) -> str:
        """In nats; see ``Scoring.floor_named``."""
        return f"{floor:.3f} nats, who knows only how often each token stands in the training rows"

    def summary(self, gap: GapClosed) -> str:
        """Say what the teacher gave in the unit of the loss."""
        share = gap.withheld
        if gap.ratio is not None:
            share = f"{100 * gap.ratio:.0f} ± {100 * gap.ratio_error:.0f} % of the gap closed"
            if gap.interval is not None:
                share += f" (at 95 %: {100 * gap.interval.low:.0f} to {100 * gap.interval.high:.0f} %)"
        return (
            f"the loss of a token is {gap.gain:.3f} ± {gap.gain_error:.3f} nats lower than that of the student "
            f"alone, the teacher's {gap.gap:.3f} ± {gap.gap_error:.3f}: {share}"
        )

    def extra_figures(self, model: nn.Module, teacher: nn.Module) -> dict[str, Any]:
        """How many of a student's tokens the teacher accepts, if it is asked; see ``Scoring.extra_figures``."""
        return accepted_tokens(teacher, model, self.prompts, self.new_tokens) if self.prompts else {}


def tokens_in(rows: Dataset, column: str, behind: int = 0) -> np.ndarray:
    """Return the tokens of all rows, one after the other, without -100.

    Args:
        rows: tokenised.
        column: with a list of tokens in each row.
        behind: without so many at the beginning of each.
    """
    parts = [
        pc.list_flatten(pc.list_slice(some.column(column), behind)).to_numpy()
        for some in rows.select_columns(column).with_format("arrow").iter(ROWS)
    ]
    found = np.concatenate(parts)
    return found[found != IGNORED]


def _compared(logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
    """The four figures of every token: float32 [4, n]; ids that only one of the heads has are left out of the KL."""
    both, best = min(logits.shape[-1], teacher_logits.shape[-1]), logits.argmax(-1)
    figures: tuple[Any, ...] = (
        F.cross_entropy(logits, targets, reduction="none"),
        best == targets,
        forward_kl(logits[:, :both], teacher_logits[:, :both]),
        best == teacher_logits.argmax(-1),
    )
    return torch.stack([one.float() for one in figures])
