"""A model behind an OpenAI-compatible server, asked over plain HTTP: what is asked leaves this machine."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Literal
from urllib.parse import urlsplit

from expunge.errors import RequestError, RunError
from expunge.models.chat import Conversation, checked

TRY_AGAIN = frozenset({429, 500, 502, 503, 504})
LONGEST_WAIT_SECONDS = 60.0
LARGEST_REPLY = 32 * 2**20
HERE = ("localhost", "127.0.0.1", "::1")


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follow no redirection: the key would go to wherever it points."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def fault_of_address(url: str) -> str | None:
    """What is wrong with the address of an endpoint, in words."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return f"{url!r} is no http or https address"
    if parts.username or parts.password or parts.query:
        return "the address holds credentials or a query; give the key in an environment variable"
    if parts.scheme == "http" and parts.hostname not in HERE:
        return f"{parts.hostname} is not this machine: use https, or passages and key travel readable"
    return None


@dataclass(kw_only=True, eq=False)
class Endpoint:
    """A `ChatModel` that asks a server's ``/chat/completions``. No error, log or representation tells what was asked.

    Args:
        url: of the server, up to and with ``/v1``. name: of the model there. key_variable: environment variable that
            holds the key; it is read when asked and kept nowhere. timeout_seconds: for each answer.
        retries: further attempts where the server is busy or fails (429, 500, 502-504). wait_seconds: before the first
            of them, twice as long before each next one, unless the server says how long (``Retry-After``); at most 60.
        at_once: most conversations under way at a time. samples_by: ``n`` asks for several answers in one request, and
            again for those that the server left out; ``repeat`` sends a request an answer.
        asked: requests answered so far. sleep: waits.

    Raises:
        RequestError: an address without https that is not this machine, credentials in it, or a number out of range.
    """

    url: str
    name: str
    key_variable: str | None = None
    timeout_seconds: float = 60.0
    retries: int = 4
    wait_seconds: float = 0.5
    at_once: int = 4
    samples_by: Literal["n", "repeat"] = "n"
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    asked: int = field(default=0, init=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    capabilities = frozenset({"generate"})

    def __post_init__(self) -> None:
        fault = fault_of_address(self.url)
        if fault is not None:
            raise RequestError(fault, "Correct the address")
        if not self.name:
            raise RequestError("the endpoint's model has no name", "Name one that the server lists under /v1/models")
        if self.timeout_seconds <= 0 or self.retries < 0 or self.wait_seconds < 0 or self.at_once < 1:
            raise RequestError(
                "an endpoint's timeout, retries, wait or number at once is out of range",
                "timeout_seconds above 0, at_once from 1, the others from 0",
            )
        if self.samples_by not in ("n", "repeat"):
            raise RequestError(f"samples_by is {self.samples_by!r}", "Choose n or repeat")

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    def digest(self) -> str:
        """SHA-256 over address and name: which weights answer there, nobody here knows."""
        return hashlib.sha256(f"{self.url.rstrip('/')}\x00{self.name}".encode()).hexdigest()

    def chat(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int = 64,
        samples: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[list[str]]:
        """Answers to conversations, in their order; see `expunge.models.chat.ChatModel`.

        The seed is sent along; whether the server heeds it, and whether it then answers the same, is up to the server.

        Raises:
            RequestError: not a conversation, or the key's variable is empty. RunError: the server is not reached,
                refuses, stays busy, or does not answer in the known form.
        """
        for conversation in conversations:
            checked(conversation)
        body = {"model": self.name, "max_tokens": max_new_tokens, "temperature": temperature if samples else 0}

        def one(place: int) -> list[str]:
            messages = [dict(m) for m in conversations[place]]
            # each conversation has seeds of its own, wherever it stands among others that are asked at the same time
            return self._answers({**body, "messages": messages}, samples, seed + place * max(samples, 1))

        if len(conversations) < 2 or self.at_once == 1:
            return [one(k) for k in range(len(conversations))]
        with ThreadPoolExecutor(min(self.at_once, len(conversations))) as pool:
            return list(pool.map(one, range(len(conversations))))  # where one fails, those not under way are not sent

    def _answers(self, body: dict[str, Any], samples: int, seed: int) -> list[str]:
        if not samples:
            return self._ask({**body, "seed": seed})[:1]
        found: list[str] = []
        while len(found) < samples:
            more = {"n": samples - len(found)} if self.samples_by == "n" and samples - len(found) > 1 else {}
            found += self._ask({**body, **more, "seed": seed + len(found)})
        return found[:samples]

    def _ask(self, body: dict[str, Any]) -> list[str]:
        """The texts of all choices, one at least."""
        raw = self._post(json.dumps(body).encode())
        try:
            told = [choice["message"]["content"] for choice in json.loads(raw)["choices"]]
        except (ValueError, LookupError, TypeError):
            told = []
        if not told or not all(isinstance(text, str) for text in told):
            raise RunError(f"{self.host} did not answer as an OpenAI-compatible endpoint", "Check that url ends in /v1")
        with self._lock:
            self.asked += 1
        return [text.strip() for text in told]

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", **self._key()}
        address = f"{self.url.rstrip('/')}/chat/completions"
        for attempt in range(self.retries + 1):
            request = urllib.request.Request(address, data=body, headers=headers, method="POST")
            try:
                with urllib.request.build_opener(_Stay).open(request, timeout=self.timeout_seconds) as reply:
                    raw: bytes = reply.read(LARGEST_REPLY + 1)
            except urllib.error.HTTPError as error:  # its body may repeat what was sent: only the number is told
                told = error.headers.get("Retry-After") if error.headers else None
                error.close()
                if error.code not in TRY_AGAIN or attempt == self.retries:
                    raise RunError(
                        f"{self.host} answered with status {error.code}",
                        "Check url, name and key, or use a local model",
                    ) from None
                self.sleep(self._wait(attempt, told))
                continue
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", None) or type(error).__name__
                raise RunError(
                    f"cannot reach {self.host} ({reason})", "Check the address, or use a local model"
                ) from None
            if len(raw) > LARGEST_REPLY:
                raise RunError(f"{self.host} answered with more than {LARGEST_REPLY} bytes", "Check the address")
            return raw
        raise AssertionError("the last attempt returns or raises")

    def _wait(self, attempt: int, told: str | None) -> float:
        """Seconds before the next attempt: what the server says, where it says a number."""
        try:
            seconds = float(told) if told is not None else self.wait_seconds * 2.0**attempt
        except ValueError:  # a date
            seconds = self.wait_seconds * 2.0**attempt
        return min(max(seconds, 0.0), LONGEST_WAIT_SECONDS) if seconds == seconds else self.wait_seconds

    def _key(self) -> dict[str, str]:
        if self.key_variable is None:
            return {}
        value = os.environ.get(self.key_variable, "").strip()
        if not value or not value.isascii() or not value.isprintable():
            raise RequestError(
                f"the environment variable {self.key_variable} holds no usable key", "Set it, or leave key_variable out"
            )
        return {"Authorization": f"Bearer {value}"}
