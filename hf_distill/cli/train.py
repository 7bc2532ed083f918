"""``hf-distill train``: run a recipe, by its name or by a file of settings.

Knows: nothing but where recipes are. Does not know: what a recipe does; it is the same as starting its script.
"""

from __future__ import annotations

from collections.abc import Sequence

from hf_distill.cli.recipes import describe, load_recipe

WHAT = "Trains a teacher (or takes one), the student alone, and the student under the teacher, and reports."


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Args:
        argv: a recipe's name or a YAML file, and flags that override it.

    Raises:
        ValueError: an argument cannot be used.
    """
    if describe("train", WHAT, argv):
        return
    recipe, rest = load_recipe(argv)
    recipe.main(rest)
