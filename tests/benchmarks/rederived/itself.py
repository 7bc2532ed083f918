"""What of a report follows from the report alone, where no model lies beside it: a card's figures among each other.

Knows: the report's own numbers. Does not know: models, rows.
"""

import math

import numpy as np
from rederived.figures import verdict_of

COUNTED = {"accuracy": "accuracy", "exact": "exact"}
"""Scores that are shares of the test rows."""
LOWER = {"loss", "kl", "cer", "wer", "fd"}


def again(report):
    """Compute figures from other figures of the report, in its form."""
    found = {"models": {}}
    rows = {row["name"]: row for row in report["models"]}
    n = report["rows"]["test"]
    for name, row in rows.items():
        found["models"][name] = of_model(name, row, report, n)
    score, gap = score_of(report, rows), report.get("gap")
    if gap and score:
        alone = next(name for name in rows if name not in ("teacher", "distilled"))
        sign = -1 if score in LOWER else 1
        found["gap"] = {
            "gap": sign * (rows["teacher"][score] - rows[alone][score]),
            "gain": sign * (rows["distilled"][score] - rows[alone][score]),
        }
        if gap["ratio"] is not None:
            found["gap"]["ratio"] = gap["gain"] / gap["gap"]
    if report.get("floor") is not None and score:
        sign = -1 if score in LOWER else 1
        found["floor_lead"] = max(sign * (row[score] - report["floor"]) for row in rows.values())
    if report.get("verdict"):
        found["verdict"] = verdict_of(gap, found.get("floor_lead"))
    return found


def of_model(name, row, report, n):
    found = {}
    if name == "teacher":  # it is as the teacher, on every row
        itself = {"agreement": 1.0, "agreement_error": 0.0, "kl": 0.0, "kl_error": 0.0}
        found = {figure: value for figure, value in itself.items() if figure in row}
    if "perplexity" in row and "loss" in row:
        found["perplexity"] = math.exp(row["loss"])
    if "float32" in str(report.get("mode")) and "parameters" in row:
        found["megabytes"] = row["parameters"] * 4 / 1e6
    for score in COUNTED:
        if row.get(f"{score}_interval") and n and "loss" not in row and f"{score}_error" in row and 0 < row[score] < 1:
            right = round(row[score] * n)
            found[score] = right / n
            found[f"{score}_interval"] = wilson_bounds(right, n)
    if report.get("classes") and name in report["classes"][0]["f1"]:
        known = [one for one in report["classes"] if one["f1"][name] is not None]
        found["macro_f1"] = float(np.mean([one["f1"][name] for one in known]))
        there = [one for one in report["classes"] if one["rows"]]
        found["accuracy"] = sum(one["recall"][name] * one["rows"] for one in there) / sum(o["rows"] for o in there)
    for part, figure in (("class_ious", "mean_iou"), ("class_ap", "ap")):
        if part in report:
            each = report[part].get(name) or {label: one[name] for label, one in report[part].items() if name in one}
            found[figure] = float(np.mean([one for one in each.values() if one is not None]))
    return found


def wilson_bounds(right, n):
    """As ``figures.wilson``, by the formula: no rows are needed."""
    from scipy import stats

    found = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    return [float(found.low), float(found.high)]


def score_of(report, rows):
    """The figure whose difference of two models is the gap."""
    gap, student = report.get("gap"), rows.get("distilled", {})
    if not gap:
        return report["plotted"][0] if report.get("plotted") else None
    alone = next((row for name, row in rows.items() if name not in ("teacher", "distilled")), {})
    for name, value in student.items():
        if isinstance(value, float) and isinstance(alone.get(name), float):
            if math.isclose(abs(value - alone[name]), abs(gap["gain"]), rel_tol=1e-6, abs_tol=1e-12):
                return name
    return None
