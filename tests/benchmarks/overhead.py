"""What does the trainer cost beside the forwards? Whole-process CPU time against a hand-written PyTorch loop.

    python tests/benchmarks/overhead.py [--steps 100] [--pairs 5]

Both distil a BERT of 6 x 384 into one of 3 x 192, batches of 32 x 64 tokens, AdamW, clipping, a linear schedule, no
cache, float32, one thread. Each run is a process of its own; the two kinds take turns, so that both meet the same
machine. The last line is the median ratio; 1.03 is the goal.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile

ROWS, LENGTH, BATCH, VOCABULARY, CLASSES = 4800, 64, 32, 8000, 10
ALPHA, TEMPERATURE, RATE = 0.5, 2.0, 1e-4
# glibc gives big blocks back to the system and fetches them again, or not, by what was freed before: up to 10 % of the
# time, by chance. In both arms it keeps them.
FIXED = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33)}


def models():
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.set_num_threads(1)
    made = []
    for seed, layers, width, heads in ((0, 3, 192, 6), (1, 6, 384, 12)):
        torch.manual_seed(seed)
        made.append(
            BertForSequenceClassification(
                BertConfig(
                    vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
                    intermediate_size=4 * width, max_position_embeddings=LENGTH, num_labels=CLASSES,
                    problem_type="single_label_classification",
                )
            )
        )  # fmt: skip
    return made


def rows():
    import torch

    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(5, VOCABULARY, (ROWS, LENGTH), generator=generator)
    labels = torch.randint(CLASSES, (ROWS,), generator=generator)
    mask = torch.ones(LENGTH, dtype=torch.long)
    return [
        {"input_ids": i, "attention_mask": mask, "labels": label}
        for i, label in zip(ids, labels.tolist(), strict=True)
    ]


def run_trainer(steps):
    from hf_distill import DistillationTrainer, DistillationTrainingArguments

    student, teacher = models()
    with tempfile.TemporaryDirectory() as folder:
        args = DistillationTrainingArguments(
            folder, alpha=ALPHA, temperature=TEMPERATURE, max_steps=steps, per_device_train_batch_size=BATCH,
            learning_rate=RATE, use_cpu=True, report_to="none", save_strategy="no", logging_steps=50,
            disable_tqdm=True, dataloader_pin_memory=False,
        )  # fmt: skip
        DistillationTrainer(student, args, train_dataset=rows(), teacher_model=teacher).train()


def run_loop(steps):
    import torch
    from torch.nn import functional as F
    from transformers import default_data_collator, get_linear_schedule_with_warmup

    student, teacher = models()
    teacher.eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, steps)
    loader = torch.utils.data.DataLoader(rows(), BATCH, shuffle=True, collate_fn=default_data_collator)
    student.train()
    done, total = 0, torch.tensor(0.0)
    while done < steps:
        for batch in loader:
            labels = batch.pop("labels")
            with torch.no_grad():
                target = teacher(**batch).logits
            logits = student(**batch).logits
            p, q = (F.log_softmax(z / TEMPERATURE, dim=-1) for z in (target, logits))
            soft = TEMPERATURE**2 * F.kl_div(q, p, log_target=True, reduction="batchmean")
            loss = (1 - ALPHA) * F.cross_entropy(logits, labels) + ALPHA * soft
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total += loss.detach()
            done += 1
            if done % 50 == 0:
                print({"loss": total.item() / 50}, flush=True)
                total.zero_()
            if done == steps:
                break


def seconds(kind, steps):
    """CPU seconds, user and system, of one whole process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, **FIXED, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run(
        [sys.executable, __file__, "--run", kind, "--steps", str(steps)],
        check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--run", choices=["trainer", "loop"], help="one process of one kind, and no comparison")
    asked = parser.parse_args()
    if asked.run:
        return {"trainer": run_trainer, "loop": run_loop}[asked.run](asked.steps)
    ratios = []
    for pair in range(asked.pairs):
        order = ("loop", "trainer") if pair % 2 else ("trainer", "loop")
        took = {kind: seconds(kind, asked.steps) for kind in order}
        ratios.append(took["trainer"] / took["loop"])
        print(
            f"pair {pair + 1}: loop {took['loop']:.1f} s, trainer {took['trainer']:.1f} s, ratio {ratios[-1]:.3f}",
            flush=True,
        )
    print(f"median ratio {statistics.median(ratios):.3f} (goal 1.03), {asked.steps} steps")
    return None


if __name__ == "__main__":
    main()
