"""How near vectors are to a teacher's."""

import numpy as np
import pytest

from hf_distill.experiments.sentence_embeddings import VectorScoring


def test_the_figures_are_the_textbooks():
    scoring = VectorScoring()
    draw = np.random.default_rng(0)
    theirs = draw.normal(size=(40, 8))
    ours = theirs * draw.uniform(0.1, 9.0, size=(40, 1))
    same = scoring.figures(ours, theirs)
    assert (same["cosine"], same["spearman"]) == (pytest.approx(1.0), pytest.approx(1.0))  # lengths do not count
    assert scoring.agreement(ours, theirs, theirs) == 1.0
    turned = theirs @ np.linalg.qr(draw.normal(size=(8, 8)))[0]
    other = scoring.figures(turned, theirs)
    assert other["spearman"] == pytest.approx(1.0)  # a space that is turned has the same similarities
    assert other["cosine"] < 0.5
    noise = scoring.figures(draw.normal(size=(40, 8)), theirs)
    assert abs(noise["spearman"]) < 0.2
