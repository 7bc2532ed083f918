"""The numbers must not move: losses, gradients and evaluations of this checkout beside those of a commit.

    python tests/benchmarks/same_digits.py [--against COMMIT] [--only PART_OF_A_NAME] [--recipes]

Without ``--against`` it is the last commit: what is edited and not committed yet has changed no number. Every setting
of recorded_digits.py is trained twice, by the commit's ``hf_distill`` (in a ``git worktree`` of its own) and by that
of the checkout in whose folder the command is given; ``--recipes`` compares what each recipe reports, too, without
times and speeds. A row says how many numbers there are and how far the farthest is; one bit counts. A setting that the
commit lacks is "new" and does not count. Exit code 1: a number moved, or this checkout cannot run a setting.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

RECORDER = Path(__file__).with_name("recorded_digits.py")
ALWAYS = (
    "--bf16 0 --num_threads 1 --disable_tqdm 1 --report_to none --save_strategy no --max_steps 2 "
    "--max_train_samples 96 --max_eval_samples 16"
)
SMALL = f"{ALWAYS} --teacher_layers 1 --teacher_hidden_size 64 --student_layers 1 --student_hidden_size 64"
RECIPES = {
    "bert_chinese": f"{SMALL} --eval_strategy steps --eval_steps 1",
    "bert_chinese (adapter)": f"{SMALL} --augmentation mask --lora_rank 2 --merge_lora",
    "causal_lm": f"{SMALL} --max_length 24 --measure_assistant 2 --assistant_tokens 6",
    "masked_lm": f"{SMALL} --max_length 24",
    "question_answering": SMALL,
    "sentence_embeddings": f"{ALWAYS} --teacher_model_name_or_path teacher --train_file texts.jsonl",
    "token_tagging": SMALL,
    "translation": f"{SMALL} --per_device_train_batch_size 16",
}
"""A recipe's name, and flags; what stands in brackets behind a name tells two runs of it apart."""
MEASURED = re.compile(r"second|minute|hour|time|speed|latency|per_s|date|version|memory|commit|cpu|faster")
"""In the names of what is another number every time."""
RENAMED = {"unlearned_rows": "rows_without_labels", "rollout/unprompted": "rollout/no_prompt"}
COMMAND = "import sys; from {} import {} as main; sys.exit(main())"


def started(folder, tree, checkout, words, **how):
    """Begin a Python of its own that imports the ``hf_distill`` of a tree."""
    tests = checkout / "tests"
    found = os.pathsep.join(map(str, (tree, tests, *(path.parent for path in tests.rglob("two_texts.py")))))
    environment = {**os.environ, "PYTHONPATH": found, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with (folder / "said.txt").open("w") as said:
        return subprocess.Popen(
            [sys.executable, *map(str, words)], cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT
        )


def ended(run, folder, what):
    """Wait for it; what it said is shown where it failed."""
    if run.wait():
        raise SystemExit(f"{what} failed:\n{(folder / 'said.txt').read_text()[-3000:]}")


def trainings(folders, trees, checkout, only):
    """Record both versions at the same time: each has one thread."""
    runs = [
        started(folder, tree, checkout, [RECORDER, folder / "digits.json", "--only", only])
        for folder, tree in zip(folders, trees, strict=True)
    ]
    found = []
    for run, folder, tree in zip(runs, folders, trees, strict=True):
        ended(run, folder, "recorded_digits.py")
        made = json.loads((folder / "digits.json").read_text())
        if (package := Path(made["package"])).resolve().parent != (tree / "hf_distill").resolve():
            raise SystemExit(f"{package} was run, and {tree} was to be compared: take the other one off the path.")
        found.append(made["settings"])
    return found


def recipes(folders, trees, checkout, only):
    """Let both versions run every recipe, by the command that they install."""
    found = [{}, {}]
    for name, flags in RECIPES.items():
        if only not in f"recipe {name}":
            continue
        runs = []
        for folder, tree in zip(folders, trees, strict=True):
            (here := folder / name.replace(" ", "_")).mkdir()
            if "texts.jsonl" in flags:
                texts_and_teacher(here)
            entry = re.search(r'^hf-distill = "(.+):(.+)"', (tree / "pyproject.toml").read_text(), re.MULTILINE)
            words = ["-c", COMMAND.format(*entry.groups()), "train", name.partition(" ")[0], "--output_dir", "run"]
            runs.append((here, started(here, tree, checkout, [*words, *flags.split()])))
        for made, (here, run) in zip(found, runs, strict=True):
            run.wait()
            report = here / "run" / "report.json"
            said = " ".join((here / "said.txt").read_text().split())[-300:]
            made[f"recipe {name}"] = flat(json.loads(report.read_text())) if report.exists() else {"refused": said}
    return found


def texts_and_teacher(folder):
    """A tiny encoder with its tokenizer, and texts that it can read."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    words = [f"w{i}" for i in range(24)]
    vocabulary = {t: i for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    BertTokenizer(vocab=vocabulary, model_max_length=32).save_pretrained(folder / "teacher")
    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 64}
    config = BertConfig(**sizes, num_hidden_layers=4, num_attention_heads=2)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder / "teacher")
    rows = [{"text": " ".join(words[(i * j) % 24] for j in range(1, 4 + i % 5))} for i in range(60)]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def flat(report, before=""):
    """The leaves of a report by their path, numbers digit by digit, without what is measured by a clock."""
    if not isinstance(report, (dict, list)):
        return {before: report.hex() if isinstance(report, float) else repr(report)}
    named = report.items() if isinstance(report, dict) else enumerate(report)
    leaves = {}
    for name, value in named:
        if not MEASURED.search(str(name)):
            leaves |= flat(value, f"{before}/{name}")
    return leaves


def today(name):
    """What an older commit's entry of the log is called."""
    for older, newer in RENAMED.items():
        name = name.replace(older, newer)
    return name


def verdict(ours, theirs):
    """How one setting compares: what its row says, and whether it is the same (None: it does not count)."""
    theirs = None if theirs is None else {today(name): value for name, value in theirs.items()}
    if "refused" in ours:
        return f"this checkout cannot run it: {ours['refused']}", False
    if theirs is None or "refused" in theirs:
        return "new", None
    if moved := sorted(ours.keys() ^ theirs.keys()):
        return f"other names: {', '.join(moved[:4])}", False
    if not (different := [name for name in ours if ours[name] != theirs[name]]):
        return "0", True
    far = {name: distance(ours[name], theirs[name]) for name in different}
    worst = max(far, key=far.get)
    return f"{far[worst]:.1e} in {worst} ({len(different)} differ)", False


def distance(one, other):
    """Of two numbers as they are written; of two words it is not to be said."""
    try:
        return abs(float.fromhex(one) - float.fromhex(other))
    except ValueError:
        return float("inf")


def compared(ours, theirs):
    """Print the table and its last line; say whether all is the same."""
    names, rows = [*ours, *(name for name in theirs if name not in ours)], []
    gone = {"refused": "the commit has it"}
    for name in names:
        said, same = verdict(ours.get(name, gone), theirs.get(name))
        rows.append((name, len(ours.get(name, ())), said, same))
    width = max(map(len, names), default=0)
    print(f"{'setting':{width}}  {'numbers':>7}  largest difference")
    for name, count, said, _ in rows:
        print(f"{name:{width}}  {count:7}  {said}")
    differ = [name for name, *_, same in rows if same is False]
    counted = sum(same is not None for *_, same in rows)
    print(f"{len(differ)} of {counted} settings differ: {', '.join(differ)}" if differ
          else f"{counted} settings, all the same digits")  # fmt: skip
    return bool(counted) and not differ


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--against", default="HEAD", help="a commit, HEAD unless another one is named")
    parser.add_argument("--only", default="", help="settings whose name holds this")
    parser.add_argument("--recipes", action="store_true", help="the reports of the recipes, too")
    asked = parser.parse_args()
    git = ["git", "rev-parse", "--show-toplevel"]
    checkout = Path(subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip())
    with tempfile.TemporaryDirectory(prefix="same_digits_") as folder:
        tree, folders = Path(folder) / "commit", [Path(folder) / name for name in ("ours", "theirs")]
        for one in folders:
            one.mkdir()
        git = ["git", "-C", str(checkout), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), asked.against], check=True)
        try:
            given = (folders, (checkout, tree), checkout, asked.only)
            ours, theirs = trainings(*given)
            if asked.recipes:
                for made, more in zip((ours, theirs), recipes(*given), strict=True):
                    made |= more
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)
    sys.exit(not compared(ours, theirs))


if __name__ == "__main__":
    main()
