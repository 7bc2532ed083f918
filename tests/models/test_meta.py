"""What is measured of image models is what they show, and nothing of it is random or costs memory."""

import copy

import pytest
import tiny
import tiny_images
import torch
from transformers import (
    CLIPConfig,
    CLIPForImageClassification,
    ImageGPTConfig,
    ImageGPTForImageClassification,
    ViTConfig,
    ViTModel,
)

from hf_distill.models import meta
from hf_distill.models.facts import Facts
from hf_distill.models.meta import built, flat, image_widths, unread


@pytest.mark.parametrize("kind", tiny_images.KINDS)
def test_widths_are_those_of_the_hidden_states(kind):
    model = tiny_images.KINDS[kind]().eval()
    state = torch.get_rng_state()
    widths = image_widths(model)
    assert torch.equal(torch.get_rng_state(), state)
    pixels = torch.zeros(2, 3, *[32 if kind == "mobilenet" else 16] * 2)
    with torch.no_grad():
        shown = model(pixel_values=pixels, output_hidden_states=True).hidden_states
    assert widths == tuple(flat(one).shape[-1] for one in shown)
    facts = Facts.of(model)
    assert (facts.hidden_size, facts.num_layers) == (widths[-1], len(widths) - 1)
    assert [facts.width(layer) for layer in range(len(widths))] == list(widths)


def test_a_copy_is_not_run_again_and_another_configuration_is(monkeypatch):
    made = []
    monkeypatch.setattr(meta, "built", lambda *given: made.append(1) or built(*given))
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 5}
    small, copied, taller = (ViTModel(ViTConfig(image_size=size, **sizes)) for size in (32, 32, 48))
    for model, seen in ((small, 1), (copied, 1), (taller, 2)):
        assert image_widths(model) == (12, 12)
        assert len(made) == seen
    for model, seen in ((small, 3), (copied, 3), (taller, 4)):
        assert "doesn't match model" in unread(model, (3, 64, 64))
        assert len(made) == seen
    small.config.mine = object()  # which cannot be written down
    assert image_widths(copy.deepcopy(small)) == (12, 12)


def test_a_tower_of_images_is_not_taken_for_the_tower_of_texts_beside_it():
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = CLIPConfig(
        text_config={"hidden_size": 8, "vocab_size": 9, **sizes},
        vision_config={"hidden_size": 16, "image_size": 8, "patch_size": 4, **sizes, "num_hidden_layers": 3},
    )
    facts = Facts.of(CLIPForImageClassification(config))
    assert (facts.hidden_size, facts.num_layers, facts.widths) == (16, 3, (16,) * 4)


def test_of_an_image_model_that_cannot_be_measured_no_width_is_known():
    config = ImageGPTConfig(vocab_size=9, n_positions=4, n_embd=8, n_layer=1, n_head=2, num_labels=2)
    model = ImageGPTForImageClassification(config)
    model.__class__.main_input_name, before = "pixel_values", model.__class__.main_input_name
    try:
        facts = Facts.of(model)
    finally:
        model.__class__.main_input_name = before
    assert (facts.hidden_size, facts.num_layers, facts.widths) == (None, None, None)


def test_models_of_texts_are_read_from_their_configuration():
    assert image_widths(tiny.bert()) is None
    assert Facts.of(tiny.bert()).width(1) == 16


def test_a_model_is_built_without_memory():
    assert {p.device.type for p in built(type(tiny.bert()), tiny.bert().config).parameters()} == {"meta"}
