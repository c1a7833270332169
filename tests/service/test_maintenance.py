"""What the service itself forgets, and the scan that shows it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from desk_tools import APPROVER, OPERATOR, Bench
from sqlalchemy import func, select

from expunge.errors import NotAllowed, NotFound, WrongState
from expunge.service import tables
from expunge.service.doctor import examine
from expunge.service.entities import Filter
from expunge.service.maintenance import Maintenance
from expunge.service.policy import Policy, Retention, Serving


@pytest.fixture
def kept(tmp_path):
    retention = Retention(identity_days=30, request_days=365, log_days=400, suppression_days=700)
    bench = Bench(tmp_path / "home", Policy(retention=retention, serving=Serving(rule="now")))
    yield bench
    bench.close()


def count(bench: Bench, table) -> int:
    with bench.service.database.read() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def test_a_closed_request_is_minimised_in_time_and_not_before(kept: Bench) -> None:
    done, waiting = kept.approved("ann", external_id="t-1"), kept.file("bob")
    kept.work()
    keeper = Maintenance(kept.service)
    kept.clock.advance(timedelta(days=364))
    assert keeper.run()["requests minimised"] == 0
    kept.clock.advance(timedelta(days=2))
    assert keeper.run()["requests minimised"] == 1
    with kept.service.database.read() as connection:
        rows = {row["id"]: row for row in connection.execute(select(tables.request)).mappings()}
        details = connection.execute(select(tables.event.c.detail).where(tables.event.c.request_id == done)).scalars()
        assert all(detail == {} for detail in details)
    assert rows[done]["subject_token"] is None and rows[done]["external_id"] is None
    assert "tokens" not in rows[done]["scope"] and rows[done]["status"] == "fulfilled"
    assert rows[waiting]["subject_token"]
    assert keeper.run()["requests minimised"] == 0
    assert kept.service.suppression.blocked(["ann"]) == [True]  # still kept out, by its hash
    assert len(list(kept.desk.list(OPERATOR, Filter(verified=None)).items)) == 2


def test_old_lines_and_old_blocks_go(kept: Bench) -> None:
    kept.approved("ann")
    kept.work()
    lines = count(kept, tables.audit_trail)
    assert lines
    kept.clock.advance(timedelta(days=399))
    Maintenance(kept.service).run()
    assert count(kept, tables.audit_trail) == lines
    kept.clock.advance(timedelta(days=2))
    Maintenance(kept.service).run()
    assert count(kept, tables.audit_trail) == 0
    kept.clock.advance(timedelta(days=300))
    Maintenance(kept.service).run()
    assert kept.service.suppression.blocked(["ann"]) == [False] and count(kept, tables.suppressed) == 0


def test_erased_for_good(kept: Bench) -> None:
    request_id, other = kept.approved("ann"), kept.file("bob")
    kept.work()
    keeper = Maintenance(kept.service)
    with pytest.raises(WrongState):
        keeper.erase(APPROVER, other)
    with pytest.raises(NotAllowed):
        keeper.erase(OPERATOR, request_id)
    keeper.erase(APPROVER, request_id)
    with pytest.raises(NotFound):
        kept.desk.get(OPERATOR, request_id)
    assert kept.service.suppression.blocked(["ann"]) == [True]
    raw = b"".join(p.read_bytes() for p in kept.service.home.glob("service.db*"))
    assert request_id.encode() not in raw


def test_who_comes_back_is_filed_again_once(kept: Bench) -> None:
    first = kept.approved("ann")
    kept.work()
    kept.clock.advance(timedelta(days=45))
    assert Maintenance(kept.service).look_again() == 0
    kept.kind().owners["ann"] = 7  # ingested again somewhere
    kept.service.registry.reindex("shop")
    assert Maintenance(kept.service).look_again() == 1
    assert Maintenance(kept.service).look_again() == 0
    (again,) = list(kept.desk.list(OPERATOR, Filter(open=True)).items)
    assert again.status == "verified" and again.received_at == kept.clock()
    assert kept.desk.history(OPERATOR, again.id)[0].detail == {"after": first}
    kept.desk.approve(APPROVER, again.id)
    kept.work()
    assert "ann" not in kept.kind().owners


def test_the_doctor_finds_a_planted_name_and_says_where(kept: Bench) -> None:
    kept.kind().owners["Zelda Quillfeather"] = 2
    kept.service.registry.reindex("shop")
    kept.file("Zelda Quillfeather", tell_not=[{"answer": ["Zelda Quillfeather of Alding"]}])
    report = examine(kept.service)
    assert report["healthy"], report
    assert report["scan"]["names"] >= 1 and report["scan"]["too_short_to_look_for"] == 3  # ann, bob and cyd
    held = {line["what"]: line["count"] for line in report["holds"]}
    assert held["sealed words"] == 1 and held["requests, open"] == 1 and held["index of targets"] == 4
    planted = kept.service.home / "notes.txt"
    planted.write_bytes(b"\x00" * 5000 + b"call Zelda Quillfeather" + b"\x00" * 100)
    report = examine(kept.service)
    assert not report["healthy"] and list(report["scan"]["found"]) == [str(planted)]
    assert "Quillfeather" not in str(report)
    planted.unlink()
    with kept.service.database.write() as connection:
        connection.execute(tables.setting.insert().values(key="note", value="Zelda Quillfeather"))
    assert any("service.db" in place for place in examine(kept.service)["scan"]["found"])


def test_the_doctor_searches_across_the_edges_of_what_it_reads(kept: Bench, monkeypatch) -> None:
    from expunge.service import doctor

    monkeypatch.setattr(doctor, "CHUNK", 16)
    (kept.service.home / "notes.txt").write_bytes(b"x" * 9 + b" Zelda Quillfeather " + b"y" * 40)
    report = examine(kept.service, ["Zelda Quillfeather"])
    assert [p.split("/")[-1] for p in report["scan"]["found"]] == ["notes.txt"]


def test_the_doctor_sees_open_keys_and_orphaned_seals(kept: Bench) -> None:
    kept.service.identities.seal("req_gone", "words")
    (kept.service.home / "identities" / "0001.key").chmod(0o644)
    faults = examine(kept.service)["faults"]
    assert any("0001.key" in f and "read by others" in f for f in faults)
    assert any("req_gone" in f for f in faults)
