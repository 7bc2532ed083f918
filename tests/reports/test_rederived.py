"""Figures that are written twice are the same: the package's, and those of tests/benchmarks/rederive.py."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from recipe_runs import TINY

from hf_distill import reports
from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.question_answering import overlap, pieces

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import rederive
from rederived import answers, boxes, classes, figures, itself, maps, tags, translation


def drawn(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def same(ours, theirs):
    """Every figure of two trees, to 9 digits."""
    ours, theirs = dict(rederive.leaves(ours)), dict(rederive.leaves(theirs))
    assert ours.keys() == theirs.keys()
    wrong = {name: (one, theirs[name]) for name, one in ours.items() if rederive.apart(one, theirs[name]) > 1e-9}
    assert not wrong


@pytest.mark.parametrize("ahead", [0.5, 0.0])  # with a gap, and without one that could be closed
@pytest.mark.parametrize("n", [3, 40, 2000])
def test_the_gap_its_errors_and_its_bounds(ahead, n):
    alone = drawn(0, n)
    distilled, teacher = alone + 0.3 * ahead + 0.1 * drawn(1, n), alone + ahead + 0.1 * drawn(2, n)
    same(figures.gap_of(alone, distilled, teacher), asdict(reports.gap_closed(alone, distilled, teacher)))


@pytest.mark.parametrize("right", [0, 1, 37, 40])
def test_the_bounds_of_a_share(right):
    assert figures.wilson(np.arange(40) < right) == pytest.approx(list(reports.share_interval(right, 40)), abs=1e-12)


def test_probabilities_and_classes():
    logits = {name: drawn(seed, 60, 4) for seed, name in enumerate(("teacher", "student alone", "distilled"))}
    labels, names = np.random.default_rng(9).integers(3, size=60), list("abcd")  # no row is of the last class
    found = classes.found_of(logits, labels, names, labels)
    for name, one in logits.items():
        assert found.figures[name]["kl"] == pytest.approx(reports.mean_kl(one, logits["teacher"]), abs=1e-12)
        error = reports.calibration(one, labels).error
        assert found.figures[name]["calibration_error"] == pytest.approx(error, rel=1e-12)
    changes = reports.class_changes({name: one.argmax(-1) for name, one in logits.items()}, labels, names)
    told = {one.number: {k: v for k, v in asdict(one).items() if k not in ("name", "number")} for one in changes}
    same(found.details["classes"], told)


def test_spans_and_their_f1():
    generator, names = np.random.default_rng(0), ["O", "B-a", "I-a", "B-b", "E-b", "S-a", "M", "L-b"]
    said, told = ([list(generator.choice(names, size=9)) for _ in range(200)] for _ in range(2))
    for row in said:
        assert {(start, stop + 1, kind) for start, stop, kind in tags.spans(row)} == reports.spans_of(row)
    each, scores = tags.scores([tags.spans(row) for row in said], [tags.spans(row) for row in told])
    counts = reports.span_counts(said, told)
    same(scores, reports.span_scores(counts))
    np.testing.assert_allclose(each["f1"], reports.f1_shares(counts), atol=1e-12)


def test_maps():
    said, right = (np.random.default_rng(seed).integers(3, size=(6, 5, 5)) for seed in range(2))
    right[:, 0] = maps.NONE
    each, scores, ious = maps.scores(said, right, 4)  # the last class is nowhere
    counts = reports.pixel_counts(said, right, 4)
    same(scores, reports.segmentation_scores(counts))
    np.testing.assert_allclose(each["mean_iou"], reports.iou_shares(counts), atol=1e-12)
    assert ious[:3] == pytest.approx(reports.class_ious(counts)[:3].tolist())
    assert ious[3] is None


def test_boxes():
    generator, said, told, matched = np.random.default_rng(0), [], [], []
    for number in range(30):
        corners = generator.integers(0, 20, size=(4, 2))
        there = np.concatenate([corners, corners + generator.integers(6, 20, size=(4, 2))], axis=1)
        found = np.concatenate([there + generator.integers(-1, 2, size=(4, 4)), there + 9])
        kinds = generator.integers(2, size=4)
        told.append(reports.Boxes(there, kinds))
        said.append(reports.Boxes(found, np.concatenate([kinds, kinds]), generator.integers(9, size=8) / 9))
        middle, size = (there[:, :2] + there[:, 2:]) / 2, there[:, 2:] - there[:, :2]
        labels = {
            "orig_size": torch.tensor([1, 1]), "boxes": torch.tensor(np.concatenate([middle, size], axis=1)),
            "class_labels": torch.tensor(kinds),
        }  # fmt: skip
        one = {"boxes": said[-1].corners, "labels": said[-1].labels, "scores": said[-1].scores}
        matched += boxes.of_image(number, {name: torch.tensor(part) for name, part in one.items()}, labels, 2)
    found, whole = reports.average_precision(said, told, 2), boxes.precisions(matched, 2)
    assert 0.1 < found.ap < 0.9
    assert boxes.known_mean(whole) == pytest.approx(found.ap, rel=1e-9)
    assert boxes.known_mean(whole[:, 0]) == pytest.approx(found.ap50, rel=1e-9)
    assert [boxes.known_mean(one) for one in whole] == pytest.approx(found.classes.tolist(), rel=1e-9)


@pytest.mark.parametrize("pair", [("《魔兽世界》 III", "魔兽 iii"), ("", "。"), ("北京", "上海"), ("a1-b", "A1 b b")])
def test_answers_and_edits(pair):
    assert [answers.pieces(text) for text in pair] == [pieces(text) for text in pair]
    assert answers.overlap(*pair) == pytest.approx(overlap(*pair))
    edits, length = reports.character_edits([pair[0]], [pair[1]])[0]
    assert (translation.distance(*pair), len(pair[1])) == (edits, length)


def card():
    rows = [("teacher", 0.9, 80), ("student alone", 0.6, 20), ("distilled", 0.8, 20)]
    models = [{"name": name, "loss": loss, "perplexity": float(np.exp(loss))} for name, loss, _ in rows]
    gap = {"gap": -0.3, "gain": -0.2, "ratio": None, "gain_interval": [-0.3, -0.1], "gain_error": 0.1}
    return {"models": models, "rows": {"test": 10}, "gap": gap, "verdict": "harms"}


def test_a_card_without_models_is_held_against_itself_and_a_wrong_figure_is_found(capsys):
    report = card()
    counts, differing, _ = rederive.compare(report, itself.again(report))
    assert (counts["equal"], differing) == (6, [])
    report["models"][2]["perplexity"] *= 1.00001
    report["verdict"] = "helps"
    _, differing, _ = rederive.compare(report, itself.again(report), only_differing=True)
    assert [place for place, _, _ in differing] == ["models / distilled / perplexity", "verdict"]
    assert capsys.readouterr().out.count(" differs") == 2


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "figure"), [("text_classification", "macro_f1"), ("masked_lm", "accuracy")])
def test_a_run_of_a_recipe_is_computed_again_from_its_models(recipe, figure, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    recipe_module(recipe).RECIPE.main([*TINY, "--max_steps", "30", "--output_dir", str(run)])
    monkeypatch.setattr(sys, "argv", ["rederive.py", str(run)])
    with pytest.raises(SystemExit) as ended:
        rederive.main()
    shown = capsys.readouterr().out
    assert (ended.value.code, shown.splitlines()[-1].split(", ")[-1]) == (0, "0 differ")
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    told = [place for place, value in rederive.leaves(rederive.named(report)) if isinstance(value, (int, float))]
    unread = {"pair", "seconds", "samples_per_second", "latency"}
    assert all(f"\n{place} " in shown for place in told if place.split(" / ")[-1] not in unread)
    report["models"][1][figure] += 1e-5
    (run / "report.json").write_text(json.dumps(report), encoding="utf-8")
    with pytest.raises(SystemExit, match="1"):
        rederive.main()
    assert "DIFFERS" in capsys.readouterr().out
