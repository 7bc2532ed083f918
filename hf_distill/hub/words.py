"""The words that the Hub knows in a card: licences and languages; any other is found by nobody there.

Knows: lists, the nearest word. Does not know: cards.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache
from importlib import resources

LICENCES = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
    lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
    open-mdw openmdw-1.0 openmdw-1.1 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr
    deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4
    grok2-community gemma unknown other
    """.split()
)
"""https://huggingface.co/docs/hub/repositories-licenses"""

BESIDE = {"multilingual": "several languages", "code": "programming languages"}
"""What the Hub takes for a language beside the codes of ISO 639."""

COUNTRIES = {"cn": "zh", "jp": "ja", "cz": "cs", "dk": "da", "gr": "el", "vn": "vi", "ua": "uk", "ir": "fa"}
"""Codes of countries that are taken for those of their language, and mean none."""


def check_licence(word: str) -> None:
    """Refuse a licence that the Hub does not know.

    Args:
        word: such as ``apache-2.0``.

    Raises:
        ValueError: with the nearest that it knows.

    Example:
        >>> check_licence("MIT")
        Traceback (most recent call last):
        ...
        ValueError: license=MIT was given, which the Hub does not know: did you mean mit (else other, --license_name)?
    """
    if word in LICENCES:
        return
    plain = {_plain(known): known for known in sorted(LICENCES)}
    near = plain.get(_nearest(_plain(word), plain, 0.6))
    meant = f"did you mean {near} (else other, --license_name)?" if near else "use other, with --license_name."
    raise ValueError(f"license={word} was given, which the Hub does not know: {meant}")


def check_languages(words: Iterable[str]) -> None:
    """Refuse a language that is no code of ISO 639, which the Hub finds models by.

    Args:
        words: such as ``zh``, ``yue``, ``multilingual``.

    Raises:
        ValueError: with the nearest code.

    Example:
        >>> check_languages(["zh", "Chinese"])
        Traceback (most recent call last):
        ...
        ValueError: language=Chinese was given, which is no code of ISO 639: did you mean zh (Chinese)?
    """
    named, others = languages()
    for word in words:
        if word in named or word in others or word in BESIDE:
            continue
        plain = word.lower().replace("_", "-")
        names = {name.lower(): code for code, name in (named | BESIDE).items()}
        code = COUNTRIES.get(plain) or next((one for one in (plain, plain.partition("-")[0]) if one in named), None)
        code = code or names.get(_nearest(plain, names, 0.75)) or (plain if plain in others else None)
        meant = f"did you mean {code} ({named[code]})?" if code in named else f"did you mean {code}?"
        raise ValueError(
            f"language={word} was given, which is no code of ISO 639: "
            + (meant if code else "name one of two or three letters, such as zh or yue.")
        )


@cache
def languages() -> tuple[dict[str, str], frozenset[str]]:
    """Read the codes of ISO 639.

    Returns:
        Of two letters, with their names in English; and all of three letters.

    Example:
        >>> named, others = languages()
        >>> named["zh"], "yue" in others
        ('Chinese', True)
    """
    text = resources.files("hf_distill.hub").joinpath("iso_639.txt").read_text(encoding="utf-8")
    _, two, three = text.split("#")
    named = dict(line.split(" ", 1) for line in two.splitlines()[1:])
    groups = (line.split() for line in three.splitlines()[1:])
    return named, frozenset(first + last for first, lasts in groups for last in lasts)


def _plain(word: str) -> str:
    return "".join(character for character in word.lower() if character.isalnum() or character == "+")


def _nearest(word: str, known: Iterable[str], cutoff: float) -> str | None:
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=cutoff)), None)
