"""SFTTrainer with a teacher: its data preparation and masks, our loss."""

import numpy as np
import pytest
import tiny
import tiny_language
import tiny_vision_language
import torch
from datasets import Dataset
from peft import LoraConfig
from PIL import Image
from transformers import CLIPImageProcessorPil, LlavaProcessor

pytest.importorskip("trl", reason='needs pip install -e ".[trl]"')

from trl import SFTConfig, SFTTrainer

from hf_distill import ImageTextToText
from hf_distill.integrations.trl import SFTDistillationConfig, SFTDistillationTrainer


def trainer(folder, data=None, student=None, kind=SFTDistillationTrainer, config=SFTDistillationConfig, **parts):
    args = {"bf16": False, "max_length": 32, **parts.pop("args", {})}
    return kind(
        student or tiny_language.llama(), tiny.arguments(folder, config, **args),
        train_dataset=data or Dataset.from_list(tiny_language.chats()),
        processing_class=tiny_language.tokenizer(), **parts,
    )  # fmt: skip


def step(folder, size, accumulation, args=(), **parts):
    seen = tiny.Gradients()
    cut = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    parts = {"teacher_model": tiny_language.teacher(), **parts}
    run = trainer(folder, callbacks=[seen], args={**cut, **dict(args)}, **parts)
    run.train()
    return {k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first, run


@pytest.mark.parametrize("objective", ["forward_kl", {"forward_kl": 1.0, "hidden_mse": {}}])
@pytest.mark.parametrize("only_assistant", [False, True])
def test_8_x_1_equals_2_x_4_and_only_what_the_assistant_says_counts(tmp_path, objective, only_assistant):
    args = {"assistant_only_loss": only_assistant}
    parts, gradients, run = step(tmp_path, 8, 1, args, objective=objective)
    cut = step(tmp_path, 2, 4, args, objective=objective)
    assert cut[0] == pytest.approx(parts, rel=1e-5)
    assert tiny.relative(cut[1], gradients) < 1e-5
    answers = sum(len(chat["messages"][1]["content"].split()) + 1 for chat in tiny_language.chats())
    texts = [
        run.processing_class.apply_chat_template(chat["messages"], tokenize=True)["input_ids"]
        for chat in tiny_language.chats()
    ]
    counted = run._window.counts["rows"].item()
    assert counted == (answers if only_assistant else sum(len(text) - 1 for text in texts))


def test_the_hard_loss_is_sft_trainers(tmp_path):
    ours = trainer(tmp_path, teacher_model=tiny_language.teacher(), args={"alpha": 0.0})
    ours.train()
    theirs = trainer(tmp_path, kind=SFTTrainer, config=SFTConfig)
    theirs.train()
    assert tiny.losses(ours) == pytest.approx(tiny.losses(theirs), rel=1e-5)
    for name in ("mean_token_accuracy", "num_tokens"):
        assert tiny.losses(ours, name) == pytest.approx(tiny.losses(theirs, name), rel=1e-6)


@pytest.mark.filterwarnings("ignore:.*(padding-free|padding_free|[Pp]acking|attn_implementation|flash).*")
def test_packed_rows_are_taught_as_if_they_were_alone(tmp_path):
    """Four conversations in one row of 64 tokens: neither model may look across their borders."""
    data = Dataset.from_list(tiny_language.chats(4))
    packing = {"packing": True, "padding_free": True, "max_length": 64}
    whole = ("forward_kl", "hidden_mse", "minilm", "pooled_mse", "pkd", "similarity", "rkd_distance", "contrastive")
    parts = {"teacher_model": tiny_language.teacher(), "objective": dict.fromkeys(whole, 1.0)}
    packed = step(tmp_path, 1, 1, packing, data=data, **parts)
    alone = step(tmp_path, 4, 1, data=data, **parts)
    assert len(packed[2].train_dataset) == 1
    assert min(alone[0].values()) > 1e-3
    for part, value in alone[0].items():
        assert packed[0][part] == pytest.approx(value, rel=1e-5), part
    assert tiny.relative(packed[1], alone[1]) < 1e-5


def test_a_lora_student_evaluation_and_the_card(tmp_path):
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    run = trainer(
        tmp_path, teacher_model=tiny_language.teacher(), peft_config=lora,
        objective={"hidden_mse": {}, "forward_kl": 1.0},
        eval_dataset=Dataset.from_list(tiny_language.chats(4, seed=9)),
    )  # fmt: skip
    run.train()
    assert {"eval_loss", "eval_loss/forward_kl", "eval_mean_token_accuracy"} <= run.evaluate().keys()
    run.save_model()
    assert (tmp_path / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "distillation.safetensors").exists()
    run.create_model_card()
    assert "forward_kl" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_without_a_teacher_it_is_sft_trainer(tmp_path):
    ours, theirs = trainer(tmp_path), trainer(tmp_path, kind=SFTTrainer, config=SFTConfig)
    for run in (ours, theirs):
        run.train()
    assert tiny.losses(ours) == tiny.losses(theirs)
    state = theirs.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in ours.model.state_dict().items())


def test_losses_that_are_no_part_of_the_blend_are_refused(tmp_path):
    with pytest.raises(ValueError, match="loss_type='dft' was given beside a teacher, which is blended with 'nll'"):
        trainer(tmp_path, teacher_model=tiny_language.teacher(), args={"loss_type": "dft"})


def test_augmentation_is_refused_because_labels_go_with_the_tokens(tmp_path):
    with pytest.raises(ValueError, match="which CausalLM cannot read: its labels go with the tokens"):
        trainer(tmp_path, teacher_model=tiny_language.teacher(), args={"augmentation": "mask"})


def test_logits_of_large_vocabularies_are_not_made(tmp_path):
    whole, gradients, _ = step(tmp_path, 8, 1, {"fused_logits": "off"})
    parts, found, run = step(tmp_path, 8, 1, {"fused_logits": "on"})
    assert parts == pytest.approx(whole, rel=1e-5)
    assert tiny.relative(found, gradients) < 1e-5
    assert "num_tokens" in run.state.log_history[0]
    assert "mean_token_accuracy" not in run.state.log_history[0]  # it reads logits
    assert "eval_mean_token_accuracy" not in run.evaluate(run.train_dataset)


PICTURES = (
    "{% for m in messages %}{{ m['role'] + ' : ' }}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{{ '<image> ' if c['type'] == 'image' else c['text'] }}{% endfor %}{% endif %}"
    "{{ ' </s> ' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant : ' }}{% endif %}"
)


def processor():
    """LLaVA's, of pictures of 16 x 16 pixels."""
    words, sides = tiny_language.tokenizer(), {"height": 16, "width": 16}
    words.add_tokens(["<image>"], special_tokens=True)
    return LlavaProcessor(
        CLIPImageProcessorPil(size=sides, do_center_crop=False), words, patch_size=4, num_additional_image_tokens=1,
        vision_feature_select_strategy="default", chat_template=PICTURES, image_token="<image>",
    )  # fmt: skip


def pictured():
    """Questions about one picture, or two, and their answers."""
    numbers, made = np.random.default_rng(0), []
    for i, count in enumerate((1, 1, 2, 1, 1, 1, 2, 1)):
        pictures = [numbers.integers(0, 255, (16, 16, 3), dtype=np.uint8) for _ in range(count)]
        asked, said = [{"role": "user", "content": "w1 w2 "}], [{"role": "assistant", "content": f"w{i} w3"}]
        made.append({"images": [*map(Image.fromarray, pictures)], "prompt": asked, "completion": said})
    return Dataset.from_list(made)


def llava(seed, made):
    model = tiny_vision_language.model("llava", seed)
    model.config.image_token_id = made.tokenizer.convert_tokens_to_ids("<image>")
    return model


def test_pictures_are_taught_however_a_batch_is_cut(tmp_path):
    made, data, found = processor(), pictured(), []
    for size, accumulation in ((8, 1), (2, 4)):
        seen = tiny.Gradients()
        cut = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 1}
        args = SFTDistillationConfig(
            tmp_path, **cut, use_cpu=True, bf16=False, report_to="none", max_length=None, logging_steps=1,
            gradient_checkpointing=False, learning_rate=1e-2, save_strategy="no",
        )  # fmt: skip
        run = SFTDistillationTrainer(
            llava(0, made), args, train_dataset=data, processing_class=made, teacher_model=llava(7, made),
            callbacks=[seen],
        )  # fmt: skip
        run.train()
        found.append((run.state.log_history[0], seen.first))
    assert type(run.task) is ImageTextToText
    for name in ("loss", "loss/hard", "loss/forward_kl"):
        assert found[1][0][name] == pytest.approx(found[0][0][name], rel=1e-5)
    assert tiny.relative(found[1][1], found[0][1]) < 1e-5
