"""Is a student that heard kept bfloat16 answers as good as one whose float32 teacher was asked each time (THUCNews)?

    python tests/benchmarks/cached_accuracy.py --data FOLDER --output FOLDER

The data and the models are those of ``thucnews.py``: one 4 x 256 teacher, trained once and kept under the output
folder, and a student of 2 x 128, two epochs, KL at T = 4. For each seed the student is trained under the teacher in
float32, asked for every batch, and under the teacher in bfloat16, asked once for each row. All is kept in
``runs.jsonl``: start again to go on. The last lines are the accuracies and the CPU seconds of ``train()``.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, set_seed

sys.path.insert(0, str(Path(__file__).parent))
from thucnews import Study, bert

ARMS = {
    "asked, float32": {"teacher_cache": "off", "teacher_dtype": "float32"},
    "kept, bfloat16": {"teacher_cache": "auto", "teacher_dtype": "bfloat16"},
}
RATE, EPOCHS = 2e-3, 2


class Cached(Study):
    def model(self):
        folder = self.output / "teacher"
        if not (folder / "config.json").is_file():
            set_seed(0)
            trainer = self.trainer(bert(len(self.tokenizer), 4, 256), 0, 3, 5e-4)
            trainer.train()
            self.keep("teacher", trainer)
            trainer.save_model(folder)
        return AutoModelForSequenceClassification.from_pretrained(folder)

    def run(self, arm, seed):
        key = f"{arm}, seed {seed}"
        if key not in self.done:
            settings = dict(alpha=0.9, temperature=4.0, **ARMS[arm])
            set_seed(seed)
            trainer = self.trainer(
                bert(len(self.tokenizer), 2, 128), seed, EPOCHS, RATE, teacher=self.model(), **settings
            )
            started = time.process_time()
            trainer.train()
            took = time.process_time() - started
            record = {**self.keep(key, trainer), "seconds": took}
            self.done[key] = record
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")  # the later line of a key counts
        return self.done[key]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    study = Cached(asked.data, asked.output)
    study.model()
    found = {arm: [study.run(arm, seed) for seed in asked.seeds] for arm in ARMS}
    for arm, runs in found.items():
        scores, seconds = (np.array([run[what] for run in runs]) for what in ("test", "seconds"))
        error = scores.std(ddof=1) / len(scores) ** 0.5
        print(f"{arm}: test accuracy {100 * scores.mean():.2f} ± {100 * error:.2f}, {np.median(seconds):.0f} CPU s")
    pairs = zip(*found.values(), strict=True)
    print(f"median ratio of the seconds {np.median([one['seconds'] / two['seconds'] for one, two in pairs]):.2f}")


if __name__ == "__main__":
    main()
