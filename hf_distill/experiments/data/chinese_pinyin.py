"""How Chinese words are read aloud, in Latin letters: pinyin, by the package pypinyin (MIT).

Knows: syllables and tones. Does not know: where words come from, models.
"""

from __future__ import annotations


def pinyin(word: str, tones: bool = True) -> str:
    """Write a Chinese word in Latin letters, a syllable at a time.

    Args:
        word: in Chinese characters.
        tones: whether a digit behind each syllable says its tone; none: the light one.

    Raises:
        ImportError: pypinyin is not installed.

    Example:
        >>> pinyin("中国"), pinyin("中国", tones=False)
        ('zhong1 guo2', 'zhong guo')
    """
    try:
        from pypinyin import Style, lazy_pinyin
    except ImportError as error:
        raise ImportError(
            "the embedded words' pinyin comes with pypinyin: pip install 'hf_distill[recipes]'."
        ) from error
    return " ".join(lazy_pinyin(word, style=Style.TONE3 if tones else Style.NORMAL))
