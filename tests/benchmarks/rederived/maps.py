"""A class for each pixel: scikit-learn's confusion of all pixels.

Knows: logits and maps. Does not know: images.
"""

import numpy as np
from rederived.figures import ratio_rows
from rederived.run import Found, Unknown
from sklearn.metrics import confusion_matrix
from torch.nn import functional

NONE = 255


def measure(run):
    if run.experiment.recipe.reduce_labels:
        raise Unknown("maps with reduce_labels are not measured here")
    names = run.models["distilled"].config.id2label
    said, right = {}, None
    for name, model in run.models.items():
        pairs = [chosen(shown.logits, batch["labels"]) for shown, batch in run.predict(model)]
        said[name], right = (np.concatenate(one) for one in zip(*pairs, strict=True))
    each, figures, details = {}, {}, {}
    for name, maps in said.items():
        each[name], figures[name], ious = scores(maps, right, len(names))
        details[name] = {names[number]: one for number, one in enumerate(ious)}
        if "teacher" in said:
            figures[name]["agreement"] = float((maps == said["teacher"])[right != NONE].mean())
    learnt, asked = ([np.array(row["map"]) for row in rows.select_columns("map")] for rows in (run.train, run.test))
    often = sum(np.bincount(one.ravel(), minlength=NONE + 1) for one in learnt)[: len(names)].argmax()
    floor = floor_of(asked, often, len(names))
    return Found(
        "mean_iou", "mean_iou", each, figures, floor=floor, floor_plotted=floor, details={"class_ious": details}
    )


def chosen(logits, labels):
    large = functional.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
    return large.argmax(dim=1).numpy(), labels.numpy()


def scores(said, right, classes):
    """What each image adds to the mean IoU, mean IoU and pixel accuracy, the IoU of each class."""
    tables = np.array([table(a, b, classes) for a, b in zip(said, right, strict=True)])  # [N, right, said]
    both = tables.diagonal(axis1=1, axis2=2)
    union = tables.sum(axis=1) + tables.sum(axis=2) - both
    known = union.sum(axis=0) > 0
    rows = np.mean([ratio_rows(both[:, one], union[:, one]) for one in np.flatnonzero(known)], axis=0)
    ious = [float(both[:, one].sum() / union[:, one].sum()) if known[one] else None for one in range(classes)]
    figures = {"pixel_accuracy": float(both.sum() / tables.sum())}
    figures["mean_iou"] = float(np.mean([one for one in ious if one is not None]))
    return {"mean_iou": rows}, figures, ious


def table(said, right, classes):
    known = right != NONE
    return confusion_matrix(right[known], said[known], labels=list(range(classes)))


def floor_of(maps, often, classes):
    """Mean IoU of one class on every pixel: its share of all, over the classes that are there or said."""
    pixels = np.concatenate([one[one != NONE] for one in maps])
    there = set(np.unique(pixels).tolist()) | {int(often)}
    return float((pixels == often).mean() / len(there))
