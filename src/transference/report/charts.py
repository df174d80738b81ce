"""Where the marks of each chart lie: numbers for the page's templates, which draw them as inline SVG.

Row charts use shares of the width in percent, so that text keeps its size on a narrow screen; panels use a fixed
drawing area of `WIDTH` by `HEIGHT`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from transference.report.verdict import competes, told_from_0
from transference.report.wording import amount, budget_key, budget_label, interval, number, scale

WIDTH, HEIGHT = 260, 156
LEFT, RIGHT, TOP, BOTTOM = 40, 252, 10, 130
EDGE = 3.0  # percent of a row chart kept free at either side
STYLES = 6  # of lines in a panel
Entry = Mapping[str, Any]
Scale = Callable[[float], float]


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers, 1, 2 or 5 times a power of ten apart, from `low` to `high`.

    >>> ticks(-0.3, 2.2)
    [0.0, 0.5, 1.0, 1.5, 2.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _linear(low: float, high: float, start: float, end: float) -> Scale:
    """Values to places, kept within the drawing; 2 decimals, so that a page is the same on every machine."""
    span = (high - low) or 1.0
    return lambda value: round(start + (end - start) * min(1.0, max(0.0, (value - low) / span)), 2)


def _limits(values: Iterable[float], ends: Iterable[float]) -> tuple[float, float]:
    """A range that holds 0, all values, and intervals unless they are far longer than the values are apart."""
    inside = [0.0, *values]
    reach = max(inside) - min(inside) or 0.01
    low = max(min(inside + list(ends)), min(inside) - 1.5 * reach)
    high = min(max(inside + list(ends)), max(inside) + 1.5 * reach)
    return low, high


def _axis(entries: Sequence[Entry], name: str, task: Mapping[str, Any]) -> tuple[Scale, list[dict[str, Any]]]:
    ends = [end for entry in entries for end in _ends(entry, name)]
    low, high = _limits([entry[name] for entry in entries], ends)
    at = _linear(low, high, EDGE, 100 - EDGE)
    factor = scale(task)
    return at, [{"at": at(each / factor), "text": f"{each:g}"} for each in ticks(low * factor, high * factor)]


def _ends(entry: Entry, name: str) -> tuple[float, float]:
    """Of an interval; the value itself where there is none."""
    prefix = "" if name == "mean" else f"{name}_"
    low, high = entry[f"{prefix}low"], entry[f"{prefix}high"]
    return (entry[name], entry[name]) if low is None or high is None else (low, high)


def _mark(entry: Entry, name: str, at: Scale, task: Mapping[str, Any]) -> dict[str, Any]:
    value, (low, high) = entry[name], _ends(entry, name)
    text = number(value, task, sign=True) + interval(entry, name, task)
    return {"at": at(value), "low": at(low), "high": at(high), "text": text, "label": f"{amount(value, task)}, {text}"}


def forest(entries: Sequence[Entry], task: Mapping[str, Any]) -> dict[str, Any] | None:
    """Gains over the strongest arm that sees the primary modality alone, at one budget, best first."""
    shown = [entry for entry in entries if entry["control"] is None and entry["gain_semi"] is not None]
    if not shown:
        return None
    shown.sort(key=lambda entry: (-entry["gain_semi"], entry["arm"]))
    at, marks = _axis(shown, "gain_semi", task)
    rows = []
    for entry in shown:
        good = "good" if entry["gain_semi"] > 0 else "bad"
        rows.append(
            {
                "arm": entry["arm"],
                "role": role(entry),
                "shape": "diamond" if entry["needs_all_at_test"] else "circle" if competes(entry) else "square",
                "tone": good if told_from_0(entry) else "plain",
                **_mark(entry, "gain_semi", at, task),
            }
        )
    return {"reference": shown[0]["reference"], "rows": rows, "ticks": marks, "zero": at(0.0)}


def role(entry: Entry) -> str:
    """What an arm is for, where it cannot win the verdict."""
    if entry["needs_all_at_test"]:
        return "upper bound: reads every modality at test"
    return "sees the primary modality alone" if entry["primary_only"] else ""


def controls(entries: Sequence[Entry], task: Mapping[str, Any]) -> dict[str, Any] | None:
    """Gains over the baseline of the arms that have controls, and of those controls, at one budget."""
    shown = [entry for entry in entries if entry["gain"] is not None]
    controlled = {entry["arm"] for entry in shown if entry["control"]}
    groups = [entry for entry in shown if entry["control"] is None and entry["arm"] in controlled]
    if not groups:
        return None
    groups.sort(key=lambda entry: (-entry["gain"], entry["arm"]))
    at, marks = _axis([entry for entry in shown if entry["arm"] in controlled], "gain", task)
    names = sorted({entry["control"] for entry in shown if entry["control"]})
    shapes = {name: ("square", "triangle", "diamond", "cross")[k % 4] for k, name in enumerate(names)}
    rows = []
    for group in groups:
        mine = [entry for entry in shown if entry["arm"] == group["arm"]]
        mine.sort(key=lambda entry: entry["control"] or "")
        lines = [
            {
                "name": entry["control"] or entry["arm"],
                "shape": shapes[entry["control"]] if entry["control"] else "circle",
                **_mark(entry, "gain", at, task),
            }
            for entry in mine
        ]
        left = None if group["transferred"] is None else _mark(group, "transferred", at, task)["text"]
        rows.append({"arm": group["arm"], "lines": lines, "transferred": left, "best": group["best_control"]})
    return {"rows": rows, "ticks": marks, "zero": at(0.0)}


def efficiency(entries: Sequence[Entry], budgets: Sequence[Any], task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A panel per arm: its mean score at every budget, with its interval, beside the baseline's."""
    places = {budget_key(budget): k for k, budget in enumerate(budgets)}
    shown = [entry for entry in entries if entry["control"] is None and entry["mean"] is not None]
    if len(places) < 2 or not shown:
        return []
    x = _linear(0, len(places) - 1, LEFT + 14, RIGHT - 14)
    y, across = _vertical([entry["mean"] for entry in shown], scale(task))
    curves: dict[str, list[Entry]] = {}
    for entry in shown:
        curves.setdefault(entry["arm"], []).append(entry)

    def points(arm: str) -> list[tuple[float, float]]:
        return [(x(places[budget_key(entry["budget"])]), y(entry["mean"])) for entry in curves.get(arm, [])]

    down = [{"at": x(k), "text": budget_label(budget, task)} for k, budget in enumerate(budgets)]
    panels = []
    for arm, curve in curves.items():
        if arm == task["baseline"]:
            continue
        ends = [(x(places[budget_key(one["budget"])]), *map(y, _ends(one, "mean"))) for one in curve]
        told = "; ".join(
            f"{budget_label(one['budget'], task)}: {number(one['mean'], task)}{interval(one, 'mean', task)}"
            for one in curve
        )
        panels.append(
            {"title": arm, "role": role(curve[0]), "label": told, "x": down, "y": across}
            | {"line": points(arm), "base": points(task["baseline"])}
            | {"band": [(px, high) for px, _, high in ends] + [(px, low) for px, low, _ in reversed(ends)]}
            | {"gain": max((one["gain"] for one in curve if one["gain"] is not None), default=-math.inf)}
        )
    return sorted(panels, key=lambda panel: (-panel["gain"], panel["title"]))


def _vertical(values: Sequence[float], factor: float) -> tuple[Scale, list[dict[str, Any]]]:
    low, high = min(values), max(values)
    room = 0.12 * (high - low) or 0.05 * (abs(high) or 1.0)
    y = _linear(low - room, high + room, BOTTOM, TOP)
    marks = ticks((low - room) * factor, (high + room) * factor, 4)
    return y, [{"at": y(each / factor), "text": f"{each:g}"} for each in marks]


def training(curve: Mapping[str, Any]) -> dict[str, Any]:
    """A panel of one arm's losses; the axis is logarithmic where they span more than a factor of 30."""
    values = [value for line in curve["losses"].values() for value in line if value is not None]
    log = bool(values) and min(values) > 0 and max(values) > 30 * min(values)
    lifted: Scale = math.log10 if log else float
    low, high = (lifted(min(values)), lifted(max(values))) if values else (0.0, 1.0)
    y = _linear(low, high, BOTTOM, TOP)
    if log:
        powers = range(math.floor(low), math.ceil(high) + 1)
        across = [{"at": y(k), "text": f"{10.0**k:g}"} for k in powers if low <= k <= high]
    else:
        across = [{"at": y(each), "text": f"{each:g}"} for each in ticks(low, high, 4)]
    last = curve["update"][-1]
    x = _linear(0, last, LEFT, RIGHT)
    lines = [
        {
            "name": name,
            "style": k % STYLES,
            "points": [(x(u), y(lifted(v))) for u, v in zip(curve["update"], line, strict=True) if v is not None],
            "last": f"{next((v for v in reversed(line) if v is not None), math.nan):.3g}",
        }
        for k, (name, line) in enumerate(curve["losses"].items())
    ]
    down = [{"at": x(each), "text": f"{each:g}"} for each in ticks(0, last, 4)]
    told = ", ".join(f"{line['name']} ends at {line['last']}" for line in lines)
    return {"title": curve["arm"], "label": told, "lines": lines, "x": down, "y": across, "log": log}


def along(findings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A panel per arm of one measure that was taken at several places of a scale, with a line for each of its controls.

    The only value of each one's ``of`` is the place.
    """
    arms: dict[str, dict[str | None, list[tuple[float, float]]]] = {}
    for each in findings:
        (place,) = each["of"].values()
        arms.setdefault(each["arm"], {}).setdefault(each["control"], []).append((float(place), each["mean"]))
    places = [float(place) for each in findings for place in each["of"].values()]
    x = _linear(min(places), max(places), LEFT, RIGHT)
    y, across = _vertical([each["mean"] for each in findings], 1.0)
    down = [{"at": x(each), "text": f"{each:g}"} for each in ticks(min(places), max(places))]
    panels = []
    for arm, curves in arms.items():
        lines, told = [], []
        for style, control in enumerate(sorted(curves, key=lambda name: name or "")):
            curve, name = sorted(curves[control]), control or arm
            points = [(x(place), y(value)) for place, value in curve]
            lines.append({"name": name, "style": style % STYLES, "points": points, "last": ""})
            told.append(f"{name}: " + ", ".join(f"{value:.3g} at {place:g}" for place, value in curve))
        panels.append({"title": arm, "label": "; ".join(told), "lines": lines, "x": down, "y": across, "log": False})
    return panels


def cost(entries: Sequence[Entry], seconds: Mapping[tuple[str, str], float], task: Mapping[str, Any]) -> dict[str, Any]:
    """Gain over the strongest primary-only arm against seconds of a cell, a numbered dot per arm of one budget.

    `seconds` is by (arm, budget key); the reference itself lies at 0.
    """
    shown = [
        ({**entry, "gain_semi": 0.0 if entry["arm"] == entry["reference"] else entry["gain_semi"]}, spent)
        for entry in entries
        if entry["control"] is None and entry["n_seeds"]
        if (spent := seconds.get((entry["arm"], budget_key(entry["budget"])), 0.0)) > 0
    ]
    shown = [(entry, spent) for entry, spent in shown if entry["gain_semi"] is not None]
    if not shown:
        return {"dots": []}
    times = [math.log10(spent) for _, spent in shown]
    x = _linear(min(times) - 0.05, max(times) + 0.05, 8, 100 - EDGE)
    low, high = _limits([entry["gain_semi"] for entry, _ in shown], [])
    room = 0.08 * (high - low)
    y = _linear(low - room, high + room, 270, 20)
    factor = scale(task)
    marks = ticks((low - room) * factor, (high + room) * factor)
    across = [{"at": y(each / factor), "text": f"{each:g}"} for each in marks]
    steps = [math.log10(f) + k for k in range(-4, 8) for f in (1, 2, 5)]
    down = [{"at": x(k), "text": f"{10**k:.3g}"} for k in steps if min(times) - 0.05 <= k <= max(times) + 0.05]
    dots = [
        {
            "number": k,
            "x": x(math.log10(spent)),
            "y": y(entry["gain_semi"]),
            "arm": entry["arm"],
            "seconds": f"{spent:.3g}",
            "gain": number(entry["gain_semi"], task, sign=True),
        }
        for k, (entry, spent) in enumerate(sorted(shown, key=lambda each: (-each[0]["gain_semi"], each[0]["arm"])), 1)
    ]
    return {"dots": dots, "x": down, "y": across, "zero": y(0.0)}
