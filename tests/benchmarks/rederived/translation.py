"""Texts that are written from others: sacrebleu's figures, and wrong characters counted here.

Knows: what a model writes, references. Does not know: tokens' making.
"""

import numpy as np
from rederived.run import LABELS, Found
from sacrebleu import corpus_bleu, sentence_chrf
from transformers import AutoTokenizer


def measure(run):
    pairs = run.experiment.scoring.pairs
    sources, references = pairs["source"][:], pairs["target"][:]
    tokenizer = AutoTokenizer.from_pretrained(run.folder)
    texts = {name: written(run, model, tokenizer) for name, model in run.models.items()}
    each, figures = {}, {}
    for name, said in texts.items():
        both = list(zip(said, references, strict=True))
        each[name] = {
            "chrf": np.array([sentence_chrf(text, [right]).score / 100 for text, right in both]),
            "exact": np.array([text == right for text, right in both], dtype=float),
        }
        if "teacher" in texts:
            each[name]["agreement"] = np.array([a == b for a, b in zip(said, texts["teacher"], strict=True)], float)
        chinese = any("\u4e00" <= one <= "\u9fff" for text in references for one in text)
        figures[name] = {
            "bleu": corpus_bleu(said, [references], tokenize="zh" if chinese else "13a").score,
            "cer": sum(distance(*pair) for pair in both) / sum(map(len, references)),
        }
    rows = range(len(run.report.get("examples", [])))
    examples = [{**{n: t[i] for n, t in texts.items()}, "source": sources[i], "target": references[i]} for i in rows]
    return Found("chrf", "chrf", each, figures, details={"examples": examples})


def written(run, model, tokenizer):
    args, found = run.experiment.args, []
    beams = {} if args.generation_num_beams is None else {"num_beams": args.generation_num_beams}
    for batch in run.batches(model):
        fed = {name: value for name, value in batch.items() if name not in LABELS and name != "decoder_input_ids"}
        made = model.generate(**fed, max_length=args.generation_max_length, **beams)
        found += [text.strip() for text in tokenizer.batch_decode(made, skip_special_tokens=True)]
    return found


def distance(said, right):
    """Levenshtein's distance, a row of his table after the other."""
    before = list(range(len(right) + 1))
    for i, one in enumerate(said, 1):
        now = [i]
        for j, other in enumerate(right, 1):
            now.append(min(before[j] + 1, now[-1] + 1, before[j - 1] + (one != other)))
        before = now
    return before[-1]
