"""What do the losses of a large vocabulary cost, in memory and time: whole, in one pass, and at the peers'?

    python tests/benchmarks/fused.py
    python tests/benchmarks/fused.py --tokens 8192 --width 4096 --device cuda --dtype bfloat16

Forward and backward of cross-entropy with labels and Jensen-Shannon divergence (beta 0.5), half each, from what enters
two heads [tokens, width] -> [tokens, vocabulary] to the gradients of the hidden states and head; the teacher's
head is as wide. Each variant is a process of its own, one thread on a CPU:

whole: our terms on logits that are made first. one pass: our terms as the trainer runs them. liger:
``LigerFusedLinearJSDLoss``, not compiled, in its own chunks. trl: ``generalized_jsd_loss`` of TRL's GKD trainer and
PyTorch's cross-entropy. products: the four matrix products alone, in chunks as large as ours.

Memory is the growth of the peak over what holds hidden states and weights: on a CPU of the resident set, on a GPU what
PyTorch allocated. Time is CPU seconds, or seconds on a GPU, the least of ``--rounds``. The last line is a ratio.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from torch import nn

from hf_distill.models.linear_logits import LinearLogits
from hf_distill.objectives import build
from hf_distill.objectives.chunked import one_pass
from hf_distill.reports import markdown_table
from hf_distill.signals import DenseLogits, Head, Signals

VARIANTS = ("products", "one pass", "liger", "whole", "trl")


def ours(student, teacher, hidden, theirs, labels, linear):
    made = LinearLogits if linear else lambda entering, head: DenseLogits(head(entering))
    with torch.no_grad():
        shown = made(theirs, teacher)
    rows, objective = labels != -100, build("jsd")
    shares = {"hard": torch.tensor(0.5 / len(labels)), "jsd": torch.tensor(0.5 / len(labels))}
    shares = {name: share.to(hidden.device) for name, share in shares.items()}
    both = Signals({"logits": Head(made(hidden, student), rows, labels)}), Signals({"logits": Head(shown, rows)})
    return sum(part.total * shares[name] for name, part in objective(*both, {}, shares).items())


def liger(student, teacher, hidden, theirs, labels):
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    loss = LigerFusedLinearJSDLoss(weight_hard_loss=0.5, weight_soft_loss=0.5, beta=0.5, compiled=False)
    return loss(hidden, student.weight, theirs, teacher.weight, labels)


def trl(student, teacher, hidden, theirs, labels):
    from trl.experimental.gkd import GKDTrainer

    logits = student(hidden)
    with torch.no_grad():
        other = teacher(theirs)
    hard = nn.functional.cross_entropy(logits.float(), labels)
    return 0.5 * hard + 0.5 * GKDTrainer.generalized_jsd_loss(logits.float(), other.float(), labels=labels, beta=0.5)


def products(student, teacher, hidden, theirs, labels):
    """Student, teacher, and the student's two gradients, of logits as if they were their own gradients."""
    chunk = one_pass.CUDA_CHUNK_ELEMENTS if hidden.is_cuda else one_pass.CHUNK_ELEMENTS
    step = max(1, chunk // student.weight.shape[0])
    into, back = torch.zeros_like(student.weight), torch.empty_like(hidden)
    with torch.no_grad():
        for start in range(0, len(hidden), step):
            rows = hidden[start : start + step]
            logits = rows @ student.weight.t()
            theirs[start : start + step] @ teacher.weight.t()
            back[start : start + step] = logits @ student.weight
            into.addmm_(logits.t(), rows)
    student.weight.grad, hidden.grad = into, back


def measure(asked):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kind = {"device": asked.device, "dtype": getattr(torch, asked.dtype)}
    student, teacher = (nn.Linear(asked.width, asked.vocabulary, bias=False, **kind) for _ in range(2))
    teacher.requires_grad_(False)
    hidden, theirs = (torch.randn(asked.tokens, asked.width, **kind) for _ in range(2))
    labels = torch.randint(asked.vocabulary, (asked.tokens,), device=asked.device)
    run = {
        "whole": lambda *all: ours(*all, linear=False), "one pass": lambda *all: ours(*all, linear=True),
        "liger": liger, "trl": trl, "products": products,
    }[asked.variant]  # fmt: skip
    cuda, times, value = asked.device == "cuda", [], None
    for _ in range(asked.rounds):
        student.weight.grad = None
        hidden = hidden.detach().requires_grad_()
        before = torch.cuda.memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter() if cuda else time.process_time()
        loss = run(student, teacher, hidden, theirs, labels)
        if loss is not None:
            loss.backward()
            value = loss.item()
        if cuda:
            torch.cuda.synchronize()
        times.append((time.perf_counter() if cuda else time.process_time()) - start)
        peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if len(times) == 1:
            growth = peak - before
    norms = [hidden.grad.float().norm().item(), student.weight.grad.float().norm().item()]
    print(json.dumps({"growth": growth, "seconds": min(times), "loss": value, "norms": norms}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--width", type=int, default=896)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--variants", nargs="+", default=VARIANTS, choices=VARIANTS)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.variant:
        measure(asked)
        return
    found, rows = {}, []
    for variant in asked.variants:
        ran = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--variant", variant],
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            print(f"{variant} ended with {ran.returncode}: {ran.stderr.strip().splitlines()[-1:]}", flush=True)
            continue
        found[variant] = one = json.loads(ran.stdout.splitlines()[-1])
        norms = " ".join(f"{norm:.6g}" for norm in one["norms"])
        rows.append([variant, f"{one['growth'] / 2**20:,.0f}", f"{one['seconds']:.4g}", str(one["loss"]), norms])
        print(*rows[-1], flush=True)
    print(markdown_table(["", "MiB", "seconds", "loss", "gradient norms"], rows))
    for what in ("growth", "seconds"):
        for other in found:
            if other != "one pass" and "one pass" in found:
                print(f"{what}: one pass / {other} = {found['one pass'][what] / found[other][what]:.2f}")


if __name__ == "__main__":
    main()
