"""Hidden tokens: the same once and for all, others in each batch, texts that become several rows, what is refused."""

import pytest
import tiny_language
import torch
from datasets import Dataset

from hf_distill.experiments.data.hidden_tokens import HidingCollator, check_hiding, encoded, hide_once
from hf_distill.experiments.tokenizers import character_tokenizer

TEXTS = ["天气很好我们去公园看花", "孩子非常喜欢这本书", "好"]


@pytest.fixture(scope="module")
def tokenizer():
    return character_tokenizer(TEXTS * 2)


@pytest.fixture(scope="module")
def rows(tokenizer):
    return encoded({"test": Dataset.from_dict({"text": TEXTS})}, tokenizer, "text", 32, False)[0]["test"]


def test_what_is_hidden_once_is_the_same_wherever_the_text_stands(tokenizer, rows):
    first, turned = hide_once(rows, tokenizer, 0.3), hide_once(rows.select([2, 1, 0]), tokenizer, 0.3)
    assert first.to_list() == turned.to_list()[::-1]
    for plain, row in zip(rows, first, strict=True):
        hidden = [label != -100 for label in row["labels"]]
        assert any(hidden)
        assert not hidden[0]
        assert not hidden[-1]
        whole = [
            label if was else one for one, label, was in zip(row["input_ids"], row["labels"], hidden, strict=True)
        ]
        assert whole == plain["input_ids"]
        assert {one for one, was in zip(row["input_ids"], hidden, strict=True) if was} == {tokenizer.mask_token_id}


def test_the_share_that_is_hidden_is_the_one_that_was_asked_for(tokenizer):
    ids = torch.randint(5, len(tokenizer), (400, 50)).tolist()
    hidden = hide_once(Dataset.from_dict({"input_ids": ids}), tokenizer, 0.15)["labels"]
    share = sum(label != -100 for row in hidden for label in row) / 20_000
    assert share == pytest.approx(0.15, abs=0.01)  # four standard errors


def test_rows_without_labels_have_other_tokens_hidden_each_time_and_the_generator_decides(tokenizer, rows):
    collate, fed = HidingCollator(tokenizer, 0.5), rows.to_list()
    torch.manual_seed(0)
    first, second = collate(fed), collate(fed)
    assert not torch.equal(first["labels"], second["labels"])
    torch.manual_seed(0)
    assert torch.equal(collate(fed)["input_ids"], first["input_ids"])
    assert (first["labels"][first["attention_mask"] == 0] == -100).all()
    kept = hide_once(rows, tokenizer, 0.5)
    batch = collate(kept.to_list())
    assert batch["labels"][1][: len(kept[1]["labels"])].tolist() == kept[1]["labels"]
    assert torch.equal(batch["labels"], collate(kept.to_list())["labels"])


def test_a_long_text_is_cut_or_becomes_several_rows(tokenizer):
    rows = {"train": Dataset.from_dict({"text": TEXTS})}
    cut, _ = encoded(rows, tokenizer, "text", 6, False)
    divided, _ = encoded(rows, tokenizer, "text", 6, True)
    assert (len(cut["train"]), len(divided["train"])) == (3, 7)
    read = [tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") for ids in divided["train"]["input_ids"]]
    assert "".join(read) == "".join(TEXTS)


def test_a_text_of_unknown_tokens_is_left_out_and_counted(tokenizer):
    rows = {"train": Dataset.from_dict({"text": [*TEXTS, "xyz"]})}
    found, said = encoded(rows, tokenizer, "text", 8, False)
    assert (len(found["train"]), said) == (3, "left out without a token to hide: 1 train")
    with pytest.raises(ValueError, match="none of the 1 train rows has a token that is known"):
        encoded({"train": Dataset.from_dict({"text": ["xyz"]})}, tokenizer, "text", 8, False)


def test_what_cannot_hide_is_refused(tokenizer):
    with pytest.raises(ValueError, match="has no mask token to hide others with: name masked language models"):
        check_hiding(tiny_language.tokenizer(), 0.15)
    for share in (0, 1, 15):
        with pytest.raises(ValueError, match=rf"mlm_probability={share} was given: give a share"):
            check_hiding(tokenizer, share)
