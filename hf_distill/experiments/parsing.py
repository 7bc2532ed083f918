"""How a script reads what a user sets: flags, a file, or a file with flags that override it.

Knows: dataclasses, command lines, YAML and JSON. Does not know: what a field means.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import yaml
from transformers import HfArgumentParser


class Parser(HfArgumentParser):
    """A parser that refuses in a sentence, where argparse prints every flag and ends the process.

    Example:
        >>> from hf_distill.arguments import DistillationArguments
        >>> Parser(DistillationArguments).parse_args(["--alpha", "much"])
        Traceback (most recent call last):
        ...
        ValueError: argument --alpha: invalid float value: 'much' (--help lists them all).
    """

    def error(self, message: str) -> NoReturn:
        """Refuse what was given.

        Args:
            message: as argparse has it.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{' '.join(message.split())} (--help lists them all).")


def parse_arguments(types: Sequence[type], argv: Sequence[str] | None = None) -> tuple[Any, ...]:
    """Read dataclasses from flags, from a YAML or JSON file, or from a file with flags that override it.

    Args:
        types: the dataclasses, such as a script's own and ``DistillationTrainingArguments``.
        argv: the words of the command line, without the script; None takes ``sys.argv``.

    Returns:
        One instance of each type.

    Raises:
        ValueError: the file cannot be read, something has a name that no type knows, or a value that is none.

    Example:
        >>> from hf_distill.arguments import DistillationArguments
        >>> (args,) = parse_arguments([DistillationArguments], ["--alpha", "0.9", "--objective", '{"jsd": 2.0}'])
        >>> args.alpha, args.objective
        (0.9, {'jsd': 2.0})
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(list(types))
    known = {f.name for kind in types for f in fields(kind) if f.init}
    if argv and argv[0].endswith((".yaml", ".yml", ".json")):
        settings = read_settings(Path(argv.pop(0)))
        for name in settings:
            if name not in known:
                close = difflib.get_close_matches(str(name), known, n=1)
                raise ValueError(
                    f"the settings have {name!r}, which is no argument: "
                    + (f"did you mean {close[0]!r}?" if close else "--help lists them all.")
                )
        hints = {name: hint for kind in types for name, hint in get_type_hints(kind).items()}
        parser.set_defaults(
            **{
                action.dest: _read(action, settings[action.dest], hints[action.dest])
                for action in parser._actions
                if action.dest in settings
            }
        )
        for action in parser._actions:  # argparse asks for a required flag even where it has a default
            action.required = action.required and action.dest not in settings
    *found, rest = parser.parse_args_into_dataclasses(argv, return_remaining_strings=True)
    if rest:
        # Its name alone: what stands behind it may be a token.
        name = next((word for word in rest if word.startswith("-")), rest[0]).partition("=")[0]
        close = difflib.get_close_matches(name.lstrip("-").replace("-", "_"), known, n=1)
        raise ValueError(
            f"{name} was given, which is no argument: "
            + (f"did you mean --{close[0]}?" if close else "--help lists them all.")
        )
    return tuple(found)


def parse_some(kind: type, argv: Sequence[str]) -> tuple[Any, list[str]]:
    """Read one dataclass from flags, and leave what belongs to others.

    Args:
        kind: the dataclass.
        argv: flags, whole: ``--learning_rate`` is no short form of ``--learning_rates``.

    Returns:
        An instance, and the words that are left, ``--help`` among them: what is known here was printed then.

    Raises:
        ValueError: a value that is none.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Many:
        ...     seeds: list[int]
        >>> parse_some(Many, ["my.yaml", "--seeds", "0", "1", "--seed", "7"])
        (Many(seeds=[0, 1]), ['my.yaml', '--seed', '7'])
    """
    parser = Parser(kind, allow_abbrev=False, add_help=False)
    if {"-h", "--help"} & set(argv):
        parser.print_help()
    found, rest = parser.parse_args_into_dataclasses(list(argv), return_remaining_strings=True)
    return found, rest


def _read(action: argparse.Action, value: Any, hint: Any) -> Any:
    """A value of a file, read as the same words on a command line are; argparse itself reads texts alone."""
    kinds = {get_origin(hint), *(get_origin(one) or one for one in get_args(hint) or (hint,))}
    nested = isinstance(value, (list, dict, type(None)))
    try:
        if nested and type(value) not in kinds:
            raise ValueError(f"it takes no {type(value).__name__.replace('NoneType', 'empty value')}")
        if value is False and "no" in (action.choices or ()):  # save_strategy: no
            return "no"
        kept = nested or isinstance(value, str) or type(value) in kinds or (type(value) is int and float in kinds)
        switch = isinstance(value, bool) and action.type not in (int, float)  # a bare "off" or "no" of YAML's
        return value if kept or switch or action.type is None else action.type(str(value))
    except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
        shown = "..." if "token" in action.dest else " ".join(str(value).split())
        raise ValueError(
            f"the settings have {action.dest}: {shown}, which cannot be read ({' '.join(str(error).split())}): "
            "correct it, --help says what it takes."
        ) from error


def read_settings(path: Path) -> dict[str, Any]:
    """Read a file of settings.

    Args:
        path: YAML or JSON.

    Returns:
        Name -> value.

    Raises:
        ValueError: it is missing, cannot be read, or holds no settings.
    """
    if not path.is_file():
        raise ValueError(f"settings were asked from {path}, there is no such file: check the path.")
    try:
        text = path.read_text(encoding="utf-8")
        settings = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} could not be read ({' '.join(str(error).split())}): correct it.") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds no settings: write one 'name: value' a line.")
    return settings
