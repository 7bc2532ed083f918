"""Augmented copies in training: exact, repeatable, resumed, taught, never supervised, never evaluated."""

import logging
import math

import numpy as np
import pytest
import tiny
import tiny_language
import torch
from datasets import Dataset, IterableDataset
from default_run import slow_but
from test_augment import language_model
from torch.nn import functional as F
from transformers import BertForSequenceClassification, DataCollatorWithPadding, Trainer

from hf_distill import DistillationMixin
from hf_distill.augmentation import AugmentingCollator

BOTH = {"crop": 0.4, "mask": 0.3, "copies": 2}


def texts(n=8, problem=tiny.SINGLE, seed=3):
    """Rows between [CLS] and [SEP]."""
    return [
        {
            "input_ids": [2, *row["input_ids"], 3],
            "attention_mask": [1, 1, *row["attention_mask"]],
            "labels": row["labels"],
        }
        for row in tiny.rows(n, problem, seed)
    ]


def trainer(folder, data=None, problem=tiny.SINGLE, student=None, **args):
    parts = {name: args.pop(name) for name in ("callbacks", "eval_dataset", "kind", "teacher_model") if name in args}
    parts = {"teacher_model": tiny.teacher(problem), **parts}
    args = {"augmentation": BOTH, **args}
    return tiny.trainer(
        folder, student or tiny.bert(problem=problem), data or texts(problem=problem), args=args, **parts
    )


class Seen:
    """Keeps the batches that the student is given."""

    def __init__(self, run):
        self.batches, take = [], run.get_batch_samples

        def taken(*args):
            batches, count = take(*args)
            self.batches += [{n: v for n, v in b.items() if isinstance(v, torch.Tensor)} for b in batches]
            return batches, count

        run.get_batch_samples = taken

    @property
    def rows(self):
        return [[tuple(ids[ids != 0].tolist()) for ids in batch["input_ids"]] for batch in self.batches]


def step(folder, data, batch, accumulation, problem=tiny.SINGLE, **args):
    seen = tiny.Gradients()
    cut = dict(per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, max_steps=1)
    run = trainer(folder, data, problem, callbacks=[seen], **{**cut, **args})
    run.train()
    return {k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first


@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("problem", tiny.PROBLEMS)
def test_8_x_1_equals_2_x_4(tmp_path, problem, alpha):
    data = texts(problem=problem)
    whole = step(tmp_path, data, 8, 1, problem, alpha=alpha)
    for batch, accumulation in [(2, 4), (3, 3)]:
        cut = step(tmp_path, data, batch, accumulation, problem, alpha=alpha)
        assert cut[0] == pytest.approx(whole[0], rel=1e-5)
        assert tiny.relative(cut[1], whole[1]) < 1e-5
    plain = step(tmp_path, data, 8, 1, problem, alpha=alpha, augmentation=None)
    assert tiny.relative(plain[1], whole[1]) > 1e-2  # there is something to compare
    if alpha < 1:  # copies have no label
        assert plain[0]["loss/hard"] == pytest.approx(whole[0]["loss/hard"], rel=1e-5)


def test_the_gradient_is_the_blend_by_hand(tmp_path):
    """Over 8 rows and 16 copies: the labelled rows' mean cross-entropy, and the mean divergence over all 24."""
    args = dict(per_device_train_batch_size=8, max_steps=1, alpha=0.3, temperature=2.0)
    gradients = tiny.Gradients()
    run = trainer(tmp_path, callbacks=[gradients], **args)
    seen = Seen(run)
    run.train()
    (batch,) = seen.batches
    assert batch["labels"].tolist()[8:] == [-100] * 16
    student, teacher = tiny.bert(), tiny.teacher()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    ours = student(**inputs).logits
    with torch.no_grad():
        theirs = teacher(**inputs).logits
    hard = F.cross_entropy(ours[:8], batch["labels"][:8])
    divergence = F.kl_div((ours / 2).log_softmax(-1), (theirs / 2).softmax(-1), reduction="sum") / 24
    (0.7 * hard + 0.3 * 4 * divergence).backward()
    expected = {n: p.grad for n, p in student.named_parameters() if p.grad is not None}
    assert tiny.relative(gradients.first, expected) < 1e-5


@pytest.mark.parametrize("stop", slow_but([4], [2, 4, 5]))
@pytest.mark.parametrize("augmentation", slow_but([BOTH], [BOTH, {"mix": True, "mask": 0.3}]))
def test_resume_equals_the_uninterrupted_run_bit_for_bit_with_dropout(tmp_path, augmentation, stop):
    def run(folder):
        made = trainer(
            folder, texts(18), student=tiny.bert(layers=2, hidden_dropout_prob=0.3), max_steps=8,
            per_device_train_batch_size=3, gradient_accumulation_steps=2, save_strategy="steps", save_steps=stop,
            augmentation=augmentation,
        )  # fmt: skip
        return made, Seen(made)

    whole, seen = run(tmp_path / "whole")
    whole.train()
    resumed, again = run(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{stop}"))
    assert again.rows == seen.rows[2 * stop :]
    assert tiny.losses(resumed) == tiny.losses(whole)
    assert tiny.losses(resumed, "loss/forward_kl") == tiny.losses(whole, "loss/forward_kl")
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, whole.model.state_dict()[name]), name


def epochs(run, n=2):
    """The copies of each epoch, sorted, so that the order of the rows does not matter."""
    seen = Seen(run)
    run.train()
    size = len(seen.rows) // n
    halves = [seen.rows[i * size : (i + 1) * size] for i in range(n)]
    return [sorted(row for batch in half for row in batch[len(batch) // 3 :]) for half in halves]


def test_two_epochs_differ_and_the_same_seed_repeats_whatever_the_workers_and_batches(tmp_path):
    args = dict(max_steps=-1, num_train_epochs=2)
    first = epochs(trainer(tmp_path, per_device_train_batch_size=4, **args))
    assert first[0] != first[1]
    assert [len(one) for one in first] == [16, 16]
    assert epochs(trainer(tmp_path, per_device_train_batch_size=2, dataloader_num_workers=2, **args)) == first
    assert epochs(trainer(tmp_path, per_device_train_batch_size=4, seed=1, data_seed=42, **args)) == first
    assert epochs(trainer(tmp_path, per_device_train_batch_size=4, seed=1, **args)) != first


@pytest.mark.parametrize("kind", ["dataset", "stream"])
def test_data_sets_and_streams_give_the_copies_that_a_list_gives(tmp_path, kind):
    def made():
        yield from texts()

    args = dict(per_device_train_batch_size=4, max_steps=4)  # the stream does not say that it ends after two
    expected = epochs(trainer(tmp_path, max_steps=-1, num_train_epochs=2, per_device_train_batch_size=4))
    named = [{**row, "number": i} for i, row in enumerate(texts())]  # a column that the student does not read
    data = Dataset.from_list(named) if kind == "dataset" else IterableDataset.from_generator(made)
    assert epochs(trainer(tmp_path, data, **args)) == expected


def test_evaluation_and_prediction_are_unchanged_bit_for_bit(tmp_path):
    data, found = texts(6, seed=9), []
    for augmentation in (None, BOTH):
        run = trainer(tmp_path, eval_dataset=data, augmentation=augmentation)
        own = run.data_collator
        run.get_train_dataloader()
        assert run.data_collator is own
        sizes = [len(batch["input_ids"]) for batch in run.get_eval_dataloader()]
        evaluated = {k: v for k, v in run.evaluate().items() if k.startswith("eval_loss")}
        found.append((sizes, evaluated, run.predict(data).predictions))
    assert found[0][:2] == found[1][:2]
    assert np.array_equal(found[0][2], found[1][2])


def test_the_runs_other_chance_is_not_shifted(tmp_path):
    """The order of the rows, and the state that dropout would draw from."""
    states = []
    for augmentation in (None, BOTH):
        run = trainer(tmp_path, augmentation=augmentation, max_steps=3, per_device_train_batch_size=3)
        seen = Seen(run)
        run.train()
        states.append((torch.get_rng_state(), [batch[:3] for batch in seen.rows]))
    assert torch.equal(states[0][0], states[1][0])
    assert states[0][1][:2] == states[1][1][:2]


@pytest.mark.parametrize("problem", tiny.PROBLEMS)
def test_no_labels_are_needed_under_alpha_1(tmp_path, problem):
    data = [{name: value for name, value in row.items() if name != "labels"} for row in texts(problem=problem)]
    run = trainer(tmp_path, data, problem, alpha=1.0)
    seen = Seen(run)
    run.train()
    assert [len(rows) for rows in seen.rows] == [24] * 3
    assert all(map(math.isfinite, tiny.losses(run)))


def test_a_problem_type_that_the_labels_decide(tmp_path):
    data = texts(problem=tiny.MULTI)
    student = tiny.bert(problem=None, labels=3)
    run = trainer(tmp_path, data, student=student, teacher_model=tiny.teacher(tiny.MULTI))
    expected = trainer(tmp_path, data, tiny.MULTI)
    run.train()
    expected.train()
    assert tiny.losses(run) == tiny.losses(expected)


def test_label_smoothing_skips_the_copies(tmp_path):
    smooth = step(tmp_path, texts(), 8, 1, label_smoothing_factor=0.1)
    plain = step(tmp_path, texts(), 8, 1, label_smoothing_factor=0.1, augmentation=None)
    assert smooth[0]["loss/hard"] == pytest.approx(plain[0]["loss/hard"], rel=1e-5)


def test_substitution_by_a_masked_language_model(tmp_path):
    language_model().save_pretrained(tmp_path / "words")
    asked = {"substitute": {"model": str(tmp_path / "words"), "share": 0.5}}
    found = []
    for _ in range(2):
        trainer(tmp_path, augmentation=None)
        state = torch.get_rng_state()
        run = trainer(tmp_path, augmentation=asked)
        assert torch.equal(state, torch.get_rng_state())  # loading the model is no part of the run's chance
        seen = Seen(run)
        run.train()
        found.append(seen.rows)
    assert found[0] == found[1]
    rows, copies = found[0][0][:8], found[0][0][8:]
    assert rows != copies
    assert [len(row) for row in rows] == [len(row) for row in copies]
    assert not {0, 4} & {one for row in copies for one in row}


@pytest.mark.parametrize("copies", [1, 2])
def test_rows_are_kept_by_a_cached_teacher_and_copies_are_not(tmp_path, copies):
    ids = torch.randint(5, 29, (16, 20), generator=torch.Generator().manual_seed(0)).tolist()
    data, found = [{"input_ids": row, "attention_mask": [1] * 20, "labels": 1} for row in ids], []
    for cache in ("auto", "off"):
        run = trainer(
            tmp_path, data, max_steps=-1, num_train_epochs=3, per_device_train_batch_size=4, teacher_cache=cache,
            augmentation={"mask": 0.5, "copies": copies},
        )  # fmt: skip
        run.train()
        found.append(run)
    kept, asked = found
    assert tiny.losses(kept, "teacher_cache_hits") == pytest.approx([0.0] * 4 + [1 / (1 + copies)] * 8)
    assert len(kept.teacher.memory) == 16
    assert tiny.losses(kept) == pytest.approx(tiny.losses(asked), rel=1e-5)


def test_a_folder_keeps_the_copies_for_the_next_run_with_the_same_seed(tmp_path):
    hits = []
    for _ in range(2):
        run = trainer(tmp_path, max_steps=-1, num_train_epochs=2, per_device_train_batch_size=4,
                      teacher_cache=str(tmp_path / "kept"))  # fmt: skip
        run.train()
        hits.append(tiny.losses(run, "teacher_cache_hits"))
    assert hits[1] == [1.0] * 4
    assert max(hits[0]) < 1


@pytest.mark.parametrize(("alpha", "teacher"), [(0.0, True), (None, False)])
def test_without_a_teacher_to_listen_to_it_is_left_out_and_said_so(tmp_path, caplog, alpha, teacher):
    with caplog.at_level(logging.WARNING, logger="hf_distill.augmentation.training"):
        parts = dict(alpha=alpha, teacher_model=tiny.teacher() if teacher else None)
        run = trainer(tmp_path, **parts)
        seen = Seen(run)
        run.train()
    assert caplog.text.count("only a teacher can speak about a row without a label") == 1
    plain = trainer(tmp_path, augmentation=None, **parts)
    plain.train()
    assert {len(rows) for rows in seen.rows} == {8}
    assert tiny.losses(run) == tiny.losses(plain)


class OwnLoss(BertForSequenceClassification):
    def forward(self, input_ids=None, attention_mask=None, labels=None):
        return super().forward(input_ids, attention_mask, labels=labels)


def own_student():
    student = tiny.bert()
    student.__class__ = OwnLoss
    return student


def two_tokenizers():
    return Dataset.from_list([{**row, "teacher_input_ids": [1, 2]} for row in texts()])


REFUSED = {
    "persistent workers": (dict(dataloader_num_workers=2, dataloader_persistent_workers=True), "=False"),
    "a model in workers": (
        dict(augmentation={"substitute": "a/model"}, dataloader_num_workers=1),
        "substitute runs a model while batches are made, dataloader_num_workers=1",
    ),
    "a model that is not there": (dict(augmentation={"substitute": "./nowhere"}), "could not be loaded"),
    "a loss of its own": (dict(student=own_student), "a loss of its own may count them: set alpha=1"),
    "two tokenizers": (dict(data=two_tokenizers), "teacher_input_ids are the teacher's own of the same text"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_augmented_is_refused_at_construction(tmp_path, what):
    args, message = REFUSED[what]
    args = {name: value() if callable(value) else value for name, value in args.items()}
    with pytest.raises(ValueError, match=message) as caught:
        trainer(tmp_path, **args)
    assert "\n" not in str(caught.value)


def test_a_loss_of_ones_own_is_no_part_of_alpha_1(tmp_path):
    run = trainer(tmp_path, student=own_student(), alpha=1.0)
    run.train()
    assert run.state.global_step == 3


def test_a_users_loss_is_refused(tmp_path):
    def mean(outputs, labels, num_items_in_batch=None):
        return F.cross_entropy(outputs.logits, labels)

    with pytest.raises(ValueError, match="a compute_loss_func may count them"):
        tiny.trainer(
            tmp_path, teacher_model=tiny.teacher(), args={"augmentation": "mask"}, compute_loss_func=mean
        )  # fmt: skip


def test_a_tokenizer_must_be_known(tmp_path):
    def collate(rows):
        return DataCollatorWithPadding(tiny.tokenizer())(rows)

    parts = dict(teacher_model=tiny.teacher(), data_collator=collate, data=texts())
    with pytest.raises(ValueError, match="no tokenizer was given: pass processing_class="):
        tiny.trainer(tmp_path, args={"augmentation": "mask"}, **parts)
    run = tiny.trainer(tmp_path, args={"augmentation": "mask"}, processing_class=tiny.tokenizer(), **parts)
    run.train()


def test_language_models_are_refused(tmp_path):
    with pytest.raises(ValueError, match="which CausalLM cannot read: its labels go with the tokens"):
        tiny.trainer(
            tmp_path, tiny_language.llama(), tiny_language.texts(), teacher_model=tiny_language.teacher(),
            args={"augmentation": "mask"},
        )  # fmt: skip


def test_a_loader_of_ones_own_must_use_the_trainers_collator(tmp_path):
    class Base(Trainer):
        def get_train_dataloader(self):
            return torch.utils.data.DataLoader(self.train_dataset, batch_size=2, collate_fn=lambda rows: rows)

    class Mine(DistillationMixin, Base):
        pass

    run = trainer(tmp_path, kind=Mine)
    with pytest.raises(ValueError, match="made a loader with another collator than"):
        run.train()


def test_a_search_over_augmentation_is_heard(tmp_path):
    run = trainer(tmp_path, augmentation=None)
    assert (run.augmenting(), run.copies) == (None, 0)
    run.args.augmentation = {"mask": 0.2, "copies": 3}
    assert isinstance(run.augmenting(), AugmentingCollator)
    assert run.copies == 3
    run.args.augmentation = {"mask": 1.2}
    with pytest.raises(ValueError, match=r"mask was given p=1\.2"):
        run.train()


def test_the_field_is_written_into_the_arguments(tmp_path):
    args = tiny.arguments(tmp_path, augmentation='{"mask": 0.2, "copies": 2}')
    assert args.augmentation == {"mask": 0.2, "copies": 2}
    assert args.to_dict()["augmentation"] == {"mask": 0.2, "copies": 2}
    with pytest.raises(ValueError, match="augmentation 'blur' is not known"):
        tiny.arguments(tmp_path, augmentation="blur")
    with pytest.raises(ValueError, match="cannot be written down"):
        tiny.arguments(tmp_path, augmentation={"substitute": language_model()})


@pytest.mark.parametrize(("batch", "accumulation"), [(8, 1), (2, 4)])
def test_the_gradient_with_unlabelled_rows_is_the_blend_by_hand(tmp_path, batch, accumulation):
    """Three labelled rows of eight: their mean cross-entropy, and the mean divergence over all eight."""
    data = texts()
    for row in data[3:]:
        row["labels"] = -100
    parts, gradient = step(tmp_path, data, batch, accumulation, alpha=0.4, temperature=3.0, augmentation=None)
    student, teacher = tiny.bert(), tiny.teacher()
    inputs = DataCollatorWithPadding(tiny.tokenizer())(data)
    labels = inputs.pop("labels")
    ours = student(**inputs).logits
    with torch.no_grad():
        theirs = teacher(**inputs).logits
    hard = F.cross_entropy(ours[:3], labels[:3])
    divergence = 9 * F.kl_div((ours / 3).log_softmax(-1), (theirs / 3).softmax(-1), reduction="sum") / 8
    (0.6 * hard + 0.4 * divergence).backward()
    expected = {n: p.grad for n, p in student.named_parameters() if p.grad is not None}
    assert tiny.relative(gradient, expected) < 1e-5
    assert parts == pytest.approx(
        {"loss": 0.6 * hard.item() + 0.4 * divergence.item(), "loss/hard": hard.item(),
         "loss/forward_kl": divergence.item()}, rel=1e-3,
    )  # fmt: skip
