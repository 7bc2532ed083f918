"""What a run says last: its verdict, and whether the student is what was required of it.

Knows: a report, requirements, exit codes. Does not know: how figures were measured, where a student goes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from hf_distill.reports.fidelity import GapClosed
from hf_distill.reports.verdict import NOTHING, UNPROVED, NoDrop, Requirement, unmet, verdict

UNMET = 3
"""The exit code of a run whose student is not what was required: 1 is an error, 2 a wrong flag."""


def judged(
    found: Mapping[str, Any],
    required: Iterable[Requirement | NoDrop],
    quick: bool = False,
    **gaps: GapClosed | None,
) -> dict[str, Any]:
    """Return what a report says of its student: verdicts, and the requirements that it does not meet.

    Where nothing was learned the ``summary`` says so first.

    Args:
        found: the report so far; ``floor_lead`` says whether anything was learned.
        required: what the student must be.
        quick: whether only a tenth of the rows was read, of which nothing follows: all verdicts say so.
        **gaps: name of the verdict -> the gap that it is about.
    """
    required = list(required)
    asked = {"required": [str(one) for one in required], "unmet": unmet(required, found)} if required else {}
    lead = found.get("floor_lead")
    verdicts = {name: UNPROVED if quick else verdict(gap, lead) for name, gap in gaps.items()}
    nothing = {"summary": f"{NOTHING}; {found['summary']}"} if NOTHING in verdicts.values() else {}
    return {**nothing, **verdicts, **asked}


def last_line(report: Mapping[str, Any], clock: str = "seconds") -> str:
    """Say the verdict in a line, for people and for scripts that look for ``VERDICT:``.

    Args:
        report: what ``report.json`` holds.
        clock: what ``verdict_as_long`` was equal in.

    Example:
        >>> last_line({"verdict": "helps", "gap": {"ratio": 0.62, "interval": [0.55, 0.69]}})
        'VERDICT: helps; 62 % of the gap closed (at 95 %: 55 to 69 %)'
    """
    if report["verdict"] in (NOTHING, UNPROVED):
        return f"VERDICT: {report['verdict']}"
    said = f"VERDICT: {report['verdict']}{_share(report.get('gap'))}"
    if "verdict_as_long" in report:
        said += f". At equal {clock}: {report['verdict_as_long']}{_share(report['gap_as_long'])}"
    if (lead := report.get("floor_lead")) is not None and lead <= 2 * report["floor_lead_error"]:
        said += ". No model is clearly ahead of the floor"
    return said


def decide(report: Mapping[str, Any], first: bool = True) -> None:
    """End the process with exit code 3, a sentence for each requirement, where the student does not meet all.

    Args:
        report: what ``report.json`` holds; it is written by now.
        first: whether this process speaks for all.

    Raises:
        SystemExit: with code 3.
    """
    if not (said := report.get("unmet")):
        return
    if first:
        print("\n".join(f"not met: {one}." for one in said), file=sys.stderr)
    raise SystemExit(UNMET)


def _share(gap: Mapping[str, Any] | None) -> str:
    if not gap or gap["ratio"] is None:
        return ""
    bounds = gap["interval"]
    told = "" if bounds is None else f" (at 95 %: {100 * bounds[0]:.0f} to {100 * bounds[1]:.0f} %)"
    return f"; {100 * gap['ratio']:.0f} % of the gap closed{told}"
