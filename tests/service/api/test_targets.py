"""Where a webhook may go, and where not."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.errors import RequestError
from expunge.service.webhooks.targets import (
    Rules,
    Unreachable,
    check_address,
    read_url,
    resolve_public,
    system_resolve,
)

RULES = Rules()
INSIDE = [
    "http://example.com/",  # no TLS
    "HTTP://EXAMPLE.COM/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com:70/_",
    "https:example.com/",
    "//example.com/",
    "example.com",
    "",
    "https://",
    "https:///path",
    "https://localhost/",
    "https://LOCALHOST/",
    "https://localhost./",
    "https://api.localhost/",
    "https://printer.local/",
    "https://db.internal/",
    "https://metadata.google.internal/computeMetadata/v1/",
    "https://intranet/",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://127.0.1/",
    "https://127.255.255.254/",
    "https://0.0.0.0/",
    "https://0/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0177.0.0.1/",
    "https://127.0.0.0x1/",
    "https://127.000.000.001/",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.168.1.1/",
    "https://100.64.0.1/",
    "https://100.100.100.200/latest/meta-data/",
    "https://169.254.169.254/latest/meta-data/",
    "https://168.63.129.16/machine",
    "https://192.0.0.192/opc/v2/",
    "https://198.18.0.1/",
    "https://192.0.2.1/",
    "https://224.0.0.1/",
    "https://239.255.255.250/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::ffff:169.254.169.254]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b:1::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[2001:0:53aa:64c:0:f7ff:80ff:fffe]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[2606:2800:220:1::1%25eth0]/",
    "https://[2606:2800:220:1::1%eth0]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",
    "https://[ff02::1]/",
    "https://[2001:db8::1]/",
    "https://[::1",
    "https://[1::2::3]/",
    "https://user@example.com/",
    "https://user:secret@example.com/",
    "https://example.com@127.0.0.1/",
    "https://127.0.0.1#@example.com/",
    "https://example.com#fragment",
    "https://example.com:22/",
    "https://example.com:8443/",
    "https://example.com:0/",
    "https://example.com:65536/",
    "https://example.com:x/",
    "https://example.com\\@127.0.0.1/",
    "https://example.com/\r\nHost: inside",
    "https://example.com/ x",
    " https://example.com/",
    "https://exam\tple.com/",
    "https://ⓔⓧample.com/",
    "https://127。0。0。1/",
    "https://-a.example.com/",
    "https://a_b.example.com/",
    "https://example..com/",
    "https://" + "a" * 64 + ".com/",
    "https://example.com/" + "a" * 2000,
    "https://example.com/{x}",
]


@pytest.mark.parametrize("url", INSIDE)
def test_nothing_inside_is_called(url: str) -> None:
    with pytest.raises(RequestError) as refused:
        resolve_public(read_url(url, RULES), RULES, lambda host, port: ["93.184.216.34"])
    assert len(url) < 5 or url not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("https://example.com", "example.com", 443, "/"),
        ("https://EXAMPLE.com:443/a/b?c=d", "example.com", 443, "/a/b?c=d"),
        ("https://example.com./x", "example.com", 443, "/x"),
        ("https://93.184.216.34/x", "93.184.216.34", 443, "/x"),
        ("https://[2606:2800:220:1::1]/x", "2606:2800:220:1::1", 443, "/x"),
        ("https://xn--bcher-kva.example.com/", "xn--bcher-kva.example.com", 443, "/"),
        ("https://example.com/a%2Fb/@me", "example.com", 443, "/a%2Fb/@me"),
    ],
)
def test_public_addresses_are_read(url: str, host: str, port: int, path: str) -> None:
    target = read_url(url, RULES)
    assert (target.host, target.port, target.path) == (host, port, path)


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.1.2.3"],
        ["169.254.169.254"],
        ["::1"],
        ["fe80::1%eth0"],
        ["::ffff:10.0.0.1"],
        ["93.184.216.34", "10.0.0.1"],
        ["10.0.0.1", "93.184.216.34"],
        ["168.63.129.16"],
        ["64:ff9b::a9fe:a9fe"],
    ],
)
def test_a_public_name_for_an_address_inside_is_refused(addresses: list[str]) -> None:
    with pytest.raises(RequestError):
        resolve_public(read_url("https://example.com/", RULES), RULES, lambda host, port: addresses)


def test_an_address_of_an_ipv6_network_that_translates_is_taken_for_what_it_reaches() -> None:
    target = read_url("https://example.com/", RULES)
    assert resolve_public(target, RULES, lambda host, port: ["64:ff9b::5db8:d822"]) == "64:ff9b::5db8:d822"


def test_a_name_without_an_address_may_be_tried_later() -> None:
    def nothing(host: str, port: int) -> list[str]:
        raise socket.gaierror("no such name")

    target = read_url("https://example.com/", RULES)
    for resolve in (nothing, lambda host, port: [], lambda host, port: ["not an address"]):
        with pytest.raises(Unreachable):
            resolve_public(target, RULES, resolve)


def test_the_system_resolves_this_machine() -> None:
    assert set(system_resolve("localhost", 443)) & {"127.0.0.1", "::1"}


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/x", "http://localhost:9/", "https://[::1]:8443/", "http://example.com:8080/"]
)
def test_development_lets_this_machine_through(url: str) -> None:
    read_url(url, Rules(development=True))


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/",
        "http://169.254.169.254/",
        "http://u@localhost/",
        "http://192.168.0.1:80/",
        "ftp://localhost/",
    ],
)
def test_development_lets_nothing_else_inside_through(url: str) -> None:
    with pytest.raises(RequestError):
        read_url(url, Rules(development=True))


def test_other_ports_where_they_are_allowed() -> None:
    assert read_url("https://example.com:8443/", Rules(ports=(443, 8443))).port == 8443


@settings(deadline=None, max_examples=200)
@given(
    st.one_of(
        st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address), st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)
    )
)
def test_what_is_let_through_is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    try:
        check_address(address, RULES)
    except RequestError:
        return
    assert address.is_global
    assert not (address.is_private or address.is_loopback or address.is_link_local or address.is_multicast)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1))
def test_an_ipv4_address_in_ipv6_is_judged_as_itself(number: int) -> None:
    plain = ipaddress.IPv4Address(number)

    def lets(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        try:
            check_address(address, RULES)
        except RequestError:
            return False
        return True

    assert lets(ipaddress.IPv6Address(f"::ffff:{plain}")) == lets(plain)
    assert lets(ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | number)) == lets(plain)


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for url in (text, f"https://{text}", f"https://example.com{text}"):
        try:
            target = read_url(url, RULES)
        except RequestError:
            continue
        assert target.port == 443
        assert target.scheme == "https"
