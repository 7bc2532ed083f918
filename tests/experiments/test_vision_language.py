"""Models that answer questions about pictures: their shapes, their layers, their processor."""

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, BertConfig, BertModel

from hf_distill.experiments.models import ModelKind, make_student
from hf_distill.experiments.vision_language import (
    VisionLanguageArguments,
    blank_llava,
    shared_processor,
    small_llava,
    small_processor,
)

SIZES = {"teacher_layers": 2, "teacher_vision_layers": 2, "teacher_hidden_size": 64}
KIND = {"auto": AutoModelForImageTextToText, "adapter": "CAUSAL_LM", "blank": blank_llava, "small": small_llava}


@pytest.fixture
def processor():
    return small_processor(["is it a 7 ? is it a 7 ?"], 16, 8, 32)


@pytest.fixture
def teacher(processor):
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(blank_llava(VisionLanguageArguments(**SIZES), processor))


def test_a_student_made_here_has_its_teachers_tokens_and_patches(teacher):
    recipe = VisionLanguageArguments(student_layers=1, student_hidden_size=32)
    config = make_student(recipe, ModelKind(**KIND), teacher, seed=0).config
    text, vision = config.text_config, config.vision_config
    assert (text.num_hidden_layers, text.hidden_size, text.vocab_size) == (
        1,
        32,
        teacher.config.text_config.vocab_size,
    )
    assert (vision.num_hidden_layers, vision.hidden_size, vision.patch_size) == (1, 32, 8)
    assert config.image_token_index == teacher.config.image_token_index


def test_a_student_cut_from_its_teacher_may_have_fewer_layers_that_read_images(teacher):
    recipe = VisionLanguageArguments(student_layers=1, student_from_teacher=True, **SIZES)
    depths = []
    for layers in (1, None):
        student = make_student(recipe, ModelKind(**KIND, vision_layers=layers), teacher, seed=0)
        assert student.config.text_config.num_hidden_layers == 1
        depths.append(student.config.vision_config.num_hidden_layers)
    assert depths == [1, 2]
    name = "model.vision_tower.encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(student.state_dict()[name], teacher.state_dict()[name])


def test_a_teacher_of_another_kind_wants_a_student_by_name():
    bert = BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8))
    with pytest.raises(ValueError, match="the teacher is BertModel: name a student with"):
        small_llava(VisionLanguageArguments(), bert)


def test_a_processor_is_loaded_again_and_two_tokenizers_are_refused(processor, tmp_path):
    processor.save_pretrained(tmp_path / "a")
    small_processor(["other words other words"], 16, 8, 32).save_pretrained(tmp_path / "b")
    again = AutoProcessor.from_pretrained(tmp_path / "a")
    assert (type(again), again.patch_size, again.chat_template) == (type(processor), 8, processor.chat_template)
    paths = [str(tmp_path / name) for name in "ab"]
    one = VisionLanguageArguments(teacher_model_name_or_path=paths[0])
    assert shared_processor(one, []).tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    two = VisionLanguageArguments(teacher_model_name_or_path=paths[0], student_model_name_or_path=paths[1])
    with pytest.raises(ValueError, match=r"but their tokenizers differ \(\d+ and \d+ tokens\): name a student of the"):
        shared_processor(two, [])
