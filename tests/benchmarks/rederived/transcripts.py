"""Frames of recordings, collapsed to letters: word and character error rates, by Levenshtein's distance.

Knows: logits of frames, transcripts. Does not know: sound.
"""

from itertools import groupby

import numpy as np
from rederived.figures import ratio_rows
from rederived.run import Found, Unknown
from rederived.translation import distance

EXAMPLES = 5


def measure(run):
    tokenizer, score = run.experiment.tokenizer.tokenizer, run.experiment.scoring.score
    blank, right, said, silent = tokenizer.pad_token_id, [], {}, {}
    for name, model in run.models.items():
        said[name], right, frames = [], [], []
        for shown, batch in run.predict(model):
            chosen, mask = shown.logits.argmax(dim=-1).numpy(), batch["attention_mask"].bool().numpy()
            if chosen.shape != mask.shape:
                raise Unknown("a model that makes fewer frames than it reads is not measured here")
            for row, known, labels in zip(chosen, mask, batch["labels"].numpy(), strict=True):
                frames += row[known].tolist()
                letters = [one for one, _ in groupby(row[known].tolist()) if one != blank]
                said[name].append(text_of(tokenizer, letters))
                right.append(text_of(tokenizer, labels[labels != -100].tolist()))
        silent[name] = float(np.mean(np.array(frames) == blank))
    each, figures = {}, {}
    for name, texts in said.items():
        rates = {}
        for rate, parts in (("wer", str.split), ("cer", list)):
            edits = [distance(parts(a), parts(b)) for a, b in zip(texts, right, strict=True)]
            rates[rate] = ratio_rows(edits, [len(parts(one)) for one in right])
        each[name] = {score: rates[score]}
        figures[name] = {rate: float(one.mean()) for rate, one in rates.items()} | {"blank_share": silent[name]}
        if "teacher" in said:
            figures[name]["agreement"] = float(np.mean([a == b for a, b in zip(texts, said["teacher"], strict=True)]))
    shown = {"right": right[:EXAMPLES], **{name: one[:EXAMPLES] for name, one in said.items()}}
    return Found(score, score, each, figures, lower=True, floor=1.0, floor_plotted=1.0, details={"transcripts": shown})


def text_of(tokenizer, letters):
    return tokenizer.decode(letters, skip_special_tokens=True, group_tokens=False).strip()
