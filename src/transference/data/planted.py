"""Problems with known answers: what each modality knows about the label is planted, so that a method can be judged.

Every problem has a primary modality ``x`` and a secondary one ``z``, vectors of `width` numbers. A bit b of {0, 1} is
written into a modality as a shift of the mean: (2b - 1) m u + e, with u the unit vector of equal entries and
e ~ N(0, I), so that the best rule reads the bit with probability Φ(m). The primary modality is weak (m = 1), the
secondary one strong (m = 2.5), unless the table says otherwise.

================  =========================================================  ====================
kind              what is planted                                            what should happen
================  =========================================================  ====================
``redundant``     both hold the label                                        transfer helps
``unique``        four classes of two bits, one bit in each modality         fusion helps, transfer can not
``xor``           the label is the exclusive or of two bits, m = 2.5 each    nothing in one modality alone
``spurious``      the secondary holds the label in the training rows and     trust in it is punished
                  an independent bit in the test rows
``misaligned``    redundant, a share of the rows exchanged their secondary   less transfer
``missing``       redundant, a share of the rows lacks the secondary         less transfer
``noise``         the secondary is independent of everything                 no transfer
================  =========================================================  ====================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from transference.core.errors import ConfigError, did_you_mean, must_be
from transference.core.seeding import numpy_generator
from transference.core.views import Views
from transference.data.corrupt import drop, mispair
from transference.data.dataset import Dataset

Problem = Literal["redundant", "unique", "xor", "spurious", "misaligned", "missing", "noise"]
PROBLEMS: tuple[Problem, ...] = ("redundant", "unique", "xor", "spurious", "misaligned", "missing", "noise")
WEAK, STRONG = 1.0, 2.5  # m


@dataclass(frozen=True)
class Truth:
    """Accuracy of the best possible rule on test rows that sees the one, the other, or both modalities."""

    primary: float
    secondary: float
    both: float


def planted(kind: Problem, n: int = 400, seed: int = 0, *, width: int = 6, share: float = 0.5) -> Dataset:
    """A problem with a known answer.

    Parameters
    ----------
    kind
        See the table of this module.
    n
        Rows, classes equally often up to one row.
    seed
        Of the rows. All seeds draw from the same distribution.
    width
        Numbers in a row of a modality.
    share
        Of rows that are mispaired (``misaligned``) or lack the secondary modality (``missing``).

    Examples
    --------
    >>> planted("xor", n=8).views
    Views(8 rows; x: vector[6], z: vector[6]; primary 'x')
    """
    _check(kind, share)
    if n < 8:
        raise ConfigError(must_be("The number of rows of a planted problem", "at least 8", n))
    generator = numpy_generator(seed, "planted", kind)
    states = generator.permutation(n) % 4  # two fair bits, jointly balanced
    first, second = states // 2, states % 2
    label = {"unique": states, "xor": first ^ second}.get(kind, first)
    test = np.zeros(n, bool)
    test[generator.permutation(n)[: n // 4]] = True
    shown = {"unique": second, "xor": second, "spurious": np.where(test, second, first)}.get(kind, first)
    primary = _written(first, STRONG if kind == "xor" else WEAK, width, generator)
    secondary = _written(shown, 0.0 if kind == "noise" else STRONG, width, generator)
    views = Views.of(primary="x", x=primary, z=secondary)
    if kind == "misaligned":
        views = mispair(views, share, seed)
    if kind == "missing":
        views = drop(views, "z", share, seed)
    return Dataset(
        name=f"planted-{kind}",
        views=views,
        y=np.array([f"class{value}" for value in label], object),
        task="classification",
        ids=np.array([f"row{k}" for k in range(n)], object),
        split=np.where(test, "test", "train").astype(object) if kind == "spurious" else None,
        source={"title": f"Planted problem '{kind}'", "licence": "none needed"},
    )


def truth(kind: Problem, share: float = 0.5) -> Truth:
    """What the best possible rules reach; the rule for ``both`` of ``misaligned`` knows which rows are mispaired."""
    _check(kind, share)
    weak, strong, joint = (float(norm.cdf(m)) for m in (WEAK, STRONG, np.hypot(WEAK, STRONG)))
    return {
        "redundant": Truth(weak, strong, joint),
        "unique": Truth(weak / 2, strong / 2, weak * strong),
        "xor": Truth(0.5, 0.5, strong**2 + (1 - strong) ** 2),
        "spurious": Truth(weak, 0.5, weak),
        "misaligned": Truth(weak, (1 - share) * strong + share / 2, (1 - share) * joint + share * weak),
        "missing": Truth(weak, (1 - share) * strong + share / 2, (1 - share) * joint + share * weak),
        "noise": Truth(weak, 0.5, weak),
    }[kind]


def _check(kind: str, share: float) -> None:
    if kind not in PROBLEMS:
        raise ConfigError(f"There is no planted problem {kind!r}. {did_you_mean(kind, PROBLEMS)}")
    if not 0 <= share <= 1:
        raise ConfigError(must_be("The 'share' of a planted problem", "a number in [0, 1]", share))


def _written(
    bit: NDArray[np.int64], strength: float, width: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """(n, width)."""
    shift = (2 * bit - 1)[:, None] * strength / np.sqrt(width)
    return shift + generator.standard_normal((len(bit), width))
