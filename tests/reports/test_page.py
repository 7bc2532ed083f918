"""The page holds everything itself, escapes what comes from outside, and is whole without scripts.

No browser is asked here: what is read is what a parser of HTML makes of it.
"""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from hf_distill.reports import class_changes
from hf_distill.reports.page import PAGE, PUBLIC, page, write_page
from hf_distill.reports.picture import LOOKS
from hf_distill.reports.samples import class_samples

VOID = {"meta", "img", "input", "link", "br", "hr"}
EVIL = "<script>alert(1)</script>\"' onload=x & {{ 7 * 7 }} 体育"


class Page(HTMLParser):
    """Elements with their attributes, texts of each kind of element; every element that opens has to close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return "".join(text for tag, texts in self.texts.items() if tag not in ("script", "style") for text in texts)


MODELS = ("teacher", "student alone", "distilled")


def report(word="news", **more):
    changes = class_changes({name: [0, 1] for name in MODELS}, [0, 1], [word, "财经"])
    return {
        "dataset": word, "summary": word, "verdict": "helps", "models": [{"name": name} for name in MODELS],
        "classes": [vars(one) for one in changes], "settings": {"alpha": 0.9, "objective": word},
        "recipe": {"name": word, "arguments": {"train_file": word}}, "machine": word, "mode": word, "note": word,
        "versions": {"torch": word}, "counted": word, "pictures": {"report.png": word, "none.png": "not there"},
        "unmet": [word], "rows": {"test": 1234}, "left_out": word, **more,
    }  # fmt: skip


TABLE = (["model", "accuracy %"], [[name, "80.0 ± 0.1"] for name in MODELS])


def samples(word="a text", rows=3):
    draw = np.random.default_rng(0)
    logits = {name: draw.normal(size=(rows, 2)) for name in MODELS}
    return class_samples(logits, np.arange(rows) % 2, [word, "财经"], lambda row: (f"{word} {row}", None))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "report.png").write_bytes(b"a picture")
    return tmp_path


def test_it_shows_the_whole_report(folder):
    found = Page(page(folder, report(), TABLE, "VERDICT: helps", samples()))
    for shown in ("VERDICT: helps", "80.0 ± 0.1", "财经", "torch news", "test 1,234", "alpha", "0.9", "Not met: news"):
        assert shown in found.text
    assert [one["src"] for one in found.all("img")] == ["data:image/png;base64,YSBwaWN0dXJl"]  # one that is there
    assert len(found.all("li")) == 3
    (html,) = found.all("html")
    assert html["lang"] == "en"
    styles = {one.get("style") for one in found.all("span")} - {None}
    assert styles == {f"--own: {LOOKS[name].colour}" for name in MODELS}  # as in every picture


def test_nothing_is_loaded_from_anywhere(folder):
    text = page(folder, report(), TABLE, "said", samples())
    found = Page(text)
    assert not found.all("link")
    assert not found.all("iframe")
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttp|import\(", text)
    for tag, attributes in found.elements:
        assert all(attributes[one].startswith("data:") for one in ("src", "href") if one in attributes), tag
    policy = next(one for one in found.all("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy["content"]


def test_all_that_comes_from_outside_is_escaped(folder):
    table = ([EVIL, EVIL], [[EVIL, EVIL]])
    found = report(EVIL, models=[{"name": EVIL}], language=EVIL)
    found["classes"] = [{**one, "f1": {EVIL: 0.5}, "recall": {EVIL: 0.5}} for one in found["classes"]]
    parsed = Page(page(folder, found, table, EVIL, samples(EVIL)))
    plain = Page(page(folder, report(), TABLE, "said", samples()))
    assert len(parsed.all("script")) == len(plain.all("script")) == 1
    assert "alert" not in "".join(parsed.texts["script"] + parsed.texts["style"])
    assert not [tag for tag, attributes in parsed.elements if any(name.startswith("on") for name in attributes)]
    assert {tag for tag, _ in parsed.elements} <= {tag for tag, _ in plain.elements}
    assert parsed.text.count(EVIL) > 20
    assert "49" not in parsed.texts["title"][0]  # nor is anything computed


def test_without_scripts_all_rows_are_there_and_there_is_no_box_that_does_nothing(folder):
    found = Page(page(folder, report(), TABLE, "said", samples(rows=30)))
    (form,) = found.all("form")
    assert "hidden" in form
    rows = found.all("li")
    assert len(rows) == 30
    assert not [one for one in rows if "hidden" in one]
    assert {one["data-kind"] for one in rows} <= {one["value"] for one in found.all("option")}
    named = set(re.findall(r'at\("(\w+)"\)', "".join(found.texts["script"])))
    assert named == {one["id"] for _, one in found.elements if one.get("id") in named}  # what the script looks for


@pytest.mark.parametrize("none", [None, samples(rows=0)])
def test_where_no_row_is_shown_there_is_no_script_and_no_warning(folder, none):
    found = Page(page(folder, report(), TABLE, "said", none))
    assert not found.all("script")
    assert not found.all("form")
    assert "rows of your test data" not in found.text
    assert "rows of your test data" in Page(page(folder, report(), TABLE, "said", samples())).text


def test_its_name_says_whether_it_goes_to_the_hub_and_there_is_one_of_it(folder):
    assert PAGE.startswith("_")
    assert write_page(folder, report(), TABLE, "said", samples(), public=True) == folder / PUBLIC
    assert write_page(folder, report(), TABLE, "said", samples()) == folder / PAGE
    assert not (folder / PUBLIC).exists()
    assert (folder / PAGE).read_text(encoding="utf-8").lstrip().startswith("<!doctype html>")


def test_a_text_that_is_no_unicode_is_written_too(folder):
    path = write_page(folder, report("half of a pair: \ud83d"), TABLE, "said", samples("\ud83d"))
    assert "half of a pair: ?" in path.read_text(encoding="utf-8")


def test_classes_of_detectors_and_segmenters_and_runs_over_seeds(folder):
    further = {
        "classes": None,
        "class_ap": {"cat": {"teacher": 0.5, "distilled": float("nan")}},
        "class_ious": {"teacher": {"road": 0.25}, "distilled": {"road": 0.125}},
        "runs": [{"student": "distilled", "seed": 7, "learning_rate": 2e-3, "score": 0.54321}, {"student": "tuning"}],
    }
    found = Page(page(folder, report(**further), TABLE, "said"))
    assert found.texts["h2"][1:4] == [
        "Average precision of each class, %", "Intersection over union of each class, %", "The runs",
    ]  # fmt: skip
    cells = found.texts["td"]
    assert [one for one in ("50.0", "-", "25.0", "12.5", "0.002", "0.5432") if one not in cells] == []


def test_a_report_with_next_to_nothing(folder):
    bare = {"dataset": "a", "summary": "b", "models": [{"name": "teacher"}]}
    assert "VERDICT" in Page(page(folder, bare, (["model"], [["teacher"]]), "VERDICT: not known")).text


def test_an_installed_package_takes_the_template_along():
    setup = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^"hf_distill\.reports" = \[.*"\*\.html"', setup, re.MULTILINE)
