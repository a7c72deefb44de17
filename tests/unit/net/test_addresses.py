"""Which addresses a peer binds, advertises and tries."""

import socket

import pytest

from collect.config import Address
from collect.errors import CoordinatorUnreachable, InvalidArgument
from collect.net import addresses

LOCAL = Address("127.0.0.1", 5000)


def test_a_group_on_one_host_binds_loopback_only() -> None:
    assert addresses.bind_host(LOCAL, True, None) == "127.0.0.1"
    assert addresses.bind_host(Address("::1", 1), True, None) == "::1"
    assert addresses.bind_host(Address("10.0.0.1", 1), False, "lo") == "127.0.0.1"


def test_a_group_on_many_hosts_binds_all_addresses() -> None:
    bound = addresses.bind_host(LOCAL, False, None)

    assert bound == ("::" if addresses.has_ipv6() else "0.0.0.0")


def test_a_loopback_listener_advertises_itself_only() -> None:
    assert addresses.candidates("127.0.0.1", 7, ["10.0.0.1", "127.0.0.2"]) == ("127.0.0.1:7",)
    assert addresses.candidates("::1", 7, ["10.0.0.1"]) == ("[::1]:7",)


def test_a_loopback_listener_advertises_what_of_loopback_is_stated() -> None:
    stated = ["10.0.0.1", "127.0.0.2"]

    assert addresses.candidates("127.0.0.1", 7, stated, is_stated=True) == ("127.0.0.2:7",)
    assert addresses.candidates("127.0.0.1", 7, ["10.0.0.1"], is_stated=True) == ("127.0.0.1:7",)


def test_a_wildcard_listener_advertises_what_it_listens_to_best_first() -> None:
    hosts = ["10.0.0.1", "fd00::2", "10.0.0.1"]

    assert addresses.candidates("::", 7, hosts) == ("10.0.0.1:7", "[fd00::2]:7", "127.0.0.1:7")
    assert addresses.candidates("0.0.0.0", 7, hosts) == ("10.0.0.1:7", "127.0.0.1:7")


def test_candidates_are_limited_and_loopback_stays() -> None:
    found = addresses.candidates("::", 7, [f"10.0.0.{n}" for n in range(50)])

    assert len(found) == addresses.CANDIDATES_MAX
    assert found[-1] == "127.0.0.1:7"


def test_loopback_comes_first_within_a_host_and_not_at_all_between_hosts() -> None:
    found = ("10.0.0.1:7", "[fd00::2]:7", "127.0.0.1:7", "[::1]:7")

    assert addresses.for_neighbour(found, is_same_host=True) == (
        "127.0.0.1:7,[::1]:7,10.0.0.1:7,[fd00::2]:7"
    )
    assert addresses.for_neighbour(found, is_same_host=False) == "10.0.0.1:7,[fd00::2]:7"
    assert addresses.for_neighbour(("127.0.0.1:7",), is_same_host=False) == "127.0.0.1:7"


def test_a_list_that_is_too_long_for_the_core_is_cut_between_addresses() -> None:
    long = tuple(
        f"[fd00:1111:2222:3333:4444:5555:6666:{n:04x}%verylonginterfacename]:65535"
        for n in range(8)
    )

    joined = addresses.for_neighbour(long, is_same_host=False)

    assert len(joined) < addresses.ADDRESS_BYTES_MAX
    assert set(joined.split(",")) < set(long)


def test_this_hosts_addresses_are_found_by_interface() -> None:
    by_name = addresses.interface_addresses()

    assert "127.0.0.1" in by_name["lo"]
    assert addresses.local_hosts(LOCAL, "lo") == by_name["lo"]
    assert addresses.local_hosts(LOCAL, "127.0.0.1") == ["127.0.0.1"]
    assert not any(addresses.is_loopback(host) for host in addresses.local_hosts(LOCAL))


def test_an_unknown_interface_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InvalidArgument, match=r"interface 'nope9'.*lo \['127.0.0.1'"):
        addresses.local_hosts(LOCAL, "nope9")


def test_the_way_to_a_local_address_starts_there() -> None:
    assert addresses.source_address(LOCAL) == "127.0.0.1"


def test_names_are_resolved_and_unknown_ones_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Address("127.0.0.1", 5) in addresses.resolve(Address("localhost", 5))
    assert addresses.numeric_hosts(("10.1.2.3", "::1")) == ["10.1.2.3", "::1"]

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(CoordinatorUnreachable, match=r"'nobody\.invalid' does not resolve"):
        addresses.resolve(Address("nobody.invalid", 5))


def test_two_processes_of_a_host_have_one_id() -> None:
    assert addresses.host_id() == addresses.host_id()
    assert "/" in addresses.host_id()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_is_told_from_the_rest(host: str) -> None:
    assert addresses.is_loopback(host)
    assert not addresses.is_loopback("10.0.0.1")
    assert not addresses.is_loopback("localhost")
    assert addresses.is_wildcard("::")
    assert addresses.is_wildcard("0.0.0.0")
    assert not addresses.is_wildcard(host)
