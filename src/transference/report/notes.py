"""What a reader of a study must know before believing its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transference.core.records import RunRecord
from transference.core.spec import OF_TWO

_COUNTS = ("n_seeds", "gain_seeds", "gain_semi_seeds", "transferred_seeds")


def notes(
    records: Sequence[RunRecord],
    entries: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
    task: Mapping[str, Any],
) -> list[str]:
    """One sentence or two for each thing; `about` is that of `summarise`, whose "leaks" are passed on."""
    found = [str(leak) for leak in about.get("leaks", ())]
    if len({record.data for record in records}) > 1:
        found.append("The records were made from different data: their fingerprints differ. Do not compare them.")
    versions = sorted({record.environment.packages.get("transference", "unknown") for record in records})
    if len(versions) > 1:
        found.append(
            f"The records were made by different versions of transference: {', '.join(versions)}; "
            "run the study anew to compare them."
        )
    found += _one_seed(entries)
    if task["kind"] in OF_TWO:
        found.append(f"This is asked of both modalities, so the reference is {task['baseline']}, not a unimodal arm.")
    elif not any(entry["primary_only"] and entry["n_seeds"] for entry in entries):
        found.append("No arm that sees the primary modality alone has a finished cell: there is no fair reference.")
    if not any(entry["control"] for entry in entries):
        found.append("No control was run: a gain may be regularisation.")
    short = sorted({entry["arm"] for entry in entries if entry["n_failed"]})
    if short:
        found.append(
            f"Cells failed for {', '.join(short)}: their means and gains are over the seeds that finished, "
            "which may be the easier ones."
        )
    return found


def _one_seed(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which arms have a mean or a comparison over a single seed."""
    single = {entry["arm"] for entry in entries if any(entry[count] == 1 for count in _COUNTS)}
    if not single:
        return []
    every = all(entry["n_seeds"] <= 1 for entry in entries)
    of = "" if every else f" of {', '.join(sorted(single))} that are over one seed"
    return [f"One seed: the intervals{of} are about test rows only and say nothing about another seed."]
