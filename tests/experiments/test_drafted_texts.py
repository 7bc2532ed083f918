"""What a draft head saves: counted in its teacher's passes, over texts that are the teacher's own."""

import pytest
import tiny_drafts
import torch

from hf_distill.experiments.drafted_texts import saved

PROMPTS = [torch.tensor([[5, 9, 12]]), torch.tensor([[8, 7]])]


def test_tokens_are_the_teachers_own_and_those_that_were_taken():
    teacher = tiny_drafts.teacher()
    teacher.generation_config.eos_token_id = None
    found = saved(teacher, tiny_drafts.draft(teacher), PROMPTS, 12, drafted=3)
    assert (found["tokens"], found["texts"], found["identical"]) == (24, 2, 2)
    # One token comes with the prompt, then one a pass beside the drafted ones; the last pass may have had no room.
    made = 2 + found["steps"] * (1 + found["accepted"])
    assert 24 <= made + 1e-9 <= 26
    assert found["speedup"] > 0
    assert found["speedup_bare"] > 0
    assert found["speedup_error"] >= 0


def test_another_text_than_the_teachers_is_told(monkeypatch):
    teacher = tiny_drafts.teacher()
    teacher.generation_config.eos_token_id = None
    monkeypatch.setattr(teacher, "generate", lambda ids, **kwargs: torch.cat((ids, ids), dim=1))
    assert saved(teacher, tiny_drafts.draft(teacher), PROMPTS, 4, drafted=2)["identical"] == 0


@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS])
def test_one_text_has_no_spread(prompts):
    teacher = tiny_drafts.teacher()
    found = saved(teacher, tiny_drafts.draft(teacher), prompts, 4, drafted=2)
    assert (found["speedup_error"] == 0) == (len(prompts) == 1)
