"""Run by test_shrinking.py on each of two ranks, and imported by it: a student that shrinks in rounds, to a file."""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
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


def job(folder, *flags, ranks=1):
    """The recipe's experiment of 12 steps, and the path of a teacher of four layers and two heads."""
    teacher, data = folder / "teacher", [*rows(32)]
    if not teacher.exists():
        tokenizer = character_tokenizer([row["text"] for row in data for _ in (0, 1)])
        tokenizer.save_pretrained(teacher)
        torch.manual_seed(0)
        sizes = dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64)
        config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, initializer_range=0.1, **sizes)
        config.id2label, config.label2id = {0: "0", 1: "1"}, {"0": 0, "1": 1}
        BertForSequenceClassification(config).save_pretrained(teacher)
        for name, some in (("train", data), ("validation", rows(6)), ("test", rows(7))):
            write(
                folder / f"{name}.jsonl",
                [{"text": f"{name}{i}", **row} if name != "train" else row for i, row in enumerate(some)],
            )
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
    rank = int(os.environ["RANK"])
    if rank == 0:
        job(folder)
    torch.distributed.init_process_group("gloo")
    torch.distributed.barrier()
    made, teacher = job(folder, "--shrink_rounds", "3", ranks=2)
    trainer = made.learn(made.distilled(teacher, made.args))
    state = {name: value for name, value in trainer.model.state_dict().items() if "distillation" not in name}
    found = {"world_size": made.args.world_size, "lineage": lineage(trainer.model), "weights": state}
    torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
