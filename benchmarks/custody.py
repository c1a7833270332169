"""What custody costs: removing rows from the manifest of 1e6 rows of 50 numbers, against committing to the rest anew.

One thread, processor time. Both give the same root, which is checked. A proof costs a logarithm and is timed alone.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from expunge.audit.keys import KeyFolder
from expunge.audit.manifest import Manifest, commitments
from expunge.data.records import Records

ROWS, COLUMNS, OWNERS, GONE = 1_000_000, 50, 100_000, 8


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def main() -> None:
    generator = np.random.default_rng(0)
    records = Records(
        ids=np.array([f"row-{k}" for k in range(ROWS)]),
        columns={"x": generator.random((ROWS, COLUMNS)), "y": generator.integers(0, 2, ROWS)},
        owners=np.array([f"owner-{k % OWNERS}" for k in range(ROWS)]),
    )
    with tempfile.TemporaryDirectory() as scratch:
        keys = KeyFolder.make(Path(scratch) / "keys", "example.com")
        whole = Manifest.of(records, keys.owner_keys)
        gone = records.ids[:: ROWS // GONE].tolist()
        ids = [leaf[:32].tobytes() for leaf in commitments(records.select(gone), keys.held_keys)]

        def anew() -> bytes:
            return Manifest.of(records.without(gone), keys.held_keys).root

        def removed() -> Manifest:
            rest = whole.without(ids)
            _ = rest.root
            return rest

        slow, wanted = timed(anew)
        fast, rest = timed(removed)
        assert rest.root == wanted
        _ = whole.root
        proofs, _ = timed(lambda: [whole.membership(i) for i in ids] + [rest.non_membership(i) for i in ids])
    print(f"{ROWS} rows, {GONE} removed: committing to the rest anew {slow:.2f} s, removing them {fast:.2f} s")
    print(f"ratio {slow / fast:.1f}; {2 * GONE} proofs {1e3 * proofs:.2f} ms")


if __name__ == "__main__":
    main()
