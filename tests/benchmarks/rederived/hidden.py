"""The tokens that were hidden in the test rows: the figures of ``language``, where the label is.

Knows: which training tokens can be hidden. Does not know: logits, texts.
"""

from collections import Counter

from rederived import language


def measure(run):
    special = set(run.experiment.tokenizer.all_special_ids)
    learnt = Counter(token for row in run.train["input_ids"][:] for token in row if token not in special)
    found = language.of_labels(run, lambda logits, labels: (logits, labels), learnt)
    asked = [token for row in run.test["labels"][:] for token in row if token != -100]
    found.floor_plotted = asked.count(learnt.most_common(1)[0][0]) / len(asked)
    return found
