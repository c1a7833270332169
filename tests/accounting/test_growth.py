"""How ε grows with the number of requests: slopes about ½ and 1, and no bound where none is proved."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from expunge.accounting import gaussian
from expunge.accounting.growth import growth, repeated, slope
from expunge.accounting.ledger import Ledger
from expunge.accounting.plot import save_growth
from expunge.errors import RequestError

EMPTY = Ledger(1.0, 1e-5)
SMALL = EMPTY.gaussian(1.0, gaussian.sigma(0.01, 1e-5))


def test_slopes_of_the_gaussian_mechanism():
    slopes = growth(SMALL).slopes
    assert slopes["composition"] == pytest.approx(0.5, abs=0.08)
    assert slopes["composition_rdp"] == pytest.approx(0.5, abs=0.08)
    assert slopes["naive"] == pytest.approx(1.0, abs=0.12)
    assert slopes["group"] == pytest.approx(1.0, abs=0.15)
    assert slopes["group_published"] == pytest.approx(1.0, abs=1e-9)


def test_rows_are_what_the_ledger_says():
    table = growth(SMALL, (1, 3, 64))
    for row in table.rows:
        k = row.requests
        assert row.composition == pytest.approx(EMPTY.gaussian(1.0, SMALL.charges[0].noise, k).epsilon(), rel=1e-12)
        assert row.composition_rdp >= row.composition
        assert row.naive == pytest.approx(k * SMALL.epsilon(1e-5 / k), rel=1e-12)
        assert row.group == SMALL.epsilon(group=k)
        assert row.group_published == pytest.approx(k * SMALL.epsilon(), rel=1e-12)
        assert row.composition <= row.naive * (1 + 1e-9)
    assert table.rows[0].composition == table.rows[0].group == table.rows[0].naive == SMALL.spent


def test_where_mu_is_large_the_slopes_double():
    slopes = growth(EMPTY.gaussian(30.0, 1.0), (1, 4, 16, 64)).slopes
    assert slopes["composition"] == pytest.approx(1.0, abs=0.1)
    assert slopes["group"] == pytest.approx(2.0, abs=0.15)


def test_residuals_grow_linearly_and_compose_in_no_other_way():
    one = EMPTY.residual(EMPTY.residual_limit(2.0) / 100, noise=2.0)
    table = growth(one, (1, 10, 100))
    assert table.slopes["composition"] == pytest.approx(1.0, abs=0.15)
    assert table.rows[-1].composition == pytest.approx(1.0, rel=1e-6)
    assert all(row.naive is None and row.group is None and row.group_published is None for row in table.rows)
    assert repeated(EMPTY.gaussian(1, 9, 3), 5).charges == EMPTY.gaussian(1, 9, 15).charges
    assert repeated(one, 5).residual_spent() == pytest.approx(5 * one.residual_spent())


def test_dp_sgd_grows_too_and_large_mixtures_are_left_out():
    table = growth(EMPTY.subsampled_gaussian(6.0, 0.02, 5), (1, 4, 33))
    assert table.slopes["composition"] == pytest.approx(0.5, abs=0.15)
    assert table.rows[1].group > table.rows[1].composition
    assert table.rows[2].group is None and table.rows[2].group_published is not None


def test_a_delta_of_one_is_no_bound():
    last = growth(SMALL, (1, 5000)).rows[-1]
    assert last.group_published is None and last.group_published_delta is None and last.composition is not None


def test_by_renyi_where_there_is_no_pld():
    table = growth(EMPTY.concentrated(1e-5), (1, 10, 100))
    assert table.notion == "rdp" and table.slopes["composition"] == pytest.approx(0.5, abs=0.12)


def test_slope_is_least_squares_of_logarithms():
    assert slope([1, 10, 100], [2.0, 2.0 * 10**0.7, 2.0 * 100**0.7]) == pytest.approx(0.7)
    assert slope([1, 2], [None, 3.0]) is None and slope([1, 2], [0.0, 3.0]) is None


@pytest.mark.parametrize("requests", [(), (2, 1), (1, 1), (0, 1), (1.5,)])
def test_requests_must_rise(requests):
    with pytest.raises(RequestError):
        growth(SMALL, requests)


def test_what_does_not_grow_is_refused():
    with pytest.raises(RequestError, match="empty"):
        growth(EMPTY)
    with pytest.raises(RequestError, match="no finite"):
        growth(EMPTY.gaussian(1, 0))


@pytest.mark.parametrize("name", ["growth.png", "growth.svg"])
def test_the_plot_is_a_function_of_the_table(tmp_path, name):
    table = growth(SMALL, (1, 10, 100))
    one, two = save_growth(table, tmp_path / name), save_growth(table, tmp_path / f"two.{name[-3:]}")
    assert one.read_bytes() == two.read_bytes()
    if name.endswith("svg"):
        text = one.read_text()
        assert "requests k" in text and f"composition, slope {table.slopes['composition']:.2f}" in text
    other = save_growth(growth(SMALL, (1, 10, 200)), tmp_path / f"three.{name[-3:]}")
    assert other.read_bytes() != one.read_bytes()


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(RequestError, match="does not end in"):
        save_growth(growth(SMALL, (1, 2)), tmp_path / "growth.pdf")
    assert list(tmp_path.iterdir()) == []


def test_the_table_is_json():
    json.dumps(growth(SMALL, (1, 5000)).as_dict(), allow_nan=False)


def test_nothing_heavy_is_loaded():
    code = (
        "import sys, expunge.accounting.command;"
        "print([m for m in ('torch', 'sklearn', 'matplotlib', 'dp_accounting') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
