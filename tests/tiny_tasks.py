"""Tiny random models and rows of every task beside sequence classification and generation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tiny
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForTokenClassification,
    BertModel,
    DataCollatorForMultipleChoice,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
)

from hf_distill import MaskedLM, MultipleChoice, QuestionAnswering, SentenceEmbedding, TokenClassification


class Case(NamedTuple):
    """One task: the class of its models, its rows of different lengths, and how they become a batch."""

    task: type
    kind: type
    rows: Callable[..., list[dict[str, Any]]]
    collator: type

    def model(self, width=16, layers=1, seed=0, **config):
        torch.manual_seed(seed)
        sizes = dict(
            vocab_size=32, hidden_size=width, num_hidden_layers=layers, num_attention_heads=2,
            intermediate_size=2 * width, max_position_embeddings=32, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0, initializer_range=0.3,
        )  # fmt: skip
        classes = {"num_labels": 3} if self.task is TokenClassification else {}
        made = self.kind(BertConfig(**{**sizes, **classes, **config}))
        for module in made.modules():  # BERT begins them at 0, which hides an error in them
            if getattr(module, "bias", None) is not None and isinstance(module, torch.nn.Linear):
                module.bias.data.normal_(0, 0.1)
        return made

    def teacher(self, **config):
        return self.model(**{"width": 24, "layers": 2, "seed": 7, **config})

    def collate(self):
        return self.collator(tiny.tokenizer())

    def batch(self, n=6, seed=3):
        return dict(self.collate()([dict(row) for row in self.rows(n, seed)]))


def _texts(n, seed, low=3, high=9):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n):
        length = int(torch.randint(low, high, (), generator=generator))
        ids = torch.randint(5, 29, (length,), generator=generator).tolist()
        yield generator, {"input_ids": ids, "attention_mask": [1] * length}


def tagged(n=8, seed=3):
    """A class for each token but the first and the last; the third row has none at all."""
    made = []
    for generator, row in _texts(n, seed):
        inner = torch.randint(3, (len(row["input_ids"]) - 2,), generator=generator).tolist()
        made.append({**row, "labels": [-100, *(inner if len(made) != 2 else [-100] * len(inner)), -100]})
    return made


def answered(n=8, seed=3):
    """A span each; the third row has none, the fifth one that ends behind the text."""
    made = []
    for generator, row in _texts(n, seed):
        start, end = sorted(torch.randint(len(row["input_ids"]), (2,), generator=generator).tolist())
        start, end = {2: (-100, -100), 4: (start, 99)}.get(len(made), (start, end))
        made.append({**row, "start_positions": start, "end_positions": end})
    return made


def hidden(n=8, seed=3):
    """Every third token is hidden, none in the third row."""
    made = []
    for _, row in _texts(n, seed, low=4):
        chosen = [t % 3 == 1 and len(made) != 2 for t in range(len(row["input_ids"]))]
        labels = [i if c else -100 for i, c in zip(row["input_ids"], chosen, strict=True)]
        ids = [4 if c else i for i, c in zip(row["input_ids"], chosen, strict=True)]
        made.append({**row, "input_ids": ids, "labels": labels})
    return made


def chosen(n=8, seed=3):
    """Four texts each, of which one is right; the third row has no label."""
    made, texts = [], list(_texts(4 * n, seed))
    for number in range(n):
        four = [row for _, row in texts[4 * number : 4 * number + 4]]
        label = int(torch.randint(4, (), generator=texts[0][0]))
        ids, masks = ([text[name] for text in four] for name in ("input_ids", "attention_mask"))
        made.append({"input_ids": ids, "attention_mask": masks, "labels": label if number != 2 else -100})
    return made


def plain(n=8, seed=3):
    """Text alone."""
    return [row for _, row in _texts(n, seed)]


CASES = {
    "tokens": Case(TokenClassification, BertForTokenClassification, tagged, DataCollatorForTokenClassification),
    "spans": Case(QuestionAnswering, BertForQuestionAnswering, answered, DataCollatorWithPadding),
    "masked": Case(MaskedLM, BertForMaskedLM, hidden, DataCollatorForTokenClassification),
    "choice": Case(MultipleChoice, BertForMultipleChoice, chosen, DataCollatorForMultipleChoice),
    "embedding": Case(SentenceEmbedding, BertModel, plain, DataCollatorWithPadding),
}


def trainer(folder, name, data=None, **parts):
    """A trainer of one of the cases, with its teacher unless another one is named."""
    case = CASES[name]
    student = parts.pop("student", None)
    return tiny.trainer(
        folder, student if student is not None else case.model(), case.rows() if data is None else data,
        **{"teacher_model": case.teacher(), "data_collator": case.collate(), **parts},
    )  # fmt: skip
