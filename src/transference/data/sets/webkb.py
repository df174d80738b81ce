"""Course pages among the web pages of four universities: words of the links to a page (primary) ← its HTML (secondary).

The set that co-training was introduced with. 1051 pages, 230 of them of a course.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

import numpy as np

from transference.core.views import Views
from transference.data.dataset import Dataset
from transference.data.modality import ModalityConfig
from transference.data.readers import read_column
from transference.data.sets._source import Part, Source

SOURCE = Source(
    title="WebKB course pages: 1051 web pages, course or other",
    licence="none stated; for research",
    citation="blum1998",
    modalities=("inlinks", "page"),
    parts=(
        Part(
            "https://codeload.github.com/rnjtsh/Semi-Supervised-MultiView-Feature-Learning/tar.gz/9ad72eab2e7a",
            "webkb_cotrain/course-cotrain-data",
            "cdc59dea7eba9e437fea9135e65aed8300d8476e3924183b34eae045af532c83",
            of="folder",
            inside="course-cotrain-data",
        ),
    ),
    notes="'inlinks' holds the words of the links that point to a page; 'page' its text without the HTML tags. Four "
    "pages have no inlink words and are left out where inlinks are primary.",
)
FOLDERS = {"inlinks": "inlinks", "page": "fulltext"}
CLASSES = {"course": "course", "non-course": "other"}


def build(root: Path, primary: str, secondary: tuple[str, ...], variant: str | None) -> Dataset:
    """Word numbers of the inlinks and of the page; pages without a word in the primary modality are left out."""
    files = SOURCE.parts[0].files(root)
    pages = [name.removeprefix("fulltext/") for name in files if name.startswith("fulltext/")]
    words = {}
    for name in (primary, *secondary):
        texts = [_text(files[f"{FOLDERS[name]}/{page}"]) for page in pages]
        words[name] = read_column(texts, ModalityConfig(kind="text"), root, name=name)
    views = Views(
        {name: each.array for name, each in words.items()},
        {name: each.spec for name, each in words.items()},
        primary,
        present={name: each.present for name, each in words.items()},
        lengths={name: each.lengths for name, each in words.items() if each.lengths is not None},
    )
    kept = np.flatnonzero(views.present[primary])
    return Dataset(
        name="webkb",
        views=views.take(kept),
        y=np.array([CLASSES[page.partition("/")[0]] for page in pages], object)[kept],
        task="classification",
        ids=np.array([page.partition("/")[2] for page in pages], object)[kept],
        source=SOURCE.as_text(),
    )


def _text(content: bytes) -> str:
    """Without tags; the pages are older than UTF-8."""
    return html.unescape(re.sub(r"<[^>]*>", " ", content.decode("latin-1")))
