"""The coordinator's port on loopback: a bare peer's side of the conversation."""

import asyncio
import socket
import threading
from pathlib import Path

import pytest

from collect.config import Address, parse_address
from collect.errors import InvalidArgument
from collect.net import greeting
from collect.net.coordinator import CoordinatorService
from collect.net.loop_thread import LoopThread, is_process_ending, new_event_loop, until_stopped
from collect.net.zmq_bus import PeerBus, first_listening
from collect.types import Admit, Member, Scope
from collect.wire.codec import decode, encode
from collect.wire.messages import Join, Message, Ping, Pong, Prepare, Refused, Welcome, Who

# libuv keeps a pipe for signals from its first loop on; it is no leak of the first test that runs.
new_event_loop().close()

PATIENCE_S = 10.0


def join(incarnation: int, group: str = "g", admit: Admit = Admit.AUTO) -> Join:
    member = Member(incarnation, f"peer-{incarnation}", "host", ("127.0.0.1:1",))
    return Join(member, 1, admit, group)


def converse(address: str, incarnation: int, *sent: bytes, count: int) -> list[bytes]:
    """Sends, and returns the first `count` answers."""

    async def run() -> list[bytes]:
        bus = PeerBus(parse_address(address), incarnation)
        try:
            for payload in sent:
                assert bus.send(payload)
            return [await asyncio.wait_for(bus.receive(), PATIENCE_S) for _ in range(count)]
        finally:
            bus.close()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(run())


def messages(answers: list[bytes]) -> list[Message]:
    return [decode(answer) for answer in answers]


@pytest.mark.parametrize(
    ("address", "scope"), [("127.0.0.1:0", Scope.LOOPBACK), ("0.0.0.0:0", Scope.ANY)]
)
def test_it_tells_where_members_may_be(address: str, scope: Scope) -> None:
    service = CoordinatorService(address, timeout=2.5)
    port = parse_address(service.start()).port
    try:
        (answer,) = converse(f"127.0.0.1:{port}", 7, greeting.ASK, count=1)
    finally:
        service.stop()

    assert greeting.decode(answer) == greeting.Greeting(scope, 2.5)


def test_ipv6_takes_ipv4_too() -> None:
    service = CoordinatorService("[::]:0")
    port = parse_address(service.start()).port
    try:
        for host in ("127.0.0.1", "[::1]"):
            assert converse(f"{host}:{port}", 7, greeting.ASK, count=1)
    finally:
        service.stop()


def test_a_joiner_is_welcomed_and_prepared() -> None:
    service = CoordinatorService(timeout=2.5)
    try:
        welcome, prepare = messages(converse(service.start(), 7, encode(join(7)), count=2))
    finally:
        service.stop()

    assert isinstance(welcome, Welcome)
    assert (welcome.scope, welcome.timeout_s) == (Scope.LOOPBACK, 2.5)
    assert isinstance(prepare, Prepare)
    assert prepare.view.incarnations == (7,)


def test_groups_of_one_coordinator_are_apart() -> None:
    service = CoordinatorService()
    address = service.start()
    try:
        first, _ = messages(converse(address, 7, encode(join(7, "one")), count=2))
        second, _ = messages(converse(address, 8, encode(join(8, "two", Admit.MANUAL)), count=2))
        other = join(9, "two", Admit.AUTO)
        (third,) = messages(converse(address, 9, encode(other), count=1))
    finally:
        service.stop()

    assert isinstance(first, Welcome)
    assert isinstance(second, Welcome)
    assert first.group_key != second.group_key
    assert isinstance(third, Refused)


def test_a_stranger_that_pings_is_asked_who_it_is() -> None:
    service = CoordinatorService()
    try:
        (answer,) = messages(converse(service.start(), 7, encode(Ping(7, 0, 0, 0)), count=1))
    finally:
        service.stop()

    assert isinstance(answer, Who)


def test_wrong_messages_are_refused_with_a_reason_and_others_still_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = CoordinatorService()
    try:
        address = service.start()
        wrong = [b"\xc1", encode(Pong(1, 0)), encode(Ping(8, 0, 0, 0))]
        (answer,) = messages(converse(address, 7, *wrong, encode(Ping(7, 0, 0, 0)), count=1))
    finally:
        service.stop()

    assert isinstance(answer, Who)
    assert "refused a message of 1 bytes from 7: no msgpack" in caplog.text
    assert "refused Pong from 7: not a peer's to send" in caplog.text
    assert "refused Ping of another peer from 7" in caplog.text


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        with pytest.raises(InvalidArgument, match=f"cannot listen on {address}.*already in use"):
            CoordinatorService(address).start()


def test_a_broken_state_file_is_named_and_the_port_given_back(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("something")

    with pytest.raises(InvalidArgument, match="no state file"):
        CoordinatorService(state_path=tmp_path / "state").start()


def test_it_can_be_stopped_twice_and_its_address_is_known_only_when_started() -> None:
    service = CoordinatorService()
    with pytest.raises(InvalidArgument, match="not started"):
        _ = service.address
    assert service.start() == service.address
    service.stop()
    service.stop()


def test_of_a_names_addresses_the_one_that_listens_is_taken() -> None:
    with socket.socket() as silent, socket.socket() as listening:
        silent.bind(("127.0.0.1", 0))
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        deaf, live = (Address("127.0.0.1", each.getsockname()[1]) for each in (silent, listening))

        assert asyncio.run(first_listening([deaf, live], 1.0)) == live
        assert asyncio.run(first_listening([deaf, deaf], 1.0)) == deaf
        assert asyncio.run(first_listening([deaf], 1.0)) == deaf


# ---- the thread ----------------------------------------------------------------------------------


def test_a_loop_thread_takes_calls_until_it_is_stopped() -> None:
    called = threading.Event()

    async def body(stopping: asyncio.Event) -> None:
        await until_stopped(stopping, asyncio.Event().wait)

    thread = LoopThread("t", body)
    assert not thread.call(called.set)
    thread.start()
    assert thread.call(called.set)
    assert called.wait(PATIENCE_S)
    thread.stop()

    assert thread.join(PATIENCE_S)
    assert not thread.call(called.set)
    assert thread.failure is None


def test_a_loop_threads_error_is_kept_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def body(_: asyncio.Event) -> None:
        raise RuntimeError("broken")

    thread = LoopThread("t", body)
    thread.start()

    assert thread.join(PATIENCE_S)
    assert isinstance(thread.failure, RuntimeError)
    assert "t ended by an error" in caplog.text


def test_a_process_with_its_main_thread_is_not_ending() -> None:
    assert not is_process_ending()
