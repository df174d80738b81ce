"""27 actions of 8 people seen by a depth camera and worn sensors. Default: skeleton (primary) ← inertial (secondary).

``skeleton`` (steps, 60): 20 joints of 3 coordinates in metres, relative to the hip of the same frame; in place of the
hip itself, how far it has moved since the first frame. 15 steps a second (two frames averaged). ``inertial``
(steps, 6): acceleration in g and rotation in degrees a second, of the right wrist (actions 1 to 21) or the right thigh
(22 to 27); 16.7 steps a second (three samples averaged). ``depth`` (16, 1, 30, 40): evenly spaced frames, 8×8 pixels
averaged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from transference.core.errors import DataError
from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.dataset import Dataset
from transference.data.sets._source import Part, Source, cached

_URL = "https://codeload.github.com/woo-chia-wei/kinect-sequence-classification/tar.gz/65e9b13950d7971c8d1e49e960f6796bd0dc9257"
FOLDER = "utd_mhad"
SOURCE = Source(
    title="UTD-MHAD: 861 recordings of 27 actions of 8 people",
    licence="none stated; the paper says 'freely available'",
    citation="chen2015",
    modalities=("skeleton", "inertial", "depth"),
    parts=(
        Part(
            _URL,
            f"{FOLDER}/Inertial",
            "357605699a513697cb4e1b48825a0d64e5982b050d27a7104d41345e6366fcad",
            of="folder",
            inside="data/Inertial",
        ),
        Part(
            _URL,
            f"{FOLDER}/Skeleton",
            "44383288005dfe82d3d909cf1b2a6aeafa2209f7ecc392e7eae9f590d061ed93",
            of="folder",
            inside="data/Skeleton",
        ),
    ),
    notes="Odd subjects train, even subjects test; no person is in both.",
)
FILES = {"skeleton": ("Skeleton", "d_skel"), "inertial": ("Inertial", "d_iner"), "depth": ("Depth", "d_depth")}
HIP = 3  # joint number
POOL = {"skeleton": 2, "inertial": 3}  # samples averaged into a step
DEPTH = (16, 30, 40)
REDUCED = "utd_depth_16x30x40.npz"


def build(root: Path, primary: str, secondary: tuple[str, ...], variant: str | None) -> Dataset:
    """Every recording that has both a skeleton and an inertial file."""
    folder = root / FOLDER
    stems = [file.name.removesuffix("_inertial.mat") for file in (folder / "Inertial").glob("*_inertial.mat")]
    stems = sorted((stem for stem in stems if (folder / "Skeleton" / f"{stem}_skeleton.mat").exists()), key=_numbers)
    action, subject, _ = np.array([_numbers(stem) for stem in stems]).T
    arrays, specs, lengths = {}, {}, {}
    for name in (primary, *secondary):
        if name == "depth":
            arrays[name] = _depth(folder, stems)[:, :, None].astype(np.float32) / 255
            specs[name] = ModalitySpec(name, "video", arrays[name].shape[1:])
            continue
        arrays[name], lengths[name] = _series(folder, name, stems)
        specs[name] = ModalitySpec(
            name, "series", arrays[name].shape[1:], lengths=True, reading={"length": arrays[name].shape[1]}
        )
    return Dataset(
        name="utd_mhad",
        views=Views(arrays, specs, primary, lengths=lengths),
        y=np.array([f"a{number:02d}" for number in action], object),
        task="classification",
        ids=np.array(stems, object),
        split=np.where(subject % 2 == 1, "train", "test").astype(object),
        group=np.array([f"subject{number}" for number in subject], object),
        source=SOURCE.as_text(),
    )


def _numbers(stem: str) -> tuple[int, ...]:
    """Action, subject and trial of ``a1_s2_t3``."""
    return tuple(int(number) for number in re.findall(r"\d+", stem))


def _files(folder: Path, name: str, stems: Sequence[str]) -> list[Path]:
    return [folder / FILES[name][0] / f"{stem}_{name}.mat" for stem in stems]


def _series(folder: Path, name: str, stems: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(n, steps, d) float32 padded with zeros, and (n,) steps of each."""
    files = _files(folder, name, stems)

    def decode() -> dict[str, NDArray[Any]]:
        rows = []
        for file in files:
            raw = loadmat(file)[FILES[name][1]].astype(np.float64)
            if name == "skeleton":  # (joints, coordinates, frames)
                centred = raw - raw[HIP]
                centred[HIP] = raw[HIP] - raw[HIP, :, :1]
                raw = centred.transpose(2, 0, 1).reshape(raw.shape[2], -1)
            whole = len(raw) // POOL[name]
            rows.append(raw[: whole * POOL[name]].reshape(whole, POOL[name], -1).mean(1))
        sizes = np.array([len(row) for row in rows], np.int64)
        array = np.zeros((len(rows), sizes.max(), rows[0].shape[1]), np.float32)
        for target, row in zip(array, rows, strict=True):
            target[: len(row)] = row
        return {"array": array, "lengths": sizes}

    kept = cached(f"utd_mhad {name} hip {HIP} and its way, pool {POOL[name]}", files, decode)
    return kept["array"], kept["lengths"]


def _depth(folder: Path, stems: Sequence[str]) -> NDArray[Any]:
    """(n, 16, 30, 40) bytes, from the reduced file or from the published ones."""
    if (folder / REDUCED).exists():
        with np.load(folder / REDUCED, allow_pickle=False) as kept:
            names = zip(kept["y"].tolist(), kept["subject"].tolist(), kept["trial"].tolist(), strict=True)
            row: dict[tuple[int, ...], int] = {(action + 1, *rest): k for k, (action, *rest) in enumerate(names)}
            return kept["depth"][[row[_numbers(stem)] for stem in stems]]
    files = _files(folder, "depth", stems)
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise DataError(
            f"The depth videos of utd_mhad are not on this machine: {len(missing)} files are missing from "
            f"{folder / 'Depth'}, the first is {missing[0]}. They are large, and not fetched with the rest: take the "
            f"folder data/Depth from {_URL} and put it there."
        )
    return cached("utd_mhad depth", files, lambda: {"depth": np.stack([_reduce(file) for file in files])})["depth"]


def _reduce(file: Path) -> NDArray[Any]:
    """Evenly spaced frames, blocks of 8×8 pixels averaged, 20 mm a unit."""
    raw = loadmat(file)[FILES["depth"][1]]  # (240, 320, frames) millimetres
    frames = raw[:, :, np.linspace(0, raw.shape[2] - 1, DEPTH[0]).round().astype(int)].transpose(2, 0, 1)
    blocks = frames.reshape(DEPTH[0], DEPTH[1], 8, DEPTH[2], 8).mean((2, 4))
    return (blocks / 20).clip(0, 255).astype(np.uint8)
