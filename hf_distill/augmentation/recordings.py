"""Recordings as waves: files, their bytes and arrays become samples of one channel, at one rate.

Knows: what a data set holds for a recording, soundfile, resampling. Does not know: batches, features, models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from math import gcd
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

UNREADABLE = "a recording that cannot be read"
"""What a message says of one, in each case."""
EXTRA = 'pip install "hf_distill[speech]"'
TORN = re.compile(r"^\s*(?:data|SSND) : (\d+) \(should be (\d+)\)", re.MULTILINE)
"""What libsndfile notes of a file that ends before its header says; it gives what is there without complaint."""
STREAMED = 2**31 - 2**16
"""A length that a header has because whoever wrote it did not know how long the recording would be."""
WHOLE = 0.99
"""The share of the promised samples that a whole file has: an MP3 does not know its own to the last."""


class Wave(NamedTuple):
    """A recording.

    Args:
        samples: float32 [T], from -1 to 1.
        rate: samples a second.
    """

    samples: np.ndarray
    rate: int


class Unreadable(ValueError):
    """What is wrong with a recording, which file it is, and what to do; no sentence yet.

    Args:
        reason: the first two.
        do: the last.
    """

    def __init__(self, reason: str, do: str = "correct it, or leave the row out") -> None:
        super().__init__(reason)
        self.do = do


def decoded(found: Any, who: str, rate: int, assumed: int | None = None) -> np.ndarray:
    """Make samples of one channel of what a data set holds for a recording.

    Several channels become their mean.

    Args:
        found: a path, the bytes of a file, an array [T], [T, channels] or [channels, T], or a mapping as ``datasets``
            has it: ``{"bytes", "path"}`` or ``{"array", "sampling_rate"}``.
        who: names the row in a message.
        rate: samples a second that are wanted; a recording of another rate is resampled.
        assumed: the rate of an array that does not say its own; None: such an array is refused.

    Returns:
        float32 [T].

    Raises:
        ValueError: it cannot be decoded, ends too early, is empty, has numbers that are none, or nobody told its rate.
        ImportError: soundfile or scipy is not installed.

    Example:
        >>> decoded(np.array([0, 16384, -32768], dtype=np.int16), "row 0", 8000, 8000).tolist()
        [0.0, 0.5, -1.0]
        >>> decoded({"array": [[0.0, 0.5], [1.0, 0.5]], "sampling_rate": 8000}, "row 0", 8000).tolist()
        [0.5, 0.5]
    """
    wave = opened(found, who, assumed)
    return resampled(wave.samples, wave.rate, rate)


def opened(found: Any, who: str, assumed: int | None = None) -> Wave:
    """Make samples of one channel of what a data set holds for a recording, at its own rate.

    Args:
        found: as ``decoded`` takes it.
        who: names the row in a message.
        assumed: see ``decoded``.

    Raises:
        ValueError: see ``decoded``.
        ImportError: soundfile is not installed.

    Example:
        >>> opened({"array": [0.0, 0.5], "sampling_rate": 8000}, "row 0").rate
        8000
    """
    with _in_a_sentence(who):
        wave = _opened(found, assumed)
        if not len(wave.samples):
            raise Unreadable(_named("it is empty", found))
        if not np.isfinite(wave.samples).all():
            raise Unreadable(_named("it has numbers that are not finite", found))
    return wave


def resampled(samples: np.ndarray, own: int, rate: int) -> np.ndarray:
    """Bring samples to another rate, without what the lower of the two cannot hold.

    Args:
        samples: float32 [T].
        own: their rate.
        rate: the wanted one.

    Returns:
        float32, ``T * rate / own`` samples, rounded up; the same where the rates are.

    Raises:
        ImportError: scipy is not installed.

    Example:
        >>> resampled(np.zeros(441, dtype=np.float32), 44100, 16000).shape
        (160,)
    """
    if own == rate:
        return samples
    try:
        from scipy.signal import resample_poly
    except ImportError as error:
        raise ImportError(
            f"a recording has {own} samples a second, {rate} are wanted, and resampling needs scipy: {EXTRA}."
        ) from error
    shared = gcd(own, rate)
    return resample_poly(samples, rate // shared, own // shared).astype(np.float32)


def seconds_of(found: Any, who: str, assumed: int | None = None) -> float:
    """Say how long a recording is; of a file its header is asked, and nothing is decoded.

    Args:
        found: as ``decoded`` takes it.
        who: names the row in a message.
        assumed: see ``decoded``.

    Raises:
        ValueError: see ``decoded``; what only decoding shows is not found.
        ImportError: soundfile is not installed.

    Example:
        >>> seconds_of({"array": [0.0] * 4000, "sampling_rate": 8000}, "row 0")
        0.5
    """
    with _in_a_sentence(who):
        data = _file_in(found)
        if data is None:
            samples, rate = _opened(found, assumed)
            long = len(samples)
        else:
            with _sound(data, found) as file:
                _check_whole(file, found)
                long, rate = file.frames, file.samplerate
        if not long:
            raise Unreadable(_named("it is empty", found))
    return long / rate


@contextmanager
def _in_a_sentence(who: str) -> Iterator[None]:
    try:
        yield
    except Unreadable as error:
        raise ValueError(f"{who} has {UNREADABLE} ({error}): {error.do}.") from error


def _opened(found: Any, assumed: int | None) -> Wave:
    if (data := _file_in(found)) is not None:
        with _sound(data, found) as file:
            _check_whole(file, found)
            try:
                read = file.read(dtype="float32", always_2d=True)
            except (RuntimeError, OSError, ValueError) as error:
                raise Unreadable(_named(_reason(error), found)) from error
            if len(read) < WHOLE * file.frames:
                raise Unreadable(_named(f"it ends after {len(read):,} of {file.frames:,} samples", found))
            return Wave(read[:, 0] if read.shape[1] == 1 else read.mean(axis=1), file.samplerate)
    array, rate = found, assumed
    if isinstance(found, Mapping) or hasattr(found, "get_all_samples"):  # as datasets holds it, decoded
        try:
            array, rate = found["array"], found["sampling_rate"]
        except KeyError as error:
            raise Unreadable(_named(f"there is no {error.args[0]!r}", found)) from error
    samples = _one_channel(array)
    if isinstance(rate, bool) or not isinstance(rate, (int, np.integer)) or rate < 1:
        raise Unreadable(
            _named("nobody told its rate" if rate is None else f"its rate is {rate!r}", found),
            'give {"array": ..., "sampling_rate": ...}, or, where all arrays have one rate, sampling_rate=',
        )
    return Wave(samples, int(rate))


def _one_channel(array: Any) -> np.ndarray:
    """Samples of an array, whole numbers brought to -1 to 1; channels, of which there are fewer, become their mean."""
    try:
        array = np.asarray(array)
    except (ValueError, TypeError, RuntimeError) as error:
        raise Unreadable(_reason(error)) from error
    kind = array.dtype
    if array.size and kind.kind not in "f" and kind not in (np.int16, np.int32, np.uint8):
        raise Unreadable(f"it holds {kind}, not decimal numbers or samples of 8, 16 or 32 bits")
    if array.ndim not in (1, 2):
        raise Unreadable(f"it has the shape {list(array.shape)}, not [samples] or [samples, channels]")
    samples = array.astype(np.float32)
    if kind.kind in "iu" and array.size:
        half = 2.0 ** (8 * kind.itemsize - 1)
        samples = (samples - half * (kind.kind == "u")) / half
    return samples if samples.ndim == 1 else samples.mean(axis=int(np.argmin(samples.shape)))


def _file_in(found: Any) -> bytes | Path | None:
    """The bytes or the path of a file; None: it is an array."""
    if isinstance(found, Mapping) and "array" not in found:
        found = found.get("bytes") if found.get("bytes") is not None else found.get("path")
        if found is None:
            raise Unreadable("there is none")
    if found is None:
        raise Unreadable("there is none")
    if isinstance(found, (str, Path)):
        return Path(found)
    return bytes(found) if isinstance(found, (bytes, bytearray, memoryview)) else None


def _sound(data: bytes | Path, found: Any) -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # an OSError where its library of C is not there
        raise ImportError(f"recordings are decoded by soundfile, which is not installed: {EXTRA}.") from error
    try:
        size = data.stat().st_size if isinstance(data, Path) else len(data)
    except OSError as error:
        raise Unreadable(_named(error.strerror or str(error), found)) from error
    if not size:
        raise Unreadable(_named("the file is empty", found))
    try:
        return soundfile.SoundFile(str(data) if isinstance(data, Path) else BytesIO(data))
    except (RuntimeError, OSError, ValueError, TypeError) as error:
        raise Unreadable(_named(_reason(error), found)) from error


def _check_whole(file: Any, found: Any) -> None:
    for told, there in TORN.findall(file.extra_info):
        if int(there) < int(told) < STREAMED:
            raise Unreadable(_named(f"it ends after {int(there):,} of {int(told):,} bytes", found))


def _reason(error: Exception) -> str:
    """What is wrong; where its bytes lie says nothing."""
    said = re.sub(r"^Error opening (<.*?>|'.*?'): ", "", str(error))
    return " ".join(said.split())[:100].rstrip(".")


def _named(reason: str, found: Any) -> str:
    path = found.get("path") if isinstance(found, Mapping) else found if isinstance(found, (str, Path)) else None
    return f"{path}: {reason}" if path else reason
