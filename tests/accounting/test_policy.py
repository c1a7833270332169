"""Policies, and the bounds on attackers that they put into words."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from expunge.accounting.attacker import attacker, attacker_of
from expunge.accounting.ledger import Ledger
from expunge.accounting.policy import Policy, read_policy
from expunge.errors import RequestError, RunError

EMPTY = Ledger(1.0, 1e-5)
POLICY = Policy(epsilon=1.0, delta=1e-5)


def randomised_response(epsilon: float, delta: float) -> tuple[np.ndarray, np.ndarray]:
    """The pair that (ε, δ) dominates all others with: (with, without) over four outcomes."""
    share = (1 - delta) / (1 + math.exp(epsilon))
    one = np.array([delta, (1 - delta) - share, share, 0.0])
    return one, one[::-1]


def best_test(upper: np.ndarray, lower: np.ndarray, rate: float) -> float:
    """Neyman–Pearson: the largest P_upper over tests with P_lower = rate, by filling outcomes in order of ratio."""
    power = 0.0
    ratio = np.divide(upper, lower, out=np.full(len(upper), np.inf), where=lower > 0)
    for i in np.argsort(-ratio):
        take = 1.0 if lower[i] <= rate else rate / lower[i]
        power += take * upper[i]
        rate -= take * lower[i]
        if rate <= 0:
            break
    return power


@settings(deadline=None, max_examples=60)
@given(st.floats(0.0, 6.0), st.floats(0.0, 0.2), st.floats(0.001, 0.9))
def test_the_bound_is_reached_by_randomised_response(epsilon, delta, rate):
    upper, lower = randomised_response(epsilon, delta)
    told = attacker(epsilon, delta, false_positive_rate=rate)
    assert told.true_positive_rate == pytest.approx(best_test(upper, lower, rate), rel=1e-9)
    assert told.advantage == pytest.approx(np.abs(upper - lower).sum() / 2, rel=1e-9, abs=1e-12)
    assert told.best_accuracy == pytest.approx((1 + told.advantage) / 2)


def test_one_direction_bounds_less():
    both, removal = (attacker(1.0, 1e-3, false_positive_rate=0.6, side=side) for side in ("both", "removal"))
    assert both.true_positive_rate < removal.true_positive_rate == 1.0
    assert both.advantage < removal.advantage == pytest.approx(1 - math.exp(-1) * (1 - 1e-3))
    # At low false-positive rates the removal direction is the one that counts.
    assert attacker(1.0, 1e-3).true_positive_rate == attacker(1.0, 1e-3, side="removal").true_positive_rate


def test_gaussian_charges_have_the_best_test_itself():
    mu = 0.8
    told = attacker_of(EMPTY.gaussian(mu, 1.0), false_positive_rate=0.01)
    threshold = stats.norm.isf(0.01)
    assert told.true_positive_rate == pytest.approx(stats.norm.sf(threshold - mu), rel=1e-12)
    assert told.advantage == pytest.approx(2 * stats.norm.cdf(mu / 2) - 1, rel=1e-12)


@pytest.mark.parametrize(
    "ledger",
    [EMPTY.gaussian(1, 2), EMPTY.subsampled_gaussian(0.8, 0.2, 1), EMPTY.laplace(1, 1), EMPTY.concentrated(0.1)],
)
def test_the_curve_bounds_more_than_its_one_point(ledger):
    epsilon = ledger.epsilon(notion=ledger.notion)
    curve, point = attacker_of(ledger), attacker(epsilon, 1e-5)
    assert curve.true_positive_rate <= point.true_positive_rate and curve.advantage <= point.advantage
    assert curve.true_positive_rate >= 0.01 and curve.advantage >= 0


@pytest.mark.parametrize("rate", [0.01, 0.2])
def test_no_test_of_sampled_noise_beats_the_curve(rate):
    noise, share = 0.8, 0.2
    line = np.linspace(-10, 10, 20_001)
    without = stats.norm.pdf(line, 0, noise)
    with_it = (1 - share) * without + share * stats.norm.pdf(line, 1, noise)
    best = best_test(with_it / with_it.sum(), without / without.sum(), rate)
    told = attacker_of(EMPTY.subsampled_gaussian(noise, share, 1), false_positive_rate=rate)
    assert best <= told.true_positive_rate <= best * 1.1
    assert 0.5 * np.abs(with_it / with_it.sum() - without / without.sum()).sum() <= told.advantage + 1e-9


def test_belief_is_updated_by_bayes():
    told = attacker(1.0, 0.0, prior=0.2)
    assert told.lift == pytest.approx(math.e)
    assert told.posterior == pytest.approx(0.2 * math.e / (0.2 * math.e + 0.8))


def test_nothing_revealed_and_everything():
    nothing, all_of_it = attacker(0.0, 0.0), attacker_of(EMPTY.gaussian(1, 0))
    assert (nothing.advantage, nothing.true_positive_rate, nothing.posterior) == (0.0, 0.01, 0.5)
    assert (all_of_it.advantage, all_of_it.true_positive_rate) == (1.0, 1.0)
    assert attacker_of(EMPTY).true_positive_rate == pytest.approx(0.01)
    assert attacker(500.0, 0.0).posterior == pytest.approx(1.0, abs=0.011)


def test_bounds_in_words_are_rounded_up():
    words = attacker(1.0, 1e-5).words()
    assert "at most 73.11% of the time" in words[0] or "at most 73.12% of the time" in words[0]
    assert "1% of the records" in words[1] and "at most 2.72%" in words[1]
    assert "50%" in words[2] and "2.72)" in words[2]
    assert "0.1% of the records" in attacker(1.0, 0.0, false_positive_rate=0.001).words()[1]
    assert "at most 50.01% of" in attacker(1e-4, 0.0).words()[0]


# -- policies ----------------------------------------------------------------------------------------------------------


def test_enough_and_not_enough():
    noise = 4.0
    within, beyond = POLICY.judge(EMPTY.gaussian(1, noise)), POLICY.judge(EMPTY.gaussian(1, noise / 2))
    assert within.enough and within.epsilon == EMPTY.gaussian(1, noise).spent
    assert within.words()[0].startswith("Enough: ε = 0.9264 at δ = 1e-05 (for a record, by PLD)")
    assert not beyond.enough and beyond.words()[0].startswith("Not enough") and beyond.epsilon > 1
    assert within.attacker.true_positive_rate < beyond.attacker.true_positive_rate


def test_the_policys_delta_counts_not_the_ledgers():
    ledger = Ledger(8.0, 1e-2).gaussian(1, 4.0)
    assert POLICY.judge(ledger).epsilon == EMPTY.gaussian(1, 4.0).spent > ledger.spent
    assert POLICY.judge(Ledger(8.0, 1e-2).laplace(1, 2)).attacker == POLICY.judge(EMPTY.laplace(1, 2)).attacker


def test_a_group_is_judged_as_a_group():
    ledger = EMPTY.gaussian(1, 10.0)
    assert POLICY.judge(ledger).enough
    three = Policy(epsilon=1.0, delta=1e-5, group=3).judge(ledger)
    assert not three.enough and three.epsilon == ledger.epsilon(group=3) and "3 records at once" in three.words()[0]
    assert three.attacker.advantage == attacker_of(ledger, group=3).advantage > attacker_of(ledger).advantage


def test_residuals_are_judged_for_what_was_removed():
    ledger = EMPTY.residual(EMPTY.residual_limit(1.0), noise=1.0)
    told = Policy(epsilon=1.0, delta=1e-5, group=5).judge(ledger)
    assert told.enough and "all records removed so far" in told.words()[0]
    assert not POLICY.judge(ledger.residual(1e-3, noise=1.0)).enough


def test_claims_are_grown_naively_for_groups():
    assert POLICY.judge_claim(1.0, 1e-5).enough
    assert not POLICY.judge_claim(1.0001, 1e-5).enough
    assert not POLICY.judge_claim(0.5, 2e-5).enough
    two = Policy(epsilon=1.0, delta=1e-5, group=2)
    assert two.judge_claim(0.5, 1e-6).enough and two.judge_claim(0.5, 1e-6).delta == pytest.approx(
        1e-6 * (1 + math.e**0.5)
    )
    hopeless = Policy(epsilon=1.0, delta=1e-5, group=1000).judge_claim(1.0, 1e-5)
    assert not hopeless.enough and hopeless.epsilon == math.inf and hopeless.attacker.true_positive_rate == 1.0
    assert "infinity" in hopeless.words()[0]
    json.dumps(hopeless.as_dict(), allow_nan=False)


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_files_there_and_back(tmp_path, suffix):
    path = tmp_path / f"policy{suffix}"
    told = {"epsilon": 2.0, "delta": 1e-6, "records": 1000, "group": 3, "side": "removal", "reason": "Board: 3 May"}
    path.write_text(json.dumps(told))
    policy = read_policy(path)
    assert policy == Policy(**told) and policy.prior == 0.5
    assert "The policy's reason: Board: 3 May" in policy.judge_claim(0.1, 1e-7).words()


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("epsilon: 1.0\ndelta: 1.0e-5\nepsylon: 2", "epsylon"),
        ("epsilon: 0\ndelta: 1.0e-5", "epsilon"),
        ("epsilon: .inf\ndelta: 1.0e-5", "epsilon"),
        ("epsilon: 1.0", "delta"),
        ("epsilon: 1.0\ndelta: 1.0", "delta"),
        ("epsilon: 1.0\ndelta: 1.0e-5\nrecords: 100000", "1/records"),
        ("epsilon: 1.0\ndelta: 1.0e-5\nprior: 1", "prior"),
        ("epsilon: 1.0\ndelta: 1.0e-5\nside: left", "side"),
        ("- 1", "no fields"),
        ("a: [", "not valid YAML"),
    ],
)
def test_wrong_files_name_what_is_wrong(tmp_path, text, wrong):
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(RequestError, match=wrong):
        read_policy(path)


def test_missing_files(tmp_path):
    with pytest.raises(RunError):
        read_policy(tmp_path / "none.yaml")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(RequestError, match="not valid JSON"):
        read_policy(tmp_path / "bad.json")


@pytest.mark.parametrize("change", [{"false_positive_rate": 0.0}, {"prior": 1.0}, {"side": "left"}, {"delta": 1.5}])
def test_attackers_out_of_range_are_refused(change):
    with pytest.raises(RequestError):
        attacker(**({"epsilon": 1.0, "delta": 1e-5} | change))
