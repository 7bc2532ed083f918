"""``hf-distill compare``: the student alone against the student under its teacher, over seeds.

Knows: nothing but where recipes are. Does not know: how runs are made or measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from hf_distill.cli.recipes import describe, load_recipe

WHAT = """Trains the student alone and under its teacher with several seeds (--seeds 0 1 2), at the learning rate that
is best for the student alone (--tuning_runs, --learning_rates), and says how much of the gap the teacher closes.
Every finished run is kept: start again to go on."""


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Args:
        argv: a recipe's name or a YAML file, flags that override it, and ``--seeds``, ``--learning_rates``,
            ``--tuning_runs``, ``--tune_distilled``.

    Raises:
        ValueError: an argument cannot be used.
    """
    if describe("compare", WHAT, argv):
        return
    recipe, rest = load_recipe(argv)
    if not recipe.compared:
        raise ValueError(f"{recipe.name} has no student alone to compare with: take a recipe with labels.")
    from hf_distill.experiments import over_seeds  # torch is not for --help

    over_seeds.main(recipe.prepare, rest)
