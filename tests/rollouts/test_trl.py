"""Conversations under TRL's trainer: the prompt is what comes before the first answer."""

import pytest
import tiny
import tiny_language

pytest.importorskip("trl")

from datasets import Dataset

from hf_distill.integrations.trl import SFTDistillationConfig, SFTDistillationTrainer
from hf_distill.tasks.supervision import STUDENT_WROTE


def trainer(folder, rollout, **args):
    args = {"assistant_only_loss": True, "bf16": False, "max_steps": 3, "per_device_train_batch_size": 8, **args}
    return SFTDistillationTrainer(
        tiny_language.llama(), tiny.arguments(folder, SFTDistillationConfig, **args), rollout=rollout,
        train_dataset=Dataset.from_list(tiny_language.chats()), processing_class=tiny_language.tokenizer(),
        teacher_model=tiny_language.teacher(),
    )  # fmt: skip


def test_the_student_answers_the_questions(tmp_path, monkeypatch):
    run, seen = trainer(tmp_path, {"on_policy": 1.0, "max_new_tokens": 5}), []
    rewrite = run.rollouts.rewrite
    monkeypatch.setattr(run.rollouts, "rewrite", lambda *given: seen.append(rewrite(*given)) or seen[-1])
    run.train()
    (batch,), tokenizer = seen[0], tiny_language.tokenizer()
    asked = {
        tuple(tokenizer(f"user : {row['messages'][0]['content']} assistant :")["input_ids"])
        for row in tiny_language.chats()
    }
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        assert tuple(ids[: int((labels != -100).nonzero()[0])].tolist()) in asked
    assert batch[STUDENT_WROTE].all()
    first = run.state.log_history[0]
    assert first["rollout/student"] == 1
    assert first["loss/hard"] == first["mean_token_accuracy"] == 0  # what it wrote is right for nobody
    assert first["loss/forward_kl"] > 0


def test_packed_conversations_are_refused(tmp_path):
    with pytest.raises(ValueError, match="rows into which several texts are packed"):
        trainer(
            tmp_path, {"on_policy": 1.0, "max_new_tokens": 5}, packing=True, max_length=32, padding_free=True
        ).train()
