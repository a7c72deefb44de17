"""The coordinator's death and return, embedded coordinators, and strangers at the ports."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zmq

import collect
from collect.config import Address, parse_address
from collect.net.zmq_bus import routing_id
from collect.wire.codec import encode
from collect.wire.messages import Commit, Leave
from tests.e2e.world import (
    ROOT,
    TIMEOUT_S,
    Stage,
    World,
    alone,
    child_environment,
    error_fields,
    world,
)

SERVE = """
import sys, logging
logging.basicConfig(level=logging.INFO)
from collect.net.coordinator import CoordinatorService
service = CoordinatorService(sys.argv[1], timeout=float(sys.argv[2]), state_path=sys.argv[3])
service.run(lambda address: print(address, flush=True))
"""


def serve(address: str, state: Path) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, address, str(TIMEOUT_S), str(state)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=child_environment(),
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def stop(process: subprocess.Popen[str], number: int) -> int:
    process.send_signal(number)
    status = process.wait()
    assert process.stdout is not None
    process.stdout.close()
    return status


def going_on(stage: Stage) -> None:
    """Reduces until everybody has said stop; tells when the coordinator goes and comes."""
    with stage.join() as group:
        stage.tell("joined")
        count = 0
        while True:
            is_last = stage.name == "a" and stage.stop_was_said()
            result = group.all_reduce(np.array([1.0, float(is_last)]), timeout=30)
            count += 1
            for event in group.events():
                if event.kind.name.startswith("COORDINATOR") and stage.name == "a":
                    stage.tell(event.kind.name, count=count)
            if result.array[1]:
                break
        stage.tell("over", participants=sorted(result.participants), attempts=result.attempts)


def test_operations_go_on_without_the_coordinator_and_joins_when_it_is_back(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state"
    coordinator, address = serve("127.0.0.1:0", state)
    with alone(address) as here:
        peers = here.team(going_on, 2)
        for peer in peers:
            peer.told("joined")

        stop(coordinator, signal.SIGKILL)
        lost = peers[0].told("COORDINATOR_LOST")
        coordinator, same = serve(address, state)
        back = peers[0].told("COORDINATOR_BACK")
        peers.append(here.peer(going_on, "c"))
        peers[2].told("joined")
        peers[0].say("stop")

        assert same == address
        assert back["count"] > lost["count"] > 0
        for peer in peers:
            assert peer.told("over")["participants"] == ["a", "b", "c"]
            assert peer.wait() == 0
    assert stop(coordinator, signal.SIGINT) != 0
    assert state.read_text().split()[-1] == "2"


def abandoned(stage: Stage) -> None:
    with stage.join() as group:
        stage.tell("joined")
        stage.hear()
        array = np.ones(1000)
        try:
            group.all_reduce(array, timeout=1.0)
        except collect.PeerLost as error:
            stage.tell("lost", **error_fields(error))
        assert (array == 1.0).all()


def test_a_death_without_a_coordinator_is_an_error_that_names_both(tmp_path: Path) -> None:
    coordinator, address = serve("127.0.0.1:0", tmp_path / "state")
    with alone(address) as here:
        a, b = here.team(abandoned, 2)
        a.told("joined")
        b.told("joined")
        stop(coordinator, signal.SIGKILL)
        b.kill()
        assert b.wait() == -signal.SIGKILL

        a.say()

        lost = a.told("lost")
        assert lost["peer"] == "b"
        assert address in lost["text"]
        assert a.wait() == 0


def test_a_peer_that_does_not_fit_is_refused_with_the_reason() -> None:
    with world() as here, collect.join(here.address, name="a", group="g"):
        with pytest.raises(collect.JoinRefused, match="mode auto, not manual"):
            collect.join(here.address, name="b", group="g", admit="manual")
        with pytest.raises(collect.JoinFailed, match="not let in"):
            collect.join(here.address, name="c", group="other", min_peers=2, join_timeout=0.5)


def where(stage: Stage) -> None:
    arguments = stage.settings["arguments"]
    with stage.join(**arguments) as group:
        own = group.peers[group.rank].addresses
        result = group.all_reduce(np.ones(1000))
        stage.tell("over", sum=float(result.array[0]), own=own)


@pytest.mark.parametrize(
    ("bound", "host", "arguments", "own"),
    [
        ("127.0.0.1:0", "localhost", {}, ["127.0.0.1"]),
        ("[::1]:0", "[::1]", {}, ["[::1]"]),
        ("[::]:0", "127.0.0.1", {"interface": "lo"}, ["127.0.0.1"]),
        ("[::]:0", "[::1]", {"advertise": "127.0.0.1"}, ["127.0.0.1"]),
        ("0.0.0.0:0", "127.0.0.1", {}, None),
        ("127.0.0.1:0", "127.0.0.1", {"algorithm": "ring", "streams": 2}, ["127.0.0.1"]),
        ("127.0.0.1:0", "127.0.0.1", {"algorithm": "star", "chunk_bytes": 64}, ["127.0.0.1"]),
    ],
)
def test_peers_meet_over_every_kind_of_address_and_setting(
    bound: str, host: str, arguments: dict[str, str], own: list[str] | None
) -> None:
    with world(bound) as here:
        here.address = f"{host}:{parse_address(here.address).port}"
        peers = here.team(where, 3, arguments=arguments)

        for peer in peers:
            told = peer.told("over")
            assert told["sum"] == 3.0
            assert own is None or [text.rpartition(":")[0] for text in told["own"]] == own


def embedding(stage: Stage) -> None:
    with collect.join(name="a", timeout=TIMEOUT_S, min_peers=1) as group:
        stage.tell("listens", address=group.address)
        result = group.all_reduce(np.ones(10))
        while result.array[0] < 2:
            result = group.all_reduce(np.ones(10))
        # The partner may have left by now.
        stage.tell("over", names=sorted(result.participants))
        stage.hear()


def test_a_peer_without_an_address_runs_a_coordinator_that_others_can_join() -> None:
    with alone("") as here:
        a = here.peer(embedding, "a")
        with alone(a.told("listens")["address"]) as there:
            b = there.peer(partner, "b")
            b.told("over")

            assert a.told("over")["names"] == ["a", "b"]
            assert b.wait() == 0
            a.say()
            assert a.wait() == 0


def partner(stage: Stage) -> None:
    with stage.join() as group:
        group.all_reduce(np.ones(10))
        stage.tell("over")


def test_nobody_at_the_address_is_told_in_time() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        with pytest.raises(collect.CoordinatorUnreachable, match=address):
            collect.join(address, join_timeout=0.5)


# ---- strangers -----------------------------------------------------------------------------------


def at_port(address: Address, data: bytes) -> None:
    """Sends bytes and waits until the other side hangs up, or has had them for a moment."""
    with socket.create_connection((address.host, address.port), 5) as connection:
        connection.settimeout(2)
        # It may hang up as soon as it has seen enough, at any of these.
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        except OSError:
            pass


GREETING = b"\xff" + bytes(7) + b"\x01\x7f\x03\x00NULL" + bytes(16) + b"\x00" + bytes(31)
RAW: dict[str, bytes] = {
    "http": b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n" + b"A" * 200,
    "zeros": bytes(1000),
    "noise": secrets.token_bytes(4000),
    "nothing": b"",
    "half a greeting": GREETING[:20],
    "a greeting and noise": GREETING + secrets.token_bytes(500),
}
STRANGER = 4711
SPOKEN: dict[str, tuple[bytes, bytes, str]] = {
    "no peer's identity": (b"someone", b"hello", "no peer's"),
    "not msgpack": (routing_id(STRANGER), b"\xc1" * 50, "no msgpack"),
    "a truncated message": (routing_id(STRANGER), b"\x93\x01", "no msgpack"),
    "another version": (routing_id(STRANGER), b"\x92\x63\x01", "version"),
    "an unknown kind": (routing_id(STRANGER), b"\x92\x01\x63", "kind"),
    "too large for the codec": (routing_id(STRANGER), b"\x91" * (2 << 20), "too large"),
    "a coordinator's message": (routing_id(STRANGER), encode(Commit(1)), "not a peer's"),
    "a message in another's name": (routing_id(STRANGER), encode(Leave(12, 1)), "another peer"),
}


def speak(address: str, identity: bytes, *payloads: bytes) -> None:
    """Sends messages as a well-behaved connection would."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.ROUTING_ID, identity)
        dealer.setsockopt(zmq.LINGER, 5000)
        dealer.connect(f"tcp://{address}")
        for payload in payloads:
            dealer.send(payload)


def working(stage: Stage) -> None:
    with stage.join() as group:
        me = group.peers[group.rank]
        epoch = group.epoch
        stage.tell("joined", data=me.addresses)
        refused = 0
        while True:
            is_last = stage.name == "a" and stage.stop_was_said()
            result = group.all_reduce(np.array([1.0, float(is_last)]), timeout=30)
            refused += sum(event.kind.name == "REFUSED" for event in group.events())
            if result.array[1]:
                break
        assert result.epoch == epoch
        stage.tell("over", refused=refused, attempts=result.attempts)


def finish(here: World) -> list[int]:
    here.peers[0].say("stop")
    told = [peer.told("over") for peer in here.peers]
    assert [each["attempts"] for each in told] == [1, 1]
    assert [peer.wait() for peer in here.peers] == [0, 0]
    return [each["refused"] for each in told]


@pytest.mark.parametrize("kind", RAW)
def test_garbage_at_the_coordinators_port_is_refused_without_effect(kind: str) -> None:
    with world() as here:
        for peer in here.team(working, 2):
            peer.told("joined")

        at_port(parse_address(here.address), RAW[kind])

        here.wait_for_log("refused")
        finish(here)


@pytest.mark.parametrize("kind", SPOKEN)
def test_a_wrong_message_is_refused_with_a_reason_and_without_effect(kind: str) -> None:
    identity, payload, reason = SPOKEN[kind]
    with world() as here:
        for peer in here.team(working, 2):
            peer.told("joined")

        speak(here.address, identity, payload)

        assert reason in here.wait_for_log("refused")
        finish(here)


def test_oversized_and_replayed_messages_have_no_effect() -> None:
    with world() as here:
        for peer in here.team(working, 2):
            peer.told("joined")

        speak(here.address, routing_id(STRANGER), bytes(5 << 20))
        leave = encode(Leave(STRANGER, 1))
        speak(here.address, routing_id(STRANGER), leave, leave, leave)
        speak(here.address, routing_id(STRANGER), leave)

        finish(here)


HELLO = b"COL1\x01\x01"
DATA_GARBAGE: dict[str, Callable[[], bytes]] = {
    "http": lambda: b"GET / HTTP/1.1\r\n\r\n" + b"A" * 100,
    "zeros": lambda: bytes(64),
    "noise": lambda: os.urandom(3000),
    "a hello with a wrong checksum": lambda: HELLO + bytes(90),
    "half a header": lambda: HELLO + bytes(20),
    "a header that promises a lot": lambda: HELLO + bytes(34) + b"\xff\xff\xff\xff" + bytes(60),
}


@pytest.mark.parametrize("kind", DATA_GARBAGE)
def test_garbage_at_a_data_port_is_refused_without_effect(kind: str) -> None:
    with world() as here:
        peers = here.team(working, 2)
        data = [peer.told("joined")["data"][0] for peer in peers]

        at_port(parse_address(data[1]), DATA_GARBAGE[kind]())
        is_refused = kind != "half a header"
        deadline_s = time.monotonic() + 10
        while is_refused and "refused on the data port" not in "".join(peers[1].said):
            assert time.monotonic() < deadline_s, "nothing was refused"
            time.sleep(0.01)

        refused = finish(here)
        assert refused[0] == 0
        assert refused[1] >= is_refused
