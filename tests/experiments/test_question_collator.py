"""Questions about pictures become batches: what is read, what is a label, what is kept."""

import pytest
import torch
from PIL import Image

from hf_distill.experiments.question_collator import QuestionCollator
from hf_distill.experiments.vision_language import small_processor

TEXTS = ["which digit ? which digit ?", "what is it ? what is it ?", "7 7 12 12"]


@pytest.fixture
def processor():
    return small_processor(TEXTS, 16, 8, 32)


def row(question="which digit ?", answer="7", shade=9):
    return {"image": Image.new("L", (20, 12), shade), "question": question, "answer": answer}


def test_a_prompt_is_no_label_and_an_answer_is_one_with_its_end(processor):
    batch = QuestionCollator(processor)([row(), row("what is it ?", "7 12"), row(answer=None)])
    ids, labels, mask = batch["input_ids"], batch["labels"], batch["attention_mask"]
    read = [processor.tokenizer.decode(one[here.bool()]) for one, here in zip(ids, mask, strict=True)]
    image = "<image>" * 4
    assert [one.replace(" ", "") for one in read] == [
        f"{image}whichdigit?<answer>7</s>", f"{image}whatisit?<answer>712</s>", f"{image}whichdigit?<answer>",
    ]  # fmt: skip
    told = [processor.tokenizer.decode(one[one != -100]).split() for one in labels]
    assert told[2] == []
    assert [" ".join(one).replace("</s>", " </s>").split() for one in told[:2]] == [["7", "</s>"], ["7", "12", "</s>"]]
    assert torch.equal(labels[labels != -100], ids[labels != -100])
    assert batch["pixel_values"].shape == (3, 3, 16, 16)


def test_what_is_kept_is_what_would_be_made_anew(processor):
    rows = [row(), row("what is it ?", "12", shade=90), row(shade=200)]
    plain, kept = QuestionCollator(processor), QuestionCollator(processor, keep=True)
    expected = plain(rows)
    for _ in range(2):
        found = kept(rows)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], one) for name, one in expected.items())
    assert len(kept.kept) == 3
    assert torch.equal(kept(rows[:1])["pixel_values"], expected["pixel_values"][:1])


def test_long_answers_are_cut(processor):
    collate = QuestionCollator(processor, max_length=2)
    assert int((collate([row(answer="7 12 7 12")])["labels"] != -100).sum()) == 2
    assert QuestionCollator(processor).longest([row(answer="7 12 7")] and _Rows(["7", None, "7 12 7"])) == 4


class _Rows:
    def __init__(self, answers):
        self.answers = answers

    def __getitem__(self, column):
        return self.answers


def test_tokens_become_an_answer_again(processor):
    labels = QuestionCollator(processor)([row(answer="7 12")])["labels"][0].tolist()
    assert QuestionCollator(processor).answer_of(labels) == "7 12"


def test_a_processor_without_a_template_is_refused(processor):
    processor.chat_template = None
    with pytest.raises(ValueError, match="LlavaProcessor has no chat template to write a question with"):
        QuestionCollator(processor)


def test_a_template_that_writes_a_prompt_otherwise_is_refused(processor):
    processor.chat_template = "{{ messages | length }}"
    with pytest.raises(ValueError, match="the answer cannot be told from the prompt"):
        QuestionCollator(processor)


def test_an_image_that_cannot_be_decoded_is_named(processor):
    torn = {**row(), "image": {"bytes": b"no picture", "path": "a.png"}}
    with pytest.raises(ValueError, match="row 1 of a batch has an image that cannot be decoded"):
        QuestionCollator(processor)([row(), torn])
