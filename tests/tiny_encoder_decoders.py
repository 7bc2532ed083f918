"""Tiny encoder-decoders of every family, of text and of speech, each with rows and a collator."""

import tiny_language
import tiny_speech
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    DataCollatorForSeq2Seq,
    MarianConfig,
    MarianMTModel,
)

SIZES = {
    "vocab_size": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 64, "dropout": 0.0, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2, "init_std": 0.2,
}  # fmt: skip


def _made(kind, config, seed):
    torch.manual_seed(seed)
    return kind(config)


def bart(seed=0, width=16, layers=1, **more):
    shape = BartConfig(**{**SIZES, "d_model": width, "decoder_layers": layers, **more})
    return _made(BartForConditionalGeneration, shape, seed)


def marian(seed=0, width=16, layers=1, **more):
    shape = MarianConfig(**{**SIZES, "d_model": width, "decoder_layers": layers, **more})
    return _made(MarianMTModel, shape, seed)


text = DataCollatorForSeq2Seq(tiny_language.tokenizer())
FAMILIES = {
    **{
        kind: (make, lambda kind=kind: tiny_speech.recordings(kind=kind), tiny_speech.collate)
        for kind, make in tiny_speech.WRITERS.items()
    },
    "bart": (bart, tiny_language.pairs, text),
    "marian": (marian, tiny_language.pairs, text),
    "t5": (tiny_language.t5, tiny_language.pairs, text),
}
