"""A plain function as teacher."""

import pytest
import tiny
import torch

from hf_distill import FunctionTeacher, SequenceClassification

TASK = SequenceClassification(num_labels=3)
HEADS = frozenset({"heads"})


def batch():
    return dict(tiny.DataCollatorWithPadding(tiny.tokenizer())(tiny.rows()))


@pytest.mark.parametrize("answer", [[[0.0, 1.0, 2.0]] * 8, (torch.zeros(8, 3),), {"logits": torch.zeros(8, 3)}])
def test_it_may_answer_with_lists_tuples_or_mappings(answer):
    assert FunctionTeacher(lambda batch: answer, TASK)(batch(), HEADS).heads["logits"].logits.shape == (8, 3)


def test_it_is_given_the_batch_without_labels():
    seen = {}
    FunctionTeacher(lambda batch: seen.update(batch) or torch.zeros(8, 3), TASK)(batch(), HEADS)
    assert seen.keys() == {"input_ids", "attention_mask"}
