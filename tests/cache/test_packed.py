"""Packed rows: each text in them is kept by itself, and found among whatever neighbours."""

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import tiny
import tiny_language
import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch import nn
from transformers import DataCollatorForSeq2Seq, DataCollatorWithFlattening

from hf_distill import CachedTeacher, CausalLM, LiveTeacher, SentenceEmbedding, SequenceClassification
from hf_distill.cache.encoding import Encoding
from hf_distill.cache.keys import Padding
from hf_distill.cache.prefill import fill

HEADS = frozenset({"heads"})
FLAT, PADDED = DataCollatorWithFlattening(), DataCollatorForSeq2Seq(tiny_language.tokenizer())
TAP = {"path": "model.layers.0.mlp", "teacher_path": "model.layers.1.mlp", "widths": [16, 24]}
ALL = {"forward_kl": 1.0, "hidden_mse": 1.0, "pooled_mse": 1.0, "tap_mse": TAP}


def counted(model=None):
    """A teacher, and how many tokens each of its forwards had."""
    model, tokens = model or tiny_language.teacher(), []
    model.register_forward_pre_hook(lambda _, args, given: tokens.append(given["input_ids"].numel()), with_kwargs=True)
    return model, tokens


class Around(nn.Module):
    """A teacher that somebody changes."""

    def __init__(self):
        super().__init__()
        self.inner = tiny_language.teacher()
        self.config = self.inner.config


class Looking(Around):
    """It looks at whatever is in its row."""

    def forward(self, input_ids, attention_mask=None, position_ids=None):
        return self.inner(input_ids, attention_mask)


def run_of(folder, cache="auto", teacher=None, data=None, collator=FLAT, objective=None, callbacks=None, **args):
    settings = {"max_steps": -1, "num_train_epochs": 3, "per_device_train_batch_size": 4, "teacher_cache": cache}
    return tiny.trainer(
        folder, tiny_language.llama(), data or tiny_language.texts(16), data_collator=collator, objective=objective,
        teacher_model=teacher or tiny_language.teacher(), args={**settings, **args}, callbacks=callbacks,
    )  # fmt: skip


def trained(folder, *args, **parts):
    run = run_of(folder, *args, **parts)
    run.train()
    return run, tiny.losses(run)


def weights(run):
    return {name: value.detach().clone() for name, value in run.model.named_parameters()}


def cached(teacher=None, **args):
    made = CachedTeacher(LiveTeacher(teacher or tiny_language.teacher(), CausalLM()), always=True, **args)
    made.memory.meet({"teacher": "tiny", "precision": "float32"}, positions=True)
    return made


def answers(teacher, batch, needs=HEADS):
    shown = teacher(batch, needs)
    return [shown.heads["logits"].logits.tensor, *shown.hidden]


@pytest.mark.parametrize("objective", [None, ALL])
def test_kept_answers_teach_what_a_teacher_teaches_that_is_asked(tmp_path, objective):
    """In the next epoch each text has other neighbours."""
    plain, expected = trained(tmp_path / "a", "off", objective=objective)
    kept, found = trained(tmp_path / "b", objective=objective)
    assert found == pytest.approx(expected, rel=1e-5)
    assert found[:4] == expected[:4]  # what is new is asked as it came
    assert tiny.relative(weights(kept), weights(plain)) < 1e-5
    assert tiny.losses(kept, "teacher_cache_hits") == [0.0] * 4 + [1.0] * 8
    assert len(kept.teacher.memory) == 16


def test_the_same_packing_is_the_same_answer_bit_for_bit():
    teacher, batch = cached(), dict(FLAT(tiny_language.texts(5)))
    needs = HEADS | {"hidden"}
    first, again = answers(teacher, batch, needs), answers(teacher, batch, needs)
    live = answers(teacher.teacher, batch, needs)
    assert len(live) == 4
    assert all(
        torch.equal(one, two) and torch.equal(one, three) for one, two, three in zip(first, again, live, strict=True)
    )


def test_only_texts_that_are_not_known_are_asked():
    rows, (model, tokens) = tiny_language.texts(8), counted()
    teacher = cached(model)
    answers(teacher, dict(FLAT(rows[:4])))
    tokens.clear()
    batch = dict(FLAT([rows[6], rows[2], rows[5], rows[0]]))
    found = answers(teacher, batch)[0]
    assert tokens == [len(rows[6]["input_ids"]) + len(rows[5]["input_ids"])]
    assert torch.allclose(found, answers(teacher.teacher, batch)[0], atol=1e-5)
    assert len(teacher.memory) == 6


def test_of_several_packed_rows_those_are_asked_that_hold_a_text_which_is_not_known():
    def packed(*texts):
        places = [[place for one in some for place in range(len(one))] for some in texts]
        return {"input_ids": torch.tensor([[*chain(*some)] for some in texts]), "position_ids": torch.tensor(places)}

    (a, b, c, d, e), (model, tokens) = torch.randint(7, 31, (5, 6)).tolist(), counted()
    teacher = cached(model)
    answers(teacher, packed([a, b], [c, d]))
    assert len(teacher.memory) == 4
    tokens.clear()
    batch = packed([b, c], [d, e], [a, a])
    found = answers(teacher, batch)[0]
    assert tokens == [12]
    assert torch.allclose(found, answers(teacher.teacher, batch)[0], atol=1e-5)
    assert len(teacher.memory) == 5


def test_what_fills_up_a_row_is_no_text():
    teacher = cached()
    ids = torch.randint(7, 31, (2, 8))
    batch = {"input_ids": ids, "position_ids": torch.tensor([[0, 1, 2, 0, 1, 0, 0, 0], [0, 1, 2, 3, 0, 1, 2, 3]])}
    answers(teacher, batch)
    assert len(teacher.memory) == 4
    found, live = answers(teacher, batch)[0], answers(teacher.teacher, batch)[0]
    assert torch.equal(found[0, :5], live[0, :5])
    assert torch.equal(found[1], live[1])


@pytest.mark.parametrize("first", ["packed", "alone"])
def test_a_text_has_one_key_packed_and_alone(first):
    rows, (model, tokens) = tiny_language.texts(6), counted()
    made = {"packed": dict(FLAT(rows)), "alone": dict(PADDED(rows))}
    teacher = cached(model)
    answers(teacher, made.pop(first))
    (other,) = made.values()
    teacher.check(other, HEADS)
    tokens.clear()
    found = answers(teacher, other)[0]
    assert not tokens
    assert len(teacher.memory) == 6
    real = CausalLM().mask(other)
    assert torch.allclose(found[real], answers(teacher.teacher, other)[0][real], atol=1e-5)


def test_texts_of_a_task_without_logits_are_kept():
    teacher = CachedTeacher(LiveTeacher(tiny_language.teacher().model, SentenceEmbedding()), always=True)
    rows, needs = [{"input_ids": row["input_ids"]} for row in tiny_language.texts(5)], frozenset({"hidden"})
    (batch, other), found = (dict(FLAT(some)) for some in (rows[:4], rows[::-1])), []
    for given in (batch, other):
        given.pop("labels")
        found.append(teacher(given, needs).hidden[-1])
    assert len(teacher.memory) == 5
    assert torch.allclose(found[1], teacher.teacher(other, needs).hidden[-1], atol=1e-5)


@pytest.mark.parametrize("column", ["position_ids", "seq_idx", "cu_seq_lens_q"])
def test_a_text_is_the_same_however_the_batch_says_where_it_begins(column):
    flat = DataCollatorWithFlattening(return_flash_attn_kwargs=True, return_seq_idx=True)
    batch, teacher = dict(flat(tiny_language.texts(4))), cached()
    expected = teacher.keys(batch)
    given = {"input_ids": batch["input_ids"], column: batch[column]}
    assert len(set(expected)) == 4
    assert teacher.keys(given) == expected
    assert teacher.keys(dict(PADDED(tiny_language.texts(4)[:1]))) == expected[:1]
    cut = teacher.rows(batch).cut([2, 0])
    assert cut.keys(teacher.memory.padding) == [expected[2], expected[0]]
    lengths = [len(row["input_ids"]) for row in tiny_language.texts(4)]
    assert cut.batch["cu_seq_lens_q"].tolist() == [0, lengths[2], lengths[2] + lengths[0]]
    assert cut.batch["cu_seq_lens_k"].dtype == torch.int32
    assert cut.batch["max_length_q"] == max(lengths[2], lengths[0])
    assert cut.batch["seq_idx"].tolist() == [[0] * lengths[2] + [1] * lengths[0]]


def test_texts_that_begin_elsewhere_are_kept_with_their_places():
    """RoBERTa's begin at 2, and without places it would count as they say; others are other texts."""
    rows, teacher = tiny_language.texts(3), cached()
    two, nine = (dict(DataCollatorWithFlattening(position_ids_start=start)(rows)) for start in (2, 9))
    assert len({*teacher.keys(two), *teacher.keys(nine), *teacher.keys(dict(FLAT(rows)))}) == 9


@pytest.mark.parametrize("alone_first", [False, True])
def test_a_teacher_that_looks_at_the_neighbours_is_asked_each_time(caplog, alone_first):
    rows, teacher = tiny_language.texts(4), cached(Looking())
    if alone_first:  # texts may come one at a time for a while
        answers(teacher, dict(FLAT(rows[:1])))
        assert not teacher.memory.off
        assert len(teacher.memory) == 1
    batch = dict(FLAT(rows))
    with caplog.at_level(logging.WARNING):
        found = answers(teacher, batch)[0]
    assert (
        "are not kept: it answers a text otherwise alone than among those that are packed into its row" in caplog.text
    )
    assert len(teacher.memory) == 0
    assert torch.equal(found, answers(teacher.teacher, batch)[0])


def test_a_folder_of_texts_alone_does_not_hide_that_a_teacher_looks_at_neighbours(tmp_path):
    rows, teacher = tiny_language.texts(4), cached(Looking(), folder=tmp_path)
    answers(teacher, dict(PADDED(rows)))
    teacher.memory.flush()
    again, batch = cached(Looking(), folder=tmp_path), dict(FLAT(rows))
    assert len(again.memory) == 4
    assert torch.equal(answers(again, batch)[0], answers(again.teacher, batch)[0])
    assert again.memory.off


@pytest.mark.parametrize("probed", [False, True])
def test_a_teacher_that_reads_no_text_without_places_is_asked_each_time(caplog, probed):
    class Placed(Around):
        def forward(self, input_ids, position_ids):
            return self.inner(input_ids, None, position_ids, use_cache=False)

    teacher, batch = cached(Placed()), dict(FLAT(tiny_language.texts(4)))
    if probed:  # as where a folder says what it saw
        teacher.memory.learn(Padding(), ["input_ids"])
    with caplog.at_level(logging.WARNING):
        answers(teacher, batch)
    assert "it cannot read a text alone that is packed into a row (TypeError)" in caplog.text


@pytest.mark.parametrize(
    ("task", "more"),
    [
        (SequenceClassification(num_labels=32), {}),  # one class for all that is in a row
        (CausalLM(), {"attention_mask": torch.ones(1, 6, dtype=torch.int64)}),  # then nobody looks at places
        (CausalLM(), {"pixel_values": torch.ones(1, 3, 4, 4)}),  # whose image is it?
    ],
)
def test_what_cannot_be_told_apart_is_asked_each_time(task, more):
    batch = {"input_ids": torch.arange(7, 13)[None], "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2]]), **more}
    teacher = cached()
    teacher.task = task
    teacher.inputs = lambda given: {name: value for name, value in given.items() if isinstance(value, torch.Tensor)}
    assert not teacher.rows(batch).packed
    assert not teacher.check(batch, HEADS)
    assert teacher.memory.off == "several texts are packed into one row, whose company changes with every shuffle"


def test_what_is_shown_of_a_whole_row_is_not_kept():
    class Whole(LiveTeacher):
        def __call__(self, batch, needs):
            return replace(super().__call__(batch, needs), vectors={"text": torch.ones(len(batch["input_ids"]), 4)})

    teacher = CachedTeacher(Whole(tiny_language.teacher(), CausalLM()), always=True)
    answers(teacher, dict(FLAT(tiny_language.texts(3))))
    assert teacher.memory.off == "vectors/text has no entry for each position of a row into which texts are packed"


def test_a_text_that_is_not_finite_is_not_kept():
    class Broken(Around):
        def forward(self, input_ids, attention_mask=None, position_ids=None):
            shown = self.inner(input_ids, attention_mask, position_ids, use_cache=False)
            shown.logits[input_ids == 30] = float("nan")
            return shown

    rows = [{"input_ids": ids} for ids in ([8, 9, 10], [8, 30, 10], [11, 12])]
    teacher = cached(Broken())
    answers(teacher, dict(FLAT(rows[::2])))
    answers(teacher, dict(FLAT([rows[1], {"input_ids": [13, 14]}])))
    assert len(teacher.memory) == 3


@pytest.mark.parametrize("encoding", [Encoding("int8"), Encoding(top=4, tail=4, temperature=1.0)])
def test_fewer_bits_are_those_of_the_text_alone(encoding):
    rows, losses = tiny_language.texts(5), []
    for collator in (FLAT, PADDED):
        teacher, batch = cached(encoding=encoding), dict(collator(rows))
        head = [teacher(batch, HEADS).heads["logits"] for _ in range(2)][-1]
        logits = head.logits.select(head.rows)
        losses.append(logits.tensor if encoding.values else torch.cat((logits.log_p, logits.tail_ids), -1))
    assert torch.allclose(*losses, atol=0.05 if encoding.values else 1e-4)


def test_micro_batches_are_one_batch(tmp_path):
    whole, cut = (
        trained(tmp_path / str(size), per_device_train_batch_size=size, gradient_accumulation_steps=8 // size)
        for size in (8, 2)
    )
    assert cut[1] == pytest.approx(whole[1], rel=1e-5)
    assert tiny.relative(weights(cut[0]), weights(whole[0])) < 1e-5
    assert tiny.losses(cut[0], "teacher_cache_hits") == [0.0] * 2 + [1.0] * 4


def test_a_resumed_run_has_the_answers_of_the_interrupted_one(tmp_path):
    whole, expected = trained(tmp_path / "a", save_strategy="steps", save_steps=6)
    model, tokens = counted()
    resumed = run_of(tmp_path / "b", teacher=model)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-6"))
    assert tiny.losses(resumed)[-6:] == expected[-6:]
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(resumed).items())
    assert len(tokens) == 2  # once to see that texts are the same alone


@pytest.mark.parametrize("how", ["teacher_prepass", "teacher_whole_window"])
def test_all_rows_beforehand_or_a_step_at_once(tmp_path, how):
    expected = trained(tmp_path / "a", "off", gradient_accumulation_steps=2)[1]
    run, found = trained(tmp_path / "b", **{how: True}, gradient_accumulation_steps=2)
    assert found == pytest.approx(expected, rel=1e-5)
    hits = tiny.losses(run, "teacher_cache_hits")
    assert hits == [1.0] * 6 if how == "teacher_prepass" else [0.0] * 2 + [1.0] * 4


@pytest.mark.parametrize(("filled", "read"), [(PADDED, FLAT), (FLAT, PADDED)])
def test_a_folder_serves_packed_and_unpacked_rows_without_the_teacher(tmp_path, filled, read):
    expected = trained(tmp_path / "a", "off", collator=read)[1]
    trained(tmp_path / "b", str(tmp_path / "answers"), collator=filled, num_train_epochs=1)
    run, found = trained(tmp_path / "c", teacher=CachedTeacher(folder=tmp_path / "answers"), collator=read)
    assert found == pytest.approx(expected, rel=1e-5)
    assert set(tiny.losses(run, "teacher_cache_hits")) == {1.0}


@pytest.mark.parametrize("ranks", [1, 2])
def test_rows_of_several_texts_are_asked_for_beforehand(tmp_path, ranks):
    """As TRL packs them: how many texts a row has differs from row to row."""
    texts = [row["input_ids"] for row in tiny_language.texts(12)]
    some = [texts[0:1], texts[1:4], texts[4:6], texts[6:11], texts[11:12], texts[2:5]]
    rows = [{"input_ids": [*chain(*one)], "seq_lengths": list(map(len, one))} for one in some]

    def collator(rows):
        made = [{"input_ids": torch.tensor(row["input_ids"]).split(row["seq_lengths"])} for row in rows]
        return dict(FLAT([{"input_ids": one.tolist()} for row in made for one in row["input_ids"]]))

    asked = []
    for rank in range(ranks):
        teacher = cached(folder=tmp_path)
        teacher.memory.store.rank = rank
        asked.append(fill(teacher, rows, collator, tokens=30, rank=rank, ranks=ranks))
    last = cached(folder=tmp_path)
    assert len(last.memory) == 12
    assert fill(last, rows, collator, tokens=30) == 0
    assert sum(asked) <= 6


@pytest.mark.slow
def test_two_ranks_are_one_and_find_what_the_other_was_answered(tmp_path):
    script = Path(__file__).with_name("packed_ranks.py")
    found = subprocess.run(
        [*f"{sys.executable} -m torch.distributed.run --nproc_per_node 2 --standalone".split(), script, tmp_path],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-4000:]
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [one["world_size"] for one in told] == [2, 2]
    whole, expected = trained(tmp_path / "alone", "off", per_device_train_batch_size=8)
    for rank, one in enumerate(told):
        assert one["losses"] == pytest.approx(expected, rel=1e-5)
        assert one["hits"] == [0.0] * 2 + [1.0] * 4
        assert one["kept"] == 16
        assert tiny.relative(load_file(tmp_path / f"{rank}.safetensors"), weights(whole)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.filterwarnings("ignore:.*(padding-free|padding_free|[Pp]acking|attn_implementation|flash).*")
def test_rows_that_trl_packs_are_kept_text_by_text(tmp_path, size):
    pytest.importorskip("trl", reason='needs pip install -e ".[trl]"')
    from hf_distill.integrations.trl import SFTDistillationConfig, SFTDistillationTrainer

    found = []
    for cache in ("off", "auto"):
        args = tiny.arguments(
            tmp_path / cache, SFTDistillationConfig, bf16=False, packing=True, max_length=48, num_train_epochs=3,
            max_steps=-1, per_device_train_batch_size=size, teacher_cache=cache,
        )  # fmt: skip
        run = SFTDistillationTrainer(
            tiny_language.llama(), args, train_dataset=Dataset.from_list(tiny_language.chats(12)),
            processing_class=tiny_language.tokenizer(), teacher_model=tiny_language.teacher(), objective=ALL,
        )  # fmt: skip
        run.train()
        found.append(tiny.losses(run))
    rows = len(run.train_dataset)
    assert rows < 12
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert len(run.teacher.memory) == 12
    steps = -(-rows // size)
    assert tiny.losses(run, "teacher_cache_hits") == [0.0] * steps + [1.0] * 2 * steps
