"""A recipe: what a user may set, and the experiment that is made of it, as a script or by its name.

Knows: in which order settings are read, rows are read and an experiment runs. Does not know: what any of them is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any, Protocol

from accelerate import PartialState

from hf_distill.experiments.record import record
from hf_distill.experiments.settings import begin


class Runnable(Protocol):
    """What a recipe makes: an ``Experiment``, or what runs as one.

    Attributes:
        made_by: the recipe and its arguments, for the report; see ``record``.
    """

    made_by: dict[str, Any]

    def run(self, started: float) -> dict[str, Any] | None:
        """Train, measure, report.

        Args:
            started: when the run began, as ``time.time()`` tells it.

        Returns:
            What ``report.json`` holds.
        """
        ...


@dataclass(frozen=True)
class Recipe:
    """What a script declares; ``run`` starts it, ``hf-distill train`` too.

    Args:
        arguments: a dataclass: where the rows come from, which models.
        training_arguments: a dataclass that extends ``RecipeTrainingArguments``, with the recipe's own defaults; its
            ``output_dir`` is ``outputs/NAME``, after the script.
        build: given an instance of both, and the folder where a teacher is kept: reads the rows, and makes an
            experiment of them.
        labelled: whether rows have labels, so that a student can be trained without its teacher. ``hf-distill
            report`` is for such recipes.
        compared: whether a student is trained beside the distilled one: alone, or otherwise. ``hf-distill compare`` is
            for such recipes.

    Example:
        >>> from hf_distill.experiments.settings import RecipeTrainingArguments
        >>> @dataclass
        ... class TrainingArguments(RecipeTrainingArguments):
        ...     output_dir: str = "outputs/my_recipe"
        >>> Recipe(object, TrainingArguments, lambda arguments, training, root: None).name
        'my_recipe'
    """

    arguments: type
    training_arguments: type
    build: Callable[[Any, Any, Path], Runnable]
    labelled: bool = True
    compared: bool = True

    @property
    def name(self) -> str:
        """Its script's name, and its folder's."""
        return Path(self.training_arguments.output_dir).name

    def prepare(self, argv: list[str] | None = None) -> Any:
        """Read the settings and the rows.

        Args:
            argv: flags, or a YAML or JSON file with flags that override it; None takes the command line.

        Returns:
            The experiment.
        """
        types = [self.arguments, self.training_arguments]
        recipe, args, root = begin(types, argv, Path(self.training_arguments.output_dir))
        made_by = record(self.name, recipe, args)  # as they were asked for: reading rows fills in more
        experiment = self.build(recipe, args, root)
        experiment.made_by = made_by
        return experiment

    def main(self, argv: list[str] | None = None) -> dict[str, Any] | None:
        """Run the recipe.

        Args:
            argv: as ``prepare`` takes it.

        Returns:
            What ``report.json`` holds; None where no model was asked for.

        Raises:
            ValueError: an argument or the data cannot be used.
            ImportError: the data, or a teacher, comes with a package that is not installed.
        """
        started = time()
        return self.prepare(argv).run(started)


def run(recipe: Recipe) -> None:
    """Run a recipe as a script, with the flags of the command line; an error is one sentence, and the exit code is 1.

    Args:
        recipe: the script's.
    """
    try:
        recipe.main()
        PartialState().destroy_process_group()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
