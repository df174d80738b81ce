"""The wording of verdicts, from entries with given numbers."""

from __future__ import annotations

import pytest

from transference.report.verdict import budget_label, budget_phrase, number, verdicts

TASK = {"metric": "accuracy", "kind": "classification", "primary": "skeleton", "secondary": ["inertial"]}


def _entry(arm, gain=None, p=0.001, transferred=None, control="shuffle", budget=2, **changes):
    """`gain` and `transferred` are (value, low, high)."""
    entry = {"arm": arm, "control": None, "budget": budget, "needs_all_at_test": False}
    entry["primary_only"] = arm in ("unimodal", "induction.self_training")
    for name, given in (("gain_semi", gain), ("transferred", transferred)):
        value, low, high = given or (None, None, None)
        entry |= {name: value, f"{name}_low": low, f"{name}_high": high}
    entry |= {"p_semi_adjusted": p, "best_control": control if transferred else None}
    return entry | changes


BASE = _entry("unimodal")


def _verdict(*entries, **task):
    return verdicts([BASE, *entries], {**TASK, **task})


def test_helps_and_nothing_remains():
    found = _verdict(
        _entry("transfer.distillation", (0.213, 0.17, 0.25), transferred=(0.21, 0.16, 0.26)),
        _entry("colearning.alignment.latent", (0.05, 0.02, 0.08), transferred=(0.05, 0.01, 0.09)),
    )
    assert found["outcome"] == "helps"
    assert found["verdict"] == (
        "inertial helps skeleton by +21.3 points [17.0, 25.0] at 2 labels per class through transfer.distillation; "
        "none of it remains when rows are shuffled."
    )


def test_helps_and_some_remains():
    found = _verdict(_entry("a", (0.10, 0.05, 0.15), transferred=(0.06, 0.01, 0.11), control="noise"))
    assert found["verdict"].endswith("through a; 4.0 points of it remain when it is replaced by noise.")


def test_helps_without_controls_says_what_is_not_known():
    found = _verdict(_entry("a", (0.10, 0.05, 0.15)))
    assert found["outcome"] == "helps"
    assert found["verdict"].endswith("no control was run, so transfer is not told from regularisation.")


def test_a_gain_that_shuffled_rows_bring_too_is_regularisation():
    found = _verdict(_entry("a", (0.05, 0.02, 0.08), transferred=(0.002, -0.02, 0.024)))
    assert found["outcome"] == "regularises"
    assert found["verdict"] == (
        "inertial does not help skeleton at 2 labels per class: a gains +5.0 points [2.0, 8.0], but also +4.8 points "
        "when rows are shuffled: regularisation, not transfer."
    )


def test_a_gain_mostly_but_not_surely_beyond_the_control_is_open():
    found = _verdict(_entry("a", (0.05, 0.02, 0.08), transferred=(0.04, -0.01, 0.09)))
    assert found["outcome"] == "unclear"
    assert found["verdict"].startswith("Whether inertial helps skeleton at 2 labels per class is open: a gains +5.0")
    assert found["verdict"].endswith("the difference, +4.0 points [-1.0, 9.0], may be 0.")


def test_a_weaker_arm_that_transfers_is_quoted_before_a_stronger_that_regularises():
    found = _verdict(
        _entry("strong", (0.09, 0.05, 0.13), transferred=(0.0, -0.03, 0.03)),
        _entry("weak", (0.06, 0.02, 0.10), transferred=(0.06, 0.02, 0.10)),
    )
    assert found["outcome"] == "helps"
    assert "through weak" in found["verdict"]


def test_nothing():
    found = _verdict(_entry("a", (0.004, -0.01, 0.02), p=1.0), _entry("b", (-0.03, -0.05, -0.01), p=0.3))
    assert found["outcome"] == "nothing"
    assert found["verdict"] == (
        "inertial does not help skeleton at 2 labels per class; best arm a: +0.4 points [-1.0, 2.0]."
    )


def test_an_interval_above_0_that_fails_the_correction_is_nothing():
    assert _verdict(_entry("a", (0.05, 0.01, 0.09), p=0.2))["outcome"] == "nothing"


def test_hurts():
    found = _verdict(_entry("a", (-0.05, -0.08, -0.02)), _entry("b", (-0.09, -0.12, -0.06)))
    assert found["outcome"] == "hurts"
    assert found["verdict"] == (
        "inertial hurts skeleton at 2 labels per class: even the best arm, a, -5.0 points [-8.0, -2.0]."
    )
    assert found["verdicts"][0]["hurting"] == ["a", "b"]


def test_arms_that_hurt_are_named_beside_a_best_arm_that_does_not():
    found = _verdict(_entry("a", (0.004, -0.01, 0.02), p=1.0), _entry("b", (-0.09, -0.12, -0.06)))
    assert found["verdicts"][0]["text"].endswith("best arm a: +0.4 points [-1.0, 2.0]; b hurts.")


def test_upper_bounds_and_controls_cannot_win():
    bound = _entry("fusion.late", (0.3, 0.2, 0.4), needs_all_at_test=True)
    control = _entry("a", (0.2, 0.1, 0.3)) | {"control": "shuffle"}
    found = _verdict(bound, control, _entry("a", (0.0, -0.02, 0.02), p=1.0))
    assert found["outcome"] == "nothing"
    assert "best arm a: +0.0" in found["verdict"]


def test_several_budgets_make_one_sentence():
    help2 = _entry("a", (0.2, 0.1, 0.3), transferred=(0.2, 0.1, 0.3))
    none10 = _entry("a", (0.01, -0.01, 0.03), p=1.0, budget=10)
    found = verdicts([BASE, help2, BASE | {"budget": 10}, none10], TASK)
    assert found["verdict"].endswith("none of it remains when rows are shuffled (no help at 10 labels per class).")
    assert [each["outcome"] for each in found["verdicts"]] == ["helps", "nothing"]
    none2 = _entry("a", (0.004, -0.01, 0.02), p=1.0)
    assert verdicts([BASE, none2, BASE | {"budget": 10}, none10], TASK)["verdict"] == (
        "inertial does not help skeleton at any of the 2 budgets; "
        "best arm a at 10 labels per class: +1.0 points [-1.0, 3.0]."
    )


def test_without_a_reference_or_an_arm_nothing_is_claimed():
    alone = verdicts([BASE], TASK)
    assert alone["outcome"] == "unknown"
    assert alone["verdict"].endswith("no arm that uses another modality in training alone finished beside it.")
    assert "no arm that sees the primary modality alone finished" in verdicts([_entry("a")], TASK)["verdict"]
    assert verdicts([], TASK)["verdict"] == "No cell finished: nothing can be said."


def test_names_fall_back_and_agree_in_number():
    arm = _entry("a", (0.2, 0.1, 0.3))
    assert _verdict(arm, primary="", secondary=[])["verdict"].startswith(
        "the secondary modality helps the primary modality by"
    )
    assert _verdict(arm, secondary=["text", "image", "pulse"])["verdict"].startswith(
        "text, image and pulse help skeleton by"
    )


@pytest.mark.parametrize(
    ("metric", "unit", "quoted"),
    [
        ("auroc", "", "+5.0 points [2.0, 8.0]"),
        ("mae", "kg", "+0.05 kg of mae [0.02, 0.08]"),
        ("mae", "", "+0.05 of mae [0.02, 0.08]"),
        ("log_loss", "", "+0.05 nats [0.02, 0.08]"),
    ],
)
def test_units(metric, unit, quoted):
    assert f"by {quoted} " in _verdict(_entry("a", (0.05, 0.02, 0.08)), metric=metric, unit=unit)["verdict"]


def test_numbers_have_no_minus_zero():
    assert number(-0.0002, TASK, sign=True) == "+0.0"
    assert number(0.12345, {"metric": "mae"}) == "0.123"


@pytest.mark.parametrize(
    ("budget", "phrase", "label"),
    [
        (1, "at 1 label per class", "1 per class"),
        (0.1, "with 10 % of the labels", "10 %"),
        ("all", "with all labels", "all"),
        ({"other": 9, "course": 3}, "at 3 course + 9 other labels", "3 course + 9 other"),
    ],
)
def test_budgets_in_words(budget, phrase, label):
    assert (budget_phrase(budget, TASK), budget_label(budget, TASK)) == (phrase, label)
