"""The likeliest transcripts, against all alignments there are."""

import itertools
import math

import pytest
import torch

from hf_distill.objectives.prefix_beam import best_path, prefix_beam


def collapsed(path, blank):
    return tuple(letter for letter, _ in itertools.groupby(path) if letter != blank)


def by_hand(log_p, blank):
    """Every alignment, added up by its transcript."""
    shares = {}
    for path in itertools.product(range(log_p.shape[1]), repeat=log_p.shape[0]):
        share = math.exp(sum(log_p[t, letter].item() for t, letter in enumerate(path)))
        heard = collapsed(path, blank)
        shares[heard] = shares.get(heard, 0.0) + share
    return sorted(shares.items(), key=lambda one: -one[1])


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("seed", range(4))
def test_transcripts_and_shares_are_those_of_all_alignments(seed, blank):
    log_p = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).log_softmax(-1)
    found, wanted = prefix_beam(log_p, blank, several=4, beam=500), by_hand(log_p, blank)[:4]
    assert [letters for letters, _ in found] == [letters for letters, _ in wanted]
    assert [math.exp(share) for _, share in found] == pytest.approx([share for _, share in wanted], rel=1e-9)


def test_a_narrow_beam_finds_what_is_plain():
    log_p = torch.full((9, 5), -6.0)
    for frame, letter in enumerate((0, 1, 1, 0, 1, 3, 0, 0, 4)):
        log_p[frame, letter] = 3.0
    found = prefix_beam(log_p.log_softmax(-1), 0, several=2, beam=2)
    assert found[0][0] == best_path(log_p, 0) == (1, 1, 3, 4)
    assert found[0][1] > found[1][1]


def test_no_frame_says_nothing():
    assert prefix_beam(torch.zeros(0, 3), 0, several=2, beam=4) == [((), 0.0)]
    assert best_path(torch.zeros(0, 3), 0) == ()
