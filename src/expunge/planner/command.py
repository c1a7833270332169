"""``expunge plan``: parse, choose, print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def plan(
    request: Annotated[Path, typer.Argument(help="The plan's YAML or JSON; docs/planner.md shows one.")],
    evidence: Annotated[
        Path | None, typer.Option(help="forms.json of `expunge bench forms`; the request may name it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Recommend a form of forgetting for a request, show the alternatives, and why not the others."""
    from expunge.planner.choose import choose
    from expunge.planner.request import PlanRequest

    wanted = PlanRequest.read(request)
    found = choose(wanted, _evidence(evidence or (Path(wanted.evidence) if wanted.evidence else None)))
    if as_json:
        typer.echo(json.dumps({"request": wanted.model_dump(mode="json"), **found.as_dict()}, ensure_ascii=False))
        return
    typer.echo("\n".join(lines(wanted, found)))


def _evidence(path: Path | None) -> dict[str, Any]:
    """A report of forms.

    Raises:
        RequestError: none is named, or it is something else.
    """
    from expunge.errors import RequestError
    from expunge.training.files import read_json

    if path is None:
        raise RequestError(
            "no evidence is named, and a plan without measurements would be a guess",
            "Run `expunge bench forms` on this machine and give its forms.json as evidence",
        )
    if not path.is_file():
        raise RequestError(f"{path} is not there", "Give the forms.json that `expunge bench forms` wrote")
    told: dict[str, Any] = read_json(path)
    if told.get("schema") != "expunge/forms/1":
        raise RequestError(f"{path} is no comparison of forms", "Give the forms.json that `expunge bench forms` wrote")
    return told


def lines(wanted: Any, found: Any) -> list[str]:
    """The plan in words."""
    from expunge.planner.request import in_words

    def told(o: Any) -> str:
        cost = "unknown time" if o.seconds is None else f"about {in_words(o.seconds)}"
        kept = "" if o.useful is None else f", keeps {o.useful:.0%}"
        return f"{o.label.replace('_', ' ')} ({o.form}; {o.guarantee}; {cost}{kept})"

    bar = (
        f"{wanted.motive.replace('_', ' ')}: at least {wanted.least}, against {wanted.threat.replace('_', ' ')} access"
    )
    shown = [f"{bar}.", f"recommended: {told(found.chosen)}"]
    if found.meanwhile is not None:
        shown.append(f"meanwhile:   {told(found.meanwhile)}, which hides it and erases nothing")
    shown += [f"would do too: {told(o)}" for o in found.others]
    shown += [f"not {o.label.replace('_', ' ')}: {'; '.join(o.why_not)}" for o in found.refused]
    return shown
