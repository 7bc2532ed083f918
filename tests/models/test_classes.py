"""What a model reads decides which task it may have: waves and images are never taken for texts."""

import pytest
import tiny
import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    ViTConfig,
    ViTForImageClassification,
    Wav2Vec2Config,
    Wav2Vec2ForAudioFrameClassification,
    Wav2Vec2Model,
)

from hf_distill import SentenceEmbedding, SequenceClassification, Task, TokenClassification
from hf_distill.models.classes import reads_text, strangers_of

SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
TEXT = {**SIZES, "vocab_size": 32, "max_position_embeddings": 16, "projection_dim": 4}
IMAGE = {**SIZES, "image_size": 8, "patch_size": 4}


def wave(kind, **more):
    sizes = {"conv_dim": (8,), "conv_stride": (4,), "conv_kernel": (4,), "num_conv_pos_embeddings": 4, "vocab_size": 8}
    groups = {"num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 1, "feat_extract_norm": "layer"}
    return kind(Wav2Vec2Config(**SIZES, **sizes, **groups, **more))


def pair(kind, config):
    return kind(config(text_config=TEXT, vision_config=IMAGE, projection_dim=4))


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (lambda: CLIPVisionModel(CLIPVisionConfig(**IMAGE)), "CLIPVisionModel, which reads pixel_values"),
        (lambda: wave(Wav2Vec2ForAudioFrameClassification), "FrameClassification, which reads input_values"),
    ],
)
def test_what_has_no_task_yet_is_refused(tmp_path, model, told):
    student = model()
    assert Task.find(student, taught=True) is None
    with pytest.raises(ValueError, match=f"no task is known for .*{told}"):
        tiny.trainer(tmp_path, student, teacher_model=tiny.teacher())


def test_the_text_half_alone_is_an_encoder_of_texts():
    assert isinstance(Task.of(CLIPTextModel(CLIPTextConfig(**TEXT))), SentenceEmbedding)


@pytest.mark.parametrize("task", [TokenClassification(3), SentenceEmbedding()])
def test_a_task_on_texts_that_is_named_for_a_model_of_waves_is_refused(tmp_path, task):
    student = wave(Wav2Vec2ForAudioFrameClassification)
    told = f"{type(task).__name__} reads a model of texts, Wav2Vec2ForAudioFrameClassification reads input_values"
    with pytest.raises(ValueError, match=told):
        tiny.trainer(tmp_path, student, teacher_model=tiny.teacher(), task=task)


def test_an_image_classifier_may_be_read_as_one_of_sequences(tmp_path):
    def vit(width, seed):
        torch.manual_seed(seed)
        return ViTForImageClassification(ViTConfig(**{**IMAGE, "hidden_size": width}, num_labels=3))

    rows = [{"pixel_values": torch.randn(3, 8, 8), "labels": i % 3} for i in range(8)]
    run = tiny.trainer(
        tmp_path, vit(8, 0), rows, data_collator=None, teacher_model=vit(16, 1), task=SequenceClassification(3)
    )
    run.train()
    assert len(tiny.losses(run, "loss/forward_kl")) == 3


def test_more_positions_than_the_batch_has_are_not_cut_off():
    model, batch = tiny.bert(), {"input_ids": torch.ones(2, 4, dtype=torch.long)}
    with pytest.raises(ValueError, match="gave logits for 6 positions, the batch has 4: Token"):
        TokenClassification(3).signals(model, batch, {"logits": torch.ones(2, 6, 3)})


def test_what_a_model_reads_is_in_its_forward():
    both = pair(CLIPModel, CLIPConfig)
    assert (strangers_of(both), reads_text(both)) == (["pixel_values"], True)
    assert (strangers_of(tiny.bert()), reads_text(tiny.bert())) == ([], True)
    assert not reads_text(wave(Wav2Vec2Model))
