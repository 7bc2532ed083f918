"""The header of a folder of answers: what it must say, and what may stand beside it.

Knows: names and types. Does not know: files, models, what the answers are used for.

A version that changes what a header means gives it another ``format``. What a newer one only tells beside that is left
alone; an encoding is not, because numbers that are held in a way that nobody knows here cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from hf_distill.cache.encoding import Encoding

KINDS = {"float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8"}
"""What the numbers of a column may be."""


def check_columns(header: Any, where: Any) -> dict[str, Any]:
    """Refuse a header that does not say which columns the files have.

    Args:
        header: as it was read.
        where: its file, for the message.

    Returns:
        The header.

    Raises:
        ValueError: in one sentence.

    Example:
        >>> check_columns({"columns": {"heads/logits": ["float32", False]}}, "answers/teacher.json")["columns"]
        {'heads/logits': ['float32', False]}
        >>> check_columns({"format": 1}, "answers/teacher.json")
        Traceback (most recent call last):
        ...
        ValueError: answers/teacher.json has no 'columns': delete teacher.json, of which each file has a copy, or \
fill an empty folder.
    """
    return _checked(header, where, {"columns": _are_columns})


def check_header(header: Any, where: Any) -> dict[str, Any]:
    """Refuse a header with which its answers could not be used.

    Args:
        header: as it was read.
        where: its file or folder, for the message.

    Returns:
        The header.

    Raises:
        ValueError: in one sentence: something is missing or of another kind, an encoding that is not known here, or
            columns that the encoding does not make.

    Example:
        >>> header = {
        ...     "teacher": "my/teacher", "needs": ["heads"], "takes": ["x"], "padding": [True, True],
        ...     "shapes": {"heads/logits": [False, 3]}, "columns": {"heads/logits": ["float32", False, 3]},
        ... }
        >>> _ = check_header({**header, "encoding": {"values": None}, "from a newer version": 1}, "answers")
        >>> check_header({**header, "encoding": {"values": None, "delta": True}}, "answers")
        Traceback (most recent call last):
        ...
        ValueError: answers holds answers in an encoding with ['delta'], which this version does not know: read it \
with the version that wrote it, or fill an empty folder.
    """
    _checked(header, where, _EACH)
    strangers = sorted(set(header["encoding"]) - {field.name for field in fields(Encoding)})
    if strangers:
        raise ValueError(
            f"{where} holds answers in an encoding with {strangers}, which this version does not know: read it with "
            "the version that wrote it, or fill an empty folder."
        )
    try:
        encoding = Encoding(**header["encoding"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} has an 'encoding' that cannot be read ({error}): {_DO}") from error
    columns, made = header["columns"], {}
    for name, (positional, classes) in header["shapes"].items():
        held = Encoding() if name.startswith("rows/") else encoding  # what counts is held as it is
        for suffix in held.suffixes(name.startswith("heads/")):
            made[name + suffix] = positional, classes if suffix in ("", "/steps") and classes else None
    if made.keys() != columns.keys():
        lost, more = (sorted(one) for one in (made.keys() - columns.keys(), columns.keys() - made.keys()))
        raise ValueError(f"{where} has the columns {more} where {lost} are held in its encoding: {_DO}")
    for name, (positional, classes) in made.items():
        if columns[name][1] != positional or classes not in (None, columns[name][-1], columns[name][2:]):
            raise ValueError(
                f"{where} has the shape {header['shapes']} and {columns[name]} as the column {name!r}, which are not "
                f"the same: {_DO}"
            )
    return header


_DO = "delete teacher.json, of which each file has a copy, or fill an empty folder."


def _checked(header: Any, where: Any, each: Mapping[str, Callable[[Any], bool]]) -> dict[str, Any]:
    if not isinstance(header, Mapping):
        raise ValueError(f"{where} holds a {type(header).__name__}, no header of answers: {_DO}")
    for name, right in each.items():
        if name not in header:
            raise ValueError(f"{where} has no {name!r}: {_DO}")
        if not right(header[name]):
            raise ValueError(f"{where} has {header[name]!r} as {name!r}, which cannot be read: {_DO}")
    return header


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _are_columns(value: Any) -> bool:
    """Name -> [type, whether there is one entry a position, *shape]."""
    return isinstance(value, Mapping) and bool(value) and all(map(_is_column, value.values()))


def _is_column(value: Any) -> bool:
    if not isinstance(value, list) or len(value) < 2 or str(value[0]) not in KINDS or type(value[1]) is not bool:
        return False
    return all(type(size) is int and size >= 0 for size in value[2:])


def _are_shapes(value: Any) -> bool:
    """Name -> [whether there is one entry a position, how many classes, or the whole shape of a row]."""
    listed = isinstance(value, Mapping) and all(isinstance(one, list) and len(one) == 2 for one in value.values())
    sizes = [one[1] if isinstance(one[1], list) else [one[1]] for one in value.values()] if listed else []
    whole = all(type(number) is int for size in sizes for number in size)
    return listed and whole and all(type(one[0]) is bool for one in value.values())


_EACH: Mapping[str, Callable[[Any], bool]] = {
    "teacher": lambda value: isinstance(value, str),
    "encoding": lambda value: isinstance(value, Mapping),
    "needs": _are_words,
    "takes": _are_words,
    "padding": lambda value: isinstance(value, list) and [type(side) for side in value] == [bool, bool],
    "shapes": _are_shapes,
    "columns": _are_columns,
}
