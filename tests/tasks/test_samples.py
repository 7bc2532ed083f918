"""What is counted is what there is: samples and positions, whatever column comes first."""

import pytest
import tiny
import tiny_tasks
import torch
from transformers import ViTConfig, ViTForImageClassification, default_data_collator

from hf_distill.tasks import CausalLM, MultipleChoice, SequenceClassification


def vit(width=16, layers=1, seed=0):
    torch.manual_seed(seed)
    sizes = dict(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=2 * width, image_size=16,
        patch_size=4, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=3, initializer_range=0.3,
    )  # fmt: skip
    return ViTForImageClassification(ViTConfig(**sizes))


def images(n=8):
    generator = torch.Generator().manual_seed(3)
    return [{"pixel_values": torch.randn(3, 16, 16, generator=generator), "labels": i % 3} for i in range(n)]


def trained(folder, student, teacher, rows, objective, **parts):
    seen, args = tiny.Gradients(), parts.pop("args", {})
    run = tiny.trainer(
        folder, student, rows, teacher_model=teacher, objective=objective, callbacks=[seen],
        args={"max_steps": 1, **args}, **parts,
    )  # fmt: skip
    run.train()
    return run.state.log_history[0], seen.first


@pytest.mark.parametrize("name", ["hidden_mse", "hidden_cosine", "cka", "minilm", "attention_mse"])
def test_the_positions_of_an_image_are_worth_one_sample_together(tmp_path, name):
    """A mean over 17 patches, not their sum; 8 x 1 and 2 x 4 give the same (cka sees a micro-batch at once)."""
    found = {}
    for batch in (8,) if name == "cka" else (8, 2):
        found[batch] = trained(
            tmp_path, vit(), vit(16, 2, seed=7), images(), {name: {"layers": {1: 2}}},
            task=SequenceClassification(num_labels=3), data_collator=default_data_collator,
            args={"per_device_train_batch_size": batch, "gradient_accumulation_steps": 8 // batch},
        )  # fmt: skip
    pixels = torch.stack([row["pixel_values"] for row in images()])
    with torch.no_grad():
        ours, theirs = (
            model.eval()(pixels, output_hidden_states=True).hidden_states[layer]
            for model, layer in ((vit(), 1), (vit(16, 2, seed=7), 2))
        )
    true = {
        "hidden_mse": lambda: (ours - theirs).square().mean(),
        "hidden_cosine": lambda: 1 - torch.cosine_similarity(ours, theirs, dim=-1).mean(),
    }
    value = found[8][0][f"loss/{name}"]
    if name in true:
        assert value == pytest.approx(float(true[name]()), rel=1e-5)
    elif name == "cka":
        assert 0 < value < 1
    for other in found.values():
        assert other[0][f"loss/{name}"] == pytest.approx(value, rel=1e-5)
        assert tiny.relative(other[1], found[8][1]) < 1e-5


def test_texts_given_as_vectors_have_as_many_positions_as_texts_given_as_tokens(tmp_path):
    rows, losses = [{**row, "input_ids": row["input_ids"][:3]} for row in tiny.rows(8)], []
    table = tiny.bert().bert.embeddings.word_embeddings.weight.detach()
    same = tiny.bert(seed=7)
    same.bert.embeddings.word_embeddings.load_state_dict({"weight": table})  # both models read the same vectors
    for columns in ("tokens", "vectors"):
        data = [
            {"labels": row["labels"], "input_ids": row["input_ids"]}
            if columns == "tokens"
            else {"labels": row["labels"], "inputs_embeds": table[row["input_ids"]]}
            for row in rows
        ]
        found, _ = trained(
            tmp_path, tiny.bert(), same, data, "hidden_mse", data_collator=default_data_collator,
        )  # fmt: skip
        losses.append(found["loss/hidden_mse"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert CausalLM().counts({"inputs_embeds": torch.ones(2, 5, 4), "labels": torch.ones(2, 5)})["tokens"] == 10


@pytest.mark.parametrize(
    ("batch", "samples"),
    [
        ({"pixel_values": torch.ones(96, 12), "input_ids": torch.ones(2, 7, dtype=torch.int64)}, 2),
        ({"labels": [{"boxes": torch.ones(1, 4)}] * 8, "pixel_values": torch.ones(8, 3, 4, 4)}, 8),
        ({"pixel_values": torch.ones(4, 3, 4, 4)}, 4),
        ({"image_grid_thw": torch.ones(3, 3), "inputs_embeds": torch.ones(2, 7, 4)}, 2),
    ],
)
def test_samples_are_rows_of_the_data_set_and_not_entries_of_the_first_tensor(batch, samples):
    task = SequenceClassification(num_labels=2, problem_type=tiny.SINGLE)
    assert len(task.rows(batch)) == samples
    counts = task.counts({name: value for name, value in batch.items() if name != "labels"})
    assert counts["samples"] == samples


def test_a_mask_of_pairs_of_positions_is_no_mask_of_positions():
    pairs = {"input_ids": torch.ones(2, 5, dtype=torch.int64), "attention_mask": torch.ones(2, 1, 5, 5)}
    assert SequenceClassification(num_labels=2, problem_type=tiny.SINGLE).counts(pairs)["tokens"] == 10


def test_questions_without_a_mask_have_as_many_tokens_as_their_texts():
    batch = tiny_tasks.CASES["choice"].batch(2)
    ids = batch["input_ids"]
    assert MultipleChoice().counts({"input_ids": ids})["tokens"] == ids.numel()
    assert MultipleChoice().mask({"input_ids": ids}).shape == (8, ids.shape[2])
