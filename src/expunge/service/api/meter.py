"""Counts for Prometheus, in its text format (0.0.4), without anybody's name or id."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
MEDIA = "text/plain; version=0.0.4; charset=utf-8"


class Meter:
    """What one process has answered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[tuple[str, int], int] = defaultdict(int)
        self._buckets: dict[str, list[int]] = defaultdict(lambda: [0] * (len(BOUNDS) + 1))
        self._seconds: dict[str, float] = defaultdict(float)

    def count(self, operation: str, status: int, seconds: float) -> None:
        """An answer; operation: a name of the table, or ``none``."""
        with self._lock:
            self._answers[operation, status] += 1
            self._seconds[operation] += seconds
            place = next((k for k, bound in enumerate(BOUNDS) if seconds <= bound), len(BOUNDS))
            self._buckets[operation][place] += 1

    def lines(self) -> Iterator[str]:
        """The text format's."""
        with self._lock:
            answers, seconds = dict(self._answers), dict(self._seconds)
            buckets = {name: list(counts) for name, counts in self._buckets.items()}
        yield "# HELP expunge_http_requests_total Answers by endpoint and status."
        yield "# TYPE expunge_http_requests_total counter"
        for (operation, status), count in sorted(answers.items()):
            yield f'expunge_http_requests_total{{operation="{operation}",status="{status}"}} {count}'
        yield "# HELP expunge_http_request_seconds Time to answer."
        yield "# TYPE expunge_http_request_seconds histogram"
        for operation, counts in sorted(buckets.items()):
            total = 0
            for bound, count in zip((*map(str, BOUNDS), "+Inf"), counts, strict=True):
                total += count
                yield f'expunge_http_request_seconds_bucket{{operation="{operation}",le="{bound}"}} {total}'
            yield f'expunge_http_request_seconds_sum{{operation="{operation}"}} {seconds[operation]:.6f}'
            yield f'expunge_http_request_seconds_count{{operation="{operation}"}} {total}'


def gauge(name: str, help_: str, values: Mapping[str, float], label: str | None = None) -> Iterator[str]:
    """A gauge; values: by label, or one under an empty text."""
    yield f"# HELP {name} {help_}"
    yield f"# TYPE {name} gauge"
    for key, value in values.items():
        yield f'{name}{{{label}="{key}"}} {value}' if label else f"{name} {value}"
