"""Vectors of all ranks: no group, one rank, several ranks with different numbers of rows."""

import multiprocessing

import torch
from torch import distributed

from hf_distill.objectives.all_gather import gathered, gathered_with_gradients

CASES = [[2, 2], [3, 1], [0, 2]]


def rank_of_two(rank, folder, said):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = []
    for rows in CASES:
        mine = (10.0 * rank + torch.arange(rows[rank]).float())[:, None].expand(-1, 2)  # not contiguous
        everyone, first = gathered(mine.requires_grad_() * 1.0)
        own = mine.detach().clone().requires_grad_()
        every, _ = gathered_with_gradients(own)
        ((1 + rank) * every.square().sum()).backward()  # each rank says something else about all of them
        same = every.tolist() == everyone.tolist() and own.grad.tolist() == (6 * own).tolist()
        found.append([everyone.tolist(), first, everyone.requires_grad, same])
    distributed.destroy_process_group()
    said.put((rank, found))


def test_without_a_process_group_they_are_its_own():
    vectors = torch.randn(3, 2, requires_grad=True)
    everyone, first = gathered(vectors)
    assert torch.equal(everyone, vectors)
    assert first == 0
    assert not everyone.requires_grad
    assert gathered_with_gradients(vectors)[0] is vectors


def test_one_rank_is_alone(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        everyone, first = gathered(torch.eye(2))
    finally:
        distributed.destroy_process_group()
    assert torch.equal(everyone, torch.eye(2))
    assert first == 0


def test_ranks_see_the_same_in_the_order_of_ranks(tmp_path):
    """As many rows on both, more on one, none on one."""
    forked = multiprocessing.get_context("fork")
    said = forked.Queue()
    runs = [forked.Process(target=rank_of_two, args=(rank, tmp_path, said)) for rank in (0, 1)]
    for run in runs:
        run.start()
    told = dict(said.get(timeout=120) for _ in runs)
    for run in runs:
        run.join(timeout=120)
    assert [run.exitcode for run in runs] == [0, 0]
    for rank, found in told.items():
        assert len(found) == len(CASES)
        for rows, one in zip(CASES, found, strict=True):
            wanted = [[10.0 * owner + i] * 2 for owner, count in enumerate(rows) for i in range(count)]
            assert one == [wanted, sum(rows[:rank]), False, True]
