"""Opinions in 93 videos: 2199 utterances, positive or negative. Default: audio (primary) ← transcript (secondary).

The text and video vectors were made by networks that were trained on the training labels. They separate the training
rows almost perfectly and the test rows much less; a method that trusts them learns the labels twice.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.dataset import Dataset
from transference.data.modality import ModalityConfig
from transference.data.readers import read_column
from transference.data.sets._source import Part, Source

_URL = (
    "https://raw.githubusercontent.com/soujanyaporia/"
    "contextual-utterance-level-multimodal-sentiment-analysis/f1199e608b42/data/"
)
_SHA256 = {
    "transcripts.csv": "e7689e6d70720addd2a6b316419d245a68839c32b014ff426c406063ee777466",
    "text_train.csv": "73770b6302ad0f7a51f4eddcae6788efde4d0b6802e09f78249d5b538d1c1d67",
    "text_test.csv": "f3b735070bf07ceff7a6ef6c8f4c32757e988de484e35bd6d38b2aecef851a59",
    "audio/audio_train0.csv": "5435398a54664e7b00304587dc59ae84a438852be033c2a2fba779588624a2a1",
    "audio/audio_test0.csv": "ddd17eeefd3d951d51d4e2ef8a0d132652d8161e1886f71eb7262b7a14bffff6",
    "text/text_train0.csv": "cc327045db6cc361a08b4037b97bb24de4ddb5efb381468c4835cc4a60674668",
    "text/text_test0.csv": "a343e22272919d1384c2075dbcdd5fef5aa9f9366b0552a83f7c3147b64b047a",
    "video/video_train0.csv": "b6efc0413132d627efd06f67f1706830e775e90af9a75696f535c48dbc73f12f",
    "video/video_test0.csv": "cab836253d81100f59d533fa2ff65cd53c486be3ec9fd82203c5e25a7a77265f",
}
_FILES = {"audio": "audio/audio_{}0.csv", "text_vector": "text/text_{}0.csv", "video_vector": "video/video_{}0.csv"}
SOURCE = Source(
    title="CMU-MOSI: 2199 utterances of 93 videos, positive or negative",
    licence="none stated; for research",
    citation="zadeh2016",
    modalities=("audio", "transcript", "text_vector", "video_vector"),
    parts=tuple(Part(_URL + name, f"cmu_mosi_features/{name}", sha256) for name, sha256 in _SHA256.items()),
    notes="Videos are not divided between the splits (62 train, 31 test). 'text_vector' and 'video_vector' are "
    "contaminated: the networks that made them were trained on the training labels. Only 'audio' and 'transcript' "
    "are clean.",
)


def build(root: Path, primary: str, secondary: tuple[str, ...], variant: str | None) -> Dataset:
    """Audio (73,), word numbers of the transcript, text_vector (100,), video_vector (100,)."""
    folder = root / "cmu_mosi_features"
    transcripts = _table(folder / "transcripts.csv")  # utterance, words, video number, label
    # the first column of text_{split}.csv is the row in transcripts.csv; the other files have the same order
    index = {split: [int(row[0]) for row in _table(folder / f"text_{split}.csv")] for split in ("train", "test")}
    order = [transcripts[row] for rows in index.values() for row in rows]
    arrays: dict[str, Any] = {}
    specs, present, lengths = {}, {}, {}
    for name in (primary, *secondary):
        if name == "transcript":
            words = read_column([row[1] for row in order], ModalityConfig(kind="text"), folder, name=name)
            arrays[name], specs[name] = words.array, words.spec
            present[name] = words.present
            if words.lengths is not None:
                lengths[name] = words.lengths
            continue
        tables = [np.array(_table(folder / _FILES[name].format(split)), np.float32) for split in index]
        arrays[name] = np.concatenate(tables)[:, :-1]  # the last column is the label
        specs[name] = ModalitySpec(name, "vector", arrays[name].shape[1:])
    return Dataset(
        name="mosi",
        views=Views(arrays, specs, primary, present=present, lengths=lengths),
        y=np.array(["positive" if row[3] == "1" else "negative" for row in order], object),
        task="classification",
        ids=np.array([row[0] for row in order], object),
        split=np.array([split for split, rows in index.items() for _ in rows], object),
        group=np.array([row[2] for row in order], object),
        source=SOURCE.as_text(),
    )


def _table(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))
