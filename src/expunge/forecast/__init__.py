"""What exact forgetting will cost, before anything is trained.

>>> from expunge.forecast import forecast
>>> round(forecast(rows=10_000, shards=20, requests=8, batch=True).speedup, 2)
2.97
"""

from __future__ import annotations

from expunge.forecast.layout import Layout
from expunge.forecast.outlook import Forecast, forecast

__all__ = ["Forecast", "Layout", "forecast"]
