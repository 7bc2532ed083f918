"""A new student of its teacher's kind, in other sizes, that begins with its teacher's words.

Knows: configurations, word embeddings. Does not know: the teacher's layers, training.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from hf_distill.models.meta import reads_images_alone
from hf_distill.models.sharding import unsharded, whole_state
from hf_distill.students.anatomy import INNER
from hf_distill.students.depth import find_stacks, reshaped
from hf_distill.students.lineage import record

HEAD_DIM = 64


def fresh_student(teacher: PreTrainedModel, **sizes: Any) -> PreTrainedModel:
    """Make a random model of the teacher's class in other sizes, with the teacher's word embeddings.

    At the teacher's width the embeddings are its own; in a smaller one they are the best linear reduction: their
    coordinates along their main singular directions. A head that is tied to them stays tied. All else is drawn from
    torch's global generator (``set_seed``).

    Args:
        teacher: any ``PreTrainedModel``; one of images alone has no words to give.
        sizes: any fields of its configuration, such as ``hidden_size``, ``num_hidden_layers``,
            ``num_attention_heads``, ``intermediate_size``. Where only a width is given, heads are 64 wide (one, if it
            is smaller), and the inside keeps the teacher's ratio. Of an encoder-decoder ``num_hidden_layers`` and
            ``num_attention_heads`` are for both, unless the decoder's own field is given.

    Returns:
        A model in training mode; labels, vocabulary and special ids are the teacher's.

    Raises:
        ValueError: a field that the configuration does not have, or a width that the heads do not divide.

    Reference:
        Turc et al.: Well-Read Students Learn Better, arXiv:1908.08962 (small students need not have their teacher's
        sizes); Eckart, Young: The approximation of one matrix by another of lower rank, 1936.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> big = BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=1, intermediate_size=32)
        >>> small = fresh_student(BertModel(big), hidden_size=8, num_hidden_layers=1)
        >>> small.config.intermediate_size, small.config.distillation[0]["embeddings"]
        (16, 'reduced')
    """
    config = resized_config(teacher, **sizes)
    student = type(unsharded(teacher))(config).to(teacher.dtype).train()
    how = _embed(student, teacher)
    record(student, teacher, "fresh_student", sizes=dict(sizes), embeddings=how)
    return student


def resized_config(teacher: PreTrainedModel, **sizes: Any) -> PretrainedConfig:
    """Copy a model's configuration with other sizes, and let heads, insides and layer lists follow.

    Args:
        teacher: any ``PreTrainedModel``, on the meta device too: no weight is read.
        sizes: as in ``fresh_student``.

    Returns:
        A configuration that names no base model.

    Raises:
        ValueError: a field that the configuration does not have, or a width that the heads do not divide.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> with torch.device("meta"):
        ...     big = BertModel(BertConfig())
        >>> small = resized_config(big, hidden_size=128, num_hidden_layers=2)
        >>> small.num_attention_heads, small.intermediate_size
        (2, 512)
    """
    config, name = copy.deepcopy(teacher.config), type(teacher).__name__
    known = {*config.to_dict(), *config.attribute_map, *vars(config)}
    if unknown := sorted(set(sizes) - known):
        raise ValueError(
            f"{unknown[0]}={sizes[unknown[0]]!r} was asked of {name}: its configuration has no such field."
        )
    config = _deep(teacher, config, sizes)
    width = sizes.get("hidden_size", sizes.get(config.attribute_map.get("hidden_size")))
    old_width = getattr(teacher.config, "hidden_size", None)
    if width is not None:
        _widened(config, sizes, width, old_width)
    for field, value in sizes.items():
        setattr(config, field, value)
    heads = getattr(config, "num_attention_heads", None)
    if width is not None and isinstance(heads, int) and width % heads:
        raise ValueError(f"hidden_size={width} was asked of {name} with {heads} heads: ask for a multiple of {heads}.")
    config._name_or_path = ""  # only the kind is taken over
    return config


def _deep(teacher: PreTrainedModel, config: Any, sizes: dict[str, Any]) -> Any:
    """Set the depth, and with it what the configuration says layer by layer."""
    depths = {"num_hidden_layers", config.attribute_map.get("num_hidden_layers", "num_hidden_layers")} & set(sizes)
    chosen = {}
    for stack in find_stacks(teacher) if depths or any("layers" in field for field in sizes) else ():
        if stack.stage is not None:
            if depths:
                raise ValueError(
                    f"{next(iter(depths))} was asked of {type(teacher).__name__}, whose stages have "
                    f"{stack.key}={list(getattr(config, stack.key, ()))}: give {stack.key}."
                )
            continue  # a list of depths is set as it is given
        own = sizes.get(stack.key, sizes[next(iter(depths))] if depths else stack.depth)
        spread = [min(round(i * (stack.depth - 1) / max(1, own - 1)), stack.depth - 1) for i in range(own)]
        chosen[stack] = spread
    return reshaped(config, chosen) if chosen else config


def _widened(config: Any, sizes: dict[str, Any], width: int, old: int | None) -> None:
    """Let heads and insides follow a new width, where nothing was said of them."""
    asked = {config.attribute_map.get(field, field) for field in sizes}
    own = config.attribute_map.get
    if own("num_attention_heads", "num_attention_heads") not in asked and hasattr(config, "num_attention_heads"):
        config.num_attention_heads = max(1, width // HEAD_DIM)
        if getattr(config, "num_key_value_heads", None) and "num_key_value_heads" not in asked:
            config.num_key_value_heads = config.num_attention_heads
    if getattr(config, "head_dim", None) and "head_dim" not in asked:
        config.head_dim = width // config.num_attention_heads
    for field in (*INNER, "decoder_ffn_dim"):
        value = getattr(config, field, None)
        if isinstance(value, int) and own(field, field) not in asked and old:
            setattr(config, field, max(1, round(value * width / old)))
    if "decoder_attention_heads" not in asked and hasattr(config, "decoder_attention_heads"):
        encoder = (value for field, value in sizes.items() if own(field, field) == "encoder_attention_heads")
        config.decoder_attention_heads = next(encoder, max(1, width // HEAD_DIM))


def _embed(student: PreTrainedModel, teacher: PreTrainedModel) -> str:
    if reads_images_alone(teacher):
        return "absent"
    ours, source = student.get_input_embeddings().weight, teacher.get_input_embeddings()
    theirs = whole_state(source)["weight"]
    if len(ours) != len(theirs) or ours.shape[1] > theirs.shape[1]:
        return "none"
    with torch.no_grad():
        ours.copy_(theirs if ours.shape == theirs.shape else reduced(theirs, ours.shape[1]))
    return "copied" if ours.shape == theirs.shape else "reduced"


def reduced(table: Tensor, width: int) -> Tensor:
    """Write the rows of a table in fewer numbers, so that their inner products change least.

    Args:
        table: [V, H], any floating dtype.
        width: at most H.

    Returns:
        [V, width] in the table's dtype: the coordinates along the main right singular directions.

    Example:
        >>> reduced(torch.tensor([[3.0, 4.0], [6.0, 8.0]]), 1).abs()
        tensor([[ 5.],
                [10.]])
    """
    exact = table.double()
    _, directions = torch.linalg.eigh(exact.T @ exact)  # H x H, however long the table is; largest last
    return (exact @ directions[:, -width:].flip(-1)).to(table.dtype)
