"""Trainers of tiny speech models with rollouts, and Whispers that generate in three ways."""

import tiny
import tiny_speech
import torch
from tiny_images import made
from transformers import BertTokenizer, MoonshineConfig, MoonshineForConditionalGeneration

from hf_distill import Seq2SeqDistillationTrainer
from hf_distill.arguments import Seq2SeqDistillationTrainingArguments

WORDS = [f"w{i}" for i in range(26)]
ENGLISH = {"is_multilingual": False, "no_timestamps_token_id": 25}
LANGUAGES = {"<|en|>": 20, "<|de|>": 21}
MANY = {
    **ENGLISH, "is_multilingual": True, "lang_to_id": LANGUAGES, "task_to_id": {"transcribe": 22, "translate": 23},
    "language": "de", "task": "transcribe",
}  # fmt: skip
# How Whisper's generation_config may be -> what its decoder then begins with; 3 is <|startoftranscript|>.
WAYS = {"multilingual": (MANY, [3, 21, 22, 25]), "english": (ENGLISH, [3, 25]), "plain": ({}, [3])}
ONCE = {"seq_kd": 1.0, "max_new_tokens": 6}


def tokenizer():
    special = ["[PAD]", "[UNK]", "[SEP]", "[CLS]", "[MASK]"]  # 2 is the end of a text
    return BertTokenizer(vocab={token: i for i, token in enumerate([*special, *WORDS])})


def whisper(seed=0, way="plain", kept=20, ends=1.0, **sizes):
    """One whose tokens from ``kept`` on are never the likeliest: they are no text; ``ends``: how soon it ends."""
    model = tiny_speech.whisper(seed, **sizes)
    with torch.no_grad():
        model.model.decoder.embed_tokens.weight[kept:] *= 0.01
        model.model.decoder.embed_tokens.weight[2] *= ends
    for name, value in WAYS[way][0].items():
        setattr(model.generation_config, name, value)
    return model


def moonshine(seed=0, width=16):
    shape = MoonshineConfig(
        vocab_size=32, hidden_size=width, intermediate_size=width, encoder_num_hidden_layers=1,
        decoder_num_hidden_layers=1, encoder_num_attention_heads=2, decoder_num_attention_heads=2,
        max_position_embeddings=32, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        initializer_range=0.2,
    )  # fmt: skip
    return made(MoonshineForConditionalGeneration, shape, seed)


MODELS = {"whisper": whisper, "speech_to_text": tiny_speech.speech_to_text, "moonshine": moonshine}


def rows(kind, n=8, labels=True):
    if kind == "moonshine":
        generator = torch.Generator().manual_seed(1)
        given = [{"input_values": torch.randn(900 + 400 * (i % 3), generator=generator)} for i in range(n)]
        given = [{**row, "labels": torch.tensor([5 + i, 6, 2])} for i, row in enumerate(given)]
    else:
        given = tiny_speech.recordings(n, kind=kind)
    return given if labels else [{k: v for k, v in row.items() if k != "labels"} for row in given]


def trainer(folder, kind="whisper", rollout=ONCE, student=None, data=None, teacher=None, **parts):
    class Seeing(Seq2SeqDistillationTrainer):
        def get_batch_samples(self, *given):
            batches, num_items = super().get_batch_samples(*given)
            self.seen.append(batches)
            return batches, num_items

    Seeing.seen = []
    args = {"train_sampling_strategy": "sequential", "alpha": 1.0, "max_steps": 1, **parts.pop("args", {})}
    return tiny.trainer(
        folder, student or MODELS[kind](), data or rows(kind, labels=args["alpha"] < 1), Seeing,
        plain_args=tiny.arguments(folder, Seq2SeqDistillationTrainingArguments, **args),
        data_collator=parts.pop("data_collator", tiny_speech.collate), rollout=rollout,
        teacher_model=teacher or MODELS[kind](seed=7, width=24), **parts,
    )  # fmt: skip
