"""Drafting: every pass of a draft is a row more, compared with what the teacher says at its position."""

import pytest
import tiny
import tiny_drafts
import tiny_language
import torch
from torch.nn import functional as F
from transformers import DataCollatorForSeq2Seq, DataCollatorWithFlattening

from hf_distill import CausalLM, Drafting, Task


def trainer(folder, head=None, teacher=None, data=None, **parts):
    teacher = teacher or tiny_drafts.teacher()
    given = {"data_collator": DataCollatorForSeq2Seq(tiny_language.tokenizer()), "teacher_model": teacher, **parts}
    given["args"] = {"temperature": 1.0, **given.get("args", {})}
    return tiny.trainer(folder, head or tiny_drafts.draft(teacher), data or tiny_language.texts(), **given)


def whole(rows):
    """Rows in which every token is a target."""
    return [{**row, "labels": row["input_ids"]} for row in rows]


def by_hand(head, teacher, rows, loss):
    """Each row by itself, each pass by itself: totals, and how many tokens were predicted."""
    total, count = 0.0, 0
    for row in rows:
        ids, labels = (torch.tensor([row[name]]) for name in ("input_ids", "labels"))
        with torch.no_grad():
            taught = teacher(ids).logits
            shown = head.eval()(ids, *tiny_drafts.states(teacher, head, ids))
        for number, logits in enumerate((shown.logits, *(shown.further_logits or ()))):
            for place in range(1 + number, ids.shape[1] - 1):
                if labels[0, place + 1] >= 0:
                    total, count = total + loss(logits[0, place], taught[0, place], labels[0, place + 1]), count + 1
    return float(total) / count, count


def kl(logits, taught, label):
    return F.kl_div(logits.log_softmax(-1), taught.log_softmax(-1), reduction="sum", log_target=True)


def nats(logits, taught, label):
    return F.cross_entropy(logits, label)


@pytest.mark.parametrize("unrolled", [1, 3])
def test_each_pass_is_compared_with_the_teacher_at_its_position(tmp_path, unrolled):
    teacher, rows = tiny_drafts.teacher(), tiny_language.texts()
    head = tiny_drafts.draft(teacher, unrolled)
    run = trainer(tmp_path, head, teacher, eval_dataset=rows, args={"alpha": 0.5, "per_device_eval_batch_size": 8})
    assert type(run.task) is Drafting
    assert [one.name for one in run.task.heads] == ["logits", "ahead_1", "ahead_2"][:unrolled]
    found = run.evaluate()
    wanted, count = by_hand(head, teacher, rows, kl)
    assert found["eval_loss/forward_kl"] == pytest.approx(wanted, rel=1e-4)
    assert found["eval_kl"] == pytest.approx(wanted, rel=1e-4)
    assert found["eval_loss/hard"] == pytest.approx(by_hand(head, teacher, rows, nats)[0], rel=1e-4)
    batch = run.data_collator([dict(row) for row in rows])
    assert run.task.counts(batch)["rows"] == run.task.counts(batch)["labels"] == count


def test_without_labels_every_token_counts_that_has_a_state_before_it(tmp_path):
    teacher, rows = tiny_drafts.teacher(), tiny_language.texts()
    head = tiny_drafts.draft(teacher)
    bare = [{name: value for name, value in row.items() if name != "labels"} for row in rows]
    wanted, _ = by_hand(head, teacher, whole(rows), kl)
    args = {"alpha": 1.0, "per_device_train_batch_size": 8, "max_steps": 1}
    run = trainer(tmp_path, head, teacher, bare, args=args)
    run.train()
    assert run.state.log_history[0]["loss/forward_kl"] == pytest.approx(wanted, rel=1e-4)


def step(folder, size, accumulation, alpha, objective="forward_kl"):
    seen = tiny.Gradients()
    args = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    args |= {"alpha": alpha, "objective": objective}
    run = trainer(folder, args=args, callbacks=[seen])
    run.train()
    return {name: one for name, one in run.state.log_history[0].items() if name.startswith("loss")}, seen.first


@pytest.mark.parametrize(("alpha", "objective"), [(1.0, "forward_kl"), (0.5, "forward_kl"), (0.5, "jsd")])
def test_8_x_1_equals_2_x_4(tmp_path, alpha, objective):
    one = step(tmp_path, 8, 1, alpha, objective)
    assert set(one[1]) >= {"fc.weight", "midlayer.self_attn.q_proj.weight"}
    assert not {"embed_tokens.weight", "lm_head.weight", "norm.weight"} & set(one[1])
    for size, accumulation in ((2, 4), (3, 3)):
        cut = step(tmp_path, size, accumulation, alpha, objective)
        assert cut[0] == pytest.approx(one[0], rel=1e-5)
        assert tiny.relative(cut[1], one[1]) < 1e-5


def test_kept_answers_teach_what_live_ones_do(tmp_path):
    found = {}
    for cache in ("off", "auto"):
        args = {"max_steps": -1, "num_train_epochs": 3, "teacher_cache": cache, "per_device_train_batch_size": 4}
        run = trainer(tmp_path, args={**args, "alpha": 1.0}, eval_dataset=tiny_language.texts())
        run.train()
        found[cache] = tiny.losses(run), run.evaluate()["eval_loss"], run
    assert len(found["auto"][2].teacher.memory) == 8
    assert found["auto"][0] == pytest.approx(found["off"][0], rel=1e-5)
    assert found["auto"][1] == pytest.approx(found["off"][1], rel=1e-5)


def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path):
    args = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "alpha": 1.0}
    runs = [trainer(tmp_path / name, args=args) for name in ("whole", "resumed")]
    runs[0].train()
    runs[1].train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert tiny.losses(runs[1])[-2:] == pytest.approx(tiny.losses(runs[0])[-2:], rel=1e-6)
    both = zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True)
    assert all(torch.allclose(one, two, atol=1e-7) for one, two in both)


def test_under_autocast_it_learns_what_it_does_in_float32(tmp_path):
    found = []
    for bf16 in (False, True):
        run = trainer(tmp_path, args={"alpha": 1.0, "bf16": bf16, "per_device_train_batch_size": 8, "max_steps": 4})
        run.train()
        found.append(tiny.losses(run))
    assert found[1] == pytest.approx(found[0], rel=0.05)


def test_training_brings_every_pass_nearer(tmp_path):
    teacher, rows = tiny_drafts.teacher(), tiny_language.texts(16)
    head = tiny_drafts.draft(teacher)
    run = trainer(tmp_path, head, teacher, rows, args={"alpha": 1.0, "max_steps": 60}, eval_dataset=rows)
    before = run.evaluate()["eval_kl"]
    run.train()
    assert run.evaluate()["eval_kl"] < 0.7 * before


def test_it_is_found_and_a_plain_model_is_not_taken_for_it():
    assert type(Task.of(tiny_drafts.draft())) is Drafting
    assert Task.of(tiny_drafts.draft(unrolled=2)).passes == 2
    assert type(Task.of(tiny_drafts.teacher())) is CausalLM


def test_what_cannot_be_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"DraftHead reads hidden\[1\].* of its teacher, but there is none: pass"):
        trainer(tmp_path, tiny_drafts.draft(), teacher_model=None)
    deeper = tiny_drafts.draft(tiny_drafts.teacher(layers=8))
    with pytest.raises(ValueError, match=r"read hidden\[4\], .* shows 4 of them: name one from 0 to 3"):
        trainer(tmp_path, deeper, tiny_drafts.teacher(layers=3))
    with pytest.raises(ValueError, match="has states of width 24, the draft head reads those of width 16: make it"):
        trainer(tmp_path, tiny_drafts.draft(), tiny_drafts.teacher(width=24))
    with pytest.raises(ValueError, match="smooths the labels of one head, Drafting has 3: leave it out"):
        trainer(tmp_path, args={"alpha": 0.5, "label_smoothing_factor": 0.1})
    packed = trainer(tmp_path, data_collator=DataCollatorWithFlattening())
    with pytest.raises(ValueError, match="the batch has position_ids, as packed rows do, and a draft head reads one"):
        packed.train()
