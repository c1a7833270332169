"""The port: what submitting, retrying, cancelling, asking and erasing promise. On SQLite, in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from job_stubs import EFFECTS, SECRET, Stubs, make_jobs

from expunge.errors import Conflict, NotEnoughRoom, NotFound, RequestError, TooMany, UnknownIds, WrongState
from expunge.service.database import Database
from expunge.service.jobs import dbos_jobs
from expunge.service.jobs.dbos_jobs import DbosJobs
from expunge.service.jobs.port import (
    Jobs,
    JobStatus,
    JobsUnreachable,
    Json,
    Retries,
    StepCall,
    StepFailed,
    WorkerReplaced,
    checked_steps,
)
from expunge.service.jobs.worker import keep_working


@contextmanager
def at_work(jobs: Jobs) -> Iterator[threading.Event]:
    """A worker in a thread."""
    stop, wrong = threading.Event(), []

    def work() -> None:
        try:
            jobs.work(stop=stop)
        except BaseException as error:
            wrong.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join()
    assert wrong == []


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def status(jobs: Jobs, request_id: str) -> JobStatus:
    found = jobs.status(request_id)
    assert found is not None
    return found


def test_a_job_is_carried_out_once_however_often_it_is_submitted(jobs: DbosJobs, stubs: Stubs) -> None:
    for _ in range(3):
        jobs.submit("req_1")
    waiting = status(jobs, "req_1")
    assert (waiting.state, waiting.step, waiting.done, waiting.total) == ("waiting", "plan", 0, None)
    assert waiting.worker is None and waiting.started_at is None and waiting.ended_at is None
    jobs.work(until_idle=True)
    jobs.submit("req_1")
    jobs.work(until_idle=True)
    assert stubs.effects() == {"req_1": EFFECTS}
    assert stubs.runs() == EFFECTS
    assert stubs.files() == ["req_1.model_a", "req_1.store_b"]
    assert stubs.finals() == {"req_1": "fulfilled"}
    ended = status(jobs, "req_1")
    assert (ended.state, ended.step, ended.done, ended.total, ended.error) == ("succeeded", None, 4, 4, None)
    assert ended.ended and ended.worker is not None and ended.started_at is not None and ended.ended_at is not None
    assert ended.started_at <= ended.ended_at
    assert [step.call.name for step in ended.steps] == ["plan", "carry_out", "carry_out", "close"]
    assert [step.state for step in ended.steps] == ["done"] * 4
    assert ended.steps[2].call.argument == {"target": "store_b"}
    assert ended.steps[2].result == {"target": "store_b", "status": "done"}


def test_a_request_without_a_job_has_no_status(jobs: DbosJobs) -> None:
    assert jobs.status("req_1") is None
    jobs.cancel("req_1")
    jobs.erase("req_1")
    with pytest.raises(NotFound):
        jobs.retry("req_1")


def test_a_failed_step_ends_the_job_as_failed_with_its_reason(jobs: DbosJobs, stubs: Stubs) -> None:
    jobs.submit("req_1_fails")
    jobs.work(until_idle=True)
    found = status(jobs, "req_1_fails")
    assert (found.state, found.step, found.done, found.total) == ("failed", "carry_out", 2, 4)
    assert found.error is not None
    assert (found.error.step, found.error.kind, found.error.attempt) == ("carry_out", "StepFailed", 1)
    assert found.error.text == "store_b holds a lock that nobody releases. Release it."
    assert [step.state for step in found.steps] == ["done", "done", "failed", "waiting"]
    assert stubs.finals() == {"req_1_fails": "failed"}
    assert stubs.effects()["req_1_fails"] == ["carry_out model_a", "settle carry_out"]
    assert stubs.runs() == ["carry_out model_a", "carry_out store_b", "settle"]  # not tried again: it said so


def test_what_may_pass_is_tried_again(jobs: DbosJobs, stubs: Stubs) -> None:
    jobs.submit("req_1_wobbles")
    jobs.work(until_idle=True)
    found = status(jobs, "req_1_wobbles")
    assert found.state == "succeeded" and found.error is None
    assert [step.attempts for step in found.steps] == [1, 1, 3, 1]
    assert stubs.runs().count("carry_out store_b") == 3
    assert stubs.effects() == {"req_1_wobbles": EFFECTS}


def test_a_step_that_is_tried_again_shows_why(database: Database, stubs: Stubs) -> None:
    jobs = make_jobs(database, stubs, retries=Retries(first_seconds=60.0))
    jobs.submit("req_1_wobbles")
    with at_work(jobs):
        until(lambda: status(jobs, "req_1_wobbles").error)
        time.sleep(0.2)
        found = status(jobs, "req_1_wobbles")
    assert (found.state, found.step, found.done, found.attempt) == ("running", "carry_out", 2, 2)
    assert found.error is not None and found.error.kind == "OSError"
    assert [step.state for step in found.steps] == ["done", "done", "running", "waiting"]
    assert status(jobs, "req_1_wobbles").state == "waiting"  # it was handed back, and its wait goes on elsewhere
    assert stubs.runs() == ["carry_out model_a", "carry_out store_b"]  # within the 60 s, no second attempt
    jobs.close()


def test_after_the_last_attempt_it_failed(jobs: DbosJobs, stubs: Stubs) -> None:
    jobs.submit("req_1_leaks")
    jobs.work(until_idle=True)
    found = status(jobs, "req_1_leaks")
    assert found.state == "failed" and found.error is not None
    assert (found.error.kind, found.error.attempt) == ("ValueError", 4)
    assert found.steps[2].attempts == 4
    assert stubs.finals() == {"req_1_leaks": "failed"}


def test_no_message_of_an_error_is_kept(jobs: DbosJobs, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    jobs.submit("req_1_leaks")
    jobs.submit("req_2_wobbles")
    jobs.work(until_idle=True)
    found = status(jobs, "req_1_leaks")
    assert found.error is not None
    assert "job_stubs:" in found.error.text  # where it happened, but not what it said
    assert SECRET not in repr(found)
    jobs.close()
    files = list(tmp_path.glob("requests.jobs.sqlite*"))
    assert files
    assert all(SECRET.encode() not in path.read_bytes() for path in files)
    assert "ValueError" in caplog.text and SECRET not in caplog.text


def test_a_failed_job_is_begun_again_when_asked(database: Database, stubs: Stubs) -> None:
    jobs = make_jobs(database, stubs, settle=None)
    jobs.submit("req_1_fails")
    jobs.work(until_idle=True)
    jobs.submit("req_1_fails")
    assert status(jobs, "req_1_fails").state == "failed"  # submitting is no retry
    stubs.mended = True
    jobs.retry("req_1_fails")
    jobs.retry("req_1_fails")
    found = status(jobs, "req_1_fails")
    assert (found.state, found.round, found.error, found.done) == ("waiting", 2, None, 0)
    jobs.work(until_idle=True)
    again = status(jobs, "req_1_fails")
    assert (again.state, again.round, again.done) == ("succeeded", 2, 4)
    assert stubs.effects() == {"req_1_fails": EFFECTS}  # once in effect
    assert stubs.runs() == ["carry_out model_a", "carry_out store_b", *EFFECTS]
    jobs.close()


def test_what_succeeded_is_not_begun_again(jobs: DbosJobs) -> None:
    jobs.submit("req_1")
    jobs.work(until_idle=True)
    with pytest.raises(WrongState):
        jobs.retry("req_1")


def test_nobody_tries_for_ever(jobs: DbosJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dbos_jobs, "ROUNDS", 2)
    jobs.submit("req_1")
    for _ in range(2):
        jobs.cancel("req_1")
        if status(jobs, "req_1").round == 1:
            jobs.retry("req_1")
    with pytest.raises(TooMany):
        jobs.retry("req_1")


def test_a_job_that_waits_is_cancelled(jobs: DbosJobs, stubs: Stubs) -> None:
    jobs.submit("req_1")
    jobs.submit("req_2")
    jobs.cancel("req_1")
    jobs.cancel("req_1")
    jobs.work(until_idle=True)
    assert status(jobs, "req_1").state == "cancelled"
    assert stubs.effects() == {"req_2": EFFECTS}
    jobs.retry("req_1")
    jobs.work(until_idle=True)
    assert status(jobs, "req_1").state == "succeeded"


def test_a_job_that_runs_ends_its_step_and_begins_no_other(database: Database, stubs: Stubs) -> None:
    begun, go = threading.Event(), threading.Event()

    def carry_out(request_id: str, argument: Json) -> Json:
        begun.set()
        assert go.wait(10)
        return stubs.carry_out(request_id, argument)

    jobs = DbosJobs(
        database, stubs.plan, {"carry_out": carry_out, "close": stubs.close}, lease_seconds=1.2, poll_seconds=0.03
    )
    jobs.submit("req_1")
    with at_work(jobs):
        assert begun.wait(10)
        assert status(jobs, "req_1").state == "running"
        jobs.cancel("req_1")
        assert status(jobs, "req_1").state == "cancelled"
        go.set()
        until(stubs.effects)
    assert stubs.runs() == ["carry_out model_a"]
    found = status(jobs, "req_1")
    assert (found.state, found.done) == ("cancelled", 1)
    jobs.cancel("req_1")
    jobs.close()


def test_the_end_of_a_job_is_not_changed_by_cancelling(jobs: DbosJobs) -> None:
    jobs.submit("req_1")
    jobs.submit("req_2_fails")
    jobs.work(until_idle=True)
    for request_id in ("req_1", "req_2_fails"):
        jobs.cancel(request_id)
    assert [status(jobs, name).state for name in ("req_1", "req_2_fails")] == ["succeeded", "failed"]


def test_the_earliest_due_goes_first(database: Database, stubs: Stubs) -> None:
    jobs = make_jobs(database, stubs, concurrency=1)
    today = datetime(2027, 1, 1, tzinfo=UTC)
    jobs.submit("req_none")
    for days in (30, 1, 7):
        jobs.submit(f"req_{days}", due=today + timedelta(days=days))
    jobs.work(until_idle=True)
    order = [status(jobs, f"req_{name}").started_at for name in (1, 7, 30, "none")]
    assert None not in order
    assert order == sorted(order, key=str)
    jobs.close()


def test_stopping_hands_the_job_back_and_nothing_done_is_begun_again(database: Database, stubs: Stubs) -> None:
    stubs.seconds = 0.3
    jobs = make_jobs(database, stubs)
    jobs.submit("req_1")
    with at_work(jobs) as stop:
        until(lambda: "carry_out model_a" in stubs.runs())
        stop.set()
    found = status(jobs, "req_1")
    assert (found.state, found.done) == ("waiting", 2)  # the step that ran has ended and was recorded
    jobs.work(until_idle=True)
    assert status(jobs, "req_1").state == "succeeded"
    assert stubs.runs() == EFFECTS
    jobs.close()


def test_one_worker_a_process(jobs: DbosJobs, stubs: Stubs) -> None:
    stubs.seconds = 0.2
    jobs.submit("req_1")
    with at_work(jobs):
        until(stubs.runs)
        with pytest.raises(WrongState, match="runs in this process"):
            jobs.work()


def test_no_thread_is_left(jobs: DbosJobs) -> None:
    before = set(threading.enumerate())
    jobs.submit("req_1")
    jobs.work(until_idle=True)
    assert set(threading.enumerate()) <= before


def test_an_id_is_opaque(jobs: DbosJobs) -> None:
    for wrong in ("", "alice@example.org", "req 1", "req:1", "Älice", "x" * 129, "../x", None, 7):
        for call in (jobs.submit, jobs.status, jobs.cancel, jobs.retry, jobs.erase):
            with pytest.raises(RequestError, match="opaque") as found:
                call(wrong)  # type: ignore[operator]
            assert "alice" not in str(found.value)


def test_a_plan_that_cannot_be_followed_fails_the_job(database: Database, stubs: Stubs) -> None:
    plans: dict[str, tuple[list[StepCall], str]] = {
        "req_empty": ([], "it lists nothing to do"),
        "req_unknown": ([StepCall("carry_out"), StepCall("pray")], "pray, which nobody can do"),
        "req_type": ([StepCall("carry_out", {"at": datetime.now(UTC)})], "not JSON"),  # type: ignore[dict-item]
        "req_number": ([StepCall("carry_out", float("nan"))], "not JSON"),
        "req_key": ([StepCall("carry_out", {1: "a"})], "not JSON"),  # type: ignore[dict-item]
    }
    policy = Retries(attempts=2, first_seconds=0)
    jobs = make_jobs(database, stubs, retries=policy)
    jobs._work = replace(jobs._work, plan=lambda request_id: plans[request_id][0])
    for request_id in (*plans, "req_missing"):
        jobs.submit(request_id)
    jobs.work(until_idle=True)
    for request_id, said in [*((name, text) for name, (_, text) in plans.items()), ("req_missing", "withheld")]:
        found = status(jobs, request_id)
        assert (found.state, found.step, found.total) == ("failed", "plan", None)
        assert found.error is not None and said in found.error.text
        assert stubs.finals()[request_id] == "failed"
    jobs.close()


def test_a_result_that_json_cannot_say_is_a_failure(database: Database) -> None:
    results = {"req_1": object(), "req_2": {1: "a"}, "req_3": float("inf"), "req_4": {"a": {"b"}}}
    steps = {"odd": lambda request_id, _: results[request_id]}
    jobs = DbosJobs(database, lambda _: [StepCall("odd")], steps, poll_seconds=0.03)  # type: ignore[arg-type]
    for request_id in results:
        jobs.submit(request_id)
    jobs.work(until_idle=True)
    for request_id in results:
        found = status(jobs, request_id)
        assert found.state == "failed" and found.error is not None
        assert (found.error.kind, found.error.attempt) == ("NotJson", 1)
    jobs.close()


def test_a_step_that_leaves_the_program_has_failed(database: Database) -> None:
    def leave(*_: object) -> Json:
        raise SystemExit(0)

    policy = Retries(attempts=1)
    jobs = DbosJobs(database, lambda _: [StepCall("leave")], {"leave": leave}, retries=policy, poll_seconds=0.03)
    jobs.submit("req_1")
    jobs.work(until_idle=True)
    assert status(jobs, "req_1").state == "failed"
    jobs.close()


def test_a_settling_that_fails_leaves_the_job_failed_for_its_own_reason(database: Database, stubs: Stubs) -> None:
    def settle(*_: object) -> None:
        raise StepFailed("the desk is closed", "Open it")

    jobs = make_jobs(database, stubs, settle=settle)
    jobs.submit("req_1_fails")
    jobs.work(until_idle=True)
    found = status(jobs, "req_1_fails")
    assert found.state == "failed" and found.error is not None
    assert found.error.text.startswith("store_b holds a lock")
    jobs.close()


def test_a_job_is_erased_when_it_is_over(jobs: DbosJobs) -> None:
    jobs.submit("req_1")
    with pytest.raises(WrongState):
        jobs.erase("req_1")
    jobs.work(until_idle=True)
    jobs.erase("req_1")
    assert jobs.status("req_1") is None
    jobs.submit("req_1")
    assert status(jobs, "req_1").round == 1


def test_unfit_settings_are_refused(database: Database, stubs: Stubs) -> None:
    for name in ("plan", "settle", "Carry", "carry out", "carry-out", ""):
        with pytest.raises(RequestError, match="cannot be called"):
            checked_steps({name: lambda *_: None})
    for options in ({"concurrency": 0}, {"lease_seconds": 0.0}, {"poll_seconds": -1.0}):
        with pytest.raises(RequestError, match="at least one place"):
            make_jobs(database, stubs, **options)
    numbers = [{"attempts": 0}, {"lives": 0}, {"first_seconds": -1.0}, {"factor": 0.5}, {"most_seconds": float("nan")}]
    for number in numbers:
        with pytest.raises(RequestError, match="retries"):
            Retries(**number)  # type: ignore[arg-type]


def test_waits_grow_up_to_a_bound() -> None:
    policy = Retries(attempts=9, first_seconds=1.0, factor=4.0, most_seconds=300.0)
    assert [policy.wait_seconds(attempt) for attempt in range(1, 7)] == [1.0, 4.0, 16.0, 64.0, 256.0, 300.0]
    assert policy.wait_seconds(10**6) == 300.0


def test_refusals_are_final_and_accidents_are_not() -> None:
    policy = Retries(attempts=3)
    accidents = [OSError(), ValueError(), Conflict("a", "b"), NotEnoughRoom("a", "b"), StepFailed("a", "b", again=True)]
    assert all(policy.again(error, 2) and not policy.again(error, 3) for error in accidents)
    refusals = [StepFailed("a", "b"), RequestError("a", "b"), UnknownIds("owners", ["o"])]
    assert not any(policy.again(error, 1) for error in refusals)


def test_the_loop_of_a_worker_goes_on_after_what_passes() -> None:
    class Once:
        def __init__(self, *answers: Exception | None) -> None:
            self.answers = list(answers)

        def work(self, *, until_idle: bool, stop: threading.Event) -> None:
            assert until_idle and not stop.is_set()
            answer = self.answers.pop(0)
            if answer:
                raise answer

    once = Once(WorkerReplaced("wrk_1"), JobsUnreachable("a", "b"), None)
    keep_working(once, stop=threading.Event(), until_idle=True, pause_seconds=0.0)  # type: ignore[arg-type]
    assert once.answers == []
    once = Once(WrongState("a", "b"))
    with pytest.raises(WrongState):
        keep_working(once, stop=threading.Event(), until_idle=True)  # type: ignore[arg-type]


def test_statuses_are_plain_values(jobs: DbosJobs) -> None:
    jobs.submit("req_1")
    found = status(jobs, "req_1")
    assert replace(found) == found and not found.ended
