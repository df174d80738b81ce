"""One wording, all faults at once."""

from __future__ import annotations

import pytest

from transference.core.errors import MOST_CHOICES, ConfigError, DataError, collect, did_you_mean


def test_all_faults_come_together_numbered() -> None:
    with (
        pytest.raises(DataError, match=r"rows\.csv: 2 faults\n  1\. first\n  2\. second"),
        collect("rows.csv") as faults,
    ):
        faults.add("first")
        faults.add("second")
        faults.add("first")


def test_an_error_raised_inside_joins_the_faults() -> None:
    with pytest.raises(DataError, match=r"2 faults\n  1\. first\n  2\. last"), collect("x") as faults:
        faults.add("first")
        raise DataError("last")


def test_other_errors_pass_through() -> None:
    with pytest.raises(KeyError, match="passing"), collect("x") as faults:
        faults.add("first")
        raise KeyError("passing")


def test_no_fault_no_error_and_long_lists_are_cut() -> None:
    with collect("x"):
        pass
    with (
        pytest.raises(ConfigError, match=r"3 faults\n  1\. 0\n  2\. 1\n  \.\.\. and 1 more"),
        collect("x", ConfigError, most=2) as faults,
    ):
        for k in range(3):
            faults.add(str(k))


def test_of_many_choices_a_few_are_shown() -> None:
    told = did_you_mean("zzz", [f"{k:05}" for k in range(2000)])
    assert told.endswith("'00039', ... (2000 in all).")
    assert told.count("'") == 2 * MOST_CHOICES
