"""Every way expunge refuses, as one tree. Each error names the cause and the remedy.

ExpungeError
├── RequestError              the request cannot be read or contradicts itself
│   ├── UnknownName           a method, metric, data set or attack that is not in the table
│   └── UnknownIds            record ids or owners that the data does not hold
├── DataError                 the records themselves cannot be used
│   ├── EmptyForgetSet
│   ├── EmptyRetainSet
│   ├── OverlappingSets
│   └── NonFiniteData
├── ModelError                the model does not fit the records or the method
│   ├── MissingRole           the method names a part (convolutions, a head) that the architecture lacks
│   └── ContextTooLong        a conversation is longer than the model reads at once
├── MissingEvidence           something the run needs was not kept: recipe, checkpoints, batch log
│   └── MissingReference      a metric was asked without the reference it compares with
├── NonFiniteLoss             training or unlearning diverged
├── NothingChanged            a method ended with the weights it was given
├── GuaranteeTooStrong        a result claims more than its method may
├── TamperedEvidence          a log, manifest, checkpoint or certificate is not what was signed
├── NoAccess                  an attack needs an access to the model that nobody has here
├── ServiceError              the control plane refuses; each has the HTTP status that says so
│   ├── NotSignedIn           no key, session or sign-in that is known and in force
│   ├── NotFound              no such thing, or none that the asker may know of
│   ├── NotAllowed            the role may not do this
│   ├── WrongState            the request is not in a state that allows it
│   ├── Conflict              it contradicts what is there: another writer, a cap, a hold, a guarantee out of reach
│   └── TooMany               more than the policy or a limit allows
└── RunError                  the run folder cannot be used: unwritable, of another request, damaged
    └── NotEnoughRoom         too little disk or time, found before starting
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ExpungeError(Exception):
    """Base of every refusal. ``str(error)`` reads "cause. remedy".

    Args:
        cause: what was expected and what was found.
        remedy: what the caller can do about it.
    """

    def __init__(self, cause: str, remedy: str) -> None:
        self.cause = cause.rstrip(". ")
        self.remedy = remedy.rstrip(". ")
        super().__init__(f"{self.cause}. {self.remedy}.")


class RequestError(ExpungeError):
    """The request cannot be read, or contradicts itself."""


class UnknownName(RequestError):
    """A name that is not in a table; the nearest names are suggested."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        remedy = f"Did you mean {', '.join(near)}" if near else f"Known: {', '.join(known)}"
        super().__init__(f"there is no {kind} named {name!r}", remedy)


class UnknownIds(RequestError):
    """Record ids, owners or labels that the data does not hold."""

    def __init__(self, kind: str, missing: Iterable[str], where: str = "the training records") -> None:
        self.missing = sorted(missing)
        shown = ", ".join(repr(i) for i in self.missing[:5]) + (", …" if len(self.missing) > 5 else "")
        super().__init__(
            f"{len(self.missing)} {kind} not found in {where}: {shown}",
            "Check the column that holds them, and that the records were not forgotten before",
        )


class DataError(ExpungeError):
    """The records cannot be used as they are."""


class EmptyForgetSet(DataError):
    """Nothing was selected to be forgotten."""

    def __init__(self) -> None:
        super().__init__("the forget set is empty", "Select at least one record by ids, owner or label")


class EmptyRetainSet(DataError):
    """Everything was selected, and the method needs something to keep."""

    def __init__(self, method: str) -> None:
        super().__init__(
            f"the retain set is empty and {method} needs one",
            "Forget fewer records, or delete the model: a model of nothing needs no unlearning",
        )


class OverlappingSets(DataError):
    """One record stands in two sets that must be disjoint."""

    def __init__(self, first: str, second: str, ids: Iterable[str]) -> None:
        shared = sorted(ids)
        super().__init__(
            f"{len(shared)} records are in both the {first} and the {second} set, e.g. {shared[0]!r}",
            "Make the sets disjoint: a record is either kept or forgotten",
        )


class NonFiniteData(DataError):
    """NaN or infinity in the features."""

    def __init__(self, column: str, ids: Iterable[str]) -> None:
        bad = list(ids)
        super().__init__(
            f"column {column!r} holds NaN or infinity in {len(bad)} records, e.g. {bad[0]!r}",
            "Impute or drop those records before training: a model of NaN forgets nothing",
        )


class ModelError(ExpungeError):
    """The model does not fit the records or the method."""


class MissingRole(ModelError):
    """The method edits a part by role, and this architecture has no such part."""

    def __init__(self, method: str, role: str, architecture: str) -> None:
        super().__init__(
            f"{method} edits {role}, and {architecture} has none",
            "Choose a method without that role (`expunge methods` lists what each one needs)",
        )


class ContextTooLong(ModelError):
    """A conversation and the room for its answer are more tokens than the model reads at once."""


class MissingEvidence(ExpungeError):
    """Something the run needs was not kept when the model was trained."""


class MissingReference(MissingEvidence):
    """A metric compares with a reference that is not there; it never returns a default instead."""

    def __init__(
        self,
        metric: str,
        reference: str,
        remedy: str = "Give the problem a recipe so that references can be trained, or ask for more of them",
    ) -> None:
        super().__init__(f"{metric} compares with {reference}, and there is none", remedy)


class NonFiniteLoss(ExpungeError):
    """The loss became NaN or infinite."""

    def __init__(self, what: str, step: int) -> None:
        super().__init__(
            f"the loss of {what} is not finite at step {step}", "Lower the learning rate or the weight of ascent"
        )


class NothingChanged(ExpungeError):
    """A method ended with the very weights it was given."""

    def __init__(
        self,
        method: str,
        remedy: str = "Raise its learning rate or number of steps; `do_nothing` is the control that may do this",
    ) -> None:
        super().__init__(f"{method} returned the model unchanged", remedy)


class GuaranteeTooStrong(ExpungeError):
    """A result claims a stronger guarantee than its method declares."""


class TamperedEvidence(ExpungeError):
    """A log, manifest, checkpoint, certificate or key is not what was written and signed."""


class RunError(ExpungeError):
    """A run folder cannot be used."""


class NotEnoughRoom(RunError):
    """Too little disk or time, found before starting."""


class NoAccess(ExpungeError):
    """An attack needs an access to the model that nobody has here: what it would show is withheld."""


class ServiceError(ExpungeError):
    """The control plane refuses. `status` is the HTTP status that says so."""

    status = 400


class NotSignedIn(ServiceError):
    """No key, session or sign-in that is known and in force; which of these it was is not told."""

    status = 401

    def __init__(self, cause: str = "the key or session is not known, or no longer in force") -> None:
        super().__init__(cause, "Give a key (`Authorization: Bearer exk_…`), or sign in again")


class NotFound(ServiceError):
    """No such thing, or none that the asker may know of: the two look alike."""

    status = 404

    def __init__(self, kind: str) -> None:
        super().__init__(f"there is no such {kind}", "Check the id, and that you may see it")


class NotAllowed(ServiceError):
    """The role may not do this."""

    status = 403


class WrongState(ServiceError):
    """The request is not in a state that allows it."""

    status = 409


class Conflict(ServiceError):
    """It contradicts what is there: another writer, a cap, a hold, a guarantee out of reach."""

    status = 409


class TooMany(ServiceError):
    """More than the policy or a limit allows."""

    status = 429
