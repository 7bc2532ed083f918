"""Images and texts: classes that are named by captions, each image's the nearest.

Knows: the vectors of two towers. Does not know: pixels, words.
"""

from itertools import chain

import numpy as np
from rederived import classes
from rederived.run import Unknown


def measure(run):
    texts = getattr(run.experiment.scoring, "texts", None)
    if texts is None:
        raise Unknown("recall of captions is not measured here")
    captions, labels, logits = list(chain.from_iterable(texts)), np.array(run.test["label"][:]), {}
    asked = run.test.select([0] * len(captions)).remove_columns("captions")
    asked = asked.add_column("captions", [[text] for text in captions])
    for name, model in run.models.items():
        images = unit(np.concatenate([shown.image_embeds.numpy() for shown, _ in run.predict(model)]))
        words = unit(np.concatenate([shown.text_embeds.numpy() for shown, _ in run.predict(model, asked)]))
        named = unit(np.array([part.mean(axis=0) for part in np.split(words, len(texts))]))
        scale = np.exp(model.logit_scale.item())
        logits[name] = (scale * np.einsum("nd,cd->nc", images, named)).astype(np.float32)
    learnt = np.array(run.train["label"][:])
    return classes.found_of(logits, labels, run.experiment.scoring.names, learnt)


def unit(vectors):
    vectors = np.asarray(vectors, dtype=float)
    return vectors / np.sqrt((vectors**2).sum(axis=-1, keepdims=True))
