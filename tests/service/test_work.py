"""Planning, batches and their steps: each may run twice, and a failure is never shown as success."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from desk_tools import APPROVER, OPERATOR, START, Bench, Counted
from sqlalchemy import select

from expunge.audit.layers import verify_layer
from expunge.errors import WrongState
from expunge.service import tables
from expunge.service.policy import Policy, Serving
from expunge.service.registry import Target
from expunge.training.files import read_json


def layers(bench: Bench, request_id: str) -> dict[tuple[str, str], str]:
    return {(y.target, y.stage): y.status for y in bench.desk.layers(OPERATOR, request_id)}


def with_rule(tmp_path, rule: str, **kinds: Counted) -> Bench:
    return Bench(tmp_path / "home", Policy(serving=Serving(rule=rule)), **kinds)


def test_the_earliest_deadline_begins_the_batch_and_the_others_go_with_it(bench: Bench) -> None:
    ann = bench.approved("ann", received_at=START - timedelta(days=20))
    bob = bench.approved("bob")
    bench.service.work.plan_approved()
    assert bench.service.work.batches_due() == []
    begin = bench.service.work.next_moment()
    assert begin == bench.desk.get(OPERATOR, ann).due_at - timedelta(hours=24, seconds=600)
    bench.clock.at = begin - timedelta(seconds=1)
    assert bench.service.work.batches_due() == []
    bench.clock.at = begin
    (batch,) = bench.service.work.batches_due()
    assert bench.service.work.batches_due() == [batch]  # still open: another dispatcher finds it
    bench.run_batch(batch)
    assert [bench.status(i) for i in (ann, bob)] == ["fulfilled", "fulfilled"]
    assert bench.kind().done == [("shop", "exact", tuple(sorted((ann, bob))))]
    assert bench.service.work.batches_due() == []


def test_run_times_that_were_measured_are_planned_with(bench: Bench) -> None:
    bench.approved("ann")
    bench.clock.advance(timedelta(days=31))
    bench.work()
    target = bench.service.registry.get("shop")
    assert len(target.run_seconds["exact"]) == 1 and target.run_seconds["exact"][0] < 5
    told = bench.desk.estimate(OPERATOR, bench.file("bob"))
    assert told["targets"][0]["measured"] and told["targets"][0]["seconds"]["exact"] < 5


def test_at_once(tmp_path) -> None:
    bench = with_rule(tmp_path, "now")
    request_id = bench.approved("ann")
    assert bench.work() == 1 and bench.status(request_id) == "fulfilled"
    bench.close()


def test_at_the_next_window_or_before_if_that_is_too_late(tmp_path) -> None:
    bench = with_rule(tmp_path, "periodic")  # windows every 30 days from 5 January: 6 March, 5 April
    ann = bench.approved("ann")
    assert bench.work() == 0
    bench.clock.at = START.replace(month=3, day=6, hour=0, minute=0)
    assert bench.work() == 1 and bench.status(ann) == "fulfilled"
    bench.clock.at = START.replace(month=3, day=7)
    bob = bench.approved("bob", received_at=bench.clock.at - timedelta(days=20))  # due on 17 March, before 5 April
    bench.service.work.plan_approved()
    assert bench.service.work.next_moment() == START.replace(month=3, day=16, hour=0, minute=0)
    bench.clock.advance(timedelta(days=10))
    bench.work()
    assert bench.status(bob) == "fulfilled"
    bench.close()


@pytest.mark.parametrize("step", ["begin", "carry_out", "check", "certify", "close"])
def test_every_step_may_run_twice(bench: Bench, step: str) -> None:
    request_id = bench.approved("ann")
    bench.service.work.plan_approved()
    bench.clock.advance(timedelta(days=31))
    (batch,) = bench.service.work.batches_due()
    bench.run_batch(batch, upto=step)
    certificate = bench.service.home / "certificates" / f"{batch}.json"
    before = certificate.read_bytes() if certificate.exists() else None
    bench.run_batch(batch)
    assert bench.status(request_id) == "fulfilled"
    assert len(bench.kind().done) == 1
    if before is not None:
        assert certificate.read_bytes() == before
    kinds = [e.kind for e in bench.desk.history(OPERATOR, request_id)]
    assert kinds == ["filed", "verified", "approved", "planned", "begun", "evaluated", "fulfilled"]
    assert len((bench.service.home / "log" / "entries.jsonl").read_bytes().splitlines()) == 1


def test_a_failed_layer_is_never_success_and_a_retry_leaves_what_is_done(tmp_path) -> None:
    bench = with_rule(tmp_path, "now", shop=Counted({"ann": 3, "zoe": 97}), till=Counted({"ann": 1, "zoe": 99}))
    bench.kind("till").fail = [RuntimeError("the disk said ann")]
    request_id = bench.approved("ann")
    bench.service.work.plan_approved()
    for batch in bench.service.work.batches_due():
        try:
            bench.run_batch(batch)
        except RuntimeError:
            bench.service.work.settle(batch, "RuntimeError", "in till")
            bench.service.work.settle(batch, "RuntimeError", "in till")
    assert bench.status(request_id) == "failed"
    assert layers(bench, request_id) == {("shop", "exact"): "done", ("till", "exact"): "failed"}
    assert bench.service.suppression.blocked(["ann"]) == [False]
    assert bench.desk.history(OPERATOR, request_id)[-1].detail["reason"] == "RuntimeError: in till"
    bench.desk.retry(OPERATOR, request_id)
    assert bench.work() == 1
    assert bench.status(request_id) == "fulfilled" and len(bench.kind("shop").done) == 1
    assert bench.service.suppression.blocked(["ann"]) == [True]
    with pytest.raises(WrongState):
        bench.desk.retry(OPERATOR, request_id)
    bench.close()


def test_what_was_gone_already_is_no_failure(tmp_path) -> None:
    bench = with_rule(tmp_path, "now")
    request_id = bench.approved("ann")
    bench.kind().owners.pop("ann")  # somebody removed it between approval and run
    bench.work()
    assert bench.status(request_id) == "fulfilled"
    assert layers(bench, request_id) == {("shop", "exact"): "already"}
    (path,) = (bench.service.home / "certificates").glob("*.json")
    assert verify_layer(read_json(path), keys=bench.service.keys.trusted).outcome == "pass"


def test_a_request_about_named_targets_leaves_the_others(tmp_path) -> None:
    bench = with_rule(tmp_path, "now", shop=Counted({"ann": 3, "zoe": 97}), till=Counted({"ann": 1, "zoe": 99}))
    bench.approved("ann", scope={"targets": ["till"]})
    bench.work()
    assert bench.kind("shop").owners["ann"] == 3 and "ann" not in bench.kind("till").owners
    bench.close()


def test_one_batch_a_target_at_a_time(tmp_path) -> None:
    bench = Bench(tmp_path / "home", Policy(serving=Serving(rule="now", largest_batch=1)))
    bench.approved("ann"), bench.approved("bob")
    bench.service.work.plan_approved()
    (first,) = bench.service.work.batches_due()
    assert bench.service.work.batches_due() == [first]
    bench.run_batch(first)
    (second,) = bench.service.work.batches_due()
    assert second != first
    bench.run_batch(second)
    assert len(bench.kind().done) == 2
    bench.close()


def test_step_by_step_under_one_id(tmp_path) -> None:
    """Told to the box at once, approximated within a day, exact at the next window; and how exposed it was."""
    box_folder = tmp_path / "rules"
    box_folder.mkdir()
    yaml = tmp_path / "box.yaml"
    yaml.write_text(
        "name: helper\nrequests: rules\nmodels: {m: {url: 'http://127.0.0.1:1/v1', name: x}}\n"
        "router: {kind: rule, marked: w, otherwise: w}\nworkers: {w: {kind: model, model: m}}\n"
        "output_filter: {kind: rule}\n"
    )
    chat = Counted({"ann": 3, "zoe": 97}, can=("approximate", "exact"))
    bench = with_rule(tmp_path, "escalation", chat=chat)
    bench.service.registry.register(
        Target(id="front", name="front", version="1", kind="box", location=str(yaml), parent="chat")
    )
    request_id = bench.approved("ann", tell_not=[{"answer": ["Ann of Frostholm"]}])
    sealed = bench.service.home / "seals" / f"{request_id}.key"
    assert sealed.exists()
    bench.work()
    rule = json.loads((box_folder / f"{request_id}.json").read_text())
    assert rule["requests"][0]["rules"] == [{"answer": ["Ann of Frostholm"]}]
    assert layers(bench, request_id) == {
        ("chat", "approximate"): "pending", ("chat", "exact"): "pending", ("front", "suppress"): "done",
    }  # fmt: skip
    bench.clock.advance(timedelta(hours=25))
    bench.work()
    assert layers(bench, request_id)[("chat", "approximate")] == "done"
    bench.clock.advance(timedelta(days=5))
    bench.work()
    assert bench.status(request_id) == "fulfilled"
    assert [(x.target, x.state) for x in bench.desk.exposure(OPERATOR, request_id)] == [
        ("chat", "in_force"), ("chat", "suppressed"), ("chat", "approximate"), ("chat", "gone"),
    ]  # fmt: skip
    assert not list(box_folder.iterdir()) and not sealed.exists()  # no plain word is left where the data is gone
    bench.close()


def test_the_certificate_says_what_was_done_and_a_changed_one_fails(tmp_path) -> None:
    bench = with_rule(tmp_path, "now")
    request_id = bench.approved("ann")
    bench.work()
    (path,) = (bench.service.home / "certificates").glob("*.json")
    value = read_json(path)
    trusted = bench.service.keys.trusted
    verdict = verify_layer(value, keys=trusted, folder=bench.service.home)
    assert verdict.outcome == "pass"
    assert verdict.says["requestIds"] == [request_id] and verdict.says["guarantee"] == "exact(bitwise)"
    assert verdict.says["outOfScope"]
    assert verify_layer(value, keys=None).outcome == "inconclusive"
    value["log"]["index"] = 1
    assert verify_layer(value, keys=trusted).outcome == "fail"
    other = Bench(tmp_path / "other")
    assert verify_layer(read_json(path), keys=other.service.keys.trusted).outcome == "fail"
    other.close()
    bench.close()


def test_the_log_holds_nothing_but_digests(tmp_path) -> None:
    bench = with_rule(tmp_path, "now")
    request_id = bench.approved("ann")
    bench.work()
    log = (bench.service.home / "log" / "entries.jsonl").read_text()
    assert request_id not in log and "shop" not in log


def test_derived_models_that_nobody_can_search_are_out_of_scope(bench: Bench) -> None:
    registry = bench.service.registry
    registry.register(Target(id="distilled", name="d", version="1", kind="other", location="s3://x", parent="shop"))
    registry.register(Target(id="far", name="f", version="1", kind="other", location="x", made_from=("distilled",)))
    registry.register(Target(id="apart", name="a", version="1", kind="other", location="x"))
    told = bench.desk.estimate(OPERATOR, bench.file("ann"))
    assert [line.split(":")[0] for line in told["out_of_scope"]] == ["distilled", "far"]
    request_id = bench.approved("bob")
    bench.service.work.plan_approved()
    planned = next(e for e in bench.desk.history(OPERATOR, request_id) if e.kind == "planned")
    assert len(planned.detail["out_of_scope"]) == 2


def test_whose_plan_fell_through_is_failed_with_the_reason(bench: Bench) -> None:
    request_id = bench.approved("ann")
    bench.service.registry.retire("shop")
    bench.service.work.plan_approved()
    assert bench.status(request_id) == "failed"
    assert "no_match" in bench.desk.history(OPERATOR, request_id)[-1].detail["reason"]
    assert bench.desk.deny(APPROVER, request_id, "no_match").status == "denied"


def test_cancelled_between_planning_and_run_is_not_carried_out(bench: Bench) -> None:
    request_id = bench.approved("ann")
    bench.service.work.plan_approved()
    bench.clock.advance(timedelta(days=31))
    (batch,) = bench.service.work.batches_due()
    bench.desk.cancel(OPERATOR, request_id)
    bench.run_batch(batch)
    assert bench.status(request_id) == "cancelled" and bench.kind().owners["ann"] == 3
    with bench.service.database.read() as connection:
        assert connection.execute(select(tables.batch.c.status)).scalar() == "done"


def test_a_certificate_without_its_place_in_the_log_fails(tmp_path) -> None:
    bench = with_rule(tmp_path, "now")
    bench.approved("ann")
    bench.work()
    (path,) = (bench.service.home / "certificates").glob("*.json")
    value = read_json(path)
    del value["log"]
    assert verify_layer(value, keys=bench.service.keys.trusted).outcome == "fail"
    bench.close()
