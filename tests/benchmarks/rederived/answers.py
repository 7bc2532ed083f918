"""Answers that stand in a text: windows are cut anew, spans chosen anew, compared by their characters.

Knows: questions, texts, offsets of tokens. Does not know: how the recipe cuts its windows.
"""

import unicodedata
from collections import Counter

import numpy as np
import torch
from rederived.run import Found, Unknown
from transformers import AutoTokenizer

CANDIDATES, LONGEST, SIZE = 20, 50, 256


def measure(run):
    questions, recipe = run.experiment.scoring.questions, run.experiment.recipe
    tokenizer = AutoTokenizer.from_pretrained(run.folder)
    cut = tokenizer(
        [row["question"] for row in questions], [row["context"] for row in questions], truncation="only_second",
        max_length=recipe.max_length, stride=recipe.stride, return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )  # fmt: skip
    if cut["input_ids"] != run.test["input_ids"][:]:
        raise Unknown("the saved tokenizer cuts other windows than the recipe's rows have")
    said = {name: answered(model, tokenizer, cut, questions) for name, model in run.models.items()}
    each, figures = {}, {}
    for name, texts in said.items():
        right = [row["answers"]["text"] for row in questions]
        f1 = [max((overlap(text, one) for one in told), default=0.0) for text, told in zip(texts, right, strict=True)]
        exact = [any(pieces(text) == pieces(one) for one in told) for text, told in zip(texts, right, strict=True)]
        each[name], figures[name] = {"f1": np.array(f1)}, {"exact_match": float(np.mean(exact))}
        if "teacher" in said:
            same = [a == b for a, b in zip(texts, said["teacher"], strict=True)]
            figures[name]["agreement"] = float(np.mean(same))
    return Found("f1", "f1", each, figures, details={"questions": {"test": len(questions)}})


def answered(model, tokenizer, cut, questions):
    """The likeliest span of all windows of each question."""
    best = [(-np.inf, "")] * len(questions)
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in cut]
    for start in range(0, len(cut["input_ids"]), SIZE):
        some = {name: cut[name][start : start + SIZE] for name in names}
        batch = tokenizer.pad(some, padding_side="right", return_tensors="pt")
        with torch.no_grad():
            shown = model(**batch)
        for row, (begins, ends) in enumerate(zip(shown.start_logits.numpy(), shown.end_logits.numpy(), strict=True)):
            window = start + row
            places = [i for i, side in enumerate(cut.sequence_ids(window)) if side == 1]
            first, last = (sorted(places, key=lambda i, p=part: -p[i])[:CANDIDATES] for part in (begins, ends))
            pairs = [(begins[i] + ends[j], -n) for n, (i, j) in enumerate((i, j) for i in first for j in last)]
            allowed = [j - i >= 0 and j - i < LONGEST for i in first for j in last]
            if not any(allowed):
                continue
            score, number = max(pair for pair, fits in zip(pairs, allowed, strict=True) if fits)
            question = cut["overflow_to_sample_mapping"][window]
            if score > best[question][0]:
                i, j = first[-number // len(last)], last[-number % len(last)]
                offsets = cut["offset_mapping"][window]
                best[question] = (score, questions[question]["context"][offsets[i][0] : offsets[j][1]])
    return [text for _, text in best]


def pieces(text):
    """Words of Latin letters and figures, single characters of other scripts; no punctuation."""
    found, word = [], ""
    for one in text.lower() + " ":
        if one in "abcdefghijklmnopqrstuvwxyz0123456789":
            word += one
            continue
        if word:
            found.append(word)
        word = ""
        if not one.isspace() and not unicodedata.category(one).startswith("P"):
            found.append(one)
    return found


def overlap(said, right):
    """F1 of two answers' pieces, by precision and recall."""
    ours, theirs = pieces(said), pieces(right)
    if not ours and not theirs:
        return 1.0
    both = sum((Counter(ours) & Counter(theirs)).values())
    if not both:
        return 0.0
    precision, recall = both / len(ours), both / len(theirs)
    return 2 * precision * recall / (precision + recall)
