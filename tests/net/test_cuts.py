"""Links that go silent: the cut-off peer is expelled, the others go on, and it comes back."""

import shutil
import signal
import time

import pytest

from tests.e2e.world import Peer
from tests.net.namespaces import Net, net
from tests.net.peers import TIMEOUT_S, working

EXPELLED_S = 4 * TIMEOUT_S  # the silence, the reports, and a machine that is busy
needs_nft = pytest.mark.skipif(
    shutil.which("nft") is None, reason="one-way loss and cut pairs need nft, of nftables"
)


def found(here: Net, count: int = 3) -> list[Peer]:
    """A coordinator on the first host, and a peer on each, at work."""
    port = here.start_coordinator(here.hosts[0], "0.0.0.0:0", TIMEOUT_S)
    address = f"{here.hosts[0].ipv4}:{port}"
    names = [chr(ord("a") + index) for index in range(count)]
    peers = [
        here.peer(host, working, name, address, min_peers=count)
        for host, name in zip(here.hosts, names, strict=True)
    ]
    for peer in peers:
        peer.told("joined")
    for peer in peers:
        assert peer.told("view")["names"] == names
    return peers


def finish(peers: list[Peer]) -> list[list[list[str]]]:
    """All stop; the events that each saw."""
    peers[0].say("stop")
    events = [peer.told("over")["events"] for peer in peers]
    assert [peer.wait() for peer in peers] == [0] * len(peers)
    return events


def test_a_peer_whose_link_is_cut_is_expelled_and_joins_again_when_it_heals() -> None:
    with net() as here:
        a, b, c = found(here)

        begin_s = time.monotonic()
        here.hosts[2].cut()
        for peer in (a, b):
            assert peer.told("view")["names"] == ["a", "b"]
        took_s = time.monotonic() - begin_s
        here.hosts[2].heal()
        assert "joined" not in c.told("fenced")
        c.say("join again")
        c.told("joined")
        for peer in (a, b, c):
            assert peer.told("view")["names"] == ["a", "b", "c"]
        events = finish([a, b, c])

        assert 0.5 * TIMEOUT_S < took_s < EXPELLED_S
        for seen in events[:2]:
            assert ["LOST", "c"] in seen
            assert ["JOINED", "c"] in seen


def test_the_coordinators_host_is_cut_off_and_the_others_wait_for_it() -> None:
    """Its peer and the others suspect one another; whoever reaches the coordinator goes on."""
    with net() as here:
        a, b, c = found(here)

        here.hosts[0].cut()
        assert a.told("view")["names"] == ["a"]
        here.hosts[0].heal()
        for peer in (b, c):
            assert "no member any more" in peer.told("fenced")["text"]
            peer.say("join again")
        for peer in (b, c):
            peer.told("joined")
        for peer in (a, b, c):
            while peer.told("view")["names"] != ["a", "b", "c"]:
                pass  # they need not enter together
        finish([a, b, c])


@needs_nft
def test_a_peer_that_hears_nobody_but_is_heard_is_settled_within_the_timeout() -> None:
    """Packets to c vanish, those from c arrive: acknowledgements, too, are lost, so both notice."""
    with net() as here:
        a, b, c = found(here)

        here.hosts[2].drop_from(*here.hosts[:2])
        begin_s = time.monotonic()
        for peer in (a, b):
            assert peer.told("view")["names"] == ["a", "b"]
        assert time.monotonic() - begin_s < EXPELLED_S
        here.hosts[2].filter_nothing()
        c.told("fenced")
        c.say("join again")
        c.told("joined")
        for peer in (a, b, c):
            assert peer.told("view")["names"] == ["a", "b", "c"]
        finish([a, b, c])


@needs_nft
def test_a_silent_cut_between_two_peers_that_reach_the_coordinator_costs_one_of_them() -> None:
    """The members dial anew; when that fails, one of the two is expelled, and the rest goes on."""
    with net() as here:
        a, b, c = found(here)

        here.hosts[2].drop_from(here.hosts[1])
        here.hosts[1].drop_from(here.hosts[2])
        begin_s = time.monotonic()
        while len(names := a.told("view")["names"]) == 3:
            pass
        took_s = time.monotonic() - begin_s

        assert names in (["a", "b"], ["a", "c"])
        assert took_s < 4 * EXPELLED_S
        stayer, loser = (b, c) if "b" in names else (c, b)
        assert loser.told("fenced")["text"]
        assert stayer.told("view")["names"] == names
        here.hosts[2].filter_nothing()
        here.hosts[1].filter_nothing()
        loser.say("join again")
        loser.told("joined")
        for peer in (a, b, c):
            assert peer.told("view")["names"] == ["a", "b", "c"]
        finish([a, b, c])


@needs_nft
def test_a_broken_connection_between_two_living_peers_is_opened_anew() -> None:
    """Reset once, reachable again at once: nobody is expelled."""
    with net() as here:
        a, b, c = found(here)

        here.hosts[2].reset_from(here.hosts[1])
        time.sleep(0.1)
        here.hosts[2].filter_nothing()
        time.sleep(2 * TIMEOUT_S)
        events = finish([a, b, c])

        for seen in events:
            assert not any(kind in ("LOST", "FENCED") for kind, _ in seen)
        assert any(kind == "FROZEN" for kind, _ in events[0])


def test_a_short_cut_is_bridged() -> None:
    """Short is what TCP's first retransmissions outlast: after 0.2, 0.6 and 1.4 s they come again,
    so a cut of a third of a timeout may leave a whole timeout's silence."""
    with net() as here:
        peers = found(here)

        here.hosts[1].cut()
        time.sleep(0.05 * TIMEOUT_S)
        here.hosts[1].heal()
        time.sleep(TIMEOUT_S)
        events = finish(peers)

        for seen in events:
            assert not any(kind in ("LOST", "FENCED") for kind, _ in seen)


def test_a_death_on_another_host_is_noticed_at_once() -> None:
    with net() as here:
        a, b, c = found(here)

        begin_s = time.monotonic()
        c.kill(signal.SIGKILL)
        for peer in (a, b):
            assert peer.told("view")["names"] == ["a", "b"]

        assert time.monotonic() - begin_s < 0.8 * TIMEOUT_S
        for seen in finish([a, b]):
            assert ["LOST", "c"] in seen
