"""``hf-distill report``: measure finished students beside their teacher again, without training.

Knows: nothing but where recipes are. Does not know: how models are measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from hf_distill.cli.recipes import describe, load_recipe

WHAT = """Measures a finished student (--student_model_name_or_path) beside its teacher (--teacher_model_name_or_path)
and, if it is named, the same student trained alone (--alone), on the test rows, and writes report.json and its
pictures into --output_dir."""


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Args:
        argv: a recipe's name or a YAML file, flags that override it, and ``--alone``.

    Raises:
        ValueError: an argument cannot be used.
    """
    if describe("report", WHAT, argv):
        return
    recipe, rest = load_recipe(argv)
    if not recipe.labelled:
        raise ValueError(f"{recipe.name} measures vectors while it trains: take another recipe.")
    from hf_distill.experiments import evaluation  # torch is not for --help

    evaluation.main(recipe.prepare, rest)
