"""Words in the place of words, as a masked language model would put them there.

Knows: how to ask a masked language model. Does not know: labels, teachers, batches of a trainer.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM

from hf_distill.augmentation.augment import Augmentation, Marks, Tokens, check_share
from hf_distill.tasks.alignment.tokenizers import tokenizer_at


@dataclass
class Substitute(Augmentation):
    """Mask a share of the tokens, and draw others for them from a masked language model.

    TinyBERT's data augmentation (Jiao et al. 2020, arXiv:1909.10351, algorithm 1), with the whole distribution in the
    place of its 15 likeliest words. All rows of a micro-batch are asked for at once, in the process that trains; a
    word at the edge of two probabilities may differ by what the model rounds under other padding.

    Args:
        model: the model, or the path or Hub id of one; it reads the student's tokens.
        share: the probability of each token that is not special, over 0 to 1.

    Raises:
        ValueError: no model, or another share.

    Example:
        >>> Substitute("a/model", share=0.2).share
        0.2
    """

    model: Any = None
    share: float = 0.15
    masks: ClassVar[bool] = True
    here: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (isinstance(self.model, nn.Module) or (isinstance(self.model, str) and self.model)):
            raise ValueError(
                f"augmentation substitute was given model={self.model!r}: name a masked language model that reads the "
                'student\'s tokens, as in {"substitute": {"model": "bert-base-chinese"}}.'
            )
        check_share("substitute", "share", self.share, whole=True)

    def load(self, tokenizer: Any, device: torch.device | str = "cpu") -> None:
        """Load the model where only its path is known, and put it where it will run.

        Args:
            tokenizer: the student's.
            device: where.

        Raises:
            ValueError: there is no such model, or it cannot read these tokens.
        """
        if isinstance(self.model, str):
            theirs = tokenizer_at(self.model)
            if theirs is not None and theirs.get_vocab() != tokenizer.get_vocab():
                raise ValueError(
                    f"augmentation substitute asks {self.model}, whose tokenizer gives other ids to tokens than the "
                    "student's: name a masked language model that shares it."
                )
            try:
                with torch.random.fork_rng(devices=[]):  # the run's own chance stays as it was
                    self.model = AutoModelForMaskedLM.from_pretrained(self.model)
            except (OSError, ValueError) as error:
                reason = str(error).strip().splitlines()[0].rstrip(".")
                raise ValueError(
                    f"augmentation substitute asks for the masked language model {self.model}, which could not be "
                    f"loaded ({reason}): name another."
                ) from error
        self.tokens, known = len(tokenizer), self.model.get_input_embeddings().num_embeddings
        if known < self.tokens:
            raise ValueError(
                f"augmentation substitute has a model of {known} tokens, the tokenizer has {self.tokens}: name a "
                "masked language model with the student's tokenizer."
            )
        self.model.to(device).eval()

    def one(self, row: Tokens, draw: Random, marks: Marks, partner: Tokens | None = None) -> Tokens:
        """Substitute in one row; see ``Augmentation.one``."""
        return self([row], [draw], marks, [partner])[0]

    def __call__(
        self, rows: Sequence[Tokens], draws: Sequence[Random], marks: Marks, partners: Sequence[Tokens | None]
    ) -> list[Tokens]:
        """Substitute in each row, asking the model once; see ``Augmentation.__call__``."""
        places = [
            [at for at, one in enumerate(row.ids) if one not in marks.special and draw.random() < self.share]
            for row, draw in zip(rows, draws, strict=True)
        ]
        chances = [[draw.random() for _ in own] for own, draw in zip(places, draws, strict=True)]
        flat = [(number, at) for number, own in enumerate(places) for at in own]
        if not flat:
            return list(rows)
        found = self._drawn(rows, flat, [chance for own in chances for chance in own], marks)
        ids = [list(row.ids) for row in rows]
        for (number, at), one in zip(flat, found, strict=True):
            ids[number][at] = one
        return [Tokens(own, row.types) for own, row in zip(ids, rows, strict=True)]

    def _drawn(
        self, rows: Sequence[Tokens], places: list[tuple[int, int]], chances: list[float], marks: Marks
    ) -> list[int]:
        """Ask for all masked places of all rows, and draw a word for each by its own chance."""
        if isinstance(self.model, str):
            raise ValueError(f"augmentation substitute has not loaded {self.model} yet: call load() first.")
        device = next(self.model.parameters()).device
        batch = {"input_ids": _padded([row.ids for row in rows])}
        batch["attention_mask"] = _padded([[1] * len(row.ids) for row in rows])
        if rows[0].types is not None and "token_type_ids" in inspect.signature(self.model.forward).parameters:
            batch["token_type_ids"] = _padded([row.types for row in rows])
        where = tuple(torch.tensor(axis) for axis in zip(*places, strict=True))
        batch["input_ids"][where] = marks.mask
        with torch.no_grad():
            logits = self.model(**{name: value.to(device) for name, value in batch.items()}).logits
        logits = logits[tuple(axis.to(device) for axis in where)].double().cpu()
        logits[:, self.tokens :] = -torch.inf  # rows of the head that only fill it up
        logits[:, [*{*marks.special, marks.mask}]] = -torch.inf
        bounds = logits.softmax(-1).cumsum(-1)
        wanted = torch.tensor(chances, dtype=torch.float64).unsqueeze(-1) * bounds[:, -1:]
        return torch.searchsorted(bounds, wanted, right=True).squeeze(-1).tolist()


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Put rows of unequal length into one tensor, zeros behind them."""
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
