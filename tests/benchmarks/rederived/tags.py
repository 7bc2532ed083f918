"""A tag for each token: spans that are found exactly, tags that are right.

Knows: tags as words, logits of tokens. Does not know: texts, files.
"""

import numpy as np
from rederived.figures import expected_calibration_error, kl, ratio_rows
from rederived.run import Found, padded
from sklearn.metrics import accuracy_score

OPENS, CLOSES = "BSU", "ESL"


def measure(run):
    labels = [np.array(row) for row in run.test["labels"][:]]
    known = np.concatenate([row != -100 for row in padded([row[None] for row in labels], -100)])
    logits = {}
    for name, model in run.models.items():
        shown = padded([one.logits.float().numpy() for one, _ in run.predict(model)], 0.0)
        logits[name] = shown.reshape(-1, shown.shape[-1])[known]
    names = run.models["distilled"].config.id2label
    right = np.concatenate([row[row != -100] for row in labels])
    ends = np.cumsum([(row != -100).sum() for row in labels])[:-1]
    told = [spans([names[tag] for tag in row]) for row in np.split(right, ends)]
    chosen = {name: one.argmax(axis=-1) for name, one in logits.items()}
    each, figures = {}, {}
    for name, tags in chosen.items():
        said = [spans([names[tag] for tag in row]) for row in np.split(tags, ends)]
        each[name], figures[name] = scores(said, told)
        figures[name]["accuracy"] = accuracy_score(right, tags)
        figures[name]["calibration_error"] = expected_calibration_error(logits[name], right)
        if "teacher" in logits:
            figures[name]["agreement"] = accuracy_score(chosen["teacher"], tags)
            figures[name]["kl"] = float(kl(logits["teacher"], logits[name]).mean())
    learnt = np.concatenate([np.array(row) for row in run.train["labels"][:]])
    often = names[int(np.bincount(learnt[learnt != -100]).argmax())]
    floor = scores([spans([often] * len(row)) for row in np.split(right, ends)], told)[1]["f1"]
    return Found("f1", "f1", each, figures, floor=floor, floor_plotted=floor)


def scores(said, told):
    """What each row adds to F1, and all spans' precision, recall and F1."""
    hits = np.array([len(a & b) for a, b in zip(said, told, strict=True)])
    found, there = (np.array([len(row) for row in rows]) for rows in (said, told))
    figures = {
        "precision": hits.sum() / found.sum() if found.sum() else 0.0,
        "recall": hits.sum() / there.sum() if there.sum() else 0.0,
    }
    each = ratio_rows(2 * hits, found + there) if (found + there).any() else np.zeros(len(said))
    return {"f1": each}, figures | {"f1": float(2 * hits.sum() / max(1, (found + there).sum()))}


def spans(tags):
    """{(first, last, type)}: as the CoNLL evaluation reads B I O, B I O E S, B I L O U and B M E S."""
    first = [place for place in range(len(tags)) if begins(tags, place)]
    found = set()
    for start in first:
        last = start
        while last + 1 < len(tags) and tags[last + 1] != "O" and not begins(tags, last + 1):
            last += 1
        found.add((start, last, tags[start][2:]))
    return found


def begins(tags, place):
    tag, before = tags[place], tags[place - 1] if place else "O"
    if tag == "O":
        return False
    return tag[0] in OPENS or before == "O" or before[0] in CLOSES or before[2:] != tag[2:]
