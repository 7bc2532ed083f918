"""Answers about pictures, token by token behind the right ones: right if every one of them is the likeliest.

Knows: logits and labels of answers, kinds of questions. Does not know: pictures.
"""

from collections import Counter, defaultdict

import numpy as np
from rederived.run import Found


def measure(run):
    said, right = {}, None
    for name, model in run.models.items():
        said[name], right = [], []
        for shown, batch in run.predict(model):
            chosen, labels = shown.logits[:, :-1].argmax(dim=-1).numpy(), batch["labels"][:, 1:].numpy()
            for row, told in zip(chosen, labels, strict=True):
                said[name].append(row[told != -100].tolist())
                right.append(told[told != -100].tolist())
    kinds = run.test["kind"][:] if "kind" in run.test.column_names else [""] * len(right)
    each, figures = {}, {}
    for name, answers in said.items():
        exact = np.array([a == b for a, b in zip(answers, right, strict=True)], dtype=float)
        each[name], figures[name] = {"exact": exact}, {}
        if "teacher" in said:
            figures[name]["agreement"] = float(
                np.mean([a == b for a, b in zip(answers, said["teacher"], strict=True)])
            )
        figures[name] |= {one: float(exact[np.array(kinds) == one].mean()) for one in sorted(set(kinds)) if one}
    learnt = run.train["kind"][:] if "kind" in run.train.column_names else [""] * len(run.train)
    counts = defaultdict(Counter)
    for kind, answer in zip(learnt, run.train["answer"][:], strict=True):
        counts[kind][answer] += 1
    usual = {kind: count.most_common(1)[0][0] for kind, count in counts.items()}
    floor = float(np.mean([usual.get(kind) == one for kind, one in zip(kinds, run.test["answer"][:], strict=True)]))
    tokenizer = run.experiment.tokenizer.tokenizer
    examples = [
        {"question": run.test[i]["question"], "answer": run.test[i]["answer"]}
        | {name: tokenizer.decode(one[i], skip_special_tokens=True).strip() for name, one in said.items()}
        for i in range(len(run.report.get("examples", [])))
    ]
    return Found(
        "exact", "exact", each, figures, True, floor=floor, floor_plotted=floor, details={"examples": examples}
    )
