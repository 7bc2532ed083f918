"""What a task says of a batch lies where the batch does: a GPU's counts are not added to a CPU's."""

import pytest
import tiny
import torch
from two_processes import GENERATORS, IMAGES, IMAGES_IN_TEXTS, LATENTS, NOISE, parts_of, settings_of

from hf_distill.tasks import SequenceClassification
from hf_distill.tasks.layout import Layout


def taught(folder, kind):
    student, data, both = parts_of(kind)
    args = settings_of(kind)
    both["objective"] = args.pop("objective", None)
    return tiny.trainer(folder, student, data, args={**args, "remove_unused_columns": False}, **both)


@pytest.mark.parametrize("kind", [*GENERATORS, *IMAGES, *IMAGES_IN_TEXTS, *LATENTS, *NOISE])
def test_rows_and_labels_lie_where_the_batch_does(tmp_path, kind):
    run = taught(tmp_path, kind)
    batch = next(iter(run.get_train_dataloader()))
    there = {name: value.to("meta") if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
    assert run.task.rows(there).device.type == "meta"
    labels = run.task.labels(there)
    assert labels is None or labels.device.type == "meta"


class Mixed(SequenceClassification):
    """A task of a user, who counts rows on the CPU."""

    def rows(self, batch):
        return torch.ones(len(batch["labels"]), dtype=torch.bool)


def test_counts_of_two_devices_are_put_on_the_batchs():
    layout = Layout(Mixed(num_labels=3), {"labels": torch.ones(4, dtype=torch.int64, device="meta")})
    assert layout.counts["rows"].device.type == "cpu"
    assert layout.units(("rows", "labels")).device.type == "meta"
