"""A tokenizer made of some texts: characters, or pieces of words by byte-pair encoding.

Knows: texts, the tokenizers library. Does not know: files, models, training.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

PAD, BEGIN, END, UNKNOWN = SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")


def text_tokenizer(
    texts: Sequence[str], size: int = 0, begins: bool = False, alphabet: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Make a tokenizer of byte-pair encoding; with fewer tokens than there are characters, these are the tokens.

    Args:
        texts: the training texts.
        size: how many tokens it is to have.
        begins: whether a text begins with ``<s>``; it always ends with ``</s>``.
        alphabet: more characters, which stay tokens of their own.

    Example:
        >>> made = text_tokenizer(["天气 tian qi"])
        >>> made.decode(made("天天 tan")["input_ids"], skip_special_tokens=True)
        '天天 tan'
    """
    made = Tokenizer(models.BPE(unk_token=UNKNOWN))
    # Punctuation stands alone, or a sentence's last word would be another token than the same word within it.
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    made.decoder = decoders.Metaspace()
    teaching = trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, special_tokens=list(SPECIAL), initial_alphabet=list(alphabet),
        show_progress=False,
    )  # fmt: skip
    made.train_from_iterator(texts, teaching)
    single = f"{BEGIN} $A {END}" if begins else f"$A {END}"
    ids = [(token, made.token_to_id(token)) for token in (BEGIN, END)]
    made.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    special = {"pad_token": PAD, "eos_token": END, "unk_token": UNKNOWN, **({"bos_token": BEGIN} if begins else {})}
    return PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=False, **special)
