"""Tokenizers made of some texts: BERT's of characters, or pieces of words by byte-pair encoding.

Knows: texts, the tokenizers library. Does not know: files, models, training.
"""

from __future__ import annotations

from collections.abc import Sequence

from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BertTokenizer, PreTrainedTokenizerFast

PAD, BEGIN, END, UNKNOWN = SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
SYLLABLES = 3_000
"""How many syllables of pinyin are tokens: with tones there are some 1,300, and parts of them on the way."""


def text_tokenizer(
    texts: Sequence[str], size: int = 0, begins: bool = False, alphabet: Sequence[str] = (), ends: bool = True
) -> PreTrainedTokenizerFast:
    """Make a tokenizer of byte-pair encoding; with fewer tokens than there are characters, these are the tokens.

    Args:
        texts: the training texts.
        size: how many tokens it is to have.
        begins: whether a text begins with ``<s>``.
        alphabet: more characters, which stay tokens of their own.
        ends: whether a text ends with ``</s>``; not where a chat template writes it.

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
    single = " ".join([*([BEGIN] if begins else []), "$A", *([END] if ends else [])])
    ids = [(token, made.token_to_id(token)) for token in (BEGIN, END)]
    made.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    special = {"pad_token": PAD, "eos_token": END, "unk_token": UNKNOWN, **({"bos_token": BEGIN} if begins else {})}
    return PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=False, **special)


def pair_tokenizer(rows: Dataset, size: int = 0, pinyin: bool = False) -> PreTrainedTokenizerFast:
    """Make one tokenizer of both texts of pairs.

    Args:
        rows: with ``source`` and ``target``.
        size: as ``text_tokenizer`` takes it.
        pinyin: whether they are Chinese words and their pinyin: a token is a character then, or a syllable.

    Example:
        >>> rows = Dataset.from_dict({"source": ["中国", "中间"] * 2, "target": ["zhong1 guo2", "zhong1 jian1"] * 2})
        >>> made = pair_tokenizer(rows, pinyin=True)
        >>> made.tokenize("中国"), made.tokenize("zhong1 guo2")
        (['▁', '中', '国'], ['▁zhong1', '▁guo2'])
    """
    if not pinyin:
        return text_tokenizer([*rows["source"], *rows["target"]], size)
    characters = sorted({character for text in rows["source"] for character in text})
    return text_tokenizer(rows["target"][:], len(characters) + SYLLABLES, alphabet=characters)


def character_tokenizer(texts: list[str], minimum: int = 2) -> BertTokenizer:
    """Make a BERT tokenizer whose tokens are the characters of some texts.

    Args:
        texts: the training texts.
        minimum: how often a character must occur to be a token.

    Returns:
        A tokenizer that saves and loads like any other.
    """
    counts: dict[str, int] = {}
    for text in texts:
        for character in text.lower():
            counts[character] = counts.get(character, 0) + 1
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += sorted(character for character, count in counts.items() if count >= minimum and not character.isspace())
    # Latin words are split into characters too, by continuing them with '##'.
    tokens += [f"##{token}" for token in tokens[5:] if token.isascii() and token.isalnum()]
    return BertTokenizer(vocab={token: index for index, token in enumerate(tokens)}, do_lower_case=True)
