"""What is asked of texts before the first step; rows that are too long: tests/trainer/test_refusals.py."""

import logging

import pytest
import tiny
import tiny_language
from transformers import DataCollatorForLanguageModeling


@pytest.mark.parametrize("told", [1, 0])
def test_a_token_that_ends_and_pads_is_told_once(tmp_path, caplog, told):
    tokenizer = tiny_language.tokenizer()
    if told:
        tokenizer.pad_token = tokenizer.eos_token
    rows = [{"input_ids": row["input_ids"]} for row in tiny_language.texts()]
    with caplog.at_level(logging.WARNING):
        tiny.trainer(
            tmp_path, tiny_language.llama(), rows, teacher_model=tiny_language.teacher(), args={"alpha": 1.0},
            data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        )  # fmt: skip
    assert caplog.text.count("both ends and pads texts") == told
