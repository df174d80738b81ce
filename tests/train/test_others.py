"""Other sets beside a method's own rows: which of their rows train, and that each set gets its own network back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from transference.core.batch import Batch
from transference.core.errors import ConfigError, DataError
from transference.core.method import Card
from transference.core.spec import DataSpec, ModalitySpec, TaskKind
from transference.core.views import Views
from transference.data.dataset import Dataset
from transference.data.loader import to_batch
from transference.nn.losses import supervised
from transference.nn.network import Network
from transference.train.loop import Stage
from transference.train.others import JointMethod, check_others, clear_of, read_others, seen_in
from transference.train.schedule import Schedule

torch.set_num_threads(1)

TASKS: frozenset[TaskKind] = frozenset({"classification", "regression"})
QUICK = Schedule(updates=6, batch_size=8, device="cpu")


def dataset(X: Views, y: Any, split: Any = None, name: str = "made") -> Dataset:
    labels = np.asarray(y) if np.asarray(y).dtype.kind == "f" else np.array(y, object)
    ids = np.array([f"{name}{k}" for k in range(len(X))], object)
    kind: TaskKind = "regression" if labels.dtype.kind == "f" else "classification"
    return Dataset(name, X, labels, kind, ids, None if split is None else np.array(split, object))


def vectors(n: int, d: int = 3, seed: int = 0, **more: Any) -> Views:
    return Views.of(primary="x", x=np.random.default_rng(seed).normal(size=(n, d)), **more)


def test_labelled_training_rows_that_have_something_are_read() -> None:
    X = vectors(6).replace("x", vectors(6)["x"], present=np.array([1, 1, 0, 1, 1, 1], bool))
    data = dataset(X, ["b", None, "a", "a", "b", "a"], ["train", "train", "train", "train", "test", "train"])
    other = read_others({"o": data}, TASKS, 0)["o"]
    assert other.rows.rows.tolist() == [0, 3, 5]
    assert other.rows.target is not None
    assert other.rows.target.tolist() == [1, 0, 0]
    assert other.spec.task.classes == ("a", "b")
    assert (other.spec.primary, other.name, len(other.views)) == ("x", "o", 3)
    assert other.target.tolist() == [1, 0, 0]


def test_values_are_read_with_mean_0_and_deviation_1() -> None:
    other = read_others({"o": dataset(vectors(4), np.array([1.0, 3.0, 5.0, np.nan], np.float32))}, TASKS, 0)["o"]
    assert other.rows.target is not None
    np.testing.assert_allclose(other.rows.target, np.array([-1.0, 0.0, 1.0]) * 1.5**0.5, rtol=1e-6)
    np.testing.assert_allclose(other.scale, [3.0, (8 / 3) ** 0.5], rtol=1e-6)
    np.testing.assert_array_equal(other.target, [1.0, 3.0, 5.0])


def test_a_named_set_is_read_with_its_modalities_and_its_budget() -> None:
    found = read_others({"b": {"set": "digits", "primary": "full", "secondary": ["coarse"], "budget": 3}}, TASKS, 0)
    other = found["b"]
    assert (other.spec.primary, set(other.spec.modalities)) == ("full", {"full", "coarse"})
    assert np.bincount(other.target).tolist() == [3] * 10
    again = read_others({"b": {"set": "digits", "primary": "full", "budget": 2}}, TASKS, 0)["b"]
    assert set(again.rows.rows.tolist()) < set(other.rows.rows.tolist())


def test_no_row_that_one_set_holds_out_trains_in_another() -> None:
    g = np.random.default_rng(0)
    images, words, steps = g.uniform(size=(6, 1, 4, 4)), np.ones((6, 2)), g.normal(size=(6, 5, 2))
    lengths = np.array([3, 3, 3, 3, 3, 3])
    kinds: Any = {"said": "text", "words": "text"}
    one = Views.of(primary="image", kinds=kinds, image=images, words=words, motion=steps)
    one = one.replace("motion", one["motion"], lengths=lengths)
    # the second set calls them otherwise, has two of the images, one of the motions in longer padding, and all words
    fresh = g.uniform(size=(5, 1, 4, 4))
    fresh[1], fresh[3] = images[5], images[0]
    moved = g.normal(size=(5, 9, 2))
    moved[2, :3] = steps[4, :3]
    two = Views.of(primary="photo", kinds=kinds, photo=fresh, said=words[:5], walk=moved)
    two = two.replace("walk", two["walk"], lengths=np.array([9, 9, 3, 9, 9]))
    first = dataset(one, list("ababab"), ["train"] * 4 + ["test"] * 2)
    found = read_others({"one": first, "two": dataset(two, list("abbab"))}, TASKS, 0)
    assert found["one"].rows.rows.tolist() == [0, 1, 2, 3]
    assert found["two"].rows.rows.tolist() == [0, 3, 4]  # image 0 trains in both
    absent = two.replace("photo", two["photo"], present=np.array([1, 0, 1, 1, 1], bool))
    assert seen_in(absent, [one[[4, 5]]]).tolist() == [False, False, True, False, False]
    left = clear_of(dataset(two, list("abbab"), ["train"] * 5), one[[0]])
    assert left.ids.tolist() == ["made0", "made1", "made2", "made4"]
    assert left.split is not None
    assert (len(left.views), len(left.y), len(left.split)) == (4, 4, 4)


def test_draws_are_without_replacement_and_from_the_global_generator() -> None:
    other = read_others({"o": dataset(vectors(9), list("abcabcabc"))}, TASKS, 0)["o"]
    torch.manual_seed(1)
    drawn = [other.draw(4).rows.tolist() for _ in range(50)]
    assert all(len(set(rows)) == 4 for rows in drawn)
    assert {row for rows in drawn for row in rows} == set(range(9))
    torch.manual_seed(1)
    assert other.draw(4).rows.tolist() == drawn[0]
    assert sorted(other.draw(64).rows.tolist()) == list(range(9))


def test_a_part_is_divided_off() -> None:
    other = read_others({"o": dataset(vectors(10), list("ab" * 5))}, TASKS, 0)["o"]
    less, part = other.divided(0.3, 0)
    assert (len(less.rows), len(part), len(less.views), len(less.target)) == (7, 3, 7, 7)
    assert sorted([*less.rows.rows.tolist(), *part.rows.tolist()]) == list(range(10))
    assert less.views.rows.tolist() == less.rows.rows.tolist()
    assert less.target.tolist() == [row % 2 for row in less.rows.rows.tolist()]
    assert part.rows.tolist() == other.divided(0.3, 0)[1].rows.tolist() != other.divided(0.3, 1)[1].rows.tolist()
    whole, same = other.divided(0.04, 0)
    assert len(whole.rows) == len(same) == 10


def test_what_it_is_given_is_checked() -> None:
    data = dataset(vectors(4), list("abab"))
    check_others({"o": data, "p": {"set": "mfeat"}}, "Joint")
    check_others(None, "Joint")
    for wrong, words in (
        (["mfeat"], "The 'others' parameter of Joint must be a mapping from names"),
        ({"a.b": data}, "A name in 'others' must be of letters, digits"),
        ({"o": "mfeat"}, "'o' in 'others' must be a Dataset or { set = "),
        ({"o": {"primary": "x"}}, "'o' in 'others' must be a Dataset or { set = "),
        ({"o": {"set": "mfeat", "budgets": 3}}, "'o' in 'others' has a key 'budgets'. Did you mean 'budget'?"),
    ):
        with pytest.raises(ConfigError) as raised:
            check_others(wrong, "Joint")
        assert words in str(raised.value)
    with pytest.raises(DataError, match="labelled training rows of 'o' in 'others' must be one or more"):
        read_others({"o": dataset(vectors(2), ["a", "b"], ["test", "test"])}, TASKS, 0)
    with pytest.raises(DataError, match="'o' in 'others' does not fit: The labels must be a task of this method"):
        read_others({"o": dataset(vectors(2), np.array([1.0, 2.0]))}, frozenset({"classification"}), 0)
    lacking = vectors(4, z=np.ones((4, 2))).without("z")
    with pytest.raises(DataError, match="No labelled training row of 'o' in 'others' has 'z'"):
        read_others({"o": dataset(lacking, list("abab"))}, TASKS, 0)


class Wide(Network):
    """A network whose `shared` part is as wide as the widest of all sets."""

    def __init__(self, spec: DataSpec, width: int, most: int) -> None:
        super().__init__(spec, [spec.primary], width)
        self.spec = spec
        self.shared = nn.Linear(most, width, bias=False)


class Joint(JointMethod):
    """The baseline, with a linear map of the raw primary modality that all sets share."""

    card = Card("A test.", "baltrusaitis2019", (1, None), frozenset({"labels"}), "primary", TASKS)

    def __init__(self, *, others: Any = None, width: int = 4, schedule: Schedule = QUICK, seed: int = 0) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.others = others

    def build(self, spec: DataSpec) -> Wide:
        specs: list[DataSpec] = [spec, *(other.spec for other in self.others_in_training.values())]
        return Wide(spec, self.width, max(each.modalities[each.primary].shape[0] for each in specs))

    def share(self, net: Wide, part: Wide) -> None:
        part.shared = net.shared

    def scores(self, net: Wide, batch: Batch) -> Tensor:
        x = batch.views[net.spec.primary]
        return net.head(net.encode(batch, net.spec.primary) + x @ net.shared.weight[:, : x.shape[1]].T)

    def losses(self, net: Wide, batch: Batch) -> dict[str, Tensor]:
        found = {"task": supervised(self.scores(net, batch), batch.target, net.spec.task)}
        for name, other in self.others_in_training.items():
            part: Any = net.others[name]  # type: ignore[index]
            rows = other.draw(self.schedule.batch_size)
            found[name] = supervised(self.scores(part, rows), rows.target, part.spec.task)
        return found

    def stages(self, net: Any) -> Any:
        def after(net: Any, done: int) -> None:
            if done == 6 and self.others_in_training:
                self.seen_ = {
                    name: (self.scores(net.others[name], other.rows).detach(), net.others[name].shared is net.shared)
                    for name, other in self.others_in_training.items()
                }

        (stage,) = super().stages(net)
        return (Stage(stage.name, stage.steps, after=after),)


def own_rows() -> tuple[Views, list[str]]:
    return vectors(12, 3, seed=1), ["a", "b", "c"] * 4


def others() -> dict[str, Dataset]:
    """A wider x of classes, and values; neither is what the own x is."""
    wide = vectors(20, 5, seed=2)
    return {
        "wide": dataset(wide.replace("x", 7 + 3 * wide["x"]), list("pq") * 10),
        "values": dataset(vectors(10, 2, seed=3), np.linspace(50, 90, 10).astype(np.float32)),
    }


def test_every_set_gets_its_network_back() -> None:
    X, y = own_rows()
    model = Joint(others=others()).fit(X, y)
    assert {name: list(value.shape) for name, value in model.net_.state_dict().items()} == {
        name: list(value.shape) for name, value in Joint().fit(X, y).net_.state_dict().items()
    }
    assert set(model.others_) == {"wide", "values"}
    for name, data in others().items():
        scores, tied = model.seen_[name]
        assert tied
        fitted = model.others_[name]
        expected = scores.softmax(1) if name == "wide" else 70 + data.y.std() * scores
        np.testing.assert_allclose(fitted.decide(data.views), expected, rtol=1e-5, atol=1e-5)
        assert fitted.others is None
        again = Joint().restore(fitted.spec_, fitted.net_.state_dict())
        np.testing.assert_array_equal(again.decide(data.views), fitted.decide(data.views))
    assert set(model.others_["wide"].predict(others()["wide"].views)) <= {"p", "q"}
    shared: Any = model.others_["wide"].net_
    assert torch.equal(shared.shared.weight[:, :3], model.net_.shared.weight)  # type: ignore[union-attr, arg-type]
    restored = Joint().restore(model.spec_, model.net_.state_dict())
    np.testing.assert_array_equal(restored.decide(X), model.decide(X))


def test_statistics_are_those_of_each_sets_rows() -> None:
    X, y = own_rows()
    model = Joint(others=others()).fit(X, y)
    for fitted, rows in ((model, X), (model.others_["wide"], others()["wide"].views)):
        net: Any = fitted.net_
        np.testing.assert_allclose(net.encoders["x"].mean, rows["x"].mean(0), rtol=1e-4, atol=1e-5)


def test_own_parts_start_as_they_would_alone_and_the_others_otherwise() -> None:
    X, y = own_rows()
    still = Schedule(updates=1, batch_size=8, learning_rate=1e-30, weight_decay=0.0, device="cpu")
    wide = others()["wide"]
    models = [Joint(others=given, schedule=still).fit(X, y) for given in (None, {"o": dataset(X, y)}, {"o": wide})]
    for name, value in models[0].net_.state_dict().items():
        assert torch.equal(value, models[1].net_.state_dict()[name])
        assert torch.equal(value, models[2].net_.state_dict()[name]) == (name != "shared.weight")
    copy: Any = models[1].others_["o"].net_
    assert not torch.equal(copy.head.weight, models[1].net_.head.weight)  # type: ignore[union-attr, arg-type]


def test_others_teach_what_is_shared_and_nothing_is_left_behind() -> None:
    X, y = own_rows()
    x = vectors(20, 3, seed=5)
    one, two = (Joint(others={"o": dataset(x, list(labels))}).fit(X, y) for labels in ("ab" * 10, "aabb" * 5))
    assert not torch.equal(one.net_.shared.weight, two.net_.shared.weight)  # type: ignore[union-attr, arg-type]
    assert one.others_in_training == {}
    assert not hasattr(one.net_, "others")
    net: Any = one.net_
    assert set(one.losses(net, to_batch(X, np.arange(12) % 3))) == {"task"}
    assert set(one.history_) == {"update", "task", "o"}


def test_a_set_may_be_called_what_a_module_has_and_modalities_too() -> None:
    X, y = own_rows()
    g = np.random.default_rng(0)
    data = Dataset(
        "keys",
        Views(
            {"keys": g.normal(size=(8, 2)).astype(np.float32)}, {"keys": ModalitySpec("keys", "vector", (2,))}, "keys"
        ),
        np.array(list("ab") * 4, object),
        "classification",
        np.arange(8).astype(str),
    )
    model = Joint(others={"keys": data, "x": data}).fit(X, y)
    assert model.others_["keys"].predict(data.views).shape == model.others_["x"].predict(data.views).shape == (8,)
