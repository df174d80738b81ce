"""The catalogue under docs/methods: a page for each method, from its source, and from what studies measured of it.

    python docs/build.py                    # writes the pages anew
    python docs/build.py runs/webkb ...     # takes the rows of finished studies into docs/measured.csv first

A test holds the pages against the source, so that they can not fall behind it.
"""

from __future__ import annotations

import csv
import inspect
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from transference.core.errors import ConfigError, must_be
from transference.core.method import Card, Method
from transference.core.metrics import metric
from transference.core.registry import FAMILIES, docstring, find, names, summary
from transference.experiment.arms import OF_THE_STUDY
from transference.experiment.protocol import TASK_KEYS

DOCS = Path(__file__).resolve().parent
MEASURED = DOCS / "measured.csv"
COLUMNS = ("study", "primary", "secondary", "metric", "seeds", "labels", "method", "score")
INTERVALS = ("gain", "gain_semi", "transferred")
ALL = (*COLUMNS, *(f"{name}{end}" for name in INTERVALS for end in ("", "_low", "_high")), "p", "seconds")
ALPHA = 0.05
NONE = "–"
Row = dict[str, str]


def pages(measured: Sequence[Row]) -> dict[str, str]:
    """The text of every page by its file name."""
    sources = references((DOCS / "references.bib").read_text(encoding="utf-8"))
    found = {"README.md": index(measured)}
    return found | {f"{name}.md": page(name, measured, sources) for family in FAMILIES for name in names(family)}


def page(name: str, measured: Sequence[Row], sources: dict[str, str]) -> str:
    """What one method is, how it is used and what was measured of it."""
    cls = find(name)
    card, (fewest, most) = cls.card, cls.card.modalities
    count = f"{fewest}" if most == fewest else f"{fewest} or more" if most is None else f"{fewest} to {most}"
    parts = [
        f"# `{name}`",
        docstring(name),
        "## Card",
        "\n".join(
            [
                f"- reads at test time: {card.at_test}",
                f"- needs in training: {', '.join(sorted(card.needs))}",
                f"- modalities: {count}",
                f"- tasks: {', '.join(sorted(card.tasks))}",
                f"- source: {sources.get(card.reference, NONE)}",
            ]
        ),
        "## Parameters",
        f"```text\n{inspect.getdoc(cls)}\n```",
        _defaults(cls),
        "## Measured",
        _table([row for row in measured if row["method"] == name]),
        _more(name, card),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _defaults(cls: type[Method]) -> str:
    """What each parameter is when it is left out."""
    given = [each for each in inspect.signature(cls).parameters.values() if each.name not in OF_THE_STUDY]
    told = ", ".join(f"`{each.name} = {each.default!r}`" for each in given)
    return f"Defaults: {told}. In a study the schedule is that of its `[schedule]`, and the seed each of its own."


def _more(name: str, card: Card) -> str:
    """Where else there are results: for tasks beyond labels, and in other studies."""
    links = ["[beyond labels](../beyond.md)"] if card.tasks & TASK_KEYS.keys() else []
    links += ["[studies](../studies.md)"] if f"`{name}`" in (DOCS / "studies.md").read_text(encoding="utf-8") else []
    return f"More results: {' and '.join(links)}." if links else ""


def index(measured: Sequence[Row]) -> str:
    """All methods with their first lines, and at a glance what each did for each pair of modalities."""
    lines = [
        "# The methods",
        "A page each: the equation, when to use it, what it costs, where it departs from its source, its parameters "
        "and what was measured. `docs/build.py` writes them from the source and from `docs/measured.csv`.",
    ]
    for family in FAMILIES:
        rows = [f"| [`{name}`]({name}.md) | {summary(name)} |" for name in names(family)]
        lines.append("\n".join([f"## {family}", "", "| id | what |", "|---|---|", *rows]))
    if not measured:
        return "\n\n".join(lines) + "\n"
    lines += [
        "## At a glance",
        "Gain over `unimodal` in points (`fusion.*` need every modality at test time, all others the primary one); "
        f"{_seeds(measured)}. A word stands where the gain is told from 0 after Holm's correction over all arms and "
        "budgets of the study: "
        "**transfers** where it is told from 0 beside the best control too, *regularises* where not, *hurts* below "
        "0. A number without a word may be 0. The verdict of a report is stricter: it compares with the strongest arm "
        "that sees the primary modality alone, and says *regularises* only where a control keeps more than half.",
        glance(measured),
    ]
    return "\n\n".join(lines) + "\n"


def glance(measured: Sequence[Row]) -> str:
    """Studies and budgets by methods."""
    places = list(dict.fromkeys((row["study"], row["labels"]) for row in measured))
    titles = {(row["study"], row["labels"]): f"{_pair(row)}, {row['labels']}" for row in measured}
    found = {(row["study"], row["labels"], row["method"]): _meaning(row) for row in measured if row["gain"]}
    methods = sorted({row["method"] for row in measured} - {"unimodal"})
    lines = [_line(["method", *(titles[place] for place in places)]), "|---|" + "---|" * len(places)]
    for method in methods:
        cells = [found.get((*place, method), "") for place in places]
        if any(cells):
            lines.append(_line([f"[`{method}`]({method}.md)", *cells]))
    return "\n".join(lines)


def references(text: str) -> dict[str, str]:
    """Key -> authors (year), title, of a BibTeX file."""
    found = {}
    for key, body in re.findall(r"@\w+\{([^,]+),(.*?)\n\}", text, re.DOTALL):
        fields = dict(re.findall(r"(\w+)\s*=\s*\{(.*)\},?", body))
        last = [author.partition(",")[0] for author in fields.get("author", "").split(" and ")]
        who = f"{last[0]} et al." if len(last) > 2 else " and ".join(last)
        found[key] = re.sub(r"\\.|[{}]", "", f"{who} ({fields.get('year', '')}), {fields.get('title', '')} [{key}]")
    return found


def taken(folder: Path) -> list[Row]:
    """The rows of a finished study: of each method with its defaults, without control.

    Numbers are those of the summary; they are rounded where they are shown, after all is decided.

    Raises
    ------
    ConfigError
        Where gains are not over `unimodal` with its defaults.
    """
    told, written = (json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("summary", "study"))
    task, arms = told["task"], written["config"]["arms"]
    if arms[task["baseline"]] != {"method": "unimodal"}:
        subject = f"The baseline of {told['study']!r}"
        raise ConfigError(must_be(subject, "'unimodal' with its defaults", task["baseline"], "Leave this study out."))
    seconds = {(str(e["budget"]), e["arm"], e["control"]): e["seconds"] for e in told["cost"]["entries"]}
    unit = 100 if metric(told["metric"]).bounds == (0, 1) else 1
    rows = []
    for entry in told["entries"]:
        if entry["control"] is not None or arms[entry["arm"]] != {"method": entry["arm"]}:
            continue
        row: dict[str, Any] = {
            "study": told["study"],
            "primary": task["primary"],
            "secondary": " ".join(task["secondary"]),
            "metric": told["metric"],
            "seeds": entry["n_seeds"],
            "labels": entry["budget"],
            "method": entry["method"],
            "score": _written(entry["mean"], unit),
            "p": _written(entry["p_adjusted"]),
            "seconds": _written(seconds[str(entry["budget"]), entry["arm"], None]),
        }
        ends = [f"{name}{end}" for name in INTERVALS for end in ("", "_low", "_high")]
        row |= {name: _written(entry[name], unit) for name in ends}
        rows.append({key: str(value) for key, value in row.items()})
    return rows


def read() -> list[Row]:
    """docs/measured.csv."""
    with MEASURED.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _table(rows: Sequence[Row]) -> str:
    if not rows:
        return "Not yet in a study."
    titles = [
        "primary ← secondary",
        "labels",
        "score",
        "gain over `unimodal`",
        "over primary-only",
        "transferred",
        "seconds",
    ]
    lines = [_line(titles), "|---|---|---:|---|---|---|---:|"]
    for row in rows:
        shown = [_interval(row, name) for name in INTERVALS]
        score = f"{float(row['score']):.1f} {row['metric']}"
        lines.append(_line([_pair(row), row["labels"], score, *shown, f"{float(row['seconds']):.1f}"]))
    return "\n".join(lines)


def _pair(row: Row) -> str:
    return f"{row['study'].rpartition('-')[2]}: {row['primary']} ← {row['secondary'].replace(' ', ', ')}"


def _interval(row: Row, name: str) -> str:
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    shown = f"{float(value):+.1f}" if value else NONE
    return f"{shown} [{float(low):.1f}, {float(high):.1f}]" if low else shown


def _meaning(row: Row) -> str:
    shown = f"{float(row['gain']):+.1f}"
    if not row["p"] or float(row["p"]) >= ALPHA:
        return shown
    if float(row["gain"]) < 0:
        return f"{shown} *hurts*"
    if not row["transferred_low"]:
        return f"{shown} (no control)"
    return f"**{shown} transfers**" if float(row["transferred_low"]) > 0 else f"{shown} *regularises*"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _seeds(rows: Sequence[Row]) -> str:
    least, most = (end(int(row["seeds"]) for row in rows) for end in (min, max))
    return f"{most} seeds" if least == most else f"{least} to {most} seeds"


def _written(value: float | None, unit: float = 1) -> str:
    """With the 9 digits of summary.json: a number that is not 0 is not written as 0."""
    return "" if value is None else f"{unit * value:.9g}"


def main(folders: Sequence[str]) -> None:
    """Take in studies, then write the pages."""
    new = [row for folder in folders for row in taken(Path(folder))]
    replaced = {row["study"] for row in new}
    rows = [row for row in read() if row["study"] not in replaced] if MEASURED.is_file() else []
    rows = sorted([*rows, *new], key=lambda row: row["study"])
    with MEASURED.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ALL, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    target = DOCS / "methods"
    target.mkdir(exist_ok=True)
    made = pages(read())
    for old in target.glob("*.md"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (target / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
