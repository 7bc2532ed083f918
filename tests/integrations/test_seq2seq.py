"""Encoder-decoder models: evaluation by generating."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_language
from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer

from hf_distill import Seq2SeqDistillationTrainer
from hf_distill.arguments import Seq2SeqDistillationTrainingArguments

SCRIPT = Path(__file__).with_name("writing_ranks.py")


def test_predict_with_generate_gives_the_plain_trainers_tokens_and_the_blended_loss(tmp_path):
    rows, collate = tiny_language.pairs(6, seed=9), DataCollatorForSeq2Seq(tiny_language.tokenizer())

    def with_teacher(rows):
        fed = collate([dict(row) for row in rows])
        return {**fed, "teacher_input_ids": fed["input_ids"], "teacher_attention_mask": fed["attention_mask"]}

    def make(kind, collator, generate, student=None, **parts):
        args = {"predict_with_generate": generate, "generation_max_length": 12}
        return tiny.trainer(
            tmp_path, student or tiny_language.t5(), rows, kind, eval_dataset=rows, data_collator=collator,
            plain_args=tiny.arguments(tmp_path, Seq2SeqDistillationTrainingArguments, **args), **parts,
        )  # fmt: skip

    found = []
    for generate in (False, True):
        teacher = tiny_language.teacher(tiny_language.t5)
        run = make(Seq2SeqDistillationTrainer, with_teacher, generate, teacher_model=teacher)
        run.train()
        found.append(run.evaluate())
    for name in ("eval_loss", "eval_loss/hard", "eval_loss/forward_kl"):
        assert found[1][name] == pytest.approx(found[0][name], rel=1e-6)
    ours, plain = run.predict(rows), make(Seq2SeqTrainer, collate, True, run.model).predict(rows)
    assert np.array_equal(ours.predictions, plain.predictions)
    assert np.array_equal(ours.label_ids, plain.label_ids)
    assert ours.predictions.dtype == np.int64  # tokens, no logits


@pytest.mark.slow
def test_whisper_is_trained_and_writes_on_two_ranks_as_on_one(tmp_path):
    found = subprocess.run(
        [*f"{sys.executable} -m torch.distributed.run --nproc_per_node 2 --standalone".split(), SCRIPT, tmp_path],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-4000:]
    sys.path.insert(0, str(SCRIPT.parent))
    import writing_ranks

    _, one = writing_ranks.trained(tmp_path / "one", 8)
    assert one["written"].max() > 0
    for rank in (0, 1):
        ours = np.load(tmp_path / f"{rank}.npz")
        assert ours["world_size"] == 2  # an unnoticed single process would prove nothing
        np.testing.assert_allclose(ours["losses"], one["losses"], rtol=1e-5)
        np.testing.assert_allclose(ours["weights"], one["weights"], rtol=1e-5, atol=1e-6)
        for name in ("written", "labels"):  # Trainer repeats rows behind the last, to give each rank as many
            np.testing.assert_array_equal(ours[name][:5], one[name], err_msg=name)
