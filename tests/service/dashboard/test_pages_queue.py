"""The queue, the calendar, the living part of a request, and the pages that are only read."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, date, datetime, timedelta

import pytest
from desk_tools import OPERATOR
from html_tools import Page
from hypothesis import given, settings
from hypothesis import strategies as st
from office import PEOPLE, Office
from sqlalchemy import insert

from expunge.errors import RequestError
from expunge.service import tables
from expunge.service.clock import stamp
from expunge.service.dashboard.asked import Asked, due_between, last_day
from expunge.service.dashboard.wording import distance, end_of, number, share, span
from expunge.service.deadlines import due_at
from expunge.service.desk import OPEN_SLAS
from expunge.service.entities import Filter
from expunge.service.policy import Regime
from expunge.service.words import SLAS, STATUSES

HX = {"hx-request": "true", "hx-request-type": "partial"}


def ids(text: str) -> list[str]:
    """Of the rows of a list, in order."""
    return re.findall(r'<tr role="row">.*?href="/requests/(req_\w+)"', text, re.DOTALL)


def test_the_list_shows_what_the_filter_asks_for(shared: Office) -> None:
    visitor = shared.known("operator")
    for status in STATUSES:
        shown = ids(visitor.get(f"/requests?status={status}&verified=any").text)
        wanted = shared.desk.list(OPERATOR, Filter(status=(status,), verified=None))
        assert shown == [request.id for request in wanted.items]
        assert shared.ids[status] in shown
    for sla in SLAS:
        shown = ids(visitor.get(f"/requests?sla={sla}").text)
        assert shown == [request.id for request in shared.desk.list(OPERATOR, Filter(sla=(sla,))).items]
    default = ids(visitor.get("/requests").text)
    assert shared.ids["fulfilled"] not in default  # closed
    assert shared.ids["received"] not in default  # nobody has verified who asks
    assert shared.ids["verified"] in default
    assert shared.ids["fulfilled"] in ids(visitor.get("/requests?show=closed").text)
    assert ids(visitor.get("/requests?q=ticket/3").text) == [shared.ids["verified"]]
    assert ids(visitor.get(f"/requests?q={shared.ids['received']}").text) == [shared.ids["received"]]
    assert ids(visitor.get("/requests?reason=copyright").text) == []
    assert ids(visitor.get("/requests?unknown=1&sla=&status=").text) == default
    assert ids(visitor.get("/requests?order=last").text) == default[::-1]


def test_unverified_requests_are_hidden_and_their_number_is_told(office: Office) -> None:
    shown, hidden = office.file(PEOPLE[1]), office.file(PEOPLE[2], verified=False)
    visitor = office.visitor("operator")
    page = visitor.page("/requests")
    assert "1 more is hidden, for nobody has verified who asks." in page.words
    link = next(e.get("href") for e in page.every("a") if e.words == "Show it")
    assert ids(visitor.get(str(link)).text) == [hidden]
    assert set(ids(visitor.get("/requests?verified=any").text)) == {shown, hidden}
    assert "hidden" not in visitor.page("/requests?reason=safety").words


def test_pages_hold_every_request_once_and_keep_the_filter(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("expunge.service.dashboard.asked.ROWS", 4)
    for n in range(1, 12):
        office.file(PEOPLE[n], reason="safety", received_at=office.service.clock() - timedelta(days=n // 2))
    office.file(PEOPLE[13])
    visitor, path, seen, count = office.visitor("operator"), "/requests?reason=safety", [], 0
    while path:
        page = visitor.page(path)
        assert "11 open requests match" in page.words
        seen += ids(visitor.get(path).text)
        path = next((str(e.get("href")) for e in page.every("a") if e.get("rel") == "next"), "")
        assert bool(count) == any(e.words == "First page" for e in page.every("a"))
        count += 1
    wanted = office.desk.list(OPERATOR, Filter(reason=("safety",))).items
    assert (count, seen) == (3, [request.id for request in wanted])


def test_the_tiles_count_what_is_open_and_lead_to_it(office: Office) -> None:
    now = office.service.clock()
    for n, days in enumerate((40, 100, 25, 1, 1), start=1):
        office.file(PEOPLE[n], received_at=now - timedelta(days=days))
    visitor = office.visitor("auditor")
    page = visitor.page("/requests")
    tiles = [e for e in page.every("a") if "tile" in (e.get("class") or "").split()]
    assert [tile.words.split()[0] for tile in tiles] == ["1", "1", "1", "2"]
    for tile, sla in zip(tiles, OPEN_SLAS, strict=True):
        found = visitor.page(str(tile.get("href")))
        counted = tile.words.split()[0]
        assert f"{counted} open request" in found.words
        pressed = [e for e in found.every("a") if e.get("aria-current") and "tile" in (e.get("class") or "")]
        assert len(pressed) == 1
        assert "sla" not in str(pressed[0].get("href"))  # pressing again shows all
        assert sla.split("_")[0].capitalize() in pressed[0].words


def test_a_script_gets_the_list_alone(shared: Office) -> None:
    visitor = shared.known("operator")
    whole = visitor.get("/requests?reason=privacy&sla=on_track")
    part = visitor.client.get("/requests?reason=privacy&sla=on_track&q=&due_from=", headers=HX)
    assert "<html" not in part.text
    assert ids(part.text) == ids(whole.text)
    assert 'id="tiles"' in part.text
    assert part.headers["vary"] == "HX-Request-Type"
    assert whole.headers["vary"] == "HX-Request-Type"


def test_what_matches_is_handed_out_without_personal_data(shared: Office) -> None:
    visitor = shared.known("operator")
    rows = list(csv.DictReader(io.StringIO(visitor.get("/requests/export/csv?status=denied&status=failed").text)))
    assert {row["id"] for row in rows} == {shared.ids["denied"], shared.ids["failed"]}
    told = json.loads(visitor.get("/requests/export/json?status=denied").text)
    assert [one["id"] for one in told] == [shared.ids["denied"]]
    assert visitor.get("/requests/export/xml").status_code == 404


def test_the_living_part_changes_when_the_request_does(office: Office) -> None:
    request_id = office.approved(PEOPLE[1])
    visitor = office.visitor("operator")
    page = visitor.page(f"/requests/{request_id}")
    head = next(e for e in page.elements if e.get("id") == "live-head")
    assert head.get("hx-trigger") == "every 3s"
    path = str(head.get("hx-get"))
    assert visitor.client.get(path, headers=HX).status_code == 204
    office.service.work.plan_approved()
    part = visitor.client.get(path, headers=HX)
    assert part.status_code == 200
    assert "<html" not in part.text
    assert "The request has moved on" in part.text
    assert 'id="live-body" hx-swap-oob="true"' in part.text
    assert "Waiting" in part.text
    again = str(re.search(r'hx-get="([^"]+)"', part.text)[1]).replace("&amp;", "&")  # type: ignore[index]
    assert visitor.client.get(again, headers=HX).status_code == 204
    for days in (1, 5):
        office.bench.clock.advance(timedelta(days=days))
        office.bench.work()
    done = office.visitor("operator").client.get(again, headers=HX)
    assert "Fulfilled" in done.text
    assert "every 3s" not in done.text  # nothing is to be waited for


def test_the_calendar_counts_the_last_days_and_each_leads_to_its_requests(office: Office) -> None:
    made = [
        office.file(PEOPLE[n], regime=regime, received_at=office.service.clock() - timedelta(days=n))
        for n, regime in enumerate(("gdpr", "ccpa", "house", "gdpr", "ccpa", "house"), start=1)
    ]
    office.file(PEOPLE[8], verified=False)
    visitor = office.visitor("auditor")
    found: dict[str, int] = {}
    for month in ("2026-02", "2026-03", "2026-04"):
        page = visitor.page(f"/calendar?month={month}")
        for link in page.every("a"):
            match = re.fullmatch(r"/requests\?due_from=([\d-]+)&due_to=([\d-]+)", link.get("href") or "")
            if match:
                found[match[1]] = int(link.words.split()[0])
                assert len(ids(visitor.get(str(link.get("href"))).text)) == found[match[1]]
    wanted: dict[str, int] = {}
    for request_id in made:
        request = office.desk.get(OPERATOR, request_id)
        day, _ = end_of(request.due_at, office.service.policy.regimes[request.regime].zone)
        key = datetime.strptime(day, "%d %b %Y").date().isoformat()
        wanted[key] = wanted.get(key, 0) + 1
    assert found == wanted
    assert [e.words for e in visitor.page("/calendar").every("h1")] == ["March 2026"]
    assert "This month" in visitor.page("/calendar?month=2026-12").words


@settings(deadline=None, max_examples=60)
@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1)).map(lambda at: at.replace(tzinfo=UTC)),
    st.sampled_from(
        (
            "UTC",
            "Europe/Berlin",
            "America/Los_Angeles",
            "Asia/Kolkata",
            "Pacific/Auckland",
            "Pacific/Honolulu",
            "Asia/Tokyo",
        )
    ),
    st.booleans(),
)
def test_the_last_day_is_that_of_the_regimes_own_zone(received: datetime, zone: str, working: bool) -> None:
    due = due_at(received, Regime(calendar_months=1, working_day=working, zone=zone))
    day = last_day(due)
    assert end_of(due, zone)[0] == f"{day.day} {day:%b %Y}"
    first, before = due_between(day, day)
    assert first <= due < before


@pytest.mark.parametrize(
    ("due", "zone", "told"),
    [
        (datetime(2026, 4, 2, 22, tzinfo=UTC), "Europe/Berlin", ("2 Apr 2026", "24:00 CEST")),
        (
            datetime(2026, 3, 28, 23, tzinfo=UTC),
            "Europe/Berlin",
            ("28 Mar 2026", "24:00 CET"),
        ),  # the clocks change that night
        (datetime(2026, 1, 1, tzinfo=UTC), "UTC", ("31 Dec 2025", "24:00 UTC")),
        (datetime(2026, 1, 1, 10, 5, tzinfo=UTC), "UTC", ("1 Jan 2026", "10:05 UTC")),
        (datetime(2026, 1, 1, 3, tzinfo=UTC), "America/Sao_Paulo", ("31 Dec 2025", "24:00 UTC-03")),
    ],
)
def test_due_moments_in_words(due: datetime, zone: str, told: tuple[str, str]) -> None:
    assert end_of(due, zone) == told


def test_spans_shares_and_distances_in_words() -> None:
    words = {
        0.4: "under 1 second",
        1: "1 second",
        90: "1.5 minutes",
        3600: "1 hour",
        86400 * 2.5: "2.5 days",
        86400 * 12.7: "13 days",
    }
    assert {seconds: span(seconds) for seconds in words} == words
    assert [share(x) for x in (0, 0.5, 0.0417, 0.00001, 1)] == ["0 %", "50 %", "4.17 %", "under 0.01 %", "100 %"]
    assert [number(x) for x in (0, 999, 1000, 1234567)] == ["0", "999", "1\u2009000", "1\u2009234\u2009567"]
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert distance(now + timedelta(days=3), now) == "in 3 days"
    assert distance(now - timedelta(hours=5), now) == "5 hours late"
    assert distance(now, now) == "under 1 second late"


def test_a_query_is_written_again_with_one_thing_changed() -> None:
    items = [("sla", "overdue"), ("reason", "privacy"), ("reason", "safety"), ("after", "x"), ("odd", "1"), ("q", " ")]
    asked = Asked.read(items, ("gdpr",))
    assert asked.query() == "sla=overdue&reason=privacy&reason=safety"
    assert asked.query(sla=None, regime=("gdpr",)) == "reason=privacy&reason=safety&regime=gdpr"
    assert asked.query(after="y").endswith("&after=y")
    assert asked.page.after == "x"
    assert (asked.show, asked.filter.open) == ("open", True)
    assert Asked.read([("status", "denied")], ()).filter.open is None
    assert Asked.read([("sla", "kept")], ()).filter.open is None
    assert Asked.read([("show", "closed")], ()).filter.open is False
    between = Asked.read([("due_from", "2026-03-01"), ("due_to", "2026-03-02")], ()).filter
    assert between.due_from == datetime(2026, 3, 1, 10, 30, tzinfo=UTC)
    assert between.due_before == datetime(2026, 3, 3, 10, 30, tzinfo=UTC)
    with pytest.raises(RequestError, match="regime"):
        Asked.read([("regime", "gdpr")], ())
    assert last_day(datetime(2026, 3, 1, 10, 30, tzinfo=UTC)) == date(2026, 3, 1)


def test_the_policy_is_told_in_words(shared: Office) -> None:
    words = shared.known("approver").page("/policy").words
    for told in (
        "gdpr default 1 calendar month 2 months a working day Europe/Berlin",
        "ccpa 45 calendar days 45 days any day America/Los_Angeles",
        "house 5 calendar days none any day UTC",
        "Rule Step by step",
        "3.50 EUR an hour",
        "Four eyes yes",
        "more than 50 % of a target",
        "Each is tried 4 times",
    ):
        assert told in words, told


def test_the_system_page_tells_who_works_and_what_failed(office: Office) -> None:
    visitor = office.visitor("auditor")
    assert "No worker is there" in visitor.page("/system").words
    office.worker()
    with office.service.database.write() as connection:
        connection.execute(
            insert(tables.batch).values(
                id="batch_x",
                target="orders",
                stage="exact",
                status="failed",
                size=7,
                created_at=stamp(office.service.clock()),
                reason="StepFailed: the disk is full",
            )
        )
    office.file(PEOPLE[1])
    words = visitor.page("/system").words
    assert "wrk_alive Alive" in words
    assert "wrk_silent Silent" in words
    assert "0 waiting, 0 running, 1 failed, 0 done" in words
    assert "the disk is full" in words
    assert "Requests, open 1 keyed hash of the subject" in words
    assert "nothing was certified yet" in words


def test_the_audit_trail_is_read_by_page_and_by_action(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("expunge.service.dashboard.readings.LINES", 3)
    for n in range(1, 6):
        office.desk.hold(OPERATOR, office.file(PEOPLE[n]), "court")
    visitor, path, seen = office.visitor("auditor"), "/audit?action=hold", []
    while path:
        text = visitor.get(path).text
        seen += re.findall(r"/requests/(req_\w+)", text)
        path = next((str(e.get("href")) for e in Page(text).every("a") if e.get("rel") == "next"), "")
    assert len(seen) == len(set(seen)) == 5
    assert visitor.get("/audit?action=a b").status_code == 422
    assert "There is no such line" in visitor.page("/audit?action=retire_target").words
