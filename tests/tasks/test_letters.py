"""Which letter of a student is which of its teacher's."""

import pytest
import tiny
import tiny_speech

from hf_distill import CTC
from hf_distill.models.facts import Facts
from hf_distill.tasks.letters import check_letters, letters_by_name


def test_letters_are_found_by_their_names():
    student, teacher = {"<pad>": 0, "a": 1, "b": 2, "z": 3}, {"b": 0, "<pad>": 1, "a": 2}
    assert letters_by_name(student, teacher) == [1, 2, 0, -1]


@pytest.mark.parametrize(
    ("letters", "told"),
    [
        ([0, 1], "the student has 3 letters: name a place, or -1, for each of them"),
        ([0, 1, 1], "name each letter of the teacher once, and -1 where it has none"),
        ([0, 1, -2], "name each letter of the teacher once, and -1 where it has none"),
        ([-1, 1, 2], "which leaves out the blank, class 0: name the teacher's blank there"),
    ],
)
def test_letters_that_cannot_be_used_are_refused(letters, told):
    with pytest.raises(ValueError, match=told):
        check_letters(letters, 3, blank=0)


def trainer(folder, teacher, letters=None):
    student = tiny_speech.wav2vec2()
    return tiny.trainer(
        folder, student, tiny_speech.recordings(), task=CTC.from_model(student, teacher_letters=letters),
        teacher_model=teacher, data_collator=tiny_speech.collate,
    )  # fmt: skip


def test_another_blank_is_refused(tmp_path):
    assert Facts.of(tiny_speech.wav2vec2()).blank == 0
    assert Facts.of(tiny_speech.whisper()).blank is None
    teacher = tiny_speech.wav2vec2(seed=7)
    teacher.config.pad_token_id = 3
    told = "the blank of the teacher Wav2Vec2ForCTC is its class 3, and class 0 was expected: give both models"
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, teacher)
    trainer(tmp_path, teacher, [3, 0, 1, 2, 4, 5, 6, 7])  # it stands where it was said to
    with pytest.raises(ValueError, match="is its class 3, and class 1 was expected"):
        trainer(tmp_path, teacher, [1, 0, 3, 2, 4, 5, 6, 7])


def test_a_letter_that_the_teacher_does_not_have_is_refused(tmp_path):
    teacher = tiny_speech.wav2vec2(seed=7, vocab_size=5)
    with pytest.raises(ValueError, match="names the letter 7 of the teacher Wav2Vec2ForCTC, it has 5, 0 to 4"):
        trainer(tmp_path, teacher, list(range(8)))
