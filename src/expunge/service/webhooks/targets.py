"""Where a webhook may go: out, and nowhere inside.

Whoever may name a URL that a server calls may otherwise use the server to reach what only the server can reach: its
own machine, its network, the metadata service of its cloud. So the URL is read strictly, its name is resolved once,
every address behind it must be public, and the connection goes to the address that was checked, not to the name.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from expunge.errors import ExpungeError, RequestError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], list[str]]

LONGEST = 2000
LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
# every visible ASCII character but those that two readers of URLs may read differently
CHARACTERS = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
INSIDE = (
    "localhost",
    "local",
    "internal",
    "intranet",
    "lan",
    "home",
    "corp",
    "private",
    "arpa",
    "onion",
    "invalid",
    "test",
)
NAT64 = ipaddress.ip_network("64:ff9b::/96")
UNICAST = ipaddress.ip_network("2000::/3")
# IANA's special-purpose registries: what `is_global` knows of them differs from one Python to the next. The last one is
# public by number, and the inside of a cloud all the same.
_SPECIAL = """
0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
2001::/23 2001:db8::/32 3fff::/20
168.63.129.16/32
"""
SPECIAL = tuple(ipaddress.ip_network(text) for text in _SPECIAL.split())


class Unreachable(ExpungeError):
    """The name cannot be resolved now: try again later."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is let through.

    Args:
        ports: beside the scheme's own. development: also http, every port, and this machine; nothing else inside.
    """

    ports: Collection[int] = (443,)
    development: bool = False


@dataclass(frozen=True, kw_only=True)
class Target:
    """A URL that was read. path: with the query."""

    scheme: str
    host: str
    port: int
    path: str


def read_url(url: str, rules: Rules) -> Target:
    """A URL taken apart; nothing is resolved.

    Raises:
        RequestError: anything but https to a name or a plain public address. The URL is not repeated: it may hold a
            secret.
    """
    if not 1 <= len(url) <= LONGEST or not CHARACTERS.fullmatch(url):
        raise refused(f"it has more than {LONGEST} characters, or some that no URL has")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise refused("it cannot be read") from None
    if parts.scheme not in ("https", "http") or not url.lower().startswith(f"{parts.scheme}://"):
        raise refused("it does not start with https://")
    if parts.scheme == "http" and not rules.development:
        raise refused("only https is allowed")
    if "@" in parts.netloc or not parts.hostname:
        raise refused("it names a user, or no host")
    if "#" in url:
        raise refused("it has a fragment")
    port = port if port is not None else 443 if parts.scheme == "https" else 80
    if not rules.development and port not in rules.ports:
        raise refused("this port is not allowed")
    host = _host(parts.hostname, rules)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(scheme=parts.scheme, host=host, port=port, path=path)


def _host(host: str, rules: Rules) -> str:
    """A name of several labels, or an address in its usual form."""
    if ":" in host:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            raise refused("it has no address that can be read") from None
        if "%" in host:
            raise refused("it names an interface of this machine")
        check_address(address, rules)
        return str(address)
    host = host.removesuffix(".")
    labels = host.split(".")
    # 127.1, 0x7f.1, 0177.0.0.1 and 2130706433 are addresses to some resolvers: no name ends with such a label
    if re.fullmatch(r"0x[0-9a-f]*|\d+", labels[-1]):
        try:
            v4 = ipaddress.IPv4Address(host)
        except ValueError:
            raise refused("it has an address in an unusual form") from None
        check_address(v4, rules)
        return str(v4)
    if rules.development and host == "localhost":
        return host
    if len(host) > 253 or len(labels) < 2 or not all(LABEL.fullmatch(label) for label in labels):
        raise refused("its host is no name of the public network")
    if labels[-1] in INSIDE:
        raise refused("its host is a name inside a network")
    return host


def check_address(address: Address, rules: Rules) -> None:
    """
    Raises:
        RequestError: not an address of the public network.
    """
    plain = _unwrapped(address)
    if rules.development and plain.is_loopback:
        return
    if isinstance(plain, ipaddress.IPv6Address) and plain not in UNICAST:
        raise refused("its address is not public")
    special = any(plain.version == network.version and plain in network for network in SPECIAL)
    if special or not plain.is_global or plain.is_multicast or plain.is_reserved:
        raise refused("its address is not public")


def _unwrapped(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one, where there is one: it is what is reached in the end."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.sixtofour is not None:
        return address.sixtofour
    return address


def system_resolve(host: str, port: int) -> list[str]:
    """Addresses of a name, as the system knows them; host and port only."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def resolve_public(target: Target, rules: Rules, resolve: Resolve = system_resolve) -> str:
    """The address to connect to; asked for once.

    Raises:
        RequestError: one of the addresses behind the name is not public. Unreachable: there is none.
    """
    try:
        found = resolve(target.host, target.port)
        addresses = [ipaddress.ip_address(text) for text in found]
    except (OSError, ValueError, UnicodeError):
        raise Unreachable("the name cannot be resolved", "Check the name, or try again later") from None
    if not addresses:
        raise Unreachable("the name has no address", "Check the name, or try again later")
    for address in addresses:  # all: a name with one public and one private address is not trusted for half
        check_address(address, rules)
    return str(addresses[0])


def refused(why: str) -> RequestError:
    return RequestError(f"a webhook cannot go to this URL: {why}", "Give an https URL with a public host, without user")
