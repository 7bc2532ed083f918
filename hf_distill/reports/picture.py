"""One picture as a small PNG: its size, its colours, and fonts that have its characters.

Knows: matplotlib's figures, texts. Does not know: what is drawn. Needs matplotlib (the extra ``recipes``).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import east_asian_width

from hf_distill.reports.fonts import families_for, spelled, warn_once

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Look:
    """How a model is drawn.

    Args:
        colour: of its points, bars and frames.
        marker: of its points, as matplotlib names it: who sees no colours tells models by it.
    """

    colour: str
    marker: str


LOOKS = {
    "teacher": Look("#4c566a", "o"),
    "student alone": Look("#d08770", "s"),
    "untaught student": Look("#d08770", "s"),
    "distilled": Look("#2a7f62", "D"),
    "student alone, as long": Look("#b5527d", "^"),
}
"""The models that recipes compare: whichever of them a picture shows, each looks the same in all."""
OTHERS = tuple(
    map(Look, ("#5e81ac", "#b48ead", "#a3a022", "#bf616a", "#3a9fbf", "#8f6f4f"), ("v", "P", "X", "*", "<", ">"))
)
"""Of models with other names, in turn."""
LARGEST = 200_000
"""Bytes that a picture may have: it lies in a repository beside the weights."""


@contextmanager
def picture(
    path: str | Path, size: tuple[float, float], title: str, names: Iterable[str] = ()
) -> Iterator[tuple[Figure, dict[str, str]]]:
    """Make a figure, and save it when the block ends without an error.

    Args:
        path: where to save, as PNG; under 200 kB.
        size: width and height in inches.
        title: above the picture.
        names: all other texts that may have characters beyond Latin.

    Yields:
        The figure, and for each of the names what to draw: itself, or pinyin where no font of this machine has its
        characters. Then one line is logged that says what to install.

    Raises:
        ImportError: matplotlib is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with picture(Path(folder) / "line.png", (3, 2), "a line", ["体育"]) as (figure, shown):
        ...         _ = figure.subplots().plot([0, 1], label=shown["体育"])
        ...     (Path(folder) / "line.png").stat().st_size < LARGEST
        True
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the report's picture needs matplotlib: pip install 'hf_distill[recipes]'.") from error
    names = list(names)
    families, lacking = families_for([title, *names])
    if lacking:
        warn_once()
    # A name is text: a dollar sign in it begins no formula, and an underscore at its beginning hides no label.
    with rc_context({"font.family": families, "text.parse_math": False, "axes.unicode_minus": True}):
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(fold(spelled(title, frozenset(lacking)), int(11 * size[0]), 2), fontsize=11)
        yield figure, {name: spelled(name, frozenset(lacking)) for name in names}
        for dots in (120, 100, 80, 60, 45, 30):
            figure.savefig(path, dpi=dots, format="png")
            if Path(path).stat().st_size < LARGEST:
                break


def looks_of(names: Iterable[str]) -> list[Look]:
    """Give each model its colour and its marker: those of a comparison always the same ones.

    Args:
        names: of the models.

    Example:
        >>> [one.colour for one in looks_of(["teacher", "mine", "theirs"])]
        ['#4c566a', '#5e81ac', '#b48ead']
        >>> looks_of(["distilled"]) == looks_of(["teacher", "mine", "distilled"])[2:]
        True
    """
    free, found = 0, []
    for name in names:
        found.append(LOOKS.get(name) or OTHERS[free % len(OTHERS)])
        free += name not in LOOKS
    return found


def frame(axes: Axes, look: Look) -> None:
    """Draw the frame of an image in the colour of the model that it is of.

    Args:
        axes: matplotlib's, without ticks.
        look: the model's.
    """
    axes.spines[:].set(color=look.colour, linewidth=2)


def fold(text: str, width: int, lines: int = 2) -> str:
    """Break a text into lines, and end it with an ellipsis where it needs more of them.

    Args:
        text: words, or Chinese characters, which count as two columns.
        width: columns of a line, 4 or more.
        lines: how many at most.

    Example:
        >>> print(fold("a class whose name is long", 12))
        a class
        whose name…
        >>> print(fold("中华人民共和国", 8))
        中华人民
        共和国
    """
    # Every wide character is given a shadow, so that columns are counted where textwrap counts characters.
    shadow = "\0"
    wide = "".join(c + shadow if east_asian_width(c) in "WF" else c for c in text)
    folded = textwrap.wrap(wide, width)
    if len(folded) > lines:
        last = folded[lines - 1]
        kept = last[: width - 1 - last.startswith(shadow, width - 1)]  # no half of a wide character
        folded = [*folded[: lines - 1], kept.rstrip() + "…"]
    return "\n".join(line.replace(shadow, "") for line in folded)


def clean(axes: object, grid: str = "y") -> None:
    """Leave an axes object two of its four lines, and a light grid behind what is drawn.

    Args:
        axes: matplotlib's.
        grid: ``x``, ``y`` or ``both``.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, alpha=0.25)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)
