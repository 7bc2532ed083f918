"""What a language model learns of a text and of a conversation."""

import tiny_language

from hf_distill.experiments.data.chats import encoded_chat, encoded_text
from hf_distill.experiments.tokenizers import text_tokenizer


def test_a_text_begins_and_ends_and_a_long_one_does_not_end():
    made = text_tokenizer(["天气很好"], begins=True)
    row = encoded_text(made, "天气", 9)
    assert made.convert_ids_to_tokens(row["input_ids"]) == ["<s>", "▁", "天", "气", "</s>"]
    assert row["labels"] == row["input_ids"]
    assert encoded_text(made, "天气很好", 4)["input_ids"][-1] != made.eos_token_id


def chat(*turns):
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(turns)]


def test_only_the_last_answer_of_a_conversation_is_supervised():
    made = tiny_language.tokenizer()
    row = encoded_chat(made, chat("w1 w2", "w3", "w4", "w5 w6"), 99)
    kept = [i for i, label in enumerate(row["labels"]) if label != -100]
    assert made.decode([row["labels"][i] for i in kept]) == "w5 w6 </s>"
    assert [row["labels"][i] for i in kept] == [row["input_ids"][i] for i in kept]
    assert made.decode(row["input_ids"][: kept[0]]) == "user : w1 w2 assistant : w3 </s> user : w4 assistant :"
    assert encoded_chat(made, chat("w1"), 99)["input_ids"] == []
