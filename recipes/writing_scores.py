"""How well texts were written: BLEU, chrF, exact matches, wrong characters.

Knows: texts and their references, how scores are shown. Does not know: models, tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

METRICS = {"exact_match": "exact", "cer": "cer", "chrf": "chrf", "bleu": "bleu"}
"""The Hub's name of a metric -> the report's."""

COLUMNS = {
    "model": lambda row: row["name"],
    "BLEU": lambda row: f"{row['bleu']:.1f}",
    "chrF": lambda row: f"{100 * row['chrf']:.1f} ± {100 * row['chrf_error']:.1f}",
    "exact %": lambda row: f"{100 * row['exact']:.1f} ± {100 * row['exact_error']:.1f}",
    "wrong characters %": lambda row: f"{100 * row['cer']:.1f}",
    "as the teacher %": lambda row: f"{100 * row['agreement']:.1f}",
    "parameters": lambda row: f"{row['parameters']:,}",
    "MB": lambda row: f"{row['megabytes']:.1f}",
    "texts/s": lambda row: f"{row['samples_per_second']:,.0f}",
}


def text_scores(texts: Sequence[str], references: Sequence[str]) -> tuple[dict[str, float], dict]:
    """Score written texts.

    Args:
        texts: what was written, [N].
        references: what was to be written, [N].

    Returns:
        ``bleu`` (sacrebleu's, 0 to 100, over Chinese characters where a reference has some) and ``cer`` (wrong
        characters for each of the references'), of all texts together; ``chrf`` and ``exact`` of each, [N], 0 to 1.

    Raises:
        ImportError: sacrebleu is not installed.

    Reference:
        Papineni et al. 2002; Popović 2015 (chrF); Post 2018, arXiv:1804.08771 (sacrebleu).

    Example:
        >>> scores, each = text_scores(["bei3 jing1", "xi1 an1"], ["bei3 jing1", "xi1 an"])
        >>> round(scores["cer"], 4), each["exact"].tolist()
        (0.0625, [1.0, 0.0])
    """
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise ImportError("BLEU and chrF come with sacrebleu: pip install 'hf_distill[recipes]'.") from error
    bleu, chrf = BLEU(tokenize="zh" if any("一" <= c <= "鿿" for text in references for c in text) else "13a"), CHRF()
    pairs = list(zip(texts, references, strict=True))
    each = {
        "chrf": np.array([chrf.sentence_score(text, [reference]).score / 100 for text, reference in pairs]),
        "exact": np.array([float(text == reference) for text, reference in pairs]),
    }
    wrong, length = sum(edits(*pair) for pair in pairs), sum(map(len, references))
    return {"bleu": bleu.corpus_score(list(texts), [list(references)]).score, "cer": wrong / length}, each


def edits(text: str, reference: str) -> int:
    """Count the characters to insert, delete or replace (Levenshtein 1966).

    Args:
        text: what was written.
        reference: what was to be written.

    Example:
        >>> edits("kitten", "sitting")
        3
    """
    row = list(range(len(reference) + 1))
    for i, character in enumerate(text, 1):
        corner, row[0] = row[0], i
        for j, wanted in enumerate(reference, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (character != wanted))
    return row[-1]
