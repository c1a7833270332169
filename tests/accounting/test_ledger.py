"""The ledger against the library's accountants, closed forms and its own rules."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.accounting import gaussian, loss, renyi
from expunge.accounting import ledger as module
from expunge.accounting.charges import Gaussian, Laplace, Renyi, SubsampledGaussian
from expunge.accounting.ledger import Ledger
from expunge.errors import MissingEvidence, RequestError

EMPTY = Ledger(1.0, 1e-5)
DELTA = 1e-5


def poisson(noise: float, rate: float, steps: int) -> dp_accounting.DpEvent:
    step = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
    return dp_accounting.SelfComposedDpEvent(step, steps)


@pytest.mark.parametrize(("noise", "count"), [(0.7, 1), (5.0, 1), (5.0, 30), (40.0, 100)])
def test_the_pld_of_the_gaussian_mechanism_is_the_analytic_gaussian(noise, count):
    told = EMPTY.gaussian(1.0, noise, count).account(DELTA)
    event = dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(noise), count)
    grid = PLDAccountant().compose(event).get_epsilon(DELTA)
    assert told.epsilon == pytest.approx(gaussian.epsilon(DELTA, noise / math.sqrt(count)), rel=1e-12)
    assert told.closed_form and told.source == "pld"
    # The grid is rounded upwards, by little.
    assert told.epsilon <= grid <= told.epsilon + 1e-6


@pytest.mark.parametrize(("noise", "rate", "steps"), [(1.0, 0.01, 1000), (0.9, 0.2, 9), (4.0, 0.05, 200)])
def test_dp_sgd_has_the_librarys_values(noise, rate, steps):
    ledger = EMPTY.subsampled_gaussian(noise, rate, steps)
    pld = PLDAccountant().compose(poisson(noise, rate, steps)).get_epsilon(DELTA)
    rdp = RdpAccountant(renyi.ORDERS[renyi.ORDERS <= 1024]).compose(poisson(noise, rate, steps)).get_epsilon(DELTA)
    assert ledger.epsilon(DELTA) == pytest.approx(pld, rel=1e-9)
    assert ledger.epsilon(DELTA, "rdp") == pytest.approx(rdp, rel=1e-9)
    assert ledger.epsilon(DELTA, "rdp") >= ledger.epsilon(DELTA) >= pld * (1 - 1e-12)


def test_a_sampling_rate_of_one_is_the_gaussian_mechanism():
    sampled, plain = EMPTY.subsampled_gaussian(2.0, 1.0, 7), EMPTY.gaussian(3.0, 6.0, 7)
    for notion in ("pld", "rdp", "gdp"):
        assert sampled.epsilon(DELTA, notion) == pytest.approx(plain.epsilon(DELTA, notion), rel=1e-12)
        assert sampled.epsilon(DELTA, notion, 3) == pytest.approx(plain.epsilon(DELTA, notion, 3), rel=1e-12)


def test_different_mechanisms_compose_as_in_the_library():
    ledger = EMPTY.gaussian(1, 4, 2).subsampled_gaussian(1.5, 0.02, 100).laplace(1, 5)
    events = [
        dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(4.0), 2),
        poisson(1.5, 0.02, 100),
        dp_accounting.LaplaceDpEvent(5.0),
    ]
    pld, rdp = PLDAccountant(), RdpAccountant(renyi.ORDERS[renyi.ORDERS <= 1024])
    for event in events:
        pld.compose(event)
        rdp.compose(event)
    assert ledger.epsilon(DELTA) == pytest.approx(pld.get_epsilon(DELTA), rel=1e-4)
    assert ledger.epsilon(DELTA, "rdp") == pytest.approx(rdp.get_epsilon(DELTA), rel=1e-6)
    assert ledger.epsilon(DELTA) > max(EMPTY.charged(c).epsilon(DELTA) for c in ledger.charges)


def test_renyi_of_the_gaussian_mechanism_is_alpha_over_two_sigma_squared():
    orders = np.array([1.5, 2.0, 10.0, 100.0])
    for sigma in (0.5, 3.0):
        charge = Gaussian(sensitivity=1.0, noise=sigma)
        assert renyi.curve([charge], orders=orders) == pytest.approx(orders / (2 * sigma**2), rel=1e-14)
        assert renyi.curve([charge], 3, orders) == pytest.approx(9 * orders / (2 * sigma**2), rel=1e-14)


def test_renyi_of_laplace_is_the_integral_of_its_densities():
    rate, order = 0.8, 4.0
    x = np.linspace(-60, 60, 2_000_001)
    one, two = (0.5 * np.exp(-np.abs(x - shift)) for shift in (0.0, rate))
    value = math.log(np.trapezoid(one**order * two ** (1 - order), x)) / (order - 1)
    curve = renyi.curve([Laplace(sensitivity=rate, scale=1.0)], orders=np.array([order]))
    assert curve[0] == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 5.0])
def test_pure_epsilon_stays_pure(epsilon):
    ledger = EMPTY.bounded(epsilon)
    assert ledger.epsilon(1e-10) == pytest.approx(epsilon, abs=2e-4)
    assert epsilon <= ledger.epsilon(1e-10, "rdp") <= epsilon + 0.01
    assert ledger.delta(epsilon + 2e-4) < 1e-12
    assert EMPTY.bounded(epsilon, 1e-6).delta(epsilon + 2e-4) == pytest.approx(1e-6)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.3, 1e-5), (0.7, 1e-5), (2.3, 0.0), (1.0, 1e-9)])
def test_a_bound_alone_needs_no_grid(epsilon, delta):
    ledger = Ledger(epsilon, 1e-5).bounded(epsilon, delta)
    assert ledger.spent <= epsilon and not ledger.exhausted
    grid = loss.distribution(ledger.charges).get_epsilon_for_delta(1e-5)
    assert grid - 1e-4 <= ledger.spent <= grid + 1e-12
    assert Ledger(epsilon, 1e-5).bounded(epsilon, 1.1e-5).spent == math.inf
    assert EMPTY.bounded(epsilon).epsilon(group=3) == pytest.approx(3 * epsilon, abs=1e-3)


@settings(deadline=None, max_examples=100)
@given(st.floats(1e-3, 50), st.floats(1e-12, 0.1), st.floats(1e-3, 1e3))
def test_calibrated_noise_stays_within_what_was_asked(epsilon, delta, sensitivity):
    ledger = Ledger(epsilon, delta).gaussian(sensitivity, gaussian.sigma(epsilon, delta, sensitivity))
    assert ledger.spent <= epsilon and not ledger.exhausted


def test_bounds_compose_at_most_naively_and_at_least_once():
    one, many = EMPTY.bounded(0.1, 1e-8), EMPTY.bounded(0.1, 1e-8, 20)
    assert one.epsilon(DELTA) < many.epsilon(DELTA) < 20 * 0.1 + 1e-3
    assert many.epsilon(DELTA, "pld", 2) > many.epsilon(DELTA)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(0.01, 2.0), st.integers(1, 9)), min_size=1, max_size=6), st.integers(1, 5))
def test_mu_adds_in_squares(parts, group):
    ledger = EMPTY
    for mu, count in parts:
        ledger = ledger.gaussian(mu, 1.0, count)
    total = math.sqrt(sum(count * mu * mu for mu, count in parts))
    assert ledger.epsilon(DELTA, "gdp", group) == pytest.approx(gaussian.epsilon_of(DELTA, total * group), rel=1e-9)


@pytest.mark.parametrize("notion", ["pld", "rdp", "gdp"])
@pytest.mark.parametrize("group", [1, 3])
def test_nothing_is_reported_below_the_pld_value(notion, group, monkeypatch):
    gauss = EMPTY.gaussian(1, 5.0, 3)
    pld = gauss.account(DELTA, "pld", group).epsilon
    for ledger in (gauss, EMPTY.laplace(1, 3.0, 2)):
        if notion == "gdp" and ledger is not gauss:
            continue
        told = ledger.account(DELTA, notion, group)
        assert told.pld is not None and told.epsilon >= told.pld
    # An accountant that says too little is overruled, and the account says so.
    monkeypatch.setattr(module, "_rdp", lambda charges, delta, group: 0.25 * pld)
    told = gauss.account(DELTA, "rdp", group)
    assert told.epsilon == pld and told.source == "pld" and told.value == 0.25 * pld
    assert "RDP says" in str(told)
    assert gauss.epsilon(DELTA, "rdp", group) == pld


def test_a_delta_from_the_curve_inverts_epsilon():
    for ledger in (EMPTY.gaussian(1, 5), EMPTY.subsampled_gaussian(1.0, 0.05, 50), EMPTY.concentrated(0.02)):
        notion = ledger.notion
        epsilon = ledger.epsilon(DELTA, notion)
        assert ledger.delta(epsilon, notion) == pytest.approx(DELTA, rel=1e-3)
        assert ledger.delta(epsilon * 1.5, notion) < DELTA < ledger.delta(epsilon / 1.5, notion)
    for ledger in (EMPTY.gaussian(1, 5), EMPTY.laplace(1, 5, 3)):
        assert ledger.delta(0.5, "rdp") > ledger.delta(0.5) > 0


def test_gdp_is_refused_where_it_would_be_an_approximation():
    with pytest.raises(MissingEvidence, match="below the truth"):
        EMPTY.subsampled_gaussian(1.0, 0.01, 10).epsilon(DELTA, "gdp")


def test_a_renyi_curve_alone_has_no_pld():
    for ledger in (EMPTY.concentrated(0.01), EMPTY.renyi([2, 8, 32], [0.1, 0.4, 1.6])):
        with pytest.raises(MissingEvidence, match="Ask for rdp"):
            ledger.epsilon(DELTA)
        told = ledger.account(DELTA, "rdp")
        assert told.pld is None and told.source == "rdp" and told.epsilon == ledger.spent
        assert ledger.notion == "rdp"


def test_zcdp_is_a_gaussian_in_renyi_terms():
    rho = 1 / (2 * 5.0**2)
    zcdp, gauss = EMPTY.concentrated(rho, 4), EMPTY.gaussian(1, 5.0, 4)
    for group in (1, 3):
        assert zcdp.epsilon(DELTA, "rdp", group) == pytest.approx(gauss.epsilon(DELTA, "rdp", group), rel=1e-12)


def test_a_known_curve_bounds_lower_orders_and_no_higher():
    charge = Renyi(orders=(4.0, 16.0), values=(0.3, 0.9), count=2)
    assert renyi.curve([charge], orders=np.array([2.0, 4.0, 5.0, 16.0, 17.0])).tolist() == [
        0.6,
        0.6,
        1.8,
        1.8,
        math.inf,
    ]


@pytest.mark.parametrize(
    ("orders", "values"), [([], []), ([1.0], [0.1]), ([4, 2], [1, 1]), ([2, 3], [1]), ([2], [-1.0]), ([2], [math.nan])]
)
def test_curves_that_are_none_are_refused(orders, values):
    with pytest.raises(RequestError):
        EMPTY.renyi(orders, values)


def test_nothing_charged_costs_nothing():
    assert EMPTY.spent == EMPTY.epsilon(1e-9, "gdp") == EMPTY.epsilon(1e-9, "rdp") == EMPTY.delta(0.0) == 0.0
    assert EMPTY.remaining == 1.0 and not EMPTY.exhausted
    assert EMPTY.gaussian(0.0, 1.0, 1000).spent == 0.0
    assert EMPTY.laplace(0.0, 1.0, 10).spent == 0.0
    assert EMPTY.residual(0.0, noise=1.0).spent == 0.0


def test_no_noise_is_no_bound():
    for ledger in (
        EMPTY.gaussian(1.0, 0.0),
        EMPTY.subsampled_gaussian(0.0, 0.5, 1),
        EMPTY.subsampled_gaussian(0.0, 1.0, 1),
        EMPTY.laplace(1.0, 0.0),
    ):
        assert ledger.spent == math.inf and ledger.exhausted and ledger.remaining == 0.0
        assert ledger.epsilon(DELTA, "rdp") == math.inf
        assert ledger.delta(5.0) == 1.0
        json.dumps(ledger.account().as_dict(), allow_nan=False)
        json.dumps(ledger.as_dict(), allow_nan=False)


# -- budgets and residuals ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.floats(0.05, 5), st.floats(1e-9, 1e-2), st.floats(1e-3, 1e3), st.integers(1, 30))
def test_residuals_up_to_the_limit_hold_the_budget_and_more_do_not(epsilon, delta, noise, parts):
    ledger = Ledger(epsilon, delta)
    limit = ledger.residual_limit(noise)
    for _ in range(parts):
        ledger = ledger.residual(limit / parts * (1 - 1e-14), noise=noise)
    assert not ledger.exhausted and ledger.spent <= epsilon
    assert ledger.spent == pytest.approx(epsilon, rel=1e-6)
    over = ledger.residual(limit * 1e-6, noise=noise)
    assert over.exhausted and over.spent > epsilon and over.remaining == 0.0


def test_the_limit_is_larger_than_guos_where_his_is_proved():
    ledger = Ledger(0.9, 1e-4)
    guo = 10.0 * 0.9 / math.sqrt(2 * math.log(1.5 / 1e-4))
    assert guo < ledger.residual_limit(10.0) == pytest.approx(10.0 * gaussian.mu_of(0.9, 1e-4))


def test_residuals_of_one_draw_add_and_of_two_compose():
    same = EMPTY.residual(0.3, noise=2.0).residual(0.4, noise=2.0)
    assert len(same.charges) == 1 and same.residual_spent() == pytest.approx(0.7)
    assert same.spent == pytest.approx(gaussian.epsilon(DELTA, 2.0, 0.7))
    two = EMPTY.residual(0.3, noise=2.0, draw="class 0").residual(0.4, noise=2.0, draw="class 1")
    assert two.spent == pytest.approx(gaussian.epsilon(DELTA, 2.0, 0.5))
    assert two.residual_spent("class 1") == 0.4 and two.residual_spent() == 0.0


def test_an_owners_lower_limit_is_kept_and_a_higher_one_refused():
    most = EMPTY.residual_limit(1.0)
    ledger = EMPTY.residual(0.1 * most, 0.5 * most, noise=1.0)
    assert not ledger.exhausted
    assert ledger.residual(0.41 * most, 0.5 * most, noise=1.0).exhausted
    with pytest.raises(RequestError, match="covers residuals up to"):
        EMPTY.residual(0.1, 1.01 * most, noise=1.0)
    with pytest.raises(RequestError, match="One draw"):
        ledger.residual(0.1, 0.5 * most, noise=0.9999)


def test_residuals_know_no_groups():
    ledger = EMPTY.residual(0.1, noise=1.0)
    for ask in (ledger.epsilon, ledger.account):
        with pytest.raises(RequestError, match="group"):
            ask(DELTA, "pld", 2)
    with pytest.raises(RequestError, match="group"):
        ledger.delta(1.0, group=2)
    with pytest.raises(RequestError, match="group"):
        ledger.gaussian(1, 2).subsampled_gaussian(1.0, 0.1, 2).epsilon(DELTA, "rdp", 2)


def test_retraining_opens_a_new_account_and_says_so():
    spent = EMPTY.residual(100.0, noise=1.0)
    assert spent.exhausted
    fresh = spent.retrained().retrained()
    assert fresh.spent == 0.0 and not fresh.exhausted and fresh.retrains == 2
    assert fresh.gaussian(1, 9).gaussian(1, 9).laplace(1, 9).retrains == 2
    assert (fresh.budget_epsilon, fresh.budget_delta) == (1.0, DELTA)


def test_a_budget_of_dp_sgd_runs_out():
    ledger, steps = Ledger(1.0, 1e-5), 0
    while not ledger.exhausted:
        ledger, steps = ledger.subsampled_gaussian(1.0, 0.01, 100), steps + 100
    assert ledger.spent > 1.0 >= Ledger(1.0, 1e-5).subsampled_gaussian(1.0, 0.01, steps - 100).spent


# -- the object --------------------------------------------------------------------------------------------------------


def full() -> Ledger:
    return (
        EMPTY.gaussian(1, 5.0, what="weights")
        .subsampled_gaussian(1.0, 0.01, 10, what="steps")
        .laplace(1, 9, 2)
        .bounded(0.1, 1e-9)
        .concentrated(0.001)
        .renyi([2, 4], [0.001, 0.002])
        .residual(0.1, noise=3.0)
        .retrained()
        .gaussian(2, 5)
        .renyi((2, 4), (0.1, 0.2))
        .residual(0.2, 0.3, noise=3.0, draw="class 1")
    )


def test_json_there_and_back():
    for ledger in (EMPTY, full()):
        told = json.loads(json.dumps(ledger.as_dict(), allow_nan=False))
        assert Ledger.from_dict(told) == ledger
        assert Ledger.from_dict(told).as_dict() == ledger.as_dict()


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.pop("retrains"),
        lambda told: told.update(more=1),
        lambda told: told.update(charges={}),
        lambda told: told["charges"][0].update(mechanism="magic"),
        lambda told: told["charges"][0].pop("noise"),
        lambda told: told["charges"][0].update(noise=-1.0),
        lambda told: told["charges"][0].update(noise="5"),
        lambda told: told["charges"][0].update(count=0),
        lambda told: told["charges"].append(7),
        lambda told: told.update(budget_delta=1.5),
        lambda told: told.update(retrains=-1),
        lambda told: told["charges"][1].update(orders=3),
    ],
)
def test_a_damaged_ledger_is_refused(change):
    told = json.loads(json.dumps(full().as_dict()))
    change(told)
    with pytest.raises(RequestError):
        Ledger.from_dict(told)


def test_a_ledger_is_immutable_and_hashable():
    before = EMPTY.gaussian(1, 5)
    after = before.gaussian(1, 5)
    assert before.charges[0].count == 1 and after.charges[0].count == 2
    assert hash(before) == hash(EMPTY.gaussian(1, 5)) and before == EMPTY.gaussian(1, 5)
    with pytest.raises(FrozenInstanceError):
        before.budget_epsilon = 2.0


def test_equal_charges_merge_and_others_do_not():
    ledger = EMPTY.gaussian(1, 5, what="a").gaussian(1, 5, what="b").gaussian(1, 5, 3, what="a")
    assert [(c.what, c.count) for c in ledger.charges] == [("a", 4), ("b", 1)]
    assert ledger.spent == pytest.approx(EMPTY.gaussian(1, 5, 5).spent)
    steps = EMPTY.subsampled_gaussian(1.0, 0.01, 3).subsampled_gaussian(1.0, 0.01, 4).charges
    assert steps == (SubsampledGaussian(noise_multiplier=1.0, sample_rate=0.01, count=7),)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Ledger(0.0, 1e-5),
        lambda: Ledger(math.inf, 1e-5),
        lambda: Ledger(1.0, 0.0),
        lambda: EMPTY.gaussian(-1, 1),
        lambda: EMPTY.gaussian(1, -1),
        lambda: EMPTY.gaussian(1, 1, 0),
        lambda: EMPTY.gaussian(1, 1, True),
        lambda: EMPTY.gaussian(1, 1, what=3),
        lambda: EMPTY.subsampled_gaussian(1, 0.0, 1),
        lambda: EMPTY.subsampled_gaussian(1, 1.1, 1),
        lambda: EMPTY.subsampled_gaussian(1, 0.5, 0),
        lambda: EMPTY.bounded(1, 1.0),
        lambda: EMPTY.bounded(-1),
        lambda: EMPTY.concentrated(-0.1),
        lambda: EMPTY.laplace(1, -1),
        lambda: EMPTY.residual(-1, noise=1),
        lambda: EMPTY.epsilon(0.0),
        lambda: EMPTY.epsilon(1e-5, "zcdp"),
        lambda: EMPTY.epsilon(1e-5, "pld", 0),
        lambda: EMPTY.epsilon(1e-5, side="left"),
        lambda: EMPTY.delta(-1.0),
        lambda: EMPTY.delta(1.0, "zcdp"),
    ],
)
def test_values_out_of_range_are_refused(make):
    with pytest.raises(RequestError):
        make()


def test_a_delta_that_the_grid_does_not_resolve_is_not_guessed():
    ledger = EMPTY.subsampled_gaussian(1.0, 0.01, 10)
    with pytest.raises(MissingEvidence, match="resolve"):
        ledger.epsilon(1e-14)
    assert ledger.account(1e-14, "rdp").pld is None
    assert ledger.epsilon(1e-14, "rdp") > ledger.epsilon(1e-10, "rdp")
    assert EMPTY.gaussian(1, 5).epsilon(1e-30) > 0  # closed form: no grid
