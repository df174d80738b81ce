"""Views: indexing, presence, what scikit-learn asks of an X."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score

import transference
from transference.core.errors import DataError
from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.train.schedule import Schedule


def three_rows() -> Views:
    specs = {
        "sound": ModalitySpec("sound", "series", (4, 2), lengths=True),
        "words": ModalitySpec("words", "vector", (3,)),
    }
    arrays = {"words": np.arange(9.0, dtype=np.float32).reshape(3, 3), "sound": np.ones((3, 4, 2), np.float32)}
    return Views(
        arrays,
        specs,
        "sound",
        present={"words": np.array([True, False, True])},
        lengths={"sound": np.array([4, 2, 1])},
        rows=np.array([10, 11, 12]),
    )


def test_take_keeps_everything_in_step() -> None:
    part = three_rows()[[2, 0]]
    assert part.rows.tolist() == [12, 10]
    assert part.lengths["sound"].tolist() == [1, 4]
    assert part.present["words"].tolist() == [True, True]
    assert part["words"].tolist() == [[6.0, 7.0, 8.0], [0.0, 1.0, 2.0]]


@pytest.mark.parametrize("key", [slice(1, 3), np.array([False, True, True]), np.array([1, 2]), (np.array([1, 2]), ...)])
def test_every_way_to_index_rows(key: object) -> None:
    assert three_rows()[key].rows.tolist() == [11, 12]


def test_modalities_are_sorted_by_name_whatever_the_order_given() -> None:
    assert three_rows().names == ("sound", "words")
    assert three_rows().secondary == ("words",)


def test_without_marks_as_absent_and_leaves_the_original() -> None:
    views = three_rows()
    bare = views.without("words")
    assert not bare.present["words"].any()
    assert not bare["words"].any()
    assert views["words"].any()


def test_only_needs_a_primary_that_is_there() -> None:
    with pytest.raises(DataError, match="no modality 'sound' to be primary"):
        three_rows().only(["words"])
    assert three_rows().only(["words"], primary="words").names == ("words",)


def test_unknown_modality_suggests() -> None:
    with pytest.raises(DataError, match=r"There is no modality 'word'\. Did you mean 'words'\?"):
        three_rows()["word"]


def test_wrong_shape_is_named() -> None:
    specs = {"a": ModalitySpec("a", "vector", (3,))}
    with pytest.raises(DataError, match=r"The array of 'a' must be of shape \(2, 3\)\. Got \(2, 4\) instead"):
        Views({"a": np.zeros((2, 4))}, specs, "a")


def test_nan_is_refused_with_its_row() -> None:
    with pytest.raises(DataError, match="must be finite. Got nan or inf in row 1 instead"):
        Views.of(primary="a", a=[[0.0], [np.nan]])


def test_fingerprint_changes_with_content_presence_and_primary() -> None:
    views = three_rows()
    other = views.replace("words", views["words"] + 1)
    assert len({v.fingerprint() for v in (views, other, views.without("words"), views[[0, 2, 1]])}) == 4
    assert views.fingerprint() == three_rows().fingerprint()


def test_scikit_learn_model_selection_takes_views_as_x() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(["no", "yes"], 30)
    X = Views.of(primary="a", a=rng.normal(size=(60, 2)) + 4 * (y == "yes")[:, None], b=rng.normal(size=(60, 3)))
    method = transference.create("unimodal", schedule=Schedule(updates=40))
    assert cross_val_score(method, X, y, cv=3).min() > 0.9
    search = GridSearchCV(clone(method), {"width": [4, 8]}, cv=2).fit(X, y)
    assert search.best_params_["width"] in (4, 8)
    assert search.predict(X[:2]).tolist() == ["no", "no"]
