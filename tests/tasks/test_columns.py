import torch

from hf_distill.tasks.columns import Columns, choices_in, several_texts_a_row

IDS, MASK = torch.tensor([[5, 6, 0]]), torch.tensor([[1, 1, 0]])


def test_columns_along_the_mask_are_padded_with_it():
    inputs = {"input_ids": IDS, "attention_mask": MASK, "inputs_embeds": torch.ones(1, 3, 4), "scores": torch.ones(1)}
    laid = Columns.of(inputs)
    assert laid.padded == {"input_ids", "attention_mask", "inputs_embeds"}
    assert (laid.marks, laid.cuttable) == ("attention_mask", True)


def test_without_a_mask_nothing_can_be_cut():
    laid = Columns.of({"input_ids": IDS})
    assert (laid.mask, laid.padded, laid.cuttable) == (None, frozenset(), False)


def test_a_mask_of_several_texts_a_row_is_no_mask_of_positions():
    inputs = {"input_ids": torch.ones(1, 2, 3), "attention_mask": torch.ones(1, 2, 3)}
    assert Columns.of(inputs).mask is None
    assert several_texts_a_row(inputs).shape == (1, 2, 3)
    assert several_texts_a_row({"attention_mask": MASK}) is None
    assert choices_in(inputs) == 2


def test_features_of_the_masks_length_along_another_axis_cannot_be_cut():
    assert not Columns.of({"input_features": torch.ones(1, 8, 3), "attention_mask": MASK}).cuttable
    assert Columns.of({"input_features": torch.ones(1, 8, 7), "attention_mask": MASK}).cuttable


def test_the_decoders_columns_are_never_the_encoders():
    inputs = {"input_ids": IDS, "attention_mask": MASK, "labels": IDS, "decoder_input_ids": IDS}
    laid = Columns.of(inputs, decoder=MASK.bool())
    assert laid.padded == {"input_ids", "attention_mask"}
    assert laid.decoder == {"labels", "decoder_input_ids"}
