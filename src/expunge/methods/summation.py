"""Sums that forget: a model that is a function of G_k = Σ_i g_k(x_i, y_i) forgets by G_k − g_k(x, y).

The one idea of Cao & Yang, "Towards Making Systems Forget with Machine Unlearning" (IEEE S&P 2015). It gives the bytes
of a fresh fit only where a sum does not depend on its order, and sums of floating-point numbers do. Here a real feature
is written as an integer multiple of a fixed step, the integer in three digits to the base 2²⁴ and its square in six; a
sum of digits is a sum of small integers, exact in any order, and subtraction undoes addition bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from expunge.data.records import Array
from expunge.errors import DataError

BITS = 24
BASE = float(2**BITS)
VALUE_DIGITS, SQUARE_DIGITS = 3, 6
STEP = 2.0**-36

# Rows worked on at once: intermediate results of a few hundred kilobytes stay in the cache.
CELLS = 1 << 15

Sums = npt.NDArray[np.int64]
Terms = Callable[[Array], Array]
"""(rows, d) features -> (k, rows, d) float64 integers, each at most 2²⁵ in absolute value."""


def chunks(rows: int, width: int, cells: int = CELLS) -> Iterator[slice]:
    """Slices that cover `rows` rows of `width` numbers, about `cells` numbers each."""
    size = max(1, cells // max(1, width))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def flat(x: Array) -> Array:
    """(n, d) of (n, ...)."""
    return x.reshape(len(x), int(np.prod(x.shape[1:])))


def class_count(y: Array, declared: int) -> int:
    """Classes of a model of labels `y`: as many as are `declared` by name, and at least one more than the largest."""
    return max(declared, int(y.max()) + 1 if len(y) else 0)


def class_sums(terms: Terms, x: Array, y: Array, classes: int) -> Sums:
    """(classes, k, d) int64: Σ of ``terms(x)`` (n, d) over the rows of each class; exact, whatever the order.

    A class is summed by multiplying with indicators. All numbers are integers, and a chunk's sums stay below 2²⁵ times
    the rows of a chunk, far below 2⁵³, so that the product is exact in any order of its additions.
    """
    x = flat(x)
    total: Sums | None = None
    for part in chunks(len(x), x.shape[1]):
        found = terms(x[part].astype(np.float64))
        indicator = (y[part] == np.arange(classes)[:, None]).astype(np.float64)
        sums = np.matmul(indicator, found).astype(np.int64).transpose(1, 0, 2)
        total = sums if total is None else total + sums
    if total is None:
        raise DataError("there are no rows to sum", "Give at least one")
    return total


def row_sums(terms: Terms, x: Array) -> Sums:
    """(k, d) int64: Σ of ``terms(x)`` over all rows; of rows to be forgotten, what must be subtracted."""
    x = flat(x)
    total = np.zeros((), dtype=np.int64)
    for part in chunks(len(x), x.shape[1]):
        total = total + terms(x[part].astype(np.float64)).sum(axis=1).astype(np.int64)
    return total


def check_range(x: Array, step: float) -> None:
    """Refuse features that are too large to be written in multiples of `step`.

    Raises:
        DataError: an absolute value is not below 2⁷² steps.
    """
    limit = step * BASE**VALUE_DIGITS
    for part in chunks(len(x), int(np.prod(x.shape[1:]))):
        largest = float(np.abs(x[part].astype(np.float64)).max(initial=0.0))
        if not largest < limit:
            raise DataError(
                f"a feature is {largest:g} in absolute value, and multiples of {step:g} are kept up to {limit:g}",
                "Raise `step`, or scale the features",
            )


def value_digits(x: Array, step: float) -> Array:
    """(3, n, d) float64: the digits of round(x / step), ties to even, to the base 2²⁴, lowest first, with x's sign."""
    rest = np.abs(np.rint(x * (1.0 / step)))
    out = np.empty((VALUE_DIGITS, *x.shape))
    for k in (2, 1):
        out[k] = np.floor(rest * BASE**-k)
        rest -= out[k] * BASE**k
    out[0] = rest
    return np.copysign(out, x, out=out)


def square_digits(x: Array, step: float) -> Array:
    """(9, n, d) float64: `value_digits` and after them the six digits of round(x / step)², lowest first."""
    out = np.empty((VALUE_DIGITS + SQUARE_DIGITS, *x.shape))
    out[:VALUE_DIGITS] = value_digits(x, step)
    a, b, c = out[:VALUE_DIGITS]
    carry = np.zeros_like(x)
    # Three products of 48 bits and a carry are below 2⁵³: every line is exact.
    for k, product in enumerate((a * a, 2 * a * b, 2 * a * c + b * b, 2 * b * c, c * c)):
        product += carry
        np.floor(product * (1 / BASE), out=carry)
        product -= carry * BASE
        out[VALUE_DIGITS + k] = product
    out[-1] = carry
    return out


def whole(digits: Sums) -> npt.NDArray[Any]:
    """The integers of Python, of any length, whose digits are (..., k, d): (..., d) objects."""
    total = np.zeros(digits.shape[:-2] + digits.shape[-1:], dtype=object)
    for k in range(digits.shape[-2]):
        total = total + digits[..., k, :].astype(object) * 2 ** (BITS * k)
    return total
