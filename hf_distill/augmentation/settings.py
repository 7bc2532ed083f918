"""How a user asks for augmentation: one field, as a name or a mapping.

Knows: names and options. Does not know: tokenizers, trainers, what an augmentation does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from hf_distill.augmentation.augment import Augmentation, Crop, Mask, Mix
from hf_distill.augmentation.substitute import Substitute

AUGMENTATIONS: dict[str, type[Augmentation]] = {"mask": Mask, "crop": Crop, "mix": Mix, "substitute": Substitute}
"""Name -> class; the first field of a class is what a bare value sets."""


@dataclass
class TransferArguments:
    """The field that augmentation adds to ``TrainingArguments``.

    Args:
        augmentation: what is done, in training only, to the copies without a label that each row gets: ``mask``,
            ``crop``, ``mix``, or a mapping from these and ``substitute`` to their first option or all of them, in the
            order in which they are done, with ``copies``, how many a row gets (1); as JSON on a command line. None:
            there are no copies. A micro-batch grows by the copies, so it needs as much more memory.

    Raises:
        ValueError: a value that cannot be used.

    Example:
        >>> TransferArguments(augmentation={"mask": 0.15, "crop": {"keep": 0.5}, "copies": 2}).augmentation["copies"]
        2
    """

    augmentation: dict | str | None = field(
        default=None,
        metadata={
            "help": "Copies of each training row without a label, for the teacher to speak about: mask, crop, mix, or "
            'JSON such as \'{"mask": 0.15, "crop": {"keep": 0.5}, "copies": 2}\'. Default: none.'
        },
    )

    def __post_init__(self) -> None:
        """Check the value, then let ``TrainingArguments`` check its own."""
        augmentations_of(self.augmentation)
        try:
            json.dumps(self.augmentation)
        except TypeError as error:
            raise ValueError(
                f"augmentation holds what cannot be written down ({error}): give numbers, and models by their path."
            ) from error
        if hasattr(super(), "__post_init__"):
            super().__post_init__()


def augmentations_of(asked: str | Mapping[str, Any] | None) -> tuple[list[Augmentation], int]:
    """Make augmentations of what a user wrote.

    Args:
        asked: see ``TransferArguments``.

    Returns:
        The augmentations, and how many copies a row gets: none and 0 where nothing was asked.

    Raises:
        ValueError: in one sentence: an unknown name or option, or a value that cannot be used.

    Example:
        >>> augmentations_of({"mask": 0.2, "crop": {"keep": 0.7}, "copies": 2})
        ([Mask(p=0.2), Crop(keep=0.7)], 2)
        >>> augmentations_of("blur")
        Traceback (most recent call last):
        ...
        ValueError: augmentation 'blur' is not known: use mask, crop, mix, substitute.
    """
    if asked is None:
        return [], 0
    if not isinstance(asked, (str, Mapping)):
        raise ValueError(f"augmentation={asked!r} was given: give a name, or a mapping from names to options.")
    options = {asked: None} if isinstance(asked, str) else dict(asked)
    copies = options.pop("copies", 1)
    if isinstance(copies, bool) or not isinstance(copies, int) or copies < 1:
        raise ValueError(f"augmentation was given copies={copies!r}: give a whole number from 1.")
    if not options:
        raise ValueError(f"augmentation={asked!r} names none: use {', '.join(AUGMENTATIONS)}.")
    return [_made(name, given) for name, given in options.items()], copies


def _made(name: Any, given: Any) -> Augmentation:
    if (kind := AUGMENTATIONS.get(name)) is None:
        raise ValueError(f"augmentation {name!r} is not known: use {', '.join(AUGMENTATIONS)}.")
    known = [one.name for one in fields(kind)]
    if given is None or given is True:
        given = {}
    elif not isinstance(given, Mapping):
        given = {known[0] if known else "options": given}
    if strange := [option for option in given if option not in known]:
        there = f"it has {', '.join(known)}" if known else "it has none"
        raise ValueError(f"augmentation {name} has no option {strange[0]!r}: {there}.")
    return kind(**given)
