"""A commented study file from a table: what its columns look like, and what can be changed."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transference.core.errors import ConfigError, did_you_mean
from transference.core.registry import names, summary
from transference.data.guess import Roles, guess_table, roles_of
from transference.data.modality import FINE_TUNED, ModalityConfig
from transference.data.rawtable import RawTable, read_table
from transference.experiment.config import SAFE_NAME

BARE = re.compile(r"[A-Za-z0-9_-]+")
CLASSES = 20  # a column of numbers with more different values than this is a value to be predicted, not a class
STARTING_ARMS = ("transfer.distillation", "colearning.alignment.latent", "induction.self_training")


def write_study(rows: str | Path, *, primary: str, label: str, output: str | Path = "study.toml") -> str:
    """The text of a study file for a table.

    Parameters
    ----------
    rows
        A CSV or Parquet file.
    primary
        The modality that will be there at run time: a column, or the common beginning of a group of columns, with
        or without ``_*`` behind it.
    label
        The column to predict.
    output
        Where the text will be written; the path of the table is given relative to its folder.

    Raises
    ------
    ConfigError
        When there is no such label or modality, or the table holds nothing but the primary modality.
    """
    table = read_table(rows)
    if label not in table.columns:
        raise ConfigError(table.missing(label, "the label"))
    if primary.endswith("*"):
        primary = primary.removesuffix("*").rstrip("_")
    modalities = guess_table(table, exclude=[label], apart=[primary])
    if primary not in modalities:
        raise ConfigError(
            f"There is no modality {primary!r} in {str(rows)!r} to be primary. {did_you_mean(primary, modalities)}"
        )
    roles = roles_of(table, label=label)
    secondary = [name for name in modalities if name != primary]
    if not secondary:
        raise ConfigError(
            f"{str(rows)!r} holds no modality but {primary!r}, and a study needs a second one to learn from. "
            "Add a column or a group of columns."
        )
    task = _task(table.columns[label])
    blocks = [
        _head(table, rows, output),
        _data(table, roles, primary, secondary, label, task, Path(rows), Path(output)),
        *(_modality(name, modalities[name], table) for name in (primary, *secondary)),
        _study(table, label, task),
        _arms(),
    ]
    return "\n".join(blocks)


def _head(table: RawTable, rows: str | Path, output: str | Path) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", table.path.stem).strip("-_") or "study"
    name = name if SAFE_NAME.fullmatch(name) else "study"
    return (
        f"# A study of {len(table)} rows of {table.path.name}. The modalities below are guesses: look them over, then\n"
        f"#   transference check {Path(output).name}\n"
        f"#   transference run {Path(output).name}\n\n"
        f"name = {_text(name)}  # of the folder below runs/\n"
    )


def _data(
    table: RawTable,
    roles: Roles,
    primary: str,
    secondary: Sequence[str],
    label: str,
    task: str,
    rows: Path,
    output: Path,
) -> str:
    path = Path(os.path.relpath(rows.resolve(), output.resolve().parent)).as_posix()
    lines = [
        "[data]",
        f"manifest = {_text(path)}  # relative to this file",
        f"primary = {_text(primary)}  # what you will have at run time",
        f"secondary = [{', '.join(map(_text, secondary))}]  # what helps in training only",
        f"label = {_text(label)}  # empty cells are unlabelled rows, and are used as such",
        f"task = {_text(task)}",
        *_column("split", roles.split, '"train" or "test" in every row; drawn for each seed when left out'),
        *_column("group", roles.group, "never divided between training and test: a person, a recording"),
        *_column("id", roles.id, "a unique name for each row"),
        "test = 0.25  # share of the rows that test, where no split column says",
    ]
    return "\n".join(lines) + "\n"


def _column(role: str, column: str | None, about: str) -> list[str]:
    return [f'# {role} = "COLUMN"  # {about}' if column is None else f"{role} = {_text(column)}  # {about}"]


def _modality(name: str, config: ModalityConfig, table: RawTable) -> str:
    lines = [f"[data.modalities.{name if BARE.fullmatch(name) else _text(name)}]"]
    for key, value in config.model_dump(mode="json", exclude_defaults=True).items():
        lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
    columns = [config.column] if config.column else [each for part in config.columns for each in table.match(part)]
    empty = sum(all(table.columns[each][row] in (None, "") for each in columns) for row in range(len(table)))
    if empty:
        lines.append(f"# {empty} of {len(table)} rows lack it")
    if config.kind in ("text", "image", "audio"):
        lines.append('# encoder = "hf:ID-OR-FOLDER"  # frozen features of a pretrained model, kept on disk')
    if config.kind in FINE_TUNED:
        lines.append("# fine_tune = true  # trains the weights of the encoder too; slow without a GPU")
    return "\n".join(lines) + "\n"


def _study(table: RawTable, label: str, task: str) -> str:
    counts = Counter(str(cell) for cell in table.columns[label] if cell not in (None, ""))
    fewest = min(counts.values()) if task == "classification" else sum(counts.values())
    budgets = [budget for budget in (2, 10) if 2 * budget <= fewest]
    shown = ", ".join([*map(str, budgets), '"all"'])
    metrics = '"accuracy", "macro_f1", "auroc" or "log_loss"' if task == "classification" else '"mae"'
    return (
        "[study]\n"
        "seeds = 5  # repetitions, each with its own split and labelled rows\n"
        f"budgets = [{shown}]  # labelled rows per class; the other training rows stay, unlabelled\n"
        f"metric = {_text('accuracy' if task == 'classification' else 'mae')}  # {metrics}\n"
        'controls = ["shuffle", "noise"]  # the same arms with the secondary of another row, and with noise\n\n'
        "[schedule]  # the same for every arm\n"
        "updates = 1000\n"
        "batch_size = 64\n"
        "learning_rate = 2e-3\n"
    )


def _arms() -> str:
    known = names()
    lines = ["# The arms, compared with the primary modality alone (unimodal), which is added by itself.", ""]
    lines += ["[arms.unimodal]", ""]
    for name in known:
        if name != "unimodal":
            mark = "" if name in STARTING_ARMS else "# "
            lines += [f"# {summary(name)}", f'{mark}[arms."{name}"]', ""]
    return "\n".join(lines)


def _task(cells: Sequence[Any]) -> str:
    values = {str(cell) for cell in cells if cell not in (None, "")}
    try:
        numbers = {float(value) for value in values}
    except ValueError:
        return "classification"
    return "regression" if len(numbers) > CLASSES else "classification"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
