"""Tiny random models that find boxes among points and make a vector of each scene, and the task that reads them."""

import tiny
import torch
from torch import nn

from hf_distill import Task
from hf_distill.signals import Signals, Sum, Value


class Boxes(nn.Module):
    """A box for each point of a scene, and a vector for the whole of it."""

    def __init__(self, width=6, seed=0, spread=1.0):
        super().__init__()
        torch.manual_seed(seed)
        self.inner, self.box, self.scene = nn.Linear(3, 16), nn.Linear(16, 4), nn.Linear(16, width)
        for parameter in self.parameters():
            parameter.data *= spread

    def forward(self, points, there):
        states = torch.tanh(self.inner(points))
        shares = there.float() / there.sum(1, keepdim=True).clamp(min=1)
        return {"boxes": self.box(states), "scene": self.scene((states * shares.unsqueeze(-1)).sum(1))}


class Finding(Task):
    """Boxes of the points that are there, whose supervised loss counts each of them as a label."""

    auto_class, pipeline_tag, default_objective = "AutoModelForObjectDetection", "object-detection", "value_mse"
    values, vectors, heads = ("boxes",), ("scene",), ()

    @classmethod
    def from_model(cls, model):
        return None

    def rows(self, batch):
        return torch.ones(len(batch["points"]), dtype=torch.bool)

    def labels(self, batch):
        return batch["there"].bool() if "labels" in batch else None

    def mask(self, batch):
        return None

    def hard(self, outputs, batch, shown):
        boxes, counted = shown.values["boxes"], self.labels(batch)
        return Sum((boxes.tensor.float() - batch["labels"])[counted].square().mean(-1).sum(), counted.sum())

    def signals(self, model, batch, outputs, captured=None):
        boxes = Value(outputs["boxes"], batch["there"].bool())
        return Signals({}, values={"boxes": boxes}, vectors={"scene": outputs["scene"]})


def scenes(n=8, things=5, seed=3):
    """Scenes of as many points, of which some are there; of the third none is."""
    drawn = torch.Generator().manual_seed(seed)
    made = []
    for number in range(n):
        there = (torch.rand(things, generator=drawn) < 0.7).long() * int(number != 2)
        points, boxes = (torch.randn(things, size, generator=drawn).tolist() for size in (3, 4))
        made.append({"points": points, "there": there.tolist(), "labels": boxes})
    return made


def collated(rows):
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def trainer(folder, data=None, args=None, **parts):
    settings = {"remove_unused_columns": False, "alpha": 0.5, **(args or {})}
    given = {"task": Finding(), "teacher_model": Boxes(seed=1), "data_collator": collated, "student": Boxes(), **parts}
    return tiny.trainer(folder, data=scenes() if data is None else data, args=settings, **given)
