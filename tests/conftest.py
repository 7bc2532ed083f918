"""Every test is offline, seeded and quiet."""

import functools
import gc
import importlib.metadata
import itertools
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed, where it is installed, need not look for others
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models gain nothing from more, and two workers share the cores

import pytest
import torch
from older_transformers import left_out

TESTS = itertools.count()
# Begun first: a worker that comes to one of these last is waited for by the other.
LONG = (
    "trainer/test_strategies.py", "trainer/test_strategies_by_kind.py", "trainer/test_exact.py",
    "trainer/test_objectives.py", "recipes/test_bert_chinese.py", "recipes/test_full_size.py",
    "experiments/test_over_seeds.py", "experiments/test_shrinking.py", "tasks/test_image_text_to_text.py",
)  # fmt: skip
# accelerate reads the whole page of DeepSpeed, where it is installed, whenever it looks for it: thrice a training.
importlib.metadata.metadata = functools.cache(importlib.metadata.metadata)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _imports_are_no_garbage():
    """Trainer collects garbage after each training: three quarters of a tiny one's time if it looks at torch again.

    Every tenth test counts anew what is there: the first tests of a file import much of what they need.
    """
    if next(TESTS) % 10 == 1:
        gc.collect()
        gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """`pytest -m all` runs every test; without it those that are marked as slow are left out, see pyproject.toml."""
    for item in items:
        item.add_marker("all")
        if reason := left_out(item.nodeid):
            item.add_marker(pytest.mark.skip(reason=reason))
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONG))


@pytest.hookimpl(wrapper=True)
def pytest_collect_file():
    """Tests have no examples, and a test that cannot be imported is an error: an example would only be skipped."""
    return [one for one in (yield) if type(one).__name__ != "DoctestModule"]
