"""`expunge serve-model`, and what an operator may see of a box: `expunge box …`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

box = typer.Typer(help="Look at a boxed model as its operator; phrases are never shown.", no_args_is_help=True)
Declared = Annotated[Path, typer.Argument(help="The box, YAML.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


def serve_model(
    declared: Declared,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
) -> None:
    """Serve a boxed model as an OpenAI-compatible endpoint, until Ctrl-C."""
    from expunge.serving.serve import serve

    serve(declared, host, port)


@box.command()
def check(declared: Declared, as_json: Json = False) -> None:
    """Read a box and its requests, without loading a model."""
    from expunge.boxed.config import BoxSettings
    from expunge.boxed.requests import read_requests

    settings = BoxSettings.read(declared)
    active = read_requests(settings.requests).active(datetime.now(UTC))
    told = {
        "name": settings.outline.name,
        "models": list(settings.outline.models),
        "parts": {where: part.kind for where, part in settings.parts()},
        "requests in force": len(active),
    }
    typer.echo(json.dumps(told, indent=1) if as_json else "\n".join(f"{k}: {_words(v)}" for k, v in told.items()))


@box.command()
def rules(declared: Declared, as_json: Json = False) -> None:
    """List the requests that a box keeps: id, kinds of rules and how many, expiry; never a phrase."""
    from expunge.boxed.config import BoxSettings

    rows = rule_rows(BoxSettings.read(declared).requests, datetime.now(UTC))
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("request", "rules", "phrases", "reason", "received", "expires", "state", "file"):
        table.add_column(column, overflow="fold")
        for row in rows:
            row[column] = "" if row[column] is None else _words(row[column])
    for row in rows:
        table.add_row(*(row[str(c.header)] for c in table.columns))
    Console().print(table)


def rule_rows(path: Path, now: datetime) -> list[dict[str, Any]]:
    """A row for each request: what it is traced by, how much of which kind it asks, until when."""
    from expunge.boxed.requests import read_requests

    found = read_requests(path)
    return [
        {
            "request": one.id,
            "rules": one.counts(),
            "phrases": sum(len(r.question) + len(r.answer) for r in one.rules),
            "reason": one.reason,
            "received": one.received.isoformat() if one.received else None,
            "expires": one.expires.isoformat() if one.expires else None,
            "state": "in force" if one.holds_at(now) else "expired",
            "file": found.source[one.id],
        }
        for one in found.requests
    ]


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
