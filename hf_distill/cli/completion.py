"""``hf-distill completion``: a script with which a shell completes commands, recipes and flags.

Knows: what commands and recipes take, how bash is told. Does not know: what any flag means.

The flags are written into the script: to list them imports PyTorch, which nobody waits for at a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hf_distill.cli.arguments import TAKES
from hf_distill.cli.recipes import recipe_module, recipe_names

SHELLS = ("bash", "zsh")
OF_A_RECIPE = ("train", "compare", "report")
"""The commands that take a recipe and its flags."""
USAGE = """usage: hf-distill completion bash|zsh

Prints a script; write it where your shell looks, once for each version of hf_distill:

  hf-distill completion bash > ~/.local/share/bash-completion/completions/hf-distill
  hf-distill completion zsh >> ~/.zshrc"""
SCRIPT = """# hf-distill: completion of commands, recipes and flags, written by `hf-distill completion`
_hf_distill() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} words=
    if ((COMP_CWORD == 1)); then
        words="{commands}"
    elif [[ $word == -* ]]; then
        case ${{COMP_WORDS[1]}} in
{own}
            {takers})
                words="--help {common}"
                case ${{COMP_WORDS[2]}} in
{recipes}
                esac
                case ${{COMP_WORDS[1]}} in
{further}
                esac ;;
        esac
    elif ((COMP_CWORD == 2)); then
        case ${{COMP_WORDS[1]}} in
            {takers}) words="{names}" ;;
            completion) words="{shells}" ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -o bashdefault -F _hf_distill hf-distill
"""


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Args:
        argv: the shell, or ``--help``.

    Raises:
        ValueError: no shell that is known.
    """
    if list(argv[:1]) in (["-h"], ["--help"]):
        print(USAGE)
        return
    if len(argv) != 1 or argv[0] not in SHELLS:
        given = " ".join(argv) or "nothing"
        raise ValueError(f"{given} was given, and completion takes a shell: {' or '.join(SHELLS)}.")
    if argv[0] == "zsh":
        print("autoload -U +X compinit bashcompinit && compinit && bashcompinit")
    print(script(), end="")


def script() -> str:
    """Write what bash, or zsh in bash's manner, is told."""
    from hf_distill.cli import COMMANDS
    from hf_distill.experiments.evaluation import FinishedArguments
    from hf_distill.experiments.over_seeds import SeedArguments

    found = {name: recipe_module(name).RECIPE for name in recipe_names()}
    flags = {name: flags_of(recipe.arguments, recipe.training_arguments) for name, recipe in found.items()}
    common = set.intersection(*map(set, flags.values()))  # Trainer's, which each recipe has, stand there once
    indent, deeper = " " * 12, " " * 20
    own = [f'{indent}{name}) words="--help {" ".join(flags_of(kind))}" ;;' for name, kind in TAKES.items()]
    recipes = [
        f'{deeper}{name}) words+=" {" ".join(flag for flag in taken if flag not in common)}" ;;'
        for name, taken in flags.items()
    ]
    of_command = {"compare": SeedArguments, "report": FinishedArguments}
    further = [f'{deeper}{name}) words+=" {" ".join(flags_of(kind))}" ;;' for name, kind in of_command.items()]
    return SCRIPT.format(
        commands=" ".join([*COMMANDS, "--help", "--version"]),
        own="\n".join(own),
        takers="|".join(OF_A_RECIPE),
        common=" ".join(sorted(common)),
        recipes="\n".join(recipes),
        further="\n".join(further),
        names=" ".join(found),
        shells=" ".join(SHELLS),
    )


def flags_of(*kinds: Any) -> list[str]:
    """Name the flags of some dataclasses, in alphabetical order, each once.

    Args:
        kinds: the dataclasses.

    Example:
        >>> from hf_distill.cli.arguments import CardArguments
        >>> [flag for flag in flags_of(CardArguments) if flag.startswith("--t")]
        ['--tags', '--title']
    """
    from hf_distill.experiments.parsing import Parser

    options = (one for action in Parser(list(kinds))._actions for one in action.option_strings)
    return sorted({one for one in options if one.startswith("--") and "-" not in one[2:] and one != "--help"})
