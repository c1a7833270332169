"""Items that share users: a recommender made of counts, from which a user's pairs are subtracted."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import xlogy

from expunge.data.records import Array, Records
from expunge.errors import DataError, ModelError, RequestError
from expunge.methods.learner import Job, Learned, Learner, Part, State

Similarity = Literal["cosine", "jaccard", "llr"]
LARGEST = 2**31 - 1
TOTALS = "totals"


@dataclass(frozen=True, kw_only=True)
class Cooccurrence(Learner):
    """score(j) = Σ_{i in history} sim(i, j), with sim a function of C_ij = Σ_u 1[u has i] 1[u has j].

    ``cosine``: C_ij / √(C_ii C_jj). ``jaccard``: C_ij / (C_ii + C_jj − C_ij). ``llr``: Dunning's log-likelihood ratio
    of the 2 × 2 table of users with and without i and j, in nats, and 0 where the pair is rarer than chance.

    All counts are whole numbers and similarities are made of them when predicting, so that a user's pairs can be
    subtracted with no trace. To forget costs O(items of the user) rows of C, whether an interaction or a whole user
    goes. An item that a user holds by several records goes with the last of them.

    Paper: Cao & Yang, Towards Making Systems Forget with Machine Unlearning (IEEE S&P 2015), the LensKit study.

    Args:
        similarity: see above. neighbours: how many of the most similar items of each item in a history count, None for
            all. recommendations: k, how many items to recommend.
        buckets: into how many parts the rows of C are dealt, by item number.

    Raises:
        DataError: an item number is negative or beyond 2³¹ − 1. ModelError: histories that are not item numbers.

    This differs from the paper (code of the authors could not be found) in:
        1. An interaction was or was not; the paper's recommender, LensKit's, works on ratings. Sums of ratings have the
           same form; the mean that is subtracted from them would have to be kept as its sum and its count.
        2. Similarities are not stored. They are made of the counts when predicting, for the items of a history, so that
           a deletion costs none of them.
        3. Jaccard's index and Dunning's ratio (1993) besides the cosine; equal scores go by item number.
    """

    name: ClassVar[str] = "cooccurrence"
    summary: ClassVar[str] = "Recommend items that share users; a user's pairs are subtracted from whole counts"
    paper: ClassVar[str] = "Cao & Yang, IEEE S&P 2015"
    task: ClassVar[str] = "recommendation"

    similarity: Similarity = "cosine"
    neighbours: int | None = None
    recommendations: int = 10
    buckets: int = 64

    def __post_init__(self) -> None:
        if self.similarity not in get_args(Similarity):
            raise RequestError(
                f"cooccurrence has no similarity {self.similarity!r}",
                f"Choose one of {', '.join(get_args(Similarity))}",
            )
        if self.recommendations < 1 or self.buckets < 1 or (self.neighbours is not None and self.neighbours < 1):
            raise RequestError(
                "cooccurrence needs recommendations, buckets and neighbours (or None) of at least 1; got "
                f"{self.recommendations}, {self.buckets} and {self.neighbours}",
                "Correct its hyper-parameters",
            )

    def learn(self, records: Records, *, seed: int, job: Job) -> Learned:
        items = records.column("item")
        if items.ndim != 1 or items.min() < 0 or items.max() > LARGEST:
            raise DataError(
                f"column 'item' has shape {items.shape} and values from {items.min()} to {items.max()}, expected (n,) "
                f"numbers from 0 to {LARGEST}",
                "Number the items from 0; negative numbers pad histories",
            )
        known: dict[str, int] = {}
        users = np.array([known.setdefault(u, len(known)) for u in np.asarray(records.owners).tolist()])
        numbers, column = np.unique(items.astype(np.int32), return_inverse=True)
        has = sparse.csr_array((np.ones(len(users), np.int32), (users, column)), shape=(len(known), len(numbers)))
        has.data[:] = 1  # several records of a pair were added up
        together = (has.T @ has).tocsr()
        together.sort_indices()
        parts: dict[str, dict[str, Array]] = defaultdict(dict)
        for k, item in enumerate(numbers.tolist()):
            row = slice(together.indptr[k], together.indptr[k + 1])
            parts[self.bucket(item)][str(item)] = np.stack([numbers[together.indices[row]], together.data[row]])
        totals = {"items": np.stack([numbers, together.diagonal()]), "users": np.array([len(known)])}
        return Learned(parts={**parts, TOTALS: totals}, examples=len(records))

    def remove(self, state: State, ids: tuple[str, ...], *, job: Job) -> Learned:
        rows, item = state.rows, state.rows.column("item")
        going: dict[str, list[int]] = defaultdict(list)
        for k in rows.at(ids).tolist():
            going[str(np.asarray(rows.table.owners)[k])].append(k)
        counts: dict[int, Array] = {}

        def subtract(i: int, others: Array) -> None:
            row = counts.get(i)
            if row is None:
                row = counts[i] = state.parts[self.bucket(i)][str(i)].copy()
            row[1, np.searchsorted(row[0], others)] -= 1

        totals = {name: array.copy() for name, array in state.parts[TOTALS].items()}
        for user, positions in going.items():
            own = rows.of_owner(user)
            before = np.unique(item[own]).astype(np.int32)
            kept = np.unique(item[np.setdiff1d(own, positions)]).astype(np.int32)
            lost = np.setdiff1d(before, kept, assume_unique=True)
            for i in lost.tolist():
                subtract(i, before)
            if len(lost):
                for i in kept.tolist():
                    subtract(i, lost)
            totals["items"][1, np.searchsorted(totals["items"][0], lost)] -= 1
            totals["users"] -= not len(kept)
        totals["items"] = present(totals["items"])
        return Learned(parts=self.replace(state, counts, totals), examples=len(ids))

    def replace(self, state: State, counts: dict[int, Array], totals: Part) -> dict[str, Part]:
        """The parts with the rows of `counts` for the old ones; what is empty vanishes, as if it had never been."""
        parts = {**state.parts, TOTALS: totals}
        changed: dict[str, dict[str, Array]] = {}
        for i, row in counts.items():
            name = self.bucket(i)
            if name not in changed:
                changed[name] = dict(state.parts[name])
            row = present(row)
            if row.size:
                changed[name][str(i)] = row
            else:
                del changed[name][str(i)]
        for name, part in changed.items():
            if part:
                parts[name] = part
            else:
                del parts[name]
        return parts

    def bucket(self, item: int) -> str:
        return f"items {item % self.buckets}"

    def predict(self, state: State, x: Array) -> Array:
        """(n, recommendations) items, the best first, for (n, m) histories of items.

        Negative numbers pad on both sides: a history may be shorter than m, and −1 stands where no further item shares
        a user with the history. Items of the history are never recommended; unknown ones are passed over.
        """
        x = np.asarray(x)
        if x.ndim != 2 or not np.issubdtype(x.dtype, np.integer):
            raise ModelError(
                f"histories are {x.dtype} of shape {x.shape}, expected item numbers (n, m)",
                "Give one row of item numbers a user, padded with -1",
            )
        out = np.full((len(x), self.recommendations), -1, dtype=np.int64)
        similar: dict[int, tuple[Array, Array]] = {}
        for k, row in enumerate(x):
            history = np.unique(row[row >= 0])
            # Sorted histories give the same sum, to the last bit, for the same set of items.
            for i in history.tolist():
                if i not in similar:
                    similar[i] = self.similar(state, i)
            found = [similar[i] for i in history.tolist()]
            if not found:
                continue
            items, place = np.unique(np.concatenate([f[0] for f in found]), return_inverse=True)
            score = np.bincount(place, weights=np.concatenate([f[1] for f in found]), minlength=len(items))
            score[np.isin(items, history)] = 0.0
            best = np.lexsort((items, -score))[: self.recommendations]
            best = best[score[best] > 0]
            out[k, : len(best)] = items[best]
        return out

    def similar(self, state: State, item: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
        """Items that share users with `item`, itself left out, and their similarities to it.

        The `neighbours` most similar, the lowest number first among equals; nothing for an unknown item.
        """
        row = state.parts.get(self.bucket(item), {}).get(str(item))
        if row is None:
            return np.zeros(0, np.int32), np.zeros(0)
        numbers, users = state.parts[TOTALS]["items"]
        own = float(users[np.searchsorted(numbers, item)])
        others, both = row[:, row[0] != item]
        theirs = users[np.searchsorted(numbers, others)].astype(np.float64)
        value = similarity(
            self.similarity, both.astype(np.float64), own, theirs, float(state.parts[TOTALS]["users"][0])
        )
        if self.neighbours is not None:
            nearest = np.sort(np.lexsort((others, -value))[: self.neighbours])
            others, value = others[nearest], value[nearest]
        return others, value


def present(table: Array) -> Array:
    """(2, k) item numbers and counts without the counts of 0."""
    held = table[1] > 0
    return table if held.all() else np.ascontiguousarray(table[:, held])


def similarity(
    kind: Similarity, both: npt.NDArray[np.float64], one: float, other: npt.NDArray[np.float64], users: float
) -> npt.NDArray[np.float64]:
    """(k,) ≥ 0 of items with `other` users to an item with `one`, of which they share `both`, among all `users`."""
    if kind == "cosine":
        return np.asarray(both / np.sqrt(one * other))
    if kind == "jaccard":
        return np.asarray(both / (one + other - both))
    value = np.zeros_like(both)
    for count, row, column in (
        (both, one, other),
        (one - both, one, users - other),
        (other - both, users - one, other),
        (users - one - other + both, users - one, users - other),
    ):
        # A cell of 0 adds nothing, and its margin may be 0 too.
        value += xlogy(count, np.where(count > 0, count * users / np.maximum(row * column, 1), 1.0))
    return np.where(both * users > one * other, 2 * value, 0.0)
