"""The wording of verdicts, from entries with given numbers."""

from __future__ import annotations

import pytest

from transference.report.verdict import verdicts
from transference.report.wording import budget_label, budget_phrase, number

TASK = {"metric": "accuracy", "kind": "classification", "primary": "skeleton", "secondary": ["inertial"]}
TASK["baseline"] = "unimodal"


def _entry(arm, gain=None, p=0.001, transferred=None, control="shuffle", budget=2, over=None, seeds=5, **changes):
    """`gain` (over the reference), `over` (over unimodal, where that differs), `transferred`: (value, low, high)."""
    entry = {"arm": arm, "control": None, "budget": budget, "needs_all_at_test": False, "mean": 0.5}
    entry["primary_only"] = arm in ("unimodal", "logistic", "induction.self_training")
    for name, given in (("gain", over or gain), ("gain_semi", gain), ("transferred", transferred)):
        value, low, high = given or (None, None, None)
        entry |= {name: value, f"{name}_low": low, f"{name}_high": high, f"{name}_seeds": seeds if given else 0}
    entry |= {"p_semi_adjusted": p, "best_control": control if transferred else None, "reference": "unimodal"}
    entry |= {"n_seeds": seeds, "scores": {str(seed): 0.5 for seed in range(seeds)}}
    return entry | changes


BASE = _entry("unimodal")


def _verdict(*entries, **task):
    """Of entries that all have the controls that any has: whole, unless one is among the entries."""
    given = {(entry["arm"], entry["control"]) for entry in entries}
    names = {entry["best_control"] for entry in entries} - {None}
    controls = [entry | {"control": name} for entry in entries if entry["control"] is None for name in sorted(names)]
    missing = [entry for entry in controls if (entry["arm"], entry["control"]) not in given]
    return verdicts([BASE, *entries, *missing], {**TASK, **task})


def test_a_control_of_one_arm_is_not_asked_of_another():
    mine = _entry("latent", (0.05, 0.03, 0.07), transferred=(0.001, -0.01, 0.01), control="mean of all")
    control = _entry("latent", (0.049, 0.03, 0.07)) | {"control": "mean of all"}
    other = _entry("cyclic", (0.04, 0.02, 0.06))
    alone = verdicts([BASE, mine, control], TASK)
    assert alone["outcome"] == "regularises"
    assert "mean of all" in alone["verdict"]
    found = verdicts([BASE, mine, control, other], TASK)
    assert found["outcome"] == "helps"
    assert "through cyclic; no control was run" in found["verdict"]
    weak = _entry("cyclic", (0.01, -0.02, 0.04), 0.5)
    lost = verdicts(
        [BASE, mine | {"transferred": 0.04, "transferred_low": 0.02}, control, weak, weak | {"control": "shuffle"}],
        TASK,
    )
    assert lost["outcome"] == "open"  # a control of the data that another arm has was planned for this one too
    assert "but its control shuffle has no score" in lost["verdict"]


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


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("retrieval", "at retrieval of inertial from skeleton"),
        ("generation", "at generation of inertial from skeleton"),
        ("zero_shot", "at zero-shot classification through inertial of skeleton"),
    ],
)
def test_what_is_asked_of_both_modalities_is_held_against_the_baseline(kind, asked):
    task = {"kind": kind, "baseline": "word_space"}
    best = _entry("clip", (0.05, 0.02, 0.08), transferred=(0.05, 0.01, 0.09), reference="word_space")
    base = _entry("word_space")
    assert _verdict(base, best, **task)["verdict"] == (
        f"clip beats word_space {asked} by +5.0 points [2.0, 8.0] at 2 labels per class; none of it remains when rows "
        "are shuffled."
    )
    level = _entry("clip", (0.01, -0.02, 0.04), 0.5, reference="word_space")
    assert _verdict(base, level, **task)["verdict"] == (
        f"that any arm beats word_space {asked} can not be told at 2 labels per class; best arm clip: +1.0 points "
        "[-2.0, 4.0]."
    )
    worse = _entry("clip", (-0.05, -0.08, -0.02), reference="word_space")
    assert _verdict(base, worse, **task)["verdict"] == (
        f"no arm beats word_space {asked} at 2 labels per class: even the best arm, clip, -5.0 points [-8.0, -2.0]."
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
    assert found["outcome"] == "open"
    assert found["verdict"].startswith("Whether inertial helps skeleton at 2 labels per class is open: a gains +5.0")
    assert found["verdict"].endswith("the difference, +4.0 points [-1.0, 9.0], may be 0.")


def test_the_share_under_a_control_decides_what_is_said():
    def said(gain, transferred, low):
        return _verdict(_entry("a", (gain, 0.02, 0.18), transferred=(transferred, low, 0.2)))

    assert said(0.10, 0.091, 0.01)["verdict"].endswith("none of it remains when rows are shuffled.")  # 9 % is none
    assert said(0.10, 0.088, 0.01)["verdict"].endswith("1.2 points of it remain when rows are shuffled.")  # 12 % is not
    assert said(0.10, 0.04, -0.01)["outcome"] == "regularises"  # the control keeps 60 %
    assert said(0.10, 0.06, -0.01)["outcome"] == "open"  # it keeps 40 %


def test_a_control_below_the_reference_makes_it_worse():
    text = _verdict(_entry("a", (0.05, 0.01, 0.09), transferred=(0.068, -0.02, 0.16)))["verdict"]
    assert text.endswith(
        "is open: a gains +5.0 points [1.0, 9.0], and shuffled rows make it worse by 1.8 points; "
        "the difference, +6.8 points [-2.0, 16.0], may be 0."
    )
    noise = _entry("a", (0.05, 0.01, 0.09), transferred=(0.12, -0.02, 0.26), control="noise")
    assert "and noise in its place makes it worse by 7.0 points;" in _verdict(noise)["verdict"]


def test_an_open_arm_decides_before_a_stronger_one_that_regularises():
    found = _verdict(
        _entry("strong", (0.09, 0.05, 0.13), transferred=(0.0, -0.03, 0.03)),
        _entry("weak", (0.06, 0.02, 0.10), transferred=(0.05, -0.01, 0.11)),
    )
    assert (found["outcome"], found["verdicts"][0]["arm"]) == ("open", "weak")


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
        "no gain from inertial for skeleton can be told from 0 at 2 labels per class; "
        "best arm a: +0.4 points [-1.0, 2.0]."
    )


def test_an_interval_above_0_that_fails_the_correction_is_nothing():
    assert _verdict(_entry("a", (0.05, 0.01, 0.09), p=0.2))["outcome"] == "nothing"
    assert _verdict(_entry("a", (0.05, -0.01, 0.11), p=0.01))["outcome"] == "nothing"


def test_hurts():
    found = _verdict(_entry("a", (-0.05, -0.08, -0.02)), _entry("b", (-0.09, -0.12, -0.06)))
    assert found["outcome"] == "hurts"
    assert found["verdict"] == (
        "inertial hurts skeleton at 2 labels per class: even the best arm, a, -5.0 points [-8.0, -2.0]."
    )
    assert found["verdicts"][0]["hurting"] == ["a", "b"]


def test_an_arm_that_only_a_stronger_learner_beats_is_not_hurt():
    logistic = _entry("logistic", mean=0.79)
    lost, over = (-0.121, -0.14, -0.10), (0.065, 0.05, 0.08)
    arm = _entry("transfer.distillation", lost, over=over, reference="logistic")
    found = _verdict(logistic, arm, primary="audio", secondary=["text"])
    assert found["outcome"] == "nothing"
    assert found["verdict"] == (
        "text does not help audio at 2 labels per class; no arm that uses text reaches logistic, the strongest arm on "
        "audio alone (accuracy 79.0 %); the best, transfer.distillation, -12.1 points [-14.0, -10.0] against it, gains "
        "+6.5 points [5.0, 8.0] over unimodal."
    )
    assert found["verdicts"][0]["hurting"] == []
    both = [each | {"budget": budget} for budget in (2, "all") for each in (BASE, logistic, arm)]
    assert "at any of the 2 budgets; no arm that uses inertial reaches" in verdicts(both, TASK)["verdict"]
    worse = _entry("b", (-0.2, -0.3, -0.1), over=(-0.02, -0.04, -0.01), reference="logistic")
    unsure = _entry("c", (-0.3, -0.4, -0.2), over=(-0.02, -0.04, 0.01), reference="logistic")
    assert _verdict(logistic, arm, worse, unsure)["verdicts"][0]["hurting"] == ["b"]
    assert _verdict(logistic, worse)["verdict"].endswith(
        "even the best arm, b, -20.0 points [-30.0, -10.0] against logistic and -2.0 points [-4.0, -1.0] "
        "against unimodal."
    )
    assert _verdict(logistic, worse | {"gain_seeds": 2})["outcome"] == "nothing"


@pytest.mark.parametrize("gain", [(0.2, 0.1, 0.3), (-0.2, -0.3, -0.1)])
def test_fewer_than_three_seeds_in_common_tell_nothing(gain):
    found = _verdict(_entry("a", gain, seeds=2))
    assert found["outcome"] == "open"
    assert found["verdicts"][0]["hurting"] == []
    assert "0.0 points [" in found["verdict"]
    assert found["verdict"].endswith(", but over too few seeds to tell (2, and 3 are needed).")
    whole = _entry("whole", (0.3, -0.1, 0.7), p=1.0)
    assert _verdict(whole, _entry("a", gain, seeds=2))["outcome"] == "nothing"  # a better arm has seeds enough
    assert _verdict(_entry("a", gain, seeds=3))["outcome"] == ("helps" if gain[0] > 0 else "hurts")


def test_a_gap_in_a_planned_control_leaves_a_gain_open():
    arm = _entry("a", (0.2, 0.1, 0.3), transferred=(0.2, 0.1, 0.3), control="noise")
    noise = _entry("a", seeds=5) | {"control": "noise"}
    for seeds, said in ((4, "seed 4"), (3, "seeds 3 and 4"), (0, "any seed")):
        found = _verdict(arm, noise, _entry("a", seeds=seeds) | {"control": "shuffle"})
        assert found["outcome"] == "open"
        assert found["verdict"].endswith(
            f"is open: a gains +20.0 points [10.0, 30.0], but its control shuffle has no score for {said}."
        )
    unrun = verdicts([BASE, arm, noise, BASE | {"budget": 9}, _entry("a", budget=9) | {"control": "shuffle"}], TASK)
    assert "its control shuffle has no score for any seed" in unrun["verdicts"][0]["text"]
    lost_too = _entry("a", (0.2, 0.1, 0.3), transferred=(0.2, 0.1, 0.3), seeds=4)
    assert _verdict(lost_too, _entry("a", seeds=4) | {"control": "shuffle"})["outcome"] == "helps"


def test_a_gap_in_the_reference_leaves_everything_open():
    logistic = _entry("logistic", seeds=4)
    for value in (0.2, 0.0, -0.2):
        arm = _entry("a", (value, value - 0.1, value + 0.1), reference="logistic")
        found = _verdict(logistic, arm)
        assert found["outcome"] == "open"
        assert found["verdict"].endswith(
            ", but logistic, the strongest arm on skeleton alone, has no score for seed 4."
        )
    assert _verdict(logistic, _entry("a", (0.2, 0.1, 0.3)))["outcome"] == "helps"  # it is not the reference
    dead = _verdict(_entry("logistic", seeds=0), _entry("a", (0.2, 0.1, 0.3)))
    assert dead["outcome"] == "open"
    assert dead["verdict"].endswith("but no cell of logistic, on skeleton alone too, has a score.")


def test_a_gain_without_an_interval_is_open_and_none_at_all_is_nothing():
    found = _verdict(_entry("a", (1.0, None, None), p=1.0))
    assert found["outcome"] == "open"
    assert "a gains +100.0 points, but it is the same in every test row" in found["verdict"]
    same = _verdict(_entry("a", (0.0, None, None), p=1.0))
    assert same["verdict"].endswith("can be told from 0 at 2 labels per class; best arm a: +0.0 points.")


def test_arms_that_hurt_are_named_beside_a_best_arm_that_does_not():
    found = _verdict(_entry("a", (0.004, -0.01, 0.02), p=1.0), _entry("b", (-0.09, -0.12, -0.06)))
    assert found["verdicts"][0]["text"].endswith("best arm a: +0.4 points [-1.0, 2.0]; b hurts.")


def test_upper_bounds_and_controls_cannot_win():
    bound = _entry("fusion.late", (0.3, 0.2, 0.4), needs_all_at_test=True)
    control = _entry("a", (0.2, 0.1, 0.3)) | {"control": "shuffle"}
    found = _verdict(bound, control, _entry("a", (0.0, -0.02, 0.02), p=1.0))
    assert found["outcome"] == "nothing"
    assert "best arm a: +0.0" in found["verdict"]


def test_an_interval_above_0_that_does_not_survive_correction_says_so():
    found = verdicts([BASE, _entry("a", (0.06, 0.01, 0.11), p=0.13)], TASK)
    assert found["outcome"] == "nothing"
    assert found["verdict"].endswith(
        "best arm a: +6.0 points [1.0, 11.0], too little once all arms and budgets are counted (p = 0.13)."
    )


def test_several_budgets_make_one_sentence():
    help2 = _entry("a", (0.2, 0.1, 0.3), transferred=(0.2, 0.1, 0.3))
    none10 = _entry("a", (0.01, -0.01, 0.03), p=1.0, budget=10)
    found = verdicts([BASE, help2, BASE | {"budget": 10}, none10], TASK)
    assert found["verdict"].endswith("remains when rows are shuffled (no gain shown at 10 labels per class).")
    assert [each["outcome"] for each in found["verdicts"]] == ["helps", "nothing"]
    none2 = _entry("a", (0.004, -0.01, 0.02), p=1.0)
    assert verdicts([BASE, none2, BASE | {"budget": 10}, none10], TASK)["verdict"] == (
        "no gain from inertial for skeleton can be told from 0 at any of the 2 budgets; "
        "best arm a at 10 labels per class: +1.0 points [-1.0, 3.0]."
    )


def test_without_a_reference_or_an_arm_nothing_is_claimed():
    alone = verdicts([BASE], TASK)
    assert alone["outcome"] == "unknown"
    assert alone["verdict"].endswith("no arm that uses another modality in training alone finished.")
    lost = verdicts([_entry("unimodal", seeds=0), _entry("a", seeds=0)], TASK)
    assert lost["verdict"].endswith("is unknown: no arm finished.")
    apart = verdicts([BASE, _entry("a")], TASK)
    assert apart["verdict"].endswith("is unknown: the arms that finished have no seed in common.")
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
    ("metric", "quoted", "rest"),
    [
        ("auroc", "+5.0 points [2.0, 8.0]", "2.0 points"),
        ("mae", "+0.05 lower mae [0.02, 0.08]", "0.02"),
        ("log_loss", "+0.05 nats [0.02, 0.08]", "0.02 nats"),
    ],
)
def test_units(metric, quoted, rest):
    found = _verdict(_entry("a", (0.05, 0.02, 0.08), transferred=(0.03, 0.01, 0.05)), metric=metric)["verdict"]
    assert f"by {quoted} " in found
    assert f"; {rest} of it remain when" in found


def test_numbers_have_no_minus_zero():
    assert number(-0.0002, TASK, sign=True) == "+0.0"
    assert number(0.12345, {"metric": "mae"}) == "0.123"


@pytest.mark.parametrize(
    ("budget", "phrase", "label"),
    [
        (1, "at 1 label per class", "1 per class"),
        (0.1, "with 10 % of the labels", "10 %"),
        ("all", "with all labels", "all"),
        ("course=3, other=9", "at 3 course and 9 other labels", "3 course + 9 other"),
        ("a, b=1, c=d=20", "at 1 a, b and 20 c=d labels", "1 a, b + 20 c=d"),
        ("most", "at the budget most", "most"),
    ],
)
def test_budgets_in_words(budget, phrase, label):
    assert (budget_phrase(budget, TASK), budget_label(budget, TASK)) == (phrase, label)
