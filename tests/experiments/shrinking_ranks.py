"""Run by test_shrinking.py on each of two ranks, and imported by it: a student that shrinks in rounds, to a file."""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from accelerate import PartialState
from recipe_runs import TEXTS, write
from transformers import BertConfig, BertForSequenceClassification, TrainerCallback

from hf_distill import lineage
from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.tokenizers import character_tokenizer


class Stopped(TrainerCallback):
    """A run that ends in the middle.

    Args:
        step: behind which.
    """

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def rows(n):
    return [{"text": f"{TEXTS[i % 5]}{TEXTS[i % 3]}{i}", "label": i % 2} for i in range(n)]


def written(folder):
    """Write the rows, and a teacher of four layers and two heads.

    Args:
        folder: holds them afterwards.
    """
    if (teacher := folder / "teacher").exists():
        return
    made = {"train": rows(32), "validation": rows(6), "test": rows(7)}
    tokenizer = character_tokenizer([row["text"] for row in made["train"] for _ in (0, 1)])
    tokenizer.save_pretrained(teacher)
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64)
    sizes |= dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)  # which ranks draw apart
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, initializer_range=0.1, **sizes)
    config.id2label, config.label2id = {0: "0", 1: "1"}, {"0": 0, "1": 1}
    BertForSequenceClassification(config).save_pretrained(teacher)
    for name, some in made.items():
        told = "" if name == "train" else name
        write(folder / f"{name}.jsonl", [{**row, "text": told + row["text"]} for row in some])


def job(folder, *flags, ranks=1):
    """The recipe's experiment of 12 steps, and the path of its teacher."""
    written(folder)
    teacher = folder / "teacher"
    files = [f"--{name}_file={folder / name}.jsonl" for name in ("train", "validation", "test")]
    fixed = ["--teacher_model_name_or_path", str(teacher), "--output_dir", str(folder / "run"), "--num_threads", "1"]
    fixed += [
        "--student_parameters",
        "0.3",
        "--per_device_train_batch_size",
        str(8 // ranks),
        "--num_train_epochs",
        "3",
    ]
    fixed += ["--bf16", "0", "--report_to", "none", "--disable_tqdm", "1", "--logging_steps", "1", "--use_cpu", "1"]
    return recipe_module("bert_chinese").RECIPE.prepare([*files, *fixed, "--save_strategy", "no", *flags]), str(
        teacher
    )


def main(folder):
    state = PartialState(cpu=True)
    with state.main_process_first():
        written(folder)
    made, teacher = job(folder, "--shrink_rounds", "3", ranks=2)
    trainer = made.learn(made.distilled(teacher, made.args))
    weights = {name: value for name, value in trainer.model.state_dict().items() if "distillation" not in name}
    found = {"world_size": state.num_processes, "lineage": lineage(trainer.model), "weights": weights}
    torch.save(found, folder / f"{state.process_index}.pt")
    state.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
