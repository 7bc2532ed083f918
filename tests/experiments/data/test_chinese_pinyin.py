"""Chinese words in Latin letters."""

from hf_distill.experiments.data.chinese_pinyin import pinyin


def test_pinyin_with_tones_and_without():
    assert [pinyin(word) for word in ("长城", "长大", "绿")] == ["chang2 cheng2", "zhang3 da4", "lv4"]
    assert pinyin("银行", tones=False) == "yin hang"
