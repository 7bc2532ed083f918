"""Tiny audio models with random weights, and recordings: noise, of different lengths."""

import torch
from tiny_images import made
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    HubertConfig,
    HubertForCTC,
    HubertForSequenceClassification,
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    ParakeetCTCConfig,
    ParakeetForCTC,
    Speech2TextConfig,
    Speech2TextForConditionalGeneration,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification,
    WhisperConfig,
    WhisperForAudioClassification,
    WhisperForConditionalGeneration,
)

LETTERS = 8


def _waves(width=16, layers=2, strides=(4, 4), norm="layer", **config):
    """Frames of 16 samples, or of what the strides say; no random masks."""
    return {
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": width,
        "conv_dim": (8,) * len(strides), "conv_stride": strides, "conv_kernel": strides, "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": len(strides), "feat_extract_norm": norm,
        "do_stable_layer_norm": norm == "layer", "conv_bias": True, "vocab_size": LETTERS, "pad_token_id": 0,
        "mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0, "hidden_dropout": 0.0,
        "attention_dropout": 0.0, "activation_dropout": 0.0, "feat_proj_dropout": 0.0, "final_dropout": 0.0,
        "ctc_loss_reduction": "mean", "num_labels": 3, "classifier_proj_size": width, "initializer_range": 0.2,
        "bos_token_id": 1, "eos_token_id": 2, **config,
    }  # fmt: skip


def wav2vec2(seed=0, kind=Wav2Vec2ForCTC, silent=0.0, **sizes):
    """``silent``: how much more likely the blank is than by chance."""
    model = made(kind, Wav2Vec2Config(**_waves(**sizes)), seed)
    if silent:
        model.lm_head.bias.data[0] += silent
    return model


def hubert(seed=0, kind=HubertForCTC, **sizes):
    return made(kind, HubertConfig(**_waves(**sizes)), seed)


def features(seed=0, width=16, layers=2, **config):
    """Wav2Vec2-BERT reads features and shows a frame for each of their rows; it has no batch norm."""
    shape = Wav2Vec2BertConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=width,
        feature_projection_input_dim=6, vocab_size=LETTERS, pad_token_id=0, mask_time_prob=0.0, layerdrop=0.0,
        hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, feat_proj_dropout=0.0, final_dropout=0.0,
        conformer_conv_dropout=0.0, conv_depthwise_kernel_size=3, position_embeddings_type=None,
        ctc_loss_reduction="mean", initializer_range=0.2, apply_spec_augment=False, **config,
    )  # fmt: skip
    return made(Wav2Vec2BertForCTC, shape, seed)


def parakeet(seed=0, width=16, layers=2, **config):
    """All that is known of its layers is in the configuration of its encoder; the blank is its last class."""
    encoder = {
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": width,
        "num_mel_bins": 8, "subsampling_conv_channels": 4, "conv_kernel_size": 3, "dropout": 0.0, "layerdrop": 0.0,
        "activation_dropout": 0.0, "attention_dropout": 0.0, "dropout_positions": 0.0, "initializer_range": 0.2,
    }  # fmt: skip
    shape = ParakeetCTCConfig(vocab_size=LETTERS + 1, pad_token_id=LETTERS, encoder_config=encoder, **config)
    return made(ParakeetForCTC, shape, seed)


def ast(seed=0, width=16, layers=2, **config):
    shape = ASTConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=width, patch_size=4,
        frequency_stride=4, time_stride=4, max_length=16, num_mel_bins=8, num_labels=3, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, initializer_range=0.2, **config,
    )  # fmt: skip
    return made(ASTForAudioClassification, shape, seed)


def _whisper(width=16, layers=1, **config):
    return WhisperConfig(**{
        "vocab_size": 32, "num_mel_bins": 8, "d_model": width, "encoder_layers": 1, "decoder_layers": layers,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": width,
        "decoder_ffn_dim": width, "max_source_positions": 10, "max_target_positions": 16, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3, "num_labels": 3, "dropout": 0.0,
        "classifier_proj_size": width, "init_std": 0.2, **config,
    })  # fmt: skip


def whisper(seed=0, kind=WhisperForConditionalGeneration, **sizes):
    return made(kind, _whisper(**sizes), seed)


def speech_to_text(seed=0, width=16, **config):
    shape = Speech2TextConfig(
        vocab_size=32, d_model=width, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=width, decoder_ffn_dim=width, input_feat_per_channel=8,
        conv_channels=8, num_conv_layers=1, conv_kernel_sizes=[3], max_source_positions=40, max_target_positions=16,
        dropout=0.0, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2, init_std=0.2, **config,
    )  # fmt: skip
    return made(Speech2TextForConditionalGeneration, shape, seed)


def moonshine(seed=0, width=16, layers=1, **config):
    """A frame of 384 samples, from 1,023 samples on."""
    shape = MoonshineConfig(
        vocab_size=32, hidden_size=width, intermediate_size=width, encoder_num_hidden_layers=1, initializer_range=0.2,
        decoder_num_hidden_layers=layers, encoder_num_attention_heads=2, decoder_num_attention_heads=2,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, **config,
    )  # fmt: skip
    return made(MoonshineForConditionalGeneration, shape, seed)


CTCS = {"wav2vec2": wav2vec2, "hubert": hubert, "features": features}
CLASSIFIERS = {
    "wav2vec2": lambda seed=0, **sizes: wav2vec2(seed, Wav2Vec2ForSequenceClassification, **sizes),
    "hubert": lambda seed=0, **sizes: hubert(seed, HubertForSequenceClassification, **sizes),
    "ast": ast,
    "whisper": lambda seed=0, **sizes: whisper(seed, WhisperForAudioClassification, **sizes),
}
WRITERS = {"whisper": whisper, "speech_to_text": speech_to_text, "moonshine": moonshine}


def recordings(n=8, seed=1, kind="wav2vec2", label=None):
    """Waves or features of several lengths with a transcript each, or a class."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for number in range(n):
        long = 96 + 32 * (number % 3)
        if kind == "features":
            row = {"input_features": torch.randn(long // 8, 6, generator=generator)}
        elif kind == "ast":
            row = {"input_values": torch.randn(16, 8, generator=generator)}
        elif kind == "whisper":
            row = {"input_features": torch.randn(8, 20, generator=generator)}
        elif kind == "speech_to_text":
            row = {"input_features": torch.randn(long // 8, 8, generator=generator)}
        elif kind == "moonshine":
            row = {"input_values": torch.randn(2400 + 400 * (number % 3), generator=generator)}
        else:
            row = {"input_values": torch.randn(long, generator=generator)}
        letters = torch.randint(1, LETTERS, (1 + number % 3,), generator=generator)
        rows.append({**row, "labels": letters if label is None else label(number)})
    return rows


def collate(rows):
    """Padded, with a mask where lengths differ in kind; transcripts behind -100."""
    name = next(one for one in ("input_values", "input_features") if one in rows[0])
    given = [row[name] for row in rows]
    batch = {name: torch.nn.utils.rnn.pad_sequence(given, batch_first=True)}
    fixed = given[0].ndim == 2 and given[0].shape[0] in (8, 16) and given[0].shape[1] in (20, 8)
    if not fixed:
        batch["attention_mask"] = torch.nn.utils.rnn.pad_sequence(
            [torch.ones(len(one), dtype=torch.long) for one in given], batch_first=True
        )
    if all(row.get("labels") is not None for row in rows):
        labels = [row["labels"] for row in rows]
        several = isinstance(labels[0], torch.Tensor)
        batch["labels"] = (
            torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
            if several
            else torch.tensor(labels)
        )
    return batch
