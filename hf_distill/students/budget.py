"""A student that fits a budget: how deep and how wide it is follows from what it may cost.

Knows: which of the shapes that fit is taken, how its parts are cut. Does not know: how shapes are found, training.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from operator import ge
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hf_distill.models.facts import Facts
from hf_distill.models.meta import built
from hf_distill.models.sharding import unsharded
from hf_distill.models.texts import text_positions
from hf_distill.reports.speed import latency
from hf_distill.students.anatomy import Sizes
from hf_distill.students.depth import find_stacks, reshaped
from hf_distill.students.layers import keep_layers
from hf_distill.students.lineage import named, record
from hf_distill.students.shapes import Shape, shapes_of
from hf_distill.students.stages import chosen_layers
from hf_distill.students.width import shrink_width

logger = logging.getLogger(__name__)

NEAR = 0.9
"""Shapes that spend this share of what the largest one spends are as large; among them the balanced one is taken."""
FORWARDS = 20
"""So many are timed of each shape whose latency is asked for."""


def fit_budget(
    teacher: PreTrainedModel,
    *,
    parameters: float | None = None,
    megabytes: float | None = None,
    latency_ms: float | None = None,
    batch: Mapping[str, Tensor] | None = None,
    batches: Iterable[Mapping[str, Any]] | None = None,
    judged: int = 1,
    layers: int | None = None,
    hidden_size: int | None = None,
) -> PreTrainedModel:
    """Make the student of a teacher that a budget allows, by ``keep_layers`` and ``shrink_width``.

    All shapes that the architecture can have are enumerated without memory: depths, heads, widths, insides. Of those
    within the budget the largest count, with all that have nine tenths of its parameters or more; of these the one is
    taken whose depth, width and inside are cut most alike (the least ratio of the largest share of the teacher's to
    the smallest; of equals the larger). A budget spent is better than one saved, and a student that is cut to the bone
    in one direction is the one that has most to learn anew.

    Args:
        teacher: a ``PreTrainedModel`` whose layers are found; see ``keep_layers``.
        parameters: at most so many; below 1 a share of the teacher's. All of them count, embeddings too.
        megabytes: at most so many (10**6 bytes), in the teacher's dtype.
        latency_ms: at most so many milliseconds for one row (the median of 20), where the teacher is. Each width, its
            inside in the teacher's ratio, is timed at a few depths, with random weights.
        batch: rows that are timed; without it, the first of ``batches``.
        batches: rows of your data, as for ``shrink_width``. None: only whole layers are left out.
        judged: so many of the best shapes are made and compared with the teacher on the batches, by the KL divergence
            of their logits before any training; the nearest stays. What is nearest then need not be so after training.
        layers: only shapes of this depth, so that the width follows.
        hidden_size: only shapes of this width, so that the depth follows.

    Returns:
        The student; ``lineage`` says what was chosen, and of how many.

    Raises:
        ValueError: not one budget, a budget that the smallest student does not meet, or nothing to cut.

    Reference:
        Muralidharan et al.: Compact Language Models via Pruning and Knowledge Distillation (Minitron),
        arXiv:2407.14679 (shapes within a budget of parameters, enumerated; their order before training is not the
        one after it).

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> sizes = dict(hidden_size=32, num_attention_heads=4, intermediate_size=64, vocab_size=50)
        >>> teacher = BertModel(BertConfig(num_hidden_layers=4, max_position_embeddings=16, **sizes))
        >>> small = fit_budget(teacher, parameters=0.25, batches=[{"input_ids": torch.tensor([[1, 2, 3]])}])
        >>> small.config.num_hidden_layers, small.config.hidden_size, small.num_parameters() / teacher.num_parameters()
        (3, 16, 0.236...)
    """
    asked = {"parameters": parameters, "megabytes": megabytes, "latency_ms": latency_ms}
    asked = {name: value for name, value in asked.items() if value is not None}
    whole, name = unsharded(teacher), type(teacher).__name__
    if len(asked) != 1 or not next(iter(asked.values())) > 0:
        raise ValueError(
            f"a student of {name} was asked for within {asked or 'no budget'}: give one of parameters, megabytes and "
            "latency_ms, above 0."
        )
    batches = None if batches is None else list(batches)
    row = batch if batch is not None else (batches or [None])[0]
    if latency_ms is not None and row is None:
        raise ValueError(f"latency_ms={latency_ms} was asked of a student of {name}: give the rows to time as batch.")
    if judged > 1 and not batches:
        raise ValueError(f"{judged} shapes of {name} were to be judged: give rows of your data as batches.")
    shapes = shapes_of(whole, wide=bool(batches), layers=layers, hidden_size=hidden_size)
    (what, limit), cost = next(iter(asked.items())), {}
    if what == "parameters" and limit < 1:
        limit = limit * sum(p.numel() for p in whole.parameters())
    if what == "latency_ms":
        shapes, cost = _timed(whole, shapes, row, limit)
    fit = [shape for shape in shapes if (cost[shape] if cost else getattr(shape, what)) <= limit]
    if not fit:
        least = min(shapes, key=lambda shape: cost[shape] if cost else getattr(shape, what))
        _refuse(name, what, limit, least, cost[least] if cost else getattr(least, what), bool(batches))
    best = ranked(fit)[: max(1, judged)]
    students = [_made(whole, shape, batches) for shape in best]
    far = [_distance(whole, student, batches) for student in students] if len(best) > 1 else [0.0]
    place = far.index(min(far))
    student, shape = students[place], best[place]
    spent = cost[shape] if cost else getattr(shape, what)
    more = {"judged": len(best)} if len(best) > 1 else {}
    record(student, student, "fit_budget", budget=what, limit=limit, spent=spent, shapes=len(shapes), **more)
    student.config.distillation[-1]["teacher"] = named(Facts.of(whole).name)
    logger.info("Of %d shapes within %s %g: %s (%s %g).", len(fit), what, limit, shape, what, spent)
    return student


def shapes_on_the_way(teacher: PreTrainedModel, parameters: float, rounds: int) -> list[tuple[float, Shape]]:
    """Plan in which shapes a student comes to a budget in rounds, between which it is trained; see ``cut_to``.

    The last is that of ``fit_budget``. The one of round k of n has at most ``share ** (k / n)`` of the teacher's
    parameters, is nowhere smaller than the next one, and is chosen by the same rule.

    Args:
        teacher: of its weights only the dtype is read.
        parameters: at most so many in the end; below 1 a share of the teacher's.
        rounds: 1 or more.

    Returns:
        Of each round how many parameters are allowed, and the shape.

    Raises:
        ValueError: a budget that the smallest student does not meet, or nothing to cut.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> sizes = dict(hidden_size=32, num_attention_heads=2, intermediate_size=64, vocab_size=50)
        >>> teacher = BertModel(BertConfig(num_hidden_layers=8, max_position_embeddings=16, **sizes))
        >>> for limit, shape in shapes_on_the_way(teacher, 0.25, rounds=2):
        ...     print(f"{shape.parameters} of {limit:.0f}:", shape)
        27632 of 35824: 8 layers, hidden_size 16, num_heads 1, intermediate_size 64
        17904 of 17912: 6 layers, hidden_size 16, num_heads 1, intermediate_size 48
    """
    shapes = shapes_of(teacher)
    whole = max(shape.parameters for shape in shapes)  # the teacher's own is among them
    share = parameters if parameters < 1 else parameters / whole
    way: list[tuple[float, Shape]] = []
    for number in range(rounds, 0, -1):
        limit = whole * share ** (number / rounds)
        least = way[0][1].shares if way else (0.0, 0.0, 0.0)
        fit = [one for one in shapes if one.parameters <= limit and all(map(ge, one.shares, least))]
        if not fit:
            smallest = min(shapes, key=lambda shape: shape.parameters)
            _refuse(type(teacher).__name__, "parameters", limit, smallest, smallest.parameters, wide=True)
        way.insert(0, (limit, ranked(fit)[0]))
    return way


def cut_to(
    model: PreTrainedModel,
    way: Sequence[tuple[float, Shape]],
    number: int,
    batches: Sequence[Mapping[str, Any]],
) -> PreTrainedModel:
    """Cut a student to the shape of a round.

    Args:
        model: the teacher before the first round, else the student of the round before.
        way: as ``shapes_on_the_way`` planned it.
        number: of the round, from 1.
        batches: rows of your data, as for ``shrink_width``.

    Returns:
        The student of the round, a copy; ``lineage`` says of which it is.
    """
    limit, shape = way[number - 1]
    if number > 1:  # what is as it was in the round before stays as it is
        before = way[number - 2][1]
        layers = None if shape.layers == before.layers else shape.layers
        shape = replace(shape, layers=layers, sizes={} if shape.sizes == before.sizes else shape.sizes)
    student, name = _made(model, shape, batches), named(Facts.of(model).name)
    record(student, student, "cut_to", round=number, rounds=len(way), limit=limit, spent=shape.parameters)
    student.config.distillation[-1]["teacher"] = name
    return student


def ranked(shapes: Sequence[Shape]) -> list[Shape]:
    """Sort shapes that fit a budget, the best first; see ``fit_budget`` for the rule.

    Args:
        shapes: at least one.

    Example:
        >>> thin, even = Shape(4, {}, (1.0, 0.2, 0.2), 100, 0.4), Shape(2, {}, (0.5, 0.5, 0.4), 95, 0.4)
        >>> tiny = Shape(1, {}, (0.2, 0.2, 0.2), 10, 0.04)
        >>> ranked([tiny, thin, even]) == [even, thin, tiny]
        True
    """
    most = max(shape.parameters for shape in shapes)
    near = [shape for shape in shapes if shape.parameters >= NEAR * most]
    rest = [shape for shape in shapes if shape.parameters < NEAR * most]
    near.sort(key=lambda shape: (round(shape.imbalance, 6), -shape.parameters))
    return [*near, *sorted(rest, key=lambda shape: -shape.parameters)]


def _refuse(name: str, what: str, limit: float, least: Shape, spent: float, wide: bool) -> None:
    more = "" if wide else ", or give batches, with which the width is cut too"
    sizes = {"parameters": "{:,.0f} parameters", "megabytes": "{:,.3g} MB", "latency_ms": "{:,.3g} ms"}[what]
    raise ValueError(
        f"a student of {name} of at most {sizes.format(limit)} was asked for, and the smallest there is ({least}) has "
        f"{sizes.format(spent)}: ask for that{more}."
    )


def _made(teacher: PreTrainedModel, shape: Shape, batches: Sequence[Mapping[str, Any]] | None) -> PreTrainedModel:
    if shape.layers is None and not shape.sizes:
        return copy.deepcopy(teacher)
    student = teacher if shape.layers is None else keep_layers(teacher, shape.layers)
    return shrink_width(student, **shape.sizes, batches=batches) if shape.sizes else student


def _timed(
    teacher: PreTrainedModel, shapes: Sequence[Shape], row: Mapping[str, Tensor], limit: float
) -> tuple[list[Shape], dict[Shape, float]]:
    """Time shapes until it is known which fit: at each width the deepest that does, found by halving."""
    times: dict[Shape, float] = {}

    def cost(shape: Shape) -> float:
        if shape not in times:
            times[shape] = latency(_blank(teacher, shape), row, FORWARDS).p50
        return times[shape]

    by_width: dict[tuple[float, ...], list[Shape]] = {}
    inside = sorted({shape.shares[2] for shape in shapes})
    for shape in shapes:  # the inside is the teacher's ratio, as near as there is
        if shape.shares[2] == min(inside, key=lambda part, s=shape: abs(part - s.shares[1])):
            by_width.setdefault(shape.shares[1:], []).append(shape)
    for stack in by_width.values():
        stack.sort(key=lambda shape: shape.shares[0])
        low, high = 0, len(stack)  # below `low` all fit, from `high` on none
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if cost(stack[middle]) <= limit else (low, middle)
    return list(times), times


def _blank(teacher: PreTrainedModel, shape: Shape) -> PreTrainedModel:
    """A student with random weights, where the teacher is."""
    config = teacher.config
    if shape.sizes:
        own = Sizes.of(teacher)
        new = copy.copy(own)
        vars(new).update(shape.sizes)
        new.num_groups = new.num_heads if own.num_groups == own.num_heads else own.num_groups
        config = new.set_in(config)
    if shape.layers is not None:
        stacks = [stack for stack in find_stacks(built(type(teacher), config)) if stack.paths]
        config = reshaped(config, {s: chosen_layers(shape.layers, s.depth, "uniform", "") for s in stacks})
    with torch.random.fork_rng(devices=[]):
        return type(teacher)(copy.deepcopy(config)).to(teacher.device, teacher.dtype)


def _distance(teacher: PreTrainedModel, student: PreTrainedModel, batches: Sequence[Mapping[str, Any]]) -> float:
    """The mean KL divergence of the student's logits from the teacher's, over rows or positions without padding."""
    total, count = 0.0, 0
    for batch in batches:
        inputs = {name: value.to(teacher.device) for name, value in batch.items() if name != "labels"}
        theirs, ours = (_logits(model, inputs) for model in (teacher, student))
        apart = torch.nn.functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=-1)
        mask = text_positions(inputs)
        apart = apart[mask] if mask is not None and mask.shape == apart.shape else apart.flatten()
        total, count = total + float(apart.sum()), count + apart.numel()
    return total / max(count, 1)


def _logits(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> Tensor:
    training = model.training
    with torch.no_grad():
        found = getattr(model.eval()(**inputs), "logits", None)
    model.train(training)
    if found is None:
        raise ValueError(
            f"shapes of {type(model).__name__} were to be judged by their logits, which it does not give: leave "
            "judged out."
        )
    return found.float().log_softmax(dim=-1)
