"""How long a year of requests takes to simulate: a million and ten million, against one request after the other.

    OMP_NUM_THREADS=1 python benchmarks/simulate.py [--requests 1000000,10000000] [--plain 200000] [--json OUT]

Drawing the traffic, its due dates, and every rule with its measures: processor seconds of one thread, the median of
three for up to a million requests. The plain loop is the simulation as one writes it first: Python over the requests in
turn, a `due_at` each, a heap of workers and one of what is pending. It is timed at fewer requests, at the same load of
the workers, and must find the same: both are compared request by request.
"""

from __future__ import annotations

import argparse
import heapq
import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from expunge.service.deadlines import due_at
from expunge.service.policy import Policy, Serving
from expunge.service.simulate.measure import measure
from expunge.service.simulate.rules import SIMULATED, serve
from expunge.service.simulate.servers import Draws, Lognormal, Servers, Work
from expunge.service.simulate.times import DAY, HOUR, from_moment, midnight, moment
from expunge.service.simulate.traffic import Traffic, poisson_traffic

REGIMES = {"gdpr": 0.6, "ccpa": 0.4}
SERVING = Serving(period_days=30, largest_batch=1000)
RULES = ("now", "batched", "periodic")


def servers(requests: int) -> Servers:
    """Four workers, and run times at which ``now`` keeps them busy four fifths of the year."""
    seconds = 0.8 * 4 * 365 * 86_400 / requests
    run = Lognormal(median=0.9 * seconds, p95=1.35 * seconds)
    return Servers(
        workers=4, exact=Work(run=run), approximate=Work(run=Lognormal(median=seconds / 10, p95=seconds / 5))
    )


def timed(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    seconds, found = [], None
    for _ in range(repeats):
        began = time.process_time()
        found = work()
        seconds.append(time.process_time() - began)
    return statistics.median(seconds), found


def quick(requests: int) -> dict[str, float]:
    """Seconds of each part."""
    repeats = 3 if requests <= 1_000_000 else 1
    policy, who = Policy(serving=SERVING), servers(requests)
    told: dict[str, float] = {}
    told["traffic"], traffic = timed(lambda: poisson_traffic(requests, regimes=REGIMES, seed=0), repeats)
    told["due dates"], due = timed(lambda: traffic.due(policy), repeats)
    for rule in SIMULATED:

        def one(rule: str = rule) -> Any:
            served = serve(rule, traffic, due, who, SERVING, seed=0)
            return measure(served, traffic, due, rule=rule, workers=4)

        told[rule], _ = timed(one, repeats)
    return told


# --- one request after the other --------------------------------------------------------------------------------------


def plain(rule: str, traffic: Traffic, policy: Policy, who: Servers) -> list[int]:
    """When each request is fulfilled."""
    regimes = [policy.regime(traffic.regimes[code]) for code in traffic.regime.tolist()]
    received = traffic.received.tolist()
    due = [moment(due_at(from_moment(at), regime)) for at, regime in zip(received, regimes, strict=True)]
    draws = Draws(who.exact, 0, "exact")
    free = [received[0]] * who.workers
    done = [0] * len(received)
    if rule == "now":
        for i, at in enumerate(received):
            start = max(at, free[0])
            done[i] = start + draws.next_duration(1)
            heapq.heapreplace(free, done[i])
        return done
    period, epoch = round(SERVING.period_days * DAY), midnight(SERVING.epoch)
    margin, most = round(SERVING.margin_hours * HOUR), SERVING.largest_batch
    if rule == "periodic":
        groups: dict[int, list[int]] = {}
        for i, at in enumerate(received):
            groups.setdefault(epoch - (epoch - at) // period * period, []).append(i)
        for window, members in sorted(groups.items()):
            members.sort(key=lambda i: (due[i], i))
            for k in range(0, len(members), most):
                batch = members[k : k + most]
                end = max(window, free[0]) + draws.next_duration(len(batch))
                heapq.heapreplace(free, end)
                for i in batch:
                    done[i] = end
        return done
    pending: list[tuple[int, int, int, int]] = []
    place, now = 0, received[0]
    while place < len(received) or pending:
        while place < len(received) and received[place] <= now:
            heapq.heappush(pending, (due[place], received[place], int(traffic.regime[place]), place))
            place += 1
        following = received[place] if place < len(received) else None
        if not pending:
            now = max(now, received[place])
            continue
        start_by = pending[0][0] - who.exact.p95(min(most, len(pending))) - margin
        begin = max(now, start_by)
        if following is not None and following <= begin:
            now = following
            continue
        at = max(begin, free[0])
        while place < len(received) and received[place] <= at:
            heapq.heappush(pending, (due[place], received[place], int(traffic.regime[place]), place))
            place += 1
        batch = [heapq.heappop(pending)[3] for _ in range(min(most, len(pending)))]
        end = at + draws.next_duration(len(batch))
        heapq.heapreplace(free, end)
        for i in batch:
            done[i] = end
        now = at
    return done


def compare(requests: int) -> dict[str, dict[str, float]]:
    """For each rule the seconds of both, traffic drawn before, due dates included; they must agree."""
    policy, who = Policy(serving=SERVING), servers(requests)
    traffic = poisson_traffic(requests, regimes=REGIMES, seed=0)
    told = {}
    for rule in RULES:
        slow, wanted = timed(lambda rule=rule: plain(rule, traffic, policy, who), 1)
        fast, found = timed(
            lambda rule=rule: serve(rule, traffic, traffic.due(policy), who, SERVING, seed=0).fulfilled, 3
        )
        if not np.array_equal(found, np.array(wanted)):
            raise SystemExit(f"{rule}: the two simulations differ")
        told[rule] = {"requests": requests, "plain_seconds": slow, "seconds": fast, "ratio": slow / fast}
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", default="1000000,10000000")
    parser.add_argument("--plain", type=int, default=200_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sizes = [int(n) for n in options.requests.split(",")]
    table = {n: quick(n) for n in sizes}
    print(f"{'seconds':<20}" + "".join(f"{n:>14,}" for n in sizes))
    for part in next(iter(table.values())):
        print(f"{part:<20}" + "".join(f"{table[n][part]:>14.2f}" for n in sizes))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"peak memory: {peak:.2f} GiB\n")
    ratios = compare(options.plain)
    print(f"{options.plain:,} requests, due dates included, same results")
    for rule, row in ratios.items():
        print(f"{rule:<20}{row['plain_seconds']:>10.2f} s plain{row['seconds']:>10.3f} s here{row['ratio']:>8.0f}×")
    if options.json is not None:
        document = {"parts": {str(n): parts for n, parts in table.items()}, "plain": ratios, "peak_gib": peak}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
