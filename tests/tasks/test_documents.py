"""Packed rows: each text in them is compared as if it were a row of its own."""

import pytest
import tiny
import tiny_language
import torch
from transformers import DataCollatorForSeq2Seq, DataCollatorWithFlattening, DataCollatorWithPadding

from hf_distill.tasks import CausalLM, SentenceEmbedding, SequenceClassification
from hf_distill.tasks.documents import Documents, beginnings, without_filling

TERMS = ["hidden_mse", "minilm", "attention_kl", "pkd", "pooled_mse", "similarity", "rkd_distance", "rkd_angle",
         "contrastive", "cka", "tap_mse"]  # fmt: skip
OPTIONS = {"tap_mse": {"path": "model.layers.0.mlp", "teacher_path": "model.layers.1.mlp", "widths": [16, 24]}}


def trained(folder, objective, rows, collator, **args):
    """One step: the parts of its loss and its gradients."""
    seen = tiny.Gradients()
    run = tiny.trainer(
        folder, tiny_language.llama(), rows, teacher_model=tiny_language.teacher(), objective=objective,
        callbacks=[seen], data_collator=collator, args={"max_steps": 1, "alpha": 0.7, **args},
    )  # fmt: skip
    run.train()
    return {name: value for name, value in run.state.log_history[0].items() if name.startswith("loss")}, seen.first


@pytest.mark.parametrize("name", TERMS)
def test_packed_rows_cost_what_the_same_texts_cost_in_rows_of_their_own(tmp_path, name):
    objective, rows = {name: OPTIONS.get(name, {})}, tiny_language.texts(6)
    apart = trained(tmp_path, objective, rows, DataCollatorForSeq2Seq(tiny_language.tokenizer()))
    packed = trained(tmp_path, objective, rows, DataCollatorWithFlattening())
    assert apart[0][f"loss/{name}"] > 1e-3
    for part, value in apart[0].items():
        assert packed[0][part] == pytest.approx(value, rel=1e-5), part
    assert tiny.relative(packed[1], apart[1]) < 1e-5


@pytest.mark.parametrize("name", ["minilm", "pooled_mse"])
def test_packed_rows_are_exact_however_the_step_is_cut(tmp_path, name):
    rows = tiny_language.texts(8)
    found = [
        trained(
            tmp_path, name, rows, DataCollatorWithFlattening(), per_device_train_batch_size=batch,
            gradient_accumulation_steps=8 // batch,
        )
        for batch in (8, 2)
    ]  # fmt: skip
    assert found[0][0][f"loss/{name}"] == pytest.approx(found[1][0][f"loss/{name}"], rel=1e-5)
    assert tiny.relative(*(gradients for _, gradients in found)) < 1e-5


def test_without_labels_no_text_is_asked_for_the_first_token_of_the_next():
    batch = {"input_ids": torch.tensor([[5, 6, 7, 8, 9]]), "position_ids": torch.tensor([[0, 1, 2, 0, 1]])}
    assert CausalLM().rows(batch).tolist() == [[True, True, False, True, False]]
    assert {unit: n.item() for unit, n in CausalLM().counts(batch).items()} == {
        "rows": 3, "tokens": 5, "samples": 2, "labels": 0,
    }  # fmt: skip


@pytest.mark.parametrize("column", ["position_ids", "seq_idx", "cu_seq_lens_q"])
def test_a_batch_says_in_three_ways_where_its_texts_begin(column):
    said = {"position_ids": torch.tensor([[0, 1, 2, 0, 1, 0]]), "seq_idx": torch.tensor([[0, 0, 0, 1, 1, 2]])}
    said["cu_seq_lens_q"] = torch.tensor([0, 3, 5, 6], dtype=torch.int32)
    real = torch.ones(1, 6, dtype=torch.bool)
    documents = Documents.of({column: said[column]}, real)
    assert documents.index[documents.mask].tolist() == list(range(6))
    assert documents.mask.sum(-1).tolist() == [3, 2, 1]


def test_rows_that_hold_one_text_each_are_left_alone():
    real = torch.tensor([[False, True, True, True], [True, True, True, False]])
    rising = {"position_ids": torch.tensor([[1, 0, 1, 2], [0, 1, 2, 1]])}  # padding has any number
    assert beginnings(rising, real).sum() == 2
    assert Documents.of(rising, real) is None
    assert Documents.of({}, real) is None
    pair = {"input_ids": torch.ones(1, 4), "position_ids": torch.tensor([[0, 1, 0, 1]])}
    assert SequenceClassification(num_labels=2).counts(pair)["samples"] == 1  # one class for both segments


def test_what_fills_up_packed_rows_is_no_text():
    places = torch.tensor([[0, 1, 2, 0, 0, 0], [0, 1, 0, 1, 2, 3]])
    real = torch.ones(2, 6, dtype=torch.bool)
    kept = torch.tensor([[True] * 3 + [False] * 3, [True] * 6])
    assert torch.equal(without_filling({"position_ids": places}, real), kept)
    batch = {"input_ids": torch.ones(2, 6, dtype=torch.int64), "position_ids": places}
    assert {unit: CausalLM().counts(batch)[unit].item() for unit in ("tokens", "samples")} == {
        "tokens": 9, "samples": 3,
    }  # fmt: skip


def test_a_row_of_several_texts_has_several_sentence_vectors(tmp_path):
    rows, found = [{"input_ids": row["input_ids"]} for row in tiny_language.texts(6)], []
    for collator in (DataCollatorWithPadding(tiny_language.tokenizer()), Flattening()):
        run = tiny.trainer(
            tmp_path, tiny_language.llama().model, rows, teacher_model=tiny_language.teacher().model,
            data_collator=collator, objective="pooled_mse", args={"max_steps": 1},
        )  # fmt: skip
        assert isinstance(run.task, SentenceEmbedding)
        run.train()
        found.append(run.state.log_history[0]["loss/pooled_mse"])
    assert found[0] > 1e-3
    assert found[1] == pytest.approx(found[0], rel=1e-5)


class Flattening:
    """Texts behind each other, without labels."""

    def __call__(self, rows):
        made = DataCollatorWithFlattening()([{"input_ids": row["input_ids"]} for row in rows])
        return {name: value for name, value in made.items() if name != "labels"}
