"""One action on many requests: first what would happen, then the same set again, and nothing else."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import QueryParams
from starlette.responses import Response

from expunge.errors import ExpungeError, NotAllowed, RequestError
from expunge.service.dashboard import wording
from expunge.service.dashboard.actions import BY_NAME, MANY, Action, arguments, barred, possible
from expunge.service.dashboard.asked import KNOWN, Asked
from expunge.service.dashboard.flash import Flash
from expunge.service.dashboard.frame import PageOf, Visit
from expunge.service.entities import Filter, Page, Request
from expunge.service.permissions import check
from expunge.service.words import DENIAL_REASONS

MOST = 1000  # at once from here: the browser waits for it
ESTIMATED = 25
PAGE = 500


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What an action would do.

    Args:
        chosen: the requests, the earliest due date first. fit: ids that their state allows it for. unfit: (why, how
            many). left: how many the filter lets through beyond `chosen`. digest: of the ids, so that what is carried
            out is what was shown. cost: of those that were estimated; None: not asked.
    """

    action: Action
    chosen: tuple[Request, ...]
    fit: tuple[Request, ...]
    unfit: tuple[tuple[str, int], ...]
    left: int
    digest: str
    cost: dict[str, Any] | None


def preview(visit: Visit) -> Response:
    """The page before the deed."""
    query = visit.request.query_params
    found = _preview(visit, query)
    return _page(visit, found, query.multi_items())


def _page(
    visit: Visit, found: Preview, items: Sequence[tuple[str, str]], *, wrong: str = "", status: int = 200
) -> Response:
    kept = [(name, value) for name, value in items if name in (*KNOWN, "tick", "pick")]
    return visit.page(
        "bulk.html.j2",
        status=status,
        preview=found,
        kept=kept,
        back=f"/requests?{urlencode([pair for pair in kept if pair[0] in KNOWN])}",
        denials=DENIAL_REASONS,
        wrong=wrong,
    )


def carry_out(visit: Visit) -> Response:
    """The deed, if the requests are still those that were shown."""
    items = visit.sent_items()
    found = _preview(visit, QueryParams(items))
    if visit.sent("digest") != found.digest:
        wrong = "The requests have changed since the page was made. Look at them again."
        return _page(visit, found, items, wrong=wrong, status=409)
    try:
        told = arguments(found.action, visit.sent)
    except RequestError as error:
        return _page(visit, found, items, wrong=str(error), status=422)
    ids = tuple(request.id for request in found.fit)
    if not ids:
        raise RequestError("there is nothing to do", "Choose other requests")
    wanted = Filter(ids=ids, verified=None)
    outcome = visit.service.desk.bulk(visit.actor, wanted, found.action.name, **told)
    back = [(name, value) for name, value in items if name in KNOWN and name != "after"]
    return visit.go(f"/requests?{urlencode(back)}", _flash(found.action, outcome.done, outcome.refused))


def _flash(action: Action, done: Sequence[str], refused: Sequence[tuple[str, str]]) -> Flash:
    text = f"{wording.plural(len(done), 'request')} {action.done}." if done else "Nothing was done."
    if not refused:
        return Flash(text=text)
    reasons = Counter(why for _, why in refused)
    more = []
    for why, count in reasons.most_common():
        ids = [request_id for request_id, told in refused if told == why][:3]
        tail = ", …" if count > len(ids) else ""
        more.append(f"{count}: {why} ({', '.join(ids)}{tail})")
    return Flash(text=f"{text} {len(refused)} refused.", tone="mixed", more=tuple(more))


def _preview(visit: Visit, query: QueryParams) -> Preview:
    """
    Raises:
        RequestError: no action, or nothing chosen. NotAllowed: not with this role.
    """
    name = query.get("action", "")
    if name not in BY_NAME or BY_NAME[name] not in MANY:
        raise RequestError("no action was chosen", "Choose one beneath the list")
    action = BY_NAME[name]
    check(visit.actor, action.name)
    chosen, left = _chosen(visit, query)
    if not chosen:
        raise RequestError("no request was chosen", "Tick some, or choose all that match")
    fit, unfit = [], Counter[str]()
    for request in chosen:
        why = barred(name, request, visit.service.policy, visit.actor.id)
        if why:
            unfit["you filed it, and four eyes are needed"] += 1
        elif not possible(name, request, visit.service.policy, visit.now):
            unfit[_unfit(name, request)] += 1
        else:
            fit.append(request)
    digest = hashlib.sha256("\n".join(request.id for request in chosen).encode()).hexdigest()
    return Preview(
        action=action,
        chosen=tuple(chosen),
        fit=tuple(fit),
        unfit=tuple(unfit.most_common()),
        left=left,
        digest=digest,
        cost=_cost(visit, fit) if name == "approve" else None,
    )


def _unfit(action: str, request: Request) -> str:
    if action == "extend" and request.closed_at is None:
        return "no extension is left, or the due date has passed"
    return f"{wording.STATUS[request.status].lower()}, where this cannot be done"


def _chosen(visit: Visit, query: QueryParams) -> tuple[list[Request], int]:
    """Those that were ticked, or as many of all that match as are taken at once; and how many are left over."""
    desk = visit.service.desk
    if query.get("pick") == "all":
        wanted = Asked.read(query.multi_items(), tuple(visit.service.policy.regimes)).filter
    else:
        ticked = tuple(dict.fromkeys(query.getlist("tick")))[:MOST]
        if not ticked:
            return [], 0
        wanted = Filter(ids=ticked, verified=None)
    chosen: list[Request] = []
    page, total = Page(limit=PAGE), 0
    while True:
        listing = desk.list(visit.actor, wanted, page)
        chosen += listing.items
        total = listing.total
        if listing.next is None or len(chosen) >= MOST:
            break
        page = Page(limit=PAGE, after=listing.next)
    return chosen[:MOST], max(0, total - MOST)


def _cost(visit: Visit, requests: Sequence[Request]) -> dict[str, Any]:
    """What the first of them would touch and take, by the policy's rule; and which would be refused."""
    looked = requests[:ESTIMATED]
    rows: Counter[str] = Counter()
    cost = seconds = 0.0
    refused: Counter[str] = Counter()
    for request in looked:
        try:
            told = visit.service.desk.estimate(visit.actor, request.id)
        except NotAllowed:
            raise
        except ExpungeError as error:
            refused[error.cause] += 1
            continue
        if told["refused"]:
            refused["; ".join(told["refused"])] += 1
            continue
        option = told["options"][told["rule"]]
        cost, seconds = cost + option["cost"], seconds + option["seconds"]
        for target in told["targets"]:
            rows[target["target"]] += target["rows"]
    serving = visit.service.policy.serving
    return {
        "looked": len(looked),
        "rows": tuple(rows.most_common()),
        "seconds": seconds,
        "cost": wording.money(cost, serving.currency) if serving.cost_per_hour else None,
        "refused": tuple(refused.most_common()),
    }


PAGES = (
    PageOf("GET", "/requests/many", "list", preview),
    PageOf("POST", "/requests/many", "list", carry_out),
)
