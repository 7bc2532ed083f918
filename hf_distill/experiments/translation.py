"""Models that write one text from another, and how well they wrote: BLEU, chrF, exact matches, wrong characters.

Knows: models that write, references, how scores are shown. Does not know: where texts come from, how models are
trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset
from torch import nn
from transformers import EvalPrediction, MarianConfig, PreTrainedModel, PreTrainedTokenizerBase, Trainer

from hf_distill.experiments.scoring import Column, Measurement, Scoring, percent
from hf_distill.experiments.settings import arguments_for
from hf_distill.experiments.without_autocast import plainly
from hf_distill.models.sharding import unsharded
from hf_distill.reports import GapClosed
from hf_distill.reports.samples import Samples, text_samples

EXAMPLES = 5
"""How many texts of each model a report shows."""


class TranslationScoring(Scoring):
    """What models write, against references: greedily, or as ``generation_num_beams`` says.

    Args:
        tokenizer: turns what is written into text.
        pairs: the test rows, with ``source`` and ``target``.
    """

    score: ClassVar[str] = "chrf"
    plotted: ClassVar[tuple[str, str]] = ("chrf", "{split} chrF")
    columns: ClassVar[Mapping[str, Column]] = {
        "BLEU": lambda row: f"{row['bleu']:.1f}",
        "chrF": percent("chrf"),
        "exact %": percent("exact"),
        "wrong characters %": percent("cer"),
        "as the teacher %": lambda row: f"{100 * row['agreement']:.1f}",
    }
    hub: ClassVar[Mapping[str, str]] = {"exact_match": "exact", "cer": "cer", "chrf": "chrf", "bleu": "bleu"}
    speed_rows: ClassVar[int] = 256
    unit: ClassVar[str] = "texts"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, pairs: Dataset) -> None:
        self.tokenizer, self.pairs = tokenizer, pairs

    def compute_metrics(self, found: EvalPrediction) -> dict[str, float]:
        """Score the validation rows, while a model is trained: Trainer's ``compute_metrics``."""
        scores, each = text_scores(self.texts(found.predictions), self.texts(found.label_ids))
        return {**scores, **{name: float(one.mean()) for name, one in each.items()}}

    def evaluate(self, trainers: Mapping[str, Trainer], rows: Dataset, reference: Trainer) -> dict[str, Measurement]:
        """Let the teacher and the students write; see ``Scoring.measure``."""
        own = arguments_for(reference.args, "", eval_strategy="no")  # nothing is written: no folder of its own
        kept = {"data_collator": reference.data_collator, "processing_class": self.tokenizer}
        teacher = type(reference)(unsharded(reference.teacher.model), own, **kept)
        references = self.pairs["target"][:]
        with plainly(teacher):  # as its students are, by whoever looks at them
            found = {name: one.predict(rows) for name, one in {"teacher": teacher, **trainers}.items()}
        # Over several processes Trainer may repeat rows behind the last one, to give each process as many.
        texts = {name: self.texts(one.predictions[: len(references)]) for name, one in found.items()}
        measurements = {}
        for name, written in texts.items():
            whole, each = text_scores(written, references)
            same = np.array([float(a == b) for a, b in zip(written, texts["teacher"], strict=True)])
            measurements[name] = Measurement({**each, "agreement": same}, whole, written)
        return measurements

    def summary(self, gap: GapClosed) -> str:
        """Say that the points are of chrF."""
        return f"{gap} (chrF)"

    def timed(self, model: nn.Module, trainer: Trainer) -> nn.Module:
        """Time how long a text takes to be written."""
        return Writer(model, trainer.args.generation_max_length)

    def details(self, measurements: Mapping[str, Measurement]) -> dict[str, Any]:
        """Show the first texts."""
        some = range(min(EXAMPLES, len(self.pairs)))
        return {"examples": [{n: one.predictions[i] for n, one in measurements.items()} | self.pairs[i] for i in some]}

    def disagreements(self, measurements: Mapping[str, Measurement], rows: Dataset) -> Samples:
        """Where what is written differs most, below its source; see ``Scoring.disagreements``."""
        texts, sources = {name: one.predictions for name, one in measurements.items()}, self.pairs["source"][:]
        return text_samples(texts, self.pairs["target"][:], lambda row: (sources[row], None))

    def texts(self, ids: np.ndarray) -> list[str]:
        """Turn token ids back into texts; Trainer fills short rows with -100.

        Args:
            ids: [N, T].
        """
        filled = np.where(ids == -100, self.tokenizer.pad_token_id, ids)
        return [text.strip() for text in self.tokenizer.batch_decode(filled, skip_special_tokens=True)]


class Writer(nn.Module):
    """A model whose forward is to write: what is timed of it."""

    def __init__(self, model: PreTrainedModel, longest: int) -> None:
        super().__init__()
        self.model, self.longest = model, longest

    def forward(self, **batch: Any) -> Any:
        """Write a text for each row, greedily."""
        return self.model.generate(**batch, max_length=self.longest, do_sample=False, num_beams=1)


def blank_marian(recipe: Any, tokenizer: PreTrainedTokenizerBase) -> MarianConfig:
    """Shape a teacher that is trained from nothing, with as many layers in its decoder as in its encoder.

    Its sinusoidal positions tell random weights soon which word of the source is to be written next; a T5, whose
    decoder is not told the positions in the source, does not look at it in as many steps.

    Args:
        recipe: its sizes, ``ModelArguments`` with ``teacher_dropout`` and the longest texts.
        tokenizer: of its vocabulary.
    """
    width, layers, pad = recipe.teacher_hidden_size, recipe.teacher_layers, tokenizer.pad_token_id
    heads, longest = max(1, width // 64), max(512, recipe.max_source_length, recipe.max_target_length)
    return MarianConfig(
        vocab_size=len(tokenizer), d_model=width, encoder_layers=layers, decoder_layers=layers,
        encoder_attention_heads=heads, decoder_attention_heads=heads, encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width, max_position_embeddings=longest, activation_function="relu", scale_embedding=True,
        dropout=recipe.teacher_dropout, pad_token_id=pad, decoder_start_token_id=pad,
        eos_token_id=tokenizer.eos_token_id, forced_eos_token_id=None,
    )  # fmt: skip


def text_scores(texts: Sequence[str], references: Sequence[str]) -> tuple[dict[str, float], dict]:
    """Score written texts.

    Args:
        texts: what was written, [N].
        references: what was to be written, [N].

    Returns:
        ``bleu`` (sacrebleu's, 0 to 100, over Chinese characters where a reference has some) and ``cer`` (wrong
        characters for each of the references'), of all texts together; ``chrf`` and ``exact`` of each, [N], 0 to 1.

    Raises:
        ImportError: sacrebleu or rapidfuzz is not installed.

    Reference:
        Papineni et al. 2002; Popović 2015 (chrF); Post 2018, arXiv:1804.08771 (sacrebleu).

    Example:
        >>> scores, each = text_scores(["bei3 jing1", "xi1 an1"], ["bei3 jing1", "xi1 an"])
        >>> round(scores["cer"], 4), each["exact"].tolist()
        (0.0625, [1.0, 0.0])
    """
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise ImportError("BLEU and chrF come with sacrebleu: pip install 'hf_distill[recipes]'.") from error
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as error:
        raise ImportError("wrong characters are counted by rapidfuzz: pip install 'hf_distill[speech]'.") from error
    bleu, chrf = BLEU(tokenize="zh" if any("一" <= c <= "鿿" for text in references for c in text) else "13a"), CHRF()
    pairs = list(zip(texts, references, strict=True))
    each = {
        "chrf": np.array([chrf.sentence_score(text, [reference]).score / 100 for text, reference in pairs]),
        "exact": np.array([float(text == reference) for text, reference in pairs]),
    }
    wrong, length = sum(Levenshtein.distance(*pair) for pair in pairs), sum(map(len, references))
    return {"bleu": bleu.corpus_score(list(texts), [list(references)]).score, "cer": wrong / length}, each
