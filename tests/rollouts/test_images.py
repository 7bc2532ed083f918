"""Texts that models write about images: each prompt carries its own, and whoever learns of it sees them again."""

from functools import partial

import pytest
import tiny
import tiny_vision_language as tiny_vl
import torch

from hf_distill import Rollout
from hf_distill.rollouts.images import ImageTextLayout
from hf_distill.rollouts.writing import students_way, teachers_way, write

FAMILIES = ["llava", "qwen2_vl", "idefics3"]
COUNTS = (1, 2, 0, 1, 2, 0, 1, 1)
PLACES = {"image": tiny_vl.IMAGE, "video": 101}


def answered(family, images=COUNTS):
    """Rows whose labels are the text behind the images alone."""
    made = tiny_vl.rows(family, images)
    for row in made:
        last = max((at for at, token in enumerate(row["input_ids"]) if token == tiny_vl.IMAGE), default=2)
        row["labels"] = [-100] * (last + 2) + row["input_ids"][last + 2 :]
    return made


def written(model, batch, tokens):
    """What a model writes behind one row, greedily, each time reading all of it anew."""
    ids = batch["input_ids"]
    for _ in range(tokens):
        more = {"mm_token_type_ids": (ids == tiny_vl.IMAGE).long()} if "mm_token_type_ids" in batch else {}
        fed = {**batch, "input_ids": ids, "attention_mask": torch.ones_like(ids), **more}
        logits = model(**fed).logits[0, -1]
        logits[[*PLACES.values()]] = -torch.inf
        ids = torch.cat((ids, logits.argmax()[None, None]), dim=1)
        if ids[0, -1] == model.generation_config.eos_token_id:
            break
    return ids[0, batch["input_ids"].shape[1] :].tolist()


def trainer(folder, family, rollout, rows=None, args=None, **parts):
    settings = {"remove_unused_columns": False, "max_steps": 1, "per_device_train_batch_size": 8, **(args or {})}
    settings |= {"train_sampling_strategy": "sequential"}

    class Seeing(tiny.DistillationTrainer):
        def get_batch_samples(self, *given):
            batches, items = super().get_batch_samples(*given)
            self.seen = batches
            return batches, items

    return tiny.trainer(
        folder, tiny_vl.model(family), rows or answered(family), Seeing, teacher_model=tiny_vl.model(family, seed=7),
        data_collator=partial(tiny_vl.collate, family), args=settings, rollout=rollout, **parts,
    )  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_each_text_is_the_one_that_its_row_gives_alone(family):
    model, rows = tiny_vl.model(family, seed=7), answered(family)
    layout = ImageTextLayout(0, placeholders=PLACES)
    prompts = layout.prompts(tiny_vl.collate(family, rows))
    for way in (teachers_way, students_way):
        config = way(model, Rollout(seq_kd=1.0, max_new_tokens=4, num_beams=1), None)
        config.suppress_tokens = [*PLACES.values()]
        texts = write(model, prompts, config, left=True, stack=layout.stack)
        for row, prompt, text in zip(rows, prompts, texts, strict=True):
            alone = tiny_vl.collate(family, [{**row, "input_ids": prompt["input_ids"].tolist()}])
            del alone["labels"]
            assert text.tolist() == written(model, alone, 4)


@pytest.mark.parametrize("who", ["seq_kd", "on_policy"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_that_was_written_anew_is_read_with_its_images(tmp_path, family, who):
    run = trainer(tmp_path, family, {who: 1.0, "max_new_tokens": 3}, args={"alpha": 1.0})
    plain = tiny_vl.collate(family, answered(family))
    run.train()
    (batch,) = run.seen
    assert torch.equal(batch["pixel_values"], plain["pixel_values"])
    same = torch.isin(batch["input_ids"], torch.tensor([tiny_vl.IMAGE])).sum(1)
    assert torch.equal(same, (plain["input_ids"] == tiny_vl.IMAGE).sum(1))
    for row, labels in enumerate(batch["labels"]):
        text = batch["input_ids"][row][labels != -100]
        assert torch.equal(text, labels[labels != -100])
        assert 1 <= len(text) <= 3
    assert run.state.log_history[0]["loss/forward_kl"] > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_rollouts_with_images_are_exact_however_a_batch_is_cut(tmp_path, family):
    found = []
    for size, accumulation in ((8, 1), (2, 4)):
        seen = tiny.Gradients()
        args = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        run = trainer(
            tmp_path, family, {"on_policy": 0.5, "seq_kd": 0.4, "max_new_tokens": 3}, args=args, callbacks=[seen]
        )
        run.train()
        found.append((run.state.log_history[0]["loss"], seen.first))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    assert tiny.relative(found[1][1], found[0][1]) < 1e-5


def test_a_row_with_an_image_behind_its_first_label_is_left_as_it_is():
    ids = torch.tensor([[1, 100, 5, 6], [1, 5, 6, 100]])
    batch = {"input_ids": ids, "labels": torch.tensor([[-100, -100, 5, 6], [-100, 5, 6, -100]])}
    prompts = ImageTextLayout(0, placeholders=PLACES).prompts({**batch, "pixel_values": torch.ones(2, 3, 4, 4)})
    assert prompts[1] is None
    assert prompts[0]["input_ids"].tolist() == [1, 100]
    assert prompts[0]["pixel_values"].shape == (1, 3, 4, 4)


def test_a_server_is_sent_no_images(tmp_path):
    with pytest.raises(ValueError, match="which is sent tokens and no images, and LlavaForConditionalGeneration"):
        trainer(tmp_path, "llava", {"seq_kd": 1.0, "max_new_tokens": 3, "server": "http://localhost:1"})
