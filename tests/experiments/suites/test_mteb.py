"""Encoders of sentences under mteb: tasks of a file, whose rows are local; figures; what is refused."""

import importlib.util

import numpy as np
import pytest
import tiny
from datasets import Dataset
from scipy.stats import spearmanr
from tiny_tasks import CASES
from transformers import AutoModel, AutoTokenizer

from hf_distill.experiments.suites import Asked, Mteb
from hf_distill.tasks import ImageClassification

LIBRARY = pytest.mark.skipif(importlib.util.find_spec("mteb") is None, reason="needs hf_distill[mteb]")
pytestmark = [
    # mteb 2.26 calls a method of sentence-transformers by its old name, and itself with what it deprecates.
    pytest.mark.filterwarnings("ignore:The `get_sentence_embedding_dimension` method has been renamed:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The fill_missing parameter is deprecated:DeprecationWarning"),
]

TASKS = """
from datasets import Dataset
from mteb.abstasks import AbsTaskRetrieval, AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata

ABOUT = dict(description="Mine.", eval_langs=["eng-Latn"])


class Near(AbsTaskSTS):
    metadata = TaskMetadata(
        name="Near", type="STS", main_score="cosine_spearman", dataset={{"path": "{folder}", "revision": "7"}}, **ABOUT
    )


class Finds(AbsTaskRetrieval):
    metadata = TaskMetadata(
        name="Finds", type="Retrieval", main_score="ndcg_at_10", dataset={{"path": "none", "revision": "1"}}, **ABOUT
    )

    def load_data(self, num_proc=None, **kwargs):
        texts = {texts}
        rows = [{{"id": str(i), "text": text}} for i, text in enumerate(texts)]
        held = dict(corpus=Dataset.from_list(rows), queries=Dataset.from_list(rows), top_ranked=None)
        held["relevant_docs"] = {{one["id"]: {{one["id"]: 1}} for one in rows}}
        self.dataset = {{"default": {{"test": held}}}}
        self.data_loaded = True
"""
TEXTS = [" ".join(tiny.WORDS[(3 * i + j) % len(tiny.WORDS)] for j in range(2 + i % 3)) for i in range(12)]
OTHERS, SCORES = [*TEXTS[5:], *TEXTS[:5]], [float(i * 7 % 5) for i in range(12)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A file of tasks, their rows, and an encoder with its tokenizer."""
    root = tmp_path_factory.mktemp("mteb")
    (root / "rows").mkdir()
    pairs = {"sentence1": TEXTS, "sentence2": OTHERS, "score": SCORES}
    Dataset.from_dict(pairs).to_json(root / "rows" / "test.jsonl")
    (root / "tasks.py").write_text(TASKS.format(folder=root / "rows", texts=TEXTS), encoding="utf-8")
    CASES["embedding"].model().save_pretrained(root / "model")
    tiny.tokenizer().save_pretrained(root / "model")
    return root


def suite(place, *tasks, **more):
    return Mteb(Asked(tasks, include_path=str(place / "tasks.py"), **more))


def vectors(place, texts, pool):
    """By transformers alone."""

    model, tokenizer = (
        AutoModel.from_pretrained(place / "model").eval(),
        AutoTokenizer.from_pretrained(place / "model"),
    )
    states = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].detach() for text in texts]
    return np.stack([(one[0] if pool == "first" else one.mean(0)).numpy() for one in states])


def near(place, pool):
    left, right = vectors(place, TEXTS, pool), vectors(place, OTHERS, pool)
    cosines = (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
    return spearmanr(cosines, SCORES)[0]


@LIBRARY
@pytest.mark.slow
@pytest.mark.parametrize("pool", ["mean", "first"])
def test_a_figure_is_what_transformers_gives_for_the_same_rows(place, pool):
    (figure,) = suite(place, "Near", pool=pool).score(str(place / "model"))
    assert figure.value == pytest.approx(near(place, pool), abs=1e-6)
    assert (figure.task, figure.metric, figure.rows, figure.error) == ("Near", "cosine_spearman", 12, None)
    assert figure.settings == {"pool": pool, "task version": "7"}


@LIBRARY
@pytest.mark.slow
def test_several_tasks_the_first_rows_and_each_model_alike(place):
    made = suite(place, "Finds", "Near", limit=5)
    figures = made.score(str(place / "model"))
    assert [(one.task, one.rows) for one in figures] == [("Finds", 5), ("Near", 5)]
    assert figures[0].value == 1.0  # each text is its own document, among all twelve
    assert [one.value for one in made.score(str(place / "model"))] == [one.value for one in figures]


@LIBRARY
@pytest.mark.slow
def test_what_cannot_be_is_refused_in_a_sentence(place, tmp_path):
    for name, near_it in (("Neer", "did you mean Near"), ("STSBenchmrk", "did you mean .*STSBenchmark or")):
        with pytest.raises(ValueError, match=f"^the task '{name}' was asked for, and mteb has none .*: {near_it}"):
            suite(place, name)
    with pytest.raises(ValueError, match=r"^include_path=nowhere.py was given, which is no file of Python"):
        Mteb(Asked(["Near"], include_path="nowhere.py"))
    (tmp_path / "torn.py").write_text("import no_such_module\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"torn.py could not be run \(ModuleNotFoundError: .*\): correct it"):
        Mteb(Asked(["Near"], include_path=str(tmp_path / "torn.py")))
    with pytest.raises(ValueError, match=r"^the task STS12 could not be loaded \(.*sts12-sts.*\): rows of public"):
        Mteb(Asked(["STS12"]))
    with pytest.raises(ValueError, match="nowhere and its tokenizer could not be loaded"):
        suite(place, "Near").score(str(place / "nowhere"))


def test_whatever_sentence_transformers_wrote_is_taken(tmp_path):
    other = ImageClassification(num_labels=2)
    assert not Mteb.takes(other, tmp_path)
    (tmp_path / "modules.json").write_text("[]", encoding="utf-8")
    assert Mteb.takes(other, tmp_path)
