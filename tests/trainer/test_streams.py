"""What models show beside their main stream: an encoder and a decoder of different depths."""

import pytest
import tiny
import tiny_language
import torch
from transformers import DataCollatorForSeq2Seq, MarianConfig, MarianMTModel

COLLATE = DataCollatorForSeq2Seq(tiny_language.tokenizer())


def marian(width=16, encoder=1, decoder=1, seed=0):
    torch.manual_seed(seed)
    return MarianMTModel(MarianConfig(
        vocab_size=tiny_language.SIZE, d_model=width, encoder_layers=encoder, decoder_layers=decoder,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, dropout=0.0,
        attention_dropout=0.0, activation_dropout=0.0, max_position_embeddings=32, pad_token_id=0, eos_token_id=2,
        bos_token_id=1, decoder_start_token_id=0, forced_eos_token_id=None, init_std=0.3, tie_word_embeddings=True,
    ))  # fmt: skip


def t5(width=16, encoder=1, decoder=1, seed=0):
    return tiny_language.t5(width, encoder, seed, num_decoder_layers=decoder)


KINDS = {"marian": marian, "t5": t5}


def trainer(folder, student, teacher, objective, rows=None, **parts):
    return tiny.trainer(
        folder, student, tiny_language.pairs(8) if rows is None else rows, teacher_model=teacher, objective=objective,
        data_collator=COLLATE, **parts,
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_layers_of_a_decoder_are_paired_whatever_the_encoder_has(tmp_path, kind):
    student, teacher = KINDS[kind](encoder=3, decoder=1), KINDS[kind](encoder=1, decoder=4, seed=7)
    args = {"max_steps": 1, "alpha": 1.0, "per_device_train_batch_size": 8}
    run = trainer(tmp_path, student, teacher, "hidden_mse", args=args)
    assert run.distillation.objective.terms["hidden_mse"].pairs == [(0, 0), (1, 4)]
    batch = COLLATE([dict(row) for row in tiny_language.pairs(8)])
    with torch.no_grad():
        ours, theirs = (
            model.eval()(**batch, output_hidden_states=True).decoder_hidden_states for model in (student, teacher)
        )
    real = batch["labels"] != -100
    wanted = sum((ours[a] - theirs[b])[real].square().mean() for a, b in ((0, 0), (1, 4))) / 2
    run.train()
    assert run.state.log_history[0]["loss/hidden_mse"] == pytest.approx(wanted.item(), rel=1e-5)


def test_a_card_tells_the_depth_of_both_sides_where_they_differ(tmp_path):
    run = trainer(tmp_path, t5(), t5(24, encoder=3, decoder=2, seed=7), None, args={"max_steps": 1})
    run.train()
    run.create_model_card()
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "T5ForConditionalGeneration`, 3 + 2 layers of width 24" in card
    assert "1 layer of width 16" in card
