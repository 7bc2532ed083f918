"""Chinese labels are drawn by a font that has them, or they are spelled; an empty box is never drawn."""

import logging

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from hf_distill.reports import fonts
from hf_distill.reports.picture import LOOKS, OTHERS, fold, looks_of, picture


@pytest.fixture(autouse=True)
def forget():
    """What is known of this machine's fonts is asked for anew."""
    kept = list(font_manager.fontManager.ttflist)
    found = (fonts._preferred, fonts._others, fonts.warn_once)
    for each in found:
        each.cache_clear()
    yield
    font_manager.fontManager.ttflist[:] = kept
    for each in found:
        getattr(each, "cache_clear", lambda: None)()


def bare(monkeypatch):
    """A machine that has matplotlib's own fonts only, which have no Chinese."""
    own = [e for e in font_manager.fontManager.ttflist if "matplotlib" in e.fname]
    font_manager.fontManager.ttflist[:] = own
    monkeypatch.setattr(fonts, "PACKAGED", ("no_such_package_of_fonts", "none.otf"))


def font(path, family, characters):
    """A font in which each character is a triangle."""
    pen = TTGlyphPen(None)
    for step, point in enumerate([(0, 0), (500, 800), (900, 0)]):
        (pen.lineTo if step else pen.moveTo)(point)
    pen.closePath()
    names = [".notdef", *(f"glyph{ord(c)}" for c in characters)]
    built = FontBuilder(1000, isTTF=True)
    built.setupGlyphOrder(names)
    built.setupCharacterMap({ord(c): f"glyph{ord(c)}" for c in characters})
    built.setupGlyf(dict.fromkeys(names, pen.glyph()))
    built.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    built.setupHorizontalHeader(ascent=800, descent=-200)
    built.setupNameTable({"familyName": family, "styleName": "Regular"})
    built.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    built.setupPost()
    built.save(path)
    font_manager.fontManager.addfont(path)


def test_latin_needs_no_other_font():
    families, lacking = fonts.families_for(["accuracy, % ± one standard error", "Δ"])
    assert len(families) == 1
    assert not lacking


def test_a_font_that_has_the_characters_is_found_every_time(monkeypatch, tmp_path):
    bare(monkeypatch)
    font(tmp_path / "some.ttf", "Some Chinese", "体育教")
    for _ in range(2):
        families, lacking = fonts.families_for(["体育 sport"])
        assert families[-1] == "Some Chinese"
        assert not lacking


def test_the_font_that_has_most_of_a_text_comes_first_and_another_draws_the_rest(monkeypatch, tmp_path):
    bare(monkeypatch)
    font(tmp_path / "few.ttf", "A Few", "体财")
    font(tmp_path / "many.ttf", "Many", "体育教")
    families, lacking = fonts.families_for(["体育教育财经"])
    assert families[-2:] == ["Many", "A Few"]
    assert lacking == {"经"}


def test_the_usual_families_are_preferred(monkeypatch, tmp_path):
    bare(monkeypatch)
    font(tmp_path / "a.ttf", "Another", "体育教")
    font(tmp_path / "b.ttf", "SimHei", "体育")
    assert fonts.families_for(["体育"])[0][-1] == "SimHei"


def test_a_package_of_fonts_is_found_without_being_imported(monkeypatch, tmp_path):
    bare(monkeypatch)
    folder = tmp_path / "some_fonts"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise ImportError('only its file is wanted')")
    font(folder / "sans.otf", "Noto Sans SC", "体育")
    font_manager.fontManager.ttflist.pop()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(fonts, "PACKAGED", ("some_fonts", "sans.otf"))
    assert fonts.families_for(["体育"]) == (["sans-serif", "Noto Sans SC"], set())


def test_fonts_that_claim_every_character_are_never_taken(monkeypatch, tmp_path):
    bare(monkeypatch)
    font(tmp_path / "boxes.ttf", "Last Resort Something", "体育")
    assert fonts.families_for(["体育"]) == (["sans-serif"], set("体育"))
    assert fonts._glyphs(str(tmp_path / "no_font.ttf")) == frozenset()


def test_without_a_font_names_are_spelled_and_one_line_says_what_to_install(monkeypatch, tmp_path, caplog):
    bare(monkeypatch)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with picture(tmp_path / "a.png", (3, 2), "体育: 1", ["财经", "sport"]) as (figure, shown):
                assert shown == {"财经": "cai jing", "sport": "sport"}
    assert figure.get_suptitle() == "ti yu : 1"
    assert [record.message.split(": ")[0] for record in caplog.records] == [
        "no installed font has all characters of a picture's labels"
    ]
    assert "pip install 'hf_distill[recipes]'" in caplog.text


def test_what_has_no_pinyin_becomes_a_question_mark(monkeypatch):
    assert fonts.spelled("ไทย： 体", frozenset("ไทย：体")) == "???: ti"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert fonts.spelled("体育 2", frozenset("体育")) == "?? 2"


def test_a_picture_is_small_and_a_failed_one_is_not_saved(tmp_path):
    with picture(tmp_path / "busy.png", (6, 6), "noise") as (figure, _):
        axes = figure.subplots()
        axes.imshow([[(i * j * 7919) % 251 for i in range(300)] for j in range(300)], cmap="hsv")
    assert (tmp_path / "busy.png").stat().st_size < 200_000
    with pytest.raises(KeyError, match="accuracy"), picture(tmp_path / "failed.png", (3, 2), "failed"):
        raise KeyError("accuracy")
    assert not (tmp_path / "failed.png").exists()


def test_long_names_are_folded():
    assert fold("体育" * 20, 8, 2) == "体育体育\n体育体…"
    assert fold("short", 20) == "short"
    assert fold("", 20) == ""


def test_models_keep_their_colours_and_markers():
    names = ["distilled", "x", "teacher", "y"]
    assert looks_of(names)[0] == looks_of(["distilled"])[0]
    assert len({one.colour for one in looks_of(names)}) == len({one.marker for one in looks_of(names)}) == 4
    known = {name: look for name, look in LOOKS.items() if name != "untaught student"}  # drawn for the one alone
    assert len({look.colour for look in (*known.values(), *OTHERS)}) == len(known) + len(OTHERS)
    assert len({look.marker for look in (*known.values(), *OTHERS)}) == len(known) + len(OTHERS)
    assert len(looks_of(map(str, range(99)))) == 99
