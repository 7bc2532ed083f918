"""What came of one forward of a student, beside which a teacher was heard.

Knows: outputs and sums. Does not know: who made them, what they are divided by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from hf_distill.signals import Sum


@dataclass
class Compared:
    """What came of one forward of the student.

    Args:
        outputs: what the student returned.
        sums: name -> the sum of each term, and of the supervised loss (``"hard"``) where it is computed beside them.
        unused: a zero with the graph of what no term uses now.
        asked: the flags that the student was called with beside its inputs.
    """

    outputs: Any
    sums: dict[str, Sum | Mapping[str, Sum]] = field(default_factory=dict)
    unused: Tensor | float = 0.0
    asked: Mapping[str, Any] = field(default_factory=dict)
