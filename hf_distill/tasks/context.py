"""How long a text may be for a model.

Knows: configurations, tables of positions. Does not know: tasks, batches, what is done with a text that is too long.
"""

from __future__ import annotations

from torch import nn

from hf_distill.tasks.outputs import core_of


def context_of(model: nn.Module) -> int | None:
    """Return how many tokens a model has positions for; None: its configuration does not say.

    A table of positions with a row for padding, as RoBERTa's, counts from behind that row: 514 rows are 512 tokens.

    Args:
        model: any module; of a PEFT model the one inside.

    Example:
        >>> from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel
        >>> small = {"num_hidden_layers": 1, "hidden_size": 4, "num_attention_heads": 1, "intermediate_size": 4}
        >>> context_of(BertModel(BertConfig(max_position_embeddings=10, vocab_size=9, **small)))
        10
        >>> context_of(RobertaModel(RobertaConfig(max_position_embeddings=10, vocab_size=9, **small)))
        8
    """
    core = core_of(model)
    config = getattr(core, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    rows = getattr(text, "max_position_embeddings", None)
    if not isinstance(rows, int) or rows <= 0:
        return None
    tables = (getattr(module, "position_embeddings", None) for module in core.modules())
    padding = [t.padding_idx for t in tables if isinstance(t, nn.Embedding) and t.num_embeddings == rows]
    return rows - max((index + 1 for index in padding if index is not None), default=0)
