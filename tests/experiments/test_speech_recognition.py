"""Tokenizers of letters, processors beside models, and configurations that know both."""

import pytest
from transformers import AutoModelForCTC, AutoProcessor

from hf_distill.experiments.recordings import RecordingModelArguments, mel_shape
from hf_distill.experiments.speech_recognition import CTCKind, letters_of, load_processor_of, speech_processor


def test_letters_are_those_of_the_transcripts_and_the_blank_is_the_padding():
    tokenizer = letters_of(["ab c", None, "你好"])
    assert tokenizer.pad_token_id == 0
    ids = tokenizer("c 你a")["input_ids"]
    assert len(ids) == 4
    assert tokenizer.decode([ids[0], 0, ids[1], ids[2], ids[2], 0, ids[3]]) == "c 你a"
    assert tokenizer.unk_token_id in tokenizer("x")["input_ids"]


def test_a_processor_is_kept_beside_a_model(tmp_path):
    processor = speech_processor(RecordingModelArguments(mel_bins=8), ["ab"])
    processor.save_pretrained(tmp_path)
    mine = load_processor_of(str(tmp_path), "the model x")
    assert mine.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert AutoProcessor.from_pretrained(tmp_path).feature_extractor.num_mel_bins == 8


def test_of_two_models_the_students_processor_is_read(tmp_path):
    """The teacher's is the collator's second one: each is given features of its own."""
    for name, bins in (("student", 8), ("teacher", 16)):
        speech_processor(RecordingModelArguments(mel_bins=bins), ["ab"]).save_pretrained(tmp_path / name)
    paths = {f"{name}_model_name_or_path": str(tmp_path / name) for name in ("student", "teacher")}
    assert speech_processor(RecordingModelArguments(**paths), ["ab"]).feature_extractor.num_mel_bins == 8


def test_a_model_without_a_processor_is_told(tmp_path):
    with pytest.raises(ValueError, match="there is no processor with a feature extractor and a tokenizer beside it"):
        load_processor_of(str(tmp_path), "the model x")


def test_a_model_has_the_letters_of_its_tokenizer():
    kind = CTCKind(AutoModelForCTC, "FEATURE_EXTRACTION", tokenizer=letters_of(["abcd"]))
    config = kind.labelled(mel_shape(16, 1, 4))
    assert (config.vocab_size, config.pad_token_id, config.ctc_loss_reduction) == (7, 0, "mean")
    assert AutoModelForCTC.from_config(config).lm_head.out_features == 7
