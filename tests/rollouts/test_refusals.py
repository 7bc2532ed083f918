"""What cannot be written is refused in one sentence, before the first step where that is possible."""

import pytest
import runs
import tiny
import tiny_language
import torch
from transformers import BartConfig, BartForCausalLM

from hf_distill.teachers import Several

OWN = {"on_policy": 1.0, "max_new_tokens": 6}


def test_a_classifier_does_not_write(tmp_path):
    with pytest.raises(ValueError, match="rollout was asked for BertForSequenceClassification, but only a causal"):
        tiny.trainer(tmp_path, teacher_model=tiny.teacher(), rollout=OWN)


@pytest.mark.parametrize(
    "teacher",
    [
        lambda batch: torch.zeros(*batch["input_ids"].shape, 32),
        Several([tiny_language.teacher(), tiny_language.llama()]),
    ],
)
def test_a_teacher_that_cannot_write_is_refused(tmp_path, teacher):
    with pytest.raises(ValueError, match=r"seq_kd lets the teacher write, and .* cannot: pass one language model"):
        runs.trainer(tmp_path, rollout={"seq_kd": 0.5, "max_new_tokens": 6}, teacher_model=teacher)
    runs.trainer(tmp_path, rollout=OWN, teacher_model=teacher, args={"max_steps": 1}).train()  # it need not write


def test_a_short_context_is_named(tmp_path):
    short = tiny_language.teacher(max_position_embeddings=8)
    with pytest.raises(ValueError, match=r"text of max_new_tokens=9, the teacher LlamaForCausalLM reads 8 positions"):
        runs.trainer(tmp_path, rollout={**OWN, "max_new_tokens": 9}, teacher_model=short)
    run = runs.trainer(tmp_path, rollout={**OWN, "max_new_tokens": 7}, teacher_model=short)
    with pytest.raises(ValueError, match=r"a prompt of 2 tokens and a text of max_new_tokens=7, the teacher Llama"):
        run.train()
    long = [{"input_ids": [5] * 20, "attention_mask": [1] * 20, "labels": [-100] * 19 + [5]}] * 8
    half = {"on_policy": 1e-9, "max_new_tokens": 4}
    run = runs.trainer(tmp_path, rollout=half, data=long, teacher_model=short)
    with pytest.raises(ValueError, match=r"the batch is 20 tokens long, the teacher LlamaForCausalLM reads 8"):
        run.train()


def test_a_students_own_loss_would_count_what_it_wrote(tmp_path):
    class Mine(type(tiny_language.llama())):
        def forward(self, input_ids=None, attention_mask=None, labels=None, **more):
            return super().forward(input_ids, attention_mask, labels=labels, **more)

    student = tiny_language.llama()
    student.__class__ = Mine
    with pytest.raises(ValueError, match="on_policy=1 adds rows that the supervised loss must not count, and Mine"):
        runs.trainer(tmp_path, rollout=OWN, student=student)


def test_packed_rows_are_refused(tmp_path):
    data = [{**row, "position_ids": [0, 1, *range(len(row["input_ids"]) - 2)]} for row in tiny_language.texts()]

    def collate(rows):
        longest = max(len(row["input_ids"]) for row in rows)
        fill = {"labels": -100}
        return {
            name: torch.tensor([[*row[name], *[fill.get(name, 0)] * (longest - len(row[name]))] for row in rows])
            for name in rows[0]
        }

    with pytest.raises(ValueError, match="rows into which several texts are packed"):
        runs.trainer(tmp_path, rollout=OWN, data=data, data_collator=collate).train()


def test_a_decoder_whose_labels_are_shifted_by_the_user_has_no_prompt(tmp_path):
    sizes = dict(d_model=16, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=32, vocab_size=32)
    with pytest.raises(ValueError, match="rollout was asked for BartForCausalLM, whose labels are those of the next"):
        runs.trainer(tmp_path, rollout=OWN, student=BartForCausalLM(BartConfig(**sizes)))
