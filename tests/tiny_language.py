"""Tiny random language models, their tokenizer and rows."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

WORDS = [f"w{i}" for i in range(24)]
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "user", "assistant", ":"]
SIZE = 32
PADDING = list(range(len(SPECIAL) + len(WORDS), SIZE))
"""The rows of a model's head that are no tokens."""
CHAT = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'user : ' + message['content'] + ' ' }}"
    "{% else %}{{ 'assistant : ' }}{% generation %}{{ message['content'] + ' </s> ' }}{% endgeneration %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant : ' }}{% endif %}"
)


def tokenizer():
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*SPECIAL, *WORDS])}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    made = PreTrainedTokenizerFast(tokenizer_object=words, **special)
    made.chat_template = CHAT
    return made


def llama(width=16, layers=1, seed=0, **config):
    torch.manual_seed(seed)
    sizes = dict(
        vocab_size=SIZE, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**{**sizes, **config}))


def t5(width=16, layers=1, seed=0, **config):
    torch.manual_seed(seed)
    sizes = dict(
        vocab_size=SIZE, d_model=width, d_kv=width // 2, d_ff=2 * width, num_layers=layers, num_heads=2,
        dropout_rate=0.0, decoder_start_token_id=0, pad_token_id=0, eos_token_id=2, initializer_factor=0.5,
    )  # fmt: skip
    return T5ForConditionalGeneration(T5Config(**{**sizes, **config}))


def bart():
    """A model with a bias behind its head."""
    made = BartForConditionalGeneration(BartConfig(
        vocab_size=32, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, pad_token_id=0,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=2, forced_eos_token_id=None,
    ))  # fmt: skip
    made.final_logits_bias += torch.arange(32.0)
    return made


def teacher(make=llama, **config):
    return make(width=24, layers=2, seed=7, **config)


def pairs(n=8, seed=3):
    """Encoder and decoder tokens of different lengths."""
    generator, made = torch.Generator().manual_seed(seed), []
    for _ in range(n):
        lengths = torch.randint(3, 9, (2,), generator=generator).tolist()
        ids, labels = (torch.randint(7, 31, (length,), generator=generator).tolist() for length in lengths)
        made.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [*labels, 2]})
    return made


def texts(n=8, seed=3):
    """Plain text of different lengths; the labels are the tokens, the first two are not supervised."""
    return [
        {**row, "labels": [-100, -100, *row["input_ids"][2:]]}
        for row in ({k: v for k, v in row.items() if k != "labels"} for row in pairs(n, seed))
    ]


def chats(n=8, seed=3):
    """Conversations with a question and an answer."""
    generator, made = torch.Generator().manual_seed(seed), []
    for _ in range(n):
        lengths = torch.randint(2, 7, (2,), generator=generator).tolist()
        asked, answered = (
            " ".join(WORDS[i] for i in torch.randint(0, 24, (length,), generator=generator)) for length in lengths
        )
        made.append({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]})
    return made
