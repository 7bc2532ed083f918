"""Recordings as data sets hold them: sine waves as files, bytes and arrays."""

import io

import numpy as np
import soundfile
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor

RATE = 8000


def sine(seconds=0.25, pitch=440.0, rate=RATE):
    return np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate).astype(np.float32) / 2


def wav(wave=None, rate=RATE, kind="WAV"):
    file = io.BytesIO()
    soundfile.write(file, sine(rate=rate) if wave is None else wave, rate, format=kind)
    return file.getvalue()


def arrays(n=8, rate=RATE, **columns):
    """Rows of several lengths; a further column holds what its function says of the row's number."""
    rows = [
        {"audio": {"array": sine(0.15 + 0.05 * (i % 3), 200 * (1 + i % 2), rate), "sampling_rate": rate}}
        for i in range(n)
    ]
    return [{**row, **{name: value(i) for name, value in columns.items()}} for i, row in enumerate(rows)]


def folders(path, n=12):
    for number in range(n):
        kind = path / ("high", "low")[number % 2]
        kind.mkdir(parents=True, exist_ok=True)
        (kind / f"{number}.wav").write_bytes(wav(sine(0.15 + 0.01 * number, 200 * (2 - number % 2))))
    return str(path)


def mels(rate=RATE, bins=8):
    return SeamlessM4TFeatureExtractor(feature_size=bins, num_mel_bins=bins, sampling_rate=rate)


def waves(mask=True, rate=RATE):
    return Wav2Vec2FeatureExtractor(sampling_rate=rate, return_attention_mask=mask)
