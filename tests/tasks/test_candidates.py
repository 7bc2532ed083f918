"""Training on groups of a query and its candidates: who may teach it, and that groups stay whole."""

import pytest
import tiny
import torch
from datasets import Dataset
from transformers import BertModel

from hf_distill import CachedTeacher, CandidateCollator, LiveTeacher

WORDS = [f"w{i}" for i in range(20)]


def groups(count=8, candidates=2, seed=0):
    drawn = torch.Generator().manual_seed(seed)

    def text():
        length = int(torch.randint(1, 6, (), generator=drawn))
        return " ".join(WORDS[int(i)] for i in torch.randint(20, (length,), generator=drawn))

    return [
        {"query": text(), "candidates": [text() for _ in range(candidates)],
         "teacher_scores": torch.randn(candidates, generator=drawn).tolist()}
        for _ in range(count)
    ]  # fmt: skip


def encoder(width, seed):
    core = tiny.bert(width=width, layers=2, seed=seed)
    model = BertModel(core.config, add_pooling_layer=False)
    model.load_state_dict({k.removeprefix("bert."): v for k, v in core.state_dict().items()}, strict=False)
    return model


def cross_encoder(seed=5):
    return tiny.bert(width=24, layers=2, problem=tiny.REGRESSION, seed=seed, type_vocab_size=2)


def trained(folder, teacher, data=None, collator=None, callbacks=(), term="score_kl", scores="vectors", **args):
    settings = {"max_steps": 1, "train_sampling_strategy": "sequential", "per_device_train_batch_size": 8}
    run = tiny.trainer(
        folder, encoder(16, 0), Dataset.from_list(data or groups()), teacher_model=teacher, callbacks=list(callbacks),
        data_collator=collator or CandidateCollator(tiny.tokenizer()), args={**settings, **args},
        objective={term: {"candidates": 2, "scores": scores}},
    )  # fmt: skip
    run.train()
    return run, tiny.losses(run)


PAIRS = {"cross_encoder": tiny.tokenizer()}
TEACHERS = {
    "vectors": (lambda: encoder(24, 1), {}, "vectors"),
    "pairs": (cross_encoder, PAIRS, "logits"),
    "column": (lambda: "column:teacher_scores", {}, "logits"),
}


@pytest.mark.parametrize("term", ["margin_mse", "score_kl"])
@pytest.mark.parametrize("who", TEACHERS)
def test_eight_groups_are_four_times_two(tmp_path, who, term):
    teacher, more, scores = TEACHERS[who]
    collator, found = CandidateCollator(tiny.tokenizer(), **more), []
    for size in (8, 2):
        seen = tiny.Gradients()
        args = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 8 // size}
        _, losses = trained(tmp_path, teacher(), collator=collator, callbacks=[seen], term=term, scores=scores, **args)
        found.append((losses, seen.first))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    assert found[0][0][0] > 0
    assert tiny.relative(found[1][1], found[0][1]) < 1e-5


@pytest.mark.parametrize("who", ["vectors", "pairs"])
def test_kept_scores_are_those_of_a_teacher_that_is_asked_each_time(tmp_path, who):
    teacher, more, scores = TEACHERS[who]
    parts = {"collator": CandidateCollator(tiny.tokenizer(), **more), "scores": scores}
    parts |= {"max_steps": -1, "num_train_epochs": 3, "per_device_train_batch_size": 4}
    parts |= {"train_sampling_strategy": "random", "learning_rate": 1e-3}
    live = trained(tmp_path / "a", teacher(), teacher_cache="off", **parts)[1]
    run, kept = trained(tmp_path / "b", teacher(), **parts)
    assert isinstance(run.teacher, CachedTeacher)
    assert len(run.teacher.memory) > 8
    assert not run.teacher.memory.off
    assert tiny.losses(run, "teacher_cache_hits")[-2:] == [1.0, 1.0]
    assert kept == pytest.approx(live, rel=1e-4)


def test_all_scores_may_be_asked_for_before_the_first_step(tmp_path):
    args = {"max_steps": -1, "num_train_epochs": 2, "teacher_prepass": True, "scores": "logits"}
    run, _ = trained(tmp_path, cross_encoder(), collator=CandidateCollator(tiny.tokenizer(), **PAIRS), **args)
    assert tiny.losses(run, "teacher_cache_hits") == [1.0] * 2


def test_a_teacher_of_vectors_cannot_give_scores(tmp_path):
    with pytest.raises(ValueError, match=r"the objective needs \['heads'\], the teacher BertModel serves \["):
        trained(tmp_path, LiveTeacher(encoder(24, 1)), scores="logits")


def test_columns_that_are_texts_reach_the_collator_and_may_have_names_of_their_own(tmp_path):
    data = [{"anchor": g["query"], "good": g["candidates"][0], "bad": g["candidates"][1]} for g in groups()]
    named = CandidateCollator(tiny.tokenizer(), query="anchor", candidates=["good", "bad"])
    assert trained(tmp_path / "a", encoder(24, 1), data, named)[1] == trained(tmp_path / "b", encoder(24, 1))[1]


def test_a_batch_is_queries_with_their_candidates_and_pairs_of_them():
    collator = CandidateCollator(tiny.tokenizer(), max_length=5, **PAIRS)
    batch = collator(
        [{"query": "w1", "candidates": ["w2 w3 w4 w5", "w6"]}, {"query": "w7", "candidates": ["w8", "w9"]}]
    )
    texts = tiny.tokenizer().batch_decode(batch["input_ids"], skip_special_tokens=True)
    assert texts == ["w1", "w2 w3 w4", "w6", "w7", "w8", "w9"]
    pairs = tiny.tokenizer().batch_decode(batch["teacher_input_ids"], skip_special_tokens=True)
    assert pairs == ["w1 w2", "w1 w6", "w7 w8", "w7 w9"]
    assert batch["teacher_token_type_ids"].max() == 1


@pytest.mark.parametrize(("rows", "told"), [
    ([{"query": "w1", "candidates": ["w2"]}, {"query": "w1", "candidates": []}], "row 1 of a batch has 0 candidates"),
    ([{"query": "w1", "candidates": []}], "row 0 of a batch has 0 candidates, row 0 has 0: give each query as many"),
    ([{"query": "w1"}], r"has the columns \['query'\]: CandidateCollator reads 'candidates' too"),
    ([{"query": "w1", "candidates": [3]}], "row 0 of a batch has 3 where a text is read"),
])  # fmt: skip
def test_rows_that_are_no_groups_are_refused(rows, told):
    with pytest.raises(ValueError, match=told):
        CandidateCollator(tiny.tokenizer())(rows)


def test_a_column_of_scores_for_other_candidates_is_refused(tmp_path):
    data = [{**group, "teacher_scores": [0.5] * 3} for group in groups()]
    with pytest.raises(ValueError, match=r"score_kl wants a score of the teacher for each of 16 candidates.*\[8, 3\]"):
        trained(tmp_path, "column:teacher_scores", data, scores="logits")
