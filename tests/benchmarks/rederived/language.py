"""Next tokens of held-out texts, or hidden ones: loss, perplexity, right ones, KL and agreement, in float64.

Knows: logits and labels. Does not know: texts.
"""

from collections import Counter

import numpy as np
from rederived.figures import kl, log_softmax, ratio_rows
from rederived.run import Found

KEYS = ("loss", "accuracy", "kl", "agreement")


def measure(run):
    learnt = Counter(token for row in run.train["labels"][:] for token in row[1:] if token != -100)
    return of_labels(run, lambda logits, labels: (logits[:, :-1], labels[:, 1:]), learnt)


def of_labels(run, aligned, learnt):
    """Measure the models where a label is.

    Args:
        run: that is finished.
        aligned: logits [B, T, V] and labels [B, T] -> the same, each label beside the logits that are about it.
        learnt: how often each token stands in the training rows.
    """
    if "teacher" not in run.models:
        return Found("loss", "accuracy", {}, {})
    sums, counts, asked = {name: [] for name in run.models}, [], Counter()
    together = [run.predict(model) for model in run.models.values()]
    for shown in zip(*together, strict=True):
        logits = {}
        for name, (one, batch) in zip(run.models, shown, strict=True):
            logits[name], labels = aligned(one.logits.float().numpy(), batch["labels"].numpy())
        known = labels != -100
        counts += known.sum(axis=1).tolist()
        asked.update(labels[known].tolist())
        for name, one in logits.items():
            parts = zip(one, logits["teacher"], labels, known, strict=True)
            sums[name] += [row_sums(a[k], t[k], y[k]) for a, t, y, k in parts]
    each, figures = {}, {}
    for name, rows in sums.items():
        each[name] = {key: ratio_rows(np.array(rows)[:, k], counts) for k, key in enumerate(KEYS)}
        figures[name] = {"perplexity": float(np.exp(each[name]["loss"].mean()))}
    return Found("loss", "accuracy", each, figures, lower=True, floor=unigram(learnt, asked))


def row_sums(logits, teacher, labels):
    """Sums over a row's tokens: [n, V], [n, V], [n] in, four numbers out."""
    loss = -log_softmax(logits)[np.arange(len(labels)), labels]
    chosen = logits.argmax(axis=-1)
    same = chosen == teacher.argmax(axis=-1)
    return loss.sum(), (chosen == labels).sum(), kl(teacher, logits).sum(), same.sum()


def unigram(learnt, asked):
    """The loss of who knows how often each token stands in the training rows, each once more."""
    whole = sum(learnt.values()) + len(learnt | asked)
    nats = sum(count * -np.log((learnt[token] + 1) / whole) for token, count in asked.items())
    return float(nats / sum(asked.values()))
