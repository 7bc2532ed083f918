"""What a model writes: its own distribution, whatever else is in the batch, to the first end and no further."""

import numpy as np
import pytest
import tiny_language
import torch

from hf_distill import Rollout
from hf_distill.rollouts.draws import draw, places
from hf_distill.rollouts.writing import Draw, drawing, students_way, teachers_way, write

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [14, 15]]


def prompts():
    return [{"input_ids": torch.tensor(ids)} for ids in PROMPTS]


def way(model, **options):
    asked = Rollout(on_policy=1.0, max_new_tokens=options.pop("max_new_tokens", 8), **options)
    return asked, students_way(model, asked, tiny_language.tokenizer())


def test_each_row_is_what_generate_writes_for_it_alone():
    model = tiny_language.llama().eval()
    _, config = way(model, do_sample=False)
    for prompt, text in zip(prompts(), write(model, prompts(), config, left=True), strict=True):
        alone = model.generate(prompt["input_ids"][None], max_new_tokens=8, do_sample=False)[
            0, len(prompt["input_ids"]) :
        ]
        assert text.tolist() == alone.tolist()
        assert 2 not in text[:-1]


def test_an_encoder_decoder_writes_behind_its_start():
    model = tiny_language.t5().eval()
    _, config = way(model, do_sample=False)
    for prompt, text in zip(prompts(), write(model, prompts(), config, left=False), strict=True):
        alone = model.generate(prompt["input_ids"][None], max_new_tokens=8, do_sample=False)[0, 1:]
        assert text.tolist() == alone.tolist()


def test_everything_behind_the_first_end_is_cut_off():
    model = tiny_language.llama().eval()
    _, config = way(model, do_sample=False)
    whole = write(model, prompts(), config, left=True)
    end = whole[0][1].item()  # let what is written there be the end
    config.eos_token_id = [end, 2]
    for before, text in zip(whole, write(model, prompts(), config, left=True), strict=True):
        ends = [i for i, token in enumerate(before.tolist()) if token in (end, 2)]
        assert text.tolist() == before.tolist()[: ends[0] + 1 if ends else None]


def test_a_draw_hangs_on_its_row_and_not_on_its_company():
    model = tiny_language.llama().eval()
    asked, config = way(model, temperature=1.5, top_k=20, top_p=0.95)
    numbers = [draw(asked, 1, 2, row).uniform for row in range(4)]
    together = write(model, prompts(), config, True, drawing(asked, numbers))
    for row in range(4):
        alone = write(model, prompts()[row : row + 1], config, True, drawing(asked, numbers[row : row + 1]))
        assert alone[0].tolist() == together[row].tolist()
    others = write(
        model, prompts(), config, True, drawing(asked, [draw(asked, 1, 3, row).uniform for row in range(4)])
    )
    assert [text.tolist() for text in others] != [text.tolist() for text in together]


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, 0), (0.5, 0), (1.0, 3)])
def test_tokens_come_as_often_as_the_distribution_says(temperature, top_k):
    n, logits = 20000, torch.tensor([1.0, -1.0, 0.5, 0.0, 2.0, -torch.inf])
    asked = Rollout(on_policy=1.0, temperature=temperature, top_k=top_k, max_new_tokens=1)
    scores = logits.repeat(n, 1)
    for one in drawing(asked, np.random.default_rng(0).random((n, 1))):
        scores = one(torch.zeros(n, 1, dtype=torch.int64), scores)
    assert (scores.isfinite().sum(-1) == 1).all()
    found = torch.bincount(scores.argmax(-1), minlength=6) / n
    kept = logits if not top_k else logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf)
    wanted = (kept.double() / temperature).softmax(-1)
    assert (found - wanted).abs().max() < 4 * 0.5 / n**0.5
    assert (found[wanted == 0] == 0).all()


def test_the_ends_of_the_unit_interval_draw_possible_tokens():
    scores = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]] * 2)
    drawn = Draw(torch.tensor([[0.0], [np.nextafter(1.0, 0.0)]]))(torch.zeros(2, 1), scores)
    assert drawn.argmax(-1).tolist() == [1, 2]


def test_the_student_writes_without_its_checkpoints_penalties_the_teacher_with_its_own():
    model = tiny_language.llama().eval()
    plain = [text.tolist() for text in write(model, prompts(), way(model, do_sample=False)[1], left=True)]
    own = model.generation_config
    own.repetition_penalty, own.bad_words_ids, own.do_sample, own.temperature = 50.0, [[plain[0][0]]], True, 0.1
    asked, config = way(model, do_sample=False)
    assert [text.tolist() for text in write(model, prompts(), config, left=True)] == plain
    assert model.generation_config is own
    theirs = write(model, prompts(), teachers_way(model, asked, None), left=True)
    assert all(plain[0][0] not in text for text in theirs)
    assert [t.tolist() for t in theirs] == [
        t.tolist() for t in write(model, prompts(), teachers_way(model, asked, None), left=True)
    ]  # it never draws
    beams = teachers_way(model, Rollout(seq_kd=1.0, num_beams=3), None)
    assert (beams.num_beams, beams.do_sample, beams.repetition_penalty) == (3, False, 50.0)


def test_shares_are_drawn_as_asked():
    asked = Rollout(on_policy=0.5, seq_kd=0.25)
    writers = [draw(asked, 7, step, row).writer for step in range(50) for row in range(40)]
    assert writers.count("student") / 2000 == pytest.approx(0.5, abs=0.04)
    assert writers.count("teacher") / 2000 == pytest.approx(0.25, abs=0.04)
    assert {draw(Rollout(on_policy=1.0), 7, 0, row).writer for row in range(99)} == {"student"}


def test_rows_have_the_same_place_however_a_step_is_cut():
    assert places([[8]], 0) == [0]
    assert places([[2, 2, 2, 1]], 0) == [0, 2, 4, 6]
    assert [places([[2, 2], [2, 1]], rank) for rank in (0, 1)] == [[0, 4], [2, 6]]
