"""The next token of held-out texts: loss, perplexity, right ones, KL and agreement, in float64.

Knows: logits and labels. Does not know: texts.
"""

from collections import Counter

import numpy as np
from rederived.figures import kl, log_softmax, ratio_rows
from rederived.run import Found

KEYS = ("loss", "accuracy", "kl", "agreement")


def measure(run):
    if "teacher" not in run.models:
        return Found("loss", "accuracy", {}, {})
    sums, counts = {name: [] for name in run.models}, []
    together = [run.predict(model) for model in run.models.values()]
    for shown in zip(*together, strict=True):
        labels = shown[0][1]["labels"][:, 1:].numpy()
        known = labels != -100
        logits = {name: one.logits[:, :-1].float().numpy() for name, (one, _) in zip(run.models, shown, strict=True)}
        counts += known.sum(axis=1).tolist()
        for name, one in logits.items():
            parts = zip(one, logits["teacher"], labels, known, strict=True)
            sums[name] += [row_sums(a[k], t[k], y[k]) for a, t, y, k in parts]
    each, figures = {}, {}
    for name, rows in sums.items():
        each[name] = {key: ratio_rows(np.array(rows)[:, k], counts) for k, key in enumerate(KEYS)}
        figures[name] = {"perplexity": float(np.exp(each[name]["loss"].mean()))}
    return Found("loss", "accuracy", each, figures, lower=True, floor=unigram(run.train, run.test))


def row_sums(logits, teacher, labels):
    """Sums over a row's tokens: [n, V], [n, V], [n] in, four numbers out."""
    loss = -log_softmax(logits)[np.arange(len(labels)), labels]
    chosen = logits.argmax(axis=-1)
    same = chosen == teacher.argmax(axis=-1)
    return loss.sum(), (chosen == labels).sum(), kl(teacher, logits).sum(), same.sum()


def unigram(train, test):
    """The loss of who knows how often each token stands in the training rows, each once more."""
    learnt, asked = (
        Counter(token for row in rows["labels"][:] for token in row[1:] if token != -100) for rows in (train, test)
    )
    whole = sum(learnt.values()) + len(learnt | asked)
    nats = sum(count * -np.log((learnt[token] + 1) / whole) for token, count in asked.items())
    return float(nats / sum(asked.values()))
