"""What the pictures show: every text has its glyphs, none lies upon another, and odd reports are drawn too."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.markers import MarkerStyle
from matplotlib.text import Text

from hf_distill.reports import (
    Boxes,
    calibration,
    class_changes,
    fonts,
    plot_boxes,
    plot_classes,
    plot_comparison,
    plot_losses,
    plot_reliability,
)
from hf_distill.reports.picture import LOOKS, OTHERS, looks_of
from hf_distill.reports.plot_maps import plot_maps
from hf_distill.reports.plot_samples import plot_samples

CHINESE = [
    "体育",
    "娱乐",
    "家居",
    "彩票",
    "房产",
    "教育",
    "时尚",
    "时政",
    "星座",
    "游戏",
    "社会",
    "科技",
    "股票",
    "财经",
]
LONG = "国际政治与经济关系以及其他一切国际新闻的综合类别"


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The figures that are saved: each is checked for glyphs and for labels that lie upon each other."""
    kept, save = [], Figure.savefig

    def savefig(figure, path, **options):
        save(figure, path, **options)
        kept.append(figure)
        check(figure)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return kept


def check(figure):
    canvas, whole = FigureCanvasAgg(figure), figure.bbox
    canvas.draw()
    renderer = canvas.get_renderer()
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text():
            files = [findfont(FontProperties(family=[family])) for family in text.get_fontfamily()]
            has = frozenset().union(*map(fonts._glyphs, files))
            assert not set(text.get_text()) - has - set("\n "), text
    around = [text for axes in figure.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    groups = [[axes.get_xticklabels(), axes.get_yticklabels(), axes.texts] for axes in figure.axes]
    for labels in ([*figure.texts, *around], *(labels for group in groups for labels in group)):
        boxes = [t.get_window_extent(renderer) for t in labels if t.get_visible() and t.get_text()]
        # Ticks beyond the axes keep their labels, and are not drawn.
        boxes = [box for box in boxes if whole.contains(*box.min) and whole.contains(*box.max)]
        for place, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:place]), [t.get_text() for t in labels]


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def changes(names, rows=900):
    generator, classes = np.random.default_rng(0), len(names)
    labels = generator.integers(0, classes, rows)
    said = {
        model: np.where(generator.random(rows) < share, labels, generator.integers(0, classes, rows))
        for model, share in {"teacher": 0.9, "student alone": 0.7, "distilled": 0.8}.items()
    }
    return class_changes(said, labels, names)


@pytest.mark.parametrize("names", [["负面", "正面"], [*CHINESE, LONG]])
def test_classes_with_chinese_names(drawn, tmp_path, names):
    plot_classes(changes(names), tmp_path / "classes.png")
    labels = [text.get_text() for text in drawn[0].axes[0].get_yticklabels()]
    assert len(labels) == len(names)
    assert (tmp_path / "classes.png").stat().st_size < 200_000


def test_without_a_font_a_class_has_its_number_and_pinyin(drawn, tmp_path, monkeypatch):
    for name in ("_preferred", "_others"):
        monkeypatch.setattr(fonts, name, dict)
    plot_classes(changes(["体育", "sport"], rows=60), tmp_path / "classes.png")
    labels = sorted(text.get_text().split(" (")[0] for text in drawn[0].axes[0].get_yticklabels())
    assert labels == ["0: ti yu", "sport"]


def test_of_many_classes_both_ends_are_drawn_and_the_title_says_so(drawn, tmp_path):
    found = changes([f"c{i}" for i in range(40)])
    plot_classes(found, tmp_path / "classes.png", "classes", most=4)
    assert drawn[0].get_suptitle() == "classes (8 of 40)"
    labels = [text.get_text().split(" ")[0] for text in drawn[0].axes[0].get_yticklabels()]
    assert labels == [one.name for one in (*found[:4], *found[-4:])]


def test_equal_classes_and_one_without_rows(drawn, tmp_path):
    same = np.array([0, 1] * 9)
    found = class_changes({"student alone": same, "distilled": same}, same, ["积极", "消极", "中立"])
    plot_classes(found, tmp_path / "classes.png")
    low, high = drawn[0].axes[1].get_xlim()
    assert low <= -1
    assert high >= 1


def history(parts, steps):
    for step in range(10, 10 * steps, 10):
        yield {"step": step, "loss": 5 / step, "learning_rate": 0.1, "grad_norm": 3.0, "epoch": 1.0}
        yield {"step": step, **{f"loss/{part}": (1 + i) / step for i, part in enumerate(parts)}}
        yield {"step": step, "eval_loss": 6 / step, "eval_loss/hard": 1.0, "eval_agreement": 1 - 1 / step}
        yield {"step": step, "eval_kl": 0.5, "eval_runtime": 0.3, "eval_samples_per_second": 0.9}
    yield {"step": step, "train_runtime": 9.0, "total_flos": 1e9, "train_loss": 0.4}


@pytest.mark.parametrize(("parts", "steps"), [(["hard"], 3), ([f"a_term_with_a_name_{i}" for i in range(14)], 300)])
def test_every_part_of_the_loss_is_drawn_and_nothing_of_the_machine(drawn, tmp_path, parts, steps):
    plot_losses(list(history(parts, steps)), tmp_path / "losses.png", "学习")
    training, validation, shares = drawn[0].axes
    said = [{line.get_label().strip() for line in axes.lines} for axes in (training, validation, shares)]
    assert said[0] == {"loss", *(f"loss/{part}" for part in parts)}
    assert said[1:] == [{"eval_loss", "eval_loss/hard", "eval_kl"}, {"eval_agreement"}]
    looks = {(line.get_color(), line.get_linestyle()) for line in training.lines}
    assert len(looks) == len(parts) + 1
    assert (tmp_path / "losses.png").stat().st_size < 200_000


def test_losses_that_are_no_numbers_or_come_once(drawn, tmp_path):
    plot_losses([{"step": 1, "loss": 0.5}, {"step": 2, "loss": float("nan")}], tmp_path / "losses.png")
    (line,) = drawn[0].axes[0].lines
    assert line.get_xydata().tolist() == [[1, 0.5]]
    assert line.get_marker() == "o"
    with pytest.raises(ValueError, match="nothing was logged: train with logging_steps"):
        plot_losses([{"step": 9, "train_runtime": 1.0, "loss": float("nan")}], tmp_path / "none.png")


@pytest.mark.parametrize("classes", [2, 15])
def test_reliability_of_three_models(drawn, tmp_path, classes):
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(3, 400, classes)), generator.integers(0, classes, 400)
    names = ["teacher", "学生模型：不带教师训练的小型语言模型", "distilled"]
    found = {name: calibration(2 * each, labels) for name, each in zip(names, logits, strict=True)}
    plot_reliability(found, tmp_path / "reliability.png", "新闻")
    assert sum(f"calibration error {100 * found['teacher'].error:.1f} %" in text for text in texts(drawn[0])) == 1
    assert len(drawn[0].axes) == 3


def test_more_models_than_fit_side_by_side(drawn, tmp_path):
    one = calibration([[1.0, 0.0]] * 9, [0, 1, 1] * 3)
    plot_reliability({f"{LONG} {i}": one for i in range(5)}, tmp_path / "reliability.png")
    assert len(drawn[0].axes) == 5


def rows(names, **figures):
    return [{"name": name, **{key: values[i] for key, values in figures.items()}} for i, name in enumerate(names)]


THREE = ["teacher", "student alone", "distilled"]
COST = {"parameters": [330e6, 4e6, 4e6], "samples_per_second": [20.0, 900.0, 905.0]}


@pytest.mark.parametrize(
    ("names", "figures"),
    [
        (THREE, {"accuracy": [0.9, 0.8, 0.85], "accuracy_error": [0.01, 0.02, None]}),
        (THREE, {"accuracy": [0.9, 0.8, 0.8], "accuracy_interval": [(0.85, 0.92), None, (0.7, 0.9)]}),
        (THREE, {"accuracy": [1.0, 1.0, 1.0], "accuracy_error": [float("inf")] * 3}),
        (["hfl/chinese-roberta-wwm-ext-large-and-more", LONG, "_$x$"], {"accuracy": [0.91, 0.8, 0.805]}),
    ],
)
def test_comparisons_with_and_without_errors(drawn, tmp_path, names, figures):
    plot_comparison(rows(names, **figures, **COST), tmp_path / "report.png", "新闻标题: did the teacher help?")
    scores, size, speed = drawn[0].axes
    assert [axes.get_xlabel() for axes in (size, speed)] == ["parameters, millions", "samples a second"]
    assert len(size.collections) == 3
    bars = [kept for kept in figures.get("accuracy_error", figures.get("accuracy_interval", []))]
    finite = [kept for kept in bars if kept is not None and np.all(np.isfinite(kept))]
    assert len(scores.collections) == len(finite)
    low, high = scores.get_xlim()
    assert high - low >= 2


@pytest.mark.parametrize(
    ("costs", "axis"),
    [
        ({**COST, "latency_p50": [9.0, 1.1, 1.2]}, "milliseconds for one row, median"),
        ({**COST, "latency_p50": [9.0, None, 1.2]}, "samples a second"),
        ({**COST, "latency": [9.0, 1.1, 1.2]}, "milliseconds for one row"),
        ({**COST, "latency": [9.0, None, 1.2]}, "samples a second"),
        ({}, None),
    ],
)
def test_latency_is_drawn_where_all_have_it(drawn, tmp_path, costs, axis):
    plot_comparison(rows(THREE, accuracy=[0.9, 0.8, 0.85], **costs), tmp_path / "a.png", "a")
    assert len(drawn[0].axes) == (3 if costs else 1)
    assert axis in (None, drawn[0].axes[-1].get_xlabel())


def test_models_that_lie_upon_each_other_are_all_seen(drawn, tmp_path):
    figures = {"accuracy": [0.8] * 3, "parameters": [100] * 3, "samples_per_second": [9.0] * 3}
    plot_comparison(rows(THREE, **figures), tmp_path / "a.png", "a")
    sizes = [each.get_sizes()[0] for each in drawn[0].axes[1].collections]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


@pytest.mark.parametrize("names", [["ground", "road"], CHINESE, [LONG] * 150])
def test_maps_of_a_few_images_and_the_classes_that_are_on_them(drawn, tmp_path, names):
    draw = np.random.default_rng(0)
    labels = draw.integers(0, min(len(names), 6), (9, 12, 20))
    labels[:, :2] = 255
    models = {name: labels % (number + 2) for number, name in enumerate(THREE)}
    plot_maps(labels, models, names, tmp_path / "maps.png")
    figure = drawn[0]
    assert len(figure.axes) == 4 * 4  # four of nine images, the right map and those of three models
    first, colours = figure.axes[0].get_images()[0].get_array(), {}
    assert (first[:2] == 1.0).all()  # pixels without a class are white
    for axes, maps in zip(figure.axes[:4], [labels, *models.values()], strict=True):
        shown = axes.get_images()[0].get_array()
        for one in np.unique(maps[0][maps[0] < len(names)]):
            found = np.unique(np.asarray(shown)[maps[0] == one], axis=0)
            assert len(found) == 1
            assert np.array_equal(colours.setdefault(one, found[0]), found[0])  # a class has one colour everywhere
    assert len({tuple(one) for one in colours.values()}) == len(colours)
    assert len(figure.legends[0].get_patches()) == len(colours)


def test_boxes_are_drawn_where_they_are_and_those_a_model_doubts_are_not(drawn, tmp_path):
    images = [np.full((20, 30, 3), 9, dtype=np.uint8)] * 2
    truths = [Boxes([[2, 3, 12, 9]], [1]), Boxes([], [])]
    said = [Boxes([[2, 3, 10, 9], [0, 0, 40, 40]], [0, 1], [0.6, 0.4]), Boxes([[25, 0, 40, 20]], [1], [0.5])]
    plot_boxes(images, truths, {"teacher": said}, ["cat", "dog"], tmp_path / "a.png", "a")
    grid = drawn[0].axes
    assert [[one.get_bbox().bounds for one in axes.patches] for axes in grid] == [
        [(1.5, 2.5, 10, 6)], [(1.5, 2.5, 8, 6)], [], [(24.5, -0.5, 15, 20)],
    ]  # fmt: skip
    assert [[text.get_text() for text in axes.texts] for axes in grid] == [["dog"], ["cat"], [], ["dog"]]
    assert all(axes.get_xlim() == (-0.5, 29.5) and axes.get_ylim() == (19.5, -0.5) for axes in grid)


@pytest.fixture
def planned(monkeypatch):
    """The figures that would be saved; none is drawn, which takes long."""
    kept = []

    def savefig(figure, path, **options):
        path.write_bytes(b"")
        kept.append(figure)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return kept


def pictures_of(names, folder):
    """Every picture that shows models, of the same ones."""
    labels, draw = np.array([0, 1] * 9), np.random.default_rng(0)
    said = {name: draw.integers(0, 2, 18) for name in names}
    boxes = [Boxes([[2, 3, 10, 9]], [0], [0.9])]
    costs = {"parameters": list(range(1, 9)), "latency": list(range(1, 9))}
    plot_comparison(rows(names, accuracy=[0.1 * (2 + i) for i in range(8)], **costs), folder / "a.png", "a")
    plot_reliability({name: calibration(np.eye(2)[one], labels) for name, one in said.items()}, folder / "b.png")
    plot_classes(class_changes(said, labels, ["a", "b"]), folder / "c.png")
    black, blank = np.zeros((20, 30, 3), dtype=np.uint8), np.zeros((1, 4, 4))
    plot_boxes([black], [Boxes([], [])], {name: boxes for name in names}, ["a"], folder / "d.png")
    plot_maps(blank, {name: blank for name in names}, ["a"], folder / "e.png")
    plot_samples(dict.fromkeys(names, np.zeros((2, 8, 8))), folder / "f.png", columns=2)


@pytest.mark.parametrize("names", [THREE, ["teacher", "student alone", "student alone, as long", "mine", "distilled"]])
def test_a_model_looks_the_same_in_every_picture(planned, tmp_path, names):
    pictures_of(names, tmp_path)
    comparison, reliability, classes, boxes, maps, samples = planned
    looks = dict(zip(names, looks_of(names), strict=True))
    assert {name: looks[name] for name in THREE} == {name: LOOKS[name] for name in THREE}
    colours = [to_rgba(look.colour) for look in looks.values()]
    scores, *costs = comparison.axes
    assert [(bar[0].get_color(), bar[0].get_marker()) for bar in scores.containers] == [
        (look.colour, look.marker) for look in looks.values()
    ]
    for axes in costs:
        points = axes.collections
        assert [tuple(one.get_facecolor()[0]) for one in points] == colours
        drawn_as = [MarkerStyle(look.marker) for look in looks.values()]
        for one, style in zip(points, drawn_as, strict=True):
            assert np.allclose(
                one.get_paths()[0].vertices, style.get_path().transformed(style.get_transform()).vertices
            )
    for axes, look in zip(reliability.axes, looks.values(), strict=True):
        bars = [bar for bar in axes.containers if isinstance(bar, ErrorbarContainer)]
        assert {(bar[0].get_color(), bar[0].get_marker()) for bar in bars} == {(look.colour, look.marker)}
    bars, moved = classes.axes
    assert [bar.patches[0].get_facecolor() for bar in bars.containers] == colours
    assert {bar[0].get_marker() for bar in moved.containers} == {LOOKS["distilled"].marker}
    assert not {bar[0].get_color() for bar in moved.containers} & {look.colour for look in (*LOOKS.values(), *OTHERS)}
    for figure in (boxes, maps):
        assert [axes.spines["top"].get_edgecolor() for axes in figure.axes[1:]] == colours
    named = [text for axes in samples.axes for text in axes.texts]
    assert [text.get_bbox_patch().get_edgecolor() for text in named] == colours


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="give one image and one model at least"):
        plot_maps([], {}, [], tmp_path / "none.png")
    for draw in (plot_classes, plot_reliability):
        with pytest.raises(ValueError, match="give at least one"):
            draw([], tmp_path / "none.png")
    with pytest.raises(ValueError, match="there are no models"):
        plot_comparison([], tmp_path / "none.png", "none")
    with pytest.raises(ValueError, match="give one image and one model at least"):
        plot_boxes([], [], {}, [], tmp_path / "none.png")
