"""What a control changes, and what it must leave as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from transference.core.errors import ConfigError, DataError
from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.corrupt import CONTROLS, Control, add_noise, control, drop, mispair, prompts

N = 400
SECONDARY = ("picture", "series", "words")


@pytest.fixture(scope="module")
def rows() -> Views:
    """Four modalities; each secondary one is absent in some rows, and sequences differ in length."""
    generator = np.random.default_rng(0)
    present = {name: generator.random(N) > 0.1 for name in SECONDARY}
    lengths = {name: generator.integers(2, 8, N) for name in ("series", "words")}
    arrays: dict[str, Any] = {
        "x": generator.normal(size=(N, 3)),
        "picture": generator.random((N, 1, 2, 2)) ** 2,
        "series": generator.normal((5, -5), (1, 3), size=(N, 7, 2)),
        "words": generator.choice([1, 2, 3], p=[0.7, 0.2, 0.1], size=(N, 7)),
    }
    for name, sizes in lengths.items():
        arrays[name][np.arange(7) >= sizes[:, None]] = 0
    for name, mask in present.items():
        arrays[name][~mask] = 0
    specs = {
        "x": ModalitySpec("x", "vector", (3,)),
        "picture": ModalitySpec("picture", "image", (1, 2, 2)),
        "series": ModalitySpec("series", "series", (7, 2), lengths=True),
        "words": ModalitySpec("words", "text", (7,), lengths=True, vocabulary=4),
    }
    values = {name: array.astype(np.float32) for name, array in arrays.items()}
    return Views(values, specs, "x", present=present, lengths=lengths)


def same(a: Views, b: Views, names: tuple[str, ...]) -> bool:
    return a.only(names, names[0]).fingerprint() == b.only(names, names[0]).fingerprint()


@pytest.mark.parametrize("kind", CONTROLS)
def test_only_the_secondary_named_changes(rows: Views, kind: Control) -> None:
    before = rows.fingerprint()
    damaged = control(rows, kind, 3, ["series", "words"])
    assert rows.fingerprint() == before
    assert same(damaged, rows, ("x", "picture"))
    for name in ("series", "words"):
        assert not np.array_equal(damaged[name], rows[name])
        assert damaged[name].dtype == rows[name].dtype
        assert np.isfinite(damaged[name]).all()
    assert control(rows, kind, 3, ["series", "words"]).fingerprint() == damaged.fingerprint()
    assert damaged.rows.tolist() == rows.rows.tolist()


@pytest.mark.parametrize("n", [2, 3, 50])
def test_shuffle_gives_every_row_another_one(n: int) -> None:
    number = np.arange(n, dtype=np.float32)[:, None]
    views = Views.of(primary="x", x=number, a=number, b=number * 10)
    for seed in range(20):
        damaged = control(views, "shuffle", seed, ["a", "b"])
        assert (damaged["a"] != number).all()
        assert sorted(damaged["a"][:, 0]) == list(range(n))
        assert np.array_equal(damaged["b"], damaged["a"] * 10)  # both from the same other row
        assert np.array_equal(damaged["x"], number)


def test_shuffle_takes_presence_and_length_along(rows: Views) -> None:
    damaged = control(rows, "shuffle", 0, SECONDARY)

    def whole(views: Views, k: int) -> tuple[Any, ...]:
        parts = [views[name][k].tobytes() + str(views.present[name][k]).encode() for name in SECONDARY]
        return (*parts, int(views.lengths["series"][k]), int(views.lengths["words"][k]))

    assert sorted(whole(damaged, k) for k in range(N)) == sorted(whole(rows, k) for k in range(N))
    assert sum(whole(damaged, k) == whole(rows, k) for k in range(N)) == 0


def test_noise_keeps_moments_presence_and_lengths(rows: Views) -> None:
    damaged = control(rows, "noise", 0, SECONDARY)
    for name in SECONDARY:
        assert np.array_equal(damaged.present[name], rows.present[name])
        assert not damaged[name][~rows.present[name]].any()
    for name in ("series", "words"):
        assert np.array_equal(damaged.lengths[name], rows.lengths[name])
        assert np.array_equal(damaged[name] != 0, rows[name] != 0)
    real = rows["series"][rows["series"][:, :, 0] != 0]
    drawn = damaged["series"][damaged["series"][:, :, 0] != 0]
    assert drawn.mean(0) == pytest.approx(real.mean(0), abs=0.2)
    assert drawn.std(0) == pytest.approx(real.std(0), rel=0.1)
    assert abs(np.corrcoef(real[:, 0], drawn[:, 0])[0, 1]) < 0.1
    picture = damaged["picture"][rows.present["picture"]]
    assert picture.min() >= 0
    assert picture.max() <= rows["picture"].max()
    share = (damaged["words"] == 1).sum() / (damaged["words"] > 0).sum()
    assert share == pytest.approx((rows["words"] == 1).sum() / (rows["words"] > 0).sum(), abs=0.05)


def test_noise_in_a_sequence_does_not_follow_its_steps() -> None:
    steps = np.tile(np.array([0, 10], np.float32)[None, :, None], (2000, 1, 1))  # every row goes from 0 to 10
    views = Views.of(primary="x", x=np.zeros((2000, 1)), s=steps)
    drawn = control(views, "noise", 0, ["s"])["s"][:, :, 0]
    assert drawn.mean(0) == pytest.approx([5, 5], abs=0.4)  # of the channel: mean 5, standard deviation 5
    assert drawn.std(0) == pytest.approx([5, 5], abs=0.4)


def test_constant_is_the_mean_of_the_rows_that_have_it() -> None:
    specs = {"x": ModalitySpec("x", "vector", (1,)), "s": ModalitySpec("s", "series", (3, 1), lengths=True)}
    x = np.zeros((3, 1), np.float32)
    s = np.array([[[1], [2], [0]], [[3], [4], [8]], [[0], [0], [0]]], np.float32)
    views = Views(
        {"x": x, "s": s},
        specs,
        "x",
        present={"s": np.array([True, True, False])},
        lengths={"s": np.array([2, 3, 3])},
    )
    damaged = control(views, "constant", 0, ["s"])
    # steps: (1 + 3) / 2, (2 + 4) / 2; the mean length 2.5 rounds to 2, so that the third step is cut
    assert damaged["s"][:, :, 0].tolist() == [[2, 3, 0], [2, 3, 0], [0, 0, 0]]
    assert damaged.lengths["s"].tolist() == [2, 2, 3]
    assert damaged.present["s"].tolist() == [True, True, False]


def test_constant_text_is_one_row(rows: Views) -> None:
    damaged = control(rows, "constant", 0, ["words"])
    seen = damaged["words"][rows.present["words"]]
    assert (seen == seen[0]).all()
    assert (rows["words"] == seen[0]).all(1).any()


def test_controls_refuse_what_they_can_not_do(rows: Views) -> None:
    with pytest.raises(ConfigError, match=r"no control 'shufle'\. Did you mean 'shuffle'\?"):
        control(rows, "shufle", 0, SECONDARY)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'x' is the primary one"):
        control(rows, "noise", 0, ["x"])
    with pytest.raises(DataError, match="There is no modality 'wrds'"):
        control(rows, "noise", 0, ["wrds"])
    with pytest.raises(DataError, match=r"rows to exchange must be 2 or more\. Got 1"):
        control(rows[:1], "shuffle", 0, SECONDARY)


def test_an_absent_modality_stays_absent(rows: Views) -> None:
    empty = rows.without("series")
    for kind in ("noise", "constant"):
        assert not control(empty, kind, 0, ["series"])["series"].any()  # type: ignore[arg-type]


def test_drop_is_nested_and_exact(rows: Views) -> None:
    had = rows.present["series"]
    few, many = drop(rows, "series", 0.2, 5), drop(rows, "series", 0.6, 5)
    assert had.sum() - few.present["series"].sum() == round(0.2 * had.sum())
    assert not (many.present["series"] & ~few.present["series"]).any()
    assert not few["series"][~few.present["series"]].any()
    assert same(few, rows, ("x", "picture", "words"))
    assert not drop(rows, "series", 1.0, 5).present["series"].any()
    with pytest.raises(ConfigError, match=r"share of rows must be a number in \[0, 1\]\. Got 1\.5"):
        drop(rows, "series", 1.5, 0)


@pytest.mark.parametrize(("share", "moved"), [(0, 0), (0.01, 2), (0.3, 15), (1.0, 50)])
def test_mispair_moves_exactly_a_share(share: float, moved: int) -> None:
    number = np.arange(50, dtype=np.float32)[:, None]
    damaged = mispair(Views.of(primary="x", x=number, a=number, b=-number), share, 1)
    assert (damaged["a"] != number).sum() == moved
    assert sorted(damaged["a"][:, 0]) == list(range(50))
    assert np.array_equal(damaged["b"], -damaged["a"])
    assert np.array_equal(damaged["x"], number)


def test_add_noise_has_the_level_asked_for(rows: Views) -> None:
    noisy = add_noise(rows, "series", 0.5, 0)
    real = rows["series"][..., 0] != 0
    added = (noisy["series"] - rows["series"])[real]
    assert added.std(0) == pytest.approx(0.5 * rows["series"][real].std(0), rel=0.1)
    assert not noisy["series"][~real].any()
    assert same(add_noise(rows, "series", 0, 0), rows, ("x", "series"))
    words = add_noise(rows, "words", 0.5, 0)["words"]
    assert np.array_equal(words > 0, rows["words"] > 0)
    assert 0.15 < (words != rows["words"]).sum() / (words > 0).sum() < 0.3  # half redrawn, of which .54 the same word
    with pytest.raises(ConfigError, match=r"noise level must be in \[0, 1\] for text\. Got 2"):
        add_noise(rows, "words", 2, 0)


def test_noise_of_images_is_cut_once() -> None:
    generator = np.random.default_rng(0)
    sparse = (generator.random((4000, 1, 3, 3)) < 0.1).astype(np.float32)  # most pixels lie at an end of the range
    views = Views.of(primary="x", x=np.zeros((4000, 1)), p=sparse)
    noisy = add_noise(views, "p", 0.5, 0)["p"]
    assert noisy.min() == 0
    assert noisy.max() == 1
    wanted = np.clip(sparse + 0.5 * sparse.std(0) * generator.standard_normal(sparse.shape), 0, 1)
    assert (noisy - sparse).std() == pytest.approx((wanted - sparse).std(), rel=0.02)
    assert (noisy - sparse).mean() == pytest.approx((wanted - sparse).mean(), rel=0.04)


def test_prompts_unrelated_to_the_row() -> None:
    labels = np.array(["cat", "dog", None, "bird"] * 100, object)
    related = prompts(labels, "a {label}", True, 0)
    unrelated = prompts(labels, "a {label}", False, 0)
    assert [text is None for text in unrelated] == [text is None for text in related] == (labels == None).tolist()  # noqa: E711
    hits = np.mean([a == b for a, b in zip(related, unrelated, strict=True) if a is not None])
    assert hits == pytest.approx(1 / 3, abs=0.08)  # neither the row's own class nor its opposite
    with pytest.raises(ConfigError, match=r"must be a text that holds \{label\} once"):
        prompts(labels, "a cat", True, 0)
