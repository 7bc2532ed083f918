"""Which frame of a teacher belongs to which of a student."""

import torch

from hf_distill.tasks.frame_rates import averaged, places, taken


def rows(*lengths, width=None):
    return torch.arange(width or max(lengths)) < torch.tensor(lengths).unsqueeze(1)


def test_it_is_the_least_blank_frame_of_each_window_row_by_row():
    ours, theirs = rows(5, 3, 1), rows(13, 9, 4)
    silent = torch.rand(3, 13, generator=torch.Generator().manual_seed(1))
    found = places(ours, theirs, silent)
    for row, (n, m) in enumerate(((5, 13), (3, 9), (1, 4))):
        for frame in range(n):
            window = [j for j in range(m) if j * n // m == frame]
            assert found[row, frame] == min(window, key=lambda j, row=row: silent[row, j])


def test_fewer_frames_recur():
    found = places(rows(6, 4), rows(3, 2), torch.zeros(2, 3))
    assert found.tolist() == [[0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 0, 0]]


def test_as_many_frames_are_themselves():
    assert places(rows(4, 2), rows(4, 2), torch.zeros(2, 4)).tolist() == [[0, 1, 2, 3], [0, 1, 0, 0]]


def test_a_recording_without_a_frame_has_none():
    assert places(rows(0, 2), rows(0, 4), torch.zeros(2, 4)).tolist() == [[0, 0], [0, 2]]


def test_states_are_taken_as_logits_are():
    state = torch.arange(12.0).view(1, 3, 4)
    assert torch.equal(taken(state, torch.tensor([[2, 0]])), state[:, [2, 0]])


def test_states_of_another_rate_are_averaged_row_by_row():
    ours, theirs = rows(5, 3, 1, 4), rows(13, 9, 4, 2, width=13)
    state = torch.randn(4, 13, 6, generator=torch.Generator().manual_seed(1))
    found = averaged(state, ours, theirs)
    for row, (n, m) in enumerate(((5, 13), (3, 9), (1, 4))):
        for frame in range(n):
            window = [j for j in range(m) if j * n // m == frame]
            assert torch.allclose(found[row, frame], state[row, window].mean(dim=0))
    assert torch.equal(found[3, :4], state[3, [0, 0, 1, 1]])
    assert not found[~ours].any()
