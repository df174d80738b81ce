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


VECTOR = {"a": ModalitySpec("a", "vector", (2,)), "b": ModalitySpec("b", "vector", (2,))}
STEPS = {"a": ModalitySpec("a", "series", (2, 1), lengths=True)}


@pytest.mark.parametrize(
    ("specs", "given", "wording"),
    [
        (VECTOR, {"present": {"bb": np.ones(3, bool)}}, "no modality 'bb' that has presence. Did you mean 'b'"),
        (VECTOR, {"present": {"b": np.ones(4, bool)}}, r"The presence of 'b' must be of shape \(3,\). Got \(4,\)"),
        (VECTOR, {"lengths": {"bb": np.ones(3, int)}}, "no modality 'bb' that has lengths. Did you mean 'b'"),
        (VECTOR, {"rows": np.arange(2)}, r"The row numbers must be of shape \(3,\). Got \(2,\)"),
        (STEPS, {"lengths": {"a": np.ones((3, 1), int)}}, r"The lengths of 'a' must be of shape \(3,\)"),
        (STEPS, {"lengths": {"a": np.array([1, 3, 2])}}, r"The lengths of 'a' must be in \[0, 2\]. Got 1 to 3"),
        (STEPS, {"lengths": {"a": np.array([1, -1, 2])}}, r"The lengths of 'a' must be in \[0, 2\]. Got -1 to 2"),
        ({"a": VECTOR["a"]}, {}, "There is no ModalitySpec of 'b'. Choose one of 'a'"),
    ],
)
def test_what_does_not_fit_the_arrays_is_refused(specs: dict, given: dict, wording: str) -> None:
    names = ["a"] if specs is STEPS else ["a", "b"]
    arrays = {name: np.zeros((3, *VECTOR["a"].shape) if specs is not STEPS else (3, 2, 1)) for name in names}
    with pytest.raises(DataError, match=wording):
        Views(arrays, specs, "a", **given)


def test_only_rows_that_have_a_modality_must_hold_numbers() -> None:
    x = np.ones((3, 2))
    x[1] = np.nan
    present = np.array([True, False, True])
    views = Views({"a": x, "b": np.ones((3, 2))}, VECTOR, "b", present={"a": present}, rows=np.array([7, 8, 9]))
    views.check_values()
    views.without("a").check_values()
    with pytest.raises(DataError, match="The array of 'a' must be finite. Got nan or inf in row 8"):
        views.replace("a", x, present=np.ones(3, bool)).check_values()


def test_words_are_numbers_of_the_vocabulary() -> None:
    spec = {"t": ModalitySpec("t", "text", (2,), lengths=True, vocabulary=4)}
    Views({"t": np.array([[0, 3], [1, 2]])}, spec, "t").check_values()
    for words, shown in (([[0, 1], [1, 4]], "1 to 4 in row 1"), ([[0, -1], [1, 2]], "-1 to 0 in row 0")):
        views = Views({"t": np.array(words)}, spec, "t")
        with pytest.raises(DataError, match=rf"The words of 't' must be numbers in \[0, 4\). Got {shown}"):
            views.check_values()
        views.replace("t", views["t"], present=np.zeros(2, bool)).check_values()


def test_no_rows_are_views_too() -> None:
    assert len(Views.of(primary="t", kinds={"t": "text"}, t=np.zeros((0, 3)))) == 0


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


def test_only_labelled_rows_are_scored() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(np.array(["no", "yes"], object), 30)
    X = Views.of(primary="a", a=rng.normal(size=(60, 2)) + 9 * (y == "yes")[:, None])
    method = transference.create("unimodal", schedule=Schedule(updates=40)).fit(X, y)
    some = y.copy()
    some[::2] = None
    assert method.score(X, y) == method.score(X, some) == 1.0
    some[1] = "yes"
    assert method.score(X, some) == pytest.approx(29 / 30)
    with pytest.raises(DataError, match="The number of labelled rows to score must be 1 or more"):
        method.score(X, np.full(60, None))
