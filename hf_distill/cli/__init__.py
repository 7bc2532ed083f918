"""The command ``hf-distill``: one word says what to do, the rest is what that takes.

Knows: the names of the commands, what they take. Does not know: what they do.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence

import hf_distill
from hf_distill.cli.arguments import TAKES, USAGE

COMMANDS = {
    "train": "run a recipe: a teacher, the student alone, the student under the teacher, and the report",
    "compare": "the student alone against the student under its teacher, over seeds",
    "report": "measure finished students beside their teacher again",
    "export": "write a finished student for other runtimes, and measure each export on its test rows",
    "benchmark": "score a finished student, its teacher and the student alone by lm-eval or mteb",
    "card": "put licence, language and data sets into a student's model card, and say what it lacks",
    "cache": "ask a teacher for every row of a data set, once, and keep its answers in a folder",
    "student": "make a student from a part of its teacher: layers, width, vocabulary",
    "completion": "print a script with which bash or zsh completes commands, recipes and flags",
    "env": "print versions, extras, devices and threads: what a bug report needs",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the words behind ``hf-distill``; None takes those of the process.

    Returns:
        0, or 1 after an error, which is one sentence on stderr, or 130 where the user stopped it.

    Example:
        >>> main(["--help"])
        usage: hf-distill COMMAND [arguments, or a YAML file]
        <BLANKLINE>
          train      run a recipe: a teacher, the student alone, the student under the teacher, and the report
          compare    the student alone against the student under its teacher, over seeds
          report     measure finished students beside their teacher again
          export     write a finished student for other runtimes, and measure each export on its test rows
          benchmark  score a finished student, its teacher and the student alone by lm-eval or mteb
          card       put licence, language and data sets into a student's model card, and say what it lacks
          cache      ask a teacher for every row of a data set, once, and keep its answers in a folder
          student    make a student from a part of its teacher: layers, width, vocabulary
          completion print a script with which bash or zsh completes commands, recipes and flags
          env        print versions, extras, devices and threads: what a bug report needs
        <BLANKLINE>
        hf-distill COMMAND --help lists what a command takes, hf-distill --version says which version this is.
        0
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print("usage: hf-distill COMMAND [arguments, or a YAML file]\n")
        print("\n".join(f"  {name:<10} {what}" for name, what in COMMANDS.items()))
        print(
            "\nhf-distill COMMAND --help lists what a command takes, hf-distill --version says which version this is."
        )
        return 0
    if words[0] in ("-V", "--version"):
        print(f"hf-distill {hf_distill.__version__}")
        return 0
    if words[0] not in COMMANDS:
        print(f"hf-distill has no command {words[0]!r}: use {', '.join(COMMANDS)}.", file=sys.stderr)
        return 1
    logging.basicConfig(format="%(message)s")
    if (takes := TAKES.get(words[0])) and {"-h", "--help"} & set(words):  # a command itself imports torch
        from hf_distill.experiments.parsing import parse_arguments

        if words[0] in USAGE:
            print(USAGE[words[0]])
        parse_arguments([takes], ["--help"])
    try:
        importlib.import_module(f"hf_distill.cli.{words[0]}").main(words[1:])
    except (ValueError, OSError, ImportError) as error:
        print(f"hf-distill {words[0]}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyError as error:  # Trainer's, where metric_for_best_model is not measured; a bare key is a fault of ours
        if " " not in (said := str(next(iter(error.args), ""))):
            raise
        print(f"hf-distill {words[0]}: {' '.join(said.split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nhf-distill {words[0]}: stopped.", file=sys.stderr)
        return 130  # what a shell says of an interrupted command
    return 0
