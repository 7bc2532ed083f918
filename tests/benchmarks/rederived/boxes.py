"""COCO's average precision in plain numpy, and its jackknife over blocks of images.

Knows: boxes with scores, boxes that are there. Does not know: how images are read, any package of COCO.
"""

import numpy as np
import torch
from rederived.run import LABELS, Found

OVERLAPS, RECALLS, MOST, BLOCKS = np.arange(50, 100, 5) / 100, np.linspace(0, 1, 101), 100, 25


def measure(run):
    processor, names = run.experiment.tokenizer, run.models["distilled"].config.id2label
    each, figures, of_classes = {}, {}, {}
    for name, model in run.models.items():
        matched = [one for image in images(run, model, processor) for one in image]
        count = 1 + max(one["image"] for one in matched)
        whole = precisions(matched, len(names))
        blocks = min(BLOCKS, count)
        parts = [[one for one in matched if one["image"] % blocks != block] for block in range(blocks)]
        without = np.array([known_mean(precisions(part, len(names))) for part in parts])
        ap = known_mean(whole)
        each[name] = {"ap": ap + (blocks - 1) * (without.mean() - without)}
        figures[name] = {"ap50": known_mean(whole[:, 0]), "ap75": known_mean(whole[:, 5])}
        of_classes[name] = [known_mean(one) for one in whole]
    details = {
        "class_ap": {names[number]: {name: one[number] for name, one in of_classes.items()} for number in names}
    }
    return Found("ap", "ap", each, figures, floor=0.0, floor_plotted=0.0, details=details)


def images(run, model, processor):
    """For each image and class: the scores of what was found, surest first, and what is right at each overlap."""
    number = 0
    for batch in run.batches(model):
        sizes = torch.stack([one["orig_size"] for one in batch["labels"]])
        with torch.no_grad():
            shown = model(**{name: value for name, value in batch.items() if name not in LABELS})
        found = processor.post_process_object_detection(shown, threshold=0.0, target_sizes=sizes)
        for said, there in zip(found, batch["labels"], strict=True):
            yield list(of_image(number, said, there, len(model.config.id2label)))
            number += 1


def of_image(number, said, there, classes):
    height, width = there["orig_size"].tolist()
    x, y, w, h = (there["boxes"].double() * torch.tensor([width, height, width, height])).numpy().T
    truths = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)
    kinds, boxes, scores = there["class_labels"].numpy(), said["boxes"].numpy().astype(float), said["scores"].numpy()
    labels = said["labels"].numpy()
    for kind in range(classes):
        mine = np.flatnonzero(labels == kind)
        mine = mine[np.argsort(-scores[mine], kind="mergesort")][:MOST]
        right = truths[kinds == kind]
        hits = np.array([matches(boxes[mine], right, overlap) for overlap in OVERLAPS])
        yield {"image": number, "class": kind, "scores": scores[mine], "hits": hits, "there": len(right)}


def matches(boxes, truths, overlap):
    """Which boxes find one, surest first; each of those that are there is found once."""
    free, hits = np.ones(len(truths), dtype=bool), np.zeros(len(boxes), dtype=bool)
    if not len(truths) or not len(boxes):
        return hits
    low, high = np.maximum(boxes[:, None, :2], truths[:, :2]), np.minimum(boxes[:, None, 2:], truths[:, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(one[:, 2:] - one[:, :2], axis=1) for one in (boxes, truths)]
    shares = both / (areas[0][:, None] + areas[1] - both)
    for box in range(len(boxes)):
        able = np.flatnonzero(free & (shares[box] >= overlap))
        if len(able):
            best = able[np.flatnonzero(shares[box, able] == shares[box, able].max())[-1]]
            free[best], hits[box] = False, True
    return hits


def precisions(matched, classes):
    """Average precision of each class at each overlap: [C, 10]; NaN for a class that no image shows."""
    found = np.full((classes, len(OVERLAPS)), np.nan)
    for kind in range(classes):
        mine = [one for one in matched if one["class"] == kind]
        there = sum(one["there"] for one in mine)
        if not there:
            continue
        order = np.argsort(-np.concatenate([one["scores"] for one in mine]), kind="mergesort")
        hits = np.concatenate([one["hits"] for one in mine], axis=1)[:, order]
        right = np.cumsum(hits, axis=1)
        precision = right / np.arange(1, hits.shape[1] + 1)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # the best at this recall or a higher one
        for number in range(len(OVERLAPS)):
            places = np.searchsorted(right[number] / there, RECALLS, side="left")
            found[kind, number] = np.mean([best[number, p] if p < hits.shape[1] else 0.0 for p in places])
    return found


def known_mean(values):
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
