"""How far each strategy on two CPU processes is from one process: the first gradients, eight losses, a resumed run.

    python tests/benchmarks/exactness.py [--folder FOLDER]

Prints a row for each strategy and objective, and the largest difference last.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))

import strategies
import test_strategies as tests
import tiny

NAMES = ("accumulation", "ddp", "fsdp2", "zero1", "zero2", "zero3")


def run(folder, strategy):
    cpus = {"ACCELERATE_USE_CPU": "true"} if strategy == "ddp" else {}
    subprocess.run(
        [sys.executable, *tests.launched(strategy), strategies.__file__, str(folder), strategy],
        env={**os.environ, "OMP_NUM_THREADS": "1", **cpus}, capture_output=True, check=True,
    )  # fmt: skip


def difference(ours, theirs):
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the runs go; left there if it is given")
    folder = parser.parse_args().folder or Path(tempfile.mkdtemp())
    run(folder, "one")
    print(f"{'strategy':14} {'objective':12} {'gradients':>10} {'8 losses':>10} {'resumed':>8}", flush=True)
    worst = 0.0
    for strategy in NAMES:
        run(folder, strategy)
        for name in strategies.OBJECTIVES:
            mine, one = (tests.facts(folder / who, name) for who in (strategy, "one"))
            gradients = tiny.relative(*(tests.change(folder / who, name) for who in (strategy, "one")))
            losses = difference(mine["losses"], one["losses"])
            resumed = difference(mine["resumed"], mine["losses"])
            print(f"{strategy:14} {name:12} {gradients:10.1e} {losses:10.1e} {resumed:8.1e}", flush=True)
            worst = max(worst, gradients, losses)
    print(f"largest relative difference from one process: {worst:.1e}")


if __name__ == "__main__":
    main()
