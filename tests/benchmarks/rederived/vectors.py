"""Vectors of texts beside the teacher's: cosines, scipy's rank correlation, nearest neighbours.

Knows: encoders, texts as tokens. Does not know: how a student is trained. The untaught student is not kept: the recipe
makes it again from its teacher.
"""

import tempfile

import numpy as np
import torch
from rederived.run import Found, size_of
from scipy.spatial.distance import cdist, pdist
from scipy.stats import spearmanr

PAIRED, SEARCHED = 300, 2000


def measure(run):
    if "untaught student" not in run.models:
        with tempfile.TemporaryDirectory() as scratch:
            run.experiment.args.output_dir = scratch
            run.models["untaught student"] = run.experiment.trainer().model.eval()
        run.sizes["untaught student"] = size_of(run.models["untaught student"])
    vectors = {name: encoded(run, model) for name, model in run.models.items()}
    teacher, each, figures = vectors["teacher"], {}, {}
    for name, own in vectors.items():
        cosines = (own * teacher).sum(axis=1) / np.linalg.norm(own, axis=1) / np.linalg.norm(teacher, axis=1)
        each[name] = {"cosine": cosines}
        pairs = [-pdist(one[:PAIRED], "cosine") for one in (own, teacher)]
        nearest = [nearest_other(one[:SEARCHED]) for one in (own, teacher)]
        figures[name] = {
            "spearman": float(spearmanr(*pairs).statistic),
            "agreement": float((nearest[0] == nearest[1]).mean()),
        }
    return Found("cosine", "cosine", each, figures, baseline="untaught student")


def encoded(run, model):
    found = []
    for batch in run.batches(model):
        with torch.no_grad():
            states = model(**batch).last_hidden_state.float()
        if run.experiment.pool == "first":
            found.append(states[:, 0].numpy())
        else:
            masks = batch["attention_mask"].bool()
            found += [row[mask].mean(dim=0, keepdim=True).numpy() for row, mask in zip(states, masks, strict=True)]
    return np.concatenate(found).astype(float)


def nearest_other(vectors):
    far = cdist(vectors, vectors, "cosine")
    np.fill_diagonal(far, np.inf)
    return far.argmin(axis=1)
