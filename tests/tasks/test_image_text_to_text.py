"""Models that read images among texts: found, exact however a batch is cut, kept, cut in depth."""

import re
from functools import partial

import pytest
import tiny
import tiny_vision_language as tiny_vl
import torch
from default_run import slow_but
from peft import LoraConfig, get_peft_model
from transformers import (
    BertConfig,
    PI0Config,
    PI0ForConditionalGeneration,
    T5Gemma2Config,
    T5Gemma2ForConditionalGeneration,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
)

from hf_distill import (
    CachedTeacher,
    CausalLM,
    ImageTextToText,
    ImageTextToTextSeq2Seq,
    LiveTeacher,
    Task,
    keep_layers,
    lineage,
)
from hf_distill.models.vision_tower import layers_of

USUAL = ("llava", "qwen2_vl")
FEW = slow_but(USUAL, (*USUAL, "idefics3"))
FAMILIES = slow_but(USUAL, tiny_vl.FAMILIES)


def trainer(folder, family, teacher=None, images=(1, 2, 0, 1, 2, 0, 1, 1), student=None, args=None, **parts):
    settings = {"remove_unused_columns": False, "max_steps": 1, "per_device_train_batch_size": 4, **(args or {})}
    return tiny.trainer(
        folder, tiny_vl.model(family) if student is None else student, tiny_vl.rows(family, images),
        teacher_model=tiny_vl.model(family, seed=7) if teacher is None else teacher,
        data_collator=partial(tiny_vl.collate, family), args=settings, **parts,
    )  # fmt: skip


def step(folder, family, batch, accumulation, **parts):
    """Losses and gradients of one optimizer step."""
    seen = tiny.Gradients()
    args = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, **parts.pop("args", {})}
    run = trainer(folder, family, args=args, callbacks=[seen], **parts)
    run.train()
    return {k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first


def assert_same(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    assert one[1].keys() == other[1].keys()
    assert tiny.relative(one[1], other[1]) < 1e-5


def without_places(labels):
    return labels.masked_fill(torch.isin(labels, torch.tensor([*tiny_vl.TOKENS.values()])), -100)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_found_and_its_loss_is_its_own_without_the_places_of_images(family):
    model, batch = tiny_vl.model(family), tiny_vl.batch(family)
    task = Task.of(model)
    assert (type(task), task.placeholders["image"], task.own_loss) == (ImageTextToText, tiny_vl.IMAGE, False)
    with torch.no_grad():
        own = model(**{**batch, "labels": without_places(batch["labels"])})
    found = task.hard(own, batch)
    torch.testing.assert_close(found.mean(), own.loss, rtol=1e-5, atol=0)
    counts = task.counts(batch)
    assert counts["samples"] == 4
    assert counts["rows"] == counts["labels"] == (without_places(batch["labels"])[:, 1:] != -100).sum()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_exact_however_a_batch_is_cut(tmp_path, family):
    whole = step(tmp_path, family, 8, 1)
    assert max(float(g.abs().max()) for g in whole[1].values()) > 1e-4
    assert_same(step(tmp_path, family, 2, 4), whole)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_kept_each_row_with_its_own_images(tmp_path, family):
    args = {"max_steps": 6, "per_device_train_batch_size": 4, "logging_steps": 1, "alpha": 1.0}
    live = trainer(tmp_path, family, args=args)
    live.train()
    teacher = CachedTeacher(LiveTeacher(tiny_vl.model(family, seed=7)), always=True)
    kept = trainer(tmp_path, family, teacher, args=args)
    kept.train()
    assert (teacher.memory.off, len(teacher.memory)) == ("", 8)
    assert tiny.losses(kept) == pytest.approx(tiny.losses(live), rel=1e-5)
    found, wanted = (run.evaluate(run.train_dataset)["eval_loss"] for run in (kept, live))
    assert found == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_cut_in_its_text_and_in_its_tower_of_images_apart(family):
    model, batch = tiny_vl.model(family), tiny_vl.batch(family)
    texts, images = model.config.get_text_config(), model.config.vision_config
    both = [("num_hidden_layers", "depth")[hasattr(images, "depth")]] * 2
    for asked, left in (({"layers": [1]}, (1, 2)), ({"layers": None, "vision_layers": [0]}, (2, 1))):
        student = keep_layers(model, **asked).eval()
        config = student.config
        assert (config.get_text_config().num_hidden_layers, getattr(config.vision_config, both[0])) == left
        assert student(**batch).logits.isfinite().all()
        told = {(1, 2): "Layer 1 of", (2, 1): "text layers 0 and 1 and image layer 0 were kept"}[left]
        assert told in lineage(student)[0]
        again = type(student)(config)
        again.load_state_dict(student.state_dict())
        torch.testing.assert_close(again.eval()(**batch).logits, student(**batch).logits)
    assert texts.num_hidden_layers == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_shows_the_states_of_its_text(tmp_path, family):
    spec = {"forward_kl": 1.0, "hidden_mse": {"layers": {1: 1}}}
    run = trainer(tmp_path, family, args={"alpha": 1.0, "objective": spec, "max_steps": 1})
    batch = tiny_vl.batch(family, (1, 2, 0, 1, 2, 0, 1, 1)[:4])
    with torch.no_grad():
        states = [
            Task.of(model).read(model, batch, model(**batch, output_hidden_states=True))
            for model in (tiny_vl.model(family), tiny_vl.model(family, seed=7))
        ]
    assert all(len(shown.hidden) == 3 for shown in states)
    assert states[0].hidden[1].shape[:2] == batch["input_ids"].shape
    run.train()
    assert run.state.log_history[0]["loss/hidden_mse"] > 0


def test_without_labels_a_place_for_an_image_is_no_target(tmp_path):
    batch = tiny_vl.batch("llava", (1, 0))
    ids = batch["input_ids"]
    del batch["labels"]
    task = ImageTextToText(placeholders={"image": tiny_vl.IMAGE})
    follows = torch.nn.functional.pad((ids[:, 1:] != tiny_vl.IMAGE) & batch["attention_mask"][:, 1:].bool(), (0, 1))
    assert torch.equal(task.rows(batch), follows)
    assert int(CausalLM().rows(batch).sum() - task.rows(batch).sum()) == tiny_vl.FAMILIES["llava"].slots
    run = trainer(tmp_path, "llava", args={"alpha": 1.0}, images=(1, 0, 2, 1))
    for row in run.train_dataset:
        del row["labels"]
    run.train()
    assert run.state.log_history[0]["loss/forward_kl"] > 0


def test_minilm_compares_the_projections_of_the_text(tmp_path):
    assert_same(
        step(tmp_path, "qwen2_vl", 8, 1, args={"objective": "minilm", "alpha": 1.0}),
        step(tmp_path, "qwen2_vl", 2, 4, args={"objective": "minilm", "alpha": 1.0}),
    )


def test_places_without_images_are_refused_before_the_model_is_asked(tmp_path):
    run = trainer(tmp_path, "llava", args={"alpha": 1.0})
    for row in run.train_dataset:
        row["images"] = []
    with pytest.raises(ValueError, match=r"has a place for an image \(token 100\), but the batch has no images"):
        run.train()


def one_image_fewer(some):
    some[1]["images"].pop()
    return 3, [1, 2, 0, 1]


def one_image_more(some):
    some[3]["images"].append(some[0]["images"][0])
    return 5, [1, 2, 0, 1]


def a_place_cut_off(some):
    some[3]["input_ids"].remove(tiny_vl.IMAGE)
    some[3]["labels"].remove(tiny_vl.IMAGE)
    return 4, [1, 2, 0, 1]


@pytest.mark.parametrize("spoil", [one_image_fewer, one_image_more, a_place_cut_off])
@pytest.mark.parametrize("family", FAMILIES)
def test_images_and_places_that_do_not_match_are_told_in_one_sentence(family, spoil):
    some, slots = tiny_vl.rows(family), tiny_vl.FAMILIES[family].slots
    images, each = spoil(some)
    tokens = [slots * one for one in each]
    tokens[3] -= spoil is a_place_cut_off
    model = tiny_vl.model(family)
    told = (
        f"a batch has {images} images and {sum(tokens)} image tokens (by row {tokens}), which {type(model).__name__} "
        "found not to match: let the processor make the texts and the images of a row together, and cut no place off"
    )
    with pytest.raises(ValueError, match=re.escape(told)):
        LiveTeacher(model, Task.of(model))(tiny_vl.collate(family, some), frozenset({"heads"}))


def test_a_student_tells_of_images_and_places_that_do_not_match_too(tmp_path):
    def teacher(batch):
        return torch.zeros(*batch["input_ids"].shape, tiny_vl.SMALL["vocab_size"])

    run = trainer(tmp_path, "llava", teacher=teacher, args={"alpha": 1.0, "per_device_train_batch_size": 8})
    for row in run.train_dataset:
        row["images"] = row["images"][:1]
    with pytest.raises(ValueError, match=r"images and \d+ image tokens \(by row .*\), which LlavaForConditionalGen"):
        run.train()


def test_what_writes_no_text_token_by_token_is_refused():
    with torch.device("meta"):
        small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        config = PI0Config(vlm_config={"model_type": "paligemma", "text_config": {"model_type": "gemma", **small}})
        model = PI0ForConditionalGeneration(config)
    with pytest.raises(ValueError, match="which moves a robot and predicts no tokens: ImageTextToText compares"):
        Task.of(model)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_learns_the_same_where_its_logits_are_never_whole(tmp_path, monkeypatch, family, alpha):
    whole = step(tmp_path, family, 4, 2, args={"fused_logits": "off", "alpha": alpha})
    made = []
    forward = torch.nn.Linear.forward

    def noted(module, given):
        made.append(forward(module, given))
        return made[-1]

    monkeypatch.setattr(torch.nn.Linear, "forward", noted)
    fused = step(tmp_path, family, 4, 2, args={"fused_logits": "on", "alpha": alpha})
    assert_same(fused, whole)
    sizes = {tuple(one.shape) for one in made if one.ndim == 3 and one.shape[-1] == tiny_vl.SMALL["vocab_size"]}
    assert sizes <= {(1, 2, 120), (4, 0, 120)}  # two tokens, to measure what stands behind the head; none at all


@pytest.mark.parametrize("family", FEW)
def test_a_frozen_tower_of_images_stays_as_it_is(tmp_path, family):
    student = tiny_vl.model(family)
    tower = next(
        module for name, module in student.named_modules() if name.endswith(("visual", "vision_tower", "vision_model"))
    )
    tower.requires_grad_(False)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    trainer(tmp_path, family, student=student, args={"max_steps": 2}).train()
    frozen = {name for name, value in student.named_parameters() if not value.requires_grad}
    assert frozen
    for name, value in student.named_parameters():
        assert torch.equal(value, before[name]) or name not in frozen, name
    assert any(not torch.equal(value, before[name]) for name, value in student.named_parameters())


@pytest.mark.parametrize("family", FEW)
def test_a_student_with_lora_trains_its_adapter_alone_and_exactly(tmp_path, family):
    def student():
        torch.manual_seed(0)
        config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        return get_peft_model(tiny_vl.model(family), config)

    assert type(Task.of(student())) is ImageTextToText
    whole = step(tmp_path, family, 8, 1, student=student())
    assert whole[1]
    assert all("lora_" in name for name in whole[1])
    assert_same(step(tmp_path, family, 2, 4, student=student()), whole)
    assert_same(step(tmp_path, family, 2, 4, student=student(), args={"fused_logits": "on"}), whole)


@pytest.mark.parametrize("family", FEW)
def test_the_tower_of_images_is_compared_where_it_is_asked_for(tmp_path, family):
    spec = {"hidden_mse": {"stream": "vision", "layers": {2: 2}}}
    args = {"alpha": 1.0, "objective": spec}
    whole = step(tmp_path, family, 8, 1, args=args)
    assert_same(step(tmp_path, family, 1, 8, args=args), whole)  # some micro-batches have no image
    heard, batch = [], tiny_vl.batch(family, (1, 2, 0, 1, 2, 0, 1, 1))
    for model in (tiny_vl.model(family), tiny_vl.model(family, seed=7)):
        layer = layers_of(model)[-1]
        layer.register_forward_hook(lambda module, given, output: heard.append(output))
        with torch.no_grad():
            model(**{name: value for name, value in batch.items() if name != "labels"})
    ours, theirs = (one if torch.is_tensor(one) else one[0] for one in heard)
    assert whole[0]["loss/hidden_mse"] == pytest.approx((ours - theirs).square().mean().item(), rel=1e-5)
    assert not [name for name in whole[1] if "lm_head" in name and whole[1][name].abs().sum()]


def trocr(seed=0):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    reads = ViTConfig(image_size=tiny_vl.SIZE, patch_size=tiny_vl.PATCH, **sizes)
    writes = BertConfig(
        vocab_size=120, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, is_decoder=True,
        add_cross_attention=True, **sizes,
    )  # fmt: skip
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(reads, writes)
    config.decoder_start_token_id, config.pad_token_id = 1, 0
    return VisionEncoderDecoderModel(config)


def t5gemma(seed=0):
    torch.manual_seed(seed)
    return T5Gemma2ForConditionalGeneration(tiny_vl.shrunk(T5Gemma2Config()))


def read_aloud(some):
    """One picture each, and what is written of it; beside it a text with its place, where a model reads one."""
    labels = [torch.tensor(row["labels"]) for row in some]
    batch = {"labels": torch.nn.utils.rnn.pad_sequence(labels, True, -100)}
    for name in some[0].keys() - {"labels"}:
        batch[name] = torch.stack([torch.as_tensor(row[name]) for row in some])
    return batch


@pytest.mark.parametrize(("make", "slots"), [(trocr, 0), (t5gemma, 4)])
def test_encoders_of_images_beside_a_decoder_are_exact_too(tmp_path, make, slots):
    numbers, rows = torch.Generator().manual_seed(1), []
    for i in range(8):
        pixels = torch.randn(3, tiny_vl.SIZE, tiny_vl.SIZE, generator=numbers)
        rows.append({"pixel_values": pixels, "labels": [5 + i, 6, 2][i % 2 :]})
        if slots:
            rows[-1] |= {"input_ids": [7, *[tiny_vl.IMAGE] * slots, 8 + i]}
    model, batch = make().eval(), read_aloud(rows)
    task = Task.of(model)
    assert type(task) is ImageTextToTextSeq2Seq
    own = model(**batch)
    torch.testing.assert_close(task.hard(own, batch).mean(), own.loss)
    assert task.counts(batch)["tokens:encoder"] == (8 if not slots else 48)  # the images, or their places and the text
    found = []
    for size, accumulation in ((8, 1), (2, 4)):
        seen = tiny.Gradients()
        args = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 1}
        run = tiny.trainer(
            tmp_path, make(), rows, teacher_model=make(7), data_collator=read_aloud, callbacks=[seen],
            args={"remove_unused_columns": False, **args},
        )  # fmt: skip
        run.train()
        found.append(seen.first)
    assert tiny.relative(*found) < 1e-5
    assert run.evaluate(rows)["eval_loss"] > 0


@pytest.mark.parametrize("how", ["whole_window", "prepass"])
@pytest.mark.parametrize("family", FEW)
def test_rows_of_several_batches_are_asked_together_with_their_images(tmp_path, family, how):
    args = {"max_steps": 4, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "alpha": 1.0}
    teacher = CachedTeacher(LiveTeacher(tiny_vl.model(family, seed=7)), always=True, **{how: True})
    live, kept = (trainer(tmp_path, family, one, args={**args, "logging_steps": 1}) for one in (None, teacher))
    for run in (live, kept):
        run.train()
    assert (teacher.memory.off, len(teacher.memory)) == ("", 8)
    assert tiny.losses(kept) == pytest.approx(tiny.losses(live), rel=1e-5)
