"""Where a prompt ends, and every column of a row that another text follows."""

import pytest
import tiny_language
import torch
from torch import nn

from hf_distill.rollouts.prompts import DecoderLayout, EncoderDecoderLayout

IDS = [[9, 10, 11, 12], [13, 14, 15, 0], [16, 17, 0, 0], [18, 19, 20, 0]]
MASK = [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
LABELS = [[-100, -100, 11, 12], [-100, -100, -100, -100], [16, 17, -100, -100], [-100, 19, 20, -100]]
WRITTEN = {0: torch.tensor([21, 22, 23, 2]), 1: torch.tensor([24])}


def batch(left=False, **more):
    made = {
        "input_ids": torch.tensor(IDS),
        "attention_mask": torch.tensor(MASK),
        "labels": torch.tensor(LABELS),
        **more,
    }
    if left:
        for name, value in made.items():
            made[name] = torch.stack([row.roll(4 - sum(mask)) for row, mask in zip(value, MASK, strict=True)])
    return made


@pytest.mark.parametrize("left", [False, True])
def test_a_prompt_is_what_comes_before_the_first_label(left):
    found = DecoderLayout(pad=0).prompts(batch(left))
    found = [None if prompt is None else prompt["input_ids"].tolist() for prompt in found]
    assert found == [[9, 10], [13, 14, 15], None, [18]]  # no label: a prompt as a whole; the first is one: no prompt
    assert DecoderLayout(pad=0).labelled(batch(left)).tolist() == [True, False, True, True]


@pytest.mark.parametrize("left", [False, True])
def test_every_column_of_a_decoder_goes_on(left):
    starts = torch.tensor([[0, 1, 2, 3]] * 4)
    kinds = torch.tensor([[3, 4, 5, 6]] * 4)
    given = batch(left, position_ids=starts, token_type_ids=kinds)
    given["weight"] = torch.arange(4.0)
    found = DecoderLayout(pad=0).rewritten(given, WRITTEN, nn.Identity())
    rows = {
        "input_ids": [[9, 10, 21, 22, 23, 2], [13, 14, 15, 24], [16, 17], [18, 19, 20]],
        "attention_mask": [[1] * 6, [1] * 4, [1] * 2, [1] * 3],
        "labels": [[-100, -100, 21, 22, 23, 2], [-100, -100, -100, 24], [16, 17], [-100, 19, 20]],
        "position_ids": [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3], [0, 1], [0, 1, 2]],
        "token_type_ids": [[3, 4, 4, 4, 4, 4], [3, 4, 5, 5], [3, 4], [3, 4, 5]],
    }
    for name, wanted in rows.items():
        fill = -100 if name == "labels" else 0
        padded = [[*[fill] * (6 - len(row)), *row] if left else [*row, *[fill] * (6 - len(row))] for row in wanted]
        assert found[name].tolist() == padded, name
    assert torch.equal(found["weight"], given["weight"])


def test_a_batch_without_padding_is_padded_on_the_tokenizers_side():
    given = {"input_ids": torch.tensor([[5, 6], [7, 8]]), "labels": torch.tensor([[-100, 6], [-100, 8]])}
    for left, wanted in ((False, [[5, 9, 9], [7, 8, 0]]), (True, [[5, 9, 9], [0, 7, 8]])):
        found = DecoderLayout(pad=0, left=left).rewritten(given, {0: torch.tensor([9, 9])}, nn.Identity())
        assert found["input_ids"].tolist() == wanted
        assert found["attention_mask"].sum() == 5


def test_without_labels_a_row_is_a_prompt_and_stays_a_text_where_nobody_writes():
    given = {"input_ids": torch.tensor([[5, 6], [7, 0]]), "attention_mask": torch.tensor([[1, 1], [1, 0]])}
    layout = DecoderLayout(pad=0)
    assert [prompt["input_ids"].tolist() for prompt in layout.prompts(given)] == [[5, 6], [7]]
    found = layout.rewritten(given, {1: torch.tensor([9, 2])}, nn.Identity())
    assert found["labels"].tolist() == [[5, 6, -100], [-100, 9, 2]]
    assert layout.labelled(given).tolist() == [True, False]


def test_a_decoder_beside_an_encoder_gets_labels_and_inputs():
    student = tiny_language.t5()
    labels = torch.tensor([[7, 8, 2], [9, 2, -100]])
    given = {
        "input_ids": torch.tensor([[5, 6], [5, 0]]), "attention_mask": torch.tensor([[1, 1], [1, 0]]),
        "labels": labels, "decoder_input_ids": student.prepare_decoder_input_ids_from_labels(labels=labels),
        "decoder_attention_mask": (labels != -100).long(),
    }  # fmt: skip
    layout = EncoderDecoderLayout(pad=0)
    assert [prompt["input_ids"].tolist() for prompt in layout.prompts(given)] == [[5, 6], [5]]
    found = layout.rewritten(given, {1: torch.tensor([21, 22, 23, 2])}, student)
    assert found["labels"].tolist() == [[7, 8, 2, -100], [21, 22, 23, 2]]
    assert found["decoder_input_ids"].tolist() == [[0, 7, 8, 0], [0, 21, 22, 23]]
    assert found["decoder_attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert torch.equal(found["input_ids"], given["input_ids"])
    assert torch.equal(found["attention_mask"], given["attention_mask"])


def test_a_decoders_row_that_nobody_rewrote_keeps_its_place_behind_what_is_not_supervised():
    student, labels = tiny_language.t5(), torch.tensor([[-100, 7, 8, 2], [-100, 9, 2, -100]])
    inputs = torch.tensor([[0, 5, 7, 8], [0, 5, 9, 2]])  # 5 is given and not learned
    given = {"input_ids": torch.tensor([[5, 6], [5, 6]]), "labels": labels, "decoder_input_ids": inputs}
    for rows in ([0], [0, 1]):  # also where no row is padded
        some = {name: value[rows] for name, value in given.items()}
        found = EncoderDecoderLayout(pad=0).rewritten(some, {}, student)
        assert torch.equal(found["labels"], labels[rows])
        assert torch.equal(found["decoder_input_ids"][found["labels"] != -100], inputs[rows][labels[rows] != -100])
    turned = EncoderDecoderLayout(pad=0, left=True).rewritten(
        {"input_ids": torch.tensor([[5], [6]]), "labels": torch.tensor([[-100, 9], [7, 8]])},
        {0: torch.tensor([9, 9, 2])},
        student,
    )
    assert turned["labels"].tolist() == [[9, 9, 2], [-100, 7, 8]]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"position_ids": torch.tensor([[0, 1, 0, 1], [0, 1, 2, 0], [0, 1, 0, 0], [0, 1, 2, 0]])}, "packed"),
        ({"attention_mask": torch.tensor([[1, 1, 2, 2], *MASK[1:]])}, "packed"),
        ({"attention_mask": torch.ones(4, 1, 4, 4)}, "packed"),
        ({"cu_seq_lens_q": torch.tensor([0, 2, 4])}, "packed"),
        ({"shift_labels": torch.tensor(LABELS)}, "'shift_labels' goes on behind a prompt"),
        ({"segments": torch.tensor(MASK)}, "'segments' goes on behind a prompt"),
        ({"teacher_input_ids": torch.tensor(IDS)}, "has teacher_input_ids for the teacher alone"),
        ({"input_ids": None}, "reads prompts from input_ids"),
    ],
)
def test_rows_that_cannot_be_continued_are_refused(more, told):
    DecoderLayout(pad=0).check(
        batch(position_ids=torch.tensor([[0, 1, 2, 3], [0, 1, 2, 0], [0, 1, 0, 0], [0, 1, 2, 0]]))
    )
    with pytest.raises(ValueError, match=told):
        DecoderLayout(pad=0).check({**batch(), **more})
