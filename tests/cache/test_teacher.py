import json
import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import tiny_language
import torch
from datasets import Dataset
from torch import nn
from transformers import DataCollatorForSeq2Seq, DataCollatorWithPadding, TrainerCallback

from hf_distill import CachedTeacher, FunctionTeacher, LiveTeacher
from hf_distill.cache.encoding import Encoding
from hf_distill.cache.store import Store

FIXED = DataCollatorWithPadding(tiny.tokenizer(), padding="max_length", max_length=12)
HEADS = frozenset({"heads"})


class Counted(nn.Module):
    """A model that counts the rows that it is asked for."""

    def __init__(self, inner=None):
        super().__init__()
        self.inner, self.rows = inner if inner is not None else tiny.teacher(), []
        self.config = self.inner.config

    def forward(self, input_ids, attention_mask=None, **kwargs):
        self.rows.append(len(input_ids))
        return self.inner(input_ids=input_ids, attention_mask=attention_mask, **kwargs)


def trained(folder, cache, teacher=None, data=None, **args):
    """Train for four epochs over 16 shuffled rows, and return the run and its losses."""
    parts = {"data_collator": args.pop("collator", FIXED), "eval_dataset": args.pop("eval_dataset", None)}
    objective = args.pop("objective", None)
    settings = {"teacher_cache": cache, "max_steps": -1, "num_train_epochs": 4, "per_device_train_batch_size": 4}
    run = tiny.trainer(
        folder, data=data or tiny.rows(16), teacher_model=teacher or tiny.teacher(), objective=objective,
        args={**settings, **args}, **parts,
    )  # fmt: skip
    run.train()
    return run, tiny.losses(run)


def weights(run):
    return {name: value.detach().clone() for name, value in run.model.named_parameters()}


@pytest.mark.parametrize("objective", [None, {"hidden_mse": 1.0, "forward_kl": 1.0}])
def test_training_with_it_is_training_without_it_bit_for_bit(tmp_path, objective):
    plain, expected = trained(tmp_path / "a", "off", objective=objective)
    kept, found = trained(tmp_path / "b", "auto", objective=objective)
    assert isinstance(plain.teacher, LiveTeacher)
    assert found == expected
    assert all(torch.equal(value, weights(plain)[name]) for name, value in weights(kept).items())


def test_under_another_padding_and_with_partial_batches_it_is_one_rounding_away(tmp_path):
    data = [*tiny.rows(15), *tiny.rows(3)]  # three rows occur twice
    dynamic = DataCollatorWithPadding(tiny.tokenizer())
    expected = trained(tmp_path / "a", "off", data=data, collator=dynamic)[1]
    found = trained(tmp_path / "b", "auto", data=data, collator=dynamic)[1]
    assert torch.allclose(torch.tensor(found), torch.tensor(expected), rtol=1e-5)
    assert found != [0.0] * len(found)


def test_every_row_is_asked_once(tmp_path):
    teacher = Counted()
    run, _ = trained(tmp_path, "auto", teacher, data=[*tiny.rows(15), tiny.rows(15)[0]])
    probes, asked = 4 + 1 + 1 + 1 + 1, 15  # the first batch, one of its rows alone, and three shortened ones
    assert sum(teacher.rows) == probes + asked
    hits = tiny.losses(run, "teacher_cache_hits")
    assert hits[-12:] == [1.0] * 12
    assert sum(hits[:4]) == 1 / 4  # the row that occurs twice


def test_a_run_that_sees_each_row_once_keeps_nothing(tmp_path):
    teacher = Counted()
    run, _ = trained(tmp_path, "auto", teacher, num_train_epochs=1)
    assert teacher.rows == [4] * 4
    assert len(run.teacher.memory) == 0
    assert tiny.losses(run, "teacher_cache_hits") == []


def test_evaluations_are_kept_too(tmp_path):
    teacher, asked = Counted(), []
    run, _ = trained(tmp_path, "auto", teacher, eval_strategy="epoch", eval_dataset=tiny.rows(8, seed=5))
    evaluated = tiny.losses(run, "eval_loss/forward_kl")
    assert len(evaluated) == 4
    assert sum(teacher.rows) == 8 + 16 + 8
    asked[:] = teacher.rows
    assert run.evaluate()["eval_loss/forward_kl"] == pytest.approx(evaluated[-1], rel=1e-6)
    assert teacher.rows == asked


def test_random_augmentation_misses_and_is_then_no_longer_kept(tmp_path, caplog):
    class Noisy:
        def __init__(self):
            self.generator = torch.Generator().manual_seed(0)

        def __call__(self, rows):
            batch = FIXED(rows)
            noise = torch.randint(5, 29, batch["input_ids"].shape, generator=self.generator)
            batch["input_ids"] = torch.where(batch["attention_mask"].bool(), noise, 0)
            return batch

    with caplog.at_level(logging.WARNING):
        run, _ = trained(tmp_path, "auto", collator=Noisy())
    assert run.teacher.watch.stopped
    assert len(run.teacher.memory) == 0
    assert "None of the first 16 rows of an epoch were seen before" in caplog.text
    assert tiny.losses(run, "teacher_cache_hits") == [0.0] * 8  # two epochs, then nobody counts


def test_a_row_whose_answer_depends_on_its_company_or_on_chance_is_asked_each_time(tmp_path, caplog):
    class Together(nn.Module):
        def __init__(self, chance):
            super().__init__()
            self.inner, self.chance = tiny.teacher(), chance

        def forward(self, input_ids, attention_mask=None):
            logits = self.inner(input_ids, attention_mask).logits
            return logits + torch.randn_like(logits) if self.chance else logits - logits.mean(0)

    for chance in (False, True):
        with caplog.at_level(logging.WARNING):
            run, found = trained(tmp_path, "auto", Together(chance))
        assert "it answers a row otherwise alone than among others, or each time anew" in caplog.text
        assert run.teacher.memory.off
        if not chance:
            assert found == trained(tmp_path, "off", Together(chance))[1]
        caplog.clear()


def test_texts_that_are_packed_into_one_row_later_on_end_it(tmp_path, caplog):
    run = tiny.trainer(tmp_path, teacher_model=CachedTeacher(LiveTeacher(tiny.teacher()), always=True))
    ids, ones = torch.arange(5, 13)[None], torch.ones(1, 8, dtype=torch.int64)
    alone = {"input_ids": ids, "attention_mask": ones, "position_ids": torch.arange(8)[None]}
    packed = {**alone, "position_ids": torch.arange(8)[None] % 4}
    expected = run.teacher.teacher(packed, HEADS).heads["logits"].logits.tensor
    run.teacher(alone, HEADS)
    assert len(run.teacher.memory) == 1
    with caplog.at_level(logging.WARNING):
        found = run.teacher(packed, HEADS).heads["logits"].logits.tensor
    assert torch.equal(found, expected)
    assert "are not kept: several texts are packed into one row, whose company changes" in caplog.text


class Absolute(nn.Module):
    """A teacher that counts every column, padded or not."""

    def __init__(self):
        super().__init__()
        self.inner = tiny.teacher()

    def forward(self, input_ids, attention_mask=None):
        return self.inner(input_ids, attention_mask).logits + 0.1 * input_ids.shape[1]


def test_a_teacher_that_sees_padding_is_kept_with_its_padding(tmp_path):
    for collator in (FIXED, DataCollatorWithPadding(tiny.tokenizer())):
        kept, found = trained(tmp_path / "a", "auto", Absolute(), collator=collator)
        assert not any(kept.teacher.memory.padding)
        assert torch.allclose(torch.tensor(found), torch.tensor(trained(tmp_path / "b", "off", Absolute())[1])) or (
            collator is not FIXED
        )
        expected = trained(tmp_path / "c", "off", Absolute(), collator=collator)[1]
        assert torch.allclose(torch.tensor(found), torch.tensor(expected), rtol=1e-5)


def test_position_embeddings_see_padding_on_the_left_only(tmp_path):
    kept, _ = trained(tmp_path, "auto")
    assert kept.teacher.memory.padding == (True, False)


@pytest.mark.parametrize("kind", [tiny_language.llama, tiny_language.t5])
@pytest.mark.parametrize("objective", ["forward_kl", "hidden_mse"])
def test_language_models(tmp_path, kind, objective):
    tokenizer = tiny_language.tokenizer()
    tokenizer.padding_side = "left" if kind is tiny_language.llama else "right"
    runs = {}
    for cache in ("off", "auto"):
        run = runs[cache] = tiny.trainer(
            tmp_path / cache, kind(), tiny_language.pairs(8) if kind is tiny_language.t5 else same_lengths(),
            data_collator=DataCollatorForSeq2Seq(tokenizer), teacher_model=tiny_language.teacher(kind),
            objective=objective,
            args={"teacher_cache": cache, "max_steps": 8, "per_device_train_batch_size": 3},
        )  # fmt: skip
        run.train()
    found, expected = (torch.tensor(tiny.losses(runs[cache])) for cache in ("auto", "off"))
    assert torch.allclose(found, expected, rtol=1e-5)
    assert tiny.losses(runs["auto"], "teacher_cache_hits")[3:] == [1.0] * 5
    assert runs["auto"].teacher.memory.padding == (True, True)


def same_lengths():
    """Rows of different lengths whose labels are as long as their tokens."""
    return [{**row, "labels": [-100, *row["input_ids"][1:]]} for row in tiny_language.pairs(8)]


def test_a_folder_teaches_the_next_run_without_the_teacher(tmp_path):
    teacher = Counted()
    first, expected = trained(tmp_path / "a", str(tmp_path / "answers"), teacher)
    asked = list(teacher.rows)
    assert sum(rows == 1 for rows in asked) == 4  # the probe's
    again, found = trained(tmp_path / "b", str(tmp_path / "answers"), teacher)
    assert found == expected
    assert teacher.rows == asked
    alone, found = trained(tmp_path / "c", "auto", CachedTeacher(folder=tmp_path / "answers"))
    assert found == expected
    assert alone.teacher.facts == first.teacher.facts
    assert tiny.losses(again, "teacher_cache_hits") == [1.0] * 16
    by_path = trained(tmp_path / "d", "auto", str(tmp_path / "answers"))[1]
    assert by_path == expected


def test_without_a_teacher_a_row_that_is_not_there_is_refused(tmp_path):
    trained(tmp_path / "a", str(tmp_path / "answers"))
    with pytest.raises(ValueError, match="does not hold, and there is no teacher to ask: fill it with hf-distill"):
        trained(tmp_path / "b", "auto", CachedTeacher(folder=tmp_path / "answers"), data=tiny.rows(16, seed=9))
    with pytest.raises(ValueError, match="it holds none: fill it with hf-distill cache, or pass a teacher"):
        CachedTeacher(folder=tmp_path / "nothing")


def test_another_teachers_folder_is_refused(tmp_path):
    trained(tmp_path / "a", str(tmp_path / "answers"))
    with pytest.raises(ValueError, match=r"holds the answers of .*, but its weights are .*: use that teacher, or"):
        trained(tmp_path / "b", str(tmp_path / "answers"), tiny.bert(width=24, layers=2, seed=8))
    with pytest.raises(ValueError, match="but its precision is 'float32', this run has 'bfloat16'"):
        trained(tmp_path / "c", str(tmp_path / "answers"), tiny.teacher(), teacher_dtype="bfloat16")
    with pytest.raises(ValueError, match=r"set teacher_dtype=float32 \(--teacher_dtype float32\), or use another fol"):
        trained(tmp_path / "c", str(tmp_path / "answers"), tiny.teacher(), teacher_dtype="bfloat16")
    with pytest.raises(ValueError, match=r"the objective needs \['hidden'\], the teacher .* serves \['heads'\]"):
        trained(tmp_path / "d", str(tmp_path / "answers"), objective="hidden_mse")
    with pytest.raises(ValueError, match=r"holds answers as Encoding.*leave the encoding out"):
        CachedTeacher(LiveTeacher(tiny.teacher()), tmp_path / "answers", encoding=Encoding("int8"))


def test_a_header_with_more_or_less_than_it_must_say(tmp_path):
    expected = trained(tmp_path / "a", str(tmp_path / "answers"))[1]
    path = tmp_path / "answers" / "teacher.json"
    header = json.loads(path.read_text())
    path.write_text(json.dumps({**header, "licence": "MIT", "facts": {**header["facts"], "experts": 8}}))
    assert trained(tmp_path / "b", "auto", str(tmp_path / "answers"))[1] == expected
    for name in ("needs", "takes", "padding", "shapes", "columns", "encoding", "teacher"):
        path.write_text(json.dumps({key: value for key, value in header.items() if key != name}))
        with pytest.raises(ValueError, match=f"teacher.json has no '{name}': delete teacher.json, of which each"):
            tiny.trainer(tmp_path / "c", teacher_model=str(tmp_path / "answers"))
    path.write_text(json.dumps({**header, "encoding": {**header["encoding"], "block": 64}}))
    with pytest.raises(ValueError, match=r"an encoding with \['block'\], which this version does not know"):
        tiny.trainer(tmp_path / "d", teacher_model=str(tmp_path / "answers"))
    path.unlink()
    assert trained(tmp_path / "e", "auto", str(tmp_path / "answers"))[1] == expected


@pytest.mark.parametrize("gb", [4.0, 5e-6])
def test_a_damaged_file_is_named_and_its_rows_are_asked_again(tmp_path, caplog, gb):
    """Its numbers are as many as they were, so that what stands behind a wrong row would be read as another row's."""
    _, expected = trained(tmp_path / "a", str(tmp_path / "answers"), Counted())
    (path,) = (tmp_path / "answers" / "data").glob("*.parquet")
    table = pq.read_table(path)
    rows = table["heads/logits"].to_pylist()
    rows[0], rows[1] = [*rows[0], rows[1][0]], rows[1][1:]
    column = pa.array(rows, pa.large_list(pa.float32()))
    pq.write_table(table.set_column(table.column_names.index("heads/logits"), "heads/logits", column), path)
    teacher = Counted()
    with caplog.at_level(logging.WARNING):
        assert trained(tmp_path / "b", str(tmp_path / "answers"), teacher, teacher_cache_gb=gb)[1] == expected
    assert f"could not be read and is left out: {path} (row 0 of its column 'heads/logits' has 4" in caplog.text
    assert sum(teacher.rows) >= 16


@pytest.mark.parametrize(
    ("filled", "asked", "told"),
    [
        (
            {},
            {"bf16": True},
            r"is 'float32', this run has 'bf16 autocast': set teacher_dtype=float32 \(--teacher_dtype",
        ),
        ({"bf16": True}, {}, "is 'bf16 autocast', this run has 'float32': set bf16=True and leave teacher_dtype out"),
        (
            {"teacher_dtype": "bfloat16"},
            {"bf16": True},
            "is 'bfloat16', .* 'bf16 autocast': set teacher_dtype=bfloat16",
        ),
    ],
)
def test_answers_of_another_precision_name_what_brings_this_run_to_theirs(tmp_path, filled, asked, told):
    folder = str(tmp_path / "answers")
    trained(tmp_path / "a", folder, **filled)
    with pytest.raises(ValueError, match=told):
        trained(tmp_path / "b", folder, **asked)
    flags = {**asked, "teacher_dtype": "float32"} if not filled else {**asked, **filled}
    hits = tiny.losses(trained(tmp_path / "c", folder, **flags)[0], "teacher_cache_hits")
    assert hits == [1.0] * 16  # and with that it is served
    assert tiny.losses(trained(tmp_path / "d", "auto", folder, **asked)[0], "teacher_cache_hits") == [1.0] * 16


@pytest.mark.parametrize(("values", "off"), [("float16", 2e-3), ("bfloat16", 1e-2), ("int8", 1e-2)])
def test_narrow_values_change_the_loss_by_their_rounding(tmp_path, values, off):
    expected = trained(tmp_path / "a", "off")[1]
    teacher = CachedTeacher(LiveTeacher(tiny.teacher()), tmp_path / "answers", encoding=Encoding(values))
    _, found = trained(tmp_path / "b", "auto", teacher)
    assert found != expected
    assert torch.allclose(torch.tensor(found), torch.tensor(expected), rtol=off)
    assert trained(tmp_path / "c", str(tmp_path / "answers"))[1] == found


def test_few_ids_of_a_language_model_are_kept_and_frozen(tmp_path):
    encoding = Encoding(top=6, tail=4, temperature=2.0)
    parts = {"data_collator": DataCollatorForSeq2Seq(tiny_language.tokenizer()), "data": same_lengths()}
    args = {"max_steps": 8, "per_device_train_batch_size": 3, "alpha": 1.0, "learning_rate": 1e-9}

    def losses(folder, teacher, **more):
        run = tiny.trainer(
            folder,
            tiny_language.llama(),
            teacher_model=teacher,
            args={**args, **more.pop("args", {})},
            **parts,
            **more,
        )
        run.train()
        return tiny.losses(run)

    model = tiny_language.teacher()
    exact = losses(tmp_path / "a", model)
    kept = CachedTeacher(LiveTeacher(model), tmp_path / "answers", encoding=encoding)
    first = losses(tmp_path / "b", kept)
    assert losses(tmp_path / "c", str(tmp_path / "answers")) == first
    again = CachedTeacher(LiveTeacher(model), tmp_path / "again", encoding=encoding)
    assert losses(tmp_path / "d", again) == first  # what is drawn for a row depends on the row alone
    assert abs(sum(first) - sum(exact)) < 0.2 * sum(exact)
    assert first != exact
    with pytest.raises(ValueError, match=r"asked for temperature 3, the teacher's few ids were kept at 2"):
        losses(tmp_path / "e", str(tmp_path / "answers"), args={"temperature": 3.0})
    with pytest.raises(ValueError, match="compares whole logits, of which the teacher keeps a few ids"):
        losses(tmp_path / "f", str(tmp_path / "answers"), objective="logit_mse")


def test_a_full_memory_keeps_what_it_has(tmp_path, caplog):
    teacher = Counted()
    with caplog.at_level(logging.WARNING):
        run, found = trained(tmp_path / "a", "auto", teacher, teacher_cache_gb=2e-6)
    assert "The teacher cache is full (8 rows, 0.0 GB)" in caplog.text
    assert len(run.teacher.memory) == 10
    assert 8 + 16 + 3 * 6 <= sum(teacher.rows) < 8 + 4 * 16
    assert torch.allclose(torch.tensor(found), torch.tensor(trained(tmp_path / "b", "off")[1]), rtol=1e-5)


def test_answers_of_which_next_to_none_would_fit_are_not_kept(tmp_path, caplog):
    teacher = Counted()
    with caplog.at_level(logging.WARNING):
        run, _ = trained(tmp_path, "auto", teacher, teacher_cache_gb=2.5e-7)
    assert caplog.text.count("they are not kept; name a folder") == 1
    assert len(run.teacher.memory) == 0
    assert sum(teacher.rows) == 8 + 4 * 16


def test_with_a_folder_what_memory_cannot_take_is_read_from_there(tmp_path):
    teacher = Counted()
    _, found = trained(tmp_path / "a", str(tmp_path / "answers"), teacher, teacher_cache_gb=4e-6)
    assert sum(teacher.rows) == 8 + 16
    assert found == trained(tmp_path / "b", "off")[1]
    again, found_again = trained(tmp_path / "c", str(tmp_path / "answers"), teacher, teacher_cache_gb=3e-6)
    assert found_again == found
    assert not any(block.in_memory for _, block in again.teacher.memory.table)


@pytest.mark.parametrize("cache", ["auto", "off"])
def test_the_whole_window_at_once(tmp_path, cache):
    teacher = Counted()
    args = {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 2, "teacher_whole_window": True}
    dynamic = DataCollatorWithPadding(tiny.tokenizer())
    run, found = trained(tmp_path / "a", cache, teacher, collator=dynamic, **args)
    hits = [0.0, 0.0, *[1.0 if cache == "auto" else 0.0] * 6]
    assert tiny.losses(run, "teacher_cache_hits") == hits
    epochs = 1 if cache == "auto" else 4
    assert teacher.rows.count(8) == 2 * epochs
    assert sum(teacher.rows) == 6 + 16 * epochs
    expected = trained(tmp_path / "b", "off", collator=dynamic, gradient_accumulation_steps=2)[1]
    assert torch.allclose(torch.tensor(found), torch.tensor(expected), rtol=1e-5)


def test_a_pass_before_the_first_step(tmp_path):
    teacher = Counted()
    dynamic = DataCollatorWithPadding(tiny.tokenizer())
    data = Dataset.from_list([{**row, "note": "not for the model"} for row in tiny.rows(16)])
    run, found = trained(tmp_path / "a", "auto", teacher, data=data, collator=dynamic, teacher_prepass=True)
    assert sum(teacher.rows) == 16 + 4 + 16  # the probe runs on the first batch, which is all of them
    assert tiny.losses(run, "teacher_cache_hits") == [1.0] * 16
    expected = trained(tmp_path / "b", "off", data=data, collator=dynamic)[1]
    assert torch.allclose(torch.tensor(found), torch.tensor(expected), rtol=1e-5)
    with pytest.raises(ValueError, match="teacher_prepass=True was asked, but the training set has no length"):
        trained(tmp_path / "c", "auto", data=data.to_iterable_dataset(), teacher_prepass=True, max_steps=4)


def test_what_is_kept_is_nobody_elses(tmp_path):
    """Whoever writes into an answer, as a term in place would, must not change what is remembered."""
    cached = CachedTeacher(LiveTeacher(tiny.teacher()), always=True)
    run = tiny.trainer(tmp_path, teacher_model=cached)
    batch = next(iter(run.get_train_dataloader()))
    expected = run.teacher.teacher(batch, HEADS).heads["logits"].logits.tensor
    for _ in range(3):
        answer = cached(batch, HEADS).heads["logits"].logits.tensor
        assert torch.equal(answer, expected)
        answer.zero_()


def test_the_whole_window_goes_on_when_nothing_is_kept_any_more(tmp_path):
    teacher = Counted()
    args = {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 2, "teacher_whole_window": True}
    numbers = iter(range(1000))

    def other(rows):  # each batch is one that nobody has seen
        batch = FIXED(rows)
        batch["input_ids"][:, 0] = 5 + next(numbers) % 24
        batch["input_ids"][:, 1] = 5 + next(numbers) // 24
        return batch

    run, _ = trained(tmp_path, "auto", teacher, collator=other, **args)
    assert run.teacher.watch.stopped
    assert teacher.rows[-2:] == [8, 8]


def test_hidden_states_with_a_prompt_before_them_are_not_kept(tmp_path, caplog):
    class Prompted(Counted):
        def forward(self, input_ids, attention_mask=None, **kwargs):
            shown = super().forward(input_ids, attention_mask, **kwargs)
            shown.hidden_states = tuple(torch.cat((h[:, :1], h), 1) for h in shown.hidden_states)
            return shown

    cached = CachedTeacher(LiveTeacher(Prompted()), always=True)
    run = tiny.trainer(tmp_path, teacher_model=cached)
    batch = next(iter(run.get_train_dataloader()))
    with caplog.at_level(logging.WARNING):
        assert cached(batch, frozenset({"heads", "hidden"})).hidden[0].shape[1] == batch["input_ids"].shape[1] + 1
    width = batch["input_ids"].shape[1]
    assert f"are not kept: hidden/0 has {width + 1} positions where the answer counts {width}" in caplog.text


def test_labels_are_no_part_of_a_row_and_a_nan_is_not_kept(tmp_path):
    teacher = Counted()
    with torch.no_grad():
        teacher.inner.bert.embeddings.word_embeddings.weight[31] = float("nan")  # a token that no row has
    cached = CachedTeacher(LiveTeacher(teacher), always=True)
    run = tiny.trainer(tmp_path, teacher_model=cached)
    batch = next(iter(run.get_train_dataloader()))
    first = cached(batch, HEADS).heads["logits"].logits.tensor
    asked = list(teacher.rows)
    again = cached({**batch, "labels": 1 - batch["labels"]}, HEADS).heads["logits"].logits.tensor
    assert torch.equal(first, again)
    assert teacher.rows == asked
    changed = {**batch, "input_ids": torch.full_like(batch["input_ids"], 31)}
    assert cached(changed, HEADS).heads["logits"].logits.tensor.isnan().all()
    assert len(cached.memory) == 8


def test_one_teacher_for_two_trainers_is_asked_once_unless_its_weights_change(tmp_path):
    teacher = Counted()
    cached = CachedTeacher(LiveTeacher(teacher), always=True)
    trained(tmp_path / "a", "auto", cached)
    asked = sum(teacher.rows)
    trained(tmp_path / "b", "auto", cached)
    assert sum(teacher.rows) == asked
    with torch.no_grad():
        teacher.inner.classifier.bias.add_(1.0)
    trained(tmp_path / "c", "auto", cached)
    assert sum(teacher.rows) == asked + 16


def test_a_function_is_kept_in_a_folder_only(tmp_path):
    lookup, calls = tiny.teacher(), []

    def function(batch):
        calls.append(len(batch["input_ids"]))
        return lookup(batch["input_ids"], batch["attention_mask"]).logits.numpy()

    assert isinstance(trained(tmp_path / "a", "auto", function)[0].teacher, FunctionTeacher)
    assert sum(calls) == 4 * 16
    calls.clear()
    trained(tmp_path / "b", str(tmp_path / "answers"), function)
    assert sum(calls) == 8 + 16
    assert Store(tmp_path / "answers").header["teacher"] == "function"


def test_a_resumed_run_has_the_answers_of_the_interrupted_one(tmp_path):
    dynamic, data = DataCollatorWithPadding(tiny.tokenizer()), Dataset.from_list(tiny.rows(16))
    args = {"collator": dynamic, "data": data, "save_strategy": "steps", "save_steps": 6}
    _, expected = trained(tmp_path / "a", "auto", Counted(), **args)
    assert (tmp_path / "a" / "checkpoint-6" / "teacher_answers_00000.parquet").is_file()
    teacher = Counted()
    run = tiny.trainer(
        tmp_path / "b", data=data, teacher_model=teacher, data_collator=dynamic,
        args={"max_steps": -1, "num_train_epochs": 4, "per_device_train_batch_size": 4},
    )  # fmt: skip
    run.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-6"))
    assert tiny.losses(run) == expected
    assert teacher.rows == []


def test_a_search_and_a_second_training_go_on_with_what_is_kept(tmp_path):
    teacher = Counted()
    run, _ = trained(tmp_path, "auto", teacher)
    asked = sum(teacher.rows)
    run.train()
    assert sum(teacher.rows) == asked


def test_keys_are_made_before_anything_is_cast(tmp_path):
    """Trainer casts floats under DeepSpeed after the batch was taken; the row must stay the same row."""
    seen = []

    class Look(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            seen.append(state.global_step)

    run = tiny.trainer(
        tmp_path, teacher_model=tiny.teacher(), args={"max_steps": 4, "per_device_train_batch_size": 8},
        callbacks=[Look()],
    )  # fmt: skip
    original = run._prepare_input
    run._prepare_input = lambda data: original(data.to(torch.int32) if isinstance(data, torch.Tensor) else data)
    with pytest.raises((RuntimeError, IndexError)):  # int32 labels cannot be gathered: the cast is real
        run.train()
    assert seen
    assert len(run.teacher.memory) == 8


def test_a_teacher_that_gives_nan_is_told_as_such_and_nothing_else(tmp_path, caplog):
    teacher = tiny.teacher()
    torch.nn.init.constant_(teacher.classifier.bias, float("nan"))
    with caplog.at_level(logging.WARNING), pytest.raises(ValueError, match="gave infinite or NaN logits for rows"):
        trained(tmp_path, "auto", teacher)
    assert "not kept" not in caplog.text


def test_a_batch_with_a_nan_leaves_the_probe_to_the_next_one(tmp_path):
    teacher = Counted()
    with torch.no_grad():
        teacher.inner.bert.embeddings.word_embeddings.weight[31] = float("nan")
    cached = CachedTeacher(LiveTeacher(teacher), always=True)
    run = tiny.trainer(tmp_path, teacher_model=cached)
    batch = next(iter(run.get_train_dataloader()))
    assert cached({**batch, "input_ids": torch.full_like(batch["input_ids"], 31)}, HEADS).heads
    assert not cached.memory.probed
    cached(batch, HEADS)
    assert (cached.memory.probed, cached.memory.off, len(cached.memory)) == (True, "", 8)
