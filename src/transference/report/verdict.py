"""Did the secondary modality help the primary one? One plain sentence per label budget, and one for the study.

"helps" asks for three things of one arm that needs only the primary modality at test time: its gain over the strongest
arm that sees the primary modality alone has a 95 % interval above 0, its p-value stays below 0.05 after Holm's
correction over all such arms and budgets, and, where control arms were run, its gain over the best of them has an
interval above 0 too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Outcome = Literal["helps", "unclear", "regularises", "hurts", "nothing", "unknown"]
ALPHA = 0.05
REMAINS = 0.1  # of a gain; less than this share under a control is called none
_POINTS = frozenset({"accuracy", "auroc", "macro_f1"})
_CONTROLS = {
    "shuffle": "when rows are shuffled",
    "noise": "when it is replaced by noise",
    "constant": "when it is replaced by a constant",
}
_STRENGTH: tuple[Outcome, ...] = ("helps", "unclear", "regularises", "hurts", "nothing", "unknown")


def verdicts(entries: Sequence[Mapping[str, Any]], task: Mapping[str, Any]) -> dict[str, Any]:
    """The answers of a study.

    Parameters
    ----------
    entries
        Of a summary, in the order of their budgets.
    task
        "metric" and "kind"; where known "primary", "secondary" (a name or names) and "unit" of the target.

    Returns
    -------
    "verdict" (one sentence, of the budget where most was gained, with the other budgets in brackets), "outcome", and
    "verdicts": a mapping per budget with "budget", "outcome", "text", "arm",
    "hurting" (arms that are significantly worse than the reference).
    """
    budgets: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        budgets.setdefault(budget_key(entry["budget"]), []).append(entry)
    answers = [_answer(group, task) for group in budgets.values()]
    if not answers:
        return {"verdict": "No cell finished: nothing can be said.", "outcome": "unknown", "verdicts": []}
    lead = min(answers, key=lambda each: (_STRENGTH.index(each["outcome"]), -each["_gain"]))
    others = [each["_short"] for each in answers if each is not lead]
    text = lead["_text"]
    if others and all(each["outcome"] == "nothing" for each in answers):
        text = (
            f"{_secondary(task)} {_verb('does', task)} not help {_primary(task)} at any of the {len(answers)} budgets; "
            f"best arm {lead['_best']}."
        )
    elif others:
        text = f"{text[:-1]} ({'; '.join(others)})."
    public = [{name: value for name, value in each.items() if name[0] != "_"} for each in answers]
    return {"verdict": text, "outcome": lead["outcome"], "verdicts": public}


def _answer(entries: Sequence[Mapping[str, Any]], task: Mapping[str, Any]) -> dict[str, Any]:
    """One budget's part of `verdicts`; keys with an underscore are for the study's sentence."""
    budget = entries[0]["budget"]
    where = budget_phrase(budget, task)
    who, whom, do = _secondary(task), _primary(task), _verb("does", task)
    arms = [entry for entry in entries if competes(entry) and entry["gain_semi"] is not None]
    arms.sort(key=lambda entry: (-entry["gain_semi"], entry["arm"]))
    if not arms:
        text = f"Whether {who} {_verb('helps', task)} {whom} {where} is unknown: {_why(entries)}."
        told = {"budget": budget, "outcome": "unknown", "text": text, "arm": None, "hurting": []}
        return {**told, "_text": text, "_short": f"unknown {where}", "_gain": 0.0, "_best": ""}
    better = [entry for entry in arms if _significant(entry) and entry["gain_semi"] > 0]
    hurting = [entry["arm"] for entry in arms if _significant(entry) and entry["gain_semi"] < 0]
    proven = [entry for entry in better if entry["transferred"] is None or entry["transferred_low"] > 0]
    chosen = (proven or better or arms)[0]
    arm, gain = chosen["arm"], _gain(chosen, "gain_semi", task)
    outcome: Outcome
    if proven:
        outcome, short = "helps", f"{amount(chosen['gain_semi'], task)} {where}"
        text = f"{who} {_verb('helps', task)} {whom} by {gain} {where} through {arm}; {_remains(chosen, task)}"
    elif better:
        kept = amount(chosen["gain_semi"] - chosen["transferred"], task)
        kept = f"{arm} gains {gain}, but also {kept} {_control(chosen['best_control'])}"
        if chosen["transferred"] < chosen["gain_semi"] / 2:
            outcome, short = "regularises", f"only regularisation {where}"
            text = f"{who} {do} not help {whom} {where}: {kept}: regularisation, not transfer."
        else:
            outcome, short = "unclear", f"open {where}"
            rest = _gain(chosen, "transferred", task)
            text = f"Whether {who} {_verb('helps', task)} {whom} {where} is open: {kept}; "
            text += f"the difference, {rest}, may be 0."
    elif arm in hurting:
        outcome, short = "hurts", f"hurts {where}"
        text = f"{who} {_verb('hurts', task)} {whom} {where}: even the best arm, {arm}, {gain}."
    else:
        outcome, short = "nothing", f"no help {where}"
        text = f"{who} {do} not help {whom} {where}; best arm {arm}: {gain}."
    main = text
    if hurting and outcome != "hurts":
        text = f"{text[:-1]}; {_list(hurting)} {'hurts' if len(hurting) == 1 else 'hurt'}."
    told = {"budget": budget, "outcome": outcome, "text": text, "arm": arm, "hurting": hurting}
    best = f"{arm} {where}: {gain}"
    return {**told, "_text": main, "_short": short, "_gain": chosen["gain_semi"], "_best": best}


def competes(entry: Mapping[str, Any]) -> bool:
    """Whether an entry can win a verdict: no control, more than the primary modality seen, only it needed at test."""
    return entry["control"] is None and not entry["primary_only"] and not entry["needs_all_at_test"]


def _significant(entry: Mapping[str, Any]) -> bool:
    outside = entry["gain_semi_low"] > 0 or entry["gain_semi_high"] < 0
    return outside and entry["p_semi_adjusted"] < ALPHA


def _why(entries: Sequence[Mapping[str, Any]]) -> str:
    if not any(entry["primary_only"] and entry["control"] is None for entry in entries):
        return "no arm that sees the primary modality alone finished"
    return "no arm that uses another modality in training alone finished beside it"


def _remains(entry: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    if entry["transferred"] is None:
        return "no control was run, so transfer is not told from regularisation."
    rest = entry["gain_semi"] - entry["transferred"]
    control = _control(entry["best_control"])
    if rest <= REMAINS * entry["gain_semi"]:
        return f"none of it remains {control}."
    return f"{number(rest, task)} {unit(task)} of it remain {control}."


def _control(name: str) -> str:
    return _CONTROLS.get(name, f"under the control {name}")


def _secondary(task: Mapping[str, Any]) -> str:
    return _list(_names(task)) or "the secondary modality"


def _primary(task: Mapping[str, Any]) -> str:
    return str(task.get("primary") or "the primary modality")


def _names(task: Mapping[str, Any]) -> list[str]:
    given = task.get("secondary") or []
    return [given] if isinstance(given, str) else [str(name) for name in given]


def _verb(singular: str, task: Mapping[str, Any]) -> str:
    plural = {"helps": "help", "hurts": "hurt", "does": "do"}
    return plural[singular] if len(_names(task)) > 1 else singular


def _list(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def scale(task: Mapping[str, Any]) -> float:
    """What a score is multiplied by to be shown."""
    return 100.0 if task["metric"] in _POINTS else 1.0


def unit(task: Mapping[str, Any]) -> str:
    """Of a gain, in words: points are hundredths of a score in [0, 1]."""
    if task["metric"] in _POINTS:
        return "points"
    if task["metric"] == "log_loss":
        return "nats"
    return f"{task['unit']} of {task['metric']}" if task.get("unit") else f"of {task['metric']}"


def number(value: float, task: Mapping[str, Any], sign: bool = False) -> str:
    """One score or gain: points with one decimal, other units with three significant digits."""
    shown = round(value * scale(task), 1) if scale(task) != 1 else float(f"{value:.3g}")
    text = f"{shown + 0.0:.1f}" if scale(task) != 1 else f"{shown + 0.0:.6g}"
    return f"+{text}" if sign and shown >= 0 else text


def amount(value: float, task: Mapping[str, Any]) -> str:
    """A gain with its sign and unit: "+21.3 points"."""
    return f"{number(value, task, sign=True)} {unit(task)}"


def _gain(entry: Mapping[str, Any], name: str, task: Mapping[str, Any]) -> str:
    low, high = (number(entry[f"{name}_{end}"], task) for end in ("low", "high"))
    return f"{amount(entry[name], task)} [{low}, {high}]"


def budget_key(budget: Any) -> str:
    """One text per budget, whatever its type."""
    return json.dumps(budget, sort_keys=True, ensure_ascii=False)


def budget_label(budget: Any, task: Mapping[str, Any]) -> str:
    """A budget in two or three words: "2 per class", "10 %", "all", "3 course + 9 other"."""
    if isinstance(budget, Mapping):
        return " + ".join(f"{count} {name}" for name, count in sorted(budget.items()))
    if isinstance(budget, float) and budget <= 1:
        return f"{100 * budget:g} %"
    if isinstance(budget, int | float):
        return f"{budget:g} per class" if task.get("kind") == "classification" else f"{budget:g} rows"
    return str(budget)


def budget_phrase(budget: Any, task: Mapping[str, Any]) -> str:
    """A budget in a sentence: "at 2 labels per class"."""
    if budget == "all":
        return "with all labels"
    if isinstance(budget, Mapping):
        return f"at {budget_label(budget, task)} labels"
    if isinstance(budget, float) and budget <= 1:
        return f"with {100 * budget:g} % of the labels"
    if isinstance(budget, int | float):
        per = " per class" if task.get("kind") == "classification" else ""
        return f"at {budget:g} label{'' if budget == 1 else 's'}{per}"
    return f"at the budget {budget}"
