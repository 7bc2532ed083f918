"""Students that a budget allows."""

import copy
import itertools

import pytest
import tiny_images
import tiny_language
import torch
from transformers import AutoModelForCausalLM, BertConfig, BertForSequenceClassification, LlamaConfig

from hf_distill.reports.speed import Latency
from hf_distill.students import budget, fit_budget, lineage
from hf_distill.students.budget import cut_to, ranked, shapes_on_the_way
from hf_distill.students.shapes import Shape, shapes_of


def teacher(layers=4, heads=4, vocabulary=20):
    torch.manual_seed(0)
    sizes = dict(hidden_size=8 * heads, num_attention_heads=heads, intermediate_size=32, vocab_size=vocabulary)
    return BertForSequenceClassification(
        BertConfig(num_hidden_layers=layers, max_position_embeddings=16, num_labels=3, **sizes)
    )


def rows(n=2):
    ids = torch.randint(1, 20, (n, 2, 6), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in ids]


def llama():
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2)
    return AutoModelForCausalLM.from_config(LlamaConfig(intermediate_size=24, vocab_size=20, **sizes))


@pytest.mark.parametrize("made", [pytest.param(llama, marks=pytest.mark.slow), teacher, tiny_images.vit])
def test_each_shape_has_as_many_parameters_as_is_said(made):
    """Of the shapes a few are made; all counts are of the class that is built for them."""
    model = made()
    found = shapes_of(model)
    given = rows() if made is not tiny_images.vit else [{"pixel_values": torch.randn(2, 3, 16, 16)}]
    for shape in [found[0], found[len(found) // 2]]:
        student = budget._made(model, shape, given)
        assert sum(p.numel() for p in student.parameters()) == shape.parameters
    whole = max(found, key=lambda one: one.parameters)
    assert whole.parameters == sum(p.numel() for p in model.parameters())
    assert whole.shares == (1, 1, 1)
    assert not whole.sizes


@pytest.mark.parametrize("share", [pytest.param(0.1, marks=pytest.mark.slow), 0.4])
def test_a_share_of_the_parameters(share, tmp_path):
    model = teacher()
    before = copy.deepcopy(model.state_dict())
    limit = share * model.num_parameters()
    student = fit_budget(model, parameters=share, batches=rows())
    assert 0.8 * limit < student.num_parameters() <= limit
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert "fit_budget" not in str(getattr(model.config, "distillation", ""))
    steps = [step["step"] for step in student.config.distillation]
    assert steps == ["keep_layers", "shrink_width", "fit_budget"]
    assert f"{student.num_parameters():,} of at most {limit:,.0f} parameters" in lineage(student)[-1]
    student.save_pretrained(tmp_path)
    assert lineage(type(student).from_pretrained(tmp_path))[-1] == lineage(student)[-1]


@pytest.mark.slow
def test_a_count_and_megabytes_are_the_same_budget():
    counted = fit_budget(teacher(), parameters=9000, batches=rows())
    weighed = fit_budget(teacher(), megabytes=0.036, batches=rows())
    assert counted.num_parameters() == weighed.num_parameters() <= 9000


def test_without_batches_whole_layers_go_and_one_size_can_be_given():
    model = teacher()
    deep = fit_budget(model, parameters=0.6)
    assert (deep.config.num_hidden_layers, deep.config.hidden_size) == (2, 32)
    wide = fit_budget(model, parameters=0.4, layers=4, batches=rows())
    assert wide.config.num_hidden_layers == 4
    same = fit_budget(model, parameters=0.4, hidden_size=32, batches=rows())
    assert same.config.hidden_size == 32
    t5 = fit_budget(tiny_language.t5(layers=4), parameters=0.6)
    assert t5.config.num_layers == t5.config.num_decoder_layers < 4


def test_of_shapes_as_large_the_most_balanced_comes_first():
    even, odd, small = (
        Shape(1, {}, shares, n, 0.0) for shares, n in [((0.5, 0.5), 91), ((1, 0.3), 100), ((1, 1), 80)]
    )
    assert ranked([small, odd, even]) == [even, odd, small]


def test_the_way_to_a_budget_grows_nowhere_and_ends_where_one_cut_does():
    model = teacher(layers=4, heads=3)
    way = shapes_on_the_way(model, 0.3, 3)
    assert [limit / model.num_parameters() for limit, _ in way] == pytest.approx([0.3 ** (k / 3) for k in (1, 2, 3)])
    assert all(shape.parameters <= limit for limit, shape in way)
    for (_, before), (_, after) in itertools.pairwise(way):
        assert all(b >= a for b, a in zip(before.shares, after.shares, strict=True))
        assert before.parameters > after.parameters
    once, last = fit_budget(model, parameters=0.3, batches=rows()).config, way[-1][1]
    sizes = {"hidden_size": once.hidden_size, "num_heads": once.num_attention_heads}
    assert {**sizes, "intermediate_size": once.intermediate_size} == last.sizes
    assert once.num_hidden_layers == last.layers


def test_what_stays_as_it_was_in_a_round_is_not_cut_again():
    model = teacher(layers=3, heads=2)
    wide, deep = (Shape(n, dict(hidden_size=8, num_heads=1, intermediate_size=16), (), 5000, 0.0) for n in (3, 2))
    way, students = [(6000.0, wide), (6000.0, wide), (5500.0, deep)], [model]
    for number in (1, 2, 3):
        students.append(cut_to(students[-1], way, number, rows()))
    _, first, same, last = students
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert (last.config.num_hidden_layers, last.config.hidden_size, last.config.intermediate_size) == (2, 8, 16)
    steps = [step["step"] for step in last.config.distillation]
    assert steps == ["keep_layers", "shrink_width", "cut_to", "cut_to", "keep_layers", "cut_to"]
    assert "distillation" not in model.config.to_dict()
    told = "So `BertForSequenceClassification` was cut before round 3 of 3, to 5,000 of at most 5,500 parameters."
    assert lineage(last)[-1] == told


def test_a_way_to_less_than_the_smallest_is_refused():
    with pytest.raises(ValueError, match=r"at most 10 parameters was asked for, and the smallest there is \(1 layers"):
        shapes_on_the_way(teacher(layers=2, heads=1), 10, 2)


@pytest.mark.slow
def test_milliseconds_are_those_of_the_deepest_that_fit(monkeypatch):
    """A clock that counts: 2 ms a layer, 1 ms a head."""
    timed = []

    def clock(model, row, repeats):
        timed.append(model.config)
        return Latency(2.0 * model.config.num_hidden_layers + model.config.num_attention_heads, 0.0)

    monkeypatch.setattr(budget, "latency", clock)
    student = fit_budget(teacher(), latency_ms=7, batches=rows())
    assert 2 * student.config.num_hidden_layers + student.config.num_attention_heads <= 7
    assert (student.config.num_hidden_layers, student.config.num_attention_heads) in [(2, 3), (2, 2), (1, 4)]
    assert len(timed) <= 4 * 3
    assert "of at most 7 ms" in lineage(student)[-1]
    with pytest.raises(ValueError, match=r"at most 2 ms was asked for, and the smallest there is \(1 layers, .* 3 ms"):
        fit_budget(teacher(), latency_ms=2, batches=rows())


def test_a_real_clock():
    batch = rows(1)[0]
    assert fit_budget(teacher(layers=2, heads=2), latency_ms=1e6, batch=batch).config.num_hidden_layers == 2


def test_the_nearest_of_the_best_stays(monkeypatch):
    model, best = teacher(), []
    monkeypatch.setattr(budget, "_distance", lambda _, student, __: best.append(student) or -len(best))
    student = fit_budget(model, parameters=0.25, batches=rows(), judged=3)
    assert student is best[2]
    assert "the nearest to its teacher of 3" in lineage(student)[-1]


def test_how_far_a_student_is():
    model = teacher()
    assert budget._distance(model, model, rows()) == pytest.approx(0, abs=1e-6)
    student, batch = fit_budget(model, parameters=0.25, batches=rows()), rows(1)[0]
    with torch.no_grad():
        theirs, ours = (one.eval()(**batch).logits.log_softmax(-1) for one in (model, student))
    expected = float((theirs.exp() * (theirs - ours)).sum(-1).mean())
    assert budget._distance(model, student, [batch]) == pytest.approx(expected, rel=1e-5)


def test_what_cannot_be_had_is_said():
    model = teacher()
    for asked, match in [
        (
            dict(parameters=10, batches=rows()),
            r"at most 10 parameters was .* smallest there is \(1 layers, hidden_size 8",
        ),
        (dict(parameters=0.01), "ask for that, or give batches, with which the width is cut too"),
        (dict(), "was asked for within no budget: give one of parameters, megabytes and latency_ms"),
        (dict(parameters=0.5, megabytes=1), "give one of parameters"),
        (dict(parameters=0), "above 0"),
        (dict(latency_ms=3), "give the rows to time as batch"),
        (dict(parameters=0.5, judged=2), "2 shapes of BertForSequenceClassification were to be judged: give rows"),
        (dict(parameters=0.5, layers=9), r"layers=9 was asked of a student of .*: ask for one of \[1, 2, 3, 4\]"),
        (dict(parameters=0.5, hidden_size=9, batches=rows()), r"ask for one of \[8, 16, 24, 32\]"),
    ]:
        with pytest.raises(ValueError, match=match):
            fit_budget(model, **asked)
    with pytest.raises(ValueError, match="neither one depth nor one width"):
        fit_budget(tiny_images.resnet(), parameters=0.5)
