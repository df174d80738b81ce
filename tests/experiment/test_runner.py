"""Cells become records; kills, crashes and workers change nothing of what is in them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_study import SLOW_ARMS, small_config, small_data

from transference.core.errors import ConfigError, DataError
from transference.core.records import RunRecord
from transference.data.split import label_budget, split_rows
from transference.experiment.cell import environment, from_model
from transference.experiment.plan import plan
from transference.experiment.runner import load_method, prepare, refit, run
from transference.experiment.store import Store
from transference.unimodal import Unimodal

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(small_config(), folder=tmp_path_factory.mktemp("runs"), data=small_data())


def files(study: Path) -> dict[str, bytes]:
    """Predictions and models of a study by path: what must be the same, bit by bit."""
    return {str(path.relative_to(study)): path.read_bytes() for path in sorted(study.glob("*/*.safetensors"))}


def settled(record: RunRecord) -> dict[str, object]:
    """A record less what may differ between two runs."""
    plain = json.loads(record.to_json())
    for name in ("seconds", "peak_memory", "environment"):
        del plain[name]
    return plain


def test_every_planned_cell_has_a_whole_record(finished: Path) -> None:
    records = Store(finished).records()
    found = Counter((r.cell.arm, r.cell.control, r.cell.seed, r.cell.budget) for r in records)
    arms = [("unimodal", None), ("small_study:Means", None), ("small_study:Means", "shuffle")]
    assert found == Counter((*arm, seed, budget) for arm in arms for seed in (0, 1) for budget in (2, "all"))
    assert {r.status for r in records} == {"ok"}
    assert all(r.seconds > 0 and r.peak_memory > 1e7 and r.environment.threads == 1 for r in records)


def test_a_record_holds_what_it_says(finished: Path) -> None:
    data, store = small_data(), Store(finished)
    record = next(r for r in store.records() if (r.cell.arm, r.cell.budget, r.cell.seed) == ("unimodal", 2, 1))
    split = split_rows(data, 1, 0.25)
    answers = store.predictions(record.hash)
    assert record.rows == {"labelled": 8, "unlabelled": len(split.train) - 8, "test": len(split.test)}
    assert answers.rows.tolist() == data.views.rows[split.test].tolist()
    assert [record.task["classes"][k] for k in answers.target] == data.y[split.test].tolist()
    np.testing.assert_allclose(answers.scores.sum(1), 1, rtol=1e-5)
    accuracy = next(f for f in record.findings if f.name == "accuracy")
    assert accuracy.value == pytest.approx((answers.scores.argmax(1) == answers.target).mean())
    assert record.history["update"][-1] == 20
    assert len(record.history["task"]) == len(record.history["update"])


def test_an_arm_by_hand_gives_the_bits_of_its_cell(finished: Path) -> None:
    data, config, store = small_data(), small_config(), Store(finished)
    record = next(r for r in store.records() if (r.cell.arm, r.cell.budget, r.cell.seed) == ("unimodal", 2, 0))
    split = split_rows(data, 0, 0.25)
    y = data.y[split.train].copy()
    y[~label_budget(y, 2, 0)] = None
    method = Unimodal(width=8, schedule=config.schedule, seed=0).fit(data.views[split.train], y)
    expected = method.predict_proba(data.views[split.test])
    assert expected.tobytes() == store.predictions(record.hash).scores.tobytes()


def test_a_control_changes_what_is_learned_and_no_test_row(finished: Path) -> None:
    store = Store(finished)
    real, shuffled = (
        next(
            r for r in store.records() if (r.cell.method, r.cell.control, r.cell.budget) == ("small_study:Means", c, 2)
        )
        for c in (None, "shuffle")
    )
    a, b = store.predictions(real.hash), store.predictions(shuffled.hash)
    assert a.rows.tolist() == b.rows.tolist()
    assert a.target.tolist() == b.target.tolist()
    assert a.scores.tobytes() != b.scores.tobytes()


def test_a_second_run_touches_no_cell(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("*/*")}
    calls: list[tuple[int, int, RunRecord | None]] = []
    run(small_config(), folder=finished.parent, data=small_data(), progress=lambda *call: calls.append(call))
    assert {path: path.stat().st_mtime_ns for path in finished.glob("*/*")} == before
    assert calls == [(12, 12, None)]


def test_an_edited_study_runs_only_what_is_new_and_reports_only_what_it_names(tmp_path: Path) -> None:
    one = {"seeds": 1, "budgets": [2], "controls": []}
    run(small_config(study=one), folder=tmp_path, data=small_data())
    calls: list[RunRecord] = []
    study = run(
        small_config(study=one | {"budgets": [3], "metric": "auroc"}, arms={"unimodal": {"width": 8}}),
        folder=tmp_path,
        data=small_data(),
        progress=lambda done, total, record: calls.append(record) if record else None,
    )
    assert [(r.cell.arm, r.cell.budget) for r in calls] == [("unimodal", 3)]
    assert [r.hash for r in Store(study).records()] == [calls[0].hash]
    run(small_config(study=one | {"metric": "macro_f1"}), folder=tmp_path, data=small_data())
    assert {r.task["metric"] for r in Store(study).records()} == {"macro_f1"}
    study.rename(tmp_path / "renamed")
    study = run(small_config(study=one | {"metric": "macro_f1"}, name="renamed"), folder=tmp_path, data=small_data())
    assert {r.study for r in Store(study).records()} == {"renamed"}
    assert len(Store(study).records()) == 2


@pytest.mark.slow
def test_two_workers_give_the_bits_of_one(finished: Path, tmp_path: Path) -> None:
    study = run(small_config(), folder=tmp_path, data=small_data(), workers=2)
    assert files(study) == files(finished)
    assert len(files(study)) == 12 + 4
    assert list(map(settled, Store(study).records())) == list(map(settled, Store(finished).records()))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_is_taken_up_where_it_stopped(tmp_path: Path, workers: int) -> None:
    whole = run(small_config(arms=SLOW_ARMS), folder=tmp_path / "whole", data=small_data())
    study = tmp_path / "killed" / "small"
    process = subprocess.Popen([sys.executable, HERE / "small_study.py", study.parent, str(workers)])
    deadline = time.monotonic() + 120
    while len(list(study.glob("[0-9a-f]*/record.json"))) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in study.glob("[0-9a-f]*/record.json")}
    assert 3 <= len(kept) < 12
    run(small_config(arms=SLOW_ARMS), folder=study.parent, data=small_data())
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in kept} == kept
    assert files(study) == files(whole)
    assert list(map(settled, Store(study).records())) == list(map(settled, Store(whole).records()))
    assert not list(study.glob(".partial-*"))


WRONG = {
    "small_study:Crash": ("failed", "RuntimeError: the sky fell on <row 3>"),
    "small_study:Diverging": ("diverged", "The loss 'task' of stage 'train' became inf by update 1"),
    "small_study:NotANumber": ("diverged", "The answers for 40 of 40 test rows are not finite numbers."),
    "small_study:HalfACharacter": ("failed", "RuntimeError: no file caf\\udce9.wav"),
    "small_study:Hungry": ("out_of_memory", "asked for 9 TB. Lower the schedule's batch_size"),
}


def test_scores_stand_in_the_columns_of_their_classes(tmp_path: Path) -> None:
    arms = {name: {"method": f"small_study:{name}"} for name in ("Means", "Backwards", "Forgetful")}
    config = small_config(study={"seeds": 1, "controls": [], "baseline": "Means"}, arms=arms)
    store = Store(run(config, folder=tmp_path, data=small_data()))
    means, backwards, forgetful = (store.predictions(record.hash).scores for record in store.records())
    assert backwards.tobytes() == means.tobytes()
    assert forgetful[:, 0].tolist() == [0] * len(means)
    assert forgetful[:, 1:].tobytes() == means[:, 1:].tobytes()


def test_no_network_is_kept_of_a_control(tmp_path: Path) -> None:
    config = small_config(
        study={"seeds": 1, "controls": ["shuffle"], "baseline": "fusion.early"},
        arms={"fusion.early": {"width": 4}},
        schedule={"updates": 2, "device": "cpu"},
    )
    study = run(config, folder=tmp_path, data=small_data())
    kept = {r.cell.control: ((study / r.hash / "model.json").exists(), bool(r.model)) for r in Store(study).records()}
    assert kept == {None: (True, True), "shuffle": (False, False)}


def test_what_goes_wrong_is_a_record_and_the_study_goes_on(tmp_path: Path) -> None:
    config = small_config(study={"seeds": 1, "controls": []}, arms={**{arm: {} for arm in WRONG}, "unimodal": {}})
    study = run(config, folder=tmp_path, data=small_data())
    records = {r.cell.arm: r for r in Store(study).records()}
    for arm, (status, message) in WRONG.items():
        assert records[arm].status == status
        assert records[arm].error.startswith(message)
        assert records[arm].predictions == ""
        assert records[arm].card["at_test"] == "primary"
    assert records["small_study:Crash"].card["needs"] == ["labels", "paired"]
    assert "small_study.py" in records["small_study:Crash"].error
    assert records["unimodal"].status == "ok"


def test_failed_cells_are_run_again_only_when_asked(tmp_path: Path) -> None:
    config = small_config(
        study={"seeds": 1, "controls": [], "baseline": "small_study:Crash"}, arms={"small_study:Crash": {}}
    )
    times = []
    for retry in (False, False, True):
        study = run(config, folder=tmp_path, data=small_data(), retry=retry)
        times.append(next(study.glob("[0-9a-f]*/record.json")).stat().st_mtime_ns)
    assert times[0] == times[1] < times[2]


@pytest.mark.slow
def test_a_killed_worker_is_a_record_and_the_other_cells_are_finished(tmp_path: Path) -> None:
    config = small_config(
        study={"seeds": 2, "controls": []},
        arms={"unimodal": {"width": 8}, "small_study:Killed": {}, "small_study:Means": {}},
    )
    study = run(config, folder=tmp_path, data=small_data(), workers=2)
    found = Counter((r.cell.arm, r.status) for r in Store(study).records())
    assert found == {("unimodal", "ok"): 2, ("small_study:Means", "ok"): 2, ("small_study:Killed", "out_of_memory"): 2}
    error = next(r.error for r in Store(study).records() if r.status == "out_of_memory")
    assert error.startswith(
        "The worker process was killed while it ran this cell, as the system does when memory runs out"
    )


def test_a_finished_cell_without_a_sum_is_told_once_and_run_again(tmp_path: Path) -> None:
    config = small_config(study={"seeds": 1, "controls": []}, arms={"unimodal": {"width": 8}})
    study = run(config, folder=tmp_path, data=small_data())
    (record,) = Store(study).records()
    Store(study).rewrite(replace(record, predictions=""))
    told: list[str] = []
    run(config, folder=tmp_path, data=small_data(), notice=told.append)
    assert len(told) == 1
    assert f"The predictions of cell {record.hash} are damaged" in told[0]
    assert [r.predictions for r in Store(study).records()] == [record.predictions]


@pytest.mark.parametrize("damage", ["record", "predictions", "missing", "model"])
def test_a_damaged_cell_is_reported_and_run_again(tmp_path: Path, damage: str) -> None:
    config = small_config(study={"seeds": 1, "controls": []}, arms={"unimodal": {"width": 8}})
    study = run(config, folder=tmp_path, data=small_data())
    before, (record,) = files(study), Store(study).records()
    cell = study / record.hash
    if damage == "record":
        (cell / "record.json").write_text((cell / "record.json").read_text()[:-20])
    elif damage == "missing":
        (cell / "predictions.safetensors").unlink()
    else:
        content = bytearray((cell / f"{damage}.safetensors").read_bytes())
        content[-1] ^= 1
        (cell / f"{damage}.safetensors").write_bytes(content)
    assert len(Store(study).records()) == (damage == "model")  # what is reported needs no network
    assert list(Store(study).damaged()) == [record.hash]
    with pytest.raises(DataError, match=r"(damaged|missing).*[Rr]un the study again"):
        Store(study).model(record.hash)
    told: list[str] = []
    run(config, folder=tmp_path, data=small_data(), notice=told.append)
    assert len(told) == 1
    assert record.hash in told[0] or damage == "record"
    assert files(study) == before
    assert Store(study).damaged() == {}


def test_a_kept_network_and_a_refitted_method_answer_as_their_record(finished: Path) -> None:
    data, store = small_data(), Store(finished)
    for record in store.records():
        kept = (finished / record.hash / "model.safetensors").exists()
        assert kept == (record.cell.arm == "unimodal")
        if record.cell.seed or record.cell.control:
            continue
        answers = store.predictions(record.hash)
        again = refit(small_config(), record, data)
        assert again.predict_proba(data.views[answers.rows]).astype("f4").tobytes() == answers.scores.tobytes()
        if kept:
            method = load_method(finished / record.hash)
            assert method.predict_proba(data.views[answers.rows]).tobytes() == answers.scores.tobytes()
            assert method.get_params() == again.get_params()
        else:
            with pytest.raises(ConfigError, match=r"No network was kept .* refit"):
                load_method(finished / record.hash)


def test_regression_runs_end_to_end(tmp_path: Path) -> None:
    data = small_data()
    y = np.array([float(name[1]) for name in data.y], np.float32)
    y[:5] = np.nan
    config = small_config(study={"seeds": 1, "budgets": [20]}, arms={"unimodal": {}})
    study = run(config, folder=tmp_path, data=replace(data, y=y, task="regression"))
    (record,) = Store(study).records()
    assert record.status == "ok"
    assert record.rows["labelled"] == 20
    assert record.task == {
        "kind": "regression", "classes": [], "metric": "mae", "primary": "coarse", "secondary": ["fine"],
        "baseline": "unimodal",
    }  # fmt: skip
    assert next(f.name for f in record.findings) == "mae"
    assert Store(study).predictions(record.hash).scores.shape == (record.rows["test"], 1)


def test_the_study_chooses_modalities_and_primary() -> None:
    data, _ = prepare(
        small_config(data={"set": "x", "primary": "fine", "secondary": []}, arms={"unimodal": {}}), small_data()
    )
    assert (data.views.names, data.views.primary) == (("fine",), "fine")
    data, _ = prepare(small_config(data={"set": "x", "primary": "fine"}), small_data())
    assert (data.views.names, data.views.primary) == (("coarse", "fine"), "fine")


def test_two_runs_of_one_study_at_once_are_refused(tmp_path: Path) -> None:
    with Store(tmp_path / "small").lock(), pytest.raises(DataError, match="Another process is running the study"):
        run(small_config(), folder=tmp_path, data=small_data())


def test_global_generators_are_seeded_by_the_cell_and_left_as_they_were(tmp_path: Path) -> None:
    config = small_config(study={"seeds": 2, "controls": []}, arms={"unimodal": {}, "small_study:Careless": {}})
    found = []
    for seed in (3, 4):
        np.random.seed(seed)
        torch.manual_seed(seed)
        before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        found.append(files(run(config, folder=tmp_path / str(seed), data=small_data())))
        assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert found[0] == found[1]


def test_a_cell_leaves_the_number_of_threads_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # as where threadpoolctl does not know torch's threads
    monkeypatch.setattr("transference.experiment.cell.threadpool_limits", lambda _: nullcontext())
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run(small_config(study={"seeds": 1, "controls": []}), folder=tmp_path, data=small_data())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_test_rows_that_lack_the_primary_modality_are_counted_in_the_record(tmp_path: Path) -> None:
    data = small_data()
    present = np.ones(len(data), bool)
    present[split_rows(data, 0).test[:3]] = False
    gaps = replace(data, views=data.views.replace("coarse", data.views["coarse"] * present[:, None], present=present))
    study = run(small_config(study={"seeds": 1, "controls": []}), folder=tmp_path, data=gaps)
    for record in Store(study).records():
        assert record.rows["test"] == len(split_rows(data, 0).test) - 3
        assert record.rows["test, not scored: no primary"] == 3


def test_a_leak_is_told_and_kept_with_the_study(tmp_path: Path) -> None:
    data, told = small_data(), list[str]()
    twice = replace(
        data,
        views=data.views.take(np.tile(np.arange(160), 2)),
        y=np.tile(data.y, 2),
        ids=np.array([f"row{k}" for k in range(320)], object),
    )
    study = run(small_config(study={"seeds": 3, "controls": []}), folder=tmp_path, data=twice, notice=told.append)
    assert re.match(r"Seed 0: \d+ test rows hold the same 'coarse' as a training row", told[0])
    assert told[1:] == ["The splits of other seeds leak too: 1, 2."]
    assert Store(study).study()["data"]["leaks"] == told


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    config = small_config(schedule={"updates": 2, "device": "cuda:99"})
    with pytest.raises(ConfigError, match=r"The device 'cuda:99' of \[schedule\] can not be used .* device = \"cpu\""):
        run(config, folder=tmp_path, data=small_data())
    assert list(tmp_path.iterdir()) == []
    assert environment("cuda:99").device == "cuda:99"  # which a worker of a cluster may have


def test_a_network_trained_on_a_device_that_is_not_here_answers_on_another(finished: Path) -> None:
    store = Store(finished)
    record = next(r for r in store.records() if r.model)
    kept = store.model(record.hash)
    assert kept is not None
    elsewhere = replace(kept, about=kept.about.replace('"device": "cpu"', '"device": "cuda:99"'))
    assert elsewhere != kept
    answers = store.predictions(record.hash)
    found = from_model(elsewhere).predict_proba(small_data().views[answers.rows])
    np.testing.assert_allclose(found, answers.scores, atol=1e-5)


def test_an_unknown_backend_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no backend 'rai'. Did you mean 'ray'?"):
        run(small_config(), folder=tmp_path, data=small_data(), backend="rai", workers=2)  # type: ignore[arg-type]


def test_plan_and_run_agree(finished: Path) -> None:
    cells = plan(small_config(), small_data())
    assert [r.cell for r in Store(finished).records()] == cells
    assert os.path.exists(finished / "study.json")
