"""Which layer of the student learns from which layer of the teacher.

Knows: depths, copies of layers, the automatic maps, how to draw two stacks. Does not know: what is compared at these
layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hf_distill.models.facts import Facts

Pairs = list[tuple[int, int]]
Layers = str | Mapping[int | str, int | Sequence[int]]


def uniform_pairs(student: int, teacher: int) -> Pairs:
    """Pair every layer of the student with the teacher's at the same relative depth, embeddings with embeddings.

    Args:
        student: its number of layers, without the embeddings.
        teacher: its number of layers.

    Returns:
        (student layer, teacher layer), from the embeddings up.

    Reference:
        Jiao et al.: TinyBERT, arXiv:1909.10351, section 4.1 (the uniform mapping).

    Example:
        >>> uniform_pairs(3, 6)
        [(0, 0), (1, 2), (2, 4), (3, 6)]
    """
    return [(layer, round(layer * teacher / max(1, student))) for layer in range(student + 1)]


def last_pairs(student: int, teacher: int) -> Pairs:
    """Pair the student's layers with the teacher's last ones, in order; without the embeddings.

    Args:
        student: its number of layers, without the embeddings.
        teacher: its number of layers; at least the student's.

    Returns:
        (student layer, teacher layer), from the first layer up.

    Reference:
        Sun et al.: Patient Knowledge Distillation, arXiv:1908.09355, section 3.2 (PKD-Last), with the last layer too.

    Example:
        >>> last_pairs(3, 6)
        [(1, 4), (2, 5), (3, 6)]
    """
    return [(layer, teacher - student + layer) for layer in range(1, student + 1)]


def skip_pairs(student: int, teacher: int) -> Pairs:
    """Pair the student's layers with every k-th of the teacher's, k = teacher // student; without the embeddings.

    Args:
        student: its number of layers, without the embeddings.
        teacher: its number of layers; at least the student's.

    Returns:
        (student layer, teacher layer), from the first layer up.

    Reference:
        Sun et al.: Patient Knowledge Distillation, arXiv:1908.09355, section 3.2 (PKD-Skip), with the last layer too.

    Example:
        >>> skip_pairs(3, 7)
        [(1, 2), (2, 4), (3, 6)]
    """
    return [(layer, layer * (teacher // student)) for layer in range(1, student + 1)]


def third_pairs(student: int, teacher: int) -> Pairs:
    """Pair the student's last layer with three of the teacher's: a third, two thirds and all of its depth.

    Args:
        student: its number of layers, without the embeddings.
        teacher: its number of layers.

    Returns:
        (student layer, teacher layer), from the teacher's lowest up.

    Reference:
        Chang, Yang, Lee: DistilHuBERT, arXiv:2110.01900, section 2.2 (layers 4, 8 and 12).

    Example:
        >>> third_pairs(2, 12), third_pairs(1, 2)
        ([(2, 4), (2, 8), (2, 12)], [(1, 1), (1, 2)])
    """
    return [(student, layer) for layer in sorted({max(1, round(part * teacher / 3)) for part in (1, 2, 3)})]


AUTOMATIC: dict[str, Callable[[int, int], Pairs]] = {
    "uniform": uniform_pairs,
    "last": last_pairs,
    "skip": skip_pairs,
    "thirds": third_pairs,
}
"""What a user may write instead of a map: maps of two depths."""

LINEAGE = "lineage"
"""The map that hangs on how the student was made."""


def lineage_pairs(student: Facts, teacher: Facts) -> Pairs | None:
    """Pair each layer of the student with the teacher's that it is a copy of, embeddings with embeddings.

    Args:
        student: what is known of the student.
        teacher: what is known of the teacher: the model that the student was made from, or one as deep.

    Returns:
        (student layer, teacher layer), from the embeddings up; None: that is not known. A layer whose copy follows
        others than in the teacher is asked for what it showed there all the same.

    Example:
        >>> lineage_pairs(Facts(num_layers=3, copies=(0, 2, 5), copied_from=6), Facts(num_layers=6))
        [(0, 0), (1, 1), (2, 3), (3, 6)]
    """
    origins = student.origins(teacher)
    return None if origins is None else [(0, 0), *((ours, theirs + 1) for ours, theirs in enumerate(origins, start=1))]


def read_layers(layers: Layers | None, term: str) -> str | Pairs | None:
    """Read what a user wrote; in JSON the keys are strings.

    Args:
        layers: the name of an automatic map, or student layer -> teacher layer, or to several of them; -1 is the last
            layer of a model, -2 the one before. None: the pair of the two last layers.
        term: who was given it, for a message.

    Returns:
        The name, the pairs, or None.

    Raises:
        ValueError: an unknown name, no pair at all, or a layer that is no whole number.

    Example:
        >>> read_layers({"1": 2, "2": [3, 4]}, "hidden_mse")
        [(1, 2), (2, 3), (2, 4)]
        >>> read_layers({-1: [4, 8, -1]}, "hidden_mse")
        [(-1, 4), (-1, 8), (-1, -1)]
    """
    if layers is None:
        return None
    if isinstance(layers, str):
        if layers not in (*AUTOMATIC, LINEAGE):
            raise ValueError(
                f"layers={layers!r} was given to {term}: use {', '.join(AUTOMATIC)}, {LINEAGE}, or give student layer "
                "-> teacher layer."
            )
        return layers
    pairs = []
    for ours, several in layers.items():
        for theirs in several if isinstance(several, (list, tuple)) else [several]:
            if not all(str(one).removeprefix("-").isdecimal() for one in (ours, theirs)):
                raise ValueError(
                    f"layers={dict(layers)} was given to {term}: give student layer -> teacher layer, numbers from 0 "
                    "(the embeddings) up or from -1 (the last) down, several teacher layers as a list."
                )
            pairs.append((int(ours), int(theirs)))
    if not pairs:
        raise ValueError(f"layers={{}} was given to {term}: name a pair, or leave layers out to pair them by depth.")
    return pairs


def paired(layers: str | Pairs | None, student: Facts, teacher: Facts, term: str, first: int = 0) -> Pairs:
    """Pair the layers of two models, once their depths are known.

    Args:
        layers: as ``read_layers`` returns them.
        student: what is known of the student.
        teacher: what is known of the teacher.
        term: who asks, for a message.
        first: the first layer that can be compared: 0, the embeddings, or 1 where these have nothing to show.

    Returns:
        (student layer, teacher layer).

    Raises:
        ValueError: a depth that is not known, a layer that is not there, more layers in the student than in the
            teacher under ``"last"`` and ``"skip"``, or a student of which nobody knows what its layers are copies of
            under ``"lineage"``. The message draws the two stacks.

    Example:
        >>> paired("uniform", Facts(num_layers=2), Facts(num_layers=4), "attention_mse", first=1)
        [(1, 2), (2, 4)]
        >>> paired([(3, 1)], Facts(name="small", num_layers=2), Facts(name="big", num_layers=4), "hidden_mse")
        Traceback (most recent call last):
        ValueError: layer 3 of the student small was asked for by hidden_mse, it has the layers 0 (embeddings) to ...
          student  0 . 1 . 2 3?
          teacher  0 1 2 3 4
    """
    for owner, facts in (("student", student), ("teacher", teacher)):
        if facts.num_layers is None:
            raise ValueError(
                f"{term} compares layers, the {owner} {facts.name} has no config that gives its num_hidden_layers: "
                "use a transformers model, or a term that compares logits."
            )
    ours, theirs = student.num_layers, teacher.num_layers
    if layers is None:
        return [(ours, theirs)]
    if layers in ("last", "skip") and ours > theirs:
        raise ValueError(
            f"layers={layers!r} was given to {term}, which needs a teacher at least as deep: the student "
            f"{student.name} has {ours} layers, the teacher {teacher.name} has {theirs}; use uniform, or name pairs."
            + stacks(ours, theirs, [])
        )
    if layers == LINEAGE:
        found = lineage_pairs(student, teacher)
        if found is None:
            raise ValueError(
                f"layers={layers!r} was given to {term}, and the configuration of the student {student.name} does not "
                f"tell which of the teacher {teacher.name}'s {theirs} layers its {ours} are copies of: make it with "
                "keep_layers, or use uniform." + stacks(ours, theirs, [])
            )
        return [pair for pair in found if min(pair) >= first]
    if isinstance(layers, str):
        return [pair for pair in AUTOMATIC[layers](ours, theirs) if min(pair) >= first]
    layers = [(_counted(one, ours), _counted(other, theirs)) for one, other in layers]
    what = "0 (embeddings)" if first == 0 else str(first)
    sides = (("student", student, [one for one, _ in layers]), ("teacher", teacher, [other for _, other in layers]))
    for owner, facts, asked in sides:
        wrong = [layer for layer in asked if not first <= layer <= facts.num_layers]
        if wrong:
            raise ValueError(
                f"layer {wrong[0]} of the {owner} {facts.name} was asked for by {term}, it has the layers {what} to "
                f"{facts.num_layers}: name one of those." + stacks(ours, theirs, layers, first)
            )
    if len(set(layers)) < len(layers):
        twice = next(pair for pair in layers if layers.count(pair) > 1)
        raise ValueError(f"layers name {twice[0]} -> {twice[1]} twice for {term}: name each pair once.")
    return list(layers)


def _counted(layer: int, depth: int) -> int:
    """A layer counted from the embeddings up; one that is not there stays as it was asked for."""
    return depth + 1 + layer if -depth - 1 <= layer < 0 else layer


def stacks(student: int, teacher: int, pairs: Pairs, first: int = 0) -> str:
    """Draw two stacks side by side, what was asked for and is not there with a question mark.

    Args:
        student: its number of layers.
        teacher: its number of layers.
        pairs: (student layer, teacher layer) that were asked for.
        first: the first layer that can be compared.

    Returns:
        Two lines, with a line break before each. The shallower model's layers stand below or above those at the same
        relative depth.

    Example:
        >>> print(stacks(2, 4, [(1, 2), (2, 9)]))
        <BLANKLINE>
          student  0 . 1 . 2
          teacher  0 1 2 3 4 9?
    """
    deepest, width = max(student, teacher, 1), len(str(max(student, teacher)))
    lines = []
    for owner, depth, asked in (
        ("student", student, [ours for ours, _ in pairs]),
        ("teacher", teacher, [theirs for _, theirs in pairs]),
    ):
        cells = ["."] * (deepest + 1)
        for layer in range(first, depth + 1):
            cells[round(layer * deepest / max(1, depth))] = str(layer)
        strange = sorted({layer for layer in asked if not first <= layer <= depth})
        row = [cell.rjust(width) for cell in cells[first:]] + [f"{layer}?" for layer in strange]
        lines.append(f"\n  {owner}  " + " ".join(row))
    return "".join(lines)
