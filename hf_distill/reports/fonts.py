"""Which fonts draw a text, so that no character of it becomes an empty box.

Knows: the fonts of this machine and what characters they have. Does not know: figures, reports. Needs matplotlib.
"""

from __future__ import annotations

import importlib.util
import logging
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)

PREFERRED = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "PingFang SC", "Hiragino Sans GB",
    "Heiti SC", "Microsoft YaHei", "SimHei", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Arial Unicode MS",
)  # fmt: skip
"""Families with Chinese glyphs that are looked for first: sans serif, and in the forms of mainland China."""

PACKAGED = ("pylopdf_fonts_zh_cn", "NotoSansSC-Regular.otf")
"""A package of the extra ``recipes``, nothing but fonts (Noto Sans SC, SIL Open Font License), and its file."""

BOXES = ("last resort", "lastresort", "adobe blank", "fallback")
"""Names of fonts that claim every character and draw boxes or nothing."""


def families_for(texts: Iterable[str]) -> tuple[list[str], set[str]]:
    """Choose the fonts that draw all of some texts.

    Args:
        texts: what shall be drawn.

    Returns:
        Font families for matplotlib's ``font.family``, its own first: each draws what those before it lack. And the
        characters that no font of this machine has.

    Example:
        >>> families, lacking = families_for(["accuracy, %"])
        >>> len(families), lacking
        (1, set())
    """
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties, findfont

    families = list(rcParams["font.family"])
    lacking = {character for text in texts for character in text if character.isprintable() and character != " "}
    lacking -= _glyphs(findfont(FontProperties(family=families)))
    for among in (_preferred, _others) if lacking else ():
        found = dict(among())
        while lacking and found:
            # The font that draws most, so that a text is not set in three; of equal ones the first.
            best = max(found, key=lambda name: len(lacking & _glyphs(found[name])))
            drawn = lacking & _glyphs(found.pop(best))
            if not drawn:
                break
            families.append(best)
            lacking -= drawn
    return families, lacking


@cache
def spelled(text: str, lacking: frozenset[str]) -> str:
    """Write a text without the characters that cannot be drawn: Chinese ones in pinyin, others as question marks.

    Args:
        text: what shall be drawn.
        lacking: characters that no font has.

    Returns:
        The text itself where it needs no change.

    Example:
        >>> spelled("sport", frozenset("体育"))
        'sport'
        >>> spelled("体育 1", frozenset("体育"))
        'ti yu 1'
    """
    if lacking.isdisjoint(text):
        return text
    text = unicodedata.normalize("NFKC", text)  # wide punctuation becomes the narrow one, which fonts have
    if importlib.util.find_spec("pypinyin"):
        from pypinyin import lazy_pinyin

        syllables = [part.strip() for part in lazy_pinyin(text)]
        text = " ".join(part for part in syllables if part)
    return "".join("?" if character in lacking else character for character in text)


@cache
def warn_once() -> None:
    """Say, once, that there are characters which no font has, and what to install."""
    logger.warning(
        "no installed font has all characters of a picture's labels: it shows pinyin, class numbers, question marks "
        "in their place; for Chinese pip install 'hf_distill[recipes]', for other scripts install a font of Noto."
    )


@cache
def _preferred() -> dict[str, str]:
    """Family -> file, of the families that are looked for first."""
    from matplotlib.font_manager import fontManager

    package, file = PACKAGED
    spec = importlib.util.find_spec(package)  # found, not imported: only its file is wanted
    if spec is not None and spec.submodule_search_locations:
        path = Path(spec.submodule_search_locations[0]) / file
        if path.is_file() and all(entry.fname != str(path) for entry in fontManager.ttflist):
            fontManager.addfont(path)
    found = _installed()
    return {name: found[name] for name in PREFERRED if name in found}


@cache
def _others() -> dict[str, str]:
    first = _preferred()
    return {name: file for name, file in _installed().items() if name not in first}


def _installed() -> dict[str, str]:
    """Family -> file of its upright face whose weight is nearest to regular."""
    from matplotlib.font_manager import fontManager, weight_dict

    faces: dict[str, tuple[tuple[bool, int], str]] = {}
    for entry in fontManager.ttflist:
        if not any(word in entry.name.lower() for word in BOXES):
            weight = entry.weight if isinstance(entry.weight, int) else weight_dict.get(entry.weight, 400)
            face = ((entry.style != "normal", abs(weight - 400)), entry.fname)
            faces[entry.name] = min(face, faces.get(entry.name, face))
    return {name: file for name, (_, file) in faces.items()}


@cache
def _glyphs(file: str) -> frozenset[str]:
    """The characters that a font has glyphs for; none where it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(file).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()
