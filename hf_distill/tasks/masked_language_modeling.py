"""Masked language models: the token that was hidden.

Knows: which auto classes fill masks. Does not know: who hides tokens (the data collator), objectives, trainers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from hf_distill.models.classes import names_in
from hf_distill.tasks.alignment.segments import Tokens
from hf_distill.tasks.alignment.spans import OFFSETS
from hf_distill.tasks.language_modeling import LanguageModel, Seq2SeqLM
from hf_distill.tasks.token_classification import EachToken


class MaskedLM(EachToken, LanguageModel):
    """The token at every position that has a label; ``DataCollatorForLanguageModeling`` gives one to those it hides.

    Without labels (``alpha=1``) every token that is no padding is taught, hidden or not. Both models must have the
    same vocabulary. A collator hides other tokens in each epoch, so a teacher's answers cannot be kept; hide them
    once, in the data set, to have them kept.

    Args:
        own_loss: the model computes a loss of its own that this class does not know.

    Reference:
        Sanh, Debut, Chaumond, Wolf: DistilBERT, arXiv:1910.01108, section 2: the soft targets at masked positions.

    Example:
        >>> import torch
        >>> batch = {"input_ids": torch.tensor([[5, 4, 7]]), "labels": torch.tensor([[-100, 6, -100]])}
        >>> MaskedLM().rows(batch)
        tensor([[False,  True, False]])
        >>> MaskedLM().hard(torch.zeros(1, 3, 8), batch)
        Sum(total=tensor(2.0794), count=tensor(1))
    """

    auto_class: ClassVar[str] = "AutoModelForMaskedLM"
    pipeline_tag: ClassVar[str] = "fill-mask"
    example: ClassVar[str] = 'f"Some text with a {model.tokenizer.mask_token} in it."'
    # Those that generate are in both mappings, and read their labels as a decoder does.
    classes: ClassVar[frozenset[str]] = names_in(MODEL_FOR_MASKED_LM_MAPPING_NAMES) - Seq2SeqLM.classes
    suffix: ClassVar[str] = "ForMaskedLM"

    def text(self, batch: Mapping[str, Any]) -> Tokens | None:
        """Every token at its own position, of which those with a label are predicted; see ``LanguageModel.text``."""
        if (ids := batch.get("input_ids")) is None:
            return None
        layout = self.layout(batch)
        return Tokens(ids, batch.get(OFFSETS), layout.mask, layout.rows, shift=0)
