"""The letters of two models that recognise speech by frames: which of one is which of the other.

Knows: names, places, logits. Does not know: tokenizers' files, frames, what is compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hf_distill.signals import ABSENT


def letters_by_name(student: Mapping[str, int], teacher: Mapping[str, int]) -> list[int]:
    """Find each letter of the student among the teacher's.

    Args:
        student: letter -> class, as a tokenizer's ``get_vocab()``.
        teacher: the teacher's.

    Returns:
        For each class of the student, its place among the teacher's; -1 where the teacher has no such letter.

    Example:
        >>> letters_by_name({"<pad>": 0, "a": 1, "b": 2}, {"a": 0, "c": 1, "<pad>": 2})
        [2, 0, -1]
    """
    places = [-1] * (1 + max(student.values(), default=-1))
    for letter, number in student.items():
        places[number] = teacher.get(letter, -1)
    return places


def check_letters(letters: Sequence[int] | None, several: int | None, blank: int) -> list[int] | None:
    """Refuse letters that are not one place for each, or leave the blank out.

    Args:
        letters: see ``letters_by_name``; None: the same letters.
        several: how many letters the student has; None: nobody knows.
        blank: which of them says nothing.

    Returns:
        The letters as a list.

    Raises:
        ValueError: in one sentence.

    Example:
        >>> check_letters((2, 0, -1), 3, blank=0)
        [2, 0, -1]
    """
    if letters is None:
        return None
    letters, there = list(letters), [place for place in letters if place >= 0]
    told = f"teacher_letters={letters[:8]}{' ...' if len(letters) > 8 else ''} was given to CTC"
    if several not in (None, len(letters)):
        raise ValueError(f"{told}, the student has {several} letters: name a place, or -1, for each of them.")
    if len(set(there)) < len(there) or min(letters, default=0) < -1:
        raise ValueError(f"{told}: name each letter of the teacher once, and -1 where it has none.")
    if blank >= len(letters) or letters[blank] < 0:
        raise ValueError(f"{told}, which leaves out the blank, class {blank}: name the teacher's blank there.")
    return letters


def translated(logits: Tensor, letters: Sequence[int]) -> Tensor:
    """Put a teacher's letters into the student's places; what it does not have is not probable.

    Args:
        logits: [..., letters of the teacher].
        letters: see ``letters_by_name``.

    Returns:
        [..., letters of the student].

    Example:
        >>> translated(torch.tensor([[1.0, 2.0, 3.0]]), [2, 0, -1]).tolist()
        [[3.0, 1.0, -10000.0]]
    """
    places = torch.tensor(letters, device=logits.device)
    return logits.index_select(-1, places.clamp(min=0)).masked_fill(places < 0, ABSENT)
