"""What a previous version wrote, and how it was called: read and understood by this one.

    python tests/benchmarks/previous_version.py [--commit 6240130]

The commit's ``hf_distill`` (in a ``git worktree`` of its own) trains a student with projections under a teacher whose
answers go into a folder, writes checkpoints and stops; this version goes on from the checkpoint, and trains on the
folder without the teacher. Both must end with the losses that the previous version has where nobody stopped it. Then
every public name of the commit is imported, and every YAML file of its recipes is parsed by today's. Exit code 1: one
of these fails.
"""

import argparse
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
STEPS = 8
PARTS = {
    "a run that nobody stopped": ("whole", STEPS),
    "a run that stops half way": ("stopped", STEPS // 2),
    "a checkpoint is gone on from": ("resumed", STEPS),
    "a folder of answers, without the teacher": ("folder", STEPS),
}
STEPS_OF = dict(PARTS.values())
STEPS_OF = dict(PARTS.values())


def trained(folder, how):
    """One training with whichever version is on the path; prints its losses."""
    import torch
    from datasets import Dataset
    from transformers import BertConfig, BertForSequenceClassification

    from hf_distill import DistillationTrainer, DistillationTrainingArguments

    def bert(width, seed):
        torch.manual_seed(seed)
        return BertForSequenceClassification(
            BertConfig(
                vocab_size=40, hidden_size=width, num_hidden_layers=2, num_attention_heads=2, intermediate_size=width,
                num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
            )
        )  # fmt: skip

    torch.manual_seed(0)
    words = torch.randint(40, (32, 6))
    rows = Dataset.from_dict({"input_ids": words.tolist(), "labels": (words[:, 0] % 3).tolist()})
    kept = str(folder / "answers")
    args = DistillationTrainingArguments(
        str(folder / how), alpha=0.7, max_steps=STEPS_OF[how], per_device_train_batch_size=8, logging_steps=1,
        save_steps=STEPS // 2, use_cpu=True, report_to="none", disable_tqdm=True, learning_rate=1e-2,
        lr_scheduler_type="constant", objective={"forward_kl": 1.0, "hidden_mse": 1.0},
        teacher_cache="auto" if how == "folder" else kept,
    )  # fmt: skip
    teacher = kept if how == "folder" else bert(24, 1)
    trainer = DistillationTrainer(bert(16, 0), args, train_dataset=rows, teacher_model=teacher)
    trainer.train(
        resume_from_checkpoint=str(folder / "stopped" / f"checkpoint-{STEPS // 2}") if how == "resumed" else None
    )
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    (folder / f"{how}.json").write_text(json.dumps(losses))


def started(tree, words):
    """Run this file with the ``hf_distill`` of a tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, __file__, *map(str, words)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))} failed:\n{done.stderr[-3000:]}")


def public(tree):
    """The public names of a tree, from the table in its ``__init__``."""
    text = (tree / "hf_distill" / "__init__.py").read_text(encoding="utf-8")
    return re.findall(r'^    "(\w+)": "', text, re.MULTILINE)


def settings_understood(tree):
    """Parse each recipe's YAML file of a tree with today's recipe of that name; yield what is not understood."""
    from hf_distill.cli.recipes import load_recipe

    for path in sorted(tree.glob("recipes/*.yaml")):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
            load_recipe([path.stem])[0].main([str(path), "--help"])
        if "usage" not in said.getvalue().lower():
            yield f"{path.name}: {said.getvalue()[-300:]}"


def main():
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--commit", default="6240130", help="The previous version.")
    asked.add_argument("--train", nargs=2, metavar=("FOLDER", "HOW"), help=argparse.SUPPRESS)
    asked = asked.parse_args()
    if asked.train:
        return trained(Path(asked.train[0]), asked.train[1])
    sys.path.insert(0, str(ROOT))
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", tree, asked.commit], cwd=ROOT, check=True)
        try:
            for what, (how, _) in PARTS.items():
                started(tree if how in ("whole", "stopped") else ROOT, ["--train", folder, how])
                losses = json.loads((Path(folder) / f"{how}.json").read_text())
                whole = json.loads((Path(folder) / "whole.json").read_text())
                same = losses == whole[: len(losses)] and len(losses) == STEPS_OF[how]
                print(f"{what:<44}{len(losses):>3} losses  {'the same digits' if same else losses}")
                failures += [] if same else [what]
            import hf_distill

            lost = [name for name in public(tree) if not hasattr(hf_distill, name)]
            print(f"{'public names':<44}{len(public(tree)):>3} names   {lost or 'all are there'}")
            unread = list(settings_understood(tree))
            files = len(list(tree.glob("recipes/*.yaml")))
            print(f"{'YAML files of the recipes':<44}{files:>3} files   {unread or 'all are read'}")
            failures += lost + unread
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)
    print(f"{len(failures)} of these fail: {failures}" if failures else "all that the previous version wrote is read")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
