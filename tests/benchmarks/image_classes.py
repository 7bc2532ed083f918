"""Which image classifiers of transformers are read, hidden states included: every class of its mapping.

    python tests/benchmarks/image_classes.py

Each class is built with its default configuration on the meta device, without memory or compute, and run on one image:
its task must be found, and the task must read logits [1, classes] and hidden states [1, positions, width] whose widths
are the ones that ``Facts`` measures. A row names the widths, and where the configuration says something else.
"""

import logging
import sys
import time
import warnings

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as MAPPING

from hf_distill import ImageClassification, Task
from hf_distill.models.facts import Facts
from hf_distill.models.meta import built


def classes():
    for kind, names in MAPPING.items():
        for name in [names] if isinstance(names, str) else names:
            yield kind, name


def read(kind, name):
    """What is read of a class, in words, and whether that is all there is."""
    config = CONFIG_MAPPING[kind]()
    model = built(getattr(transformers, name), config).eval()
    task, facts = Task.find(model), Facts.of(model)
    if not isinstance(task, ImageClassification):
        return f"is read as {type(task).__name__}", False
    if facts.widths is None:
        return "shows no hidden states, or cannot be run so", False
    size = getattr(config, "image_size", None) or 224
    sides = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    channels = getattr(config, "num_channels", None) or 3
    batch = {"pixel_values": torch.zeros(1, channels, *sides, device=next(model.parameters()).device)}
    with torch.no_grad():
        outputs = model(**batch, output_hidden_states=True, return_dict=True)
    shown = task.read(model, batch, outputs)
    widths = tuple(state.shape[-1] for state in shown.hidden)
    whole = all(state.ndim == 3 for state in shown.hidden) and widths == facts.widths
    logits = shown.heads["logits"].logits.shape
    said = getattr(config, "hidden_size", None)
    beside = "" if said == widths[-1] else f"; its configuration says {said}"
    return f"{len(widths) - 1} layers, widths {sorted(set(widths))}{beside}", whole and logits[0] == 1


def main():
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    good, started = 0, time.process_time()
    found = list(classes())
    for kind, name in found:
        try:
            said, fine = read(kind, name)
        except Exception as error:  # a class that cannot be built is told, and the next one looked at
            said, fine = f"cannot be built or run: {' '.join(str(error).split())[:60]}", False
        good += fine
        print(f"{'+' if fine else '-'} {name:<44}{said}")
    print(f"{good} of {len(found)} classes are read, {time.process_time() - started:.0f} CPU seconds")


if __name__ == "__main__":
    sys.exit(main())
