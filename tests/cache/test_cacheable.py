import pytest
import tiny
import tiny_language
import torch
from torch import nn
from transformers import DataCollatorWithPadding

from hf_distill import LiveTeacher, QuestionAnswering, SequenceClassification
from hf_distill.cache.cacheable import examine, inseparable
from hf_distill.cache.keys import NEITHER

HEADS = frozenset({"heads"})
TASK = SequenceClassification(num_labels=3, problem_type=tiny.SINGLE)


def batch(n=6):
    return dict(DataCollatorWithPadding(tiny.tokenizer())(tiny.rows(n)))


class Around(nn.Module):
    """A model whose logits somebody changes."""

    def __init__(self, change):
        super().__init__()
        self.inner, self.change = tiny.teacher(), change

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        return self.change(self.inner(input_ids, attention_mask, token_type_ids).logits, input_ids)


def found(model, made=None, task=TASK, tolerance=1e-3, collective=False):
    teacher = LiveTeacher(model, task)
    made = batch() if made is None else made
    asked = []

    def ask(rows):
        asked.append(rows)
        return teacher(rows, HEADS)

    model.eval()
    reason, padding = examine(ask, made, teacher.inputs(made), tolerance, collective)
    return reason, tuple(padding), len(asked)


ALONE = "it answers a row otherwise alone than among others, or each time anew"


@pytest.mark.parametrize(
    ("model", "reason", "padding"),
    [
        (tiny.teacher(), "", (True, False)),  # absolute positions move with padding on the left
        (Around(lambda logits, ids: logits + 0.2 * ids.shape[1]), "", (False, False)),
        (Around(lambda logits, ids: logits - logits.mean(0)), ALONE, (False, False)),
        (Around(lambda logits, ids: logits + torch.randn_like(logits)), ALONE, (False, False)),
        (Around(lambda logits, ids: logits @ logits.T), ALONE, (False, False)),
    ],
)
def test_what_a_model_looks_at_is_found_out(model, reason, padding):
    assert found(model)[:2] == (reason, padding)


def test_relative_positions_move_nothing():
    ids = torch.randint(7, 31, (3, 9))
    made = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    from hf_distill import CausalLM

    assert found(tiny_language.llama(), made, CausalLM())[:2] == ("", (True, True))


def test_a_batch_norm_left_in_training_is_found_out():
    class Normed(Around):
        def __init__(self):
            super().__init__(None)
            self.norm = nn.BatchNorm1d(3)

        def forward(self, input_ids, attention_mask=None):
            return self.norm.train()(self.inner(input_ids, attention_mask).logits)

    with pytest.raises(ValueError, match="Expected more than 1 value"):  # nor can it answer one row alone
        found(Normed())


def test_half_precision_is_given_its_rounding():
    model = tiny.teacher().to(torch.bfloat16)
    assert found(model, tolerance=3e-2)[:2] == ("", (True, False))


def test_one_row_is_compared_with_itself_twice():
    assert found(tiny.teacher(), batch(1))[:2] == ("", (True, False))
    assert found(Around(lambda logits, ids: logits * len(ids)), batch(1))[0] == ALONE


def test_a_model_that_cannot_read_short_rows_keeps_its_padding():
    def picky(logits, ids):
        if ids.shape[1] < 8:
            raise ValueError("each text must have eight tokens")
        return logits

    assert found(Around(picky))[:2] == ("", (False, False))


def test_rows_of_one_token_or_without_a_mask_say_nothing_of_padding():
    ids = torch.randint(5, 29, (4, 1))
    assert found(tiny.teacher(), {"input_ids": ids, "attention_mask": torch.ones_like(ids)})[1] == (False, False)
    assert found(tiny.teacher(), {"input_ids": torch.randint(5, 29, (4, 6))})[:2] == ("", (False, False))


def test_ranks_that_ask_together_ask_equally_often():
    several = Around(lambda logits, ids: logits - logits.mean(0))
    packed = {"input_ids": torch.arange(5, 11)[None], "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2]])}
    ids = torch.randint(5, 29, (4, 1))
    counts = [
        found(tiny.teacher(), collective=True)[2],
        found(several, collective=True)[2],
        found(tiny.teacher(), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, collective=True)[2],
        found(tiny.teacher(), packed, collective=True)[2],
    ]
    assert counts == [5, 5, 5, 5]
    assert inseparable(packed).startswith("several texts are packed")


class SeesPadding(nn.Module):
    """Points into a text, by how wide the batch is."""

    def forward(self, input_ids, attention_mask):
        logits = input_ids * 0.1 + input_ids.shape[1] * torch.arange(input_ids.shape[1]) * 0.01
        return {"start_logits": logits, "end_logits": logits}


def test_padding_that_is_no_class_hides_nothing():
    """Its logits are -10,000, against which every difference would look small."""
    batch = {"input_ids": torch.randint(5, 29, (3, 9)), "attention_mask": torch.ones(3, 9).tril(6).long()}
    teacher = LiveTeacher(SeesPadding(), QuestionAnswering())
    reason, padding = examine(lambda rows: teacher(rows, frozenset({"heads"})), batch, teacher.inputs(batch), 1e-3)
    assert (reason, padding) == ("", NEITHER)


def test_padding_of_tokens_of_its_own_is_looked_at_too():
    """The student's mask, of other tokens, says nothing of it."""
    own = batch()
    own = {**{f"teacher_{name}": value for name, value in own.items() if name != "labels"}, "labels": own["labels"]}
    own["input_ids"] = torch.randint(5, 29, (len(own["labels"]), 5))
    own["attention_mask"] = torch.ones_like(own["input_ids"])
    assert found(tiny.teacher(), own)[:2] == ("", (True, False))
    assert found(Around(lambda logits, ids: logits + 0.2 * ids.shape[1]), own)[:2] == ("", (False, False))
