"""How many frames a model makes of a recording."""

import pytest
import tiny_speech
import torch
from transformers import MoonshineConfig, MoonshineForConditionalGeneration

from hf_distill.models.frames import frame_mask, frames_of


@pytest.mark.parametrize("kind", tiny_speech.CTCS)
def test_there_are_as_many_as_logits(kind):
    model = tiny_speech.CTCS[kind]().eval()
    batch = tiny_speech.collate(tiny_speech.recordings(3, kind=kind))
    del batch["labels"]
    mask = frame_mask(batch, frames_of(model))
    with torch.no_grad():
        assert mask.shape == model(**batch).logits.shape[:2]
    assert mask.all(dim=1).sum() == 1  # the longest
    assert mask.sum(dim=1).tolist() == sorted(mask.sum(dim=1).tolist())


def test_a_model_that_tells_one_length_at_a_time_is_asked_for_each():
    """Moonshine's method takes one number; a batch of two recordings was an error before."""
    model = tiny_speech.moonshine().eval()
    batch = tiny_speech.collate(tiny_speech.recordings(3, kind="moonshine"))
    mask = frame_mask(batch, frames_of(model))
    with torch.no_grad():
        assert mask.shape == model(**batch).encoder_last_hidden_state.shape[:2]
    assert mask.sum(dim=1).tolist() == [4, 5, 7]


def test_without_a_mask_all_are_as_long_as_the_longest():
    model = tiny_speech.wav2vec2()
    assert frame_mask({"input_values": torch.zeros(2, 96)}, frames_of(model)).all()
    assert frame_mask({"input_ids": torch.zeros(2, 96)}, frames_of(model)) is None


def test_a_model_that_tells_it_of_one_recording_tells_it_of_several():
    model = MoonshineForConditionalGeneration(MoonshineConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, encoder_num_hidden_layers=1, decoder_num_hidden_layers=1,
        encoder_num_attention_heads=2, decoder_num_attention_heads=2,
    ))  # fmt: skip
    frames = frames_of(model)
    with torch.no_grad():
        shown = [model.model.encoder(torch.zeros(1, n)).last_hidden_state.shape[1] for n in (900, 1700)]
    assert frames(torch.tensor([900, 1700])).tolist() == shown
