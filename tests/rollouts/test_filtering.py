"""Which of the teacher's texts are learned from."""

import sys
from types import SimpleNamespace

import pytest
import speech_runs
import torch
from transformers import WhisperTokenizer

from hf_distill import Rollout
from hf_distill.reports.transcripts import normalizer
from hf_distill.rollouts.filtering import Filter, is_loop


class Spelled:
    """A tokenizer whose tokens are characters."""

    def decode(self, tokens, skip_special_tokens=False):
        return "".join(chr(token) for token in tokens if token > 4 or not skip_special_tokens)


def ids(text):
    return torch.tensor([ord(one) for one in text])


def kept(text, transcript, english=True, **limits):
    chosen = Filter(Rollout(seq_kd=1.0, keep_if=limits), Spelled(), [2], loops=False, english=english)
    return chosen.keeps(torch.cat((ids(text), torch.tensor([2]))), None if transcript is None else ids(transcript))


@pytest.mark.parametrize(
    ("tokens", "loop"),
    [
        ([5, 6, 7, 8], False),
        ([5, 6, 6], False),
        ([5, 6, 6, 6], True),
        ([4, 5, 6, 5, 6, 5, 6], True),
        ([4, 5, 6, 7, 5, 6, 7, 5, 6, 7, 5, 6], True),  # cut in the middle of a round
        ([5, 6, 5, 6, 5, 6, 7], False),
        ([], False),
    ],
)
def test_a_loop_goes_round_at_its_end(tokens, loop):
    assert is_loop(tokens) is loop


def test_what_ended_by_itself_is_no_loop_and_a_text_of_a_text_is_never_looked_at():
    ask = Rollout(seq_kd=1.0)
    text = torch.tensor([6, 6, 6, 6])
    recordings, texts = (Filter(ask, None, [1, 2], loops=loops, english=True) for loops in (False, True))
    assert not recordings.keeps(text, None)
    assert recordings.keeps(torch.tensor([6, 6, 6, 6, 2]), None)  # digits may well be said four times
    assert texts.keeps(text, None)


def test_a_limit_is_on_the_words_that_differ():
    reference = "a b c d e f g h i j"
    assert kept(reference, reference, wer=0.0)
    assert kept("a b c d e f g h i x", reference, wer=0.1)
    assert not kept("a b c d e f g h x y", reference, wer=0.1)
    assert not kept(reference + " k l", reference, wer=0.1)
    assert kept("quite another", None, wer=0.0)
    ignored = torch.full((3,), -100)
    assert Filter(Rollout(seq_kd=1.0, keep_if={"wer": 0.0}), Spelled(), [2], False, True).keeps(ids("a"), ignored)


def test_spelling_and_punctuation_say_nothing():
    assert kept("Hello, it's NINE.", "hello it is 9", wer=0.0)
    assert not kept("Hello, it's NINE.", "hello it is 9", wer=0.0, english=False)
    assert kept("Grüß Gott!", "grüß gott", wer=0.0, english=False)
    assert not kept("Grüß Gott!", "grüß gott", wer=0.0, normalizer=str)
    assert kept("abc", "xyz", wer=0.0, normalizer=lambda text: "same")


def test_characters_are_counted_where_words_are_not_apart():
    assert not kept("今天天气很好", "今天天气好", wer=0.5, english=False)  # one word, and it is another one
    assert kept("今天，天气好。", "今天天气好", cer=0.0, english=False)
    assert kept("今天天气很好", "今天天气好", cer=0.2, english=False)
    assert not kept("今天天气很好", "今天天气好", cer=0.1, english=False)


def test_a_transcript_that_is_nothing_fits_a_text_that_is_nothing():
    assert kept("?!", "!", wer=0.1)
    assert not kept("thank you", "!", wer=0.1)


def test_whispers_tokenizer_knows_its_spellings():
    known = SimpleNamespace(english_spelling_normalizer={"colour": "color"})
    assert normalizer(known, "english")("Colour") == "color"
    assert hasattr(WhisperTokenizer, "normalize")  # which reads the same table
    assert normalizer(speech_runs.tokenizer(), "english")("Colour") == "colour"


def test_without_jiwer_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(ImportError, match=r'jiwer: pip install "hf_distill\[speech\]"\.$'):
        kept("a", "a", wer=0.1)
    assert Filter(Rollout(seq_kd=1.0), Spelled(), [2], loops=False, english=True).keeps(ids("a"), ids("b"))
