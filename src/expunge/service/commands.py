"""The control plane from the command line. Parse, call, print, as in `expunge.cli`.

Whoever works here holds the machine and may do anything, so what is done here is done by the actor ``terminal``. Where
the policy asks for four eyes that is one pair: an approver's key (``EXPUNGE_KEY``) is the other.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expunge.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from expunge.service.entities import Actor
    from expunge.service.service import Service

requests = typer.Typer(help="Requests to forget, from the terminal.", no_args_is_help=True)
targets = typer.Typer(help="Models, data sets and boxes that a service knows.", no_args_is_help=True)
access = typer.Typer(help="Keys of programs and people.", no_args_is_help=True)

Home = Annotated[Path, typer.Option("--home", envvar="EXPUNGE_HOME", help="Folder of the service.")]
DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database", envvar="EXPUNGE_DATABASE", help="postgresql://…; an SQLite file in the folder if none."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
RequestId = Annotated[str, typer.Argument(help="Id of a request: req_….")]
HOME = Path("expunge-service")


@contextmanager
def _opened(home: Path, database: str | None, *, make: bool = False) -> Iterator[Service]:
    try:
        from expunge.service.service import open_service
    except ModuleNotFoundError as error:
        raise RequestError(f"the service needs {error.name}", "Install it: pip install 'expunge[service]'") from None
    if not make and not (home / "keys").exists():
        raise RequestError(f"there is no service in {home}", "Start one with `expunge serve`, or name its --home")
    service = open_service(home, database=database)
    try:
        yield service
    finally:
        service.close()


def _actor(service: Service) -> Actor:
    """Of ``EXPUNGE_KEY`` if it is set, else whoever holds the machine."""
    from expunge.service.access.keys import Keys
    from expunge.service.entities import Actor

    key = os.environ.get("EXPUNGE_KEY")
    if key:
        return Keys(service.database, service.identities, service.clock).authenticate(key.strip())
    return Actor(id="terminal", role="system")


def _print(rows: Sequence[Mapping[str, Any]], columns: Iterable[str], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(list(rows), ensure_ascii=False, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "id")
    for row in rows:
        table.add_row(*("" if row.get(c) is None else str(row[c]) for c in columns))
    Console(width=max(120, Console().width) if not sys.stdout.isatty() else None).print(table)


def _told(value: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(value, ensure_ascii=False, indent=1))
        return
    for name, held in value.items():
        if held not in (None, "", [], {}):
            typer.echo(f"{name:<18}{held}")


# --- the service ------------------------------------------------------------------------------------------------------


def serve(
    home: Home = HOME,
    database: DatabaseUrl = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8080,
    work: Annotated[bool, typer.Option("--work/--no-work", help="Also run a worker in this process.")] = True,
) -> None:
    """Serve API and dashboard, with a worker, until Ctrl-C."""
    from expunge.service.serve import first_key
    from expunge.service.serve import serve as run

    with _opened(home, database, make=True) as service:
        key = first_key(service)
        if key is not None:
            typer.echo(f"first operator key, shown this once: {key}")
        run(service, host, port, work=work)


def demo(home: Path, port: int) -> None:
    """A seeded year of requests over small real models, and the dashboard that shows it, until Ctrl-C."""
    from expunge.progress import progress_bars

    try:
        from expunge.service.demo import make_year
        from expunge.service.serve import demo_keys
        from expunge.service.serve import serve as run
    except ModuleNotFoundError as error:
        raise RequestError(f"the service needs {error.name}", "Install it: pip install 'expunge[service]'") from None
    with progress_bars() as progress:
        service = make_year(home, progress=progress)
    try:
        for role, key in demo_keys(service).items():
            typer.echo(f"{role + ' key':<14}{key}")
        run(service, "127.0.0.1", port)
    finally:
        service.close()


def worker(
    home: Home = HOME,
    database: DatabaseUrl = None,
    at_once: Annotated[int, typer.Option("--at-once", min=1, help="Jobs at the same time.")] = 1,
    until_idle: Annotated[bool, typer.Option("--until-idle", help="Stop when nothing is left to do now.")] = False,
    lease: Annotated[float, typer.Option(min=1, help="Seconds until a silent worker counts as dead.")] = 30.0,
) -> None:
    """Work on what a service has approved, beside others, until Ctrl-C."""
    from expunge.service.serve import work_alone

    with _opened(home, database) as service:
        work_alone(service, concurrency=at_once, until_idle=until_idle, lease_seconds=lease)


def doctor(
    home: Home = HOME,
    database: DatabaseUrl = None,
    names: Annotated[Path | None, typer.Option(help="Text file of further names to look for, one a line.")] = None,
    as_json: Json = False,
) -> None:
    """Say what personal data a service holds, and search its own files for any it should not. Exit 1: something is."""
    from expunge.service.doctor import examine

    listed = _lines(names) if names else []
    with _opened(home, database) as service:
        report = examine(service, listed)
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False, indent=1))
    else:
        _print(report["holds"], ("what", "form", "why", "until", "count"), False)
        seen = report["scan"]
        typer.echo(f"\nlooked for {seen['names']} names in {seen['files']} files, {seen['bytes']:,} bytes")
        for place, count in seen["found"].items():
            typer.echo(f"FOUND {count} of them in {place}")
        for fault in report["faults"]:
            typer.echo(f"FAULT {fault}")
        typer.echo("nothing was found that should not be there" if report["healthy"] else "see above")
        typer.echo(f"a scan cannot see: {'; '.join(seen['cannot_see'])}")
    raise typer.Exit(0 if report["healthy"] else 1)


# --- requests ---------------------------------------------------------------------------------------------------------


@requests.command()
def add(
    identity: Annotated[str | None, typer.Argument(help="Of the subject; - reads it from standard input.")] = None,
    reason: Annotated[str, typer.Option(help="privacy, copyright, safety, correction or staleness.")] = "privacy",
    regime: Annotated[str | None, typer.Option(help="Of the policy: gdpr, ccpa, …")] = None,
    least: Annotated[str, typer.Option(help="exact, certified, empirical or suppressed.")] = "exact",
    external_id: Annotated[str | None, typer.Option(help="Yours; no personal data.")] = None,
    target: Annotated[list[str] | None, typer.Option(help="Only this model or store; repeat for several.")] = None,
    record: Annotated[list[str] | None, typer.Option(help="Only this record; repeat for several.")] = None,
    verified: Annotated[bool, typer.Option("--verified", help="The subject's identity has been verified.")] = False,
    document: Annotated[Path | None, typer.Option("--file", help="The whole filing as JSON, instead.")] = None,
    home: Home = HOME,
    database: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """File a request. An identity given on the command line stands in the shell's history: `-` avoids that."""
    from pydantic import ValidationError

    from expunge.request import explain
    from expunge.service.entities import Filing, Scope, Told

    told: dict[str, Any] = _json_file(document) if document else {
        "identity": sys.stdin.readline().strip() if identity == "-" else identity,
        "reason": reason,
        "regime": regime,
        "least_guarantee": least,
        "external_id": external_id,
        "verified": verified,
        "scope": {"kind": "records" if record else "owner", "records": record or [], "targets": target or []},
    }  # fmt: skip
    try:
        filing = Filing.model_validate(told)
    except ValidationError as error:
        names = [n for part in (Filing, Scope, Told) for n in part.model_fields]
        raise RequestError(f"this is no request: {explain(error, names)}", "See docs/service.md") from None
    with _opened(home, database) as service:
        _told(service.desk.file(_actor(service), filing).public(), as_json)


COLUMNS = ("id", "status", "sla", "due_at", "reason", "regime", "least_guarantee", "external_id")


@requests.command("list")
def list_(
    status: Annotated[list[str] | None, typer.Option(help="Repeat for several.")] = None,
    sla: Annotated[list[str] | None, typer.Option(help="on_track, due_soon, overdue, breached, kept, missed.")] = None,
    unverified: Annotated[bool, typer.Option("--unverified", help="Also those that nobody has verified.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    after: Annotated[str | None, typer.Option(help="Where the page before ended.")] = None,
    home: Home = HOME,
    database: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """List requests by due date."""
    from expunge.service.entities import Page

    wanted = _filter({"status": status or [], "sla": sla or [], "verified": None if unverified else True})
    with _opened(home, database) as service:
        listing = service.desk.list(_actor(service), wanted, Page(limit=limit, after=after))
        rows = [one.public() for one in listing.items]
        if not as_json:
            rows = [{**row, "due_at": row["due_at"][:16] + "Z"} for row in rows]
        _print(rows, COLUMNS, as_json)
        if not as_json:
            more = f"; next page: --after {listing.next}" if listing.next else ""
            typer.echo(f"\n{len(listing.items)} of {listing.total}{more}")


@requests.command()
def show(request_id: RequestId, home: Home = HOME, database: DatabaseUrl = None, as_json: Json = False) -> None:
    """A request with its history, its layers and how long the subject's data was exposed."""
    from expunge.service.clock import stamp

    with _opened(home, database) as service:
        actor = _actor(service)
        request = service.desk.get(actor, request_id).public()
        history = [
            {"at": stamp(e.at), "kind": e.kind, "to": e.to_status, "by": e.actor, "detail": dict(e.detail)}
            for e in service.desk.history(actor, request_id)
        ]
        layers = [
            {"target": y.target, "stage": y.stage, "status": y.status, "rows": y.rows, "certificate": y.certificate,
             "reason": y.outcome.get("reason")}
            for y in service.desk.layers(actor, request_id)
        ]  # fmt: skip
        exposed = [
            {"target": x.target, "state": x.state, "from": stamp(x.start), "to": x.to and stamp(x.to)}
            for x in service.desk.exposure(actor, request_id)
        ]
    if as_json:
        typer.echo(json.dumps({**request, "history": history, "layers": layers, "exposure": exposed}, indent=1))
        return
    _told(request, False)
    for title, rows, columns in (
        ("history", history, ("at", "kind", "to", "by", "detail")),
        ("layers", layers, ("target", "stage", "status", "rows", "certificate", "reason")),
        ("exposure", exposed, ("target", "state", "from", "to")),
    ):
        if rows:
            typer.echo(f"\n{title}")
            _print(rows, columns, False)


@requests.command()
def estimate(request_id: RequestId, home: Home = HOME, database: DatabaseUrl = None, as_json: Json = False) -> None:
    """What a request would touch, take and cost: now, batched, at the next window, or step by step."""
    with _opened(home, database) as service:
        told = service.desk.estimate(_actor(service), request_id)
    if as_json:
        typer.echo(json.dumps(told, indent=1))
        return
    _print(told["targets"], ("target", "kind", "rows", "share", "stages", "measured"), False)
    typer.echo("")
    _print(
        [{"rule": name, **one} for name, one in told["options"].items()],
        ("rule", "done_by", "in_time", "seconds", "cost"),
        False,
    )
    for line in (*told["refused"], *told["out_of_scope"]):
        typer.echo(f"note: {line}")


def _act(home: Path, database: str | None, as_json: bool, action: str, request_id: str, **arguments: Any) -> None:
    with _opened(home, database) as service:
        _told(getattr(service.desk, action)(_actor(service), request_id, **arguments).public(), as_json)


@requests.command()
def verify(request_id: RequestId, home: Home = HOME, database: DatabaseUrl = None, as_json: Json = False) -> None:
    """The subject's identity has been verified."""
    _act(home, database, as_json, "verify", request_id)


@requests.command()
def approve(request_id: RequestId, home: Home = HOME, database: DatabaseUrl = None, as_json: Json = False) -> None:
    """Let the work begin (with EXPUNGE_KEY of an approver, where the policy asks for four eyes)."""
    _act(home, database, as_json, "approve", request_id)


@requests.command()
def deny(
    request_id: RequestId,
    reason: Annotated[str, typer.Option(help="no_match, insuf_verification, suspected_fraud, …")],
    note: str = "",
    home: Home = HOME,
    database: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Deny a request, for a reason of the Data Rights Protocol."""
    _act(home, database, as_json, "deny", request_id, reason=reason, note=note)


@requests.command()
def cancel(request_id: RequestId, home: Home = HOME, database: DatabaseUrl = None, as_json: Json = False) -> None:
    """Take a request back that has not begun."""
    _act(home, database, as_json, "cancel", request_id)


@requests.command()
def extend(
    request_id: RequestId,
    reason: Annotated[str, typer.Option(help="Which the subject is told.")],
    home: Home = HOME,
    database: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Use the one extension that the regime allows, before the due date."""
    _act(home, database, as_json, "extend", request_id, reason=reason)


@requests.command()
def hold(
    request_id: RequestId,
    reason: Annotated[str, typer.Option(help="Of the legal hold.")],
    home: Home = HOME,
    database: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Erase nothing until it is released."""
    _act(home, database, as_json, "hold", request_id, reason=reason)


@requests.command()
def release(request_id: RequestId, home: Home = HOME, database: DatabaseUrl = None, as_json: Json = False) -> None:
    """End a hold."""
    _act(home, database, as_json, "release", request_id)


@requests.command()
def retry(request_id: RequestId, home: Home = HOME, database: DatabaseUrl = None, as_json: Json = False) -> None:
    """Begin again with what failed."""
    _act(home, database, as_json, "retry", request_id)


@requests.command()
def finalise(
    request_id: RequestId,
    note: Annotated[str, typer.Option(help="What was done by hand; no personal data.")],
    home: Home = HOME,
    database: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Close by hand what the service cannot do."""
    _act(home, database, as_json, "finalise", request_id, note=note)


@requests.command()
def export(
    form: Annotated[str, typer.Option(help="csv or json.")] = "csv",
    status: Annotated[list[str] | None, typer.Option(help="Repeat for several.")] = None,
    home: Home = HOME,
    database: DatabaseUrl = None,
) -> None:
    """Print all requests as CSV or JSON, without personal data."""
    with _opened(home, database) as service:
        for piece in service.desk.export(_actor(service), _filter({"status": status or [], "verified": None}), form):
            sys.stdout.write(piece)


@requests.command()
def check(
    file: Annotated[Path, typer.Argument(help="Text file of identities, one a line; - is standard input.")],
    home: Home = HOME,
    database: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Say whose rows must not be learned from again. Exit 1: somebody's."""
    identities = [line.strip() for line in sys.stdin] if str(file) == "-" else _lines(file)
    with _opened(home, database) as service:
        blocked = service.suppression.blocked(identities)
    if as_json:
        typer.echo(json.dumps(blocked))
    else:
        for number, stop in enumerate(blocked, 1):
            typer.echo(f"line {number}: {'blocked' if stop else 'allowed'}")
    raise typer.Exit(int(any(blocked)))


@requests.command()
def erase(request_id: RequestId, home: Home = HOME, database: DatabaseUrl = None) -> None:
    """Remove every trace of a closed request but its certificates and its place on the suppression list."""
    from expunge.service.maintenance import Maintenance

    with _opened(home, database) as service:
        Maintenance(service).erase(_actor(service), request_id)
        typer.echo("erased")


@requests.command()
def maintain(home: Home = HOME, database: DatabaseUrl = None, as_json: Json = False) -> None:
    """Forget what the policy says the service itself forgets, and look for who came back; a worker does it daily."""
    from expunge.service.maintenance import Maintenance

    with _opened(home, database) as service:
        _told({k: str(v) for k, v in Maintenance(service).run().items()}, as_json)


# --- targets and keys -------------------------------------------------------------------------------------------------


@targets.command("add")
def add_target(
    target_id: Annotated[str, typer.Argument(help="Lower-case letters, digits, dots, dashes.")],
    kind: Annotated[str, typer.Option(help="learner, trained, dataset, box; any other is listed and never served.")],
    location: Annotated[str, typer.Option(help="Folder or file.")],
    name: Annotated[str | None, typer.Option(help="For people.")] = None,
    version: str = "1",
    parent: Annotated[str | None, typer.Option(help="Id of the model it was made from, or stands before.")] = None,
    source: Annotated[list[str] | None, typer.Option("--from", help="Id of a data set; repeat for several.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="Of the kind, name=value: owner=user_id, id=key.")] = None,
    home: Home = HOME,
    database: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Register a model, data set or box, and index whose rows it holds; again: index it anew."""
    from expunge.exact import settings_of
    from expunge.service.permissions import check as allowed
    from expunge.service.registry import Target

    place = location if "://" in location else str(Path(location).absolute())
    with _opened(home, database, make=True) as service:
        allowed(_actor(service), "register")
        made = service.registry.register(
            Target(
                id=target_id,
                name=name or target_id,
                version=version,
                kind=kind,
                location=place,
                parent=parent,
                made_from=tuple(source or ()),
                options=settings_of(option or [], "--option"),
            )
        )
        _told({"id": made.id, "kind": made.kind, "rows": made.options.get("rows"), "digest": made.digest}, as_json)


@targets.command("list")
def list_targets(home: Home = HOME, database: DatabaseUrl = None, as_json: Json = False) -> None:
    """List what a service knows."""
    with _opened(home, database) as service:
        rows = [
            {"id": t.id, "name": t.name, "version": t.version, "kind": t.kind, "rows": t.options.get("rows"),
             "parent": t.parent, "from": ", ".join(t.made_from), "location": t.location}
            for t in service.registry.targets()
        ]  # fmt: skip
        _print(rows, ("id", "name", "version", "kind", "rows", "parent", "from", "location"), as_json)


@targets.command()
def retire(target_id: str, home: Home = HOME, database: DatabaseUrl = None) -> None:
    """Take a model out of service: requests find it no more."""
    from expunge.service.permissions import check as allowed

    with _opened(home, database) as service:
        allowed(_actor(service), "register")
        service.registry.retire(target_id)
        typer.echo("retired")


@access.command("add")
def add_key(
    role: Annotated[str, typer.Argument(help="subject, operator, approver or auditor.")],
    name: Annotated[str, typer.Argument(help="Of the program or office; no person's.")],
    identity: Annotated[str | None, typer.Option(help="Of a subject, for whom the key is; - reads it.")] = None,
    days: Annotated[float | None, typer.Option(help="Until it expires.")] = None,
    home: Home = HOME,
    database: DatabaseUrl = None,
) -> None:
    """Make a key and print it, this once."""
    from expunge.service.access.keys import Keys

    who = sys.stdin.readline().strip() if identity == "-" else identity
    with _opened(home, database, make=True) as service:
        keys = Keys(service.database, service.identities, service.clock)
        _, text = keys.make(_actor(service), role, name, identity=who, days=days)  # type: ignore[arg-type]
        typer.echo(text)


@access.command("list")
def list_keys(home: Home = HOME, database: DatabaseUrl = None, as_json: Json = False) -> None:
    """List keys, without their secrets."""
    from expunge.service.access.keys import Keys

    with _opened(home, database) as service:
        keys = Keys(service.database, service.identities, service.clock).list(_actor(service))
        rows = [{k: None if v is None else str(v) for k, v in vars(one).items()} for one in keys]
        _print(rows, ("id", "role", "name", "created_at", "expires_at", "revoked_at", "last_used_at"), as_json)


@access.command()
def revoke(key_id: str, home: Home = HOME, database: DatabaseUrl = None) -> None:
    """From now on nobody comes in with this key."""
    from expunge.service.access.keys import Keys

    with _opened(home, database) as service:
        Keys(service.database, service.identities, service.clock).revoke(_actor(service), key_id)
        typer.echo("revoked")


def _filter(told: dict[str, Any]) -> Any:
    from pydantic import ValidationError

    from expunge.request import explain
    from expunge.service.entities import Filter

    try:
        return Filter.model_validate(told)
    except ValidationError as error:
        raise RequestError(f"no such filter: {explain(error, list(Filter.model_fields))}", "See --help") from None


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read {path} ({type(error).__name__})", "Give the path of a text file") from None


def _json_file(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot read {path} as JSON ({type(error).__name__})", "Correct it") from None
    if not isinstance(told, dict):
        raise RequestError(f"{path} holds no object of fields", "See docs/service.md")
    return told
