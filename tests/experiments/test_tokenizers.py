"""Tokenizers that are made of texts: characters, pieces of words, syllables."""

from datasets import Dataset
from transformers import AutoTokenizer

from hf_distill.experiments.data.chinese_pinyin import pinyin
from hf_distill.experiments.tokenizers import character_tokenizer, pair_tokenizer, text_tokenizer


def test_the_tokenizer_reads_chinese_and_latin_and_survives_saving(tmp_path):
    tokenizer = character_tokenizer(["中国人民 AT", "中国人民 AT"])
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for one in (tokenizer, loaded):
        assert one.tokenize("中国AT龘") == ["中", "国", "a", "##t", "[UNK]"]


def test_characters_are_the_tokens_or_pieces_of_words():
    texts = ["天气 tian qi", "天下 tian xia"] * 3
    single, pieces = (text_tokenizer(texts, size) for size in (0, 60))
    assert single.tokenize("天气 tian") == ["▁", "天", "气", "▁", "t", "i", "a", "n"]
    assert pieces.tokenize("tian qi") == ["▁tian", "▁qi"]
    assert single("天龘")["input_ids"][-2:] == [single.unk_token_id, single.eos_token_id]
    ended = text_tokenizer(["ein mann, am hut.", "ein hut am mann."] * 3, 60)
    assert ended.tokenize("mann, hut.") == ["▁mann", ",", "▁hut", "."]
    assert ended.decode(ended("ein hut, am mann.")["input_ids"], skip_special_tokens=True) == "ein hut, am mann."
    assert single.decode(single("气 qi xian")["input_ids"], skip_special_tokens=True) == "气 qi xian"


def test_embedded_words_are_read_by_character_and_written_by_syllable():
    rows = [{"source": word, "target": pinyin(word)} for word in ("中国", "中间", "国家", "家中")] * 3
    made = pair_tokenizer(Dataset.from_list(rows), pinyin=True)
    assert made.tokenize("中国") == ["▁", "中", "国"]
    assert made.tokenize("zhong1 guo2") == ["▁zhong1", "▁guo2"]
