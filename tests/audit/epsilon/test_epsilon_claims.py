"""What a certificate promises for a game, and verdicts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from expunge.audit.epsilon.claims import Claim, claim_of, judge_one_run, judge_separation, rule_delta, weakest
from expunge.audit.epsilon.populations import Separation
from expunge.errors import RequestError
from expunge.guarantee import Certified, Empirical, Exact, Suppressed

CLAIM = Claim(points=((1.0, 0.01), (0.0, 0.3)))


def test_the_certificate_holds_against_retraining_and_twice_against_never_in() -> None:
    assert CLAIM.promised("retrained") == CLAIM.points
    doubled = CLAIM.promised("never_in")
    assert doubled[0] == pytest.approx((2.0, (1 + math.e) * 0.01)) and doubled[1] == pytest.approx((0.0, 0.6))
    assert CLAIM.promised("in_or_out") == ()
    assert CLAIM.promised("all_coins") == CLAIM.points
    private = Claim(points=CLAIM.points, private=True)
    assert private.promised("in_or_out") == CLAIM.points and private.promised("never_in") == doubled
    assert Claim(points=((800.0, 0.5),)).promised("never_in")[0] == (1600.0, 1.0)


def test_the_triangle_is_attained() -> None:
    """Three two-point releases, neighbours (ε, δ)-close: the outer two need twice the ε and all of the δ."""
    epsilon, delta = 0.5, 0.02
    reference = 0.1
    up = math.exp(epsilon) * reference + delta
    down = (reference - delta) / math.exp(epsilon)
    outer_epsilon, outer_delta = Claim(points=((epsilon, delta),)).promised("never_in")[0]
    assert up == pytest.approx(math.exp(outer_epsilon) * down + outer_delta)


def test_requests_that_look_are_covered_only_if_the_claim_says_so() -> None:
    assert CLAIM.promised("retrained", adaptive=True) == ()
    assert Claim(points=CLAIM.points, adaptive=True).promised("retrained", adaptive=True) == CLAIM.points


def test_one_sided_certificates_have_no_triangle_and_half_a_test() -> None:
    claim = Claim(points=CLAIM.points, one_sided=True)
    assert (
        claim.promised("never_in") == () and claim.promised("retrained") == claim.promised("all_coins") == CLAIM.points
    )
    likelier, rarer = counted(5, 900), counted(900, 5)
    for separation, outcome in ((likelier, "refuted"), (rarer, "not refuted")):
        found = judge_separation("x", separation, claim, ((1.0, 1e-5),), delta=0.0, confidence=0.95)
        assert found.outcome == outcome
        assert judge(separation, ((1.0, 1e-5),))[0] == "refuted"
    assert likelier.bound(1e-5, one_sided=True) == pytest.approx(likelier.bound(1e-5))
    assert counted(5, 995).bound(0.5, one_sided=True) == 0.0


def test_a_certificate_for_equal_noise_is_not_about_a_fit_on_fewer() -> None:
    claim = Claim(points=CLAIM.points, equal_noise=True)
    assert claim.promised("retrained") == () and claim.promised("never_in") == CLAIM.promised("never_in")


def test_words_become_claims() -> None:
    certified = claim_of(Certified(epsilon=2.0, delta=1e-6))
    assert certified is not None and certified.points == ((2.0, 1e-6),) and "2" in certified.words
    exact = claim_of(Exact(equality="bitwise"))
    assert exact is not None and exact.points == ((0.0, 0.0),)
    assert claim_of(Empirical()) is None and claim_of(Suppressed()) is None


def test_of_several_claims_the_weakest_is_held_against_them() -> None:
    other = Claim(points=((0.5, 0.02), (0.1, 0.1), (0.0, 0.2)))
    joined = weakest([CLAIM, other])
    assert joined is not None and joined.points == ((1.0, 0.02), (0.1, 0.3)) and weakest([]) is None


def test_a_rule_is_chosen_for_the_point_or_for_the_middle_of_the_profile() -> None:
    assert rule_delta(((1.0, 1e-5),)) == 1e-5 and rule_delta(CLAIM.points) == 0.15


def counted(false_positives: int, false_negatives: int, n: int = 1000) -> Separation:
    return Separation(
        false_positives=false_positives, negatives=n, false_negatives=false_negatives, positives=n, statistic=0
    )


def judge(separation: Separation, points: tuple[tuple[float, float], ...]) -> tuple[str, str]:
    claim = Claim(points=points) if points else None
    verdict = judge_separation("retrained", separation, claim, points, delta=1e-5, confidence=0.95)
    return verdict.outcome, verdict.line


def test_a_verdict_says_what_was_claimed_and_what_was_seen() -> None:
    outcome, line = judge(counted(100, 850), ((1.0, 1e-5),))
    assert outcome == "not refuted"
    assert line.startswith("retrained: claimed 1.00, observed at least 0.") and "(95%)" in line and "δ=1e-05" in line
    outcome, line = judge(counted(10, 700), ((1.0, 1e-5),))
    assert outcome == "refuted" and line.endswith(": refuted")


def test_any_point_of_a_profile_can_refute() -> None:
    seen = counted(350, 350)
    assert judge(seen, ((1.0, 1e-5),))[0] == "not refuted"
    outcome, line = judge(seen, ((1.0, 1e-5), (0.0, 0.11)))
    assert outcome == "refuted" and "at δ=0.11: claimed 0.00, at least" in line


def test_without_a_claim_nothing_is_refuted() -> None:
    outcome, line = judge(counted(0, 0), ())
    assert outcome == "no claim" and "nothing claimed for this game, observed at least 5." in line


def test_one_run_is_judged_by_either_form() -> None:
    points = ((1.0, 1e-5),)
    for joint, right, outcome in (
        (True, 60, "not refuted"),
        (True, 65, "refuted"),
        (False, 80, "not refuted"),
        (False, 82, "refuted"),
    ):
        verdict = judge_one_run(
            "one_run", right, 100, 100, Claim(points=points), points, joint=joint, delta=0.0, confidence=0.95
        )
        assert verdict.outcome == outcome, (joint, right)
        assert verdict.counts == {"right": right, "guesses": 100, "coins": 100}
        assert np.isfinite(verdict.as_dict()["observed"])
    certain = judge_one_run("x", 9, 9, 9, CLAIM, ((0.0, 1.0),), joint=True, delta=0.0, confidence=0.95)
    assert certain.outcome == "not refuted" and certain.observed == 0


def test_refuses_claims_that_are_none() -> None:
    for points in ((), ((-1.0, 0.1),), ((math.inf, 0.1),), ((1.0, 1.1),), ((math.nan, 0.0),)):
        with pytest.raises(RequestError):
            Claim(points=points)
