"""Retrieval, zero-shot classes, episodes and generation as tasks of a study: rows, refusals, and whole runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from small_study import small_config, small_data

from transference.core.errors import ConfigError
from transference.core.method import Card, Method
from transference.core.records import RunRecord
from transference.core.views import Views
from transference.experiment.plan import plan
from transference.experiment.protocol import descriptions, rows_of
from transference.experiment.publish import publish
from transference.experiment.runner import run
from transference.experiment.store import Store

ARM = "test_protocol:Ridge"
NEW = {"kind": "zero_shot", "unseen": ["d2", "d3"]}


class Ridge(Method):
    """A ridge map from the primary modality to each other one; where there are labels, class means too."""

    card: ClassVar[Card] = Card(
        summary="A test's method.",
        reference="none",
        modalities=(2, None),
        needs=frozenset({"labels", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "unsupervised", "retrieval", "zero_shot", "few_shot", "generation"}),
    )
    seen: ClassVar[list[tuple[str, int]]] = []

    def __init__(self, *, penalty: float = 1.0) -> None:
        self.penalty = penalty

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        Ridge.seen.append((self.spec_.task.kind, int((target >= 0).sum())))
        x = self._ones(X)
        inverse = np.linalg.inv(x.T @ x + self.penalty * np.eye(x.shape[1]))
        self.maps_ = {name: inverse @ x.T @ X[name] for name in X.secondary}

    def _ones(self, X: Views) -> NDArray[Any]:
        return np.hstack([X[self.spec_.primary], np.ones((len(X), 1))])

    def decide(self, X: Views) -> NDArray[Any]:
        return np.full((len(X), self.spec_.task.outputs), 1 / self.spec_.task.outputs)

    def embed(self, X: Views) -> dict[str, NDArray[Any]]:
        return {name: X[name] for name in X.names}

    def match(self, X: Views, candidates: Views) -> NDArray[Any]:
        (name,) = candidates.names
        return -np.square(self.generate(X, name)[:, None] - candidates[name]).sum(2)

    def generate(self, X: Views, name: str) -> NDArray[Any]:
        return self._ones(X) @ self.maps_[name]


def study(task: dict[str, Any], tmp_path: Path, arms: dict[str, Any] | None = None, **of_study: Any) -> list[RunRecord]:
    config = small_config(
        task=task,
        study={"seeds": 2, "budgets": ["all"], "controls": ["shuffle"], "baseline": ARM, **of_study},
        arms=arms or {ARM: {}},
    )
    folder = run(config, folder=tmp_path, data=small_data())
    summary = publish(folder)
    assert not summary["failed"], summary["failed"]
    assert summary["task"]["kind"] == task["kind"]
    assert (folder / "report.html").read_text().count("<h2") > 2
    return sorted(Store(folder).records(), key=lambda record: (record.cell.control or "", record.cell.seed))


def value(record: RunRecord, name: str, **of: str) -> float:
    (found,) = [f for f in record.findings if f.name == name and of.items() <= dict(f.of).items()]
    return found.value


def test_retrieval_is_learned_from_pairs_and_lost_when_they_are_shuffled(tmp_path: Path) -> None:
    whole, _, shuffled, _ = study({"kind": "retrieval", "to": "fine"}, tmp_path, budgets=[0])
    assert value(whole, "recall_at_10", to="fine") > 0.6
    assert value(shuffled, "recall_at_10", to="fine") < 0.4
    assert value(whole, "recall_at_10", to="coarse") > 0.6
    assert whole.rows == {"labelled": 0, "unlabelled": 120, "test": 40}
    assert whole.task["metric"] == "recall_at_10"


def test_the_retrieval_metric_is_the_one_of_the_findings(tmp_path: Path) -> None:
    study({"kind": "retrieval"}, tmp_path, metric="map")
    summary = json.loads((tmp_path / "small" / "summary.json").read_text())
    (entry,) = [each for each in summary["entries"] if each["control"] is None]
    records = Store(tmp_path / "small").records()
    found = [value(r, "map", to="fine") for r in records if r.cell.control is None]
    assert entry["mean"] == pytest.approx(np.mean(found), rel=1e-5)


def test_labels_are_given_to_arms_that_can_use_them(tmp_path: Path) -> None:
    Ridge.seen.clear()
    study({"kind": "generation"}, tmp_path, budgets=[0, 2], controls=[], seeds=1)
    assert Ridge.seen == [("unsupervised", 0), ("classification", 8)]


def test_generation_leaves_less_unexplained_than_when_rows_are_shuffled(tmp_path: Path) -> None:
    whole, _, shuffled, _ = study({"kind": "generation", "to": "fine"}, tmp_path)
    assert value(whole, "unexplained") < 0.8 < 0.95 < value(shuffled, "unexplained")
    assert whole.task["metric"] == "unexplained"


def test_new_classes_are_told_apart_by_their_descriptions(tmp_path: Path) -> None:
    tree = {"d0": "low", "d1": "low", "d2": "high", "d3": "high"}
    whole, _, shuffled, _ = study({**NEW, "tree": tree}, tmp_path)
    assert value(whole, "accuracy") > 0.75 > value(shuffled, "accuracy")
    assert 1 > value(whole, "hierarchical", k="2", among="all") > value(whole, "open_unseen")
    predictions = Store(tmp_path / "small").predictions(whole.hash)
    y = small_data().y[predictions.rows]
    assert sorted(set(y)) == ["d2", "d3"]
    assert [["d2", "d3"][k] for k in predictions.target] == y.tolist()
    assert (predictions.scores.argmax(1) == predictions.target).mean() == pytest.approx(value(whole, "accuracy"))
    assert {f.name for f in whole.findings} >= {"open_seen", "open_unseen", "harmonic", "open_area", "trade_off"}


def test_no_row_of_a_new_class_trains() -> None:
    data = small_data()
    for kind in ("zero_shot", "few_shot"):
        split = rows_of(small_config(task={**NEW, "kind": kind, "way": 2}), data, 0)
        assert set(data.y[split.train]) == {"d0", "d1"}
        assert set(data.y[split.test]) == ({"d2", "d3"} if kind == "few_shot" else {"d0", "d1", "d2", "d3"})
    assert set(data.y[rows_of(small_config(), data, 0).train]) == {"d0", "d1", "d2", "d3"}


def test_episodes_are_the_same_for_every_arm_and_a_row_counts_once(tmp_path: Path) -> None:
    new = {"kind": "few_shot", "unseen": ["d1", "d3"]}
    task = {**new, "way": 2, "shot": 2, "queries": 5, "episodes": 30}
    records = study(task, tmp_path, {ARM: {}, "unimodal": {"width": 8}}, baseline="unimodal", controls=[])
    store = Store(tmp_path / "small")
    for seed in (0, 1):
        one, other = (store.predictions(record.hash) for record in records if record.cell.seed == seed)
        assert (one.rows == other.rows).all()
        assert (one.target == other.target).all()
        assert one.scores.shape == (30 * 2 * 5, 2)
    assert all(value(record, "accuracy") > 0.65 for record in records if record.cell.arm == ARM)
    summary = json.loads((tmp_path / "small" / "summary.json").read_text())
    (entry,) = [each for each in summary["entries"] if each["arm"] == ARM]
    assert entry["gain"] is not None


def refused(task: dict[str, Any], data: Any = None, **changes: Any) -> str:
    given = {"study": {"seeds": 1, "baseline": ARM}, "arms": {ARM: {}}} | changes
    with pytest.raises(ConfigError) as raised:
        plan(small_config(task=task, **given), data or small_data())
    return str(raised.value)


def test_what_a_task_can_not_be_asked_is_refused() -> None:
    told = refused({"kind": "zero_shot", "unseen": ["d9"], "to": "fne"})
    assert "'unseen' in [task]: there is no class 'd9'. Choose one of 'd0', 'd1', 'd2', 'd3'." in told
    assert "The number of classes of 'unseen' in [task] must be 2 or more. Got 1 instead." in told
    assert "'to' in [task]: there is no secondary modality 'fne'. Did you mean 'fine'?" in told
    told = refused({**NEW, "tree": {"d0": "low", "low": "digit", "high": "low", "d7": "high"}})
    assert "'tree' in [task]: 'd7' is no class, and above none. Choose one of 'd0', 'd1', 'd2', 'd3'." in told
    assert "The parents of 'd0' in the tree lead back to 'd0'" in refused({**NEW, "tree": {"d0": "low", "low": "d0"}})
    assert "leaves fewer than two classes" in refused({**NEW, "unseen": ["d0", "d2", "d3"]})
    assert "must be 5 or more. Got 2 instead." in refused({**NEW, "kind": "few_shot"})
    assert "'unseen' in [task] is for few_shot and zero_shot, not for retrieval." in refused(
        {**NEW, "kind": "retrieval"}
    )
    assert "'kind' in [task] must be classification" in refused({"kind": "regression"})
    alone = replace(small_data(), views=small_data().views.only(["coarse"]))
    assert "retrieval needs a second modality." in refused({"kind": "retrieval"}, alone)
    plain = {"arms": {"unimodal": {}}, "study": {"seeds": 1}}
    assert "The arm 'unimodal' can not do retrieval: unimodal is for" in refused({"kind": "retrieval"}, **plain)
    told = refused({}, study={"seeds": 1, "budgets": [0], "baseline": ARM})
    assert "A budget of 0 labels can not teach classification." in told
    blind = {"arms": {"unimodal": {}}, "study": {"seeds": 1, "budgets": [0]}}
    told = refused({**NEW, "kind": "few_shot", "way": 2}, **blind)
    assert "The arm 'unimodal' can not do few_shot without labels" in told
    wrong = {"arms": {ARM: {}}, "study": {"seeds": 1, "baseline": ARM, "metric": "mae"}}
    assert "The metric 'mae' is not for zero_shot. Choose one of 'accuracy'." in refused(NEW, **wrong)


@pytest.mark.parametrize("seeds", [1, 3])
def test_what_no_test_row_can_be_asked_is_refused_once(seeds: int) -> None:
    data, study = small_data(), {"study": {"seeds": seeds, "baseline": ARM}}
    fourth, new = np.arange(160) % 4 == 0, np.isin(data.y, NEW["unseen"])

    def faults(task: dict[str, Any], tested: Any = None, **changed: Any) -> list[str]:
        split = None if tested is None else np.where(tested, "test", "train").astype(object)
        return refused(task, replace(data, split=split, **changed), **study).splitlines()[1:]

    few = {**NEW, "kind": "few_shot", "way": 2}
    (told,) = faults({**few, "shot": 3, "queries": 30})
    assert "The number of test classes with 3 whole rows and 30 more must be 2 or more. Got 0 instead. Ask for" in told
    (told,) = faults(few, fourth & ~new)
    assert "classes with 1 whole rows and 10 more must be 2 or more" in told
    told = faults(NEW, fourth | new)
    assert [line[5:] for line in told] == [
        f"The rows with 'fine' that describe the class '{name}' must be 1 or more. Got 0 instead. "
        "Add some, or describe the classes by another modality."
        for name in ("d2", "d3")
    ]
    (told,) = faults(NEW, fourth & ~new)
    assert "test rows of the classes of 'unseen' in [task] must be 1 or more. Got 0 instead. Add some." in told
    without = data.views.replace("fine", data.views["fine"], present=~fourth)
    (told,) = faults({"kind": "retrieval"}, fourth, views=without)
    assert "The number of test rows with 'coarse' and 'fine' must be 1 or more. Got 0 instead. Add rows with" in told
    (told,) = faults({"kind": "generation"}, fourth, views=without)
    assert "The number of test rows with 'fine' must be 1 or more. Got 0 instead. Add rows with 'fine'." in told
    same = data.views.replace("fine", np.ones_like(data.views["fine"]))
    (told,) = faults({"kind": "generation"}, views=same)
    assert "The rows of 'fine' to compare with must be different. Got all the same instead." in told
    told = faults({"kind": "retrieval"}, views=data.views.without("coarse"))
    assert "\n".join(told).count("has the primary modality 'coarse'.") == 1


def test_a_lack_that_differs_from_seed_to_seed_is_told_once() -> None:
    data, task = small_data(), {**NEW, "kind": "few_shot", "way": 2, "shot": 6, "queries": 1}
    half = data.views.replace("fine", data.views["fine"], present=np.random.default_rng(0).random(160) < 0.5)
    found = []
    for seeds in ([0], [1], [2], [3], [0, 1, 2, 3]):
        study = {"seeds": seeds, "baseline": ARM}
        (told,) = refused(task, replace(data, views=half), study=study).splitlines()[1:]
        found.append(told.partition("Got ")[2][0])
    assert set(found) == {"0", "1"}
    assert found[-1] == found[0]


def test_what_can_be_asked_is_planned() -> None:
    for task in (
        NEW,
        {**NEW, "kind": "few_shot", "way": 2, "queries": 5},
        {"kind": "retrieval"},
        {"kind": "generation"},
    ):
        assert plan(small_config(task=task, study={"seeds": 2, "baseline": ARM}, arms={ARM: {}}), small_data())


def test_a_key_that_the_task_does_not_read_is_refused() -> None:
    told = refused({"to": "fine", "way": 5})
    assert "'to' in [task] is for generation and retrieval and zero_shot, not for classification. Leave it out." in told
    assert "'way' in [task] is for few_shot, not for classification. Leave it out." in told
    for kind in ("retrieval", "generation", "zero_shot"):
        new = {"unseen": NEW["unseen"]} if kind == "zero_shot" else {}
        told = refused({"kind": kind, **new, "way": 2, "shot": 1, "queries": 5, "episodes": 9})
        assert [line.split("'")[1] for line in told.splitlines()[1:]] == ["episodes", "queries", "shot", "way"]
        assert told.count(f" in [task] is for few_shot, not for {kind}. Leave it out.") == 4
    told = refused({**NEW, "kind": "few_shot", "way": 2, "to": "fne"}).splitlines()
    assert told[1:] == [
        "  1. 'to' in [task] is for generation and retrieval and zero_shot, not for few_shot. Leave it out."
    ]


def test_a_task_says_in_which_modality_classes_are_described() -> None:
    data = small_data()
    both = Views.of(primary="coarse", halves=data.views["fine"][:, :32], **data.views.arrays)
    for to, expected in (("halves", "halves"), ("fine", "fine"), (None, "fine")):
        config = small_config(task=NEW if to is None else {**NEW, "to": to})
        found = descriptions(config, replace(data, views=both), 0)
        assert {rows.names for rows in found.values()} == {(expected,)}
    lacking = both.replace("fine", both["fine"], present=data.y != "d3")
    told = refused(NEW, replace(data, views=lacking))
    assert "The rows with 'fine' that describe the class 'd3' must be 1 or more." in told
    config = small_config(task={**NEW, "to": "halves"}, study={"seeds": 1, "baseline": ARM}, arms={ARM: {}})
    assert plan(config, replace(data, views=lacking))


def test_another_question_makes_another_cell(tmp_path: Path) -> None:
    one, *_ = study(NEW, tmp_path / "one", controls=[])
    other, *_ = study({**NEW, "unseen": ["d0", "d3"]}, tmp_path / "two", controls=[])
    assert one.hash != other.hash
