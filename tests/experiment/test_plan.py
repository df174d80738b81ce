"""Which cells a study has, what their hashes depend on, and what is refused before training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_study import small_config, small_data

from transference.core.errors import ConfigError
from transference.core.records import Cell, cell_hash
from transference.data.dataset import Dataset
from transference.data.split import split_rows
from transference.experiment.config import Config
from transference.experiment.plan import budget_of, fingerprint, leaks, plan
from transference.experiment.protocol import classes, rows_of
from transference.experiment.setting import setting_of


def refused(data: Dataset | None = None, **changes: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        plan(small_config(**changes), small_data() if data is None else data)
    return str(raised.value)


def test_controls_are_planned_where_a_secondary_modality_is_used() -> None:
    config = small_config(study={"seeds": [7], "budgets": ["all"], "controls": ["shuffle", "noise"]})
    assert [(cell.arm, cell.control) for cell in plan(config, small_data())] == [
        ("unimodal", None),
        ("small_study:Means", None),
        ("small_study:Means", "shuffle"),
        ("small_study:Means", "noise"),
    ]


def test_a_budget_by_class_becomes_a_name_and_back() -> None:
    budget = {"d0": 1, "d1": 2, "d2": 1, "d3": 1}
    config = small_config(study={"seeds": 1, "budgets": [budget]})
    cells = plan(config, small_data())
    assert {cell.budget for cell in cells} == {"d0=1, d1=2, d2=1, d3=1"}
    assert budget_of(cells[0], config) == budget


CELL = Cell("unimodal", "unimodal", {"width": 8}, None, 0, 2)


def hashed(cell: Cell, config: Config, data: str) -> str:
    return cell_hash(cell, setting_of(cell, config), data)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"budget": "all"},
        {"control": "shuffle"},
        {"parameters": {"width": 16}},
        {"method": "fusion.early"},
        {"arm": "narrow"},
    ],
)
def test_the_hash_changes_with_the_cell(change: dict[str, Any]) -> None:
    config = small_config()
    assert hashed(replace(CELL, **change), config, "f") != hashed(CELL, config, "f")


def test_the_hash_changes_with_schedule_test_share_and_data_and_with_nothing_else() -> None:
    base = hashed(CELL, small_config(), "f")
    for other in (
        {"name": "another"},
        {"study": {"seeds": 9, "metric": "auroc", "workers": 2, "controls": []}},
        {"arms": {"unimodal": {"width": 8}}},
        {"schedule": {"device": "cpu", "updates": 20}},
    ):
        assert hashed(CELL, small_config(**other), "f") == base
    for other in ({"schedule": {"updates": 21, "device": "cpu"}}, {"data": {"set": "small", "test": 0.3}}):
        assert hashed(CELL, small_config(**other), "f") != base
    assert hashed(CELL, small_config(), "g") != base
    assert set(base) <= set("0123456789abcdef")
    assert len(base) == 32


def test_the_fingerprint_follows_rows_labels_split_and_groups() -> None:
    data = small_data()
    y, split, group = data.y.copy(), np.full(len(data), "train", object), np.full(len(data), "g", object)
    y[0] = None
    changed = [
        replace(data, y=y),
        replace(data, split=split),
        replace(data, group=group),
        replace(data, views=data.views.replace("fine", data.views["fine"] + 1)),
    ]
    assert len({fingerprint(each) for each in [data, *changed]}) == 5
    assert fingerprint(small_data()) == fingerprint(replace(data, name="another"))


def test_misfits_are_refused_all_at_once() -> None:
    message = refused(
        replace(small_data(), views=small_data().views.only(["coarse"])),
        study={"seeds": 5, "budgets": [2, 100, {"d0": 1}], "metric": "mae"},
    )
    assert "4 faults" in message
    assert "The metric 'mae' is not for classification. Choose one of 'accuracy', 'auroc', 'macro_f1', " in message
    assert "The arm 'small_study:Means' needs 2 modalities, and the data have 1." in message
    assert message.count("Budget '100': ") == 1
    assert "Budget 'd0=1': A label budget by class must be given for exactly the classes" in message


def test_a_task_that_a_method_can_not_do_is_refused() -> None:
    data = replace(small_data(), y=np.arange(160, dtype=np.float32), task="regression")
    assert "The arm 'small_study:Means' can not do regression: small_study:Means is for classification." in refused(
        data
    )
    several = replace(small_data(), y=np.zeros((160, 2), np.float32), task="multilabel")
    assert "The labels of 'small' must be classes or single values in a study. Got 'multilabel'" in refused(several)


def test_an_arm_that_would_learn_from_the_test_rows_through_another_door_is_refused() -> None:
    def arms(name: str) -> dict[str, Any]:
        return {"unimodal": {}, "transfer.highmmt": {"others": {"more": {"set": name}}}}

    wording = "also learns from 'more', the set of this study, which is split anew for each seed"
    assert wording in refused(arms=arms("small"))
    assert plan(small_config(arms=arms("digits")), small_data())
    data = small_data()
    split = np.where(np.arange(len(data)) % 4, "train", "test").astype(object)
    assert plan(small_config(arms=arms("small")), replace(data, split=split))  # whose test rows are known, and left out


def test_no_row_with_two_modalities_is_refused_where_a_method_cannot_do_without() -> None:
    data = small_data()
    data = replace(data, views=data.views.without("fine"))
    assert "learns from rows with two modalities, and no row has two" in refused(data)
    alone = {"unimodal": {}, "transfer.generalist": {}}  # uses pairs where there are some
    assert {cell.arm for cell in plan(small_config(arms=alone), data)} == set(alone)


def test_an_unknown_test_label_and_a_divided_group_are_refused() -> None:
    data = small_data()
    split = np.where(np.arange(len(data)) < 120, "train", "test").astype(object)
    y = data.y.copy()
    y[130] = "d9"
    group = np.array([f"g{k // 50}" for k in range(len(data))], object)
    message = refused(replace(data, y=y, split=split, group=group))
    assert message.count("The test rows have labels that no training row has: 'd9'. Add training rows with") == 1
    assert "1 values of the group are in training and test rows: 'g2'. Put each into one split." in message


def test_an_area_under_the_curve_of_test_rows_of_one_class_is_refused() -> None:
    data = small_data()
    split = np.where((np.arange(160) < 120) | (data.y != "d1"), "train", "test").astype(object)
    one_class = replace(data, split=split)
    message = refused(one_class, study={"seeds": 3, "metric": "auroc"})
    assert message.count("The metric 'auroc' needs two classes or more among the test rows, and those of seed 0") == 1
    assert "hold 'd1' alone. Choose another metric" in message
    split[0] = "test"
    for fitting, metric in ((replace(data, split=split), "auroc"), (one_class, "macro_f1")):
        assert plan(small_config(study={"seeds": 3, "metric": metric}), fitting)


def test_leaks_of_every_seed_are_found() -> None:
    data = small_data()
    assert leaks(data, small_config()) == []
    order = np.arange(160)
    order[3] = 4  # rows 3 and 4 are the same
    twins = replace(data, views=data.views.take(order), y=data.y[order])
    divided = [seed for seed in range(40) if len({3, 4} & set(split_rows(twins, seed).test.tolist())) == 1]
    together = [seed for seed in range(40) if seed not in divided]
    assert divided[2:]
    one = leaks(twins, small_config(study={"seeds": [together[0], divided[0]]}))
    assert len(one) == 1
    assert one[0].startswith(f"Seed {divided[0]}: 1 test row holds the same 'coarse' as a training row")
    more = leaks(twins, small_config(study={"seeds": [divided[1], together[0], divided[2], divided[0]]}))
    assert more[0].startswith(f"Seed {divided[1]}: ")
    assert more[1:] == [f"The splits of other seeds leak too: {divided[2]}, {divided[0]}."]
    fixed = replace(twins, split=np.where(np.arange(160) % 4 == 0, "test", "train").astype(object))
    assert [message[:10] for message in leaks(fixed, small_config())] == ["1 test row"]


def test_test_rows_without_the_primary_modality_are_left_out() -> None:
    data = small_data()
    tested = rows_of(small_config(), data, 0).test
    lacking = tested[:3]
    present = np.ones(len(data), bool)
    present[lacking] = False
    views = data.views.replace("coarse", data.views["coarse"] * present[:, None], present=present)
    assert (
        len(rows_of(small_config(), replace(data, views=views), 0).test)
        == len(rows_of(small_config(), data, 0).test) - 3
    )
    absent = np.zeros(len(data), bool)
    nowhere = replace(data, views=data.views.replace("coarse", data.views["coarse"] * 0, present=absent))
    assert "No test row of seed 0 has the primary modality 'coarse'." in refused(nowhere)


def test_classes_are_sorted_and_regression_has_none() -> None:
    assert classes(small_data()) == ["d0", "d1", "d2", "d3"]
    assert classes(replace(small_data(), y=np.ones(160, np.float32), task="regression")) == []
