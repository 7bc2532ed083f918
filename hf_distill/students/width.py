"""A student with a part of its teacher's width: the dimensions, heads and inner neurons that are used most.

Knows: which of them stay, how tensors are cut. Does not know: how they are found and measured, training.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel

from hf_distill.models.meta import built, reads_images_alone
from hf_distill.models.sharding import unsharded
from hf_distill.students.anatomy import RATIO, Anatomy, Sizes, dissect, layer_of, side, tensors
from hf_distill.students.importance import rescaling, sizes_of
from hf_distill.students.lineage import record
from hf_distill.students.positions import Moves, settle


def shrink_width(
    teacher: PreTrainedModel,
    hidden_size: int | None = None,
    num_heads: int | None = None,
    intermediate_size: int | None = None,
    *,
    batches: Iterable[Mapping[str, Any]],
) -> PreTrainedModel:
    """Copy a model with a part of its width: the dimensions, heads and neurons that some batches use most.

    A hidden dimension counts by the absolute output of all norms, a head by the norm of what it gives to the last
    projection of its attention, an inner neuron by its absolute activation; padding counts for nothing. The same
    hidden dimensions stay in every layer, heads and neurons are chosen layer by layer. Heads keep their width. A norm
    over fewer dimensions divides by another spread: its weight is multiplied by the mean ratio of the two over the
    batches. A class that scales its embeddings by the width, as Gemma does, scales them by the new one. The student
    needs training all the same.

    ``config.distillation`` records the hidden dimensions that stay; a term on hidden states starts its projections to
    the teacher from them (``Facts.kept``).

    Args:
        teacher: an encoder or a decoder whose queries, keys and values are linear modules of a known name
            (BERT, RoBERTa, DistilBERT, Llama, Qwen, Mistral, GPT-2 and their like; of images ViT, DeiT, BEiT,
            DINOv2 and their like, not those in stages).
        hidden_size: the new width. None: the teacher's.
        num_heads: the new number of attention heads. None: as many as the width holds, where the class divides the
            width by them; else the teacher's. With grouped queries each group keeps the same number.
        intermediate_size: the new inner width of the feed-forwards. None: the teacher's; where the configuration gives
            it as a multiple of the width (DINOv2's ``mlp_ratio``), the same multiple.
        batches: what the model's forward takes, as ``DataLoader`` gives it; 1,000 rows are plenty. Labels are not
            read.

    Returns:
        A model of the same class; with the teacher's own sizes exactly the teacher.

    Raises:
        ValueError: sizes that do not fit each other or are larger than the teacher's, or a model whose parts are not
            found; nothing has been changed then.

    Reference:
        Muralidharan et al.: Compact Language Models via Pruning and Knowledge Distillation (Minitron),
        arXiv:2407.14679, section 2.2.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> wide = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=4, intermediate_size=8)
        >>> batch = {"input_ids": torch.tensor([[1, 2, 3]])}
        >>> small = shrink_width(BertModel(wide), hidden_size=4, batches=[batch])
        >>> small.config.hidden_size, small.config.num_attention_heads
        (4, 2)
    """
    old = Sizes.of(teacher)
    new = _asked(type(teacher).__name__, old, hidden_size, num_heads, intermediate_size)
    batches = list(batches)
    if not batches:
        raise ValueError("the width was to be cut by importance, and batches is empty: give some rows of your data.")
    whole = unsharded(teacher)
    found = dissect(whole, old, batches[0])
    downs, outs = found.downs, [one["out"] for one in found.attentions]
    measured, positions = sizes_of(whole, batches, found.norms.values(), outs, downs.values())
    zero = torch.zeros(old.hidden_size, dtype=torch.float64)
    kept = _best(
        sum((measured[norm].cpu() for norm in found.norms.values() if norm in measured), zero), new.hidden_size
    )
    indices = _plan(whole, found, old, new, kept, measured)

    before = built(type(whole), old.set_in(whole.config))
    after = built(type(whole), new.set_in(whole.config))
    _check(whole, after, indices)
    ratios = rescaling(whole, batches, list(found.norms.values()), kept.to(whole.device))
    student = whole if whole is not teacher else copy.deepcopy(teacher)
    scales = {path: ratios[norm] for path, norm in found.norms.items()}
    for path, ratio in scales.items():
        _rescale(student.get_submodule(path), ratio)
    _cut(student, indices)
    settle(student, before, after, Moves({}))
    _recomputed(student)
    sizes = {
        name.replace("num_heads", "heads"): [getattr(old, name), getattr(new, name)]
        for name in ("hidden_size", "num_heads", "intermediate_size")
        if getattr(old, name) != getattr(new, name)
    }
    counted = {"positions" if reads_images_alone(whole) else "tokens": positions}
    record(student, teacher, "shrink_width", sizes=sizes, **counted, kept=kept.tolist())
    student.requires_grad_(True)  # a teacher that was frozen before must not freeze its student
    return student


def _asked(name: str, old: Sizes, hidden: int | None, heads: int | None, inner: int | None) -> Sizes:
    new = copy.copy(old)
    new.hidden_size = old.hidden_size if hidden is None else hidden
    multiple = old.intermediate_size // old.hidden_size
    if inner is None:
        inner = multiple * new.hidden_size if old.inner == RATIO else old.intermediate_size
    new.intermediate_size = inner
    if old.tied and heads is None:
        heads = max(1, new.hidden_size // old.head_dim)
    new.num_heads = old.num_heads if heads is None else heads
    for what in ("hidden_size", "num_heads", "intermediate_size"):
        if not 1 <= getattr(new, what) <= getattr(old, what):
            raise ValueError(
                f"{what}={getattr(new, what)} was asked of {name}, which has {getattr(old, what)}: ask for 1 to "
                f"{getattr(old, what)}."
            )
    if old.inner == RATIO and new.intermediate_size % new.hidden_size:
        raise ValueError(
            f"intermediate_size={new.intermediate_size} with hidden_size={new.hidden_size} was asked of {name}, whose "
            f"configuration holds a whole {RATIO}: ask for a multiple of the width."
        )
    if old.tied and new.hidden_size != new.num_heads * old.head_dim:
        raise ValueError(
            f"hidden_size={new.hidden_size} with {new.num_heads} heads was asked of {name}, whose heads are "
            f"{old.head_dim} wide and share the width among them: ask for a hidden_size of {old.head_dim} times "
            "num_heads."
        )
    if old.num_groups == old.num_heads:
        new.num_groups = new.num_heads
    elif new.num_heads % old.num_groups:
        raise ValueError(
            f"{new.num_heads} heads were asked of {name}, which has {old.num_groups} groups of queries: ask for a "
            f"multiple of {old.num_groups}."
        )
    return new


def _best(importance: Tensor, count: int) -> Tensor:
    """The most important ones, in their old order; of equals the first."""
    return importance.argsort(descending=True, stable=True)[:count].sort().values


def _plan(
    model: PreTrainedModel,
    found: Anatomy,
    old: Sizes,
    new: Sizes,
    kept: Tensor,
    measured: Mapping[nn.Module, Tensor],
) -> list[tuple[str, int, Tensor]]:
    """For each tensor and dimension the indices that stay."""
    paths = {module: path for path, module in model.named_modules()}
    held, chosen = tensors(model), {}
    plan = []
    for path, dims in found.width.items():
        for dim in dims:
            streams = range(held[path].shape[dim] // old.hidden_size)  # such as a class token beside a mean of patches
            plan.append((path, dim, torch.cat([kept + stream * old.hidden_size for stream in streams])))
    size, groups, inside = old.head_dim, old.num_groups, torch.arange(old.head_dim)
    for one in found.attentions:
        strength = measured[one["out"]].cpu().view(groups, -1, size).sum(dim=-1)  # [groups, heads of one]
        if groups == old.num_heads:
            heads = pairs = _best(strength.flatten(), new.num_heads)
        else:
            each = old.num_heads // groups
            best = [_best(row, new.num_heads // groups) + group * each for group, row in enumerate(strength)]
            heads, pairs = torch.cat(best), torch.arange(groups)
        chosen[layer_of(model, paths[one["out"]])] = heads
        queries, keys = ((some[:, None] * size + inside).flatten() for some in (heads, pairs))
        widths = old.num_heads * size, groups * size
        fused = torch.cat([queries, keys + widths[0], keys + widths[0] + widths[1]])
        rows = {"query": queries, "key": keys, "value": keys, "fused": fused}
        for kind, module in one.items():
            weight = f"{paths[module]}.weight"
            if kind == "out":
                plan.append((weight, side(model, weight, out=False), queries))
                continue
            plan.append((weight, side(model, weight, out=True), rows[kind]))
            if module.bias is not None:
                plan.append((f"{paths[module]}.bias", 0, rows[kind]))
    plan += [(path, dim, chosen[layer]) for path, dim, layer in found.biases]
    for layer, places in found.insides.items():
        neurons = _best(measured[found.downs[layer]].cpu(), new.intermediate_size)
        for path, dim, times in places:
            blocks = [neurons + block * old.intermediate_size for block in range(times)]  # gate and value in one
            plan.append((path, dim, torch.cat(blocks)))
    return plan


def _check(model: PreTrainedModel, after: nn.Module, plan: list[tuple[str, int, Tensor]]) -> None:
    """Refuse a model that its class would build otherwise, before anything is cut."""
    held = tensors(model)
    shapes = {name: list(value.shape) for name, value in held.items()}
    for path, dim, index in plan:
        shapes[path][dim] = len(index)
    built_by_class = tensors(after)
    if odd := sorted(built_by_class.keys() ^ shapes.keys()):
        raise ValueError(
            f"the width of {type(model).__name__} was to be cut to a size at which its class has other parts "
            f"({odd[0]}): ask for another size."
        )
    for path, value in built_by_class.items():
        parent, _, leaf = path.rpartition(".")
        made = leaf in model.get_submodule(parent)._non_persistent_buffers_set and shapes[path] != [*held[path].shape]
        if shapes[path] != list(value.shape) or made:
            raise ValueError(
                f"the width of {type(model).__name__} was to be cut, whose {path} would be {shapes[path]} where its "
                f"class makes {list(value.shape)}: keep some of its layers instead."
            )


def _cut(student: nn.Module, plan: list[tuple[str, int, Tensor]]) -> None:
    """Take the indices; what was tied stays tied."""
    held, done, wanted = tensors(student), {}, {}
    for path, dim, index in plan:
        wanted.setdefault(path, []).append((dim, index))
    for path, cuts in wanted.items():
        value = held[path]
        if id(value) not in done:
            some = value.detach()
            for dim, index in cuts:
                some = some.index_select(dim, index.to(some.device))
            done[id(value)] = nn.Parameter(some.clone()) if isinstance(value, nn.Parameter) else some.clone()
        parent, _, leaf = path.rpartition(".")
        setattr(student.get_submodule(parent), leaf, done[id(value)])


def _recomputed(student: PreTrainedModel) -> None:
    """Take what is not saved from the class, such as a scale of embeddings: loading will do the same."""
    made = [
        (path, name)
        for path, module in student.named_modules()
        for name in sorted(module._non_persistent_buffers_set)
        if getattr(module, name).is_floating_point()
    ]
    if not made:
        return
    with torch.random.fork_rng(devices=[]):
        new = type(student)(copy.deepcopy(student.config))
    for path, name in made:
        getattr(student.get_submodule(path), name).copy_(getattr(new.get_submodule(path), name))


def _rescale(norm: nn.Module, ratio: float) -> None:
    """Multiply what a norm makes; some classes keep a weight from which 1 is missing."""
    ones = torch.ones_like(norm.weight)
    plain = {name: torch.zeros_like(value) for name, value in norm.named_parameters()}
    missing = float(functional_call(norm, plain, (ones.cumsum(0)[None],)).abs().max()) > 0
    with torch.no_grad():
        if missing:
            norm.weight.add_(norm.weight.add(1).mul_(ratio - 1))
        else:
            norm.weight.mul_(ratio)
