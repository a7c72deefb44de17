"""Runs the coordinator: its port, its clock, and one machine per group. Decides nothing itself."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from collect.config import Address, parse_address
from collect.errors import CollectError, InvalidArgument
from collect.membership.coordinator import Coordinator, Settings
from collect.membership.events import (
    CoordinatorEvent,
    Log,
    PeerMessageReceived,
    RememberView,
    SendFailed,
    SendTo,
    Tick,
)
from collect.net import generation, greeting
from collect.net.addresses import is_loopback, resolve
from collect.net.clock import now_s
from collect.net.greeting import Greeting
from collect.net.loop_thread import LoopThread, until_stopped
from collect.net.waiting import Changes
from collect.net.zmq_bus import CoordinatorBus, RateLimit
from collect.types import Scope, View
from collect.wire.codec import WireError, decode, encode
from collect.wire.messages import Hello, Join, PeerMessage, Who

log = logging.getLogger("collect.coordinator")

GROUPS_MAX = 256
PEERS_REMEMBERED_MAX = 65_536
TICK_S_MIN = 0.001
STOP_S_MAX = 10.0

_PEER_MESSAGES = PeerMessage.__args__


class _Group:
    """One group's machine and its timer. Belongs to the service's loop."""

    def __init__(self, machine: Coordinator, perform: Callable[[_Group, CoordinatorEvent], None]):
        self.machine = machine
        self._perform = perform
        self._timer: asyncio.TimerHandle | None = None

    def set_timer(self) -> None:
        """Has a Tick come when the machine wants it."""
        self.cancel_timer()
        deadline_s = self.machine.next_deadline_s
        if math.isfinite(deadline_s):
            delay_s = max(deadline_s - now_s(), TICK_S_MIN)
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(delay_s, self._perform, self, Tick())

    def cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class CoordinatorService:
    """A coordinator process, or one embedded in a peer's process.

    Args:
        address: "host:port" to listen at; port 0 takes a free one; "[::]:port" listens to IPv4 and
            IPv6. On a loopback address the whole group stays on this host.
        timeout: seconds; every member of the groups uses it.
        state_path: a file that numbers the starts; the last view of each group is kept beside it.
            So a restarted coordinator knows that it is not the first one, and who may be a member.
            None: the number is random, and whoever says that it is a member is believed.
        is_first: nobody can be in a group yet, so that the first view need not wait `timeout` for
            members of an earlier coordinator. None: true for port 0 and for a new state file.

    `start` and `stop` run it in a thread of its own; `run` in the calling one.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:0",
        *,
        timeout: float = 5.0,
        state_path: Path | str | None = None,
        is_first: bool | None = None,
    ) -> None:
        self._wanted = parse_address(address)
        self._timeout_s = timeout
        self._state_path = None if state_path is None else Path(state_path)
        self._is_first = is_first
        self._generation = 0
        self._scope = Scope.ANY
        self._started_s = 0.0
        self._groups: dict[str, _Group] = {}
        self._group_of: OrderedDict[int, str] = OrderedDict()
        self._refusals = RateLimit()
        self._bus: CoordinatorBus | None = None
        self._address: Address | None = None
        self._error: CollectError | None = None
        self._is_ready = False
        self._changes = Changes()
        self._thread = LoopThread("collect-coordinator", self._serve)

    @property
    def address(self) -> str:
        """Where it listens, with the port that was taken."""
        if self._address is None:
            raise InvalidArgument("the coordinator is not started")
        return str(self._address)

    def start(self) -> str:
        """Listens, and serves in a thread. Returns the address."""
        self._thread.start()
        self._changes.wait_for(lambda: self._is_ready)
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self.address

    def stop(self) -> None:
        """Ends a started service; the members go on without it. Idempotent."""
        self._thread.stop()
        self._thread.join(STOP_S_MAX)

    def run(self, on_ready: Callable[[str], None] | None = None) -> None:
        """Serves until KeyboardInterrupt. `on_ready` is told the address."""
        self.start()
        if on_ready is not None:
            on_ready(self.address)
        try:
            while not self._thread.join(1.0):
                pass
        finally:
            self.stop()

    # ---- the loop ------------------------------------------------------------------------

    async def _serve(self, stopping: asyncio.Event) -> None:
        try:
            self._open()
        except CollectError as error:
            self._error = error
            return
        finally:
            self._is_ready = True
            self._changes.notify()
        assert self._bus is not None
        try:
            await until_stopped(stopping, self._receive, self._bus.watch)
        finally:
            for group in self._groups.values():
                group.cancel_timer()
            self._bus.close()
            log.info("coordinator at %s stopped", self._address)

    def _open(self) -> None:
        self._bus = CoordinatorBus(self._wanted, self._refuse)
        is_new = self._wanted.port == 0
        try:
            if self._state_path is not None:
                self._generation, is_new = generation.advance(self._state_path)
            else:
                self._generation = generation.draw()
        except CollectError:
            self._bus.close()
            raise
        if self._is_first is None:
            self._is_first = is_new
        self._address = self._bus.address
        is_local = is_loopback(resolve(self._wanted)[0].host)
        self._scope = Scope.LOOPBACK if is_local else Scope.ANY
        self._started_s = now_s()
        log.info("coordinator at %s, generation %d", self._address, self._generation)

    async def _receive(self) -> None:
        assert self._bus is not None
        while True:
            sender, payload = await self._bus.receive()
            if payload == greeting.ASK:
                here = Greeting(self._scope, self._timeout_s)
                self._bus.send(sender, greeting.encode(here))
                continue
            try:
                message = decode(payload)
            except WireError as error:
                self._refuse(f"a message of {len(payload)} bytes from {sender:x}: {error.reason}")
                continue
            if not isinstance(message, _PEER_MESSAGES):
                self._refuse(f"{type(message).__name__} from {sender:x}: not a peer's to send")
            elif message.incarnation != sender:
                self._refuse(f"{type(message).__name__} of another peer from {sender:x}")
            else:
                self._take(message)

    def _take(self, message: PeerMessage) -> None:
        group = self._group_for(message)
        if group is not None:
            self._perform(group, PeerMessageReceived(message))

    def _group_for(self, message: PeerMessage) -> _Group | None:
        """The group that the message is for. A stranger is asked who it is."""
        sender = message.incarnation
        join = message.join if isinstance(message, Hello) else message
        name = join.group if isinstance(join, Join) else self._group_of.get(sender)
        if name is None:
            assert self._bus is not None
            self._bus.send(sender, encode(Who(self._generation)))
            return None
        if name not in self._groups:
            if len(self._groups) >= GROUPS_MAX:
                self._refuse(f"group {name!r}: there are {GROUPS_MAX} already")
                return None
            try:
                self._groups[name] = _Group(self._new_machine(name), self._perform)
            except CollectError as error:
                self._refuse(f"group {name!r}: {error}")
                return None
        self._group_of[sender] = name
        self._group_of.move_to_end(sender)
        if len(self._group_of) > PEERS_REMEMBERED_MAX:
            self._group_of.popitem(last=False)
        return self._groups[name]

    def _new_machine(self, name: str) -> Coordinator:
        is_late = now_s() > self._started_s + self._timeout_s
        last_view = generation.load_view(self._state_path, name) if self._state_path else None
        settings = Settings(
            group=name,
            generation=self._generation,
            group_key=secrets.randbits(63) | 1,
            timeout_s=self._timeout_s,
            scope=self._scope,
            is_first=(bool(self._is_first) or is_late) and last_view is None,
            last_view=last_view,
        )
        return Coordinator(settings, now_s())

    def _perform(self, group: _Group, event: CoordinatorEvent) -> None:
        assert self._bus is not None
        unsent: list[int] = []
        for action in group.machine.on(event, now_s()):
            match action:
                case SendTo(incarnation, message):
                    try:
                        payload = encode(message)
                    except WireError as error:
                        log.error("cannot send %s: %s", type(message).__name__, error.reason)
                        continue
                    if not self._bus.send(incarnation, payload):
                        unsent.append(incarnation)
                case RememberView(view):
                    self._remember(group.machine.settings.group, view)
                case Log(reason):
                    log.info("group %s: %s", group.machine.settings.group, reason)
        group.set_timer()
        # What a failure leads to may fail to be sent in turn; the machine then takes no notice.
        if not isinstance(event, SendFailed):
            for incarnation in unsent:
                self._perform(group, SendFailed(incarnation))

    def _remember(self, group: str, view: View) -> None:
        if self._state_path is None:
            return
        try:
            generation.save_view(self._state_path, group, view)
        except CollectError as error:
            # The group goes on: only a restart could let an expelled member in again.
            log.error("group %s: its view could not be kept: %s", group, error)

    def _refuse(self, reason: str) -> None:
        line = self._refusals.note(reason, now_s())
        if line is not None:
            log.warning("refused %s", line)
