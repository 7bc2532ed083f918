"""Sentence vectors: no head, no labels, and a teacher that is heard by its hidden states."""

import pytest
import tiny
import tiny_tasks
import torch
from tiny_tasks import CASES
from transformers import BertForMaskedLM, T5Config, T5EncoderModel, T5Model

from hf_distill import LiveTeacher, SentenceEmbedding
from hf_distill.tasks import Task

EMBEDDING = CASES["embedding"]


def test_it_is_found_only_where_a_teacher_can_teach_and_no_other_task_fits():
    assert type(Task.of(EMBEDDING.model())) is SentenceEmbedding
    assert Task.find(EMBEDDING.model()) is None
    assert all(type(Task.of(case.model())) is case.task for case in CASES.values())
    sizes = dict(vocab_size=32, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    assert type(Task.of(T5EncoderModel(T5Config(**sizes)))) is SentenceEmbedding
    with pytest.raises(ValueError, match="no task is known for T5Model"):  # it reads two texts
        Task.of(T5Model(T5Config(**sizes)))


def test_without_a_teacher_it_is_plain_trainer(tmp_path):
    run = tiny.trainer(tmp_path, EMBEDDING.model(), EMBEDDING.rows(), data_collator=EMBEDDING.collate())
    assert run.task is None
    assert run.predict(EMBEDDING.rows(4)).predictions[1].shape == (4, 16)


@pytest.mark.parametrize(("objective", "pool"), [(None, "mean"), ({"pooled_cosine": {"pool": "first"}}, "first")])
def test_the_loss_is_that_of_the_sentence_vectors(tmp_path, objective, pool):
    student, teacher = EMBEDDING.model().eval(), EMBEDDING.model(layers=2, seed=7).eval()
    batch, vectors = EMBEDDING.batch(8), []
    for model in (student, teacher):
        state, mask = model(**batch).last_hidden_state.double(), batch["attention_mask"].double().unsqueeze(-1)
        vectors.append(state[:, 0] if pool == "first" else (state * mask).sum(1) / mask.sum(1))
    expected = (vectors[0] - vectors[1]).square().mean()
    if pool == "first":
        expected = 1 - torch.nn.functional.cosine_similarity(*vectors).mean()
    run = tiny_tasks.trainer(
        tmp_path, "embedding", student=student, teacher_model=teacher, objective=objective, args={"max_steps": 1}
    )  # fmt: skip
    assert run.alpha == 1.0
    run.train()
    assert tiny.losses(run)[0] == pytest.approx(expected.item(), rel=1e-5)


def test_other_terms_and_other_widths(tmp_path):
    objective = {"pooled_mse": 1.0, "similarity": 1.0, "rkd_distance": 1.0, "hidden_mse": 0.1}
    run = tiny_tasks.trainer(tmp_path, "embedding", objective=objective, args={"max_steps": 5})
    run.train()
    assert tiny.losses(run)[-1] < tiny.losses(run)[0]
    auto = tiny_tasks.trainer(tmp_path, "embedding", objective="auto")
    assert set(auto.distillation.terms) == {"pooled_mse", "hidden_mse"}


def test_a_label_in_the_data_is_left_alone(tmp_path):
    data = [{**row, "labels": 1} for row in EMBEDDING.rows()]
    found = []
    for rows in (data, EMBEDDING.rows()):
        run = tiny_tasks.trainer(tmp_path, "embedding", rows, eval_dataset=rows)
        run.train()
        found.append((tiny.losses(run), run.evaluate()["eval_loss"]))
    assert found[0] == found[1]


def test_augmented_texts_need_no_label(tmp_path):
    run = tiny_tasks.trainer(
        tmp_path, "embedding", args={"augmentation": {"mask": 0.5}}, processing_class=tiny.tokenizer()
    )  # fmt: skip
    assert run.train().global_step == 3


def test_a_teacher_with_a_head_is_heard_by_its_hidden_states(tmp_path):
    run = tiny_tasks.trainer(tmp_path, "embedding", teacher_model=tiny.teacher())
    assert run.train().global_step == 3


def test_a_path_may_hold_a_model_whose_pooler_was_never_trained(tmp_path):
    teacher = CASES["masked"].teacher()
    teacher.save_pretrained(tmp_path / "teacher")
    assert isinstance(teacher, BertForMaskedLM)
    run = tiny_tasks.trainer(tmp_path, "embedding", teacher_model=str(tmp_path / "teacher"))
    assert run.train().global_step == 3
    run.save_model(tmp_path / "student")
    assert type(run.model).from_pretrained(tmp_path / "student").config.hidden_size == 16


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_bad_input_is_refused_in_a_sentence(tmp_path, alpha):
    with pytest.raises(ValueError, match=f"alpha={alpha:g} trains on labels, a model of AutoModel has no head"):
        tiny_tasks.trainer(tmp_path, "embedding", args={"alpha": alpha})
    with pytest.raises(ValueError, match="forward_kl compares logits, a model of AutoModel has none: use a term"):
        tiny_tasks.trainer(tmp_path, "embedding", objective="forward_kl")
    with pytest.raises(ValueError, match=r"objective needs \['hidden'\], the teacher .* serves \['heads'\]"):
        tiny_tasks.trainer(tmp_path, "embedding", teacher_model=lambda batch: torch.zeros(8, 3))
    with pytest.raises(ValueError, match="BertModel was given as teacher, but it gives hidden states and no logits"):
        LiveTeacher(EMBEDDING.model(), Task.of(tiny.bert()))
    with pytest.raises(ValueError, match="BertModel was given as teacher, but it gives hidden states and no logits"):
        tiny.trainer(tmp_path, teacher_model=EMBEDDING.teacher())
    data = [{**row, "teacher_input_ids": row["input_ids"]} for row in EMBEDDING.rows(2)]
    with pytest.raises(ValueError, match="compares what two models make of the same tokens, the batch has teacher_in"):
        SentenceEmbedding().signals(EMBEDDING.model(), data[0], {})
