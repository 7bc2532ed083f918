"""The teacher's texts outlive a process, and other processes see them."""

import numpy as np
import pytest
import torch

from hf_distill.rollouts.texts import Texts, keys_for


def test_other_processes_and_later_runs_see_what_was_written(tmp_path):
    one, other = Texts(tmp_path, rank=0), Texts(tmp_path, rank=1)
    one.add({"a": np.array([5, 6, 2])})
    assert other.missing(["a", "b", "a"]) == ["b"]
    other.add({"b": np.array([7])})
    one.add({"c": np.array([8])})
    assert one.missing(["b", "c"]) == other.missing(["c", "a"]) == []
    later = Texts(tmp_path)
    assert later.missing(["a", "b", "c"]) == []
    assert later["a"].tolist() == [5, 6, 2]


def test_a_line_that_was_not_finished_is_left_out(tmp_path):
    one = Texts(tmp_path)
    one.add({"a": np.array([5]), "b": np.array([6])})
    whole = one.own.read_bytes()
    one.own.write_bytes(whole[:-5])
    assert Texts(tmp_path).missing(["a", "b"]) == ["b"]
    one.own.write_bytes(b'{"key": 1\n' + whole)
    assert Texts(tmp_path).missing(["a", "b"]) == []


def test_a_key_is_the_prompt_and_who_writes_how():
    prompts = [{"input_ids": torch.tensor(ids)} for ids in ([5, 6], [5, 6, 7])]
    kinds = [{**prompts[0], "token_type_ids": torch.tensor([0, 1])}]
    assert len({*keys_for(prompts, "a"), *keys_for(prompts, "b"), *keys_for(kinds, "a")}) == 5


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_two_waves_between_minus_1_and_1_have_two_keys(kind):
    waves = [{"input_values": torch.tensor(wave, dtype=kind)} for wave in ([0.25, -0.5], [0.5, -0.5])]
    images = [{"pixel_values": torch.zeros(2, 3)}, {"pixel_values": torch.zeros(3, 2)}]
    assert len({*keys_for(waves, "a"), *keys_for(images, "a")}) == 4


def test_the_type_of_integers_is_no_part_of_a_key():
    one, other = ({"input_ids": torch.tensor([5, 6], dtype=kind)} for kind in (torch.int32, torch.int64))
    assert keys_for([one], "a") == keys_for([other], "a")
