"""What leaves the default run is said in tests/README.md, and nothing else is."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
MARK = "pytest.mark." + "slow"
FEW = "slow_but" + "("


def test_the_table_of_slow_tests_names_the_files_that_have_some():
    page = (TESTS / "README.md").read_text(encoding="utf-8").partition("## What leaves the default run")[2]
    told = set(re.findall(r"^\| `(\S+\.py)`", page.partition("\n## ")[0], re.MULTILINE))
    files = {path.relative_to(TESTS).as_posix(): path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py")}
    assert told == {name for name, text in files.items() if MARK in text or FEW in text}


def test_every_file_with_slow_tests_keeps_others():
    for path in TESTS.rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        assert text.count("\ndef test_") > len(re.findall(rf"^@{MARK}$", text, re.MULTILINE)), path
        assert f"pytestmark = {MARK}" not in text, path
