"""What a study's summary says, from made-up predictions."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from small_studies import Study, answers, fill, values

from transference.core.errors import DataError
from transference.core.records import Finding, Predictions
from transference.core.registry import find, names
from transference.report.summary import POINTS, summarise


def _entry(summary, arm, control=None, budget=2):
    found = [e for e in summary["entries"] if (e["arm"], e["control"], e["budget"]) == (arm, control, budget)]
    assert len(found) == 1
    return found[0]


def _planted(seed=0, gain=0.0, kept=0.0, arms=("transfer.distillation",), controls=("shuffle",), n=200, seeds=5):
    """A study whose arms gain `gain` (log odds) over unimodal, and `kept` under every control."""
    rng = np.random.default_rng(seed)
    study = Study(primary="audio", secondary=["text"])
    hard = rng.normal(0, 1, n)
    cells = [("unimodal", None, 0.0), ("induction.self_training", None, 0.0)]
    cells += [(arm, control, kept if control else gain) for arm in arms for control in (None, *controls)]
    for arm, control, shift in cells:
        for s in range(seeds):
            right = rng.logistic(size=n) < 0.3 + hard + shift + rng.normal(0, 0.15)
            study.add(arm, s, answers(right), control=control)
    return study


def _summary(study):
    return summarise(study.records, study.predictions)


def test_gains_by_hand():
    study = Study()
    for seed in (0, 1):
        study.add("unimodal", seed, answers([1, 0, 0, 0, 1, 1]))
        study.add("transfer.distillation", seed, answers([1, 1, 1, 0, 1, 1]))
        study.add("transfer.distillation", seed, answers([1, 1, 0, 0, 1, 1]), control="shuffle")
        study.add("transfer.distillation", seed, answers([0, 0, 0, 0, 1, 1]), control="noise")
    found = _entry(_summary(study), "transfer.distillation")
    assert found["mean"] == pytest.approx(5 / 6)
    assert found["gain"] == found["gain_semi"] == pytest.approx(1 / 3)
    assert found["gain_low"] == pytest.approx(1 / 3 - 2.5706 * 0.21082, abs=1e-4)
    assert found["transferred"] == pytest.approx(1 / 6)
    assert found["best_control"] == "shuffle"
    assert found["n_seeds"] == found["gain_seeds"] == 2
    assert found["scores"] == {"0": pytest.approx(5 / 6), "1": pytest.approx(5 / 6)}


def test_positive_is_better_where_less_is_better():
    study = Study("mae")
    for seed in (0, 1):
        study.add("unimodal", seed, values([0.5, 0.7]))
        study.add("transfer.distillation", seed, values([0.2, 0.4]))
        study.add("colearning.fusion.zero_fill", seed, values([0.9, 1.1]))
    summary = _summary(study)
    assert _entry(summary, "transfer.distillation")["mean"] == pytest.approx(0.3)
    assert _entry(summary, "transfer.distillation")["gain"] == pytest.approx(0.3)
    assert _entry(summary, "colearning.fusion.zero_fill")["gain"] == pytest.approx(-0.4)


def test_only_seeds_that_both_arms_finished_are_paired():
    study = Study()
    for seed, right in enumerate(([1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1])):
        study.add("unimodal", seed, answers(right))
    study.add("transfer.distillation", 0, answers([1, 1, 1, 0]))
    study.add("transfer.distillation", 1, answers([1, 1, 1, 0]))
    lost = study.add("transfer.distillation", 2, None, status="diverged", error="The loss became nan.")
    summary = _summary(study)
    found = _entry(summary, "transfer.distillation")
    assert (found["n_seeds"], found["n_failed"], found["gain_seeds"]) == (2, 1, 2)
    assert found["gain"] == pytest.approx((0.25 + 0.5) / 2)
    assert [(each["hash"], each["status"], each["error"]) for each in summary["failed"]] == [
        (lost, "diverged", "The loss became nan.")
    ]
    assert any("transfer.distillation" in note and "seeds that finished" in note for note in summary["notes"])


def test_an_arm_that_never_finished_has_an_empty_entry():
    study = Study()
    study.add("unimodal", 0, answers([1, 0]))
    study.add("fusion.late", 0, None, status="failed", error="boom")
    found = _entry(_summary(study), "fusion.late")
    assert (found["mean"], found["gain"], found["n_seeds"], found["n_failed"]) == (None, None, 0, 1)


def test_lost_or_broken_predictions_are_failures_in_plain_sight():
    study = Study("auroc")
    study.add("unimodal", 0, answers([1, 0, 1, 1]))
    gone = study.add("a", 0, answers([1, 1, 1, 1]), method="transfer.distillation")
    del study.predictions[gone]
    broken = answers([1, 1, 1, 1])
    broken.scores[0, 0] = np.nan
    study.add("b", 0, broken, method="transfer.distillation")
    one_class = Predictions(np.arange(2), np.zeros(2, np.int64), np.full((2, 2), 0.5, np.float32))
    study.add("c", 0, one_class, method="transfer.distillation")
    failed = {each["arm"]: (each["status"], each["error"]) for each in _summary(study)["failed"]}
    assert failed["a"][0] == "no_predictions"
    assert "run the study again" in failed["a"][1]
    assert failed["b"] == failed["c"] == ("no_score", "Its predictions give no finite auroc.")


def test_arms_that_read_everything_at_test_are_marked_and_never_win():
    study = _planted(gain=0.0)
    for seed in range(5):
        study.add("fusion.late", seed, answers(np.ones(200)))
    summary = _summary(study)
    assert _entry(summary, "fusion.late")["needs_all_at_test"]
    assert _entry(summary, "fusion.late")["gain"] > 0.3
    assert _entry(summary, "fusion.late")["p_semi_adjusted"] is None
    assert summary["outcome"] == "nothing"
    assert "fusion.late" not in summary["verdict"]


OF_A_FAMILY = {"fusion": "bound", "colearning": "competes", "transfer": "competes", "induction": "competes"}
NOT_AS_THEIR_FAMILY = dict.fromkeys(
    ("unimodal", "induction.self_training", "transfer.frozen_transformer", "transfer.prompt"), "reference"
) | dict.fromkeys(
    ("induction.agent_co_training", "induction.debate", "transfer.adaptation_gate", "transfer.highmmt"), "bound"
)


def test_the_card_of_every_method_says_what_it_is_for():
    study = Study()
    for name in names():
        card = find(name).card
        study.add(name, 0, answers([1, 0]), card={"at_test": card.at_test, "needs": sorted(card.needs)})
    found = {
        entry["arm"]: "bound" if entry["needs_all_at_test"] else "reference" if entry["primary_only"] else "competes"
        for entry in _summary(study)["entries"]
    }
    assert found == {name: NOT_AS_THEIR_FAMILY.get(name) or OF_A_FAMILY[name.partition(".")[0]] for name in names()}


def test_methods_of_other_packages_are_judged_by_their_cards():
    study = Study(primary="audio", secondary=["text"])
    fill(study, "unimodal", 0.6)
    fill(study, "transfer.distillation", 0.7)
    fill(study, "mine:Late", 0.95, card={"at_test": "all", "needs": ["labels", "paired"]})
    found = _summary(study)
    assert found["outcome"] == "helps"
    assert found["verdicts"][0]["arm"] == "transfer.distillation"
    fill(study, "mine:Trees", 0.8, card={"at_test": "primary", "needs": ["labels"]})
    found = _summary(study)
    assert _entry(found, "transfer.distillation")["reference"] == "mine:Trees"
    assert found["outcome"] == "nothing"
    cardless = [replace(record, card={}) for record in study.records]
    with pytest.raises(DataError, match=r"The record 00000000 does not say what its method needs. Run the study again"):
        summarise(cardless, study.predictions)


def test_a_stronger_learner_on_the_primary_is_not_the_fault_of_the_secondary():
    study = Study(primary="audio", secondary=["text"])
    fill(study, "unimodal", 0.61)
    fill(study, "logistic", 0.79, method="unimodal")
    fill(study, "transfer.distillation", 0.67)
    fill(study, "transfer.distillation", 0.58, control="shuffle")
    found = _summary(study)
    assert found["outcome"] == "nothing"
    assert "no arm that uses text reaches logistic, the strongest arm on audio alone (accuracy 7" in found["verdict"]
    assert " against it, gains +" in found["verdict"]


@pytest.mark.parametrize("lost", [(4,), (0, 1, 2, 3, 4)])
def test_lost_control_cells_do_not_turn_regularisation_into_help(lost):
    study = Study(primary="audio", secondary=["text"])
    fill(study, "unimodal", 0.6)
    fill(study, "transfer.distillation", 0.8)
    fill(study, "transfer.distillation", 0.6, control="noise")
    whole = Study(primary="audio", secondary=["text"])
    whole.records, whole.predictions = study.records[:], dict(study.predictions)
    fill(whole, "transfer.distillation", 0.8, control="shuffle")
    assert _summary(whole)["outcome"] == "regularises"
    fill(study, "transfer.distillation", 0.8, control="shuffle", lost=lost)
    found = _summary(study)
    assert found["outcome"] == "open"
    assert "but its control shuffle has no score for" in found["verdict"]
    assert not any("No control was run" in note for note in found["notes"])
    best = _entry(found, "transfer.distillation")["best_control"]
    assert best == ("shuffle" if len(lost) == 1 else "noise")  # the stronger one, on the seeds that both have


def test_a_reference_that_lost_a_seed_is_still_the_reference():
    study = Study(primary="audio", secondary=["text"])
    fill(study, "unimodal", 0.6)
    fill(study, "logistic", 0.8, method="unimodal", lost=(4,))
    fill(study, "transfer.distillation", 0.75)
    found = _summary(study)
    assert _entry(found, "transfer.distillation")["reference"] == "logistic"
    assert found["outcome"] == "open"


def test_the_reference_is_the_strongest_arm_that_sees_the_primary_alone():
    study = Study()
    for seed in (0, 1):
        study.add("unimodal", seed, answers([1, 0, 0, 0]))
        study.add("trees", seed, answers([1, 1, 1, 0]), method="unimodal")
        study.add("induction.self_training", seed, answers([1, 1, 0, 0]))
        study.add("transfer.distillation", seed, answers([1, 1, 1, 1]))
    summary = _summary(study)
    found = _entry(summary, "transfer.distillation")
    assert (found["reference"], found["gain_semi"], found["gain"]) == ("trees", 0.25, 0.75)
    assert _entry(summary, "trees")["gain_semi"] is None
    assert _entry(summary, "unimodal")["gain"] is None


def test_holm_is_over_all_arms_and_budgets_but_not_controls():
    study = Study()
    rng = np.random.default_rng(1)
    for budget in (2, "all"):
        for arm in ("unimodal", "a", "b"):
            for control in (None, "shuffle") if arm != "unimodal" else (None,):
                for seed in range(3):
                    method = "unimodal" if arm == "unimodal" else "transfer.distillation"
                    study.add(arm, seed, answers(rng.random(50) < 0.6), method=method, budget=budget, control=control)
    entries = [e for e in _summary(study)["entries"] if e["arm"] != "unimodal"]
    tested = sorted((e for e in entries if e["control"] is None), key=lambda e: e["p"])
    assert len(tested) == 4
    assert tested[0]["p_adjusted"] == pytest.approx(min(1, 4 * tested[0]["p"]))
    assert all(e["p_adjusted"] is None for e in entries if e["control"])
    assert "p_transferred_adjusted" not in entries[0]
    assert "nor is the p-value of what was transferred" in _summary(study)["method"]


def test_the_same_bytes_whatever_the_order_and_only_cost_holds_timings():
    study = _planted(gain=1.0)
    first = summarise(study.records, study.predictions)
    shuffled = study.records[:]
    random.Random(0).shuffle(shuffled)
    again = summarise(shuffled, dict(reversed(study.predictions.items())))
    assert json.dumps(first, allow_nan=False) == json.dumps(again, allow_nan=False)
    slower = Study(**{k: study.task[k] for k in ("primary", "secondary")})
    for record in study.records:
        found = study.predictions[record.hash]
        slower.add(record.cell.arm, record.cell.seed, found, control=record.cell.control, seconds=99.0)
    other = summarise(slower.records, slower.predictions)
    assert other.pop("cost") != first.pop("cost")
    assert json.dumps(first) == json.dumps(other)


def test_budgets_come_in_the_order_of_their_labels():
    study = Study()
    for budget in ("all", 10, 0.5, "no=9, yes=3", 2):
        study.add("unimodal", 0, answers([1, 0]), budget=budget)
    labelled = {"all": 100, "10": 20, "0.5": 50, "2": 4}
    records = [
        replace(record, rows={"labelled": labelled.get(str(record.cell.budget), 12), "test": 2})
        for record in study.records
    ]
    found = summarise(records, study.predictions)["data"]["budgets"]
    assert [each["budget"] for each in found] == [2, "no=9, yes=3", 10, 0.5, "all"]
    assert found[0]["rows"] == {"labelled": [4, 4], "test": [2, 2]}


def test_training_curves_are_thinned_means_that_know_their_gaps():
    study = Study()
    updates = list(range(1, 201))
    for seed in (0, 1):
        gap = [float("nan")] * 100 + [4.0] * 100
        study.add(
            "unimodal", seed, answers([1, 0]), history={"update": updates, "loss": [seed + 1.0] * 200, "late": gap}
        )
    (curve,) = _summary(study)["series"]["training"]
    assert len(curve["update"]) == POINTS
    assert (curve["update"][0], curve["update"][-1]) == (1, 200)
    assert set(curve["losses"]["loss"]) == {1.5}
    assert curve["losses"]["late"][0] is None
    assert curve["losses"]["late"][-1] == 4.0


def test_findings_are_means_over_seeds():
    study = Study()
    for seed, value in enumerate((1.0, 2.0)):
        study.add("unimodal", seed, answers([1, 0]), findings=(Finding("distance", value, unit="nats", of={"m": "a"}),))
    (found,) = _summary(study)["findings"]
    assert (found["name"], found["mean"], found["n_seeds"], found["of"]) == ("distance", 1.5, 2, {"m": "a"})


def test_intervals_end_where_the_metric_does_but_gains_may_be_negative():
    study = Study()
    study.add("unimodal", 0, answers([1] * 9 + [0]))
    study.add("unimodal", 1, answers([1, 1, 1, 0, 1, 1, 1, 1, 1, 1]))
    study.add("a", 0, answers([0] * 9 + [1]))
    study.add("a", 1, answers([0, 0, 0, 1, 0, 0, 0, 0, 0, 0]))
    summary = _summary(study)
    assert _entry(summary, "unimodal")["high"] == 1.0
    assert _entry(summary, "a")["low"] == 0.0
    assert _entry(summary, "a")["gain_low"] < -1
    loss = Study("mae")
    for seed in (0, 1):
        loss.add("unimodal", seed, values([0.0] * 9 + [5.0]))
    found = _entry(_summary(loss), "unimodal")
    assert found["low"] == 0.0
    assert found["high"] > 1


def test_no_interval_is_null():
    study = Study()
    for seed in range(3):
        study.add("unimodal", seed, answers([1] * 20))
        study.add("a", seed, answers([1] * 20))
    found = _entry(_summary(study), "a")
    assert (found["mean"], found["low"], found["high"]) == (1.0, None, None)
    assert (found["gain"], found["gain_low"], found["gain_high"], found["p"]) == (0.0, None, None, 1.0)


def test_memory_is_the_highest_of_the_seeds():
    study = Study()
    fill(study, "unimodal", 0.6, seeds=2)
    study.records[1] = replace(study.records[1], peak_memory=2**30)
    assert [each["peak_memory"] for each in _summary(study)["cost"]["entries"]] == [2**30]


def test_records_that_do_not_belong_together_are_refused():
    with pytest.raises(DataError, match=r"'records' must be one record or more. Got 0 instead. Run the study first."):
        summarise([], {})
    study, other = Study(), Study("auroc")
    study.add("unimodal", 0, answers([1, 0]))
    other.add("unimodal", 1, answers([1, 0]))
    with pytest.raises(DataError, match=r"The metric of all records must be the same. Got \['accuracy', 'auroc'\]"):
        summarise(study.records + other.records, study.predictions)
    study.add("unimodal", 0, answers([1, 0]))
    with pytest.raises(DataError, match=r"Two records are of the same cell: arm 'unimodal', control None, seed 0"):
        _summary(study)


def test_planted_outcomes():
    assert _summary(_planted(gain=1.5))["outcome"] == "helps"
    assert _summary(_planted(gain=1.5, kept=1.5))["outcome"] == "regularises"
    assert _summary(_planted(gain=-1.5, kept=-1.5))["outcome"] == "hurts"


def test_null_studies_rarely_help():
    arms = ("transfer.distillation", "colearning.alignment.latent", "induction.co_training")
    outcomes = [_summary(_planted(seed, arms=arms, controls=(), n=120))["outcome"] for seed in range(100)]
    assert outcomes.count("helps") <= 8
    assert outcomes.count("hurts") <= 8


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_or_two_seeds_never_decide(seeds):
    outcomes = [_summary(_planted(seed, gain=seed % 3 - 1, n=60, seeds=seeds))["outcome"] for seed in range(30)]
    assert set(outcomes) == {"open"}


def test_planted_gains_are_found():
    found = [_summary(_planted(seed, gain=0.9, n=250))["outcome"] for seed in range(30)]
    assert found.count("helps") >= 27
