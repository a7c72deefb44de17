"""Sub-groups, as the control plane knows them.

A sub-group has a communicator of its own, and no other resource. Its *plane* is the control plane
as its session sees it: the view restricted to its members, the failures of its operations.

A sub-group that is closed answers for its last operation until nobody can need it any more: when an
operation of the group that was submitted after the close is delivered, every member has closed the
sub-group too, because members that are in both call their operations in the same order.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from collect.errors import Closed, CollectError, OperationFailed, Timeout
from collect.membership.events import ScopeClosed
from collect.membership.peer_state import BOUNDARY_MAX, State
from collect.membership.verdict import among
from collect.native import status
from collect.native.communicator import Communicator
from collect.native.engine import EngineEvent
from collect.native.operation import NS_PER_S, Operation
from collect.net.clock import now_s
from collect.session.history import History
from collect.session.watcher import Watcher
from collect.types import (
    SCOPE_ID_MAX,
    SCOPE_SEATS_MAX,
    SCOPES_MAX,
    FailReason,
    Incarnation,
    Op,
    ScopeId,
    ScopeReport,
    ScopeVerdict,
    VerdictKind,
    View,
    epoch_number,
)

if TYPE_CHECKING:
    from collect.session.control import ControlPlane

FAILURES_KEPT_MAX = 64
AGAIN_S = 0.05  # how often a creation that cannot be made now is tried again
CLOSE_ADVICE = (
    "close those that are not needed; closed ones are freed when a later operation of the group "
    "completes"
)


class ScopePlane:
    """The control plane as one sub-group sees it. Attributes as ControlPlane's.

    Attributes:
        view: its members that are in the installed view, in the sub-group's order.
        closed_at: the group's last operation when it was closed; None while it is open.
    """

    def __init__(self, control: ControlPlane, scope: ScopeId, view: View) -> None:
        self._control = control
        self.scope = scope
        self.view = view
        self.communicator = Communicator.unborn()
        self.history = History()
        self.history.add(view)
        self.local_failures: dict[Op, CollectError] = {}
        self.failed_in: dict[Op, int] = {}
        self.closed_at: Op | None = None
        self.is_closed = False
        # What a session asks for often, looked up once.
        self.self_id = control.self_id
        self.lock = control.lock
        self.changes = control.changes
        self.peer = self
        self.watcher = Watcher(f"collect-{control.config.name}-{scope:x}-works", self._oldest)

    @property
    def final(self) -> CollectError | None:
        if self._control.final is None and self.is_closed:
            return Closed("this sub-group is closed")
        return self._control.final

    @property
    def timeout_s(self) -> float:
        return self._control.timeout_s

    @property
    def address(self) -> Any:
        return self._control.address

    def raise_if_final(self) -> None:
        """Raises why it cannot be used any more."""
        final = self.final
        if final is not None:
            raise final.again()

    def outstanding(self) -> list[Operation]:
        """Operations that have not completed."""
        return self.communicator.outstanding()

    def failure_of(self, op: Op) -> FailReason:
        """Why a verdict failed `op`. With the lock."""
        assert self._control.peer is not None
        return self._control.peer.failure_of(op, self.scope)

    def lend(self) -> None:
        """Starts need no look at the group's boundaries, until `recall`."""
        self.communicator.lend(0, BOUNDARY_MAX)

    def recall(self) -> None:
        """The next start waits its turn, and asks."""
        self.communicator.lend(0, 0)

    def adopt(self, view: View) -> None:
        """Follows the group's view."""
        self.view = among(self.view.incarnations, view)
        self.history.add(self.view)

    def note(self, told: ScopeVerdict) -> None:
        """A verdict was installed."""
        if told.verdict.kind is VerdictKind.FAIL:
            self.failed_in[told.verdict.op] = epoch_number(self.view.epoch)
            while len(self.failed_in) > FAILURES_KEPT_MAX:
                del self.failed_in[min(self.failed_in)]

    def report(self) -> ScopeReport:
        report = self.communicator.freeze()
        return ScopeReport(self.scope, self.view.incarnations, report.consumed, report.in_flight)

    def _oldest(self) -> Operation | None:
        return self.communicator.oldest()


class Scopes:
    """The sub-groups of one group here. With the control plane's lock, unless told otherwise."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        self._planes: dict[ScopeId, ScopePlane] = {}
        self._counts: dict[bytes, int] = {}  # how often a list of members was given a scope

    # ---- for user threads, without the lock ----------------------------------------------

    def create(self, members: tuple[Incarnation, ...], limit_ns: int) -> ScopePlane:
        """A sub-group of `members`, in this order, or of those that are still members.

        Every one of them creates it as often as the others, this peer among them. Waits while a
        change of the members is under way, for at most limit_ns.
        """
        self.free_settled()
        control = self._control
        deadline_s = now_s() + limit_ns / NS_PER_S
        plane: ScopePlane | None = None
        try:
            while True:
                with control.lock:
                    control.raise_if_final()
                    if plane is None:
                        plane = self._new_plane(members)
                    found = self._split(plane, members)
                if found == status.OK:
                    return plane
                if found not in (status.E_BUSY, status.E_MEMBERS):
                    raise self._why_not(found)
                if now_s() >= deadline_s:
                    raise Timeout("a change of the members was not completed in time")
                until_s = min(deadline_s, now_s() + AGAIN_S)
                control.changes.wait_for(self._is_running, until_s)
        except BaseException:
            self._forget(plane)
            raise

    def retire(self, plane: ScopePlane) -> None:
        """It is used no more here. Idempotent."""
        with self._control.lock:
            communicator = self._control.communicator
            plane.is_closed = True
            if plane.communicator.is_born:
                plane.recall()
            if self._control.final is None and communicator is not None:
                plane.closed_at, _ = communicator.progress()
        self.free_settled()

    def free_settled(self) -> None:
        """Frees closed sub-groups that nobody can need any more."""
        control = self._control
        with control.lock:
            closed = [p for p in self._planes.values() if p.closed_at is not None]
            if not closed or control.communicator is None or control.final is not None:
                return
            _, delivered = control.communicator.progress()
            settled = [plane for plane in closed if self._is_settled(plane, delivered)]
            for plane in settled:
                self._unregister(plane)
        for plane in settled:
            plane.communicator.close()
            control.post(ScopeClosed(plane.scope))

    def outstanding(self) -> list[Operation]:
        """Operations of sub-groups that have not completed."""
        planes = self._born()
        return [each for plane in planes for each in plane.communicator.outstanding()]

    def recall(self) -> None:
        """Starts of sub-groups take turns with the group's, until they ask again: the members are
        about to change, and nothing may be under way then."""
        for plane in self._born():
            with contextlib.suppress(Closed):  # another thread frees it
                plane.recall()

    # ---- for the control plane -----------------------------------------------------------

    def is_unsettled(self) -> bool:
        """The core has an operation in flight, of the group or of a sub-group, maybe one that was
        aborted here. Without the lock."""
        group = self._control.communicator
        communicators = [plane.communicator for plane in self._born()]
        return any(each.pending() for each in [group, *communicators] if each is not None)

    def find(self, scope: ScopeId) -> ScopePlane | None:
        """Without the lock."""
        return self._planes.get(scope)

    def freeze(self) -> tuple[ScopeReport, ...]:
        """After the group's communicator."""
        return tuple(plane.report() for plane in self._born())

    def adopt(self, view: View) -> None:
        """Before the core does."""
        for plane in self._planes.values():
            plane.adopt(view)

    def note(self, verdicts: Sequence[ScopeVerdict]) -> None:
        for each in verdicts:
            if each.scope in self._planes:
                self._planes[each.scope].note(each)

    def abort(self) -> None:
        """Ends every operation. Without the lock."""
        for plane in self._born():
            plane.communicator.abort()

    def close(self) -> None:
        """Frees all, before the group's communicator is freed. Without the lock."""
        for plane in list(self._planes.values()):
            self._unregister(plane)
            plane.communicator.close()
            plane.watcher.stop()

    # ---- details -------------------------------------------------------------------------

    def _born(self) -> list[ScopePlane]:
        return [plane for plane in list(self._planes.values()) if plane.communicator.is_born]

    def _is_running(self) -> bool:
        """Sub-groups can be made."""
        control = self._control
        is_frozen = control.peer is not None and control.peer.state is State.FROZEN
        return control.final is not None or not is_frozen

    def _is_settled(self, plane: ScopePlane, delivered: Op) -> bool:
        assert plane.closed_at is not None
        return delivered > plane.closed_at and plane.communicator.pending() == 0

    def _new_plane(self, members: tuple[Incarnation, ...]) -> ScopePlane:
        control = self._control
        assert control.view is not None
        scope = self._name(members)  # counted in any case, as it is on the others
        seats = sum(len(plane.view.members) for plane in self._planes.values())
        if len(self._planes) >= SCOPES_MAX or seats + len(members) > SCOPE_SEATS_MAX:
            raise self._why_not(status.E_FULL)
        if scope in self._planes:
            raise self._why_not(status.E_INVALID)
        # Registered before the core makes it, so that an interrupt between the two loses nothing.
        plane = self._planes[scope] = ScopePlane(control, scope, among(members, control.view))
        return plane

    def _name(self, members: tuple[Incarnation, ...]) -> ScopeId:
        """The same on all members, and another one each time."""
        packed = b"".join(member.to_bytes(8, "big") for member in members)
        listed = hashlib.blake2b(packed, digest_size=16).digest()
        count = self._counts.get(listed, 0)
        self._counts[listed] = count + 1
        numbered = hashlib.blake2b(listed + count.to_bytes(8, "big"), digest_size=8).digest()
        return int.from_bytes(numbered, "big") % SCOPE_ID_MAX + 1

    def _split(self, plane: ScopePlane, members: tuple[Incarnation, ...]) -> int:
        control = self._control
        assert control.view is not None
        if control.communicator is None:
            raise Closed("this group is closed")
        plane.view = among(members, control.view)  # a change may have come before this try
        plane.history.add(plane.view)
        here = plane.view.incarnations
        found = control.communicator.split(plane.communicator, plane.scope, here)
        if found == status.OK:
            control.subscribe_scope(plane.communicator.key, plane.scope)
        return found

    def _forget(self, plane: ScopePlane | None) -> None:
        if plane is None:
            return
        with self._control.lock:
            self._unregister(plane)
        plane.communicator.close()

    def _unregister(self, plane: ScopePlane) -> None:
        if self._planes.pop(plane.scope, None) is not None and plane.communicator.is_born:
            self._control.unsubscribe_scope(plane.communicator.key)

    @staticmethod
    def _why_not(found: int) -> CollectError:
        if found == status.E_FULL:
            return OperationFailed(
                f"too many sub-groups: {SCOPES_MAX}, or {SCOPE_SEATS_MAX} members in all of them",
                advice=CLOSE_ADVICE,
            )
        if found == status.E_INVALID:
            return OperationFailed(
                "the sub-group's number, which is made of its members, is another one's already",
                advice="have all of its members list them in another order",
            )
        return status.exception(found, "make a sub-group")


def event_receiver(
    take: Callable[[EngineEvent, ScopeId], None], scope: ScopeId
) -> Callable[[EngineEvent], None]:
    """What the engine hands the events of a sub-group's communicator to."""
    return lambda event: take(event, scope)
