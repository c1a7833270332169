"""The inverse of zero-concentrated charges."""

from __future__ import annotations

import pytest

from expunge.accounting.concentrated import largest_rho
from expunge.accounting.ledger import Ledger
from expunge.errors import RequestError


@pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-5), (1.0, 1e-5), (1.0, 1e-2), (8.0, 1e-9)])
def test_the_largest_rho_spends_the_budget_and_no_more(epsilon: float, delta: float) -> None:
    rho = largest_rho(epsilon, delta)
    assert rho > 0
    assert not Ledger(epsilon, delta).concentrated(rho).exhausted
    assert Ledger(epsilon, delta).concentrated(rho * (1 + 1e-6)).exhausted


def test_refuses_what_is_no_budget() -> None:
    with pytest.raises(RequestError):
        largest_rho(-1.0, 1e-5)
    with pytest.raises(RequestError):
        largest_rho(1.0, 0.0)
