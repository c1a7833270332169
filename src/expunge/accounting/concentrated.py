"""How much zero-concentrated privacy loss a budget buys: the inverse of `Ledger.concentrated`."""

from __future__ import annotations

from functools import lru_cache

from expunge.accounting.ledger import Ledger


@lru_cache(maxsize=64)
def largest_rho(epsilon: float, delta: float) -> float:
    """The largest ρ for which Rényi divergences of at most ρα at every order α > 1 are (ε, δ). Rounded down.

    By the ledger's own conversion, so that a charge of it never exceeds the budget.

    Args:
        epsilon: nats, > 0. delta: probability in (0, 1).

    Raises:
        RequestError: a value out of range.
    """
    low, high = 0.0, epsilon  # ρ ≤ ε: the divergence of order 1 would be ρ, and ε is above it for every small δ
    for _ in range(60):
        middle = (low + high) / 2
        spent = Ledger(epsilon, delta).concentrated(middle).epsilon(notion="rdp")
        low, high = (middle, high) if spent <= epsilon else (low, middle)
    return low
