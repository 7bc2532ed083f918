"""A student whose smallest weights are zero, and stay so while it learns: two of each four, or a share of each layer.

Knows: which weights of a linear layer are masked. Does not know: how a masked model is saved, training.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from transformers import PreTrainedModel

from hf_distill.models.computed_weights import computed_weights
from hf_distill.models.sharding import unsharded
from hf_distill.students.importance import LINEAR
from hf_distill.students.lineage import record


def prune_2_4(model: PreTrainedModel, skip: Iterable[str] = ()) -> PreTrainedModel:
    """Copy a model with zeros for the two smaller of each four weights that a linear layer adds up: 2:4 sparsity.

    The masks are those of ``torch.nn.utils.prune``: whatever an optimizer does to a weight, what the layer computes
    with is zero where it was masked. Under the trainer every folder that is saved holds the plain weights with their
    zeros, and a checkpoint the masks beside them. The kernels of some GPUs read such a layer in half the
    multiplications (``torch.sparse.to_sparse_semi_structured``); elsewhere zeros cost what other numbers cost.

    Args:
        model: is left as it is. Of its linear layers all are masked but the one that gives a vocabulary's logits.
        skip: words; a layer is left whole whose name has one of them, such as ``"classifier"``.

    Returns:
        A model of the same class, whose masked weights are 0 and are not learned. It trains under DDP, not under FSDP
        and DeepSpeed. To take the masks off by hand: ``torch.nn.utils.prune.remove``.

    Raises:
        ValueError: no linear layer is left, one's inputs are not a multiple of four, or the model is masked already.

    Reference:
        Mishra et al.: Accelerating Sparse Deep Neural Networks, arXiv:2104.08378 (the pattern; magnitudes; training on
        with the mask as it is).

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> small = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
        >>> sparse = prune_2_4(BertModel(small))
        >>> weight = sparse.encoder.layer[0].output.dense.weight
        >>> weight.view(8, 2, 4).count_nonzero(dim=-1).unique()
        tensor([2])
    """

    def best_two(weight: Tensor) -> Tensor:
        fours = weight.abs().unflatten(-1, (-1, 4))
        return torch.zeros_like(fours).scatter(-1, fours.topk(2).indices, 1.0).flatten(-2)

    layers = _layers(model, skip)
    for name, module in layers.items():
        inputs = module.weight.shape[_inputs(module)]
        if inputs % 4:
            raise ValueError(
                f"two of each four weights of {type(model).__name__} were to be masked, and {name} adds up {inputs}: "
                f"leave it whole with skip=[{name!r}]."
            )
    return _masked(model, layers, best_two, "prune_2_4", {})


def prune_magnitude(model: PreTrainedModel, amount: float = 0.5, skip: Iterable[str] = ()) -> PreTrainedModel:
    """Copy a model with zeros for the smallest weights of each linear layer, wherever they stand in it.

    All else is as in ``prune_2_4``. No kernel is quicker for zeros in no order; such a student packs into a smaller
    archive, and shows what a pattern costs.

    Args:
        model: is left as it is.
        amount: the share of each layer's weights that become 0.
        skip: as in ``prune_2_4``.

    Returns:
        A model of the same class.

    Raises:
        ValueError: an amount that is not between 0 and 1; see ``prune_2_4``.

    Reference:
        Zhu, Gupta: To Prune, or Not to Prune, arXiv:1710.01878 (masks by magnitude, layer by layer).

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> small = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
        >>> int(prune_magnitude(BertModel(small), 0.75).encoder.layer[0].output.dense.weight.count_nonzero())
        16
    """
    if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not 0 < amount < 1:
        raise ValueError(f"amount={amount!r} was given: give the share of weights that become 0, such as 0.5.")

    def largest(weight: Tensor) -> Tensor:
        kept = weight.numel() - round(amount * weight.numel())
        highest = weight.abs().flatten().topk(kept).indices
        return torch.zeros(weight.numel(), device=weight.device).scatter(0, highest, 1.0).view_as(weight)

    return _masked(model, _layers(model, skip), largest, "prune_magnitude", {"amount": amount})


def _layers(model: PreTrainedModel, skip: Iterable[str]) -> dict[str, nn.Module]:
    """The linear layers that are masked, by name."""
    name = type(model).__name__
    if masked := computed_weights(model):
        raise ValueError(
            f"weights of {name} were to be masked, and {next(iter(masked))} is computed from others already: give the "
            "model as it was before."
        )
    words = [skip] if isinstance(skip, str) else list(skip)
    head = model.get_output_embeddings()
    layers = {path: module for path, module in model.named_modules() if type(module) in LINEAR and module is not head}
    if unknown := [word for word in words if not any(word in path for path in layers)]:
        raise ValueError(
            f"skip={words} was given, and no linear layer of {name} has {unknown[0]!r} in its name, which are such as "
            f"{', '.join(list(layers)[-2:])}: name some of them."
        )
    layers = {path: module for path, module in layers.items() if not any(word in path for word in words)}
    if not layers:
        raise ValueError(f"weights of {name} were to be masked, and no linear layer is left: skip fewer.")
    return layers


def _inputs(module: nn.Module) -> int:
    """Which dimension of its weight a layer adds up; Conv1D keeps its weight the other way round."""
    return 1 if isinstance(module, nn.Linear) else 0


def _masked(
    model: PreTrainedModel, layers: Iterable[str], kept: Callable[[Tensor], Tensor], step: str, how: dict[str, float]
) -> PreTrainedModel:
    """Mask a copy; ``kept`` is given weights [outputs, inputs] in float32 on the CPU."""
    whole = unsharded(model)
    student, count = whole if whole is not model else copy.deepcopy(model), 0
    for path in layers:
        module = student.get_submodule(path)
        turned = _inputs(module) == 0
        weight = module.weight.detach().float().cpu()
        mask = kept(weight.T.contiguous() if turned else weight)
        mask = (mask.T if turned else mask).contiguous().to(module.weight.device, module.weight.dtype)
        with torch.no_grad():
            module.weight.mul_(mask)  # or what nobody sees would weigh in norms of weights, as Adafactor's
        prune.custom_from_mask(module, "weight", mask)
        module.weight = module.weight.detach()  # of a graph it could not be copied; computed anew in each forward
        count += 1
    record(student, model, step, layers=count, **how)
    student.requires_grad_(True)  # a teacher that was frozen before must not freeze its student
    return student
