"""`expunge accounting`: what is printed, as text and as JSON."""

from __future__ import annotations

import json

import pytest

from expunge.accounting import gaussian
from expunge.accounting.command import accounting_command, make_accounting, mechanism_ledger
from expunge.accounting.ledger import Ledger
from expunge.errors import MissingEvidence, RequestError


def test_calibrated_noise_spends_the_epsilon_it_was_asked_for():
    for mechanism, options in (("gaussian", {}), ("subsampled_gaussian", {"sample_rate": 1.0, "count": 10})):
        ledger = mechanism_ledger(mechanism=mechanism, epsilon=0.8, **options)
        assert ledger.budget_epsilon == 0.8 and not ledger.exhausted
        assert ledger.spent == pytest.approx(0.8, rel=5e-3)
    assert mechanism_ledger(mechanism="laplace", epsilon=0.8, sensitivity=3).charges[0].scale == pytest.approx(3 / 0.8)


def test_given_noise_is_charged():
    assert mechanism_ledger(noise=5, sensitivity=2, count=3).charges == Ledger(1.0, 1e-5).gaussian(2, 5, 3).charges
    residual = mechanism_ledger(mechanism="residual", noise=10, sensitivity=0.1, count=4)
    assert residual.residual_spent() == pytest.approx(0.4) and residual.charges[0].count == 4
    dp_sgd = mechanism_ledger(mechanism="subsampled_gaussian", noise=1, sample_rate=0.5, count=3)
    assert dp_sgd.charges == Ledger(1.0, 1e-5).subsampled_gaussian(1, 0.5, 3).charges


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"noise": 1.0, "epsilon": 1.0},
        {"mechanism": "magic", "noise": 1.0},
        {"noise": 1.0, "sample_rate": 0.5},
        {"mechanism": "subsampled_gaussian", "noise": 1.0},
        {"mechanism": "subsampled_gaussian", "noise": 1.0, "sample_rate": 0.1, "sensitivity": 2.0},
        {"mechanism": "residual", "epsilon": 1.0},
        {"noise": 1.0, "delta": 0.0},
        {"noise": 1.0, "count": 0},
        {"epsilon": 0.0},
    ],
)
def test_options_that_do_not_belong_together(options):
    with pytest.raises(RequestError):
        mechanism_ledger(**options)


def test_every_accountant_that_has_a_bound():
    assert [a.notion for a in make_accounting(noise=5.0).accounts] == ["pld", "rdp", "gdp"]
    assert [a.notion for a in make_accounting(mechanism="laplace", noise=5.0).accounts] == ["pld", "rdp"]
    assert [a.notion for a in make_accounting(noise=5.0, notion="gdp").accounts] == ["gdp"]
    with pytest.raises(MissingEvidence):
        make_accounting(mechanism="laplace", noise=5.0, notion="gdp")
    assert make_accounting(noise=5.0, count=4).accounts[0].epsilon == gaussian.epsilon(1e-5, 5.0, 2.0)
    assert make_accounting(noise=5.0, group=4).accounts[0].epsilon == gaussian.epsilon(1e-5, 5.0, 4.0)


def test_json_is_one_document(capsys, tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text("epsilon: 0.5\ndelta: 1.0e-5\n")
    picture = tmp_path / "growth.svg"
    good = accounting_command(noise=5.0, requests=(1, 10), policy=policy, out=picture, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert good is False and told["policy"]["enough"] is False
    assert told["accounts"][0]["epsilon"] == gaussian.epsilon(1e-5, 5.0)
    assert [row["requests"] for row in told["growth"]["rows"]] == [1, 10]
    assert told["plot"] == str(picture) and picture.stat().st_size > 0
    assert Ledger.from_dict(told["ledger"]).spent == told["accounts"][0]["epsilon"]
    assert accounting_command(noise=10.0, policy=policy, as_json=True) is True
    told = json.loads(capsys.readouterr().out)
    assert told["growth"] is None and told["plot"] is None


def test_text_shows_the_table_and_the_slopes(capsys, tmp_path):
    policy = tmp_path / "policy.json"
    policy.write_text('{"epsilon": 1.0, "delta": 1e-5}')
    assert accounting_command(epsilon=0.01, requests=(), policy=policy) is True
    text = capsys.readouterr().out
    assert "requests k" in text and "log–log slope" in text and "0.55" in text
    assert "PLD: ε = 0.01 at δ = 1e-05" in text and "Enough: ε = 0.01" in text


def test_a_plot_needs_no_table_asked_for_but_a_known_format(tmp_path):
    with pytest.raises(RequestError, match="does not end in"):
        accounting_command(noise=5.0, out=tmp_path / "growth.pdf")
    accounting_command(noise=500.0, out=tmp_path / "growth.png", as_json=True)
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
