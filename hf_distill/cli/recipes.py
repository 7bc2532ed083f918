"""Where the recipes are, and which one a file of settings is for.

Knows: folders, the key ``recipe`` of a file. Does not know: what a recipe does.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import hf_distill
from hf_distill.experiments.parsing import read_settings

if TYPE_CHECKING:
    from hf_distill.experiments import Recipe

FILES = (".yaml", ".yml", ".json")


def recipes_folder() -> Path:
    """Find the recipes: inside of the installed package, or beside it in a clone.

    Raises:
        ValueError: there are none.
    """
    package = Path(hf_distill.__file__).parent
    for folder in (package / "recipes", package.parent / "recipes"):
        if (folder / "bert_chinese.py").is_file():
            return folder
    raise ValueError("the recipes were asked for, and this installation has none: install hf_distill again with pip.")


def recipe_names() -> list[str]:
    """Name the recipes: the scripts with a file of settings beside them."""
    return sorted(path.stem for path in recipes_folder().glob("*.yaml"))


def load_recipe(argv: Sequence[str]) -> tuple[Recipe, list[str]]:
    """Find the recipe that a command line is about.

    Args:
        argv: a recipe's name, or a file of settings with the key ``recipe``, and flags behind either.

    Returns:
        The recipe, and what it shall read.

    Raises:
        ValueError: no recipe was named, or one that is not there.
    """
    names = recipe_names()
    first = argv[0] if argv else ""
    if not first or first.startswith("-"):
        raise ValueError(
            f"no recipe was named: begin with one of {', '.join(names)}, or with a YAML file that has a line such as "
            "'recipe: bert_chinese'."
        )
    asked, rest = first, list(argv[1:])
    if first.endswith(FILES):
        asked, rest = read_settings(Path(first)).get("recipe"), list(argv)
        if asked is None:
            raise ValueError(
                f"{first} names no recipe: add a line such as 'recipe: bert_chinese' ({', '.join(names)})."
            )
    if asked not in names:
        raise ValueError(f"the recipe {asked!r} was asked for, there are {', '.join(names)}: name one of these.")
    return recipe_module(asked).RECIPE, rest


def recipe_module(name: str) -> ModuleType:
    """Import a recipe's script, once, from wherever it is: no folder is looked into for other modules.

    Args:
        name: of the recipe.
    """
    full = f"hf_distill.recipes.{name}"  # a user's module of the same name stays the user's
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, recipes_folder() / f"{name}.py")
        sys.modules[full] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[full]
            raise
    return sys.modules[full]


def describe(command: str, what: str, argv: Sequence[str]) -> bool:
    """Answer ``--help`` without a recipe.

    Args:
        command: its name.
        what: it does, in a line.
        argv: the words behind it.

    Returns:
        Whether it was asked.
    """
    if list(argv[:1]) not in (["-h"], ["--help"]):
        return False
    print(f"usage: hf-distill {command} RECIPE|FILE.yaml [flags of the recipe]\n\n{what}\n")
    print("\n".join(f"  {name}" for name in recipe_names()))
    print(f"\nhf-distill {command} RECIPE --help lists what a recipe takes.")
    return True
