"""Scores of texts, and a teacher that is trained from nothing."""

import random
import sys

import pytest
from datasets import Dataset
from transformers import AutoModelForSeq2SeqLM

from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.scoring import Measurement
from hf_distill.experiments.tokenizers import text_tokenizer
from hf_distill.experiments.translation import TranslationScoring, blank_marian, text_scores
from hf_distill.students import fresh_student


def test_scores_are_those_of_texts_counted_by_hand():
    scores, each = text_scores(["a cat sat on the mat", "the dog"], ["a cat sat on the mat", "a dog"])
    assert each["exact"].tolist() == [1.0, 0.0]
    assert scores["cer"] == 3 / 25  # t, h and e for a
    assert each["chrf"][0] == 1.0
    assert 50 < scores["bleu"] < 100
    assert text_scores(["我们走"], ["我们走"])[0]["bleu"] < text_scores(["我们走了吧"], ["我们走了吧"])[0]["bleu"]


def levenshtein(text, reference):
    """What counted characters before rapidfuzz did."""
    row = list(range(len(reference) + 1))
    for i, character in enumerate(text, 1):
        corner, row[0] = row[0], i
        for j, wanted in enumerate(reference, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (character != wanted))
    return row[-1]


def test_wrong_characters_are_counted_as_ever():
    draw = random.Random(0)
    texts, references = (
        ["".join(draw.choices("ab 我们", k=draw.randint(0, 12))) for _ in range(60)] for _ in range(2)
    )
    wrong = sum(map(levenshtein, texts, references))
    assert text_scores(texts, references)[0]["cer"] == wrong / sum(map(len, references))


def test_without_rapidfuzz_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidfuzz.distance", None)
    with pytest.raises(ImportError, match=r"counted by rapidfuzz: pip install 'hf_distill\[speech\]'\.$"):
        text_scores(["a"], ["a"])


def test_an_untrained_teacher_knows_positions_and_its_student_is_narrower_on_both_sides():
    made = text_tokenizer(["天气 tian qi"] * 2)
    asked = recipe_module("translation").Arguments(teacher_hidden_size=128, teacher_dropout=0.3, max_source_length=600)
    teacher = AutoModelForSeq2SeqLM.from_config(blank_marian(asked, made))
    assert (teacher.config.max_position_embeddings, teacher.config.dropout) == (600, 0.3)
    assert teacher.generation_config.forced_eos_token_id is None
    student = fresh_student(teacher, hidden_size=64, num_hidden_layers=1).config
    assert (student.encoder_ffn_dim, student.decoder_ffn_dim, student.decoder_layers) == (256, 256, 1)
    assert (student.encoder_attention_heads, student.decoder_attention_heads) == (1, 1)


def test_texts_that_are_written_otherwise_are_shown_below_their_source():
    pairs = Dataset.from_dict({"source": ["北京", "西安"], "target": ["bei3 jing1", "xi1 an1"]})
    written = {"teacher": ["bei3 jing1", "xi1 an1"], "distilled": ["bei3 jing1", "xi1 an4"]}
    found = {name: Measurement({}, predictions=one) for name, one in written.items()}
    (row,) = TranslationScoring(None, pairs).disagreements(found, None).rows
    assert (row.text, row.right, row.answers["distilled"].text, row.kind) == ("西安", "xi1 an1", "xi1 an4", "teacher")
