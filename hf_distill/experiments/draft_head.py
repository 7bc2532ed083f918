"""Draft heads: how near what they draft is to their teacher, beside a plain draft of their size.

Knows: trainers, distributions over the next token, how figures are shown. Does not know: where texts come from, how a
draft is made or trained, clocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import Trainer

from hf_distill import DraftHead
from hf_distill.experiments.assisted_generation import accepted_tokens
from hf_distill.experiments.drafted_texts import saved
from hf_distill.experiments.scoring import Column, Measurement, Scoring
from hf_distill.objectives.functional import forward_kl
from hf_distill.reports import GapClosed, ratio_shares
from hf_distill.students.draft_head import STATES
from hf_distill.tasks.reading import TeacherReading

PLAIN = "plain draft"
NOTE = (
    '"Distilled" is the draft head. "Plain draft" is one layer with the same embeddings and head that reads no state, '
    'trained for the same steps under the same teacher. "Accepted" are the drafted tokens that the teacher takes at '
    'each of its passes, one of its own not counted; "times as fast" is against the teacher\'s own generate.'
)


class DraftScoring(Scoring):
    """Nearness to the teacher at the token that is drafted first, and what drafts save.

    Args:
        prompts: token ids [1, T] behind which the teacher writes, alone and with a draft.
        new_tokens: how many it writes at most.
        drafted: how many tokens a draft has.
    """

    score: ClassVar[str] = "kl"
    lower_is_better: ClassVar[bool] = True
    is_loss: ClassVar[bool] = True
    plotted: ClassVar[tuple[str, str]] = ("agreement", "first drafted tokens that are the teacher's")
    hub: ClassVar[Mapping[str, str]] = {"kl_divergence": "kl", "agreement": "agreement"}
    baseline: ClassVar[str] = PLAIN
    speed_rows: ClassVar[int] = 256
    unit: ClassVar[str] = "texts"

    def __init__(self, prompts: Sequence[Tensor], new_tokens: int, drafted: int) -> None:
        self.prompts, self.new_tokens, self.drafted = prompts, new_tokens, drafted
        written: dict[str, Column] = {
            f"accepted of {drafted}": lambda row: f"{row['accepted']:.2f}" if "accepted" in row else "",
            "times as fast": lambda row: (
                f"{row['speedup']:.2f} ± {row['speedup_error']:.2f}" if "speedup" in row else ""
            ),
            "same texts": lambda row: f"{row['identical']:g} of {row['texts']:g}" if "identical" in row else "",
        }
        self.columns = {
            "KL to the teacher": lambda row: f"{row['kl']:.4f} ± {row['kl_error']:.4f}",
            "agrees with teacher %": lambda row: f"{100 * row['agreement']:.1f}",
            **(written if prompts else {}),
        }

    def evaluate(self, trainers: Mapping[str, Trainer], rows: Dataset, reference: Trainer) -> dict[str, Measurement]:
        """Let all drafts read the same text; see ``Scoring``. Means are those of tokens, see ``ratio_shares``."""
        models, totals, counts = {name: one.model.eval() for name, one in trainers.items()}, [], []
        needs = frozenset({"heads"}) | reference.distillation.reads
        for batch in reference.get_test_dataloader(rows):
            batch = reference._prepare_inputs(batch)
            known, found = reference.task.each_pass(batch), {}
            fed = {name: value for name, value in batch.items() if name in ("input_ids", "attention_mask")}
            with torch.no_grad():
                signals = reference.teacher(batch, needs)
                taught = signals.heads["logits"].logits.tensor
                for name, model in models.items():
                    reading = TeacherReading.of(reference.args, model)
                    told = {} if reading is None else reading.given(signals, reference.task, model)
                    shown = model(**fed, **told)
                    passes = (shown.logits, *(shown.get("further_logits") or ()))
                    found |= {(name, n): _compared(one, taught, known[n]) for n, one in enumerate(passes)}
            counted = torch.stack([one.sum(1) for one in known], dim=1)
            compared = torch.stack(list(found.values()), dim=1) if found else counted.new_zeros(len(counted), 0, 2)
            total, count = reference.accelerator.gather_for_metrics((compared, counted))
            totals.append(total.cpu().numpy())
            counts.append(count.cpu().numpy())
        summed, numbers = np.concatenate(totals).astype(np.float64), np.concatenate(counts)
        shares = {key: ratio_shares(summed[:, place], numbers[:, key[1]]) for place, key in enumerate(found)}
        measured = {n: Measurement({"kl": shares[n, 0][:, 0], "agreement": shares[n, 0][:, 1]}) for n in models}
        for (name, number), values in shares.items():
            if number:
                told = {f"kl_{number + 1}": values[:, 0].mean(), f"agreement_{number + 1}": values[:, 1].mean()}
                measured[name].figures = {**measured[name].figures, **{key: float(one) for key, one in told.items()}}
        perfect = {"kl": np.zeros(len(numbers)), "agreement": np.ones(len(numbers))}
        return {"teacher": Measurement(perfect), **measured}

    def summary(self, gap: GapClosed) -> str:
        """Say how much nearer to the teacher the head that reads it is."""
        more = "more" if gap.gain < 0 else "less"
        told = f"the KL to the teacher is {abs(gap.gain):.4f} ± {gap.gain_error:.4f} {more} than the {PLAIN}'s"
        if gap.ratio is None:
            return f"{told} {gap.gap:.4f} ± {gap.gap_error:.4f}"
        return f"{told} {gap.gap:.4f}: {100 * abs(gap.ratio):.0f} ± {100 * gap.ratio_error:.0f} % {more}"

    def timed(self, model: nn.Module, trainer: Trainer) -> nn.Module:
        """A draft head is given states, whose making is its teacher's work; see ``Scoring.timed``."""
        return Given(model) if isinstance(model, DraftHead) else model

    def extra_figures(self, model: nn.Module, teacher: nn.Module) -> dict[str, Any]:
        """What a draft saves where texts are written; see ``Scoring.extra_figures``."""
        if not self.prompts:
            return {}
        if not isinstance(model, DraftHead):
            return accepted_tokens(teacher, model, self.prompts, self.new_tokens, self.drafted)
        return saved(teacher, model, self.prompts, self.new_tokens, self.drafted)


class Given(nn.Module):
    """One pass of a draft head with states of zeros, for a clock.

    Args:
        model: the head.
    """

    def __init__(self, model: DraftHead) -> None:
        super().__init__()
        self.model = model

    def forward(self, **batch: Tensor) -> Any:
        """Run the head.

        Args:
            **batch: what it reads beside its teacher.
        """
        config, ids = self.model.config, batch["input_ids"]
        states = torch.zeros(*ids.shape, config.hidden_size, dtype=self.model.dtype, device=ids.device)
        unrolled, config.unrolled = config.unrolled, 1
        try:
            return self.model(**batch, **dict.fromkeys(STATES, states))
        finally:
            config.unrolled = unrolled


def _compared(logits: Tensor, taught: Tensor, known: Tensor) -> Tensor:
    """KL and agreement of the positions that count, summed over each row: float32 [B, 2]."""
    ours, theirs = logits[known].float(), taught[known].float()
    each = torch.stack((forward_kl(ours, theirs), (ours.argmax(-1) == theirs.argmax(-1)).float()), dim=-1)
    return each.new_zeros(len(known), 2).index_add_(0, known.nonzero()[:, 0], each)
