from pathlib import Path

import older_transformers
import pytest
from older_transformers import LEFT_OUT, PICTURES, left_out

HERE = Path(__file__).parent
NAMES = [name for names in LEFT_OUT.values() for name in names]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_left_out_is_there(name):
    path, _, test = name.partition("::")
    assert f"def {test.partition('[')[0]}" in (HERE / path).read_text(encoding="utf-8")


def test_nothing_is_left_out_with_a_newer_one(monkeypatch):
    monkeypatch.setattr(older_transformers, "OLD", False)
    assert {left_out(f"tests/{name}") for name in NAMES} == {None}
    monkeypatch.setattr(older_transformers, "OLD", True)
    monkeypatch.setattr(older_transformers, "find_spec", lambda name: None)
    assert {left_out(f"tests/{name}") for name in NAMES} == set(LEFT_OUT)
    assert left_out("tests/test_signals.py::test_anything") is None
    monkeypatch.setattr(older_transformers, "find_spec", lambda name: "there")
    assert PICTURES not in {left_out(f"tests/{name}") for name in NAMES}
