"""The roll of workers: signs of life, silence, and what it is not."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from expunge.service.clock import FixedClock, stamp
from expunge.service.database import Database
from expunge.service.jobs.roll import Heart, Roll, Watch, new_worker_id

NOW = datetime(2027, 1, 1, tzinfo=UTC)


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def look(watch: Watch, time_: Time, present: dict[str, str], seconds: float, step: float = 1.0) -> list[str]:
    """Look every `step` seconds; who is dead in the end."""
    found: list[str] = []
    for _ in range(round(seconds / step)):
        time_.now += step
        found = watch.dead(present)
    return found


def test_who_is_silent_for_the_lease_is_dead() -> None:
    time_ = Time()
    watch = Watch(6.0, time_)
    assert watch.dead({"a": "1", "b": "1"}) == []
    assert look(watch, time_, {"a": "1", "b": "1"}, 6.0) == []
    assert look(watch, time_, {"a": "1", "b": "2"}, 1.0) == ["a"]
    assert look(watch, time_, {"b": "2"}, 6.0) == []
    assert look(watch, time_, {"b": "2"}, 1.0) == ["b"]


def test_whoever_signs_lives_whatever_its_clock_says() -> None:
    time_ = Time()
    watch = Watch(6.0, time_)
    for sign in ("2027-01-01", "1970-01-01", "2099-01-01") * 9:
        assert look(watch, time_, {"a": sign}, 5.0) == []


def test_one_long_gap_makes_nobody_dead() -> None:
    time_ = Time()
    watch = Watch(6.0, time_)
    assert look(watch, time_, {"a": "1"}, 2.0) == []
    time_.now += 3600.0  # the database was away, or the machine asleep
    assert watch.dead({"a": "1"}) == []
    assert look(watch, time_, {"a": "1"}, 2.0) == []
    assert look(watch, time_, {"a": "2"}, 5.0) == []


def test_slow_looks_find_the_dead_too() -> None:
    time_ = Time()
    watch = Watch(6.0, time_)
    assert look(watch, time_, {"a": "1"}, 80.0, step=20.0) == []
    assert look(watch, time_, {"a": "1"}, 20.0, step=20.0) == ["a"]


def test_who_left_and_came_back_is_counted_anew() -> None:
    time_ = Time()
    watch = Watch(6.0, time_)
    assert look(watch, time_, {"a": "1"}, 5.0) == []
    assert look(watch, time_, {}, 1.0) == []
    assert look(watch, time_, {"a": "1"}, 5.0) == []


def test_the_roll(database: Database) -> None:
    clock = FixedClock(NOW)
    roll = Roll(database, clock)
    one, other = new_worker_id(), new_worker_id()
    assert one != other and one.startswith("wrk_")
    roll.enrol(one)
    roll.enrol(other)
    clock.advance(timedelta(seconds=5))
    assert roll.beat(one)
    assert roll.present() == {one: stamp(NOW + timedelta(seconds=5)), other: stamp(NOW)}
    roll.leave(other)
    roll.leave(other)
    assert not roll.beat(other)
    assert not roll.beat("wrk_unknown")
    assert set(roll.present()) == {one}


def test_a_heart_signs_until_it_is_struck_off(database: Database) -> None:
    ticks = iter(range(10**6))
    roll = Roll(database, lambda: NOW + timedelta(microseconds=next(ticks)))
    roll.enrol("wrk_1")
    first = roll.present()["wrk_1"]
    heart = Heart(roll, "wrk_1", 0.3)
    assert heart.fresh
    heart.start()
    time.sleep(0.3)
    assert roll.present()["wrk_1"] > first
    roll.leave("wrk_1")
    assert heart.lost.wait(5)
    assert not heart.fresh
    heart.stop()


def test_a_heart_that_cannot_sign_is_not_fresh_and_recovers(database: Database) -> None:
    roll = Roll(database, lambda: NOW)
    roll.enrol("wrk_1")
    heart = Heart(roll, "wrk_1", 0.6)
    with database.write():  # SQLite has one writer: nobody else can sign
        heart.start()
        time.sleep(0.5)
        assert not heart.fresh and not heart.lost.is_set()
    end = time.monotonic() + 5
    while not heart.fresh and time.monotonic() < end:
        time.sleep(0.01)
    assert heart.fresh
    heart.stop()
