"""Transcripts of frames, and models that say nothing."""

import numpy as np
import pytest

from hf_distill.reports import blank_share, collapse, on_blank_plateau


def test_repetitions_are_one_letter_and_a_blank_parts_two():
    frames = np.array([[0, 3, 3, 0, 3, 4, 4, 0], [5, 5, 5, 0, 0, 0, -100, -100], [0] * 8])
    assert collapse(frames, blank=0) == [[3, 3, 4], [5], []]
    assert collapse([[7, 2, 7], [2, 2]], blank=7) == [[2], [2]]


def test_padding_says_nothing_and_is_no_blank():
    assert blank_share(np.array([[0, 0, 1, -100], [0, -100, -100, -100]]), blank=0) == 0.75
    assert blank_share([[9, 9], [1]], blank=9) == pytest.approx(2 / 3)
    for none in ([], np.full((2, 3), -100)):
        with pytest.raises(ValueError, match="there are no frames: give at least one"):
            blank_share(none, blank=0)


@pytest.mark.parametrize(
    ("share", "wer", "stuck"),
    [(1.0, 1.0, True), (0.97, 0.99, True), (0.97, 0.12, False), (0.9, 1.0, False), (0.0, 3.0, False)],
)
def test_stuck_is_who_says_nothing_and_is_wrong(share, wer, stuck):
    assert on_blank_plateau(share, wer) is stuck
