"""Do three teachers teach a small student more than one, on THUCNews headlines (10 classes, 44,872 rows)?

    python tests/benchmarks/ensemble.py --data FOLDER --output FOLDER

The data and the models are those of ``thucnews.py``: 4 x 256 teachers that differ in their seed alone, a student of
2 x 128 at the rate that was found best for the student alone. Student s hears nobody, teacher s, or all three: the
mean of their logits for logit MSE, of their probabilities for KL. Answers come from tables, so a run costs what plain
training costs. All is kept in ``runs.jsonl``: start again to go on. One thread, bfloat16 where the CPU has units for
it. The gaps are those to teacher s, also for the student who hears three; ± is one standard error, over seeds, for the
teachers together over the test rows.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import set_seed

from hf_distill import FunctionTeacher, Several
from hf_distill.reports import gap_closed, markdown_table

sys.path.insert(0, str(Path(__file__).parent))
from thucnews import OBJECTIVES, Study, bert

RATE = 2e-3
COMBINED = {"logit MSE": "logits", "KL, T=8": "probabilities"}


class Ensemble(Study):
    """The study of one teacher each, and students that hear all of them."""

    def keep(self, key, trainer):
        if key.startswith("teacher"):
            np.save(self.output / f"{key}, test.npy", trainer.predict(self.splits["test"]).predictions)
        return super().keep(key, trainer)

    def table(self, seed):
        answers = torch.from_numpy(self.teacher(seed)[0])
        return FunctionTeacher(lambda batch: answers[batch["row"]], columns=["row"])

    def heard_all(self, seed, epochs, name, seeds):
        key = f"{len(seeds)} teachers, {name}, {epochs} epochs, lr {RATE:g}, seed {seed}"
        if key not in self.done:
            teachers = Several([self.table(one) for one in seeds], combine=COMBINED[name])
            set_seed(seed)
            student = bert(len(self.tokenizer), 2, 128)
            trainer = self.trainer(student, seed, epochs, RATE, teacher=teachers, **OBJECTIVES[name])
            trainer.train()
            self.keep(key, trainer)
        return self.done[key]

    def right_on_test(self, seeds, combine):
        """Whether some teachers together are right; bool [rows of test]."""
        answers = torch.stack(
            [torch.from_numpy(np.load(self.output / f"teacher, seed {seed}, test.npy")) for seed in seeds]
        )
        answers = answers.softmax(-1) if combine == "probabilities" else answers
        return answers.mean(0).argmax(-1).numpy() == np.array(self.splits["test"]["label"])


def shown(values):
    values = np.asarray(values, dtype=np.float64)
    return f"{100 * values.mean():.2f} ± {100 * values.std(ddof=1) / len(values) ** 0.5:.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--objectives", nargs="+", default=list(COMBINED), choices=list(COMBINED))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    study, seeds, rows, sentences = Ensemble(asked.data, asked.output), asked.seeds, [], []
    teachers = [study.teacher(seed)[1]["test"] for seed in seeds]
    each = np.mean([study.right_on_test([seed], "logits") for seed in seeds], axis=0)
    print(f"each teacher: {shown(teachers)}", flush=True)
    for combine in ("logits", "probabilities"):
        right = study.right_on_test(seeds, combine)
        print(f"mean of {combine}: {shown(right)}, {shown(right - each)} more than each of them", flush=True)
    for name in asked.objectives:
        for epochs in asked.epochs:
            runs = {
                "alone": lambda seed, e=epochs: study.student(seed, e, RATE),
                "one": lambda seed, e=epochs, n=name: study.student(seed, e, RATE, n),
                "all": lambda seed, e=epochs, n=name: study.heard_all(seed, e, n, seeds),
            }
            found = {who: np.array([run(seed)["test"] for seed in seeds]) for who, run in runs.items()}
            rows.append([f"{epochs} epochs, {name}", *map(shown, found.values()), shown(found["all"] - found["one"])])
            for who in ("one", "all"):
                closed = gap_closed(found["alone"], found[who], teachers)
                sentences.append(f"{epochs} epochs, {name}, {who}: {closed}")
    print(markdown_table(["student", "alone", "one teacher", f"{len(seeds)} teachers", "difference"], rows))
    print("\n".join(sentences))


if __name__ == "__main__":
    main()
