"""A year of requests against a policy: which deadlines hold, what it costs, and how long data stays in force.

>>> from expunge.service.policy import Policy
>>> from expunge.service.simulate import Lognormal, Servers, Work, poisson_traffic, simulate
>>> traffic = poisson_traffic(1_000, days=90, seed=0)
>>> servers = Servers(workers=1, exact=Work(run=Lognormal(median=60.0, p95=90.0)))
>>> simulate(traffic, Policy(), servers, rule="batched", seed=0).in_time
1.0

Every name is resolved on first use: the command line reads its options here before it needs numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "Burst": "traffic",
    "Grid": "grid",
    "Lognormal": "servers",
    "Measured": "servers",
    "Outcome": "measure",
    "Rhythm": "traffic",
    "SIMULATED": "rules",
    "STEADY": "traffic",
    "Servers": "servers",
    "Study": "study",
    "Traffic": "traffic",
    "Work": "servers",
    "poisson_traffic": "traffic",
    "read_traffic": "recorded",
    "run_study": "study",
    "simulate": "simulation",
    "sweep": "grid",
}

__all__ = [
    "SIMULATED",
    "STEADY",
    "Burst",
    "Grid",
    "Lognormal",
    "Measured",
    "Outcome",
    "Rhythm",
    "Servers",
    "Study",
    "Traffic",
    "Work",
    "poisson_traffic",
    "read_traffic",
    "run_study",
    "simulate",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


if TYPE_CHECKING:
    from expunge.service.simulate.grid import Grid, sweep
    from expunge.service.simulate.measure import Outcome
    from expunge.service.simulate.recorded import read_traffic
    from expunge.service.simulate.rules import SIMULATED
    from expunge.service.simulate.servers import Lognormal, Measured, Servers, Work
    from expunge.service.simulate.simulation import simulate
    from expunge.service.simulate.study import Study, run_study
    from expunge.service.simulate.traffic import STEADY, Burst, Rhythm, Traffic, poisson_traffic
