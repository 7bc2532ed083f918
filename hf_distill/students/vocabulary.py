"""A student with the part of its teacher's vocabulary that a corpus uses.

Knows: which parameters follow the vocabulary, where a configuration names token ids. Does not know: how a tokenizer
makes its tokens, training.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from hf_distill.models.meta import built
from hf_distill.models.sharding import unsharded
from hf_distill.students.depth import parts
from hf_distill.students.lineage import record
from hf_distill.students.pieces import trimmed, with_parts
from hf_distill.students.positions import Moves, settle

TOKEN_IDS = re.compile(r"token_ids?$|token_index$|suppress_tokens$|_to_id$")
BATCH = 1000


def trim_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], min_count: int = 1
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Copy a model and its tokenizer with only the tokens that some texts use: embeddings are half of a small student.

    Kept are the tokens of the texts, what the tokenizer needs to make them, special and added tokens, and the 256
    bytes where it reads bytes. A text whose tokens are all kept is read as before, and the model gives the same hidden
    states and class logits; a language model the same logits for the kept tokens. Other characters become unknown
    tokens or bytes, other words smaller pieces.

    The student reads other ids than its teacher. To train it, give each row both: ``input_ids`` and
    ``attention_mask`` from its own tokenizer, ``teacher_input_ids`` and ``teacher_attention_mask`` from the teacher's
    (see ``hf_distill.teachers.live``). That is for classes; where logits are one for each token, both must speak of
    the same tokens: trim a copy of the teacher too, and let the student be made from it.

    Args:
        model: any ``PreTrainedModel`` with one vocabulary.
        tokenizer: its own, of the tokenizers library (a "fast" one), BertTokenizer included.
        texts: the corpus, read once; lists of pre-tokenised words are not read.
        min_count: a token must occur so often in it.

    Returns:
        The model and its tokenizer, both new; ids are renumbered in their old order, also in the configuration.

    Raises:
        ValueError: another kind of tokenizer, a model without a vocabulary or with several, a count below 1.

    Reference:
        Abdaoui, Pradel, Sigel: Load What You Need: Smaller Versions of Multilingual BERT, arXiv:2010.05609.

    Example:
        >>> from transformers import BertConfig, BertModel, BertTokenizer
        >>> names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]
        >>> tokenizer = BertTokenizer(vocab={name: number for number, name in enumerate(names)})
        >>> sizes = dict(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
        >>> student, small = trim_vocabulary(BertModel(BertConfig(**sizes)), tokenizer, ["good film"])
        >>> small("good film").input_ids, student.config.vocab_size
        ([2, 5, 6, 3], 7)
    """
    if min_count < 1:
        raise ValueError(f"min_count={min_count} was asked for: a token is kept from 1 occurrence on.")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ValueError(
            f"the vocabulary of a {type(tokenizer).__name__} was to be trimmed, which is not of the tokenizers "
            "library: load it with AutoTokenizer, or save it as a fast tokenizer first."
        )
    whole = unsharded(model)
    text = whole.config.get_text_config()
    size = getattr(text, "vocab_size", None)
    follows = _follows(whole, size)
    seen = _counted(backend, texts)
    kept = with_parts(backend, [number for number, times in seen.items() if times >= min_count])
    if kept[-1] >= size:
        raise ValueError(
            f"the tokenizer has the id {kept[-1]}, {type(model).__name__} has {size} tokens: give the tokenizer that "
            "the model was trained with, or resize the model's embeddings first."
        )
    named = {number for value in _named(whole) for number in _numbers(value) if 0 <= number < size}
    rows = [*kept, *sorted(named - set(kept))]  # those that only the configuration knows come last
    new = {old: position for position, old in enumerate(rows)}

    before = built(type(whole), whole.config)
    config = copy.deepcopy(whole.config)
    for _, part in parts(config):
        _rename(part, list(part.to_dict()), new)
    config.get_text_config().vocab_size = len(rows)
    after = built(type(whole), config)
    student = whole if whole is not model else copy.deepcopy(model)
    _cut(student, follows, torch.tensor(rows))
    settle(student, before, after, Moves({}))
    if getattr(student, "generation_config", None) is not None:
        _rename(student.generation_config, list(vars(student.generation_config)), new)
    record(student, model, "trim_vocabulary", before=size, after=len(rows))
    student.requires_grad_(True)  # a teacher that was frozen before must not freeze its student
    small = copy.deepcopy(tokenizer)
    small._tokenizer = trimmed(backend, kept)
    for name in ("vocab", "merges", "vocab_file", "merges_file", "tokenizer_file"):
        small.init_kwargs.pop(name, None)
    return student, small


def _counted(backend: Tokenizer, texts: Iterable[str]) -> Counter[int]:
    """How often each id occurs; nothing is cut off or padded, whatever the tokenizer was last asked for."""
    reader, found, texts = Tokenizer.from_str(backend.to_str()), Counter(), iter(texts)
    reader.no_truncation()
    reader.no_padding()
    while some := list(islice(texts, BATCH)):
        for encoding in reader.encode_batch(some):
            found.update(encoding.ids)
    return found


def _follows(model: PreTrainedModel, size: int | None) -> dict[str, int]:
    """Which tensors have one entry for each token, and in which dimension: those that grow with the vocabulary."""
    if not isinstance(size, int):
        raise ValueError(f"the vocabulary of {type(model).__name__} was to be trimmed: its configuration has none.")
    larger = copy.deepcopy(model.config)
    larger.get_text_config().vocab_size = size + 1
    old, new = _tensors(built(type(model), model.config)), _tensors(built(type(model), larger))
    found = {}
    for name, value in old.items():
        grown = [d for d, (a, b) in enumerate(zip(value.shape, new[name].shape, strict=True)) if a != b]
        if grown:
            found[name] = grown[0]
    held = _tensors(model)
    odd = [name for name, dim in found.items() if name not in held or held[name].shape[dim] != size]
    embeddings = {id(p) for module in _embeddings(model) for p in module.parameters()}
    if odd or not any(id(held[name]) in embeddings for name in found):
        raise ValueError(
            f"the vocabulary of {type(model).__name__} was to be trimmed, but its embeddings do not follow the "
            f"{size} tokens of its configuration{f' ({odd[0]})' if odd else ''}: resize them first, or trim by hand."
        )
    return found


def _embeddings(model: PreTrainedModel) -> list[nn.Module]:
    try:
        return [model.get_input_embeddings()]
    except NotImplementedError:  # of two towers, of which one reads no text
        return [module for module in model.modules() if isinstance(module, nn.Embedding)]


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        **dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))
    }  # fmt: skip


def _cut(student: nn.Module, follows: Mapping[str, int], rows: torch.Tensor) -> None:
    """Take the rows; what was tied stays tied."""
    done: dict[int, torch.Tensor] = {}
    for name, dim in follows.items():
        parent, _, leaf = name.rpartition(".")
        module = student.get_submodule(parent)
        value = getattr(module, leaf)
        if id(value) not in done:
            some = value.detach().index_select(dim, rows.to(value.device)).clone()
            done[id(value)] = nn.Parameter(some) if isinstance(value, nn.Parameter) else some
        setattr(module, leaf, done[id(value)])


def _named(model: PreTrainedModel) -> list[Any]:
    """What the configurations say of token ids."""
    holders: list[Any] = [part for _, part in parts(model.config)]
    if getattr(model, "generation_config", None) is not None:
        holders.append(model.generation_config)
    return [
        getattr(one, name, None)
        for one in holders
        for name in (one.to_dict() if isinstance(one, PretrainedConfig) else vars(one))
        if TOKEN_IDS.search(name)
    ]


def _numbers(value: Any) -> list[int]:
    if isinstance(value, Mapping):
        value = list(value.values())
    values: Sequence[Any] = value if isinstance(value, (list, tuple)) else [value]
    return [number for number in values if isinstance(number, int) and not isinstance(number, bool)]


def _rename(holder: Any, names: Sequence[str], new: Mapping[int, int]) -> None:
    """Write the new ids; one that is no row of the embeddings, such as -1, stays as it is."""
    for name in names:
        if not TOKEN_IDS.search(name):
            continue
        value = getattr(holder, name, None)
        if isinstance(value, Mapping):
            setattr(holder, name, {key: new.get(number, number) for key, number in value.items()})
        elif isinstance(value, (list, tuple)):
            setattr(holder, name, [new.get(number, number) if isinstance(number, int) else number for number in value])
        elif isinstance(value, int) and not isinstance(value, bool):
            setattr(holder, name, new.get(value, value))
