"""One call to a webhook: to the address that was checked, with a deadline, and without following anything."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

from expunge.errors import RequestError
from expunge.service.webhooks.targets import (
    Resolve,
    Rules,
    Target,
    Unreachable,
    read_url,
    resolve_public,
    system_resolve,
)

Dial = Callable[[str, int, float], socket.socket]
CONNECT_SECONDS = 5.0
WHOLE_SECONDS = 15.0
MOST_READ = 4096
# ValueError and AttributeError: a socket that was cut in the middle of something
FAULTS = (OSError, http.client.HTTPException, ValueError, AttributeError)
AGENT = "expunge-webhooks/1"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of a call.

    Args:
        status: of HTTP; None: no answer came. why: a word, where there was none: ``refused``, ``unresolved``,
            ``timeout``, ``certificate`` or ``connection``.
    """

    status: int | None
    why: str | None = None

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def _dial(address: str, port: int, seconds: float) -> socket.socket:
    return socket.create_connection((address, port), timeout=seconds)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Calls webhooks.

    Args:
        rules: which URLs. resolve: name -> addresses. dial: opens a connection to an address. context: of TLS; None:
            the system's certificates, host name checked. whole_seconds: of a call, answer included.
    """

    rules: Rules = field(default_factory=Rules)
    resolve: Resolve = system_resolve
    dial: Dial = _dial
    context: ssl.SSLContext | None = None
    connect_seconds: float = CONNECT_SECONDS
    whole_seconds: float = WHOLE_SECONDS

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send a JSON body; never raises because of what is at the other end.

        The URL is checked anew: rules may have changed since it was registered, and what its name means may too.
        Environment variables that name a proxy are not heeded: a proxy resolves names for itself.
        """
        try:
            target = read_url(url, self.rules)
            address = resolve_public(target, self.rules, self.resolve)
        except RequestError:
            return Answer(status=None, why="refused")
        except Unreachable:
            return Answer(status=None, why="unresolved")
        connection = _Pinned(target, address, self)
        late = threading.Event()

        def cut() -> None:
            late.set()
            connection.cut()

        # a timeout of a socket starts anew with each byte; this one does not
        timer = threading.Timer(self.whole_seconds, cut)
        timer.daemon = True
        timer.start()
        try:
            told = {"content-type": "application/json", "user-agent": AGENT, "connection": "close", **headers}
            connection.request("POST", target.path, body=body, headers=told)
            reply = connection.getresponse()
            with contextlib.suppress(*FAULTS):  # the status is what counts; the rest is read for politeness
                reply.read(MOST_READ)
            return Answer(status=reply.status)
        except ssl.SSLCertVerificationError:
            return Answer(status=None, why="certificate")
        except FAULTS as error:
            slow = late.is_set() or isinstance(error, TimeoutError)
            return Answer(status=None, why="timeout" if slow else "connection")
        finally:
            timer.cancel()
            connection.end()


@cache
def _tls() -> ssl.SSLContext:
    """The system's certificates, read once."""
    return ssl.create_default_context()


class _Pinned(http.client.HTTPConnection):
    """A connection whose name is in the certificate and in the Host header, and whose address was checked before."""

    def __init__(self, target: Target, address: str, caller: Caller) -> None:
        super().__init__(target.host, target.port, timeout=caller.connect_seconds)
        self.default_port = 443 if target.scheme == "https" else 80
        self._target, self._address, self._caller = target, address, caller
        self._open: socket.socket | None = None

    def connect(self) -> None:
        self._open = self._caller.dial(self._address, self._target.port, self._caller.connect_seconds)
        if self._target.scheme == "https":
            context = self._caller.context or _tls()
            secure = context.wrap_socket(self._open, server_hostname=self._target.host, do_handshake_on_connect=False)
            self._open = secure  # before the handshake, which may be slow on purpose too
            secure.do_handshake()
        self.sock = self._open

    def end(self) -> None:
        """Close it, however far it came."""
        self.close()
        if self._open is not None:
            self._open.close()

    def cut(self) -> None:
        """End it from another thread, whatever it waits for; the answer may have taken the socket over by then."""
        if self._open is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._open, socket.SHUT_RDWR)
