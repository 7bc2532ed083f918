"""One class a row, of texts, images or recordings: scikit-learn's figures.

Knows: logits and labels. Does not know: what a row holds, where models lie.
"""

import numpy as np
from rederived.figures import error, expected_calibration_error, kl, ratio_rows
from rederived.run import Found
from sklearn.metrics import accuracy_score, f1_score, recall_score


def measure(run):
    labels = np.array(run.test["label"][:])
    logits = {}
    for name, model in run.models.items():
        logits[name] = np.concatenate([shown.logits.float().numpy() for shown, _ in run.predict(model)])
    names = run.models["distilled"].config.id2label
    return found_of(logits, labels, [names[i] for i in range(len(names))], np.array(run.train["label"][:]))


def found_of(logits, labels, names, learnt):
    """Measure logits [N, C] of each model against labels [N]; ``learnt``: the labels of the training rows."""
    chosen = {name: one.argmax(axis=-1) for name, one in logits.items()}
    each = {name: {"accuracy": (one == labels).astype(float)} for name, one in chosen.items()}
    figures = {}
    for name, said in chosen.items():
        figures[name] = {"accuracy": accuracy_score(labels, said), "macro_f1": f1_score(labels, said, average="macro")}
        figures[name]["calibration_error"] = expected_calibration_error(logits[name], labels)
        if "teacher" in logits:
            figures[name]["agreement"] = accuracy_score(chosen["teacher"], said)
            figures[name]["kl"] = float(kl(logits["teacher"], logits[name]).mean())
    often = np.bincount(learnt[learnt >= 0]).argmax()
    floor = float((labels == often).mean())
    details = {"classes": class_rows(chosen, labels, names)}
    return Found("accuracy", "accuracy", each, figures, True, floor=floor, floor_plotted=floor, details=details)


def class_rows(chosen, labels, names):
    """What ``classes`` of a report holds, by the number of the class."""
    numbers, before = list(range(len(names))), "student alone" if "student alone" in chosen else "teacher"
    how = {"labels": numbers, "average": None, "zero_division": 0}
    recalls = {name: recall_score(labels, said, **how) for name, said in chosen.items()}
    f1s = {name: f1_score(labels, said, **how) for name, said in chosen.items()}
    rows = {}
    for number in numbers:
        there = labels == number
        said = {name: one == number for name, one in chosen.items()}
        rows[number] = {
            "rows": int(there.sum()),
            "recall": {name: float(one[number]) if there.any() else None for name, one in recalls.items()},
            "f1": {name: float(f1s[name][number]) if (there | said[name]).any() else None for name in said},
            "change": None,
            "change_error": None,
        }
        if there.any() and before in f1s:
            moved = [
                ratio_rows(2.0 * (there & said[name]), there * 1.0 + said[name]) for name in ("distilled", before)
            ]
            rows[number]["change"] = float(f1s["distilled"][number] - f1s[before][number])
            rows[number]["change_error"] = error(moved[0] - moved[1])
    return rows
