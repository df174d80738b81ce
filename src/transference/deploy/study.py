"""From a finished study to a file that is deployed."""

from __future__ import annotations

from pathlib import Path

from transference.core.errors import ConfigError, DataError, did_you_mean
from transference.core.records import RunRecord
from transference.deploy.export import export
from transference.experiment.cell import fit_cell, from_model
from transference.experiment.config import parse
from transference.experiment.plan import fingerprint
from transference.experiment.protocol import BEYOND_LABELS, kind_of, rows_of
from transference.experiment.runner import prepare
from transference.experiment.store import Store


def export_arm(
    folder: str | Path, arm: str, path: str | Path, *, seed: int | None = None, budget: str | None = None
) -> tuple[RunRecord, float]:
    """Export the model of one finished cell, checked on the cell's own test rows.

    Parameters
    ----------
    folder
        Of the study, such as ``runs/demo``.
    arm
        As the study names it.
    path
        The ONNX file to write.
    seed, budget
        Which cell; the first seed and the last budget of the study when left out. A network is taken from the cell's
        folder; an estimator is fitted again from the record, since nothing is ever pickled.

    Raises
    ------
    DataError
        When the rows are no longer those that the record was made from.

    Returns
    -------
    tuple
        The record of the cell, and the largest difference between the file and the model in memory.
    """
    store = Store(folder)
    record = _choose(store, arm, seed, budget)
    known = store.study()["config"]  # of the other arms nothing is needed, not even that their methods are importable
    only = {"arms": {arm: known["arms"][arm]}, "study": {**known["study"], "baseline": arm}}
    config = parse({**known, **only}, store.folder, str(store.folder / "study.json"))
    data, _ = prepare(config)
    kind = kind_of(config, data)
    if kind in BEYOND_LABELS:
        raise ConfigError(f"A file that is deployed answers with labels or values, and this study asks for {kind}.")
    if fingerprint(data) != record.data:
        raise DataError(
            f"The rows of the study {record.study!r} have changed since the arm {arm!r} was trained on them, so the "
            "model cannot be checked. Put the rows back as they were, or run the study again."
        )
    kept = store.model(record.hash)
    method = fit_cell(config, record.cell, data)[0] if kept is None else from_model(kept)
    test = rows_of(config, data, record.cell.seed).test
    about = {
        "study": record.study,
        "arm": arm,
        "seed": str(record.cell.seed),
        "budget": str(record.cell.budget),
        "cell": record.hash,
    }
    return record, export(method, data.views[test], path, about=about)


def _choose(store: Store, arm: str, seed: int | None, budget: str | None) -> RunRecord:
    records = [record for record in store.records() if record.cell.control is None]
    arms = sorted({record.cell.arm for record in records})
    if arm not in arms:
        raise ConfigError(f"The study {str(store.folder)!r} has no finished arm {arm!r}. {did_you_mean(arm, arms)}")
    of_arm = [record for record in records if record.cell.arm == arm and record.status == "ok"]
    budgets = list(dict.fromkeys(str(record.cell.budget) for record in of_arm))
    wanted = budgets[-1] if budget is None and budgets else budget
    chosen = [record for record in of_arm if str(record.cell.budget) == wanted and seed in (None, record.cell.seed)]
    if not chosen:
        seeds = sorted({record.cell.seed for record in of_arm})
        asked = [f"{name} {value}" for name, value in (("seed", seed), ("budget", budget)) if value is not None]
        raise ConfigError(
            f"The arm {arm!r} has no finished cell{' with ' if asked else ''}{' and '.join(asked)}. "
            f"Seeds: {seeds}; budgets: {budgets}."
        )
    return chosen[0]
