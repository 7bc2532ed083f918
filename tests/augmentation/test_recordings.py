"""Recordings become samples of one channel at one rate; what cannot be read is told with its row and its path."""

import sys

import numpy as np
import pytest
from tiny_waves import RATE, sine, wav

from hf_distill.augmentation.recordings import decoded, resampled, seconds_of


def held(kind, path):
    """The same recording, in each way in which it may be given."""
    data = wav()
    path.write_bytes(data)
    return {
        "path": str(path), "file": path, "bytes": data, "stored": {"bytes": data, "path": "a.wav"},
        "linked": {"bytes": None, "path": str(path)}, "array": {"array": sine(), "sampling_rate": RATE},
        "list": {"array": sine().tolist(), "sampling_rate": RATE}, "samples": (sine() * 32768).astype(np.int16),
        "numbers": sine().astype(np.float64),
    }[kind]  # fmt: skip


@pytest.mark.parametrize("kind", ["path", "file", "bytes", "stored", "linked", "array", "list", "samples", "numbers"])
def test_a_recording_is_the_same_however_it_is_given(tmp_path, kind):
    found = held(kind, tmp_path / "a.wav")
    wave = decoded(found, "row 0", RATE, assumed=RATE)
    assert wave.dtype == np.float32
    assert wave == pytest.approx(sine(), abs=1 / 16384)  # of 16 bits
    assert seconds_of(found, "row 0", assumed=RATE) == 0.25


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "AIFF", "OGG"])
def test_a_file_of_each_kind(kind):
    wave = decoded(wav(kind=kind), "row 0", RATE)
    assert wave == pytest.approx(sine(), abs=0.05 if kind == "OGG" else 1e-4)


def test_several_channels_become_their_mean():
    left, right = sine(pitch=300), sine(pitch=700)
    both, mean = np.stack([left, right], axis=1), (left + right) / 2
    assert decoded(wav(both), "row 0", RATE) == pytest.approx(mean, abs=1e-4)
    for given in (both, both.T):
        assert decoded({"array": given, "sampling_rate": RATE}, "row 0", RATE) == pytest.approx(mean, abs=1e-7)


@pytest.mark.parametrize(("own", "rate"), [(16000, 8000), (44100, 16000), (8000, 16000)])
def test_another_rate_is_resampled(own, rate):
    wave = decoded(wav(sine(0.5, 440, own), own), "row 0", rate)
    assert len(wave) == rate // 2
    inside = slice(rate // 20, -rate // 20)  # the filter feels the ends
    assert wave[inside] == pytest.approx(sine(0.5, 440, rate)[inside], abs=5e-3)


def test_what_a_lower_rate_cannot_hold_is_gone():
    loud = resampled(sine(0.5, 7000, 16000), 16000, 8000)  # every other sample would be a loud wave of 1,000
    assert np.abs(loud[400:-400]).max() < 0.01


@pytest.mark.parametrize("whole", [8, 16, 32])
def test_whole_numbers_are_brought_to_one(whole):
    kind = {8: np.uint8, 16: np.int16, 32: np.int32}[whole]
    ends = np.array([np.iinfo(kind).min, np.iinfo(kind).max], dtype=kind)
    assert decoded(ends, "row 0", RATE, RATE) == pytest.approx([-1, 1], abs=0.01)


TOLD = [
    (lambda path: wav()[:2000], r"\(it ends after 1,956 of 4,000 bytes\): correct it, or leave the row out\.$"),
    (lambda path: {"bytes": wav()[:2000], "path": "one.wav"}, r"\(one\.wav: it ends after 1,956 of 4,000 bytes\)"),
    (lambda path: {"bytes": wav(kind="FLAC")[:900], "path": "one.flac"}, r"\(one\.flac: \S+"),
    (lambda path: b"no recording", r"\(Format not recognised\): correct"),
    (lambda path: str(path / "none.wav"), r"\(\S*none\.wav: No such file or directory\)"),
    (lambda path: {"bytes": b"", "path": "one.wav"}, r"\(one\.wav: the file is empty\)"),
    (lambda path: wav(np.zeros(0, dtype=np.float32)), r"\(it is empty\)"),
    (lambda path: {"array": [], "sampling_rate": RATE}, r"\(it is empty\)"),
    (lambda path: {"array": [0.0, float("nan")], "sampling_rate": RATE}, r"\(it has numbers that are not finite\)"),
    (lambda path: sine(), r'\(nobody told its rate\): give \{"array": .*\}, or, where all arrays have one rate, sam'),
    (lambda path: {"array": sine(), "sampling_rate": 0}, r"\(its rate is 0\)"),
    (lambda path: {"array": sine()}, r"\(there is no 'sampling_rate'\)"),
    (lambda path: {"bytes": None, "path": None}, r"\(there is none\)"),
    (lambda path: None, r"\(there is none\)"),
    (lambda path: {"array": [1, 2, 3], "sampling_rate": RATE}, r"\(it holds int64, not decimal numbers or samples of"),
    (lambda path: {"array": np.zeros((2, 2, 2)), "sampling_rate": RATE}, r"\(it has the shape \[2, 2, 2\], not"),
]


@pytest.mark.parametrize(("make", "told"), TOLD)
def test_what_cannot_be_read_is_told_in_a_sentence(tmp_path, make, told):
    with pytest.raises(ValueError, match=r"^row 7 has a recording that cannot be read " + told) as caught:
        decoded(make(tmp_path), "row 7", RATE)
    assert "\n" not in str(caught.value)
    assert "BytesIO" not in str(caught.value)


def test_a_header_tells_a_torn_file_before_it_is_decoded():
    with pytest.raises(ValueError, match=r"^row 2 has a recording that cannot be read \(a\.wav: it ends after"):
        seconds_of({"bytes": wav()[:2000], "path": "a.wav"}, "row 2")


def test_a_length_that_its_writer_did_not_know_is_no_fault():
    data = bytearray(wav())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"  # as programs write into a pipe
    assert len(decoded(bytes(data), "row 0", RATE)) == 2000


@pytest.mark.parametrize(("package", "rate"), [("soundfile", RATE), ("scipy.signal", 16000)])
def test_a_missing_package_names_the_extra(monkeypatch, package, rate):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install "hf_distill\[speech\]"\.$'):
        decoded(wav(), "row 0", rate)
