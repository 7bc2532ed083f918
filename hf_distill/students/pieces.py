"""A tokenizer with fewer tokens, that reads as the whole one what it covers.

Knows: the JSON of the tokenizers library. Does not know: models, which texts are read, why a token is wanted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel


def with_parts(tokenizer: Tokenizer, wanted: Iterable[int]) -> list[int]:
    """Add to some tokens what the tokenizer needs to make them, and what it can never do without.

    Byte-pair encoding makes a token by merges: the ones that make it alone are those that make it inside a word, since
    none of them crosses its border. WordPiece and Unigram take a piece as it is; the characters of a piece are kept
    so that other words of them can be read. Added and special tokens, the 256 bytes and the unknown token always stay.

    Args:
        tokenizer: of any of the four models.
        wanted: ids.

    Returns:
        Ids, sorted.

    Raises:
        ValueError: a model of another kind.

    Example:
        >>> from tokenizers import models
        >>> pieces = {"[UNK]": 0, "a": 1, "##b": 2, "ab": 3, "c": 4}
        >>> with_parts(Tokenizer(models.WordPiece(pieces, unk_token="[UNK]")), [3])
        [0, 1, 2, 3]
    """
    whole = json.loads(tokenizer.to_str())
    model, kind = whole["model"], whole["model"].get("type")
    if kind not in ("BPE", "WordPiece", "Unigram", "WordLevel"):
        raise ValueError(
            f"tokens of a {kind} tokenizer were to be trimmed: BPE, WordPiece, Unigram and WordLevel can."
        )
    ids = _ids(model)
    names = {number: token for token, number in ids.items()}
    added = {token["id"] for token in whole["added_tokens"]}
    kept = {number for number in wanted if number in names} | added
    kept |= {number for token, number in ids.items() if len(token) == 6 and token.startswith("<0x")}
    if "ByteLevel" in json.dumps([whole["pre_tokenizer"], whole["normalizer"]]):
        kept |= {ids[byte] for byte in ByteLevel.alphabet() if byte in ids}
    if isinstance(model.get("unk_token"), str) and model["unk_token"] in ids:
        kept.add(ids[model["unk_token"]])
    if kind == "Unigram":
        kept |= set() if model["unk_id"] is None else {model["unk_id"]}
        # An unknown character costs as much as the least likely piece and a little more: that must not change.
        kept.add(min(range(len(model["vocab"])), key=lambda number: model["vocab"][number][1]))
    make = {"BPE": _merged, "WordPiece": _spelt, "Unigram": _spelt, "WordLevel": lambda *_: lambda token: ()}[kind]
    parts = make(model, ids)
    for number in sorted(kept & set(names) - added):
        kept.update(ids[part] for part in parts(names[number]) if part in ids)
    return sorted(kept)


def trimmed(tokenizer: Tokenizer, kept: Sequence[int]) -> Tokenizer:
    """Make a tokenizer of some tokens, numbered from 0 in their old order.

    Args:
        tokenizer: the whole one.
        kept: ids, sorted, with all that they need; see ``with_parts``.

    Example:
        >>> from tokenizers import models
        >>> small = trimmed(Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="a")), [0, 2])
        >>> small.get_vocab() == {"a": 0, "c": 1}
        True
    """
    whole = json.loads(tokenizer.to_str())
    model, new = whole["model"], {old: position for position, old in enumerate(kept)}
    ids = {token: new[number] for token, number in _ids(model).items() if number in new}
    if isinstance(model["vocab"], Mapping):
        model["vocab"] = ids
    else:
        model["vocab"] = [piece for number, piece in enumerate(model["vocab"]) if number in new]
        model["unk_id"] = new.get(model["unk_id"])
    if "merges" in model:
        joined = _joined(model)
        model["merges"] = [m for m in model["merges"] if all(part in ids for part in (*m, joined(*m)))]
    for token in whole["added_tokens"]:
        token["id"] = new[token["id"]]
    if whole.get("padding"):
        whole["padding"]["pad_id"] = new.get(whole["padding"]["pad_id"], 0)
    _renumber(whole["post_processor"], new)
    return Tokenizer.from_str(json.dumps(whole))


def _ids(model: Mapping[str, Any]) -> dict[str, int]:
    if isinstance(model["vocab"], Mapping):
        return dict(model["vocab"])
    return {piece: number for number, (piece, _) in enumerate(model["vocab"])}


def _spelt(model: Mapping[str, Any], ids: Mapping[str, int]) -> Any:
    """The characters of a piece: WordPiece marks those that do not begin a word."""
    mark = model.get("continuing_subword_prefix") or ""

    def parts(piece: str) -> list[str]:
        inside = bool(mark) and piece.startswith(mark) and piece != mark
        letters = piece[len(mark) :] if inside else piece
        return [(mark if inside or position else "") + letter for position, letter in enumerate(letters)]

    return parts


def _merged(model: Mapping[str, Any], ids: Mapping[str, int]) -> Any:
    """All that is made on the way to a token, from its characters on, in the order of the merges."""
    ranks = {tuple(merge): rank for rank, merge in enumerate(model["merges"])}
    joined, mark, end = _joined(model), model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix")

    def parts(token: str) -> list[str]:
        bare = token.removesuffix(end) if end else token
        inside = bool(mark) and bare.startswith(mark)
        letters = list(bare.removeprefix(mark) if inside else bare)
        word = [(mark if inside or position else "") + letter for position, letter in enumerate(letters)]
        if end and token.endswith(end) and word:
            word[-1] += end
        made = list(word)
        while len(word) > 1:
            pairs = list(pairwise(word))
            here = min(range(len(pairs)), key=lambda position: ranks.get(pairs[position], len(ranks)))
            if pairs[here] not in ranks:
                break
            word[here : here + 2] = [joined(*pairs[here])]
            made.append(word[here])
        return made

    return parts


def _joined(model: Mapping[str, Any]) -> Any:
    mark = model.get("continuing_subword_prefix") or ""
    return lambda left, right: left + (right.removeprefix(mark) if mark else right)


def _renumber(processor: Any, new: Mapping[int, int]) -> None:
    """Give a post-processor, which writes [CLS] and the like, the new ids."""
    if not isinstance(processor, dict):
        return
    for one in processor.get("processors") or ():
        _renumber(one, new)
    for token in (processor.get("special_tokens") or {}).values():
        token["ids"] = [new[number] for number in token["ids"]]
    for name in ("sep", "cls"):
        if isinstance(processor.get(name), list):
            processor[name][1] = new[processor[name][1]]
