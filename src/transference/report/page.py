"""A summary becomes one self-contained HTML file: no script, nothing from a network, all text from data escaped."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from transference.core.records import RunRecord
from transference.report import charts
from transference.report.verdict import FEWEST
from transference.report.wording import budget_key, budget_label, budget_phrase, interval, number, scale, unit

NONE = "–"
Findings = list[Mapping[str, Any]]
_OUTCOMES = {
    "helps": "helps",
    "open": "open",
    "regularises": "regularisation, not transfer",
    "hurts": "hurts",
    "nothing": "no gain shown",
    "unknown": "unknown",
}
FEWEST_PLACES = 4  # of a scale, for a measure to be drawn along it rather than told
_SECTIONS = (
    ("data", "Data"),
    ("gains", "Gains"),
    ("controls", "Controls"),
    ("labels", "Label efficiency"),
    ("along", "Trade-offs"),
    ("everything", "Everything, in numbers"),
    ("training", "Training curves"),
    ("failed", "Cells without a score"),
    ("cost", "Cost"),
    ("repeat", "How to repeat"),
)


def render(summary: Mapping[str, Any], records: Sequence[RunRecord]) -> str:
    """The report of a study.

    Parameters
    ----------
    summary
        Of `summarise`.
    records
        The same ones, for how to repeat each row.
    """
    style = resources.files("transference.report").joinpath("templates/style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = Environment(
        loader=PackageLoader("transference.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    task, data = summary["task"], summary["data"]
    budgets = [each["budget"] for each in data["budgets"]]
    by_budget = {budget_key(budget): _of_budget(summary["entries"], budget) for budget in budgets}
    titles = {key: _title(budget, task) for key, budget in zip(by_budget, budgets, strict=True)}
    told, drawn = _apart(summary["findings"])
    sections = [each for each in _SECTIONS if each[0] != "along" or drawn]
    return environment.get_template("page.html").render(
        style=Markup(style),
        style_hash=f"sha256-{digest}",
        study=summary["study"],
        metric=summary["metric"],
        method=summary["method"],
        fewest=FEWEST,
        notes=summary["notes"],
        outcome=summary["outcome"],
        outcome_words=_OUTCOMES[summary["outcome"]],
        verdict=summary["verdict"],
        verdicts=summary["verdicts"],
        sections=sections,
        data=data,
        facts=_facts(summary),
        row_counts=_row_counts(data, task),
        classes=task["classes"],
        gain_unit=unit(task),
        score_unit=" (%)" if scale(task) != 1 else "",
        baseline=task["baseline"],
        budgets=[
            {"title": titles[key], "forest": charts.forest(found, task), "controls": charts.controls(found, task)}
            for key, found in by_budget.items()
        ],
        efficiency=charts.efficiency(summary["entries"], budgets, task),
        tables=[_numbers(titles[key], found, task) for key, found in by_budget.items()]
        + _findings(told, summary["metric"], titles),
        along=[
            {"title": f"{titles[place[0]]}: {place[1]} against {place[2]}", "panels": charts.along(found)}
            for place, found in drawn.items()
        ],
        training=_training(summary["series"]["training"], titles),
        failed=[{**each, "summary": _name_of(each, task)} for each in summary["failed"]],
        failures=_failures(summary["failed"], task),
        costs=[_costs(titles[key], found, summary["cost"]["entries"], task) for key, found in by_budget.items()],
        total=f"All cells together: {_duration(summary['cost']['seconds'])}.",
        repeats=_repeats(summary["study"], records, task),
        environments=[_environment(each) for each in summary["environments"]],
    )


def _breakable(text: str) -> Markup:
    """Escaped, and free to break after a dot or an underscore."""
    parts = Markup("_<wbr>").join(escape(part) for part in text.split("_"))
    return Markup(".<wbr>").join(Markup(part) for part in parts.split("."))


def _of_budget(entries: Sequence[Mapping[str, Any]], budget: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in entries if budget_key(entry["budget"]) == budget_key(budget)]


def _title(budget: Any, task: Mapping[str, Any]) -> str:
    phrase = budget_phrase(budget, task)
    return phrase[0].upper() + phrase[1:]


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    task, data = summary["task"], summary["data"]
    return [
        ("Primary (all that test needs)", task["primary"] or NONE),
        ("Secondary (training only)", ", ".join(task["secondary"]) or NONE),
        ("Task", f"{task['kind']}, {len(task['classes'])} classes" if task["classes"] else task["kind"]),
        ("Metric", f"{task['metric']} ({task['better']} is better)"),
        ("Seeds", ", ".join(map(str, data["seeds"]))),
        ("Arms", str(len(data["arms"]))),
        ("Controls", ", ".join(data["controls"]) or "none"),
        ("Cells", f"{data['n_cells']}, {data['n_failed'] or 'none'} without a score"),
        ("Fingerprint of the data", ", ".join(data["fingerprints"])),
        *_about(data["about"]),
    ]


def _about(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is known of the data beside the records: facts that are missing are left out."""
    modalities = {
        f"Modality {name}": f"{each['kind']} {'x'.join(map(str, each['shape']))}, in {each['present']} rows"
        for name, each in about.get("modalities", {}).items()
    }
    facts = {
        "Data": about.get("name", ""),
        "Rows": f"{about['rows']}, {about['labelled']} with a label" if "rows" in about else "",
        "Split": about.get("split", ""),
        **modalities,
        **{f"Source: {name}": str(value) for name, value in about.get("source", {}).items()},
        "Note": " ".join(about.get("notes", ())),
    }
    return [(name, value) for name, value in facts.items() if value]


def _row_counts(data: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    names = sorted({name for each in data["budgets"] for name in each["rows"]})
    lines = [
        _line(_title(each["budget"], task), [_range(each["rows"].get(name)) for name in names])
        for each in data["budgets"]
    ]
    return {"caption": "Rows of a cell at each label budget", "head": ["Budget", *names], "lines": lines}


def _range(ends: Sequence[int] | None) -> str:
    if ends is None:
        return NONE
    return str(ends[0]) if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _line(name: str, cells: Sequence[str], control: bool = False) -> dict[str, Any]:
    return {"name": name, "cells": cells, "control": control}


def _numbers(title: str, entries: Sequence[Mapping[str, Any]], task: Mapping[str, Any]) -> dict[str, Any]:
    ordered = sorted(entries, key=lambda entry: (entry["arm"], entry["control"] or ""))
    lines = [
        _line(
            entry["control"] or entry["arm"],
            [
                f"{entry['n_seeds']}" + (f" ({entry['n_failed']} lost)" if entry["n_failed"] else ""),
                _interval(entry, "mean", task),
                _interval(entry, "gain", task),
                _p(entry["p_adjusted"]),
                _interval(entry, "gain_semi", task),
                _p(entry["p_semi_adjusted"]),
                _interval(entry, "transferred", task),
                entry["best_control"] or NONE,
            ],
            bool(entry["control"]),
        )
        for entry in ordered
    ]
    reference = next((entry["reference"] for entry in ordered if entry["reference"]), NONE)
    head = ["Arm", "Seeds", task["metric"], f"Gain over {task['baseline']}", "p (Holm)", f"Gain over {reference}"]
    head += ["p (Holm)", "Transferred", "Best control"]
    return {"title": title, "caption": f"{title}; gains in {unit(task)}", "head": head, "lines": lines}


def _interval(entry: Mapping[str, Any], name: str, task: Mapping[str, Any]) -> str:
    if entry[name] is None:
        return NONE
    return number(entry[name], task, sign=name != "mean") + interval(entry, name, task)


def _p(value: float | None) -> str:
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _apart(findings: Sequence[Mapping[str, Any]]) -> tuple[Findings, dict[tuple[str, str, str], Findings]]:
    """What is told in a table, and what is drawn along a scale: the latter by budget, measure and scale."""
    scales: dict[tuple[str, str, str], Findings] = {}
    for each in findings:
        if len(each["of"]) == 1:
            (place, value), *_ = each["of"].items()
            if _is_number(value):
                scales.setdefault((budget_key(each["budget"]), each["name"], place), []).append(each)
    drawn = {
        key: found
        for key, found in scales.items()
        if len({value for each in found for value in each["of"].values()}) >= FEWEST_PLACES
    }
    taken = {id(each) for found in drawn.values() for each in found}
    return [each for each in findings if id(each) not in taken], drawn


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _findings(findings: Findings, metric: str, titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """One table of all that the cells measured, where there is more than the metric itself."""
    found = [each for each in findings if each["name"] != metric or each["of"]]
    if not found:
        return []
    lines = [
        _line(
            each["arm"],
            [
                each["control"] or NONE,
                titles[budget_key(each["budget"])],
                each["name"],
                ", ".join(f"{name} {value}" for name, value in each["of"].items()) or NONE,
                f"{each['mean']:.4g} {each['unit']}",
                {"higher": "higher is better", "lower": "lower is better"}.get(each["better"], NONE),
                str(each["n_seeds"]),
            ],
        )
        for each in found
    ]
    head = ["Arm", "Control", "Budget", "Measure", "Of", "Mean", "Direction", "Seeds"]
    return [
        {"title": "Other measures", "caption": "Means over seeds of all other measures", "head": head, "lines": lines}
    ]


def _training(curves: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for curve in curves:
        groups.setdefault(titles[budget_key(curve["budget"])], []).append(charts.training(curve))
    return [{"title": title, "panels": panels} for title, panels in groups.items()]


def _name_of(each: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    control = f" · {each['control']}" if each["control"] else ""
    return f"{each['arm']}{control} · {budget_label(each['budget'], task)} · seed {each['seed']}"


def _failures(failed: Sequence[Mapping[str, Any]], task: Mapping[str, Any]) -> dict[str, Any]:
    lines = [
        _line(
            each["arm"], [each["control"] or NONE, budget_label(each["budget"], task), str(each["seed"]), _status(each)]
        )
        for each in failed
    ]
    head = ["Arm", "Control", "Budget", "Seed", "What happened"]
    return {"caption": f"{len(failed)} cells without a score", "head": head, "lines": lines}


def _status(each: Mapping[str, Any]) -> str:
    first = each["error"].strip().partition("\n")[0]
    return f"{each['status'].replace('_', ' ')}: {first[:160]}"


def _costs(
    title: str, entries: Sequence[Mapping[str, Any]], costs: Sequence[Mapping[str, Any]], task: Mapping[str, Any]
) -> dict[str, Any]:
    spent = {(each["arm"], budget_key(each["budget"])): each for each in costs if each["control"] is None}
    seconds = {place: each["seconds"] for place, each in spent.items() if each["seconds"] is not None}
    chart = charts.cost(entries, seconds, task)
    lines = []
    for dot in chart["dots"]:
        each = spent[dot["arm"], budget_key(entries[0]["budget"])]
        lines.append(
            _line(f"{dot['number']}. {dot['arm']}", [dot["gain"], dot["seconds"], _memory(each["peak_memory"])])
        )
    head = ["Arm", f"Gain ({unit(task)})", "Seconds", "Peak memory"]
    label = f"{title}: gain against seconds; the table below has the figures"
    return {"title": title, "caption": title, "head": head, "lines": lines, "chart": chart, "label": label}


def _memory(size: int | None) -> str:
    return NONE if not size else f"{size / 2**20:,.0f} MiB"


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.1f} s"
        if seconds < 120
        else f"{seconds / 60:.1f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _repeats(study: str, records: Sequence[RunRecord], task: Mapping[str, Any]) -> list[dict[str, str]]:
    groups: dict[tuple[str, str, str], list[RunRecord]] = {}
    for record in sorted(records, key=lambda record: (record.cell.seed, record.hash)):
        cell = record.cell
        groups.setdefault((budget_key(cell.budget), cell.arm, cell.control or ""), []).append(record)
    repeats = []
    for _, group in sorted(groups.items(), key=lambda item: (item[0][1], item[0][2], item[0][0])):
        cell = group[0].cell
        folders = " ".join(shlex.quote(f"runs/{study}/{record.hash}") for record in group)
        plain = {**asdict(cell), "parameters": dict(cell.parameters)}
        del plain["seed"]
        plain["seeds"] = {str(record.cell.seed): record.hash for record in group}
        control = f" · {cell.control}" if cell.control else ""
        repeats.append(
            {
                "title": f"{cell.arm}{control} · {budget_label(cell.budget, task)}",
                "command": f"rm -r {folders}\ntransference run study.toml",
                "json": json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False, default=str),
            }
        )
    return repeats


def _environment(found: Mapping[str, Any]) -> dict[str, str]:
    title = f"Python {found['python']}, {found['platform']}, {found['device']}"
    return {"title": title, "json": json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False)}
