"""The rules in force now: read again when the operator's files change, fewer when a request expires."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from expunge.boxed.classifier import Lesson
from expunge.boxed.requests import Requests, read_requests, request_files
from expunge.boxed.rules import Rules, make_rules
from expunge.errors import RequestError

log = logging.getLogger("expunge.box")
Signature = tuple[tuple[str, int, int, int], ...]
SETTLED_SECONDS = 0.1


def _now() -> datetime:
    return datetime.now(UTC)


class RuleBook:
    """Rules of a file or folder, kept up to date.

    A changed file takes effect as a whole or not at all: it is read, checked and compiled beside the rules in force,
    which one assignment then replaces. A malformed one changes nothing and is told once in the operator's log, without
    its contents. Files should be written under another name (one that begins with a dot) and renamed; a file whose
    bytes changed within the last tenth of a second is taken to be still in the writing and read at the next check.

    Args:
        path: file or folder. key: of the digests. clock: what time it is. lessons: for the parts that learn.

    Raises:
        RequestError: the files are malformed at the start: a box never starts without its rules.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        key: bytes,
        clock: Callable[[], datetime] = _now,
        lessons: Mapping[str, Lesson] | None = None,
    ) -> None:
        self.path, self._key, self._clock, self._lessons = Path(path), key, clock, dict(lessons or {})
        self._busy = threading.Lock()
        self._seen = self._signature()
        self._requests = read_requests(self.path)
        self._rules = self._compiled(self._requests)

    @property
    def requests(self) -> Requests:
        return self._requests

    def current(self) -> Rules:
        """The rules in force; those of requests that have expired are gone, whether or not a file changed."""
        rules = self._rules
        if rules.until is not None and self._clock() >= rules.until:
            with self._busy:
                if self._rules is rules:
                    self._rules = self._compiled(self._requests)
                    log.info("requests have expired: %d in force", len(self._rules.ids))
            return self._rules
        return rules

    def refresh(self) -> bool:
        """Look at the files, and take what has changed; whether anything has.

        Reads and compiles in the calling thread; the rules in force go on serving meanwhile.
        """
        with self._busy:
            try:
                seen = self._signature()
            except RequestError as error:
                self._refuse((), error)
                return False
            if seen == self._seen or _still_written(seen):
                return False
            try:
                requests = read_requests(self.path)
                if self._signature() != seen:  # changed while it was read: the next look sees it whole
                    return False
                rules = self._compiled(requests)
            except RequestError as error:
                self._refuse(seen, error)
                return False
            self._requests, self._rules, self._seen = requests, rules, seen
        log.info("requests read again: %d, of which %d in force", len(requests.requests), len(rules.ids))
        return True

    def _refuse(self, seen: Signature, error: RequestError) -> None:
        if seen != self._seen:
            log.error("the requests changed and cannot be used; the rules before stay in force. %s", error)
        self._seen = seen

    def _compiled(self, requests: Requests) -> Rules:
        return make_rules(requests, self._clock(), key=self._key, lessons=self._lessons)

    def _signature(self) -> Signature:
        found = []
        for file in request_files(self.path):
            try:
                stat = os.stat(file)
            except OSError:
                continue  # renamed since it was listed: the next look sees the outcome
            found.append((file.name, stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return tuple(found)


def _still_written(seen: Signature) -> bool:
    now = time.time()
    return any(0 <= now - mtime / 1e9 < SETTLED_SECONDS for _, mtime, _, _ in seen)


class FixedRules(RuleBook):
    """The rules of requests that stand in no file: of a box that was made from a forget set and lives in memory."""

    def __init__(self, requests: Requests, *, key: bytes, clock: Callable[[], datetime] = _now) -> None:
        self.path, self._key, self._clock, self._lessons = Path(), key, clock, {}
        self._busy = threading.Lock()
        self._seen: Signature = ()
        self._requests = requests
        self._rules = self._compiled(requests)

    def refresh(self) -> bool:
        """Nothing changes."""
        return False
