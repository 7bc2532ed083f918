"""Sentence vectors: no head, no labels, and a teacher that is heard by its hidden states."""

import pytest
import tiny
import tiny_tasks
import torch
from datasets import Dataset
from tiny_tasks import CASES
from transformers import BertForMaskedLM, T5Config, T5EncoderModel, T5Model

from hf_distill import LiveTeacher, SentenceEmbedding, TwoTokenizers
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
    assert set(auto.distillation.objective.terms) == {"pooled_mse", "hidden_mse"}


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


# ---- A teacher with tokens of its own ----


def other_tokens(n=8):
    """Texts that the teacher reads in more and other tokens than the student."""
    both = zip(EMBEDDING.rows(n), EMBEDDING.rows(2 * n, seed=5)[::2], strict=True)
    return [
        {**row, "teacher_input_ids": ids, "teacher_attention_mask": [1] * len(ids)}
        for row, ids in ((row, [*theirs["input_ids"], 7, 9]) for row, theirs in both)
    ]


def apart(folder, data=None, **parts):
    collate = TwoTokenizers(tiny.tokenizer(), tiny.tokenizer())
    return tiny_tasks.trainer(
        folder, "embedding", other_tokens() if data is None else data, data_collator=collate, **parts
    )


@pytest.mark.parametrize("pool", ["mean", "last"])
def test_each_model_makes_a_text_s_vector_of_its_own_tokens(tmp_path, pool):
    student, teacher, vectors = EMBEDDING.model().eval(), EMBEDDING.model(layers=2, seed=7).eval(), []
    for model, prefix in ((student, ""), (teacher, "teacher_")):
        each = []
        for row in other_tokens():
            state = model(input_ids=torch.tensor([row[f"{prefix}input_ids"]])).last_hidden_state[0].double()
            each.append(state.mean(0) if pool == "mean" else state[-1])
        vectors.append(torch.stack(each))
    expected = (vectors[0] - vectors[1]).square().mean().item()
    objective = {"pooled_mse": {"pool": pool}}
    for cache in ("off", str(tmp_path / "answers")):
        run = apart(
            tmp_path, student=EMBEDDING.model(), teacher_model=EMBEDDING.model(layers=2, seed=7), objective=objective,
            args={"max_steps": 2, "num_train_epochs": 2, "teacher_cache": cache},
        )  # fmt: skip
        run.train()
        assert tiny.losses(run)[0] == pytest.approx(expected, rel=1e-5)


def test_how_far_the_teachers_tokens_are_padded_changes_nothing(tmp_path):
    found = []
    for size in (8, 2):
        args = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 8 // size, "max_steps": 3}
        run = apart(tmp_path / str(size), objective={"pooled_cosine": 1.0, "pooled_mse": 1.0}, args=args)
        run.train()
        found.append(tiny.losses(run))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_one_text_in_two_tokenizers(tmp_path):
    ours, theirs = tiny.tokenizer(), tiny.tokenizer()
    both = TwoTokenizers(ours, theirs)
    rows = Dataset.from_list([{"text": text} for text in ("w5 w6 w7", "w8 w9", "w5", "w6 w6 w6 w6")])
    rows = rows.map(lambda row: both.encode(row["text"]), remove_columns=["text"])
    run = tiny_tasks.trainer(tmp_path, "embedding", rows, data_collator=both, eval_dataset=rows)
    assert run.train().global_step == 3
    assert run.evaluate()["eval_loss"] > 0


def test_token_with_token_is_not_compared_where_tokens_differ(tmp_path):
    assert set(apart(tmp_path, objective="auto").distillation.objective.terms) == {"pooled_mse"}
    for name in ("hidden_mse", "pkd", "attention_mse"):
        with pytest.raises(ValueError, match=f"{name} compares token with token, the teacher reads tokens of its own"):
            apart(tmp_path, objective={"pooled_mse": 1.0, name: 1.0})
    for name in ("similarity", "rkd_angle", "contrastive", "adversarial"):
        apart(tmp_path, objective=name).train()
