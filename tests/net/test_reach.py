"""Peers find one another across hosts: address families, names, candidates, options."""

import shutil
from collections.abc import Callable

import pytest

from tests.e2e.world import Peer
from tests.net.namespaces import Host, Net, net
from tests.net.peers import TIMEOUT_S, working


def start(here: Net, addresses: list[tuple[Host, str]], **settings: object) -> list[Peer]:
    """One peer for each host and coordinator's address, named "a", "b", …"""
    count = len(addresses)
    return [
        here.peer(host, working, chr(ord("a") + i), address, min_peers=count, **settings)
        for i, (host, address) in enumerate(addresses)
    ]


def see_all_work(peers: list[Peer]) -> list[list[str]]:
    """Everybody reduces with everybody; then all stop. Returns what each advertised."""
    joined = [peer.told("joined") for peer in peers]
    names = [peer.name for peer in peers]
    for peer in peers:
        assert peer.told("view")["names"] == names
    peers[0].say("stop")
    for peer in peers:
        assert peer.told("over")["size"] == len(peers)
        assert peer.wait() == 0
    return [each["addresses"] for each in joined]


WAYS: dict[str, tuple[Callable[[Host], str], Callable[[Host], str]]] = {
    "IPv4": (lambda host: host.ipv4, lambda host: host.ipv4),
    "IPv6": (lambda host: f"[{host.ipv6}]", lambda host: f"[{host.ipv6}]"),
    "a name": (lambda _: "0.0.0.0", lambda host: host.name),
    "a name, over IPv6": (lambda host: f"[{host.ipv6}]", lambda host: host.name),
}


@pytest.mark.parametrize("way", WAYS)
def test_peers_join_by(way: str) -> None:
    bind, reach = WAYS[way]
    with net() as here:
        port = here.start_coordinator(here.hosts[0], f"{bind(here.hosts[0])}:0", TIMEOUT_S)
        address = f"{reach(here.hosts[0])}:{port}"

        see_all_work(start(here, [(host, address) for host in here.hosts]))


def test_a_dual_stack_coordinator_serves_both_families_in_one_group() -> None:
    with net() as here:
        a, b, c = here.hosts
        port = here.start_coordinator(a, "[::]:0", TIMEOUT_S)

        peers = start(
            here,
            [(a, f"127.0.0.1:{port}"), (b, f"{a.ipv4}:{port}"), (c, f"[{a.ipv6}]:{port}")],
        )

        see_all_work(peers)


@pytest.mark.parametrize("order", ["local first", "local last"])
def test_peers_that_come_by_loopback_work_with_those_of_other_hosts(order: str) -> None:
    with net() as here:
        a, b, c = here.hosts
        port = here.start_coordinator(a, "0.0.0.0:0", TIMEOUT_S)
        local = (a, f"127.0.0.1:{port}")
        remote = [(b, f"{a.ipv4}:{port}"), (c, f"{a.ipv4}:{port}")]

        both = [local, local, *remote] if order == "local first" else [*remote, local, local]
        advertised = see_all_work(start(here, both))

        for (host, _), addresses in zip(both, advertised, strict=True):
            assert any(address.startswith(f"{host.ipv4}:") for address in addresses)


def test_an_interface_limits_what_is_advertised() -> None:
    with net(2) as here:
        for index, host in enumerate(here.hosts):
            host.run("ip", "link", "add", "br1", "type", "bridge")
            host.run("ip", "address", "add", f"10.78.{index}.1/24", "dev", "br1")
            host.run("ip", "link", "set", "br1", "up")
        port = here.start_coordinator(here.hosts[0], "0.0.0.0:0", TIMEOUT_S)
        address = f"{here.hosts[0].ipv4}:{port}"

        peers = start(here, [(host, address) for host in here.hosts], interface="eth0")

        for addresses in see_all_work(peers):
            assert not any(each.startswith("10.78.") for each in addresses)


def test_what_is_to_be_advertised_is_advertised() -> None:
    with net(2) as here:
        a, b = here.hosts
        port = here.start_coordinator(a, "0.0.0.0:0", TIMEOUT_S)
        address = f"{a.ipv4}:{port}"
        peers = [
            here.peer(a, working, "a", address, min_peers=2, advertise=a.ipv6),
            here.peer(b, working, "b", address, min_peers=2, advertise=b.name),
        ]

        first, second = see_all_work(peers)

        assert first[0].startswith(f"[{a.ipv6}]:")
        assert any(each.startswith(f"{b.ipv4}:") for each in second)


@pytest.mark.skipif(shutil.which("nft") is None, reason="blocked candidates need nft, of nftables")
def test_a_candidate_that_swallows_packets_is_given_up_for_the_next() -> None:
    with net(2) as here:
        a, b = here.hosts
        port = here.start_coordinator(a, "0.0.0.0:0", 5.0)
        for host in here.hosts:
            host.run("nft", "add table inet cut")
            host.run("nft", "add chain inet cut input { type filter hook input priority 0 ; }")
            host.run("nft", "add rule inet cut input meta nfproto ipv6 drop")
        address = f"{a.ipv4}:{port}"
        peers = [
            here.peer(host, working, name, address, min_peers=2, advertise=[host.ipv6, host.ipv4])
            for host, name in ((a, "a"), (b, "b"))
        ]

        see_all_work(peers)
