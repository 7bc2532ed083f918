"""What does it cost to distil at full size on one GPU: memory, and tokens a second?

    python tests/benchmarks/full_size.py
    python tests/benchmarks/full_size.py --models bert --batch 32 --length 128 --steps 60
    python tests/benchmarks/full_size.py --small --steps 3 --batch 2 --length 16        # tries it out, on a CPU too

``qwen``: Qwen2.5-7B teaches Qwen2.5-0.5B, vocabularies padded to 152,064 and 151,936, ``--batch`` rows of ``--length``
tokens in one micro-batch, without gradient checkpointing. ``bert``: BERT base, Chinese, teaches four of its layers to
tell ten classes. Weights are random, of the published sizes: costs are the same, nothing is learnt. Students are in
float32 under bfloat16 autocast with AdamW, teachers in bfloat16.

plain: ``transformers.Trainer``. plain, Liger: with ``use_liger_kernel``. asked: the teacher reads every batch. asked,
whole: with ``fused_logits=off``. kept: its answers lie in a folder already (28 likeliest and 28 drawn ids of a
vocabulary, all logits of ten classes); the row "filling" says what it takes to put them there.

Each kind is a process of its own. Seconds are the median of the steps after the first three; memory is the most that
PyTorch had allocated in training. The last line is a ratio.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

from hf_distill import CachedTeacher, DistillationTrainer, DistillationTrainingArguments, LiveTeacher, Task
from hf_distill.cache.encoding import Encoding
from hf_distill.cache.identity import header_of, precision_of
from hf_distill.cache.prefill import TOKENS, fill
from hf_distill.reports import machine, markdown_table
from hf_distill.tasks.alignment.tokenizers import vocabulary_of

KINDS = {
    "qwen": ("plain", "plain, Liger", "filling", "kept", "asked", "asked, whole"),
    "bert": ("plain", "filling", "kept", "asked"),
}
WARM = 3


def qwen(teacher, small):
    if small:
        sizes = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 128}
        sizes |= {"num_hidden_layers": 2, "vocab_size": 1_056 if teacher else 1_024}
    elif teacher:
        sizes = {"hidden_size": 3584, "num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944}
        sizes |= {"num_hidden_layers": 28, "vocab_size": 152_064}
    else:
        sizes = {"hidden_size": 896, "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864}
        sizes |= {"num_hidden_layers": 24, "vocab_size": 151_936}
    return AutoModelForCausalLM.from_config(Qwen2Config(**sizes, tie_word_embeddings=not teacher))


def bert(teacher, small):
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128} if small else {}
    config = BertConfig(vocab_size=21_128, num_hidden_layers=12 if teacher else 4, num_labels=10, **sizes)
    return AutoModelForSequenceClassification.from_config(config)


def made(asked, teacher):
    with torch.device(asked.device):
        set_seed(int(teacher))
        model = {"qwen": qwen, "bert": bert}[asked.models](teacher, asked.small)
    return model.to(torch.bfloat16).eval() if teacher else model


def tokenizer(asked):
    """One that knows as many tokens as Qwen2.5's: both heads are padded, each to a size of its own."""
    words = {str(word): word for word in range(1_000 if asked.small else 151_665)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="0")), pad_token="1")


def asked_teacher(asked):
    model = made(asked, teacher=True)
    return LiveTeacher(model, Task.of(model), tokenizer(asked))


class Rows(torch.utils.data.Dataset):
    def __init__(self, asked):
        generator = torch.Generator().manual_seed(0)
        shape = (asked.steps * asked.batch, asked.length)
        self.ids = torch.randint(1_000 if asked.small else 21_128, shape, generator=generator)
        self.classes = torch.randint(10, shape[:1], generator=generator) if asked.models == "bert" else None

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, row):
        ids = self.ids[row].tolist()
        labels = ids if self.classes is None else self.classes[row].item()
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self):
        self.ends = []

    def on_step_end(self, args, state, control, **more):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def filled(asked, rows):
    """Seconds a step's rows take, by the code of ``hf-distill cache``."""
    live = asked_teacher(asked)
    known = len(live.tokenizer)
    few = Encoding(None, 28, 28, 1.0, known) if asked.models == "qwen" else Encoding()
    teacher = CachedTeacher(live, asked.folder, gb=float("inf"), encoding=few)
    teacher.memory.meet(
        header_of(live.facts, precision=precision_of(live), tokenizer=vocabulary_of(live.tokenizer)),
        live.task.positions,
    )
    started = time.perf_counter()
    fill(teacher, rows, default_data_collator, frozenset({"heads"}), asked.fill, torch.device(asked.device))
    return (time.perf_counter() - started) / asked.steps


def trained(asked, rows):
    """Seconds a step takes."""
    how = dict(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=asked.batch, num_train_epochs=1, report_to="none",
        bf16=asked.device != "cpu", use_cpu=asked.device == "cpu", save_strategy="no", disable_tqdm=True,
        logging_steps=1_000, learning_rate=1e-5, use_liger_kernel=asked.kind == "plain, Liger",
    )  # fmt: skip
    clock, student = Clock(), made(asked, teacher=False)
    common = {
        "train_dataset": rows,
        "callbacks": [clock],
        "data_collator": default_data_collator,
        "processing_class": tokenizer(asked),
    }
    if asked.kind.startswith("plain"):
        trainer = Trainer(student, TrainingArguments(**how), **common)
    else:
        whole = {"fused_logits": "off"} if asked.kind == "asked, whole" else {}
        args = DistillationTrainingArguments(**how, alpha=0.5, temperature=1.0, teacher_cache="off", **whole)
        teacher = asked.folder if asked.kind == "kept" else asked_teacher(asked)
        trainer = DistillationTrainer(student, args, teacher_model=teacher, **common)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()  # the teacher was made in float32
    trainer.train()
    shutil.rmtree(how["output_dir"])
    return statistics.median(b - a for a, b in zip(clock.ends[WARM - 1 :], clock.ends[WARM:], strict=False))


def measure(asked):
    rows = Rows(asked)
    seconds = filled(asked, rows) if asked.kind == "filling" else trained(asked, rows)
    peak = torch.cuda.max_memory_allocated() if asked.device == "cuda" else 0
    print(json.dumps({"seconds": seconds, "peak": peak}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="qwen", choices=KINDS)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=13)
    parser.add_argument("--fill", type=int, default=TOKENS, help="how many tokens at once fill the folder")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--kinds", nargs="+")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.kind:
        measure(asked)
        return
    found, tokens = {}, asked.batch * asked.length
    with tempfile.TemporaryDirectory() as folder:
        for kind in asked.kinds or KINDS[asked.models]:
            words = [
                sys.executable,
                __file__,
                *sys.argv[1:],
                "--kind",
                kind,
                "--folder",
                str(Path(folder) / "answers"),
            ]
            ran = subprocess.run(words, capture_output=True, text=True, check=False)
            if ran.returncode:
                print(f"{kind} ended with {ran.returncode}: {ran.stderr.strip().splitlines()[-1:]}", flush=True)
                continue
            found[kind] = json.loads(ran.stdout.splitlines()[-1])
    rows = [
        [kind, f"{tokens / one['seconds']:,.0f}", f"{one['seconds'] * 1000:,.0f}", f"{one['peak'] / 2**30:.1f}"]
        for kind, one in found.items()
    ]
    print(f"{asked.models}, {asked.batch} x {asked.length} tokens; {machine(torch.device(asked.device))}")
    print(markdown_table(["", "tokens/s", "ms a step", "GiB"], rows))
    for kind in ("asked", "kept"):
        if {kind, "plain"} <= found.keys():
            print(f"{kind} / plain: {found[kind]['seconds'] / found['plain']['seconds']:.2f} of the time")


if __name__ == "__main__":
    main()
