"""Requests come in, are decided on and closed, by the rules, and by nobody who may not."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta

import pytest
from desk_tools import APPROVER, AUDITOR, OPERATOR, SECOND, START, Bench
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import select

from expunge.errors import Conflict, ExpungeError, NotAllowed, NotFound, RequestError, TooMany, WrongState
from expunge.service import tables
from expunge.service.entities import Actor, Filing, Filter, Page, Scope, Told
from expunge.service.policy import Approval, Policy, Serving
from expunge.service.rows import sla_of
from expunge.service.words import FINAL, MOVES, SLAS, STATUSES


def subject(bench: Bench, name: str) -> Actor:
    return Actor(id=f"key_{name}", role="subject", subject_token=bench.service.identities.token(name))


def test_a_request_is_filed_verified_and_due(bench: Bench) -> None:
    request = bench.desk.file(OPERATOR, Filing(identity="ann", external_id="ticket-1", verified=True))
    assert (request.status, request.sla, request.regime) == ("verified", "on_track", "gdpr")
    assert request.due_at.isoformat() == "2026-04-03T00:00:00+00:00"
    assert [e.kind for e in bench.desk.history(OPERATOR, request.id)] == ["filed", "verified"]
    assert request.id.startswith("req_") and len(request.id) == 30


def test_nothing_that_is_kept_or_told_names_the_subject(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    name = "ann.unmistakable@example.com"
    request_id = bench.file(name, scope=Scope(kind="records", records=("row-unmistakable",)),
                            tell_not=(Told(answer=("Unmistakable Street",)),))  # fmt: skip
    with pytest.raises(ExpungeError) as refused:
        bench.desk.file(subject(bench, "bob"), Filing(identity=name))
    told = "".join(bench.desk.export(OPERATOR, Filter(verified=None), "json")) + str(refused.value) + caplog.text
    told += json.dumps(bench.desk.get(OPERATOR, request_id).public())
    files = b"".join(p.read_bytes() for p in bench.service.home.rglob("*") if p.is_file())
    assert "nmistakable" not in told
    assert b"nmistakable" not in files


def test_the_same_again_while_one_is_open_is_a_duplicate(bench: Bench) -> None:
    first, again, other = bench.file(), bench.file("  ann "), bench.file(scope=Scope(targets=("shop",)))
    assert bench.desk.get(OPERATOR, again).duplicate_of == first
    assert [bench.status(i) for i in (first, again, other)] == ["verified", "cancelled", "verified"]
    bench.desk.cancel(OPERATOR, first)
    assert bench.status(bench.file()) == "verified"


def test_duplicates_are_seen_after_the_lookup_key_was_rotated(bench: Bench) -> None:
    first = bench.file()
    bench.service.identities.rotate()
    again = bench.desk.get(OPERATOR, bench.file())
    assert again.duplicate_of == first
    assert again.subject_token != bench.desk.get(OPERATOR, first).subject_token


def test_case_tells_two_accounts_apart(bench: Bench) -> None:
    bench.file("ann")
    assert bench.desk.get(OPERATOR, bench.file("Ann")).duplicate_of is None


def test_four_eyes(bench: Bench) -> None:
    mine = bench.desk.file(Actor(id="both", role="operator"), Filing(identity="ann", verified=True)).id
    with pytest.raises(Conflict, match="filed"):
        bench.desk.approve(Actor(id="both", role="approver"), mine)
    assert bench.desk.approve(APPROVER, mine).approved_by == APPROVER.id


def test_much_of_a_model_needs_a_second_approver(bench: Bench) -> None:
    request_id = bench.file("cyd")  # 95 of 100 rows
    assert bench.desk.approve(APPROVER, request_id).status == "verified"
    assert bench.desk.approve(APPROVER, request_id).status == "verified"
    assert bench.desk.approve(SECOND, request_id).status == "approved"


def test_nothing_held_and_a_guarantee_out_of_reach_are_not_approved(bench: Bench) -> None:
    with pytest.raises(Conflict, match="no_match"):
        bench.desk.approve(APPROVER, bench.file("nobody"))
    bench.kind().word = "empirical"
    bench.service.registry.reindex("shop")
    with pytest.raises(Conflict, match="cannot reach exact"):
        bench.desk.approve(APPROVER, bench.file("ann"))
    assert bench.desk.approve(APPROVER, bench.file("bob", least_guarantee="empirical")).status == "approved"


def test_a_cost_cap(tmp_path) -> None:
    policy = Policy(serving=Serving(cost_per_hour=60.0), approval=Approval(cost_cap=5.0))
    bench = Bench(tmp_path / "home", policy)
    with pytest.raises(Conflict, match=r"cost 10\.00 EUR"):  # nothing measured: ten minutes are assumed
        bench.desk.approve(APPROVER, bench.file())
    bench.close()


def test_caps_on_filing(tmp_path) -> None:
    bench = Bench(tmp_path / "home", Policy(approval=Approval(per_subject_a_year=2, per_day=3)))
    bench.file("ann")
    bench.file("ann", scope=Scope(targets=("shop",)))
    with pytest.raises(TooMany, match="one subject"):
        bench.file("ann", scope=Scope(targets=("other",)))
    bench.file("bob")
    with pytest.raises(TooMany, match="3 requests a day"):
        bench.file("cyd")
    bench.clock.advance(timedelta(days=366))
    assert bench.file("ann", scope=Scope(targets=("more",)))
    bench.close()


def test_denial_has_a_reason_and_is_final(bench: Bench) -> None:
    request_id = bench.file()
    with pytest.raises(RequestError, match="no reason"):
        bench.desk.deny(OPERATOR, request_id, "bad_mood")
    denied = bench.desk.deny(OPERATOR, request_id, "claim_not_covered", "contract still runs")
    assert (denied.status, denied.denial_reason, denied.sla) == ("denied", "claim_not_covered", "kept")
    for action in (bench.desk.verify, bench.desk.cancel):
        with pytest.raises(WrongState, match="denied"):
            action(OPERATOR, request_id)


def test_one_extension_told_in_time(bench: Bench) -> None:
    request_id = bench.file()
    with pytest.raises(RequestError, match="needs a reason"):
        bench.desk.extend(OPERATOR, request_id, " ")
    extended = bench.desk.extend(OPERATOR, request_id, "many requests")
    assert extended.due_at.isoformat() == "2026-06-03T00:00:00+00:00"
    with pytest.raises(Conflict, match="before"):
        bench.desk.extend(OPERATOR, request_id, "again")
    late = bench.file("bob")
    bench.clock.advance(timedelta(days=40))
    assert bench.desk.get(OPERATOR, late).sla == "overdue"
    with pytest.raises(Conflict, match="due date has passed"):
        bench.desk.extend(OPERATOR, late, "too late")
    drop = bench.file("cyd", regime="drop")
    with pytest.raises(Conflict, match="no extension"):
        bench.desk.extend(OPERATOR, drop, "please")


def test_a_legal_hold_stops_everything_but_the_clock(bench: Bench) -> None:
    request_id = bench.approved()
    due = bench.desk.get(OPERATOR, request_id).due_at
    held = bench.desk.hold(OPERATOR, request_id, "litigation 17")
    assert (held.status, held.paused_from, held.hold_reason, held.due_at) == (
        "paused",
        "approved",
        "litigation 17",
        due,
    )
    bench.clock.advance(timedelta(days=60))
    assert bench.work() == 0 and bench.kind().owners["ann"] == 3
    with pytest.raises(NotAllowed):
        bench.desk.release(OPERATOR, request_id)
    assert bench.desk.release(APPROVER, request_id).status == "approved"
    assert bench.work() == 1 and "ann" not in bench.kind().owners


def test_a_hold_between_planning_and_the_run_is_kept(bench: Bench) -> None:
    ann, bob = bench.approved("ann"), bench.approved("bob")
    bench.service.work.plan_approved()
    bench.clock.advance(timedelta(days=31))
    (batch,) = bench.service.work.batches_due()
    bench.desk.hold(OPERATOR, ann, "litigation")
    bench.run_batch(batch)
    assert (bench.status(ann), bench.status(bob)) == ("paused", "fulfilled")
    assert bench.kind().owners["ann"] == 3 and "bob" not in bench.kind().owners
    bench.desk.release(APPROVER, ann)
    bench.work()
    assert bench.status(ann) == "fulfilled"


def test_finalised_by_hand(bench: Bench) -> None:
    request_id = bench.approved()
    with pytest.raises(RequestError, match="says what was done"):
        bench.desk.finalise(APPROVER, request_id, "")
    assert bench.desk.finalise(APPROVER, request_id, "the tape was shredded").status == "fulfilled"
    assert [e.to_status for e in bench.desk.history(OPERATOR, request_id)][-4:] == [
        "planned", "running", "evaluated", "fulfilled",
    ]  # fmt: skip


def test_subjects_see_their_own_and_nothing_else(bench: Bench) -> None:
    ann = subject(bench, "ann")
    own = bench.desk.file(ann, Filing(identity="ann")).id
    assert bench.status(own) == "verified"  # the key was bound to the subject: nobody else holds it
    other = bench.file("bob")
    with pytest.raises(NotFound) as theirs:
        bench.desk.get(ann, other)
    with pytest.raises(NotFound) as nobodys:
        bench.desk.get(ann, "req_" + "a" * 26)
    assert str(theirs.value) == str(nobodys.value)
    for read in (bench.desk.history, bench.desk.layers, bench.desk.exposure):
        with pytest.raises(NotFound):
            read(ann, other)
    with pytest.raises(NotFound):
        bench.desk.cancel(ann, other)
    assert [one.id for one in bench.desk.list(ann).items] == [own]
    with pytest.raises(Conflict, match="nobody else"):
        bench.desk.file(ann, Filing(identity="bob"))


@pytest.mark.parametrize(
    ("actor", "action", "arguments"),
    [
        (AUDITOR, "file", (Filing(identity="x"),)),
        (APPROVER, "file", (Filing(identity="x"),)),
        (OPERATOR, "approve", ("id",)),
        (AUDITOR, "deny", ("id", "other")),
        (OPERATOR, "finalise", ("id", "x")),
        (OPERATOR, "release", ("id",)),
        (APPROVER, "export", (Filter(), "csv")),
        (AUDITOR, "cancel", ("id",)),
    ],
)
def test_roles(bench: Bench, actor: Actor, action: str, arguments: tuple) -> None:
    request_id = bench.file("ann")
    filled = tuple(request_id if a == "id" else a for a in arguments)
    with pytest.raises(NotAllowed, match=actor.role):
        getattr(bench.desk, action)(actor, *filled)


def test_a_refusal_leaves_its_line_in_the_audit_trail_and_nothing_else(bench: Bench) -> None:
    request_id = bench.file()
    with pytest.raises(NotAllowed):
        bench.desk.approve(OPERATOR, request_id)
    with pytest.raises(RequestError):
        bench.desk.extend(OPERATOR, request_id, "")
    bench.desk.cancel(OPERATOR, request_id)
    with bench.service.database.read() as connection:
        lines = connection.execute(
            select(tables.audit_trail.c.action, tables.audit_trail.c.outcome).order_by(tables.audit_trail.c.id)
        ).all()  # fmt: skip
    assert ("cancel", "done") in lines and lines[0] == ("file", "done")
    assert len(bench.desk.history(OPERATOR, request_id)) == 3


def test_pages_hold_every_request_once_in_order(bench: Bench) -> None:
    names = [f"user {n}" for n in range(23)]
    filed = {bench.file(name, regime="gdpr" if n % 3 else "ccpa") for n, name in enumerate(names)}
    for newest in (False, True):
        seen, after = [], None
        while True:
            page = bench.desk.list(OPERATOR, Filter(), Page(limit=5, after=after, newest_first=newest))
            seen += [one.id for one in page.items]
            assert page.total == 23
            after = page.next
            if after is None:
                break
        assert len(seen) == 23 and set(seen) == filed
        dues = [bench.desk.get(OPERATOR, i).due_at for i in seen]
        assert dues == sorted(dues, reverse=newest)
    with pytest.raises(RequestError, match="after"):
        bench.desk.list(OPERATOR, Filter(), Page(after="nonsense!"))


def test_unverified_requests_are_hidden_and_counted(bench: Bench) -> None:
    hidden = bench.file("ann", verified=False)
    shown = bench.file("bob")
    assert [one.id for one in bench.desk.list(OPERATOR).items] == [shown]
    assert {one.id for one in bench.desk.list(OPERATOR, Filter(verified=None)).items} == {hidden, shown}
    counts = bench.desk.counts(OPERATOR)
    assert counts["unverified"] == {"open": 1} and counts["status"] == {"verified": 1}
    with pytest.raises(WrongState):
        bench.desk.approve(APPROVER, hidden)


def test_filters(bench: Bench) -> None:
    a = bench.file("ann", external_id="t-1", reason="copyright")
    b = bench.file("bob", regime="ccpa")
    bench.desk.cancel(OPERATOR, b)

    def ids(**wanted) -> set[str]:
        return {one.id for one in bench.desk.list(OPERATOR, Filter(**wanted)).items}

    assert ids(status=("cancelled",)) == {b} and ids(open=True) == {a} and ids(open=False) == {b}
    assert ids(reason=("copyright",)) == {a} and ids(regime=("ccpa",)) == {b}
    assert ids(query="t-1") == ids(query=a) == {a} and ids(query="t-") == set()
    assert ids(ids=(a, "req_none")) == {a}
    assert ids(due_before=START + timedelta(days=40)) == {a}
    assert ids(due_from=START + timedelta(days=40)) == {b}
    assert bench.desk.calendar(OPERATOR, START, START + timedelta(days=90)) == {"2026-04-03": 1}


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["extend", "cancel", "none"]), st.integers(0, 120)), min_size=1, max_size=6))
def test_sla_in_sql_is_the_sla_of_the_rule(tmp_path_factory, acts) -> None:
    bench = Bench(tmp_path_factory.mktemp("sla") / "home")
    for n, (act, days) in enumerate(acts):
        request_id = bench.file(f"user {n}", regime=("gdpr", "ccpa", "drop")[n % 3])
        try:
            if act != "none":
                getattr(bench.desk, act)(OPERATOR, request_id, *(("why",) if act == "extend" else ()))
        except Conflict:
            pass
        bench.clock.advance(timedelta(days=days))
    by_sla = {s: {one.id for one in bench.desk.list(OPERATOR, Filter(sla=(s,))).items} for s in SLAS}
    everything = bench.desk.list(OPERATOR).items
    for one in everything:
        assert [s for s in SLAS if one.id in by_sla[s]] == [one.sla]
    assert sum(bench.desk.counts(OPERATOR)["sla"].values()) == len(everything)
    bench.close()


def test_the_row_and_the_rule_agree() -> None:
    from expunge.service.clock import stamp
    from expunge.service.deadlines import due_at, extended_due, sla, soon_at
    from expunge.service.policy import REGIMES

    for regime in REGIMES.values():
        due = due_at(START, regime)
        limit = extended_due(START, regime) if regime.extends else due
        row = {
            "closed_at": None, "due_at": stamp(due), "limit_at": stamp(limit), "extended_at": None,
            "soon_at": stamp(soon_at(START, due, 0.75)),
        }  # fmt: skip
        for days in range(0, 130):
            now = START + timedelta(days=days)
            told = sla(now, received=START, due=due, regime=regime, extended=False, closed=None, due_soon=0.75)
            assert sla_of(row, stamp(now)) == told


def test_bulk_on_a_filter(bench: Bench) -> None:
    ids = [bench.file(f"user {n}") for n in range(4)]
    bench.desk.cancel(OPERATOR, ids[0])
    dry = bench.desk.bulk(OPERATOR, Filter(), "cancel", dry=True)
    assert set(dry.done) == set(ids) and bench.status(ids[1]) == "verified"
    done = bench.desk.bulk(OPERATOR, Filter(), "cancel")
    assert set(done.done) == set(ids[1:])
    assert [i for i, _ in done.refused] == [ids[0]] and "cancelled" in done.refused[0][1]
    with pytest.raises(RequestError, match="no such action"):
        bench.desk.bulk(OPERATOR, Filter(), "bulk")
    with pytest.raises(NotAllowed):
        bench.desk.bulk(AUDITOR, Filter(), "cancel")


def test_export(bench: Bench) -> None:
    bench.file("ann", external_id="t-1")
    (row,) = csv.DictReader(io.StringIO("".join(bench.desk.export(AUDITOR, Filter(), "csv"))))
    assert row["external_id"] == "t-1" and row["status"] == "verified"
    (told,) = json.loads("".join(bench.desk.export(AUDITOR, Filter(), "json")))
    assert told["external_id"] == "t-1" and "subject_token" not in told and "tokens" not in json.dumps(told)
    with pytest.raises(RequestError, match="no such form"):
        bench.desk.export(AUDITOR, Filter(), "pdf")


@pytest.mark.parametrize(
    "told",
    [
        {"identity": ""},
        {"scope": {"kind": "owner"}},
        {"identity": "x", "scope": {"kind": "records"}},
        {"identity": "x", "scope": {"kind": "concept"}},
        {"identity": "x", "external_id": "a b"},
        {"identity": "x", "reason": "spite"},
        {"identity": "x", "received_at": "2026-01-01T00:00:00"},
        {"identity": "x", "tell_not": [{}]},
        {"identity": "x", "unknown": 1},
    ],
)
def test_what_is_no_filing(told) -> None:
    with pytest.raises(ValidationError):
        Filing.model_validate(told)


def test_a_receipt_in_the_future_is_refused(bench: Bench) -> None:
    with pytest.raises(RequestError, match="future"):
        bench.file("ann", received_at=START + timedelta(hours=1))
    early = bench.desk.get(OPERATOR, bench.file("bob", received_at=START - timedelta(days=10)))
    assert early.due_at.isoformat() == "2026-03-21T00:00:00+00:00"  # 20 March, one month after 20 February


def test_moves_are_closed_and_final_states_are_final() -> None:
    assert set(MOVES) == set(STATUSES)
    for state, to in MOVES.items():
        assert to <= set(STATUSES)
        assert bool(to) != (state in FINAL)


def test_moves_are_made_once_however_many_ask(bench: Bench) -> None:
    from concurrent.futures import ThreadPoolExecutor

    request_id = bench.file()

    def one(_: int) -> str:
        try:
            bench.desk.cancel(OPERATOR, request_id)
            return "done"
        except (WrongState, Conflict) as error:
            return type(error).__name__

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(one, range(16)))
    assert told.count("done") == 1
    assert [e.kind for e in bench.desk.history(OPERATOR, request_id)].count("cancelled") == 1
