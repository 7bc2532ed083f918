"""Whether a teacher is worth listening to: figures of sums, and sentences with a margin for chance."""

import math

import pytest
import torch

from hf_distill.objectives.rightness import ACCURACY, NATS, SQUARES, Heard
from hf_distill.signals import BINARY, CATEGORICAL, NUMBER, POINTER
from hf_distill.training.worth import Worth


def classes(n, classes, seed, student=0.5, teacher=0.5, shares=None):
    """Rows of which two models have so much right, independently; ``shares``: how often each class is there."""
    drawn = torch.Generator().manual_seed(seed)
    shares = torch.ones(classes) if shares is None else torch.tensor(shares)
    labels = torch.multinomial(shares, n, replacement=True, generator=drawn)
    ours, theirs = ((torch.rand(n, generator=drawn) < share).float() for share in (student, teacher))
    return Heard(torch.arange(n), labels, ours, theirs, torch.full((n,), 1 / classes))


def worth(heard, size, kind=ACCURACY, heads=CATEGORICAL, parts=1):
    found = Worth(kind, heads, size)
    for place in torch.arange(int(heard.samples.max()) + 1).tensor_split(parts):
        found.add(heard.of(torch.isin(torch.arange(int(heard.samples.max()) + 1), place)))
    return found


@pytest.mark.parametrize("parts", [1, 7])
def test_figures_are_those_of_all_rows_however_they_are_cut(parts):
    heard = classes(50, 3, seed=0, student=0.4, teacher=0.8)
    found = worth(heard, 3, parts=parts).gather(lambda sums: 2 * sums)  # two ranks that saw the same
    assert found.samples == 100
    assert found.figures() == {
        "teacher_accuracy": pytest.approx(heard.teacher.double().mean().item(), rel=1e-12),
        "student_accuracy": pytest.approx(heard.student.double().mean().item(), rel=1e-12),
    }


def test_a_teacher_that_guesses_is_told_of_and_in_twenty_rows_it_is_not():
    said = worth(classes(400, 3, seed=1, teacher=1 / 3), 3).no_lead("eval")
    assert said.startswith("The teacher's accuracy is 3")
    assert " on 400 rows (eval), and 3" in said
    assert "is reached by always saying the most frequent class: these rows show nothing that it could teach" in said
    assert "\n" not in said
    for seed in range(50):
        few = worth(classes(20, 3, seed, teacher=1 / 3, student=0.9), 3)
        assert few.no_lead("eval") is None
        assert few.behind("eval") is None


@pytest.mark.parametrize(
    ("classes_there", "teacher", "rows", "shares"),
    [(2, 0.7, 60, None), (2, 0.62, 200, None), (1000, 0.15, 500, None), (2, 0.93, 400, [0.9, 0.1])],
)
def test_a_teacher_that_knows_something_is_left_alone(classes_there, teacher, rows, shares):
    told = [
        worth(classes(rows, classes_there, seed, teacher=teacher, shares=shares), classes_there).no_lead("eval")
        for seed in range(40)
    ]
    assert sum(one is not None for one in told) <= 1


def test_who_always_says_the_most_frequent_class_has_nothing_to_teach():
    heard = classes(1000, 2, seed=3, shares=[0.9, 0.1])
    constant = Heard(heard.samples, heard.labels, heard.student, (heard.labels == 0).float(), heard.chance)
    assert "and 90." in worth(constant, 2).no_lead("eval")


def test_a_student_is_ahead_beyond_chance_only():
    said = worth(classes(2000, 2, seed=4, student=0.83, teacher=0.78), 2).behind("eval")
    assert said.startswith("The student (8")
    assert ") is ahead of its teacher (7" in said
    assert "in accuracy on 2,000 rows (eval): learn less from it (a lower alpha), or fine-tune it first" in said
    told = [worth(classes(200, 2, seed, student=0.8, teacher=0.8), 2).behind("eval") for seed in range(200)]
    assert sum(one is not None for one in told) <= 8  # 2.3 % by chance


def test_the_rows_of_a_sample_are_right_or_wrong_together():
    """Forty texts of fifty tokens each are forty things, not two thousand."""
    told = 0
    for seed in range(100):
        whole = classes(40, 2, seed, student=0.7, teacher=0.7)
        each = [one.repeat_interleave(50) for one in (whole.student, whole.teacher, whole.chance)]
        labels = torch.arange(2000) % 2
        told += worth(Heard(whole.samples.repeat_interleave(50), labels, *each), 2).behind("eval") is not None
    assert told <= 6


def test_several_classes_and_places_in_the_row():
    heard = classes(400, 2, seed=5, teacher=0.5, shares=[0.9, 0.1])
    assert "always saying that no class is there" in worth(heard, 2, heads=BINARY).no_lead("eval")
    places = classes(400, 50, seed=6, teacher=0.25, student=0.5)
    chosen = Heard(places.samples, places.labels, places.student, places.teacher, torch.full((400,), 0.25))
    assert "and 25.0 % is reached by always saying one at random" in worth(chosen, 0, heads=POINTER).no_lead("eval")
    known = Heard(places.samples, places.labels, places.student, places.student, torch.full((400,), 0.25))
    assert worth(known, 0, heads=POINTER).no_lead("eval") is None


def test_a_language_model_that_knows_no_more_than_how_frequent_tokens_are():
    drawn = torch.Generator().manual_seed(7)
    labels = torch.multinomial(torch.tensor([0.7, 0.1, 0.1, 0.05, 0.05]), 1000, replacement=True, generator=drawn)
    samples, ones = torch.arange(1000) // 20, torch.ones(1000)

    def told(nats):
        noise = 0.1 * torch.randn(1000, generator=drawn)
        return worth(Heard(samples, labels, nats * ones, nats * ones + noise, ones / 5), 5, NATS)

    uniform, counts = told(math.log(5)), torch.bincount(labels).double()
    floor = math.exp(float((counts * ((999 + 5) / counts).log()).sum() / 1000))
    assert f"and {floor:.4g} is reached by knowing only how often each token stands there" in uniform.no_lead("eval")
    assert told(0.3).no_lead("eval") is None
    assert uniform.figures()["teacher_perplexity"] == pytest.approx(5, rel=0.01)


def test_numbers():
    drawn = torch.Generator().manual_seed(8)
    labels = torch.randn(300, 2, generator=drawn)
    labels[0, 1] = math.nan
    bad, good = torch.randn(300, 2, generator=drawn), labels + 0.3 * torch.randn(300, 2, generator=drawn)
    squares = [(one - labels).square().nansum(dim=-1) for one in (good, bad)]
    found = worth(Heard(torch.arange(300), labels, *squares, torch.ones(300)), 2, SQUARES, NUMBER, parts=5)
    assert found.figures()["teacher_mse"] == pytest.approx((bad - labels).square().nanmean().item(), rel=1e-6)
    mean = torch.cat([one[~one.isnan()] - one.nanmean() for one in labels.T]).square().mean().item()
    assert f"and {mean:.4g} is reached by always saying the mean of their labels" in found.no_lead("eval")
    assert "in mean squared error on 599 rows (eval)" in found.behind("eval")
