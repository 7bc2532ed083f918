"""Drafts beside their teacher: KL and agreement of each token that a draft says ahead, in float64.

Knows: what a draft head is fed, which positions each of its passes can speak about. Does not know: how a text is
written with a draft's help, so what that saves is not computed again.
"""

import numpy as np
import torch
from rederived.figures import kl, ratio_rows
from rederived.run import Found

PLAIN, HEAD = "plain draft", "distilled"
FED = ("low_states", "middle_states", "high_states")


def measure(run):
    teacher, head = run.models["teacher"], run.models[HEAD]
    sums, counts = {}, {}
    for batch in run.batches(teacher):
        fed = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            shown = teacher(**fed, output_hidden_states=True)
            states = {n: shown.hidden_states[layer] for n, layer in zip(FED, head.config.reads_layers, strict=True)}
            drafts = {(name, 1): run.models[name](**fed).logits for name in (PLAIN,) if name in run.models}
            passes = head(**fed, **states)
        drafts |= {(HEAD, n + 1): one for n, one in enumerate((passes.logits, *(passes.further_logits or ())))}
        real, labels = batch["attention_mask"].numpy() == 1, batch["labels"].numpy()
        for (name, number), logits in drafts.items():
            known = known_of(real, labels, number)
            parts = zip(logits.float().numpy(), shown.logits.float().numpy(), known, strict=True)
            sums.setdefault((name, number), []).extend(of_row(ours[k], theirs[k]) for ours, theirs, k in parts)
            counts.setdefault((name, number), []).extend(known.sum(axis=1))
    each, figures = {}, {}
    for (name, number), rows in sums.items():
        shares = [ratio_rows(one, counts[name, number]) for one in np.array(rows).T]
        if number == 1:
            each[name], figures[name] = dict(zip(("kl", "agreement"), shares, strict=True)), {}
        else:
            told = (f"kl_{number}", f"agreement_{number}")
            figures[name] |= {key: float(one.mean()) for key, one in zip(told, shares, strict=True)}
    rows = len(counts[HEAD, 1])
    each["teacher"], figures["teacher"] = {"kl": np.zeros(rows), "agreement": np.ones(rows)}, {}
    return Found("kl", "agreement", each, figures, lower=True, baseline=PLAIN)


def known_of(real, labels, number):
    """Where the draft's token of that number is known: one behind it, and as many before it as were drafted."""
    known = np.zeros_like(real)
    known[:, :-1] = real[:, :-1] & (labels[:, 1:] != -100)
    for before in range(1, number + 1):
        known[:, before:] &= real[:, :-before]
        known[:, :before] = False
    return known


def of_row(ours, theirs):
    """Sums over a row's positions, [n, V] each."""
    return kl(theirs, ours).sum(), (ours.argmax(axis=-1) == theirs.argmax(axis=-1)).sum()
