"""A student that writes ahead for its teacher changes the steps and not the text."""

import copy

import pytest
import tiny_language
import torch

from hf_distill.experiments.assisted_generation import accepted_tokens


def test_an_assistant_changes_the_steps_and_not_the_text():
    teacher, other = tiny_language.teacher().eval(), tiny_language.llama().eval()
    for model in (teacher, other):
        model.generation_config.eos_token_id = None
    ids, before = [torch.tensor([[5, 6, 7]]), torch.tensor([[9, 8]])], dict(vars(other.generation_config))
    own = accepted_tokens(teacher, copy.deepcopy(teacher), ids, 12, ahead=3)
    assert (own["tokens"], own["steps"]) == (24, 6)  # three proposed and one more, each time
    assert own["accepted"] == 3.0
    helped = accepted_tokens(teacher, other, ids, 12, ahead=3)
    assert helped["tokens"] == 24
    assert helped["accepted"] < 3.0
    assert dict(vars(other.generation_config)) == before


@pytest.mark.parametrize("size", [28, 40])
def test_an_assistant_whose_head_is_padded_to_another_length(size):
    teacher, other = tiny_language.teacher().eval(), tiny_language.llama(vocab_size=size).eval()
    teacher.generation_config.eos_token_id = None
    other.generation_config.eos_token_id = None
    with torch.no_grad():  # the ids that the other lacks are the likeliest
        for model, rows in ((other, slice(32, None)), (teacher, slice(size, None))):
            padding = model.lm_head.weight[rows]
            padding.copy_(9 * model.lm_head.weight[: len(padding)])
    found = accepted_tokens(teacher, other, [torch.tensor([[5, 6, 7]])], 12, ahead=3)
    assert found["tokens"] == 12
    assert 3 <= found["steps"] <= 12
    assert other.config.vocab_size == size
