"""A student from some of its teacher's layers.

Knows: a model's list of layers and its configuration. Does not know: training, tasks, teachers' whereabouts.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel

from hf_distill.sharding import unsharded


def keep_layers(teacher: PreTrainedModel, layers: Sequence[int] | int) -> PreTrainedModel:
    """Copy a model with only some of its layers: the start that DistilBERT gave its student.

    The embeddings, the kept layers and the head are the teacher's; nothing is shared with it.

    Args:
        teacher: a model with one list of ``config.num_hidden_layers`` layers.
        layers: which to keep, from 0, in order; or how many, spread evenly from the first to the last.

    Returns:
        A model of the same class whose configuration has the new number of layers.

    Raises:
        ValueError: there is no such list of layers, or a layer that is not there.

    Reference:
        Sanh et al.: DistilBERT, 2019, section 3 (one layer of the teacher out of two).

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> four = BertConfig(hidden_size=8, num_hidden_layers=4, num_attention_heads=1, intermediate_size=8)
        >>> keep_layers(BertModel(four), 2).config.num_hidden_layers
        2
    """
    depth = teacher.config.num_hidden_layers
    if isinstance(layers, int):
        if not 1 <= layers <= depth:
            raise ValueError(f"{layers} layers were asked of a model with {depth}: ask for 1 to {depth}.")
        layers = [round(i * (depth - 1) / max(1, layers - 1)) for i in range(layers)]
    if not layers or sorted(set(layers)) != list(layers) or not 0 <= layers[0] <= layers[-1] < depth:
        raise ValueError(
            f"layers {list(layers)} were asked of a model with {depth}: name some of 0 to {depth - 1}, in order."
        )
    whole = unsharded(teacher)  # ZeRO-3 may have partitioned it while it was loaded
    student = whole if whole is not teacher else copy.deepcopy(teacher)
    stacks = [(n, m) for n, m in student.named_modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if len(stacks) != 1:
        raise ValueError(
            f"{type(teacher).__name__} has {len(stacks)} lists of {depth} layers ({[name for name, _ in stacks]}), "
            "one was expected: make its student by hand."
        )
    path, stack = stacks[0]
    parent = student.get_submodule(path.rpartition(".")[0])
    setattr(parent, path.rpartition(".")[2], nn.ModuleList(stack[i] for i in layers))
    for position, layer in enumerate(layers):
        for module in stack[layer].modules():
            if getattr(module, "layer_idx", None) == layer:  # decoders find their cache by it
                module.layer_idx = position
    student.config.num_hidden_layers = len(layers)
    if kinds := getattr(student.config, "layer_types", None):
        student.config.layer_types = [kinds[layer] for layer in layers]
    student.requires_grad_(True)  # a teacher that was frozen before must not freeze its student
    return student
