"""A plain function as teacher."""

import pytest
import tiny
import torch
from datasets import Dataset

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


def trained(folder, teacher, **args):
    logits = [[0.5, 0.0, -0.5]] * 8
    rows = [{**row, "teacher_logits": one} for row, one in zip(tiny.rows(), logits, strict=True)]
    run = tiny.trainer(folder, data=Dataset.from_list(rows), teacher_model=teacher, args={"max_steps": 1, **args})
    run.train()
    return run


def test_a_column_that_was_dropped_is_named_with_the_way_to_keep_it(tmp_path):
    told = (
        r"^the teacher <lambda> reads the column 'teacher_logits', the batch has \['attention_mask', 'input_ids'\]: "
        r"name what it reads beside the student, teacher_model=FunctionTeacher\(function, "
        r"columns=\['teacher_logits'\]\), so that it stays in the data set\.$"
    )
    with pytest.raises(ValueError, match=told):
        trained(tmp_path, lambda batch: batch["teacher_logits"])
    named = FunctionTeacher(lambda batch: batch["teacher_logits"], columns=["teacher_logits"])
    assert trained(tmp_path, named).state.global_step == 1


def test_a_key_error_of_something_else_is_the_functions_own(tmp_path):
    for key in ("input_ids", 7):
        with pytest.raises(KeyError):
            trained(tmp_path, lambda batch, key=key: {}[key])


@pytest.mark.parametrize("answer", [None, "good", [[0.0], [1.0, 2.0]]])
def test_what_is_no_logits_is_one_sentence(tmp_path, answer):
    told = (
        f"the teacher <lambda> returned a {type(answer).__name__} that is no logits .*: return a tensor, an array or"
    )
    with pytest.raises(ValueError, match=told) as raised:
        trained(tmp_path, lambda batch: answer)
    assert "\n" not in str(raised.value)
