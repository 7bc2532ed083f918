"""Speculative decoding: the teacher's own text, in fewer of its passes."""

import pytest
import tiny_drafts
import tiny_language
import torch
from default_run import slow_but

from hf_distill import speculate

PROMPTS = [[5], [6, 9], [5, 9, 12, 7], [30, 8, 8, 8, 21, 11, 4]]


def greedy(teacher, ids, number):
    return teacher.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=number)


@pytest.mark.parametrize("kind", slow_but(["llama", "qwen3"], ["llama", *tiny_drafts.CLASSES]))
@pytest.mark.parametrize("drafted", slow_but([3], [1, 3, 5]))
def test_the_text_is_the_teachers_own(kind, drafted):
    teacher = tiny_drafts.teacher(kind)
    head = tiny_drafts.draft(teacher)
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        found = speculate(teacher, head, ids, 24, drafted)
        assert torch.equal(found.ids, greedy(teacher, ids, 24))
        written = found.ids.shape[1] - len(prompt)
        assert found.passes == 1 + len(found.accepted)
        assert written <= 1 + sum(found.accepted) + len(found.accepted)  # one of its own a pass, if there was room
        assert max(found.accepted, default=0) <= drafted


class Knowing:
    """Lets a head draft what stands in a text, right or wrong."""

    def __init__(self, head, text):
        self.head, self.text, self.place = head, text, None
        head.lm_head.register_forward_hook(self.say)

    def say(self, module, given, shown):
        place = self.head.spoken
        shown = torch.full_like(shown, -1.0)
        shown[..., self.text[min(place, len(self.text) - 1)]] = 1.0
        return shown


def knowing(head, text, monkeypatch):
    """A head whose next token is that of a known text: it counts the keys that it has."""
    step = type(head).step

    def counted(self, tokens, states, places, seen, cache):
        self.spoken = int(places[0, -1]) + 2
        return step(self, tokens, states, places, seen, cache)

    monkeypatch.setattr(type(head), "step", counted)
    Knowing(head, text)


@pytest.mark.parametrize("end", range(4, 12))
def test_an_end_of_text_in_the_middle_of_a_draft_ends_it(end, monkeypatch):
    teacher = tiny_drafts.teacher()
    teacher.generation_config.eos_token_id = None
    ids = torch.tensor([[5, 9, 12]])
    whole = greedy(teacher, ids, 20)[0].tolist()
    teacher.generation_config.eos_token_id = [31 if 31 not in whole else 29, whole[end]]
    head = tiny_drafts.draft(teacher)
    knowing(head, whole, monkeypatch)
    found = speculate(teacher, head, ids, 20, drafted=4)
    assert torch.equal(found.ids, greedy(teacher, ids, 20))
    assert found.ids[0, -1] == whole[end]  # there, or where it stood before
    assert set(found.accepted[:-1]) <= {4}  # what is known is taken whole
    assert 3 + 1 + sum(found.accepted) + len(found.accepted) - found.ids.shape[1] in (0, 1)


def test_a_draft_that_knows_the_text_saves_passes_and_one_that_errs_saves_none(monkeypatch):
    teacher = tiny_drafts.teacher()
    teacher.generation_config.eos_token_id = None
    ids = torch.tensor([[5, 9, 12]])
    whole = greedy(teacher, ids, 21)[0].tolist()
    head = tiny_drafts.draft(teacher)
    with monkeypatch.context() as patch:
        knowing(head, whole, patch)
        right = speculate(teacher, head, ids, 21, drafted=4)
        assert right.ids[0].tolist() == whole
        assert right.accepted == (4, 4, 4, 4)
        assert (right.passes, right.a_step) == (5, 4.0)
    head = tiny_drafts.draft(teacher)
    with monkeypatch.context() as patch:
        knowing(head, [(token + 1) % 32 for token in whole], patch)
        wrong = speculate(teacher, head, ids, 21, drafted=4)
        assert wrong.ids[0].tolist() == whole
        assert set(wrong.accepted) == {0}
        assert wrong.passes == 21


def test_modes_are_left_as_they_were():
    teacher = tiny_drafts.teacher().train()
    head = tiny_drafts.draft(teacher).train()
    speculate(teacher, head, torch.tensor([[5, 6]]), 3)
    assert teacher.training
    assert head.training


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"ids": torch.ones(2, 3).long()}, r"ids of shape \[2, 3\] were given, one prompt is written at a time"),
        ({"ids": torch.ones(1, 0).long()}, r"ids of shape \[1, 0\]"),
        ({"drafted": 0}, "max_new_tokens=4 and drafted=0 were given"),
        ({"max_new_tokens": 0}, "max_new_tokens=0 and drafted=3"),
        ({"draft": tiny_language.llama()}, "a LlamaForCausalLM was given to write ahead, which reads no teacher"),
        ({"teacher": tiny_drafts.teacher(width=24)}, "the teacher has 32 tokens and width 24, the draft head 32 and"),
    ],
)
def test_what_cannot_be_written_is_refused_in_a_sentence(given, told):
    teacher = tiny_drafts.teacher()
    parts = {"teacher": teacher, "draft": tiny_drafts.draft(teacher), "ids": torch.tensor([[5]])}
    parts |= {"max_new_tokens": 4, "drafted": 3}
    with pytest.raises(ValueError, match=told):
        speculate(**{**parts, **given})


def test_a_teacher_that_writes_otherwise_than_greedily_is_refused():
    teacher = tiny_drafts.teacher()
    teacher.generation_config.repetition_penalty = 1.1
    told = r"generation_config has repetition_penalty=1.1, .*: set teacher.generation_config.repetition_penalty to 1.0"
    with pytest.raises(ValueError, match=told):
        speculate(teacher, tiny_drafts.draft(teacher), torch.tensor([[5]]))
