"""How long a text may be for a model, which tokens it may have, and of which form an image.

Knows: configurations, tables of positions and of tokens, runs without weights. Does not know: tasks, what a model
makes of either.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary, ref

from torch import Tensor, nn

from hf_distill.models.meta import IMAGES, form_of, unread
from hf_distill.models.outputs import core_of
from hf_distill.models.texts import DECODER, IDS

logger = logging.getLogger(__name__)
LIMITS: WeakKeyDictionary[nn.Module, Limits] = WeakKeyDictionary()
"""What is known of a student, as long as it lives."""
TEXTS = (IDS, DECODER + IDS)
POSITIONS = "interpolate_pos_encoding"
"""With it a transformer of images reads other sizes than it was made for."""
MARGIN = 8
"""How many rows a table may have beside its positions, as for padding; an image's table is another one."""


def context_of(model: nn.Module) -> int | None:
    """Return how many tokens a model has positions for; None: its configuration does not say.

    A table of positions with a row for padding, as RoBERTa's, counts from behind that row: 514 rows are 512 tokens.

    Args:
        model: any module; of a PEFT model the one inside.

    Example:
        >>> from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel
        >>> small = {"num_hidden_layers": 1, "hidden_size": 4, "num_attention_heads": 1, "intermediate_size": 4}
        >>> context_of(BertModel(BertConfig(max_position_embeddings=10, vocab_size=9, **small)))
        10
        >>> context_of(RobertaModel(RobertaConfig(max_position_embeddings=10, vocab_size=9, **small)))
        8
    """
    core = core_of(model)
    config = getattr(core, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    rows = getattr(text, "max_position_embeddings", getattr(text, "max_target_positions", None))
    if not isinstance(rows, int) or rows <= 0:
        return None
    tables = (getattr(module, "position_embeddings", None) for module in core.modules())
    padding = [t.padding_idx for t in tables if isinstance(t, nn.Embedding) and t.num_embeddings == rows]
    return rows - max((index + 1 for index in padding if index is not None), default=0)


def embedded(model: nn.Module) -> int | None:
    """Count the tokens that a model has a vector for; None: it has no table of them.

    Args:
        model: any module; of a PEFT model the one inside.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> small = {"num_hidden_layers": 1, "hidden_size": 4, "num_attention_heads": 1, "intermediate_size": 4}
        >>> embedded(BertModel(BertConfig(vocab_size=9, **small))), embedded(nn.Linear(1, 1))
        (9, None)
    """
    try:
        table = core_of(model).get_input_embeddings()
    except (AttributeError, NotImplementedError):  # of one that hashes characters, say
        return None
    return table.num_embeddings if isinstance(table, nn.Embedding) else None


def check_form(
    model: nn.Module, who: str, form: tuple[int, ...], what: str = "the batch has", else_: str = "use another model"
) -> None:
    """Refuse images that a model cannot read, with what to do about it.

    Args:
        model: any module.
        who: how a message names it.
        form: of one image: channels, height, width.
        what: how a message begins: who has such images.
        else_: what may be done about another size, but for resizing.

    Raises:
        ValueError: in one sentence.
    """
    if not (reason := unread(model, form)):
        return
    channels, height, width = form_of(model)
    if len(form) != 3:
        told = f"images of the shape {list(form)}, {who} reads channels, height and width"
        todo = "give each image three dimensions (pixels[None] for one channel)"
    elif form[-1] == channels != form[0]:
        told = f"images of the shape {list(form)}, {who} reads channels first"
        todo = "turn them (pixels.permute(2, 0, 1)), or let the image processor do it"
    elif form[0] != channels:
        told = f"images of {form[0]} {'channel' if form[0] == 1 else 'channels'}, {who} reads {channels}"
        mode = {1: "L", 3: "RGB"}.get(channels)
        convert = f'convert pictures before they become pixels (image.convert("{mode}"))' if mode else "make as many"
        todo = f"{convert}, or use a model with num_channels={form[0]}"
    else:
        told = f"images of {form[1]} x {form[2]} pixels, {who} was made for {height} x {width} ({reason})"
        todo = f"resize them to that (size= of the image processor that belongs to the model), or {else_}"
    raise ValueError(f"{what} {told}: {todo}.")


class Limits:
    """Refuses what a model cannot read, before torch does with a traceback, or a GPU with an assertion.

    Args:
        model: any module.
        who: how a message names it, such as "the student BertForMaskedLM".
        longer: what to do about a longer text.
        others: what to do about a token that it does not have.
        every: look at each batch's tokens, which waits for a GPU; otherwise only where the text is on the CPU.

    Example:
        >>> import torch
        >>> from transformers import BertConfig, BertModel
        >>> small = {"num_hidden_layers": 1, "hidden_size": 4, "num_attention_heads": 1, "intermediate_size": 4}
        >>> limits = Limits(BertModel(BertConfig(vocab_size=9, **small)), "the student", "cut it", "use its tokenizer")
        >>> limits.check({"input_ids": torch.tensor([[3, 9]])})
        Traceback (most recent call last):
            ...
        ValueError: the batch has token 9, the student has vectors for the tokens 0 to 8: use its tokenizer.
    """

    def __init__(self, model: nn.Module, who: str, longer: str, others: str, every: bool = False) -> None:
        self.who, self.longer, self.others, self.every = who, longer, others, every
        self._core = ref(core_of(model))
        self.room, self.tokens = context_of(model), embedded(model)
        self.table = self.room is not None and any(
            isinstance(module, nn.Embedding) and "pos" in path and 0 <= module.num_embeddings - self.room <= MARGIN
            for path, module in ((path.rpartition(".")[2], module) for path, module in core_of(model).named_modules())
        )
        self._told = False

    def check(self, inputs: Mapping[str, Any]) -> None:
        """Refuse what the model cannot read; a model with turned or relative positions reads on, and that is told.

        Args:
            inputs: what it is fed.

        Raises:
            ValueError: in one sentence.
        """
        pixels = inputs.get(IMAGES)
        if isinstance(pixels, Tensor) and (core := self._core()) is not None and POSITIONS not in inputs:
            check_form(core, self.who, tuple(pixels.shape[1:]))
        texts = [value for name in TEXTS if isinstance(value := inputs.get(name), Tensor) and value.numel()]
        ids = inputs.get(TEXTS[0])
        seen = (
            isinstance(ids, Tensor) and ids.numel() and (ids.device.type == "cpu" or (self.every and not ids.is_meta))
        )
        if self.tokens is not None and seen:
            highest = int(ids.max())
            if highest >= self.tokens:
                raise ValueError(
                    f"the batch has token {highest}, {self.who} has vectors for the tokens 0 to {self.tokens - 1}: "
                    f"{self.others}."
                )
        long = max((value.shape[-1] for value in texts), default=0)
        if self.room is None or long <= self.room:
            return
        places = inputs.get("position_ids")
        if isinstance(places, Tensor) and int(places.max()) < self.room:  # several texts packed into one row
            return
        told = f"the batch is {long} tokens long, {self.who} was made for {self.room} positions"
        if self.table:
            raise ValueError(f"{told}: {self.longer}.")
        if not self._told:
            self._told = True
            logger.warning("%s and may know less of what lies beyond: cut the rows, if that is not meant.", told)


def limits_of(student: nn.Module, tokenizer: Any = None) -> Limits:
    """Say, once for a student, what it can read.

    Args:
        student: the model.
        tokenizer: its tokenizer or processor, or None; each batch is looked at where it has more tokens than the
            student has vectors, or where nobody knows how many it has.
    """
    if student in LIMITS:
        return LIMITS[student]
    try:
        size = len(getattr(tokenizer, "tokenizer", tokenizer))
    except TypeError:
        size = 0
    who = f"the student {type(core_of(student)).__name__}"
    longer = "cut the rows (max_length), or use a student that reads as much"
    others = "call model.resize_token_embeddings(len(tokenizer)), or use the tokenizer that it was made with"
    LIMITS[student] = Limits(student, who, longer, others, every=not size or size > (embedded(student) or size))
    return LIMITS[student]
