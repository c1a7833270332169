"""A year of requests against a policy: which deadlines hold, what it costs, and how long data stays in force.

>>> from expunge.service.policy import Policy
>>> from expunge.service.simulate import Servers, Lognormal, Work, poisson_traffic, simulate
>>> traffic = poisson_traffic(1_000, days=90, regimes={"gdpr": 1.0}, seed=0)
>>> quick = Servers(workers=1, exact=Work(run=Lognormal(median=60.0, p95=90.0)))
>>> simulate(traffic, Policy(), quick, rule="batched", seed=0).in_time
1.0
"""

from __future__ import annotations

from expunge.service.simulate.grid import Grid, sweep
from expunge.service.simulate.measure import Outcome
from expunge.service.simulate.recorded import read_traffic
from expunge.service.simulate.servers import Lognormal, Measured, Servers, Work
from expunge.service.simulate.simulation import simulate
from expunge.service.simulate.traffic import Burst, Rhythm, Traffic, poisson_traffic

__all__ = [
    "Burst",
    "Grid",
    "Lognormal",
    "Measured",
    "Outcome",
    "Rhythm",
    "Servers",
    "Traffic",
    "Work",
    "poisson_traffic",
    "read_traffic",
    "simulate",
    "sweep",
]
