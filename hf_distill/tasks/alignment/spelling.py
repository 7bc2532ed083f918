"""The text that a token stands for, whatever way its tokenizer has of writing it.

Knows: how byte-level and SentencePiece vocabularies write bytes and spaces. Does not know: tokenizers, ids of a batch.
"""

from __future__ import annotations

import re

from hf_distill.tasks.alignment.vocabulary import Vocabulary


def _bytes_of_characters() -> dict[str, int]:
    """The characters that byte-level vocabularies (GPT-2) write for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


BYTES = _bytes_of_characters()


def spelled(vocabulary: Vocabulary) -> dict[str | bytes, int]:
    r"""Write every token as the UTF-8 bytes of its text, so that two tokenizers' tokens can be compared.

    A vocabulary that has a token for each of the 256 bytes is byte-level: ``ĠcafÃ©`` is a space and ``café``. In any
    other one ``▁`` is a space and ``<0x0A>`` a byte. WordPiece's ``##`` stays: such a token is
    another one than the same letters at the beginning of a word. Where two tokens have the same text, the first id has
    it, the others their own string.

    Args:
        vocabulary: token string -> id.

    Returns:
        text -> id.

    Example:
        >>> spelled({"▁the": 0, "<0x0A>": 1, "##s": 2})
        {b' the': 0, b'\n': 1, b'##s': 2}
        >>> list(spelled({**{c: n for n, c in enumerate(BYTES)}, "Ġcaf": 256}))[-1]
        b' caf'
    """
    by_byte, texts = BYTES.keys() <= vocabulary.keys(), {}
    for token, index in sorted(vocabulary.items(), key=lambda item: item[1]):
        if by_byte and all(character in BYTES for character in token):
            text = bytes(BYTES[character] for character in token)
        elif byte := re.fullmatch("<0x([0-9A-F]{2})>", token):
            text = bytes([int(byte[1], 16)])
        else:
            text = token.replace("▁", " ").encode()
        texts[token if text in texts else text] = index
    return texts
