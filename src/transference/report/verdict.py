"""Did the secondary modality help the primary one? One plain sentence per label budget, and one for the study.

"helps" asks for four things of one arm that needs only the primary modality at test time: its gain over the strongest
arm that sees the primary modality alone has a 95 % interval above 0; its p-value stays below 0.05 after Holm's
correction over all such arms and budgets; its gain over the best of its controls, where controls were planned, has an
interval above 0 too; and nothing is missing that could say otherwise. Arm and reference share at least `FEWEST` seeds,
and for each seed of the arm the reference and every planned control have a score. Where something is missing, the
question is open.

Where a task is asked of both modalities (retrieval, zero-shot classification, generation), no arm can do it with the
primary modality alone: the reference is the study's baseline, and the same is asked of a gain over that.

"hurts" asks that even the best arm is told from 0 below that reference and below the baseline too: an arm that only a
stronger learner on the primary modality beats was not hurt by the other modality.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from transference.core.spec import OF_TWO
from transference.report.wording import amount, budget_key, budget_phrase, gain, listed, quantity, score

Entry = Mapping[str, Any]
Task = Mapping[str, Any]
Outcome = Literal["helps", "open", "regularises", "hurts", "nothing", "unknown"]
ALPHA = 0.05
FEWEST = 3  # seeds; from one seed, a fifth of simulated studies without a true gain said "helps"
REMAINS = 0.1  # of a gain; less than this share under a control is called none
HALF = 0.5  # of a gain; where a control keeps more than this share, the gain is called regularisation
_WHEN = {
    "shuffle": "when rows are shuffled",
    "noise": "when it is replaced by noise",
    "constant": "when it is replaced by a constant",
}
_MAKES = {
    "shuffle": "shuffled rows make",
    "noise": "noise in its place makes",
    "constant": "a constant in its place makes",
}
_FIRST = {"helps": 0, "open": 1, "regularises": 2}  # what of several arms decides; otherwise the best arm does
_STRENGTH: tuple[Outcome, ...] = ("helps", "open", "regularises", "hurts", "nothing", "unknown")


def verdicts(entries: Sequence[Entry], task: Task) -> dict[str, Any]:
    """The answers of a study.

    Parameters
    ----------
    entries
        Of a summary, in the order of their budgets.
    task
        "metric", "kind" and "baseline"; where known "primary" and "secondary" (a name or names).

    Returns
    -------
    "verdict" (one sentence, of the budget where most was gained, with the other budgets in brackets), "outcome", and
    "verdicts": a mapping per budget with "budget", "outcome", "text", "arm",
    "hurting" (arms that are told from 0 below the reference and below the baseline).
    """
    planned = _planned(entries)
    budgets: dict[str, list[Entry]] = {}
    for entry in entries:
        budgets.setdefault(budget_key(entry["budget"]), []).append(entry)
    answers = [_answer(group, planned, task) for group in budgets.values()]
    if not answers:
        return {"verdict": "No cell finished: nothing can be said.", "outcome": "unknown", "verdicts": []}
    lead = min(answers, key=lambda each: (_STRENGTH.index(each["outcome"]), -each["_gain"]))
    others = [each["_short"] for each in answers if each is not lead]
    text = lead["_text"]
    if others and all(each["outcome"] == "nothing" for each in answers):
        text = f"{_no_gain(task)} at any of the {len(answers)} budgets; {lead['_best']}."
    elif others:
        text = f"{text[:-1]} ({'; '.join(others)})."
    public = [{name: value for name, value in each.items() if name[0] != "_"} for each in answers]
    return {"verdict": text, "outcome": lead["outcome"], "verdicts": public}


def competes(entry: Entry) -> bool:
    """Whether an entry can win a verdict: no control, more than the primary modality seen, only it needed at test."""
    return entry["control"] is None and not entry["primary_only"] and not entry["needs_all_at_test"]


def told_from_0(entry: Entry) -> bool:
    """Whether a gain over the reference is more than chance, over enough seeds and corrected for all arms."""
    corrected = entry["p_semi_adjusted"]
    enough = corrected is not None and entry["gain_semi_seeds"] >= FEWEST
    return enough and corrected < ALPHA and (_above(entry, "gain_semi") or _below(entry, "gain_semi"))


class _Judged(NamedTuple):
    """What one arm says: `why` is the end of a sentence, where the question is open."""

    entry: Entry
    outcome: Outcome
    why: str = ""


def _planned(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Arm -> its controls: those of the data that any arm has, and arms of the study that are controls of this one."""
    everywhere = {entry["control"] for entry in entries if entry["control"] in _WHEN}
    own: dict[str, set[str]] = {}
    for entry in entries:
        own.setdefault(entry["arm"], set(everywhere)).update({entry["control"]} - {None})
    return {arm: sorted(controls) for arm, controls in own.items()}


def _answer(group: Sequence[Entry], planned: Mapping[str, Sequence[str]], task: Task) -> dict[str, Any]:
    """One budget's part of `verdicts`; keys with an underscore are for the study's sentence."""
    budget, where = group[0]["budget"], budget_phrase(group[0]["budget"], task)
    arms = [entry for entry in group if competes(entry) and entry["gain_semi"] is not None]
    arms.sort(key=lambda entry: (-entry["gain_semi"], entry["arm"]))
    if not arms:
        text = f"{_whether(task)} {where} is unknown: {_why_unknown(group, task)}."
        told = {"budget": budget, "outcome": "unknown", "text": text, "arm": None, "hurting": []}
        return {**told, "_text": text, "_short": f"unknown {where}", "_gain": 0.0, "_best": ""}
    judged = [_judge(entry, group, planned, task) for entry in arms]
    weighty = [each for each in judged if each.entry is arms[0] or told_from_0(each.entry)]
    chosen = min(weighty, key=lambda each: _FIRST.get(each.outcome, len(_FIRST)))
    text, short = _sentences(chosen, where, group, task)
    hurting = [each.entry["arm"] for each in judged if each.outcome == "hurts"]
    beside = f"{text[:-1]}; {listed(hurting)} {'hurts' if len(hurting) == 1 else 'hurt'}."
    full = beside if hurting and chosen.outcome != "hurts" else text
    told = {"budget": budget, "outcome": chosen.outcome, "text": full, "arm": chosen.entry["arm"], "hurting": hurting}
    best = _best(arms[0], group, task, f" {where}")
    return {**told, "_text": text, "_short": short, "_gain": chosen.entry["gain_semi"], "_best": best}


def _judge(entry: Entry, group: Sequence[Entry], planned: Mapping[str, Sequence[str]], task: Task) -> _Judged:
    if doubt := _doubt(entry, group, task):
        return _Judged(entry, "open", doubt)
    if not told_from_0(entry):
        return _Judged(entry, "nothing")
    if entry["gain_semi"] < 0:
        return _Judged(entry, "hurts" if _below(entry, "gain") and entry["gain_seeds"] >= FEWEST else "nothing")
    gaps = {control: _gap(entry, group, entry["arm"], control) for control in planned[entry["arm"]]}
    if lacking := [f"its control {control} {gap}" for control, gap in gaps.items() if gap]:
        return _Judged(entry, "open", f"but {listed(lacking)}")
    if entry["transferred"] is None or _above(entry, "transferred"):
        return _Judged(entry, "helps")
    if entry["transferred"] < HALF * entry["gain_semi"]:
        return _Judged(entry, "regularises")
    rest = gain(entry, "transferred", task)
    return _Judged(entry, "open", f"{_kept(entry, task)}; the difference, {rest}, may be 0")


def _doubt(entry: Entry, group: Sequence[Entry], task: Task) -> str:
    """Why a gain over the reference can not be judged."""
    reasons = []
    if entry["gain_semi_seeds"] < FEWEST:
        reasons.append(f"over too few seeds to tell ({entry['gain_semi_seeds']}, and {FEWEST} are needed)")
    if gap := _gap(entry, group, entry["reference"], None):
        title = "the baseline" if _of_two(task) else f"the strongest arm on {_primary(task)} alone"
        reasons.append(f"{entry['reference']}, {title}, {gap}")
    alone = [each for each in group if each["primary_only"] and each["control"] is None]
    if dead := [each["arm"] for each in alone if not each["n_seeds"]]:
        reasons.append(f"no cell of {listed(dead)}, on {_primary(task)} alone too, has a score")
    if entry["gain_semi_low"] is None and entry["gain_semi"]:
        reasons.append("it is the same in every test row, so that there is no interval")
    return f"but {listed(reasons)}" if reasons else ""


def _gap(entry: Entry, group: Sequence[Entry], arm: str, control: str | None) -> str:
    """Which seeds of an entry another one has no score for: "has no score for seed 4"."""
    scores = {seed for each in group if (each["arm"], each["control"]) == (arm, control) for seed in each["scores"]}
    missing = [seed for seed in entry["scores"] if seed not in scores]
    seeds = f"seed{'' if len(missing) == 1 else 's'} {listed(missing)}" if scores else "any seed"
    return f"has no score for {seeds}" if missing else ""


def _above(entry: Entry, name: str) -> bool:
    low: float | None = entry[f"{name}_low"]
    return low is not None and low > 0


def _below(entry: Entry, name: str) -> bool:
    high: float | None = entry[f"{name}_high"]
    return high is not None and high < 0


def _sentences(judged: _Judged, where: str, group: Sequence[Entry], task: Task) -> tuple[str, str]:
    """Of one budget: a whole sentence, and a few words for the brackets of another."""
    entry, outcome, why = judged
    arm, quoted = entry["arm"], gain(entry, "gain_semi", task)
    gains = f"{arm} gains {quoted}" if entry["gain_semi"] > 0 else f"best arm {arm}, {quoted}"
    if outcome == "helps":
        text = f"{_secondary(task)} {_verb('helps', task)} {_primary(task)} by {quoted} {where} through {arm}; "
        if _of_two(task):
            text = f"{arm} {_beats(task)} by {quoted} {where}; "
        return text + _remains(entry, task), f"{amount(entry['gain_semi'], task)} {where}"
    if outcome == "open":
        return f"{_whether(task)} {where} is open: {gains}, {why}.", f"open {where}"
    if outcome == "regularises":
        text = f"{_no_help(task)} {where}: {gains}, {_kept(entry, task)}: regularisation, not transfer."
        return text, f"only regularisation {where}"
    if outcome == "hurts":
        hurts = f"{_secondary(task)} {_verb('hurts', task)} {_primary(task)}"
        text = f"{_no_help(task) if _of_two(task) else hurts} {where}: even the best arm, {arm}, {quoted}"
        if entry["reference"] != task["baseline"]:
            text += f" against {entry['reference']} and {gain(entry, 'gain', task)} against {task['baseline']}"
        return f"{text}.", f"hurts {where}"
    beaten = told_from_0(entry) and _below(entry, "gain_semi")
    text = f"{_no_help(task) if beaten else _no_gain(task)} {where}; {_best(entry, group, task)}."
    return text, f"{'no help' if beaten else 'no gain shown'} {where}"


def _best(entry: Entry, group: Sequence[Entry], task: Task, where: str = "") -> str:
    """The best arm's gain; where it is told from 0 below the reference, also what that is, and the other gain."""
    arm, reference, quoted = entry["arm"], entry["reference"], gain(entry, "gain_semi", task)
    if _above(entry, "gain_semi") and not told_from_0(entry):
        p = entry["p_semi_adjusted"]
        corrected = f" (p = {p:.2g})" if p is not None else ""
        return f"best arm {arm}{where}: {quoted}, too little once all arms and budgets are counted{corrected}"
    if _of_two(task) or not (told_from_0(entry) and _below(entry, "gain_semi")):
        return f"best arm {arm}{where}: {quoted}"
    (mean,) = [each["mean"] for each in group if (each["arm"], each["control"]) == (reference, None)]
    text = f"no arm that uses {_secondary(task)} reaches {reference}, the strongest arm on {_primary(task)} alone"
    text += f"{where} ({score(mean, task)}); the best, {arm}, {quoted} against it"
    if entry["gain"] is None or reference == task["baseline"]:
        return text
    return f"{text}, gains {gain(entry, 'gain', task)} over {task['baseline']}"


def _why_unknown(group: Sequence[Entry], task: Task) -> str:
    finished = [entry for entry in group if entry["control"] is None and entry["n_seeds"]]
    if not finished:
        return "no arm finished"
    if not any(entry["primary_only"] for entry in finished) and not _of_two(task):
        return "no arm that sees the primary modality alone finished"
    if not any(competes(entry) for entry in finished):
        return "no arm that uses another modality in training alone finished"
    return "the arms that finished have no seed in common"


def _remains(entry: Entry, task: Task) -> str:
    if entry["transferred"] is None:
        return "no control was run, so transfer is not told from regularisation."
    rest, when = entry["gain_semi"] - entry["transferred"], _when(entry["best_control"])
    if rest <= REMAINS * entry["gain_semi"]:
        return f"none of it remains {when}."
    return f"{quantity(rest, task)} of it remain {when}."


def _kept(entry: Entry, task: Task) -> str:
    """What the best control gains over the reference, or loses."""
    kept, control = entry["gain_semi"] - entry["transferred"], entry["best_control"]
    if kept >= 0:
        return f"but also {amount(kept, task)} {_when(control)}"
    return f"and {_MAKES.get(control, f'the control {control} makes')} it worse by {quantity(-kept, task)}"


def _when(control: str) -> str:
    return _WHEN.get(control, f"under the control {control}")


def _of_two(task: Task) -> bool:
    return task["kind"] in OF_TWO


def _beats(task: Task) -> str:
    """ "beats word_space at retrieval of text from image"."""
    asked = {
        "retrieval": f"retrieval of {_secondary(task)} from",
        "generation": f"generation of {_secondary(task)} from",
    }
    what = asked.get(task["kind"], f"zero-shot classification through {_secondary(task)} of")
    return f"beats {task['baseline']} at {what} {_primary(task)}"


def _whether(task: Task) -> str:
    if _of_two(task):
        return f"Whether any arm {_beats(task)}"
    return f"Whether {_secondary(task)} {_verb('helps', task)} {_primary(task)}"


def _no_help(task: Task) -> str:
    if _of_two(task):
        return f"no arm {_beats(task)}"
    return f"{_secondary(task)} {_verb('does', task)} not help {_primary(task)}"


def _no_gain(task: Task) -> str:
    """For an interval around 0, which may be wide: that says less than "does not help"."""
    if _of_two(task):
        return f"that any arm {_beats(task)} can not be told"
    return f"no gain from {_secondary(task)} for {_primary(task)} can be told from 0"


def _secondary(task: Task) -> str:
    return listed(_names(task)) or "the secondary modality"


def _primary(task: Task) -> str:
    return str(task.get("primary") or "the primary modality")


def _names(task: Task) -> list[str]:
    given = task.get("secondary") or []
    return [given] if isinstance(given, str) else [str(name) for name in given]


def _verb(singular: str, task: Task) -> str:
    plural = {"helps": "help", "hurts": "hurt", "does": "do"}
    return plural[singular] if len(_names(task)) > 1 else singular
