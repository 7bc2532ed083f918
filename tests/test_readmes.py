"""READMEs: their links resolve, their examples run and print what they show, their commands parse."""

import contextlib
import importlib.util
import io
import re
import runpy
import shlex
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch.distributed.run
from accelerate.commands.launch import launch_command_parser

from hf_distill import cli
from hf_distill.cli.recipes import load_recipe, recipe_names

ROOT = Path(__file__).parents[1]
MAIN = ROOT / "README.md"
FOLDERS = sorted({path for room in ("hf_distill", "recipes", "tests") for path in (ROOT / room).glob("**/README.md")})
FOLDERS.append(ROOT / "model_cards" / "README.md")
CARDS = sorted(ROOT.glob("model_cards/*/README.md"))  # as a run wrote them: their code loads a model from the Hub
READMES = [MAIN, *FOLDERS]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FRAGMENT = "<!-- fragment: "
NEEDS = re.compile(r"<!-- needs (\w+) -->")  # a package that `pip install -e ".[test]"` does not bring
NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*(e[-+]?\d+)?")
COMMANDS = ("accelerate", "hf-distill", "python", "pip", "pytest", "hf", "vllm", "torchrun")
CODE_SPAN = re.compile(rf"`((?:{'|'.join(COMMANDS)}) [^`]+)`")
MADE = {"ds.json": "{}", "my.yaml": "recipe: bert_chinese\n"}  # files of the user's that commands name
USERS = ("script.py", "my_recipe.py", "recipes/NAME.py")  # scripts of the user's


def named(path):
    return str(path.relative_to(ROOT))


def without_code(text):
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def anchors(path):
    """What GitHub makes of the headings."""
    found = []
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        found.append(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


def links(path):
    text = without_code(path.read_text(encoding="utf-8"))
    defined = dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", text, re.MULTILINE))
    inline = re.findall(r"\]\(([^)\s]+)\)", text)
    used = {name for name in re.findall(r"\]\[([^\]]+)\]", text)} | {
        name for name in re.findall(r"\[([^\]]+)\](?![\[(:])", text) if name in defined
    }
    assert used == set(defined), f"{named(path)} uses {sorted(used)} and defines {sorted(defined)}"
    return [*inline, *defined.values()]


def broken(path):
    """The links of a README that lead nowhere."""
    for link in links(path):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        if not target.exists() or ROOT not in (target, *target.parents):
            yield link
        elif anchor and anchor not in anchors(target):
            yield link


def blocks(path):
    """(language, code, whether it is marked as a fragment) of every block."""
    text = path.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        above = text[: found.start()].rstrip("\n").rpartition("\n")[2]
        lacks = (needed := NEEDS.fullmatch(above)) and importlib.util.find_spec(needed[1]) is None
        yield found[1], found[2], bool(lacks) or (above.startswith(FRAGMENT) and above.endswith(" -->"))


def commands(path):
    """The commands of a README: every line of a bash block, and what stands in backticks and begins as one."""
    text = path.read_text(encoding="utf-8")
    lines = [line for language, code, _ in blocks(path) if language == "bash" for line in joined(code)]
    lines += [span.replace("\n", " ") for span in CODE_SPAN.findall(FENCE.sub("", text))]
    return [part.strip() for line in lines for part in line.split("&&")]


def joined(code):
    return [line for line in code.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]


# ---- What a command takes: parsed by who would run it, and stopped before anything is run ----


def flags_in(text):
    return set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", text))


def stopped(main, words):
    """Run a parser up to ``--help``, which checks the values before it and runs nothing; return what it printed."""
    printed, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        try:
            main([*words, "--help"])
        except SystemExit as ended:
            if ended.code:
                raise ValueError(errors.getvalue()) from ended
    return printed.getvalue()


@cache
def help_of(kind, name):
    if kind == "recipe":
        return stopped(load_recipe([name])[0].main, [])
    if kind in ("compare", "report"):
        return stopped(lambda words: cli.main([kind, *words]), [name])
    return stopped(cli.main, [kind])


def check_flags(words, told):
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert given <= flags_in(told), sorted(given - flags_in(told))


def check_recipe(name, words, kind="recipe"):
    assert name in recipe_names()
    check_flags(words, help_of(kind, name))
    own = words[:1] if words and words[0].endswith((".yaml", ".json")) else []
    if kind == "recipe":
        assert own or not words or words[0].startswith("--"), f"{words[0]} is no flag"
        stopped(load_recipe([name])[0].main, words)


def check_hf_distill(words):
    command, *rest = words
    assert command in cli.COMMANDS, command
    if command in ("train", "compare", "report"):
        if rest:
            recipe, left = load_recipe(rest)
            check_recipe(recipe.name, left, "recipe" if command == "train" else command)
        return
    check_flags(rest, help_of(command, ""))


def check_script(script, words):
    """A script with the words behind it; its own name comes from the root of the repository."""
    path = ROOT / script
    assert path.is_file(), script
    if path.parent == ROOT / "recipes":
        check_recipe(path.stem, words)
    else:
        check_benchmark(path, words)


def check_benchmark(path, words):
    if "argparse" not in path.read_text(encoding="utf-8"):
        assert not any(word.startswith("-") for word in words)
        return

    def main(argv):
        before, folders, threads = sys.argv, list(sys.path), torch.get_num_threads()
        sys.argv = [str(path), *argv]
        try:
            runpy.run_path(str(path), run_name="__main__")
        finally:
            sys.argv, sys.path[:] = before, folders
            torch.set_num_threads(threads)

    check_flags(words, stopped(main, words))


def check_accelerate(words):
    assert words[0] == "launch"
    if not any(word.endswith(".py") or word == "-m" for word in words):  # a line about its own flags
        words = [*words, "script.py"]
    asked = launch_command_parser().parse_args(words[1:])
    if asked.config_file is not None:
        assert (ROOT / asked.config_file).is_file(), asked.config_file
    launched(asked.training_script, asked.training_script_args, asked.module)


def launched(script, words, module):
    if module:
        assert script == "hf_distill.cli", script
        check_hf_distill(words)
    elif script not in USERS:
        check_script(script, words)


def check_python(words):
    if words[:2] == ["-m", "torch.distributed.run"]:
        if not any(word.endswith(".py") for word in words):
            words = [*words, "script.py"]
        asked = torch.distributed.run.get_args_parser().parse_args(words[2:])
        return launched(asked.training_script, asked.training_script_args, asked.module)
    if words[0] == "-m":
        return launched(words[1], words[2:], True)
    return launched(words[0], words[1:], False)


def check_pip(words):
    assert words[0] == "install"
    if "-c" in words:
        assert (ROOT / words[words.index("-c") + 1]).is_file()
    known = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    for extra in re.findall(r"\.\[([^\]]*)\]", " ".join(words)):
        assert set(extra.split(",")) <= set(known), extra


def check(line):
    """Parse a command as the shell and its program would."""
    program, *words = shlex.split(line, comments=True)
    if program == "accelerate":
        check_accelerate(words)
    elif program == "hf-distill":
        check_hf_distill(words)
    elif program == "python":
        check_python(words)
    elif program == "pip":
        check_pip(words)
    elif program == "pytest":
        valued = [word for before, word in pairwise(["", *words]) if before in ("-k", "-m", "-n")]
        assert all((ROOT / word).exists() for word in words if not word.startswith("-") and word not in valued), words
    else:
        assert program in ("hf", "vllm"), f"{program} is not known here: say how it is checked"


# ---- What an example prints ----


def run(path):
    """Run the python blocks of a README in one namespace; a text block shows the end of what the last one printed."""
    everything, printed = {"__name__": "readme"}, None
    for language, code, fragment in blocks(path):
        assert language, f"{named(path)} has a block that does not say what it is"
        if language == "python" and fragment:
            compile(code, str(path), "exec")
            printed = None
        elif language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
                exec(compile(code, str(path), "exec"), everything)
            printed = out.getvalue()
        elif language == "text" and printed is not None:
            shown, said = (NUMBER.sub("#", words.strip()) for words in (code, printed))
            assert said.endswith(shown), printed  # digits differ from one processor to the next, words do not
            printed = None


# ---- The tests ----


def test_the_first_page_is_short():
    lines = MAIN.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 250
    assert [line for line in lines if len(line) > 100] == []


@pytest.mark.parametrize("path", FOLDERS, ids=named)
def test_the_page_of_a_folder_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("path", [*READMES, *CARDS], ids=named)
def test_every_link_resolves(path):
    assert list(broken(path)) == []


@pytest.mark.parametrize("path", READMES, ids=named)
def test_every_python_block_runs_and_prints_what_it_shows(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run(path)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("path", READMES, ids=named)
def test_every_command_parses(path, tmp_path, monkeypatch):
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    for name, content in MADE.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for line in commands(path):
        try:
            check(line)
        except (AssertionError, SystemExit, ValueError) as error:
            raise AssertionError(f"{named(path)}: {line}: {error}") from error


def test_every_package_takes_its_page_along():
    setup = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^"\*" = \[.*"\*\.md"', setup, re.MULTILINE)
    assert re.search(r'^"hf_distill\.recipes" = \[.*"accelerate/\*"', setup, re.MULTILINE)
    rooms = [path.parent for path in FOLDERS if (path.parent / "__init__.py").exists()]
    packages = [".".join(room.relative_to(ROOT).parts) for room in rooms]
    assert packages
    assert [name for name in packages if f'"{name}",' not in setup] == []


# ---- That these tests can fail ----


def test_a_link_that_leads_nowhere_is_found(tmp_path, monkeypatch):
    page = tmp_path / "README.md"
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    page.write_text("# One `two`: three\n[a](#one-two-three) [b](#four) [c](no.md) [d][e] `[f](g)`\n\n[e]: nowhere\n")
    assert list(broken(page)) == ["#four", "no.md", "nowhere"]


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint(absent)\n```\n",
        "```python\nprint('two', 1)\n```\n\n```text\none 2\n```\n",
        "<!-- fragment: never run -->\n```python\nprint(\n```\n",
        "```\nwhat is this?\n```\n",
    ],
)
def test_an_example_that_is_wrong_is_found(text, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "README.md").write_text(text)
    with pytest.raises((AssertionError, NameError, SyntaxError)):
        run(tmp_path / "README.md")


def test_a_fragment_is_not_run_and_digits_may_differ(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(
        "<!-- fragment: never run -->\n```python\nabsent()\n```\n"
        "```python\nprint('loss', 0.25)\n```\n```text\nloss 0.26\n```\n"
    )
    run(page)


@pytest.mark.parametrize(
    "line",
    [
        "accelerate launch recipes/bert_chinese.py --tain_file rows.jsonl",
        "accelerate launch --num_proceses 4 recipes/bert_chinese.py",
        "accelerate launch --config_file recipes/accelerate/none.yaml recipes/bert_chinese.py",
        "accelerate launch recipes/poems.py",
        "accelerate launch recipes/bert_chinese.py --seed many",
        "hf-distill distil bert_chinese",
        "hf-distill cache --teachers me/teacher",
        "hf-distill compare bert_chinese --seed_list 1 2",
        "python tests/benchmarks/fused.py --tokens many",
        "python tests/benchmarks/fused.py --words 3",
        "pip install -e .[none]",
        "make readme",
    ],
)
def test_a_command_that_does_not_parse_is_found(line):
    with pytest.raises((AssertionError, SystemExit, ValueError)), contextlib.redirect_stderr(io.StringIO()):
        check(line)
