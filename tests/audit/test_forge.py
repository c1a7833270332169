"""Forging: rows that collide pass a verifier of steps, others as it tolerates more, and a commitment ends it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_tools import LEARNER, NAME
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from expunge.audit.custody import Custody
from expunge.audit.forging.command import audit_forge
from expunge.audit.forging.forge import Forgery, forge, forgeability
from expunge.audit.forging.linear import LinearRun
from expunge.audit.forging.log import Batch, ClaimedLog, Run, honest_log, repeat
from expunge.audit.forging.network import ReplayRun
from expunge.audit.forging.plot import curve, save_plot
from expunge.audit.forging.search import SEARCHES, Gap, greedy, miss, nonnegative, random_batches
from expunge.audit.forging.verifier import Committed, check_log, committed_log, distances
from expunge.audit.keys import KeyFolder
from expunge.audit.log import Log
from expunge.data.digits import load_digits
from expunge.data.records import Records
from expunge.errors import (
    DataError,
    EmptyForgetSet,
    EmptyRetainSet,
    RequestError,
    RunError,
    TamperedEvidence,
    UnknownIds,
    UnknownName,
)
from expunge.methods.durable import DurableLearner
from expunge.methods.exact.replay import LOG, MODEL, Replay
from expunge.methods.hashed_course import row_keys
from expunge.methods.learner import State
from expunge.methods.rows import Rows
from expunge.methods.training_log import TrainingLog
from expunge.recipe import Recipe, Trainer
from expunge.training.files import write_json

# --- linear regression ------------------------------------------------------------------------------------------------


def line(n: int = 40, d: int = 4, seed: int = 0, **more: Any) -> LinearRun:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    y = x @ rng.normal(size=d) + 0.3 * rng.normal(size=n)
    return LinearRun(**{"ids": tuple(f"r{k}" for k in range(n)), "x": x, "y": y, "batch_size": 5, "epochs": 2, **more})


def by_search(forgeries: tuple[Forgery, ...]) -> dict[str, Forgery]:
    return {forgery.search: forgery for forgery in forgeries}


def outcomes(run: Run, log: ClaimedLog, **more: Any) -> dict[str, str]:
    return {check.name: check.outcome for check in check_log(run, log, **more).checks}


def test_sgd_on_a_line_is_the_formula() -> None:
    run = line(ridge=0.2, learning_rate=0.05)
    w = np.zeros(4)
    for epoch in range(2):
        for step in range(8):
            rows = run.batch(8 * epoch + step)
            w = w - 0.05 * (run.x[rows].T @ (run.x[rows] @ w - run.y[rows]) / 5 + 0.2 * w)
    *_, last = repeat(run)
    np.testing.assert_allclose(last.after, w, rtol=1e-12)
    assert sorted(np.concatenate([run.batch(t) for t in range(8)]).tolist()) == list(range(40))
    assert run.passes.tolist() == [0] * 8 + [1] * 8


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_a_duplicate_passes_at_tolerance_zero(ridge: float) -> None:
    x, y = line().x.copy(), line().y.copy()
    x[[7, 19, 33]], y[[7, 19, 33]] = x[3], y[3]
    run = line(x=x, y=y, ridge=ridge)
    found = by_search(forge(run, ["r3"], searches=["closest", "greedy", "nonnegative"], candidates=40))
    for forgery in found.values():
        assert len(forgery.steps) == 2 and forgery.distance == 0.0
        log = forgery.log(run)
        assert not log.members[3] and all(3 not in batch.rows for batch in log.batches.values())
        seen = outcomes(run, log, tolerance=0.0)
        assert seen["rows"] == seen["steps"] == "pass"
    assert by_search(forge(run, ["r5"], searches=["closest"], candidates=40))["closest"].distance > 0


def test_points_on_the_fitted_line_collide_though_they_differ() -> None:
    # Rows 0–9 see the first weight alone, which starts at 2 and is moved by nobody: those with y = 2·x lie on the line.
    rng = np.random.default_rng(1)
    x, y = np.zeros((40, 3)), rng.normal(size=40)
    x[:10, 0], x[10:, 1:] = np.arange(1, 11), rng.normal(size=(30, 2))
    y[:10] = 2 * x[:10, 0]
    y[9] += 1.0
    x[9], x[9, 1] = 0.0, 3.0  # one that is not on the line
    run = line(x=x, y=y, first=np.array([2.0, 0.0, 0.0]))
    on, off = forge(run, ["r4", "r9"], searches=["closest"], candidates=40)
    assert on.distance == 0.0 and off.distance > 0.0
    for step in on.steps:
        stranger = set(step.batch.rows.tolist()) - set(run.batch(step.step).tolist())
        assert stranger <= set(range(9)) - {4} and len(stranger) == 1
    assert outcomes(run, on.log(run))["steps"] == "pass"
    assert outcomes(run, off.log(run))["steps"] == "fail"


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 50), candidates=st.integers(1, 30), ridge=st.sampled_from([0.0, 0.1]))
def test_the_closest_row_is_the_best_of_the_candidates(seed: int, candidates: int, ridge: float) -> None:
    run = line(seed=seed, ridge=ridge, learning_rate=0.05)
    (forgery,) = forge(run, ["r0"], searches=["closest"], candidates=candidates, seed=seed)
    states = {step.number: step for step in repeat(run)}
    for forged in forgery.steps:
        rows, before = run.batch(forged.step), states[forged.step].before
        gradients = run.gradients(forged.step, before, np.arange(40))
        far = 0.05 / len(rows) * np.linalg.norm(gradients - gradients[0], axis=1)
        put = [r for r in forged.batch.rows.tolist() if r not in rows]
        assert len(put) == 1 and rows.tolist().index(0) == forged.batch.rows.tolist().index(put[0])
        assert forged.distance.weights == pytest.approx(far[put[0]], rel=1e-9)
        if candidates == 30:
            continue
        others = [far[r] for r in range(40) if r not in rows]
        assert sum(f < far[put[0]] for f in others) <= len(others) - candidates
    full = forge(run, ["r0"], searches=["closest"], candidates=40, seed=seed)[0]
    assert all(a.distance.weights <= b.distance.weights for a, b in zip(full.steps, forgery.steps, strict=True))


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 50), hidden=st.integers(1, 4))
def test_sums_are_never_worse_than_single_rows(seed: int, hidden: int) -> None:
    run = line(seed=seed)
    group = tuple(f"r{k}" for k in run.batch(0)[:hidden])
    found = by_search(forge(run, [group], candidates=12, searches=[s for s in SEARCHES if s != "dropped"], seed=seed))
    assert [s.step for s in found["closest"].steps] == [s.step for s in found["greedy"].steps]
    for one, many, weighted in zip(*(found[s].steps for s in ("closest", "greedy", "nonnegative")), strict=True):
        assert many.distance.weights <= one.distance.weights * (1 + 1e-9) + 1e-12
        assert weighted.distance.weights <= one.distance.weights * (1 + 1e-9) + 1e-12
    gone = {int(i[1:]) for i in group}
    for search, forgery in found.items():
        for step in forgery.steps:
            assert not gone & set(step.batch.rows.tolist()) and step.batch.size == 5
            if search != "nonnegative":
                assert len(set(step.batch.rows.tolist())) == 5


def test_greedy_finds_a_pair_where_no_single_row_will_do() -> None:
    # At w = 0 and y = −1 a row's gradient is its features: (2, 0) + (0, 2) = (3, −1) + (−1, 3).
    run = line(n=8, d=2, batch_size=2, epochs=1)
    x = np.zeros((8, 2)) + 50.0 * np.arange(8)[:, None]
    seen, spare = run.batch(0), run.batch(1)
    x[seen], x[spare] = [[2, 0], [0, 2]], [[3, -1], [-1, 3]]
    run = line(n=8, d=2, batch_size=2, epochs=1, x=x, y=-np.ones(8))
    found = by_search(forge(run, [run.ids[seen[0]]], candidates=8))
    assert found["closest"].distance > 0.01
    assert found["greedy"].distance == 0.0
    assert set(found["greedy"].steps[0].batch.rows.tolist()) == set(spare.tolist())


def test_a_weighted_sum_reaches_what_no_batch_of_rows_does() -> None:
    run = line(n=8, d=2, batch_size=2, epochs=1)
    x = np.zeros((8, 2)) - 50.0
    seen, spare = run.batch(0), run.batch(1)
    x[seen], x[spare] = [[1, 1], [0, 7]], [[3, 0], [0, 5]]
    run = line(n=8, d=2, batch_size=2, epochs=1, x=x, y=-np.ones(8))
    found = by_search(forge(run, [run.ids[seen[0]]], candidates=8))
    assert found["nonnegative"].distance < 1e-15 < 0.01 < found["greedy"].distance
    batch = found["nonnegative"].steps[0].batch
    assert dict(zip(batch.rows.tolist(), np.asarray(batch.weights).tolist(), strict=True)) == pytest.approx(
        {int(seen[1]): 1.0, int(spare[0]): 1 / 3, int(spare[1]): 1 / 5}
    )


def gap(seed: int = 0, tries: int = 1) -> Gap:
    rng = np.random.default_rng(seed)
    return Gap(
        batch=np.arange(6),
        gone=np.array([False, True, False, True, False, False]),
        used=rng.normal(size=(6, 5)),
        candidates=np.arange(10, 40),
        offered=rng.normal(size=(30, 5)),
        tries=tries,
        seed=seed,
    )


def test_more_random_batches_are_never_worse() -> None:
    for seed in range(5):
        missed = [miss(gap(seed, tries), random_batches(gap(seed, tries))) for tries in (1, 5, 40, 300)]
        assert missed == sorted(missed, reverse=True) and missed[-1] < missed[0]


def test_what_is_said_to_be_missed_is_missed() -> None:
    here = gap()
    for search in (greedy, nonnegative, random_batches):
        batch = search(here)
        values = np.zeros((40, 5))
        values[:6], values[10:] = here.used, here.offered
        weights = np.ones(len(batch.rows)) if batch.weights is None else batch.weights
        expected = np.linalg.norm((weights[:, None] * values[batch.rows]).sum(0) - here.used.sum(0))
        assert miss(here, batch) == pytest.approx(expected)
        assert not {1, 3} & set(batch.rows.tolist())


def test_no_single_exchange_improves_a_greedy_batch() -> None:
    for seed in range(4):
        here = gap(seed)
        batch = greedy(here)
        pool = [0, 2, 4, 5, *range(10, 40)]
        least = miss(here, batch)
        for place in range(6):
            for row in set(pool) - set(batch.rows.tolist()):
                changed = batch.rows.copy()
                changed[place] = row
                assert miss(here, Batch.of(changed)) >= least - 1e-9


def test_others_fail_at_zero_and_pass_as_the_tolerance_grows() -> None:
    run = line()
    forgeries = forge(run, [f"r{k}" for k in range(6)], searches=["closest"], candidates=40)
    for forgery in forgeries[:2]:
        log, far = forgery.log(run), forgery.distance
        assert outcomes(run, log)["steps"] == "fail"
        assert outcomes(run, log, tolerance=far * 0.999)["steps"] == "fail"
        assert outcomes(run, log, tolerance=far)["steps"] == "pass"
        measured = distances(run, log)
        assert max(d.largest for d in measured.values()) == far
        assert {t for t, d in measured.items() if d.largest > 0} == {s.step for s in forgery.steps}
    found = [forgery.distance for forgery in forgeries]
    tolerances = [0.0, *sorted(found), 10.0]
    assert forgeability(found, tolerances) == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1])
    assert forgeability([0.0, 0.0, 1.0, 2.0], [0.0, 0.5, 1.0]) == [0.5, 0.5, 0.75]


def test_an_honest_log_passes_and_no_commitment_is_inconclusive() -> None:
    run = line()
    verdict = check_log(run, honest_log(run))
    assert {c.name: c.outcome for c in verdict.checks} == {
        "rows": "pass",
        "steps": "pass",
        "passes": "pass",
        "membership": "inconclusive",
        "order": "inconclusive",
    }
    assert "largest distance 0" in verdict["steps"].reason


def test_a_pass_over_rows_shows_who_stands_in_twice() -> None:
    run = line()
    for search, forgery in by_search(forge(run, ["r0"], candidates=40)).items():
        seen = outcomes(run, forgery.log(run), tolerance=1e9)
        assert seen["steps"] == "pass"
        assert seen["passes"] == ("pass" if search == "dropped" else "fail"), search
    log = honest_log(run)
    short = {**log.batches, 0: Batch.of(log.batches[0].rows[1:])}
    verdict = check_log(run, ClaimedLog(members=log.members, batches=short), tolerance=1e9)
    assert verdict["passes"].outcome == "fail" and "1 rows are not used in pass 0" in verdict["passes"].reason
    heavy = {**log.batches, 0: Batch(rows=log.batches[0].rows, weights=np.ones(5), size=5)}
    verdict = check_log(run, ClaimedLog(members=log.members, batches=heavy))
    assert verdict["steps"].outcome == "pass" and verdict["passes"].outcome == "fail"


def test_a_log_that_uses_a_row_it_denies_or_lacks_a_step_fails() -> None:
    run, log = line(), honest_log(line())
    members = log.members.copy()
    members[11] = False
    assert outcomes(run, ClaimedLog(members=members, batches=log.batches))["rows"] == "fail"
    fewer = {t: b for t, b in log.batches.items() if t != 3}
    assert outcomes(run, ClaimedLog(members=log.members, batches=fewer))["steps"] == "fail"
    with pytest.raises(TamperedEvidence, match="15 steps are logged and the run has 16"):
        distances(run, ClaimedLog(members=log.members, batches=fewer))


def test_the_same_seed_forges_the_same_log_and_another_seed_another() -> None:
    run = line()
    once, twice, other = (
        [f.as_dict() for f in forge(run, ["r1", ("r2", "r3")], candidates=6, seed=seed)] for seed in (4, 4, 5)
    )
    assert once == twice and once != other


def test_other_rows_are_offered_at_every_step_and_by_every_seed() -> None:
    run = line(epochs=10)

    def stand_ins(seed: int) -> list[int]:
        (forgery,) = forge(run, ["r1"], searches=["closest"], candidates=1, seed=seed)
        return [int(s.batch.rows[run.batch(s.step).tolist().index(1)]) for s in forgery.steps]

    assert len(stand_ins(0)) == 10 and len(set(stand_ins(0))) > 4
    assert stand_ins(0) != stand_ins(1)


def test_refusals_come_before_any_work() -> None:
    run = line()
    with pytest.raises(UnknownIds):
        forge(run, ["r1", "nobody"])
    with pytest.raises(EmptyForgetSet):
        forge(run, [])
    with pytest.raises(EmptyForgetSet):
        forge(run, [()])
    with pytest.raises(EmptyRetainSet):
        forge(run, [run.ids])
    with pytest.raises(UnknownName):
        forge(run, ["r1"], searches=["luck"])
    with pytest.raises(RequestError):
        forge(run, ["r1"], searches=[])
    with pytest.raises(RequestError):
        forge(run, ["r1"], candidates=0)
    with pytest.raises(RequestError):
        check_log(run, honest_log(run), tolerance=-1.0)
    with pytest.raises(DataError, match="outside it"):
        forge(line(batch_size=40), ["r1"])  # nobody is left to stand in
    with pytest.raises(DataError, match="would not have happened"):
        forge(line(batch_size=1), ["r1"], searches=["dropped"])
    for bad in ({"learning_rate": 0.0}, {"ridge": -1.0}, {"epochs": 0}, {"batch_size": 0}):
        with pytest.raises(RequestError):
            line(**bad)
    with pytest.raises(DataError):
        line(y=np.zeros(3))


# --- a replay learner -------------------------------------------------------------------------------------------------


def records(n: int = 48, copies: int = 0) -> Records:
    """`n` rows of three classes; the last `copies` of them have the values of row 0."""
    rng = np.random.default_rng(2)
    y = rng.integers(0, 3, n)
    x = (rng.normal(size=(n, 5)) + 2 * np.eye(5)[y]).astype(np.float32)
    if copies:
        x[-copies:], y[-copies:] = x[0], y[0]
    ids = np.array([f"r{k}" for k in range(n)])
    return Records(ids=ids, columns={"x": x, "y": y, "came": np.arange(n) * 2 // n})


def with_statistics(features: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(features, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, classes))


def recipe(factory: str = "expunge.models.architectures:softmax_regression", **trainer: Any) -> Recipe:
    kwargs = {"features": 5, "classes": 3} | ({"width": 8} if factory.endswith("mlp") else {})
    return Recipe(factory=factory, kwargs=kwargs, trainer=Trainer(**{"epochs": 2, **trainer}))


def learner(**more: Any) -> Replay:
    return Replay(**{"recipe": recipe(), "steps_per_epoch": 6, **more})


def run_of(model: Replay, table: Records, seed: int = 0) -> ReplayRun:
    return ReplayRun(model, model.fit(table, seed=seed))


PLAIN = {"momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}
SETTINGS: dict[str, dict[str, Any]] = {
    "momentum and cosine": {},
    "plain": {"recipe": recipe(**PLAIN)},
    "adam and linear": {"recipe": recipe(optimizer="adam", learning_rate=0.01, schedule="linear")},
    "label smoothing": {"recipe": recipe("expunge.models.architectures:mlp", label_smoothing=0.2, optimizer="adamw")},
    "statistics and dropout": {"recipe": recipe(f"{__name__}:with_statistics"), "smallest_batch": 2},
    "periods": {"arrival": "came", "periods": 2},
    "steps left out": {"steps_per_epoch": 40, "smallest_batch": 2},
    "loop": {"engine": "loop"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_log_of_a_replay_is_repeated_to_the_byte(name: str) -> None:
    run = run_of(learner(**SETTINGS[name]), records(), seed=3)
    log = honest_log(run)
    seen = outcomes(run, log)  # `repeat` compares the end with the model itself
    assert seen["rows"] == seen["steps"] == seen["passes"] == "pass"
    assert all(far == (0.0, 0.0) for far in distances(run, log).values())


@pytest.mark.parametrize("name", SETTINGS)
def test_forged_networks_are_off_and_less_so_with_a_search(name: str) -> None:
    run = run_of(learner(**SETTINGS[name]), records(), seed=3)
    group = [i for i in ("r1", "r5", "r9") if any(run.ids.index(i) in run.batch(t) for t in range(run.steps))]
    searches = ["closest"] if name == "steps left out" else ["batches", "closest"]
    forgeries = forge(run, group, searches=searches, candidates=30)
    assert all(step.distance.largest > 0 for forgery in forgeries for step in forgery.steps)
    if len(searches) == 2:
        far = {s: sum(f.distance for f in forgeries if f.search == s) for s in searches}
        assert far["closest"] < far["batches"]


def test_gradients_row_by_row_are_those_of_the_steps() -> None:
    for factory in ("softmax_regression", "mlp"):
        trainer = {**PLAIN, "label_smoothing": 0.1, "learning_rate": 0.5}
        run = run_of(learner(recipe=recipe(f"expunge.models.architectures:{factory}", **trainer)), records())
        for step in list(repeat(run))[:4]:
            moved = (step.before["flat"] - step.after["flat"])[0]
            gradients = run.gradients(step.number, step.before, step.rows)
            np.testing.assert_allclose(0.5 * gradients.mean(0), moved, atol=2e-6)
            weights = np.linspace(0.5, 2.0, len(step.rows))
            heavy = run.advance(step.number, step.before, Batch(rows=step.rows, weights=weights, size=7))
            moved = (step.before["flat"] - heavy["flat"])[0]
            np.testing.assert_allclose(0.5 * weights @ gradients / 7, moved, atol=2e-6)


def test_the_distance_is_that_of_the_gradients() -> None:
    run = run_of(learner(recipe=recipe(momentum=0.5, weight_decay=0.01, schedule="constant")), records())
    (forgery,) = forge(run, ["r1"], searches=["closest"], candidates=48)
    states = {step.number: step for step in repeat(run)}
    for step in forgery.steps:
        true = states[step.step]
        gradients = run.gradients(step.step, true.before, np.arange(48))
        gap_of_means = gradients[step.batch.rows].mean(0) - gradients[true.rows].mean(0)
        assert step.distance.rest == pytest.approx(np.linalg.norm(gap_of_means), rel=1e-3)
        assert step.distance.weights == pytest.approx(0.1 * step.distance.rest, rel=1e-3)
        assert step.distance.largest == step.distance.rest
        assert step.moved == pytest.approx(max(run.distance(true.before, true.after)))
    # A verifier whose tolerance covers the weights and not the momentum that was logged with them is not satisfied.
    far = max(step.distance.weights for step in forgery.steps)
    assert outcomes(run, forgery.log(run), tolerance=far)["steps"] == "fail"
    assert outcomes(run, forgery.log(run), tolerance=forgery.distance)["steps"] == "pass"


def test_copies_of_a_row_in_a_replay_pass_at_tolerance_zero() -> None:
    for factory in ("softmax_regression", "mlp"):
        model = learner(recipe=recipe(f"expunge.models.architectures:{factory}"))
        run = run_of(model, records(copies=8))
        copied, other = forge(run, ["r0", "r1"], searches=["closest"], candidates=48)
        assert copied.distance == 0.0 < other.distance
        assert outcomes(run, copied.log(run))["steps"] == "pass"
        assert outcomes(run, other.log(run))["steps"] == "fail"


def test_candidates_are_drawn_by_id_and_not_by_place() -> None:
    table = records()
    turned = table.take(np.arange(47, -1, -1))
    one, other = (forge(run_of(learner(), t), ["r1", "r7"], candidates=10) for t in (table, turned))
    for a, b in zip(one, other, strict=True):
        assert [s.distance for s in a.steps] == [s.distance for s in b.steps] or a.search == "batches"
        rows = [(table, a), (turned, b)]
        sets = [[set(t.ids[s.batch.rows].tolist()) for s in f.steps] for t, f in rows]
        assert sets[0] == sets[1] or a.search == "batches"


def test_a_run_that_is_not_the_logged_one_is_refused() -> None:
    model = learner()
    state = model.fit(records(), seed=0)
    parts = dict(state.parts)
    moved = State(
        rows=state.rows, seed=0, parts={**parts, MODEL: {"flat": parts[MODEL]["flat"] + 1}}, facts=state.facts
    )
    with pytest.raises(TamperedEvidence, match="do not end in the model"):
        list(repeat(ReplayRun(model, moved)))
    for name in ("ids", "rows", "seeds", "updates"):
        changed = {**parts[LOG], name: np.roll(np.asarray(parts[LOG][name]), 1) + np.ones(1, parts[LOG][name].dtype)}
        with pytest.raises(TamperedEvidence, match="not that of the rows"):
            ReplayRun(model, State(rows=state.rows, seed=0, parts={**parts, LOG: changed}, facts=state.facts))
    elsewhere = State(rows=state.rows, seed=0, parts=parts, facts={"environment": {"torch": "0.1"}})
    with pytest.raises(RunError, match="round differently"):
        ReplayRun(model, elsewhere)


# --- the commitment ---------------------------------------------------------------------------------------------------


def committed_by_hand(run: Run) -> Committed:
    log = TrainingLog(run.steps, 0)
    for step in range(run.steps):
        log.write(step, run.keys[run.batch(step)], True)
    return Committed(batches=log.ids, rows=log.rows, keys=run.keys)


def test_a_committed_order_catches_what_every_other_check_lets_pass() -> None:
    x, y = line().x.copy(), line().y.copy()
    x[30:], y[30:] = x[3], y[3]
    run = line(x=x, y=y)
    (forgery,) = forge(run, ["r3"], searches=["closest"], candidates=40)
    committed = committed_by_hand(run)
    verdict = check_log(run, forgery.log(run), committed=committed)
    assert verdict["steps"].outcome == "pass"
    assert verdict["order"].outcome == verdict["membership"].outcome == "fail"
    assert f"the first at step {forgery.steps[0].step}" in verdict["order"].reason
    assert "2 of 16 batches" in verdict["order"].reason and "1 rows were committed to" in verdict["membership"].reason
    honest = outcomes(run, honest_log(run), committed=committed)
    assert honest["order"] == honest["membership"] == "pass"


def test_the_order_within_a_batch_is_committed_to() -> None:
    run, log = line(), honest_log(line())
    turned = {**log.batches, 2: Batch.of(log.batches[2].rows[::-1])}
    verdict = check_log(
        run, ClaimedLog(members=log.members, batches=turned), tolerance=1e-9, committed=committed_by_hand(run)
    )
    assert verdict.failed == ("order",) and "at step 2" in verdict["order"].reason


class Held:
    """A replay learner in custody, with copies of its first row."""

    def __init__(self, path: Path) -> None:
        self.folder, self.table = path / "model", records(copies=8)
        self.keys = KeyFolder.make(path / "keys", NAME)
        self.durable = DurableLearner.create(self.folder, learner(), self.table, witness=Custody(self.keys))
        self.checkpoint = path / "checkpoint"
        shutil.copy(self.folder / "audit" / "log" / "checkpoint", self.checkpoint)
        self.public = path / "trusted.json"
        write_json(self.public, self.keys.trusted.as_dict())

    @property
    def run(self) -> ReplayRun:
        return ReplayRun(learner(), self.durable.state)


@pytest.fixture
def held(tmp_path: Path) -> Held:
    return Held(tmp_path)


def rewritten(held: Held, path: Path, forgery: Forgery) -> Path:
    """A folder as a forger would hand it over: rows, keys and training log without the row, and the same model."""
    run, state = held.run, held.durable.state
    part, log = dict(state.parts[LOG]), forgery.log(held.run)
    forged = TrainingLog(run.steps, state.seed, part, run.steps)
    for step in range(run.steps):
        forged.write(step, run.keys[log.batches[step].rows], True)
    part = {**forged.part(part["learning_rates"]), "keys": run.keys[log.members]}
    rest = Rows(held.table.without(list(forgery.gone)))
    after = State(rows=rest, seed=state.seed, parts={**state.parts, LOG: part}, facts=state.facts)
    shutil.copytree(held.folder, path)
    durable = DurableLearner(path)
    durable._keep(after)
    write_json(path / "state.json", durable._document(learner(), after))
    return path


def test_a_forged_log_contradicts_the_one_in_custody(held: Held) -> None:
    run = held.run
    (forgery,) = forge(run, ["r0"], searches=["closest"], candidates=48)
    log = forgery.log(run)
    assert forgery.distance == 0.0  # weights, steps and the model itself say nothing against it
    assert outcomes(run, log)["steps"] == "pass" and check_log(run, log)["order"].outcome == "inconclusive"
    committed = committed_log(held.folder, held.keys.trusted, kept=held.checkpoint.read_text())
    verdict = check_log(run, log, committed=committed)
    assert verdict["steps"].outcome == "pass"
    assert verdict["order"].outcome == verdict["membership"].outcome == "fail" and verdict.outcome == "fail"
    honest = check_log(run, honest_log(run), committed=committed)
    assert honest.outcome == "pass", honest.as_dict()


def test_a_forger_who_rewrites_the_training_log_breaks_the_signed_state(held: Held, tmp_path: Path) -> None:
    (forgery,) = forge(held.run, ["r0"], searches=["closest"], candidates=48)
    folder = rewritten(held, tmp_path / "forged", forgery)
    with pytest.raises(TamperedEvidence, match="not those that were signed"):
        committed_log(folder, held.keys.trusted)


def test_a_forger_who_signs_anew_contradicts_whoever_kept_the_checkpoint(held: Held, tmp_path: Path) -> None:
    (forgery,) = forge(held.run, ["r0"], searches=["closest"], candidates=48)
    folder = rewritten(held, tmp_path / "forged", forgery)
    shutil.rmtree(folder / "audit")
    Custody(held.keys).fitted(folder, learner(), DurableLearner(folder).state)
    anew = committed_log(folder, held.keys.trusted)  # the signer's word of today: nothing to hold against it
    assert len(anew.keys) == len(held.table) - 1
    assert outcomes(held.run, forgery.log(held.run), committed=anew)["order"] == "pass"
    with pytest.raises(TamperedEvidence, match="begun anew"):
        committed_log(folder, held.keys.trusted, kept=held.checkpoint.read_text())


def test_a_commitment_holds_after_a_forgetting_and_a_cut_log_does_not(held: Held, tmp_path: Path) -> None:
    shutil.copytree(held.folder, tmp_path / "before")
    held.durable.forget(["r5"])
    committed = committed_log(held.folder, held.keys.trusted, kept=held.checkpoint.read_text())
    assert check_log(held.run, honest_log(held.run), committed=committed).outcome == "pass"
    assert set(committed.keys.tolist()) == set(row_keys(held.durable.state.rows.records().ids.tolist(), 0).tolist())
    later = (held.folder / "audit" / "log" / "checkpoint").read_text()
    with pytest.raises(TamperedEvidence, match="first 2 entries"):
        committed_log(tmp_path / "before", held.keys.trusted, kept=later)


def test_a_commitment_needs_custody_the_right_keys_and_a_training_log(held: Held, tmp_path: Path) -> None:
    stranger = KeyFolder.make(tmp_path / "others", "example.com/others")
    with pytest.raises(TamperedEvidence):
        committed_log(held.folder, stranger.trusted)
    shutil.copytree(held.folder, tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved" / "audit" / "log")
    elsewhere = Log.create(tmp_path / "moved" / "audit" / "log", "example.com/elsewhere", held.keys.signer)
    elsewhere.append(Log(held.folder / "audit" / "log", held.keys.trusted.public).entries[0], held.keys.signer)
    with pytest.raises(TamperedEvidence, match=r"is of example\.com/elsewhere"):
        committed_log(tmp_path / "moved", held.keys.trusted)
    DurableLearner.create(tmp_path / "alone", learner(), held.table)
    with pytest.raises(RunError, match="not in custody"):
        committed_log(tmp_path / "alone", held.keys.trusted)
    digits = load_digits().take(np.arange(20))
    DurableLearner.create(tmp_path / "shards", LEARNER, digits, witness=Custody(held.keys))
    with pytest.raises(RequestError, match="no training log"):
        committed_log(tmp_path / "shards", held.keys.trusted)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_says_what_passes_and_what_is_caught(held: Held, tmp_path: Path) -> None:
    before = {p: p.read_bytes() for p in held.folder.rglob("*") if p.is_file() and p.name != "lock"}
    told = audit_forge(
        held.folder,
        ids=["r0", "r1"],
        candidates=48,
        public_keys=held.public,
        checkpoint=held.checkpoint,
        out=tmp_path / "forge.svg",
    )
    assert before == {p: p.read_bytes() for p in held.folder.rglob("*") if p.is_file() and p.name != "lock"}
    found = json.loads(json.dumps(told.as_dict(), allow_nan=False))
    assert [f["gone"] for f in found["forgeries"] if f["search"] == "closest"] == [["r0"], ["r1"]]
    assert found["curve"]["tolerances"][0] == 0.0 and found["curve"]["rows"]["closest"][0] == 0.5
    for shares in (*found["curve"]["rows"].values(), *found["curve"]["steps"].values()):
        assert shares == sorted(shares) and shares[-1] == 1.0
    assert found["irregular"] == {"dropped": 0, "batches": 2, "closest": 2, "greedy": 2, "nonnegative": 2}
    assert found["contradicted"] == dict.fromkeys(SEARCHES, 2)
    text = "\n".join(told.lines())
    assert "2 of 48 rows" in text and "continues the checkpoint" in text
    (row,) = [part for part in told.lines() if part.startswith("closest")]
    assert "50%" in row and row.count("2 of 2") == 2
    picture = (tmp_path / "forge.svg").read_text()
    assert "share of 4 forged steps" in picture and "tolerance of the verifier" in picture
    save_plot(told, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text() == picture
    save_plot(told, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_without_a_commitment(held: Held, tmp_path: Path) -> None:
    told = audit_forge(held.folder, rows=3, candidates=8, searches=["closest"])
    assert told.contradicted is None and "public keys" in told.order and len(told.ids) == 3
    assert audit_forge(held.folder, rows=3, candidates=8, searches=["closest"]).as_dict() == told.as_dict()
    assert audit_forge(held.folder, rows=3, candidates=8, searches=["closest"], seed=1).ids != told.ids
    said = audit_forge(held.folder, rows=1, candidates=8, searches=["closest"], public_keys=held.public)
    assert said.contradicted == {"closest": 1} and "no earlier checkpoint" in said.order
    DurableLearner.create(tmp_path / "alone", learner(), held.table)
    alone = audit_forge(tmp_path / "alone", rows=1, candidates=8, searches=["closest"])
    assert alone.contradicted is None and "not in custody" in alone.order


def test_the_command_refuses(held: Held, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no learner"):
        audit_forge(tmp_path / "nowhere")
    with pytest.raises(RequestError, match=r"\.png or \.svg"):
        audit_forge(held.folder, out=tmp_path / "forge.pdf")
    for bad in ({"tolerance": -1.0}, {"rows": 0}, {"checkpoint": held.checkpoint}, {"candidates": 0}):
        with pytest.raises(RequestError):
            audit_forge(held.folder, **bad)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="cannot read the checkpoint"):
        audit_forge(held.folder, public_keys=held.public, checkpoint=tmp_path / "none")
    lonely = learner(steps_per_epoch=400, smallest_batch=2)
    DurableLearner.create(tmp_path / "lonely", lonely, held.table)
    run = ReplayRun(lonely, DurableLearner(tmp_path / "lonely").state)
    used = {int(row) for step in range(run.steps) for row in run.batch(step)}
    left_out = next(i for k, i in enumerate(run.ids) if k not in used)
    with pytest.raises(RequestError, match="used in a step"):
        audit_forge(tmp_path / "lonely", ids=left_out)
    DurableLearner.create(tmp_path / "shards", LEARNER, load_digits().take(np.arange(20)))
    with pytest.raises(RequestError, match="keeps no training log"):
        audit_forge(tmp_path / "shards")
    DurableLearner.create(tmp_path / "alone", learner(), held.table)
    with pytest.raises(RequestError, match="not in custody"):
        audit_forge(tmp_path / "alone", public_keys=held.public)


def test_the_curve_starts_at_what_passes_without_tolerance() -> None:
    x, y = curve([0.0, 1e-3, 0.0, 1e-2], 1e-9, 1.0)
    assert x == [1e-9, 1e-9, 1e-9, 1e-3, 1e-2, 1.0] and y == [0.5, 0.25, 0.5, 0.75, 1.0, 1.0]
