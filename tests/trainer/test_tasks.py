"""Every task beside sequence classification and generation: exact, trained, evaluated, predicted, remembered."""

import numpy as np
import pytest
import tiny
import tiny_tasks
import torch
from tiny_tasks import CASES
from transformers import Trainer

from hf_distill.cache.encoding import Encoding
from hf_distill.cache.teacher import CachedTeacher
from hf_distill.teachers import LiveTeacher

LABELLED = [name for name in CASES if name != "embedding"]


def step(folder, name, data, size, accumulation, **parts):
    """One optimizer step: its logged parts and its gradients."""
    seen = tiny.Gradients()
    args = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    run = tiny_tasks.trainer(
        folder, name, data, callbacks=[seen], args={**args, **parts.pop("args", {})}, **parts
    )  # fmt: skip
    run.train()
    return {k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first


def assert_same(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    assert tiny.relative(one[1], other[1]) < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_8_x_1_equals_2_x_4(tmp_path, name):
    data = CASES[name].rows()  # of different lengths, and the third row has no label
    whole = step(tmp_path, name, data, 8, 1)
    assert max(float(g.abs().max()) for g in whole[1].values()) > 1e-3  # there is something to compare
    for size, accumulation in ((2, 4), (3, 3), (1, 8)):
        assert_same(step(tmp_path, name, data, size, accumulation), whole)


@pytest.mark.parametrize("name", CASES)
def test_terms_on_hidden_states_are_exact_too(tmp_path, name):
    data, parts = CASES[name].rows(), {"objective": {"hidden_mse": 1.0, "pooled_cosine": 1.0, "attention_mse": 1.0}}
    whole = step(tmp_path, name, data, 8, 1, **parts)
    assert_same(step(tmp_path, name, data, 2, 4, **parts), whole)


@pytest.mark.parametrize("name", LABELLED)
def test_a_step_without_any_label_is_finite_and_teaches_nothing_but_the_teacher(tmp_path, name):
    data = CASES[name].rows()
    for row in data:
        row.update(
            {
                n: [-100] * len(v) if isinstance(v, list) else -100
                for n, v in row.items()
                if n[-1] == "s" and n in ("labels", "start_positions", "end_positions")
            }
        )
    parts, gradients = step(tmp_path, name, data, 2, 4)
    assert parts["loss/hard"] == 0.0
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    taught = {"tokens": False, "masked": False, "spans": True, "choice": True}[name]
    assert (parts["loss/forward_kl"] > 0) == taught


@pytest.mark.parametrize("name", LABELLED)
def test_without_labels_the_teacher_alone_teaches(tmp_path, name):
    case, alone = CASES[name], {"args": {"alpha": 1.0}}
    collate = case.collate()

    def unlabelled(rows):
        return {k: v for k, v in collate(rows).items() if k not in case.task.label_names}

    parts = {"data_collator": unlabelled}
    whole = step(tmp_path, name, case.rows(), 8, 1, **alone, **parts)
    assert whole[0]["loss/forward_kl"] > 0
    assert_same(step(tmp_path, name, case.rows(), 2, 4, **alone, **parts), whole)
    with pytest.raises(ValueError, match=r"alpha=0.5 trains on labels, the batch has .*: add a '(labels|start_pos)"):
        step(tmp_path, name, case.rows(), 8, 1, **parts)


@pytest.mark.parametrize("name", LABELLED)
def test_alpha_0_is_plain_fine_tuning(tmp_path, name):
    case = CASES[name]
    data = case.rows()
    if name == "spans":  # without padding, and every sample has both positions: see the task
        data = [{"input_ids": [5 + i, 7, 9, 6], "start_positions": i % 3, "end_positions": 3} for i in range(8)]
    found = []
    for kind, parts in ((tiny.DistillationTrainer, {"teacher_model": case.teacher()}), (Trainer, {})):
        args = tiny.arguments(tmp_path, **({"alpha": 0.0} if parts else {}))
        run = tiny.trainer(
            tmp_path, case.model(), data, kind, plain_args=args, data_collator=case.collate(), **parts
        )  # fmt: skip
        run.train()
        found.append(tiny.losses(run))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_trained_evaluated_and_predicted(tmp_path, name):
    case, told = CASES[name], []

    def metrics(said):
        told.append(said)
        return {"seen": 1.0}

    parts = dict(eval_dataset=case.rows(5, 9), compute_metrics=metrics)
    run = tiny_tasks.trainer(tmp_path, name, args={"max_steps": 6, "learning_rate": 3e-3}, **parts)
    before, _ = run.evaluate(), run.train()
    after = run.evaluate()
    assert tiny.losses(run)[-1] < tiny.losses(run)[0]
    assert after["eval_seen"] == 1.0
    assert after["eval_loss"] != before["eval_loss"]
    soft = run.task.default_objective
    alpha = 0.5 if name in LABELLED else 1.0
    hard = after.get("eval_loss/hard", 0.0)
    assert after["eval_loss"] == pytest.approx((1 - alpha) * hard + alpha * after[f"eval_loss/{soft}"], rel=1e-5)
    said = run.predict(case.rows(5, 9))
    alone = tiny.trainer(
        tmp_path, run.model, kind=Trainer, args=None, plain_args=tiny.arguments(tmp_path), data_collator=case.collate()
    ).predict(case.rows(5, 9))
    for ours, theirs in zip(_flat(said.predictions), _flat(alone.predictions), strict=True):
        assert np.allclose(ours, theirs, atol=1e-6)
    assert len(_flat(told[-1].label_ids)) == {"spans": 2, "embedding": 0}.get(name, 1)
    assert len(_flat(said.predictions)) == {"spans": 2, "embedding": 2}.get(name, 1)


def _flat(found):
    return list(found) if isinstance(found, tuple) else [found]


@pytest.mark.parametrize("objective", [None, {"hidden_mse": 1.0}])
@pytest.mark.parametrize("name", CASES)
def test_kept_is_asked(tmp_path, name, objective, caplog):
    """Four epochs over shuffled rows under dynamic padding, with a teacher that is asked and one that remembers."""
    found = []
    for cache in ("off", "auto"):
        args = dict(teacher_cache=cache, max_steps=-1, num_train_epochs=3, per_device_train_batch_size=4)
        run = tiny_tasks.trainer(tmp_path, name, objective=objective, args=args)
        run.train()
        found.append(tiny.losses(run))
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert isinstance(run.teacher, CachedTeacher)
    off = name == "choice" and objective is not None
    assert ("hidden/0 has 16 rows where the batch has 4" in run.teacher.memory.off) == off
    assert ("are not kept" in caplog.text) == off
    if not off and name != "choice":  # whose padding stays content, so that rows come back under other widths
        assert tiny.losses(run, "teacher_cache_hits")[-1] == 1.0


@pytest.mark.parametrize("name", ["tokens", "spans", "masked", "embedding"])
def test_asked_for_a_whole_window_or_before_the_first_step_is_asked(tmp_path, name):
    found = []
    for how in ({"teacher_cache": "off"}, {"teacher_whole_window": True}, {"teacher_prepass": True}):
        args = dict(max_steps=-1, num_train_epochs=2, per_device_train_batch_size=2, gradient_accumulation_steps=2)
        run = tiny_tasks.trainer(tmp_path, name, objective={"hidden_mse": 1.0}, args={**args, **how})
        run.train()
        found.append(tiny.losses(run))
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert found[2] == pytest.approx(found[0], rel=1e-5)


@pytest.mark.parametrize("name", ["tokens", "spans", "embedding"])
def test_a_folder_of_answers_teaches_without_the_teacher(tmp_path, name):
    found = []
    for teacher in (CASES[name].teacher(), str(tmp_path / "answers")):
        args = {"teacher_cache": str(tmp_path / "answers")} if not found else {}
        run = tiny_tasks.trainer(tmp_path, name, teacher_model=teacher, args=args)
        run.train()
        found.append(tiny.losses(run))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_answers_in_narrow_values_do_not_give_padding_a_share(tmp_path):
    for values in ("int8", "bfloat16", "float16"):
        teacher = CachedTeacher(LiveTeacher(CASES["spans"].teacher()), always=True, encoding=Encoding(values))
        run = tiny_tasks.trainer(tmp_path, "spans", teacher_model=teacher)
        batch = CASES["spans"].batch()
        shown = [teacher(batch, frozenset({"heads"})) for _ in range(2)][1]
        probabilities = torch.stack([shown.heads[head].logits.chunk(0, 6).softmax(-1) for head in ("start", "end")])
        assert run.task is not None
        assert (probabilities[:, batch["attention_mask"] == 0] == 0).all()
        asked = teacher.teacher(batch, frozenset({"heads"})).heads["start"].logits.tensor.softmax(-1)
        assert torch.allclose(probabilities[0], asked, atol=2e-2)
