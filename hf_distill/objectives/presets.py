"""What ``objective="auto"`` stands for: what won the measurements, where the two models can be compared so.

Knows: what is known of two models before they run. Does not know: trainers, data sets, how anything is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hf_distill.models.facts import Facts

AUTO = "auto"
"""What a user writes to be given a preset."""

INSIDE: Mapping[str, Any] = {"hidden_mse": 1.0}
"""What is added to a task's own objective where hidden states can be compared."""
HALF = 0.5
"""The share of a run after which predictions take the place of hidden states, where the two take turns."""


def preset(
    own: str | Mapping[str, Any],
    student: Facts,
    teacher: Facts,
    serves: Iterable[str],
    same_tokens: bool,
    hidden_first: bool = False,
) -> dict[str, Any]:
    """Choose an objective for two models.

    The logits as the task compares them, and hidden states beside them where both models have layers of known width
    over the same tokens; for some tasks hidden states in the first half of the run, the logits in the second. All that
    was tried is in ``tests/benchmarks/README.md`` and, of tokens, in ``tests/benchmarks/weak_rows.md``.

    Args:
        own: the task's own objective, by its name or with its weights.
        student: what is known of the student.
        teacher: what is known of the teacher.
        serves: what the teacher can show; see ``Teacher.serves``.
        same_tokens: whether both models read the same tokens.
        hidden_first: whether the two take turns; see ``Task``.

    Returns:
        A mapping as ``build`` takes it.

    Example:
        >>> small, big = Facts(hidden_size=4, num_layers=1), Facts(hidden_size=8, num_layers=2)
        >>> preset("forward_kl", small, big, {"heads", "hidden"}, same_tokens=True)
        {'forward_kl': 1.0, 'hidden_mse': 1.0}
        >>> preset("forward_kl", small, big, {"heads", "hidden"}, same_tokens=True, hidden_first=True)
        {'hidden_mse': {'weight': {'until': 0.5}}, 'forward_kl': {'weight': {'from': 0.5}}}
        >>> preset("forward_kl", small, big, {"heads"}, same_tokens=True)
        {'forward_kl': 1.0}
    """
    known = all(None not in (facts.hidden_size, facts.num_layers) for facts in (student, teacher))
    inside = INSIDE if known and same_tokens and "hidden" in set(serves) else {}
    if inside and hidden_first and isinstance(own, str):
        return {**{name: {"weight": {"until": HALF}} for name in inside}, own: {"weight": {"from": HALF}}}
    return {**({own: 1.0} if isinstance(own, str) else own), **inside}
