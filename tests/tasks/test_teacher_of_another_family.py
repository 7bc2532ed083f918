"""A teacher with tokens, places and images of its own: LLaVA learns from Qwen2-VL, and the other way."""

import pytest
import tiny
import tiny_vision_language as tiny_vl
import torch
from transformers import BertTokenizer

from hf_distill import LiveTeacher

WORDS = ["red", "green", "house", "boat", "small", "big"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tokenizer(words):
    return BertTokenizer(vocab={token: i for i, token in enumerate([*SPECIAL, *words])})


OURS = tokenizer(WORDS)
# The same words, some of them in two pieces, and in another order.
THEIRS = tokenizer(["re", "##d", "boat", "big", "hou", "##se", "green", "small"])


def row(family, words, images, answer):
    """A prompt with its images, which is no text of the answer's, and the answer with where its tokens are."""
    said = words(answer, return_offsets_mapping=True, add_special_tokens=False)
    place = [tiny_vl.IMAGE] * tiny_vl.FAMILIES[family].slots + [3]
    prompt = [2, *place * len(images)]
    return {
        "input_ids": [*prompt, *said["input_ids"], 3], "images": images,
        "labels": [-100] * len(prompt) + [*said["input_ids"], 3],
        "offset_mapping": [(0, 0)] * len(prompt) + [*said["offset_mapping"], (0, 0)],
    }  # fmt: skip


def rows(ours, theirs, own, n=8):
    numbers = torch.Generator().manual_seed(0)
    made = []
    for i in range(n):
        images = [torch.randn(3, tiny_vl.SIZE, tiny_vl.SIZE, generator=numbers) for _ in range((1, 2, 0)[i % 3])]
        answer = " ".join(WORDS[(i * k + k) % len(WORDS)] for k in range(1, 3 + i % 3))
        made.append(row(ours, OURS, images, answer))
        if own:
            made[-1] |= {f"teacher_{name}": value for name, value in row(theirs, THEIRS, images, answer).items()}
    return made


def collate(ours, theirs):
    def made(family, each):
        batch = tiny_vl.collate(family, each)
        width = batch["input_ids"].shape[1]
        offsets = [one["offset_mapping"] + [(0, 0)] * (width - len(one["offset_mapping"])) for one in each]
        return {**batch, "offset_mapping": torch.tensor(offsets)}

    def both(some):
        batch = made(ours, some)
        own = [{n.removeprefix("teacher_"): v for n, v in one.items() if n.startswith("teacher_")} for one in some]
        return {**batch, **{f"teacher_{n}": v for n, v in made(theirs, own).items()}} if all(own) else batch

    return both


def step(folder, ours, theirs, batch=8, accumulation=1, own=True, teacher=None, **args):
    seen = tiny.Gradients()
    cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    teacher = tiny_vl.model(theirs, seed=7) if teacher is None else teacher
    run = tiny.trainer(
        folder, tiny_vl.model(ours), rows(ours, theirs, own), processing_class=OURS,
        teacher_model=LiveTeacher(teacher, tokenizer=THEIRS if own else OURS),
        data_collator=collate(ours, theirs), callbacks=[seen],
        args={"remove_unused_columns": False, "teacher_alignment": "span", **cut, **args},
    )  # fmt: skip
    run.train()
    return run.state.log_history[0], seen.first


@pytest.mark.parametrize(("ours", "theirs"), [("llava", "qwen2_vl"), ("qwen2_vl", "llava")])
def test_spans_of_the_answer_are_compared_each_model_reading_its_own_images(tmp_path, ours, theirs):
    whole, cut = (step(tmp_path, ours, theirs, *how) for how in ((8, 1), (2, 4)))
    assert whole[0]["loss/forward_kl"] > 0
    for name in ("loss", "loss/hard", "loss/forward_kl"):
        assert cut[0][name] == pytest.approx(whole[0][name], rel=1e-5)
    assert tiny.relative(cut[1], whole[1]) < 1e-5


def test_a_teacher_that_is_shown_the_students_images_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"LlavaForConditionalGeneration cannot read .*\(it takes no image_grid_thw\)"
    ):
        step(tmp_path, "qwen2_vl", "llava", own=False, teacher_alignment="tokens")
    teacher = tiny_vl.model("llava", seed=7)
    teacher.config.image_token_id = 99
    told = r"the batch has images \(pixel_values\), but no text has a place for one \(token 99\)\): give a teacher of"
    with pytest.raises(ValueError, match=told):
        step(tmp_path, "llava", "llava", own=False, teacher=teacher, teacher_alignment="tokens")


def test_patches_of_another_size_are_refused(tmp_path):
    teacher = tiny_vl.model("qwen2_vl", seed=7)
    teacher.config.vision_config.patch_size = 8
    with pytest.raises(
        ValueError, match=r"pixel_values has patches of 96 numbers, its own have 384\): give a teacher"
    ):
        step(tmp_path, "qwen2_vl", "qwen2_vl", own=False, teacher=teacher, teacher_alignment="tokens")
