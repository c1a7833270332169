"""How often somebody may ask: a bucket of tokens each, in this process, in bounded memory."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from pydantic import Field

from expunge.errors import TooMany
from expunge.request import Strict


class LimitsPart(Strict):
    """Limits of one process.

    Args:
        key_per_second, key_burst: of a key or session. address_per_second, address_burst: of a client's address.
        failures_per_minute: of an address that comes with keys that are not known. body_bytes: of a request.
        remembered: keys and addresses each.
    """

    key_per_second: float = Field(200.0, gt=0)
    key_burst: int = Field(400, ge=1)
    address_per_second: float = Field(400.0, gt=0)
    address_burst: int = Field(800, ge=1)
    failures_per_minute: float = Field(30.0, gt=0)
    body_bytes: int = Field(1_000_000, ge=1000)
    remembered: int = Field(20_000, ge=1)


class TooOften(TooMany):
    """Come back later.

    Args:
        seconds: until then.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = max(1, math.ceil(seconds))
        super().__init__("too many requests in a short time", f"Wait {self.seconds} s, and send them more slowly")


class Buckets:
    """A bucket a name: `burst` tokens, filled up again at `per_second`.

    Args:
        remembered: names; beyond, the one not seen for longest is forgotten, and its bucket would be full by then or
            soon. tick: seconds that only grow.
    """

    def __init__(
        self, per_second: float, burst: float, *, remembered: int, tick: Callable[[], float] = time.monotonic
    ) -> None:
        self.per_second, self.burst, self.remembered, self._tick = per_second, burst, remembered, tick
        self._held: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def take(self, name: str, *, tokens: float = 1.0) -> None:
        """
        Raises:
            TooOften: there are not so many left.
        """
        now = self._tick()
        with self._lock:
            left = self._left(name, now)
            if left < tokens:
                raise TooOften((tokens - left) / self.per_second)
            self._put(name, left - tokens, now)

    def _left(self, name: str, now: float) -> float:
        held, at = self._held.get(name, (float(self.burst), now))
        return min(float(self.burst), held + max(0.0, now - at) * self.per_second)

    def _put(self, name: str, left: float, now: float) -> None:
        self._held[name] = (left, now)
        self._held.move_to_end(name)
        while len(self._held) > self.remembered:
            self._held.popitem(last=False)


class Limits:
    """The buckets of a process."""

    def __init__(self, part: LimitsPart, *, tick: Callable[[], float] = time.monotonic) -> None:
        self.part = part
        many = part.remembered
        self.keys = Buckets(part.key_per_second, part.key_burst, remembered=many, tick=tick)
        self.addresses = Buckets(part.address_per_second, part.address_burst, remembered=many, tick=tick)
        tries = part.failures_per_minute
        self.failures = Buckets(tries / 60, tries, remembered=many, tick=tick)
