"""Sound to log-mel spectrograms: (frames, mel bands), natural logarithm of power, 100 frames a second."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from transference.core.errors import DataError, must_be
from transference.data.decoders.parts import Array, CellFault, Prepared, Source, finite

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au"})
HIGHEST_RATE = 16000
MELS = 40
FLOOR = 1e-6  # added to the power before the logarithm
UNKNOWN = 2**62  # samples: a file that was streamed does not say how many follow, and libsndfile gives 2^63 - 1
BLOCK = 2**20  # samples that are read at once from such a file


def prepare(source: Source, options: Mapping[str, Any]) -> Prepared:
    """Rows of (frames, mels): mean of the channels, one sample rate, windows of about 32 ms every 10 ms."""

    def look(cell: Any) -> tuple[Path, str, int, int]:
        path = source.files.find(cell, "a sound file")
        return path, cell, *header(path, cell)

    rows = source.each(look)
    highest = max((row[3] for row in rows.values()), default=HIGHEST_RATE)
    rate = int(options.get("rate", min(HIGHEST_RATE, highest)))
    mels = int(options.get("mels", MELS))
    longest = max((frames_of(samples, own, rate) for _, _, samples, own in rows.values()), default=1)
    most = int(options.get("length", longest))
    length = most if source.fitted else min(most, longest)
    return Prepared(
        "audio",
        (length, mels),
        {row: partial(load, path, cell, rate, mels) for row, (path, cell, _, _) in rows.items()},
        {"rate": rate, "mels": mels, "length": length},
        lengths=True,
    )


def window(rate: int) -> tuple[int, int]:
    """(samples a window, samples from one window to the next)."""
    return 2 ** math.ceil(math.log2(0.025 * rate)), max(1, round(0.01 * rate))


def frames_of(samples: int, own_rate: int, rate: int) -> int:
    """How many frames `load` makes of so many samples."""
    size, hop = window(rate)
    return 1 + max(math.ceil(samples * rate / own_rate), size) // hop


def header(path: Path, cell: str) -> tuple[int, int]:
    """(samples, samples a second)."""
    import soundfile

    try:
        info = soundfile.info(str(path))
        samples = info.frames if info.frames < UNKNOWN else len(_read(path)[0])
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise _unreadable(cell, error) from error
    if samples < 1:
        raise _silent(cell)
    return samples, info.samplerate


def waveform(path: Path, cell: str, rate: int) -> Array:
    """(samples,) float32, the mean of the channels at this rate."""
    import librosa
    import soundfile

    try:
        samples, own_rate = _read(path)
    except (soundfile.SoundFileError, OSError) as error:
        raise _unreadable(cell, error) from error
    if not len(samples):
        raise _silent(cell)
    mono = finite(samples, f"The sound {cell!r}").mean(1)
    return mono if own_rate == rate else librosa.resample(mono, orig_sr=own_rate, target_sr=rate)


def _read(path: Path) -> tuple[Array, int]:
    """(samples, channels) float32, all that is there, and samples a second."""
    import soundfile

    class Stream(soundfile.SoundFile):
        def seekable(self) -> bool:  # libsndfile cannot seek in a file of unknown length, though it says so
            return False

    if soundfile.info(str(path)).frames < UNKNOWN:
        samples, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
        return samples, rate
    with Stream(str(path)) as file:
        blocks = [np.zeros((0, file.channels), np.float32)]
        while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
            blocks.append(block)
        return np.concatenate(blocks), file.samplerate


def load(path: Path, cell: str, rate: int, mels: int) -> Array:
    """(frames, mels)."""
    mono = waveform(path, cell, rate)
    size, hop = window(rate)
    mono = np.pad(mono, (0, max(0, size - len(mono))))
    import librosa

    spectrum = librosa.stft(mono, n_fft=size, hop_length=hop)  # (size / 2 + 1, frames)
    power = filters(rate, mels) @ (spectrum.real**2 + spectrum.imag**2)
    return np.log(power.T + FLOOR).astype(np.float32)


_filters: dict[tuple[int, int], Array] = {}


def filters(rate: int, mels: int) -> Array:
    """(mels, size / 2 + 1) triangles; refuses bands that no frequency falls into."""
    import warnings

    import librosa

    if (rate, mels) not in _filters:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # empty bands are refused below
            bank = librosa.filters.mel(sr=rate, n_fft=window(rate)[0], n_mels=mels)
        if not bank.any(1).all():
            raise DataError(
                must_be("The 'mels' option", f"small enough for a rate of {rate}", mels, "Lower it, or raise 'rate'.")
            )
        _filters[rate, mels] = bank
    return _filters[rate, mels]


def _silent(cell: str) -> CellFault:
    return CellFault(f"The sound {cell!r} must be at least one sample long. Got none instead. Empty the cell.")


def _unreadable(cell: str, error: BaseException) -> CellFault:
    return CellFault(
        must_be(
            f"The sound {cell!r}",
            "a readable sound file",
            str(error).rpartition(":")[2].strip()[:120] or type(error).__name__,
            "Save it as WAV or FLAC, or empty the cell.",
        )
    )
