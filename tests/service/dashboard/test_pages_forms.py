"""Everything that can be done, done with forms alone, as a browser without scripts sends them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from desk_tools import APPROVER, OPERATOR, SECOND, Counted
from html_tools import Page
from office import PEOPLE, SUBJECT, Office, Visitor
from sqlalchemy import select, update

from expunge.audit.keys import KeyFolder
from expunge.errors import Conflict, WrongState
from expunge.service import tables
from expunge.service.dashboard.actions import ACTIONS, barred, possible
from expunge.service.entities import SYSTEM, Filter, Request
from expunge.service.words import STATUSES


def flash(answer: object) -> str:
    """What the page says of the step before."""
    page = Page(answer.text)  # type: ignore[attr-defined]
    found = [e for e in page.elements if "flash" in (e.get("class") or "").split()]
    return found[0].words if found else ""


def act(visitor: Visitor, request_id: str, action: str, **fields: str) -> object:
    form = visitor.page(f"/requests/{request_id}").form(f"/{request_id}/{action}")
    return visitor.submit(form, **fields)


def test_a_request_from_the_form_to_its_certificates(office: Office, tmp_path: Path) -> None:
    operator, approver, auditor = (office.visitor(role) for role in ("operator", "approver", "auditor"))
    form = operator.page("/requests/new").form("/requests/new")
    filed = operator.submit(form, identity=SUBJECT, external_id="T/1", regime="gdpr")
    request_id = filed.url.path.split("/")[-1]
    assert flash(filed) == "Filed. It is due by 2 Apr 2026, 24:00 CEST."
    assert flash(operator.get(f"/requests/{request_id}")) == ""  # told once
    assert flash(act(operator, request_id, "verify")) == "The request is verified."
    page = approver.page(f"/requests/{request_id}")
    for words in ("12", "1.75 EUR", "Step by step by policy", "distilled: made from"):
        assert words in page.words
    assert flash(act(approver, request_id, "approve")) == "The request is approved."
    assert "Nothing by you now: the service is at work." in auditor.page(f"/requests/{request_id}").words
    for days in (0, 1, 5):
        office.bench.clock.advance(timedelta(days=days))
        office.bench.work()
    assert auditor.get("/requests").url.path == "/sign-in"  # a session is over after hours
    auditor = office.visitor("auditor")
    page = auditor.page(f"/requests/{request_id}")
    assert "Everything that was to be done is done." in page.words
    assert "adapters: in force 1 day, approximately gone 5 days, then gone" in page.words
    links = [e.get("href") or "" for e in page.every("a") if "/certificates/" in (e.get("href") or "")]
    assert len(links) == 5
    for link in links:
        file = auditor.get(link)
        assert file.headers["content-disposition"].startswith('attachment; filename="req_')
        form = auditor.page("/certificates").form("/certificates")
        told = Page(auditor.submit(form, files={"certificate": ("c.json", file.content)}).text)
        assert "The certificate holds" in told.words
        assert request_id in told.words
    assert "Get certificate" in auditor.get("/audit").text
    # the subject sees it closed, and may keep the evidence
    subject = office.visitor("subject")
    assert "Nothing: the request is closed." in subject.page(f"/requests/{request_id}").words
    assert subject.get(links[-1]).content == file.content


def test_a_subject_files_for_nobody_else(office: Office) -> None:
    subject = office.visitor("subject")
    form = subject.page("/requests/new").form("/requests/new")
    refused = subject.submit(form, identity=PEOPLE[1])
    assert refused.status_code == 409
    assert "a subject files for nobody else" in refused.text.lower()
    assert PEOPLE[1] not in refused.text
    filed = subject.submit(form, identity=SUBJECT, reason="copyright")
    assert "It waits for an approver" in filed.text
    cancelled = act(subject, filed.url.path.split("/")[-1], "cancel")
    assert flash(cancelled) == "The request is cancelled."


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"identity": ""}, "A request about a person's records needs an identity"),
        ({"kind": "records"}, "Records go with the kind"),
        ({"kind": "concept"}, "A concept needs"),
        ({"external_id": "a b"}, "Your own reference: begins with a letter or digit"),
        ({"about": "é", "kind": "concept"}, "The id of the description: begins with"),
        ({"received_on": "soon"}, "The day of receipt is no date"),
        ({"received_on": "2030-01-01"}, "The day of receipt lies in the future"),
        ({"reason": "spite"}, "reason"),
        ({"regime": "martian"}, "the policy has no regime"),
        ({"answers": "x"}, "A phrase has between 2 and 500 characters"),
    ],
)
def test_a_form_that_is_not_taken_says_why_and_keeps_what_is_nobodys_name(
    shared: Office, fields: dict, said: str
) -> None:
    operator = shared.known("operator")
    form = operator.page("/requests/new").form("/requests/new")
    sent = {"identity": "person-77", "external_id": "T-1", "least_guarantee": "certified", **fields}
    answer = operator.submit(form, **sent)
    assert answer.status_code == 422
    page = Page(answer.text)
    assert said.lower() in page.words.lower()
    assert "person-77" not in answer.text
    again = dict(page.form("/requests/new").fields)
    assert again["identity"] == ""
    assert again["least_guarantee"] == "certified"
    assert again["external_id"] == sent["external_id"]


def test_every_field_of_the_form_reaches_the_desk(office: Office) -> None:
    operator = office.visitor("operator")
    form = operator.page("/requests/new").form("/requests/new")
    answer = operator.submit(
        form,
        identity=PEOPLE[2],
        verified="yes",
        kind="records",
        records="row-1\n row-2 \n\nrow-1",
        targets=["orders"],
        answers="Jane Roe lives there\nsecond",
        questions="where, Jane, live",
        reason="safety",
        regime="ccpa",
        least_guarantee="empirical",
        external_id="T-9",
        received_on="2026-02-20",
    )
    request = office.desk.get(OPERATOR, answer.url.path.split("/")[-1])
    assert (request.reason, request.regime, request.least_guarantee) == ("safety", "ccpa", "empirical")
    assert (request.external_id, request.verified, request.status) == ("T-9", True, "verified")
    assert request.scope["targets"] == ["orders"]
    assert len(request.scope["records"]) == 2
    assert request.received_at.isoformat() == "2026-02-20T00:00:00+00:00"
    with office.service.database.read() as connection:
        sealed = connection.execute(select(tables.request.c.sealed).where(tables.request.c.id == request.id)).scalar()
    assert json.loads(office.service.identities.unseal(request.id, sealed)) == [
        {"question": [], "answer": ["Jane Roe lives there"]},
        {"question": [], "answer": ["second"]},
        {"question": ["where", "Jane", "live"], "answer": []},
    ]
    assert "Jane" not in answer.text
    again = operator.submit(form, identity=PEOPLE[2], kind="records", records="row-2\nrow-1", targets=["orders"])
    assert "duplicate" in flash(again)
    assert f"/requests/{request.id}" in again.text


def test_denial_extension_hold_release_retry_and_closing_by_hand(office: Office) -> None:
    operator, approver = office.visitor("operator"), office.visitor("approver")
    one, two, three = (office.file(PEOPLE[n]) for n in (1, 2, 3))
    no_reason = act(operator, one, "deny", why="")
    assert no_reason.status_code == 422
    assert "no reason was chosen" in no_reason.text.lower()
    denied = act(operator, one, "deny", why="no_match", note="looked twice")
    assert flash(denied) == "The request is denied."
    words = Page(denied.text).words
    assert "Denied, because Nothing matches the subject" in words
    assert "Note looked twice" in words
    assert flash(act(operator, two, "extend", why="many rows")) == "The request is extended."
    page = operator.page(f"/requests/{two}")
    assert "Extended" in page.words
    assert not [form for form in page.forms if form.action.endswith("/extend")]
    assert flash(act(operator, two, "hold", why="court")) == "The request is on hold."
    assert not [form for form in operator.page(f"/requests/{two}").forms if form.action.endswith("/release")]
    assert "release (an approver)" in operator.page(f"/requests/{two}").words
    assert flash(act(approver, two, "release")) == "The request is verified."
    assert flash(act(approver, three, "approve")) == "The request is approved."
    assert act(approver, three, "finalise", note="").status_code == 422
    assert flash(act(approver, three, "finalise", note="removed by hand")) == "The request is fulfilled."
    four = office.approved(PEOPLE[4])
    with office.service.database.write() as connection:
        office.desk.move(connection, four, "failed", "not_planned", reason="no disk")
    assert "no disk" in operator.page(f"/requests/{four}").words
    assert flash(act(operator, four, "retry")) == "The request is approved."


def test_what_has_changed_meanwhile_is_not_decided_blindly(office: Office) -> None:
    approver, request_id = office.visitor("approver"), office.file(PEOPLE[1])
    form = approver.page(f"/requests/{request_id}").form(f"/{request_id}/approve")
    office.desk.extend(OPERATOR, request_id, "slow")
    answer = approver.submit(form)
    assert answer.status_code == 409
    assert "has changed since" in answer.text
    assert office.bench.status(request_id) == "verified"
    with office.service.database.write() as connection:
        connection.execute(update(tables.request).values(filed_by=approver_id(office)))
    page = approver.page(f"/requests/{request_id}")
    assert "four eyes are needed" in page.words
    assert not [form for form in page.forms if form.action.endswith("/approve")]


def approver_id(office: Office) -> str:
    return next(key.id for key in office.access.keys.list(SECOND) if key.role == "approver")


def test_much_of_a_model_takes_two_approvers_on_the_pages_too(office: Office) -> None:
    office.service.registry.kinds["orders"].owners.clear()
    office.service.registry.kinds["orders"].owners.update({PEOPLE[1]: 9, PEOPLE[2]: 1})
    office.service.registry.reindex("orders")
    request_id = office.file(PEOPLE[1], scope={"targets": ["orders"]})
    first, second = office.visitor("approver"), office.visitor("approver")
    assert "a second approver must agree" in flash(act(first, request_id, "approve"))
    assert "Approved by one" in first.page(f"/requests/{request_id}").words
    assert flash(act(second, request_id, "approve")) == "The request is approved."


def test_the_pages_offer_what_the_desk_takes_in_every_state(office: Office) -> None:
    """Each action on a request in each state: offered if and only if the desk does it."""
    arguments = {
        "deny": {"reason": "other"},
        "extend": {"reason": "r"},
        "hold": {"reason": "r"},
        "finalise": {"note": "n"},
    }
    who = {"approve": APPROVER, "release": APPROVER, "finalise": APPROVER}
    late, seen = timedelta(days=0), set()
    office.service.registry.kinds["orders"].owners.update({f"extra-{n}": 1 for n in range(300)})
    office.service.registry.reindex("orders")
    for number, (status, action, extended) in enumerate(
        (status, action, extended) for status in STATUSES for action in ACTIONS for extended in (False, True)
    ):
        if extended and action.name != "extend":
            continue
        request_id = office.file(f"extra-{number}", regime="gdpr")
        closed = "2026-03-02T09:30:00.000000Z" if status in ("fulfilled", "denied", "cancelled") else None
        with office.service.database.write() as connection:
            connection.execute(
                update(tables.request)
                .where(tables.request.c.id == request_id)
                .values(
                    status=status,
                    closed_at=closed,
                    paused_from="verified" if status == "paused" else None,
                    extended_at="2026-03-02T09:30:00.000000Z" if extended else None,
                )
            )
        request: Request = office.desk.get(OPERATOR, request_id)
        offered = possible(action.name, request, office.service.policy, office.service.clock() + late)
        try:
            decide = getattr(office.desk, action.name)
            decide(who.get(action.name, OPERATOR), request_id, **arguments.get(action.name, {}))
            taken = True
        except (WrongState, Conflict):
            taken = False
        assert offered == taken, (status, action.name, extended)
        seen.add((action.name, offered))
    assert seen == {(action.name, offered) for action in ACTIONS for offered in (True, False)}


def test_no_extension_without_one_in_the_regime_or_after_the_due_date(office: Office) -> None:
    policy, now = office.service.policy, office.service.clock()
    house = office.desk.get(OPERATOR, office.file(PEOPLE[1], regime="house"))
    gdpr = office.desk.get(OPERATOR, office.file(PEOPLE[2], regime="gdpr"))
    assert not possible("extend", house, policy, now)
    assert possible("extend", gdpr, policy, gdpr.due_at - timedelta(microseconds=1))
    assert not possible("extend", gdpr, policy, gdpr.due_at)
    assert barred("approve", gdpr, policy, SYSTEM.id) != ""
    assert barred("deny", gdpr, policy, SYSTEM.id) == ""
    assert barred("approve", gdpr, policy, "another") == ""


def test_many_at_once_are_shown_first_and_done_then(office: Office) -> None:
    ids = [office.file(PEOPLE[n]) for n in range(1, 6)]
    office.desk.hold(SECOND, ids[4], "court")
    approver = office.visitor("approver")
    listed = approver.page("/requests").form("/requests/many")
    ticked = approver.submit(listed, tick=ids[:2], pick="ticked", action="approve")
    page = Page(ticked.text)
    assert "Approve: 2 requests?" in page.words
    assert "orders 24 rows" in page.words
    assert "5.83 EUR" in page.words
    assert office.bench.status(ids[0]) == "verified"  # nothing yet
    done = approver.submit(page.form("/requests/many"))
    assert flash(done) == "2 requests approved."
    assert [office.bench.status(one) for one in ids] == ["approved", "approved", "verified", "verified", "paused"]
    every = Page(approver.submit(listed, pick="all", action="deny").text)
    assert "Would be denied 2 requests" in every.words
    assert "1 request: on hold, where this cannot be done" in every.words
    form = every.form("/requests/many")
    missing = approver.submit(form)
    assert missing.status_code == 422
    assert "no reason was chosen" in missing.text.lower()
    office.file(PEOPLE[7])  # another one comes in: the set is not what was shown
    changed = approver.submit(form, why="other")
    assert changed.status_code == 409
    assert "have changed since" in changed.text
    done = approver.submit(Page(changed.text).form("/requests/many"), why="other", note="all of them")
    assert flash(done) == "3 requests denied."
    assert "all of them" in approver.page(f"/requests/{ids[2]}").words


def test_some_of_many_may_be_refused_and_the_reason_is_told(office: Office) -> None:
    ids = [office.file(PEOPLE[n]) for n in (1, 2)]
    ids.append(office.file("stranger-in-no-model"))
    approver = office.visitor("approver")
    listed = approver.page("/requests").form("/requests/many")
    shown = Page(approver.submit(listed, pick="all", action="approve").text)
    assert "Would be refused 1 request: nothing that is registered holds anything of the subject" in shown.words
    told = flash(approver.submit(shown.form("/requests/many")))
    assert told.startswith("2 requests approved. 1 refused. 1: nothing that is registered holds")
    assert ids[2] in told
    assert "no request was chosen" in approver.submit(listed, action="hold").text.lower()


def test_many_take_the_filter_and_no_more_than_a_thousand(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    import expunge.service.dashboard.bulk as bulk

    monkeypatch.setattr(bulk, "MOST", 2)
    monkeypatch.setattr(bulk, "PAGE", 1)
    ids = [office.file(PEOPLE[n], reason="safety" if n < 5 else "privacy", regime="house") for n in range(1, 8)]
    operator = office.visitor("operator")
    listed = operator.page("/requests?reason=safety").form("/requests/many")
    shown = Page(operator.submit(listed, pick="all", action="hold").text)
    assert "At most 2 are taken at once" in shown.words
    assert "2 more wait" in shown.words
    done = operator.submit(shown.form("/requests/many"), why="court")
    assert flash(done) == "2 requests put on hold."
    assert done.url.query == b"reason=safety"
    states = [office.bench.status(one) for one in ids]
    assert states.count("paused") == 2
    assert states[4:] == ["verified"] * 3


def test_a_model_is_registered_indexed_again_and_retired(office: Office) -> None:
    operator = office.visitor("operator")
    kinds = office.service.registry.kinds
    kinds["fresh"] = Counted({"ann": 2}, kind="fresh")
    form = operator.page("/models/new").form("/models/new")
    fields = {"id": "fresh-1", "name": "Fresh", "version": "1", "kind": "fresh", "location": "/srv/fresh"}
    for wrong, said in (
        ({"id": "Not An Id"}, "an id is lower-case"),
        ({"options": "[1]"}, "no json object"),
        ({"options": "{"}, "no json object"),
        ({"name": ""}, "the field name is empty"),
        ({"version": "v" * 61}, "too long"),
        ({"kind": "learner", "location": "/nowhere"}, "there is no learner in that folder"),
        ({"kind": "other", "other": ""}, "the field kind is empty"),
    ):
        refused = operator.submit(form, **{**fields, **wrong})
        assert refused.status_code in (422, 409)
        assert said in refused.text.lower()
        assert dict(Page(refused.text).form("/models/new").fields)["version"] == {**fields, **wrong}["version"]
    done = operator.submit(form, **fields, made_from=["orders"], parent="adapters", options='{"owner": "o"}')
    assert flash(done) == "fresh-1 is registered, and who is in it is indexed."
    target = office.service.registry.get("fresh-1")
    assert (target.made_from, target.parent, target.options["owner"]) == (("orders",), "adapters", "o")
    kinds["fresh"].owners["bob"] = 5
    done = operator.submit(operator.page("/models").form("/models/fresh-1/reindex"))
    assert "has been read again" in flash(done)
    assert office.service.registry.get("fresh-1").options["rows"] == 7
    other = operator.submit(form, **{**fields, "id": "odd", "kind": "other", "other": "cache"})
    assert "cannot be served" in other.text
    retired = operator.submit(operator.page("/models").form("/models/fresh-1/retire"))
    assert "Retired (1)" in retired.text
    assert office.service.registry.get("fresh-1").retired_at is not None
    trail = office.visitor("auditor").get("/audit?action=retire_target").text
    assert "target:fresh-1" in trail


def test_the_check_of_a_certificate_finds_what_is_wrong(shared: Office, tmp_path: Path) -> None:
    auditor = shared.known("auditor")
    link = f"/requests/{shared.ids['fulfilled']}/certificates/orders/exact"
    value = auditor.get(link).json()
    form = auditor.page("/certificates").form("/certificates")

    def checked(told: object, **files: object) -> Page:
        sent = {"certificate": ("c.json", json.dumps(told).encode()), **files}
        return Page(auditor.submit(form, files=sent).text)

    assert "The certificate holds" in checked(value).words
    assert "The files are those that it names" in checked(value).words
    moved = {**value, "log": {**value["log"], "index": value["log"]["index"] + 1}}
    page = checked(moved)
    assert "The certificate does not hold" in page.words
    assert "nobody should believe" in page.words
    assert "The files are those" not in page.words  # what is not signed chooses no file of ours
    stranger = KeyFolder.make(tmp_path / "keys", "stranger.test/expunge").trusted.as_dict()
    page = checked(value, keys=("k.json", json.dumps(stranger).encode()))
    assert "The certificate does not hold" in page.words
    assert "Believed: the keys that you sent" in page.words
    own = shared.service.keys.trusted.as_dict()
    assert "The certificate holds" in checked(value, keys=("k.json", json.dumps(own).encode())).words
    assert "The certificate holds" in Page(auditor.submit(form, pasted=json.dumps(value)).text).words
    for nonsense in ({}, {"envelope": 1}, {"format": 1, "envelope": {"payload": "x"}}, []):
        answer = auditor.submit(form, files={"certificate": ("c.json", json.dumps(nonsense).encode())})
        assert answer.status_code in (200, 422)
        assert "The certificate holds" not in answer.text
    nothing = auditor.submit(form)
    assert nothing.status_code == 422
    assert "no certificate was given" in nothing.text.lower()
    assert auditor.submit(form, files={"certificate": ("c.json", b"\xff\xfe{")}).status_code == 422


def test_nothing_is_done_to_the_number_of_requests_by_looking(shared: Office) -> None:
    before = shared.desk.list(OPERATOR, Filter(verified=None)).total
    for role in ("operator", "approver", "auditor"):
        visitor = shared.known(role)
        for path in ("/requests", f"/requests/{shared.ids['verified']}", "/system", "/models"):
            assert visitor.get(path).status_code == 200
    assert shared.desk.list(OPERATOR, Filter(verified=None)).total == before


def test_a_request_that_was_minimised_is_still_shown(office: Office) -> None:
    from expunge.service.maintenance import Maintenance

    request_id = office.file(PEOPLE[1], external_id="T-1")
    office.desk.extend(OPERATOR, request_id, "slow post")
    office.desk.deny(OPERATOR, request_id, "no_match", "looked twice")
    office.bench.clock.advance(timedelta(days=1000))
    assert Maintenance(office.service).minimise() == 1
    words = office.visitor("operator").page(f"/requests/{request_id}").words
    assert "Denied by somebody" in words
    assert "Denied, because Nothing matches the subject" in words
    for gone in ("slow post", "looked twice", "T-1", "None", "key_"):
        assert gone not in words
