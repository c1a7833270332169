"""Requests that look leave a trace, requests that do not leave none, and noise takes it away at a price."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits as plain_digits

from expunge.data.digits import load_digits
from expunge.data.records import Records
from expunge.errors import DataError, MissingReference, RequestError
from expunge.evaluation.adaptive_sisa import sisa_in_view
from expunge.evaluation.adaptive_trials import ShardsInView, Table, Trials, VotesInView
from expunge.evaluation.attacks.adaptive_deletion import adaptive_deletion, answered_right, guess_shards, seen_in
from expunge.methods.exact.sisa import Sisa
from expunge.recipe import Recipe, Trainer
from expunge.result import Measurement


@pytest.fixture(scope="module")
def table() -> Table:
    x, y = plain_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:500], order[500:1300]
    return Table(x=x[train] / 16, y=y[train], x_test=x[test] / 16, y_test=y[test])


def indicator(one: np.ndarray, two: np.ndarray) -> Measurement:
    found = adaptive_deletion(one, two)["adaptive_deletion_indicator"]
    assert isinstance(found, Measurement)
    return found


def controls(trials: Trials) -> list[tuple[np.ndarray, np.ndarray]]:
    return [
        (trials.attacked, trials.control),
        (trials.fresh, trials.fresh_control),
        (trials.blind, trials.blind_control),
    ]


def check_controls(trials: Trials) -> None:
    for one, two in controls(trials)[1:]:
        control = indicator(one, two)
        assert control.low < 0.5 < control.high


# --- decisions --------------------------------------------------------------------------------------------------------


def test_a_record_lies_where_it_is_known_best() -> None:
    confidence = np.array([[0.9, 0.2, 0.3], [0.1, 0.8, 0.3], [0.5, 0.1, 0.7]])
    assert guess_shards(confidence).tolist() == [0, 1, 2]
    assert seen_in(confidence, [0, 2]).tolist() == [True, False, True]


@pytest.mark.parametrize("targeted", [[], [0, 1], [2], [-1]])
def test_some_shards_are_targeted_and_some_are_not(targeted: list[int]) -> None:
    with pytest.raises(DataError):
        seen_in(np.ones((2, 3)), targeted)


def test_only_right_answers_are_asked_for_and_no_more_than_wanted() -> None:
    said, truth = np.array([0, 1, 2, 3, -1]), np.array([0, 1, 2, 0, 1])
    assert answered_right(said, truth, most=9, seed=0).tolist() == [True, True, True, False, False]
    chosen = [answered_right(said, truth, most=1, seed=s) for s in range(30)]
    assert {int(c.sum()) for c in chosen} == {1}
    assert np.any(chosen, axis=0).tolist() == [True, True, True, False, False]
    for bad in ((said[:2], truth, 1), (said, truth, 0), (said[:0], truth[:0], 1)):
        with pytest.raises(DataError):
            answered_right(bad[0], bad[1], most=bad[2], seed=0)


# --- the measurement --------------------------------------------------------------------------------------------------


def test_indicator_counts_trials_and_has_an_exact_interval() -> None:
    found = adaptive_deletion([0.1, 0.2, 0.9], [0.5, 0.5, 0.5], floor=0.4, ceiling=0.9)["adaptive_deletion_indicator"]
    assert isinstance(found, Measurement)
    assert found.value == pytest.approx(2 / 3)
    assert (found.floor, found.ceiling, found.n) == (0.4, 0.9, 3)
    np.testing.assert_allclose([found.low, found.high], [0.0943, 0.9916], atol=1e-4)


def test_a_tie_is_decided_by_a_fair_coin() -> None:
    same = np.full(2000, 0.7)
    found = indicator(same, same)
    assert found.low < 0.5 < found.high
    assert found.detail["ties"] == 2000


def test_without_a_control_there_is_no_indicator() -> None:
    with pytest.raises(MissingReference):
        adaptive_deletion(np.ones(3), None)
    with pytest.raises(DataError):
        adaptive_deletion(np.ones(3), np.ones(2))


# --- the experiments --------------------------------------------------------------------------------------------------


def test_shards_in_view_are_told_from_retraining_and_private_training_hides_them(table: Table) -> None:
    experiment = ShardsInView(features=60, steps=120)
    plain = experiment.run(table, noise=0.0, trials=24, seed=0)
    found = indicator(plain.attacked, plain.control)
    assert found.low > 0.6
    assert plain.guessed.mean() > 2 / experiment.shards
    check_controls(plain)
    noisy = experiment.run(table, noise=2.0, trials=24, seed=0)
    hidden = indicator(noisy.attacked, noisy.control)
    assert hidden.low < 0.5 < hidden.high
    assert hidden.high < found.value
    assert noisy.guessed.mean() < plain.guessed.mean() - 0.1
    assert noisy.accuracy.mean() < plain.accuracy.mean() - 0.05


def test_published_votes_are_told_from_retraining_and_noise_on_them_hides_it(table: Table) -> None:
    plain = VotesInView(deletions=100).run(table, noise=0.0, trials=40, seed=0)
    found = indicator(plain.attacked, plain.control)
    assert found.low > 0.8
    check_controls(plain)
    assert (plain.deleted == 100).all()
    noisy = VotesInView(deletions=100).run(table, noise=20.0, trials=40, seed=0)
    hidden = indicator(noisy.attacked, noisy.control)
    assert hidden.low < 0.5 < hidden.high
    assert hidden.high < found.low
    assert noisy.accuracy.mean() < plain.accuracy.mean() - 0.1
    check_controls(noisy)


def test_trials_are_a_function_of_the_seed(table: Table) -> None:
    for experiment in (ShardsInView(steps=20, features=8), VotesInView()):
        one, two, other = (experiment.run(table, noise=1.0, trials=2, seed=s) for s in (4, 4, 5))
        assert one.attacked.tolist() == two.attacked.tolist()
        assert one.accuracy.tolist() == two.accuracy.tolist()
        assert one.attacked.tolist() != other.attacked.tolist()


def test_a_gradient_is_clipped_and_the_noise_has_its_scale(table: Table) -> None:
    """One step from zero: its length is at most rate · clip, and the noise that of multiplier · clip on the sum."""
    experiment = ShardsInView(steps=1, learning_rate=1.0, batch_size=4, max_grad_norm=0.01, features=30)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(len(table.x), 31)).astype(np.float32)
    member = np.ones((40, len(rows)), dtype=bool)
    quiet = experiment._train(table, rows, member, 0.0, rng)
    assert np.linalg.norm(quiet.reshape(40, -1), axis=1).max() <= 0.01 * (1 + 1e-5)
    assert np.linalg.norm(quiet.reshape(40, -1), axis=1).max() > 0.002
    loud = experiment._train(table, rows, member, 100.0, rng)
    np.testing.assert_allclose(loud.std(), 100.0 * 0.01 / 4, rtol=0.02)


def test_a_lookup_table_knows_what_is_near_and_nothing_else() -> None:
    """Neighbours lie 0.1 apart, but for one row at 7.1: the 99% quantile of the distances is 2.9."""
    x = np.concatenate([np.arange(30) / 10, 100 + np.arange(30) / 10, [110.0]])[:, None]
    y = np.repeat([0, 1], [30, 31])
    for tested, right in ((np.array([[1.5], [101.5]]), 1.0), (np.array([[6.5], [95.0]]), 0.0)):
        table = Table(x=x, y=y, x_test=tested, y_test=np.array([0, 1]))
        trials = VotesInView(shards=2, deletions=1, reach=0.99).run(table, noise=0.0, trials=5, seed=0)
        assert trials.accuracy.tolist() == [right] * 5


def test_models_learn_from_their_own_rows_only(table: Table) -> None:
    experiment = ShardsInView(steps=5, features=30)
    rows = np.random.default_rng(0).normal(size=(len(table.x), 31)).astype(np.float32)
    member = np.zeros((3, len(rows)), dtype=bool)
    member[0, :50] = member[1, 50:90] = True
    changed = rows.copy()
    changed[50:] += 1.0
    one, two = (experiment._train(table, r, member, 0.0, np.random.default_rng(1)) for r in (rows, changed))
    np.testing.assert_array_equal(one[0], two[0])
    assert (one[1] != two[1]).any()
    assert not one[2].any()  # no rows, nothing learned


def test_refuses_what_is_no_experiment(table: Table) -> None:
    with pytest.raises(RequestError):
        ShardsInView(shards=1)
    with pytest.raises(RequestError):
        VotesInView(reach=1.0)
    for experiment in (ShardsInView(), VotesInView()):
        for noise, trials in ((-1.0, 2), (float("nan"), 2), (0.0, 0)):
            with pytest.raises(RequestError):
                experiment.run(table, noise=noise, trials=trials, seed=0)
    with pytest.raises(DataError):
        Table(x=table.x, y=table.y[:-1], x_test=table.x_test, y_test=table.y_test)


# --- the learner ------------------------------------------------------------------------------------------------------


def learner(epochs: int = 10, shards: int = 6) -> Sisa:
    mlp = Recipe(
        factory="expunge.models.architectures:mlp",
        kwargs={"features": 64, "classes": 10, "width": 64},
        trainer=Trainer(epochs=epochs, batch_size=16, weight_decay=0.0),
    )
    return Sisa(recipe=mlp, shards=shards, aggregate="vote")


def digits(count: int) -> tuple[Records, Records]:
    records = load_digits()
    order = np.random.default_rng(0).permutation(len(records))
    return records.take(order[:count]), records.take(order[count:])


def test_the_attack_runs_against_the_learner_and_leaves_it_exact() -> None:
    train, test = digits(120)
    found = sisa_in_view(learner(epochs=1), train, test, trials=1, seed=3)
    assert 0 < found.deleted[0] < 120
    sides = {(one[0], two[0]) for one, two in controls(found)}
    assert len(sides) == 3  # another seed and other requests make other shards
    with pytest.raises(RequestError):
        sisa_in_view(learner(shards=1), train, test, trials=1, seed=0)


@pytest.mark.slow
def test_adaptive_requests_break_the_learner_where_blind_ones_do_not() -> None:
    train, test = digits(600)
    found = sisa_in_view(learner(), train, test, trials=24, seed=0)
    assert indicator(found.attacked, found.control).low > 0.7
    assert found.guessed.mean() > 0.25
    check_controls(found)
