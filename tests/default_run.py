"""What the default run tries of many cases; `pytest -m all` tries every one."""

import pytest


def slow_but(kept, cases):
    """The cases, all but those kept marked as slow."""
    cases = list(cases)
    assert not [one for one in kept if one not in cases]
    return [one if one in kept else pytest.param(one, marks=pytest.mark.slow) for one in cases]
