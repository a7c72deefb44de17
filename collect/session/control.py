"""The control thread of one group: messages in, the peer machine's actions out.

It owns the bus and the data plane. Everything that the machine decides is performed here, in order,
under one lock; user threads take the same lock for the few fields they share with it.
The thread is never interrupted by a signal, so the machine is never left half way.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import threading
from collections import deque
from collections.abc import Callable

from collect.config import STREAMS_AUTO_MAX, Address, AdmitMode, Config
from collect.errors import (
    Closed,
    CollectError,
    Fenced,
    JoinRefused,
)
from collect.membership import hosts
from collect.membership.events import (
    Announce,
    AnnouncementKind,
    BoundaryAsked,
    CommFrozen,
    CommReport,
    DialPeers,
    FreezeComm,
    InstallComm,
    LinkLost,
    LinksFailed,
    LinksMeasured,
    LinksUp,
    Log,
    MessageReceived,
    OpCancelled,
    PassBoundary,
    PeerAction,
    PeerEvent,
    RebaseComm,
    RepairsDone,
    Send,
    Started,
    Tick,
)
from collect.membership.peer import Peer
from collect.membership.peer_state import PINGS_PER_TIMEOUT
from collect.native import engine
from collect.native.communicator import Communicator, InstallRequest, MemberAddress
from collect.native.engine import Engine, EngineEvent, EngineOptions, EventKind
from collect.native.operation import Operation
from collect.native.plan import algorithm_code
from collect.net import addresses, greeting
from collect.net.clock import now_s
from collect.net.greeting import Greeting
from collect.net.loop_thread import LoopThread, until_stopped
from collect.net.waiting import Changes
from collect.net.zmq_bus import INCARNATION_BITS, PeerBus, RateLimit, first_listening
from collect.session.definitions import Definitions
from collect.session.events import EventLog, MembershipEvent, MembershipEventKind
from collect.session.figures import FigureBook
from collect.session.history import History
from collect.session.late import LateOperations, cancel_of, unsettled
from collect.session.lease import Lease
from collect.session.scopes import Scopes, event_receiver
from collect.session.wishes import TRANSPORT_CODES, compare_wishes
from collect.types import (
    Admit,
    CancelKind,
    Incarnation,
    LinkLoss,
    Member,
    Scope,
    ScopeId,
    VerdictKind,
    View,
    epoch_number,
)
from collect.wire.codec import WireError, decode, encode
from collect.wire.messages import CoordinatorMessage, Join

log = logging.getLogger("collect")

ASK_PERIOD_S = 0.25
CONNECT_PATIENCE_S = 1.0
TICK_S_MIN = 0.001
FAILURES_KEPT_MAX = 64

ADMIT_CODES = {AdmitMode.AUTO: Admit.AUTO, AdmitMode.MANUAL: Admit.MANUAL}
EVENT_KINDS = {
    AnnouncementKind.JOINED: MembershipEventKind.JOINED,
    AnnouncementKind.LEFT: MembershipEventKind.LEFT,
    AnnouncementKind.LOST: MembershipEventKind.LOST,
    AnnouncementKind.FROZEN: MembershipEventKind.FROZEN,
    AnnouncementKind.RESUMED: MembershipEventKind.RESUMED,
    AnnouncementKind.FENCED: MembershipEventKind.FENCED,
    AnnouncementKind.COORDINATOR_UNREACHABLE: MembershipEventKind.COORDINATOR_LOST,
    AnnouncementKind.COORDINATOR_BACK: MembershipEventKind.COORDINATOR_BACK,
}
_COORDINATOR_MESSAGES = CoordinatorMessage.__args__


class Dialling:
    """The members whose links a joiner still waits for."""

    def __init__(self, request: DialPeers, missing: set[Incarnation], deadline_s: float) -> None:
        self.request = request
        self.missing = missing
        self.deadline_s = deadline_s


class ControlPlane:
    """See the module's text. Attributes without an underscore may be read by any thread; what is
    to be consistent with the machine is read and written under `lock`. `changes` tells of changes.

    Attributes:
        definitions: the user's own algorithms.
        peer: the machine; None until the coordinator has been found.
        communicator: None until the group's key is known.
        view: the installed view; None before the first.
        passage: the answer to a BoundaryAsked that no user thread has taken yet.
        lease: the boundaries that starts may pass.
        local_failures: errors of operations that this peer gave up alone.
        failed_in: op → user number of the epoch whose verdict failed it.
        scopes: the sub-groups.
        final: why this peer is no member any more; None while it is one, or becomes one.
    """

    def __init__(
        self,
        config: Config,
        address: Address,
        open_engine: Callable[[EngineOptions, str], Engine] = engine.acquire,
    ) -> None:
        self.config = config
        self.address = address
        self.lock = threading.Lock()
        self.changes = Changes()
        self.peer: Peer | None = None
        self.communicator: Communicator | None = None
        self.view: View | None = None
        self.passage: PassBoundary | None = None
        self.lease = Lease(self, is_auto=config.admit is AdmitMode.AUTO)
        self.final: CollectError | None = None
        self.history = History()
        self.definitions = Definitions(self.lock)
        self.local_failures: dict[int, CollectError] = {}
        self.failed_in: dict[int, int] = {}
        self.is_coordinator_lost = False
        self.self_id: Incarnation = secrets.randbelow((1 << INCARNATION_BITS) - 1) + 1
        self.events = EventLog()
        self._open_engine = open_engine
        self._host = addresses.host_id()
        self._bus: PeerBus | None = None
        self._engine: Engine | None = None
        self._event_fd = -1
        self._group_key = 0  # of `communicator`
        self._timer: asyncio.TimerHandle | None = None
        self._dialling: Dialling | None = None
        self._redialling: dict[Incarnation, float] = {}  # member → when its link must be up
        self._refusals = RateLimit()
        self._frozen_at_s = 0.0
        self._late = LateOperations()
        self.scopes = Scopes(self)
        self._lost_links: dict[Incarnation, str] = {}
        self._link_figures = FigureBook()
        self._measured_s = 0.0
        self._stopping: asyncio.Event | None = None
        self._thread = LoopThread(f"collect-{config.name}", self._body)

    # ---- for the owner -------------------------------------------------------------------

    @property
    def timeout_s(self) -> float:
        """The group's: the coordinator's, once it is known."""
        return self.peer.timeout_s if self.peer is not None else self.config.timeout

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and frees everything, without telling anybody. Idempotent."""
        self._thread.stop()
        self._thread.join()

    def post(self, event: PeerEvent) -> None:
        """Has the machine take an event soon. Any thread."""
        self._thread.call(self._handle, event)

    def ask_boundary(self, boundary: int) -> None:
        """Has the machine pass this boundary soon; `passage` answers. Asking twice is no harm."""
        self._thread.call(self._ask_boundary, boundary)

    def outstanding(self) -> list[Operation]:
        """Operations that have not completed, those of sub-groups too. Any thread."""
        communicator = self.communicator
        own = communicator.outstanding() if communicator is not None else []
        return own + self.scopes.outstanding()

    def subscribe_scope(self, key: int, scope: ScopeId) -> None:
        """The events of this communicator are a sub-group's."""
        assert self._engine is not None
        self._engine.subscribe(key, event_receiver(self._receive_engine_event, scope))

    def unsubscribe_scope(self, key: int) -> None:
        assert self._engine is not None
        self._engine.unsubscribe(key)

    def _ask_boundary(self, boundary: int) -> None:
        if self.peer is None or self.peer.boundaries + 1 != boundary or self.final is not None:
            return
        # What was aborted here is in flight until a verdict settles it. It is asked for again.
        if not (self.peer.is_boundary_due and self.scopes.is_unsettled()):
            self._handle(BoundaryAsked())

    def raise_if_final(self) -> None:
        """Raises why this peer is no member, if it is none."""
        if self.final is not None:
            raise self.final.again()

    # ---- the thread ----------------------------------------------------------------------

    async def _body(self, stopping: asyncio.Event) -> None:
        self._stopping = stopping
        try:
            here = await self._greet(stopping)
            if here is not None:
                self._open(here)
                await until_stopped(stopping, self._receive)
        except CollectError as error:
            self._end(error)
        except Exception as error:
            log.critical("the control thread of %s failed", self.config.name, exc_info=error)
            self._end(Closed(f"an internal error ended this group: {error!r}"))
        finally:
            self._end(Closed("this group is closed"))
            self._close()

    async def _greet(self, stopping: asyncio.Event) -> Greeting | None:
        """Finds the coordinator. None: asked to stop meanwhile."""
        candidates = addresses.resolve(self.address)
        self.address = await first_listening(candidates, CONNECT_PATIENCE_S)
        self._bus = PeerBus(self.address, self.self_id)
        while not stopping.is_set():
            self._bus.send(greeting.ASK)
            try:
                payload = await asyncio.wait_for(self._bus.receive(), ASK_PERIOD_S)
            except TimeoutError:
                continue
            here = greeting.decode(payload)
            if here is not None:
                return here
        return None

    def _open(self, here: Greeting) -> None:
        """Opens the data port and asks to be let in."""
        config = self.config
        if here.timeout_s != config.timeout:
            log.info("%s uses the group's timeout, %g s", config.name, here.timeout_s)
        bind_host = addresses.bind_host(
            self.address, here.scope is Scope.LOOPBACK, config.interface
        )
        options = EngineOptions(
            bind_host=bind_host,
            port=config.port,
            streams=config.streams or 1,
            streams_max=config.streams or STREAMS_AUTO_MAX,
            chunk_bytes=config.chunk_bytes,
            window_bytes=config.window_bytes,
            silence_s=here.timeout_s,
            connect_s=here.timeout_s,
        )
        self._engine = self._open_engine(options, f"{self.address} {config.group}")
        is_stated = bool(config.advertise)
        numeric = addresses.numeric_hosts(config.advertise)
        if not is_stated:
            numeric = addresses.local_hosts(self.address, config.interface)
        found = addresses.candidates(bind_host, self._engine.port, numeric, is_stated=is_stated)
        member = Member(self.self_id, config.name, self._host, found, config.bandwidth)
        join = Join(
            member,
            config.min_peers,
            ADMIT_CODES[config.admit],
            config.group,
            algorithm_code(config.algorithm),
            config.commit_bytes,
            TRANSPORT_CODES[config.transport],
        )
        log.info("%s listens at %s", config.name, ", ".join(found))
        self._event_fd = self._engine.event_fd
        asyncio.get_running_loop().add_reader(self._event_fd, self._engine.drain)
        with self.lock:
            self.peer = Peer(join, here.timeout_s)
        self._handle(Started())

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.scopes.close()
        if self.communicator is not None:
            self.communicator.close()
        if self._engine is not None:
            asyncio.get_running_loop().remove_reader(self._event_fd)
            self._engine.unsubscribe(self._group_key)
            engine.release(self._engine, f"{self.address} {self.config.group}")
        if self._bus is not None:
            self._bus.close()

    def _end(self, why: CollectError) -> None:
        """Nothing goes on from here. The first reason stands."""
        with self.lock:
            self.lease.recall()
            if self.final is None:
                self.final = why
        self.changes.notify()
        if self.communicator is not None:
            try:
                self.scopes.abort()
                self.communicator.abort()
                self.communicator.cancel_messages()
            except CollectError as error:
                log.debug("nothing to abort: %s", error)

    async def _receive(self) -> None:
        assert self._bus is not None
        while True:
            payload = await self._bus.receive()
            if greeting.is_greeting(payload):
                continue
            try:
                message = decode(payload)
            except WireError as error:
                log.warning("refused a message of the coordinator's: %s", error.reason)
                continue
            if isinstance(message, _COORDINATOR_MESSAGES):
                self._handle(MessageReceived(message))
            else:
                log.warning("refused %s: not a coordinator's to send", type(message).__name__)

    # ---- the machine ---------------------------------------------------------------------

    def _handle(self, event: PeerEvent) -> None:
        """Gives the machine an event and performs what it decides."""
        if self.peer is None or self.final is not None:
            return
        try:
            with self.lock:
                self.lease.recall()
                waiting: deque[PeerEvent] = deque([event])
                while waiting:
                    for action in self.peer.on(waiting.popleft(), now_s()):
                        waiting.extend(self._perform(action))
                    self._follow_welcome()
            self.changes.notify()
        except Exception as error:
            log.critical("cannot perform what %s decided", self.config.name, exc_info=error)
            self._end(Closed(f"an internal error ended this group: {error!r}"))
        if self.final is not None:
            self._end(self.final)
        self._set_timer()

    def _follow_welcome(self) -> None:
        """The group's key is known with WELCOME: from here on others may connect."""
        assert self.peer is not None
        welcome = self.peer.welcome
        if welcome is not None and self.communicator is None:
            self._use_key(welcome.group_key)

    def _use_key(self, group_key: int) -> None:
        """Opens the communicator; anew when a coordinator that was restarted meanwhile found a
        group with another key."""
        assert self._engine is not None
        if self.communicator is not None:
            if self._group_key == group_key:
                return
            self._engine.unsubscribe(self._group_key)
            self.communicator.close()
        self._group_key = group_key
        self.communicator = self._engine.new_communicator(group_key, self.self_id)
        self._engine.subscribe(group_key, self._receive_engine_event)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.peer is None or self.final is not None:
            return
        deadline_s = self.peer.next_deadline_s
        if self._dialling is not None:
            deadline_s = min(deadline_s, self._dialling.deadline_s)
        deadline_s = min([deadline_s, *self._redialling.values()])
        if math.isfinite(deadline_s):
            delay_s = max(deadline_s - now_s(), TICK_S_MIN)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tick(self) -> None:
        if self._dialling is not None and now_s() >= self._dialling.deadline_s:
            missing = tuple(sorted(self._dialling.missing))
            self._give_up_dialling(missing, f"no link after {self.timeout_s:g} s")
        for peer in [p for p, at_s in self._redialling.items() if now_s() >= at_s]:
            del self._redialling[peer]
            detail = f"no new link after {self.timeout_s:g} s"
            self._handle(LinkLost(peer, LinkLoss.UNREACHABLE, detail))
        self._fail_what_nobody_settles()
        self._handle(Tick())
        self._measure_links()

    def _perform(self, action: PeerAction) -> list[PeerEvent]:
        """Performs one action; returns the events that answer it."""
        match action:
            case Send(message):
                assert self._bus is not None
                self._bus.send(encode(message))
            case FreezeComm(ballot):
                assert self.communicator is not None
                report = self.communicator.freeze()
                scopes = self.scopes.freeze()
                known = CommReport(report.consumed, report.in_flight, report.lost, scopes)
                return [CommFrozen(ballot, known)]
            case InstallComm():
                self._install(action)
            case RebaseComm(op_base):
                assert self.communicator is not None
                self.communicator.rebase(op_base)
            case DialPeers():
                return self._dial(action)
            case PassBoundary():
                self.passage = action
            case Announce():
                self._announce(action)
            case Log(reason):
                log.debug("%s: %s", self.config.name, reason)
        return []

    def _install(self, action: InstallComm) -> None:
        assert self.communicator is not None
        view = action.view
        if self.view is None:
            compare_wishes(self.config, view.recipe)
            self.lease.close_boundary()  # the first of a newcomer is not number 1
        self.history.add(view)
        self.view = view
        self.scopes.adopt(view)
        self._dialling = None
        self._redialling = dict.fromkeys(action.redials, now_s() + self.timeout_s)
        self._lost_links.clear()
        request = InstallRequest(
            epoch=view.epoch,
            members=[self._address_of(member) for member in view.members],
            self_rank=action.self_rank,
            op_base=action.op_base,
            recipe=view.recipe,
            hosts=hosts.numbers(view),
            verdict=action.verdict,
            repairs=action.repairs,
            redials=action.redials,
            scopes=action.scopes,
        )
        self.definitions.prepare(len(view.members), self.communicator)
        self.communicator.install(request)
        self.scopes.note(action.scopes)
        if action.verdict.kind is VerdictKind.FAIL:
            self.failed_in[action.verdict.op] = epoch_number(view.epoch)
            while len(self.failed_in) > FAILURES_KEPT_MAX:
                del self.failed_in[min(self.failed_in)]
        told = [(each.scope, each.verdict) for each in action.scopes]
        self._late.settle([(0, action.verdict), *told])

    def _address_of(self, member: Member) -> MemberAddress:
        is_same_host = member.host == self._host
        tried = addresses.for_neighbour(member.addresses, is_same_host)
        return MemberAddress(member.incarnation, tried)

    def _announce(self, action: Announce) -> None:
        duration_s = 0.0
        if action.kind is AnnouncementKind.FROZEN:
            # A second ballot may follow before operations run again.
            self._frozen_at_s = self._frozen_at_s or action.at_s
        elif action.kind is AnnouncementKind.RESUMED:
            duration_s, self._frozen_at_s = action.at_s - (self._frozen_at_s or action.at_s), 0.0
        elif action.kind is AnnouncementKind.COORDINATOR_UNREACHABLE:
            self.is_coordinator_lost = True
            log.warning("the coordinator at %s does not answer: %s", self.address, action.reason)
        elif action.kind is AnnouncementKind.COORDINATOR_BACK:
            self.is_coordinator_lost = False
        epoch = epoch_number(action.epoch)
        is_self = any(member.incarnation == self.self_id for member in action.who)
        if action.kind is AnnouncementKind.REFUSED:
            self.final = JoinRefused(f"the coordinator refused {self.config.name}: {action.reason}")
            return
        if action.kind is AnnouncementKind.FENCED:
            reason = f"{self.config.name} is no member any more: {action.reason}"
            self.final = Fenced(reason, peer=self.config.name, epoch=epoch)
        elif action.kind is AnnouncementKind.LEFT and is_self:
            self.final = Closed(f"{self.config.name} has left the group", epoch=epoch)
        for name in [member.name for member in action.who] or [""]:
            kind = EVENT_KINDS[action.kind]
            event = MembershipEvent(kind, action.at_s, epoch, name, action.reason, duration_s)
            self.events.append(event)
            log.info(
                "%s: epoch %d: %s %s (%s)", self.config.name, epoch, kind.name, name, event.detail
            )

    # ---- links ---------------------------------------------------------------------------

    def _dial(self, action: DialPeers) -> list[PeerEvent]:
        """Of two members the one with the higher rank dials; the other waits to be dialled."""
        view = action.view
        if self.view is None:
            self._use_key(view.group_key)
        assert self.communicator is not None
        rank = view.rank_of(self.self_id)
        is_up = {link.peer for link in self.communicator.links() if link.is_up}
        missing = {each for each in view.incarnations if each != self.self_id} - is_up
        if not missing:
            return [LinksUp(action.ballot)]
        self._dialling = Dialling(action, missing, now_s() + self.timeout_s)
        lower = [member for member in view.members[:rank] if member.incarnation in missing]
        if lower:
            self.communicator.dial([self._address_of(member) for member in lower])
        return []

    def _measure_links(self) -> None:
        """Has the machine know what the core knows of its links, as often as it pings."""
        if self.view is None or self.communicator is None or self.final is not None:
            return
        if now_s() < self._measured_s + self.timeout_s / PINGS_PER_TIMEOUT:
            return
        self._measured_s = now_s()
        self._link_figures.add(self.communicator.links())
        self._handle(LinksMeasured(self._link_figures.known(self.view)))

    def _give_up_dialling(self, whom: tuple[Incarnation, ...], detail: str) -> None:
        assert self._dialling is not None
        ballot = self._dialling.request.ballot
        self._dialling = None
        self._handle(LinksFailed(ballot, whom, detail))

    def _receive_engine_event(self, event: EngineEvent, scope: ScopeId = 0) -> None:
        """From whichever thread drained the queue."""
        self._thread.call(self._on_engine_event, event, scope)

    def _on_engine_event(self, event: EngineEvent, scope: ScopeId = 0) -> None:
        match event.kind:
            case EventKind.LINK_UP:
                self._on_link_up(event.peer)
            case EventKind.LINK_LOST:
                self._on_link_lost(event)
            case EventKind.MISMATCH:
                self._handle(OpCancelled(event.op, CancelKind.MISMATCH, event.detail, scope))
            case EventKind.ABORTED:
                self._handle(cancel_of(event, scope))
            case EventKind.LATE:
                self._handle(self._late.note(scope, event.op))
            case EventKind.REPAIRED:
                self._handle(RepairsDone(event.epoch, scope))
            case EventKind.REFUSED:
                line = self._refusals.note(event.detail, now_s())
                if line is not None:
                    log.warning("refused on the data port: %s", line)
                epoch = epoch_number(self.view.epoch) if self.view else 0
                kind = MembershipEventKind.REFUSED
                self.events.append(MembershipEvent(kind, now_s(), epoch, "", event.detail))

    def _on_link_up(self, peer: Incarnation) -> None:
        self._lost_links.pop(peer, None)
        self._redialling.pop(peer, None)
        if self._dialling is None:
            return
        self._dialling.missing.discard(peer)
        if not self._dialling.missing:
            ballot = self._dialling.request.ballot
            self._dialling = None
            self._handle(LinksUp(ballot))

    def _on_link_lost(self, event: EngineEvent) -> None:
        loss = event.loss or LinkLoss.RESET
        detail = event.detail or loss.name.lower()
        self._lost_links[event.peer] = detail
        self._redialling.pop(event.peer, None)
        if self._dialling is not None and event.peer in self._dialling.missing:
            self._give_up_dialling((event.peer,), detail)
        self._handle(LinkLost(event.peer, loss, detail))

    def _fail_what_nobody_settles(self) -> None:
        """An operation is late, and the coordinator that would end it is not there: end it here."""
        if not self.is_coordinator_lost or self.communicator is None:
            return
        with self.lock:
            links = {self.history.name(peer): why for peer, why in self._lost_links.items()}
            epoch = self.view.epoch if self.view else 0
        for scope, op in self._late.take_unsettled(self.timeout_s):
            plane = self.scopes.find(scope) if scope else self
            if plane is not None and plane.communicator is not None:
                plane.local_failures[op] = unsettled(op, links, str(self.address), epoch)
                plane.communicator.abort()
