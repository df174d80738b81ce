"""The command line: parses, then imports. Exit codes: 0 done, 1 some cells failed, 2 wrong input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from transference.core.errors import TransferenceError

if TYPE_CHECKING:
    from transference.core.records import RunRecord
    from transference.experiment.check import Checked
    from transference.experiment.config import Config

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Train with every modality you have, deploy with the one you will get, and know whether the others helped.",
)
sets = typer.Typer(no_args_is_help=True, help="Real data sets by name.")
app.add_typer(sets, name="data")

Backend = Literal["loky", "dask", "ray"]
Study = Annotated[Path, typer.Argument(help="A study file, such as study.toml.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Runs = Annotated[Path, typer.Option("--runs", help="Where studies are kept.")]
Workers = Annotated[int | None, typer.Option("--workers", "-w", min=1, help="Cells that run at the same time.")]


def say(text: str) -> None:
    typer.echo(text)


@app.command()
def init(
    rows: Annotated[Path, typer.Argument(help="A CSV or Parquet file, one row an example.")],
    primary: Annotated[str, typer.Option(help="What you will have at run time: a column, or a group (profile_*).")],
    label: Annotated[str, typer.Option(help="The column to predict.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The study file to write.")] = Path("study.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a commented study file, with the modalities guessed from the columns.

    Example: `transference init rows.csv --primary audio --label emotion`
    """
    from transference.core.errors import ConfigError
    from transference.experiment.init import write_study

    if output.exists() and not force:
        raise ConfigError(f"The file {str(output)!r} exists. Choose another with --output, or overwrite with --force.")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(write_study(rows, primary=primary, label=label, output=output), encoding="utf-8")
    say(f"Wrote {output}. Look it over, then: transference check {output}")


@app.command()
def check(study: Study, as_json: Json = False) -> None:
    """Find every fault of a study file and its data at once; train nothing.

    Example: `transference check study.toml`
    """
    from transference.experiment.check import check as check_study

    try:
        found = check_study(study)
    except TransferenceError as error:
        if not as_json:
            raise
        say(json.dumps({"study": str(study), "faults": error.faults or [str(error)]}, indent=1, ensure_ascii=False))
        raise typer.Exit(2) from error
    if as_json:
        facts = [_facts(study, each) for each in found]
        say(json.dumps(facts if len(facts) > 1 else facts[0], indent=1))
        return
    for each in found:
        data, labelled = each.data, int(each.data.is_labelled.sum())
        title = study if len(found) == 1 else f"{study}, {each.config.name}"
        say(f"{title}: no fault found. {len(data)} rows, {labelled} with a label; {len(each.cells)} cells to run.")
        for name, spec in data.views.specs.items():
            role = "primary" if name == data.views.primary else "secondary"
            present = int(data.views.present[name].sum())
            say(f"  {role:9} {name}: {spec.kind} {'x'.join(map(str, spec.shape))}, in {present} rows")
        for leak in each.leaks:
            say(f"Warning: {leak}")


def _facts(study: Path, found: Checked) -> dict[str, Any]:
    views = found.data.views
    return {
        "study": str(study),
        "name": found.config.name,
        "faults": [],
        "rows": len(found.data),
        "labelled": int(found.data.is_labelled.sum()),
        "modalities": {
            name: {"kind": spec.kind, "shape": list(spec.shape), "present": int(views.present[name].sum())}
            for name, spec in views.specs.items()
        },
        "primary": views.primary,
        "cells": len(found.cells),
        "leaks": found.leaks,
    }


@app.command()
def run(
    study: Study,
    workers: Workers = None,
    runs: Runs = Path("runs"),
    backend: Annotated[Backend, typer.Option(help="Processes of this machine, or a cluster.")] = "loky",
    address: Annotated[str | None, typer.Option(help="Of the dask or ray cluster.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Run failed cells again.")] = False,
) -> None:
    """Run a study; what is finished is kept, so that the same command goes on where it was stopped.

    Example: `transference run study.toml --workers 2`
    """
    from transference.experiment.variants import load_all

    failed = 0
    for config in load_all(study):
        folder = _run(config, workers=workers, runs=runs, backend=backend, address=address, retry=retry)
        failed += _finish(folder)
    if failed:
        raise typer.Exit(1)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a study, such as runs/demo.")], as_json: Json = False
) -> None:
    """Write report.html and summary.json again, from the stored records alone.

    Example: `transference report runs/demo`
    """
    from transference.experiment.publish import publish

    summary = publish(folder)
    if as_json:
        say(json.dumps(summary, indent=1, sort_keys=True, ensure_ascii=False))
        return
    _verdict(summary)
    say(f"Wrote {folder / 'report.html'} and {folder / 'summary.json'}.")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="The folder of a study, such as runs/demo.")],
    arm: Annotated[str, typer.Option(help="The arm to export.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file to write.")] = Path("model.onnx"),
    seed: Annotated[int | None, typer.Option(help="Which seed; the first one when left out.")] = None,
    budget: Annotated[str | None, typer.Option(help="Which label budget; the largest when left out.")] = None,
) -> None:
    """Write the deployed path of an arm as ONNX, after checking it against the model in memory.

    Example: `transference export runs/demo --arm transfer.distillation -o model.onnx`
    """
    from transference.deploy.study import export_arm

    record, difference = export_arm(folder, arm, output, seed=seed, budget=budget)
    say(
        f"Wrote {output}: {arm}, seed {record.cell.seed}, budget {record.cell.budget}. "
        f"Largest difference from the model in memory: {difference:.2g}."
    )


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="An exported ONNX file.")],
    rows: Annotated[Path, typer.Argument(help="A CSV or Parquet file with the columns of the primary modality.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A CSV file; standard output if none.")] = None,
) -> None:
    """Answer new rows with an exported model; needs the primary modality only, and no torch.

    Example: `transference predict model.onnx new.csv -o predictions.csv`
    """
    from transference.deploy.predictor import predict_table

    table = predict_table(model, rows)
    if output is None:
        say(table.write_csv().rstrip("\n"))
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        table.write_csv(output)
        say(f"Wrote {output}: {len(table)} rows.")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the methods.

    Example: `transference list --json`
    """
    from transference.core import registry

    found = {name: registry.summary(name) for name in registry.names()}
    if as_json:
        say(json.dumps(found, indent=1))
        return
    width = max(map(len, found))
    for name, line in found.items():
        say(f"{name:{width}}  {line}")


@app.command()
def show(
    method_id: Annotated[
        str, typer.Argument(metavar="ID", help="Such as transfer.distillation, or package.module:Class.")
    ],
) -> None:
    """Show what a method is, its card and its parameters.

    Example: `transference show transfer.distillation`
    """
    import inspect

    from transference.core import registry

    say(f"{method_id}\n\n{registry.docstring(method_id)}\n")
    cls = registry.find(method_id)
    card = cls.card
    say(f"At test time it reads: {card.at_test}. Needs: {', '.join(sorted(card.needs))}.")
    say(f"Tasks: {', '.join(sorted(card.tasks))}. Source: {card.reference}.\n\nParameters")
    for name, parameter in inspect.signature(cls).parameters.items():
        allowed = f"  ({cls.constraints[name]})" if name in cls.constraints else ""
        say(f"  {name} = {parameter.default!r}{allowed}")


@app.command()
def demo(workers: Workers = 2, runs: Runs = Path("runs")) -> None:
    """Run a study on embedded data: a noisy 4x4 scan of a digit, helped by the full scan. No network.

    Example: `transference demo`
    """
    from transference.experiment.demo import demo_config

    if _finish(_run(demo_config(), workers=workers, runs=runs, backend="loky", address=None, retry=False)):
        raise typer.Exit(1)


@sets.command("list")
def data_list(as_json: Json = False) -> None:
    """List the data sets.

    Example: `transference data list`
    """
    from transference.data import sets as named

    found = {name: named.describe(name) for name in named.names()}
    if as_json:
        say(json.dumps(found, indent=1, default=str))
        return
    for name, facts in found.items():
        say(f"{name:12} {facts['title']} ({facts['licence']})")


@sets.command("get")
def data_get(name: Annotated[str, typer.Argument(help="Such as mfeat.")]) -> None:
    """Download a data set, check its sum, and keep it; an interrupted download goes on.

    Example: `transference data get mfeat`
    """
    from transference.data import sets as named

    say(f"{named.fetch(name)}")


@sets.command("path")
def data_path(name: Annotated[str, typer.Argument(help="Such as mfeat.")]) -> None:
    """Print where a data set lies.

    Example: `transference data path mfeat`
    """
    from transference.data import sets as named

    say(f"{named.path(name)}")


def _run(
    config: Config, *, workers: int | None, runs: Path, backend: Backend, address: str | None, retry: bool
) -> Path:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from transference.experiment.runner import run as run_study

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(config.name, total=None)

        def progress(done: int, total: int, record: RunRecord | None) -> None:
            bar.update(task, completed=done, total=total)
            if not bar.console.is_terminal and (record is None or 10 * done // total > 10 * (done - 1) // total):
                bar.console.print(f"{done} of {total} cells are finished.", highlight=False)
            if record is not None and record.status != "ok":
                first = record.error.partition("\n")[0]
                bar.console.print(f"{record.cell.arm} seed {record.cell.seed} {record.status}: {first}", markup=False)

        def notice(message: str) -> None:
            bar.console.print(f"Warning: {message}", markup=False, soft_wrap=True)

        return run_study(
            config,
            folder=runs,
            workers=workers,
            backend=backend,
            address=address,
            progress=progress,
            notice=notice,
            retry=retry,
        )


def _finish(folder: Path) -> int:
    """Write the page and say the verdict; how many cells have no score."""
    from transference.core.records import Status
    from transference.experiment.publish import publish

    summary = publish(folder)
    _verdict(summary)
    say(f"Report: {folder / 'report.html'}")
    failed = summary["failed"]
    if failed:
        again = sum(each["status"] in get_args(Status) for each in failed)
        remedy = f" Run {again if again < len(failed) else 'them'} again with --retry." if again else ""
        say(f"{len(failed)} cells have no score; the report names them.{remedy}")
    return len(failed)


def _verdict(summary: dict[str, Any]) -> None:
    say(f"\n{summary['verdict']}\n")


def main() -> None:
    """Entry point: errors of this package become one clear message."""
    try:
        app()
    except TransferenceError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        named = f"{error.filename!r}: {error.strerror}" if error.filename and error.strerror else error
        typer.echo(f"Error: {named}. Check the path, its permissions and the space on its disk.", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("Stopped. What is finished is kept; the same command goes on from here.", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
