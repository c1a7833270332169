"""The command line: parse, call, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import atexit
import gc
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expunge import __version__, commands, language_commands
from expunge.environment import loading
from expunge.errors import ExpungeError, UnknownName
from expunge.planner.command import plan
from expunge.progress import progress_bars
from expunge.service import commands as service_commands
from expunge.service.simulate.command import simulate
from expunge.serving import commands as serving_commands

if TYPE_CHECKING:
    from expunge.language_request import LanguageRequest

app = typer.Typer(
    help="Make a model forget, and show how far it did.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
bench = typer.Typer(help="Compare methods on a problem made for it.", no_args_is_help=True)
app.add_typer(bench, name="bench")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of the run; an interrupted run goes on in it.")]
Processes = Annotated[int, typer.Option("--processes", min=0, help="Worker processes; 0: one a core.")]
MaxMinutes = Annotated[float | None, typer.Option("--max-minutes", help="Refuse to start what would take longer.")]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


# --- listings --------------------------------------------------------------------------------------------------------


def _print_table(rows: list[dict[str, Any]], columns: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column in ("name", "models", "access"), overflow="fold")
    for row in rows:
        table.add_row(*(", ".join(v) if isinstance(v, list) else str(v) for v in (row[c] for c in columns)))
    Console().print(table)


@app.command()
def methods(as_json: Json = False) -> None:
    """List the methods: which models they work on, form, kind, guarantee; paper and needs with --json."""
    from expunge.listings import method_rows

    _print_table(method_rows(), ("name", "models", "form", "kind", "guarantee", "summary"), as_json)


@app.command()
def learners(as_json: Json = False) -> None:
    """List the learners: models built to forget."""
    from expunge.listings import learner_rows

    _print_table(learner_rows(), ("name", "task", "guarantee", "summary", "paper"), as_json)


@app.command()
def metrics(as_json: Json = False) -> None:
    """List the metrics."""
    from expunge.listings import metric_rows

    _print_table(metric_rows(), ("name", "models", "direction", "summary"), as_json)


@app.command()
def attacks(as_json: Json = False) -> None:
    """List the attacks: on which models, with what access, at what cost; settings with --json."""
    from expunge.listings import attack_rows

    _print_table(attack_rows(), ("name", "models", "access", "unit", "summary", "paper"), as_json)


@app.command()
def datasets(as_json: Json = False) -> None:
    """List the data sets that ship or can be loaded."""
    from expunge.listings import dataset_rows

    _print_table(dataset_rows(), ("name", "summary", "size", "licence"), as_json)


# --- runs ------------------------------------------------------------------------------------------------------------


def _finish(report: dict[str, Any], folder: Path, as_json: bool) -> None:
    if as_json:
        from expunge.listings import without_detail

        typer.echo(json.dumps(without_detail(report), ensure_ascii=False))
        return
    from rich.console import Console

    from expunge.evaluation.report import print_table

    print_table(report, Console())
    typer.echo(f"\nreport: {(folder / 'report.html').resolve()}")


@app.command()
def run(
    request: Annotated[Path, typer.Argument(help="The request, YAML or JSON.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run (default: runs/ID).")] = None,
    dry: Annotated[bool, typer.Option("-n", "--dry-run", help="Show the plan and stop.")] = False,
    processes: Processes = 0,
    max_minutes: MaxMinutes = None,
    device: Annotated[
        str | None, typer.Option(help="Of a language model: cpu, cuda, cuda:1 or mps, instead of the request's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Carry out one request: unlearn, evaluate, report. An interrupted run goes on where it was."""
    from expunge.language_request import LanguageRequest, from_folder, is_language_request
    from expunge.request import Request, read_document

    document = read_document(request)
    if is_language_request(document):
        spoken = LanguageRequest.parse(from_folder(document, request.parent), str(request))
        if device is not None:
            spoken = spoken.on_device(device)
        _run_language(spoken, out or Path("runs") / spoken.id, dry, max_minutes, as_json)
        return
    from expunge.run import describe_plan, execute, make_plan

    asked = Request.read(request)
    folder = out or Path("runs") / asked.id
    plan = make_plan(asked, folder)
    if dry:
        typer.echo(json.dumps(plan.as_dict(), indent=1, ensure_ascii=False) if as_json else describe_plan(plan))
        return
    with progress_bars() as progress:
        report = execute(plan, processes=processes, max_minutes=max_minutes, progress=progress)
    _finish(report, folder, as_json)


def _run_language(asked: LanguageRequest, folder: Path, dry: bool, max_minutes: float | None, as_json: bool) -> None:
    with loading():
        from expunge.language_run import execute_language, make_language_plan, rank

    plan = make_language_plan(asked, folder)
    if dry:
        lines = json.dumps(plan.as_dict(), indent=1, ensure_ascii=False) if as_json else "\n".join(plan.lines())
        typer.echo(lines)
        return
    if not as_json and rank() == 0:
        typer.echo("\n".join(plan.lines()), err=True)
    with progress_bars() as progress:
        result = execute_language(plan, max_minutes=max_minutes, progress=progress if rank() == 0 else None)
    if rank() == 0:
        language_commands.show(result, folder / "report.html", as_json)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Render the page of a run again from its report.json."""
    from expunge.evaluation.report import render

    typer.echo(render(folder).resolve())


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.")],
    out: Out = Path("runs/compare"),
    anyway: Annotated[bool, typer.Option("--anyway", help="Compare runs of different problems, and say so.")] = False,
    as_json: Json = False,
) -> None:
    """One table and page from several runs."""
    from expunge.evaluation.report import compare as merge
    from expunge.evaluation.report import read_report, write_report

    merged = merge([read_report(folder) for folder in runs], anyway=anyway)
    write_report(merged, out)
    _finish(merged, out, as_json)


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    full: Annotated[bool, typer.Option("--full", help="Print the long tables.")] = False,
    processes: Processes = 0,
    service: Annotated[
        bool, typer.Option("--service", help="Serve a year of requests, with the dashboard, instead.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the service; 0: any free one.")] = 8080,
    as_json: Json = False,
) -> None:
    """Forget digits by several methods beside retraining, exactly, and within a bound; write the report."""
    if service:
        service_commands.demo(out / "service", port)
        return
    from expunge.demo import run_demo

    with progress_bars() as progress:
        result = run_demo(out, processes=processes, progress=progress)
    _finish(result, out, as_json)
    if not as_json:
        from expunge.demo import narrate

        typer.echo(narrate(result, full=full))


@bench.command()
def challenge(
    dataset: Annotated[str, typer.Option(help="Name of a data set (`expunge datasets`) or a path.")] = "digits",
    models: Annotated[int, typer.Option(min=8, help="Unlearned models a method, and retrained references.")] = 512,
    methods: Annotated[str, typer.Option(help="Names with commas between, or `all`.")] = "all",
    protocol: Annotated[str, typer.Option(help="one_original or n_originals.")] = "one_original",
    architecture: Annotated[str, typer.Option(help="small_cnn, mlp or softmax_regression.")] = "small_cnn",
    forget: Annotated[int, typer.Option(min=1, help="Records to forget.")] = 100,
    seed: int = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Repeat the study with so many seeds.")] = 1,
    shadows: Annotated[
        int, typer.Option(min=0, help="Shadow models for membership of retained records (0: none; 64 take a minute).")
    ] = 0,
    out: Out = Path("runs/challenge"),
    processes: Processes = 0,
    max_minutes: MaxMinutes = None,
    as_json: Json = False,
) -> None:
    """The NeurIPS 2023 unlearning challenge's protocol on a data set of yours or ours."""
    from expunge.evaluation.benchmarks.challenge import Challenge, run_challenge

    setting = Challenge(
        dataset=dataset,
        models=models,
        protocol=protocol,
        architecture=architecture,
        forget=forget,
        seed=seed,
        seeds=seeds,
        shadows=shadows,
    )
    with progress_bars() as progress:
        result = run_challenge(setting, methods, out, processes=processes, max_minutes=max_minutes, progress=progress)
    _finish(result, out, as_json)


for command in (commands.fit, commands.forget, commands.verify, commands.forecast, commands.accounting):
    app.command()(command)
bench.command()(commands.exact)
bench.command()(commands.certified)
bench.command()(language_commands.people)
bench.command()(language_commands.forms)
for benchmark, about in language_commands.ABOUT.items():
    bench.command(benchmark, help=about)(language_commands.on(benchmark))
app.command()(language_commands.evaluate)
app.command()(language_commands.attack)
app.command()(language_commands.scope)
app.command()(language_commands.streisand)
app.command()(plan)
app.add_typer(commands.audit, name="audit")
app.add_typer(commands.keys, name="keys")
app.command()(serving_commands.serve_model)
app.add_typer(serving_commands.box, name="box")
app.command()(service_commands.serve)
app.command()(service_commands.worker)
app.command()(service_commands.doctor)
app.command()(simulate)
app.add_typer(service_commands.requests, name="requests")
app.add_typer(service_commands.targets, name="targets")
app.add_typer(service_commands.access, name="access")


def _from_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C lies behind an error: a library may answer it with an error of its own."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def main() -> None:
    """Entry point: errors become one line and an exit code, never a traceback."""
    interrupted = "interrupted: run the same command again and it goes on where it was"
    atexit.register(gc.freeze)  # at the end the memory goes back whole: looking for garbage in it takes a second
    try:
        code = app(standalone_mode=False)
    except ExpungeError as error:
        hint = " (see `expunge --help`)" if isinstance(error, UnknownName) else ""
        typer.echo(f"error: {error}{hint}", err=True)
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        typer.echo(interrupted, err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    except Exception as error:  # click's own usage errors, without importing click for it
        if _from_interrupt(error):
            typer.echo(interrupted, err=True)
            sys.exit(130)
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            show = getattr(error, "show", None)
            show() if show else typer.echo(f"error: {error}", err=True)
            sys.exit(error.exit_code)
        raise
    if code == 130:  # typer's way to tell of Ctrl-C outside of standalone mode
        typer.echo(interrupted, err=True)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
