"""What one language model said about some items, as recorded arrays and texts: all that a language metric may see.

An item is a prompt with an answer, or a text. Log-probabilities are teacher forced: token t of the answer given the
prompt and the true tokens before it; tokens of the prompt and padding are never among them. Whether a final
end-of-text token counts as a token of the answer is up to whoever records; it must be the same for all models compared.

Alternatives to an answer (a paraphrase, wrong answers) are items of their own, in `TextOutputs` of their own, with the
ids ``f"{id}#{k}"``; `alternatives` groups them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from expunge.errors import DataError, MissingEvidence, UnknownIds
from expunge.evaluation.metrics.checks import Floats

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

RAGGED = ("log_probs", "means", "deviations", "hits")
TEXTS = ("answers", "generated", "samples")
_METADATA = "text_outputs"
_ALTERNATIVE = re.compile(r"(?P<parent>.*)#(?P<number>\d+)", re.DOTALL)


@dataclass(frozen=True, kw_only=True, eq=False)
class TextOutputs:
    """What one model said about n items; arrays are ragged, one a item, and read-only.

    Args:
        ids: n unique names. log_probs: n arrays ``(tokens_i,)``, log p of each answer token in nats, at most 0; None of
            a model that answers in words only.
        means: n arrays ``(tokens_i,)``, mean of log p over the vocabulary under p (minus the entropy, nats).
        deviations: n arrays ``(tokens_i,)``, standard deviation of the same, at least 0.
        hits: n Boolean arrays ``(tokens_i,)``, true where the token is the most probable one.
        answers: the true answers. generated: one greedy generation an item.
        samples: k generations at temperature 1 an item, the same k for all.
        gradient_norms: ``(n,)`` Euclidean norm of the gradient of the item's mean loss.

    Raises:
        DataError: no items, an item without answer tokens, NaN, a log-probability above 0, lengths that differ.
    """

    ids: tuple[str, ...]
    log_probs: tuple[Array, ...] | None = None
    means: tuple[Array, ...] | None = None
    deviations: tuple[Array, ...] | None = None
    hits: tuple[Array, ...] | None = None
    answers: tuple[str, ...] | None = None
    generated: tuple[str, ...] | None = None
    samples: tuple[tuple[str, ...], ...] | None = None
    gradient_norms: Array | None = None

    def __post_init__(self) -> None:
        for name, value in _checked(self).items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def scored(self) -> tuple[Array, ...]:
        """`log_probs`.

        Raises:
            MissingEvidence: the model gave none.
        """
        if self.log_probs is None:
            raise MissingEvidence(
                "this model answers in words only, and gives no probabilities", "Look at what it says, or attack it"
            )
        return self.log_probs

    @cached_property
    def tokens(self) -> Ints:
        """(n,) number of answer tokens."""
        return np.array([len(row) for row in self.scored], dtype=np.int64)

    @cached_property
    def total(self) -> Floats:
        """(n,) summed negative log-likelihood of the answer, in nats, at least 0."""
        return np.array([-row.astype(np.float64).sum() for row in self.scored]) + 0.0

    @cached_property
    def nll(self) -> Floats:
        """(n,) mean negative log-likelihood over the answer tokens, in nats, at least 0."""
        return np.asarray(self.total / self.tokens, dtype=np.float64)

    def take(self, rows: Sequence[int] | Array) -> TextOutputs:
        """The items at these positions, in this order.

        Raises:
            DataError: no positions, or one that is taken twice.
        """
        index = np.asarray(rows, dtype=np.int64).tolist()
        chosen: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                picked = [value[k] for k in index]
                chosen[field.name] = np.array(picked) if field.name == "gradient_norms" else tuple(picked)
        return replace(self, **chosen)

    def select(self, ids: Iterable[str]) -> TextOutputs:
        """The items with these ids, in this order.

        Raises:
            UnknownIds: an id that was not recorded. DataError: no ids, or one that is taken twice.
        """
        wanted, place = list(ids), {name: row for row, name in enumerate(self.ids)}
        missing = [name for name in wanted if name not in place]
        if missing:
            raise UnknownIds("ids", missing, "the recorded outputs")
        return self.take([place[name] for name in wanted])

    def save(self, path: Path | str) -> None:
        """One safetensors file; equal contents give equal bytes. It holds the texts: keep it no longer than them."""
        from safetensors.numpy import save

        arrays: dict[str, Array] = {}
        if self.log_probs is not None:
            arrays["offsets"] = np.concatenate([[0], self.tokens.cumsum()]).astype(np.int64)
        for name in RAGGED:
            if getattr(self, name) is not None:
                arrays[name] = np.concatenate(getattr(self, name))
        if self.gradient_norms is not None:
            arrays["gradient_norms"] = np.ascontiguousarray(self.gradient_norms)
        # safetensors writes its metadata in random order: one key has but one order.
        texts = json.dumps({name: getattr(self, name) for name in ("ids", *TEXTS)})
        target = Path(path)
        partial = target.with_name(f"{target.name}.partial")
        partial.write_bytes(save(arrays, metadata={_METADATA: texts}))
        os.replace(partial, target)

    @classmethod
    def load(cls, path: Path | str) -> TextOutputs:
        """The inverse of `save`.

        Raises:
            DataError: not such a file, or a damaged one.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                kept = (file.metadata() or {})[_METADATA]
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            texts = json.loads(kept)
            found: dict[str, Any] = {}
            if not arrays.keys().isdisjoint(RAGGED):
                offsets = arrays.pop("offsets")
                found = {name: tuple(np.split(arrays.pop(name), offsets[1:-1])) for name in RAGGED if name in arrays}
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise DataError(f"{path} holds no recorded outputs: {error}", "Record the outputs again") from error
        return cls(**found, **texts, gradient_norms=arrays.get("gradient_norms"))


def concatenate(parts: Sequence[TextOutputs]) -> TextOutputs:
    """Batches of one model's outputs as one; a field must be recorded in all of them or in none.

    Raises:
        DataError: no parts, ids that repeat, or a field that only some parts recorded.
    """
    if not parts:
        raise DataError("there are no outputs to put together", "Record at least one batch")
    joined: dict[str, Any] = {}
    for field in fields(TextOutputs):
        values = [getattr(part, field.name) for part in parts]
        if any(v is None for v in values):
            if not all(v is None for v in values):
                raise DataError(f"only some batches recorded {field.name}", "Record the same fields in every batch")
        elif field.name == "gradient_norms":
            joined[field.name] = np.concatenate(values)
        else:
            joined[field.name] = tuple(item for value in values for item in value)
    return TextOutputs(**joined)


def alternatives(outputs: TextOutputs, parents: Collection[str] | None = None) -> dict[str, Ints]:
    """Parent id -> rows of its alternatives ``f"{parent}#{k}"``, by increasing k.

    Args:
        parents: ids that must have at least one alternative each, and beside which there may be no others; the result
            is in their order. None: whatever parents are found, in the order of their first alternative.

    Raises:
        DataError: an id that is no alternative, a parent without any, or an alternative to nothing.
    """
    found: dict[str, list[tuple[int, int]]] = {} if parents is None else {parent: [] for parent in parents}
    for row, name in enumerate(outputs.ids):
        match = _ALTERNATIVE.fullmatch(name)
        if match is None:
            raise DataError(f"{name!r} is not the id of an alternative", "Name alternatives ID#0, ID#1, …")
        if parents is not None and match["parent"] not in found:
            raise DataError(f"{name!r} is an alternative to an item that is not there", "Record the same items")
        found.setdefault(match["parent"], []).append((int(match["number"]), row))
    lonely = [parent for parent, rows in found.items() if not rows]
    if lonely:
        raise DataError(f"{len(lonely)} items have no alternatives, e.g. {lonely[0]!r}", "Record them for every item")
    return {parent: np.array([row for _, row in sorted(rows)], dtype=np.int64) for parent, rows in found.items()}


def _checked(outputs: TextOutputs) -> dict[str, Any]:
    ids = tuple(outputs.ids)
    if not ids:
        raise DataError("recorded outputs hold no items", "Record at least one item")
    if any(not isinstance(name, str) for name in ids) or len(set(ids)) < len(ids):
        raise DataError("ids must be unique strings", "Give each item a name of its own")
    result: dict[str, Any] = {"ids": ids}
    if outputs.log_probs is not None:
        result["log_probs"] = _ragged("log_probs", outputs.log_probs, ids, None)
    elif any(getattr(outputs, name) is not None for name in RAGGED[1:]):
        raise DataError("means, deviations or hits stand without log_probs", "Record log_probs as well")
    lengths = [len(row) for row in result.get("log_probs", ())]
    for name in RAGGED[1:]:
        if getattr(outputs, name) is not None:
            result[name] = _ragged(name, getattr(outputs, name), ids, lengths)
    for name in TEXTS:
        if getattr(outputs, name) is not None:
            result[name] = _texts(name, getattr(outputs, name), ids)
    if outputs.gradient_norms is not None:
        norms = np.asarray(outputs.gradient_norms)
        if norms.shape != (len(ids),) or norms.dtype.kind not in "fiu" or not np.isfinite(norms).all():
            raise DataError(f"gradient_norms must be {len(ids)} finite numbers", "Record one norm an item")
        if norms.min() < 0:
            raise DataError("gradient_norms holds a negative number", "Record Euclidean norms")
        result["gradient_norms"] = _frozen(norms.astype(np.result_type(norms, np.float32)))
    return result


def _ragged(name: str, rows: Any, ids: tuple[str, ...], lengths: list[int] | None) -> tuple[Array, ...]:
    if rows is None or len(rows) != len(ids):
        raise DataError(f"{name} must hold one array for each of {len(ids)} items", "Record every item")
    arrays = [np.asarray(row) for row in rows]
    wanted = "b" if name == "hits" else "f"
    for item, row in zip(ids, arrays, strict=True):
        if row.ndim != 1 or (row.size and row.dtype.kind != wanted):
            kind = "true or false" if wanted == "b" else "a floating-point number"
            raise DataError(f"{name} of {item!r} must be {kind} for each token", "Pass arrays (tokens,)")
        if not row.size:
            raise DataError(
                f"{item!r} has no answer tokens", "Leave it out, or mend the mask: an empty answer has no probability"
            )
        if wanted == "f" and not np.isfinite(row).all():
            raise DataError(f"{name} of {item!r} holds NaN or infinity", "Record in float32 from a log-softmax")
    if lengths is not None and [len(row) for row in arrays] != lengths:
        raise DataError(f"{name} and log_probs differ in the number of tokens", "Record both on the same tokens")
    if wanted == "b":
        return tuple(map(_frozen, arrays))
    dtype = np.result_type(np.float32, *arrays)
    if name == "deviations" and min(row.min() for row in arrays) < 0:
        raise DataError("deviations holds a negative number", "Record standard deviations")
    if name != "deviations" and max(row.max() for row in arrays) > 1e-4:
        raise DataError(f"{name} holds a number above 0", "Record natural logarithms of probabilities")
    # A log-softmax in float32 may end a rounding error above 0.
    return tuple(_frozen((row if name == "deviations" else np.minimum(row, 0.0)).astype(dtype)) for row in arrays)


def _texts(name: str, rows: Any, ids: tuple[str, ...]) -> tuple[Any, ...]:
    if isinstance(rows, str) or len(rows) != len(ids):
        raise DataError(f"{name} must hold one entry for each of {len(ids)} items", "Record every item")
    if name != "samples":
        if any(not isinstance(text, str) for text in rows):
            raise DataError(f"{name} must be texts", "Decode the tokens")
        return tuple(rows)
    if any(isinstance(row, str) or any(not isinstance(text, str) for text in row) for row in rows):
        raise DataError("samples must be several texts for each item", "Pass n tuples of k texts")
    counts = {len(row) for row in rows}
    if len(counts) > 1 or 0 in counts:
        raise DataError(f"items have between {min(counts)} and {max(counts)} samples", "Draw the same k ≥ 1 for all")
    return tuple(tuple(row) for row in rows)


def _frozen(row: Array) -> Array:
    view = np.ascontiguousarray(row).view()
    view.flags.writeable = False
    return view
