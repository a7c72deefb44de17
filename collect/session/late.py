"""Operations that passed their deadline here."""

from __future__ import annotations

from collections.abc import Iterable

from collect.errors import PeerLost
from collect.membership.events import OpCancelled
from collect.native.engine import EngineEvent
from collect.net.clock import now_s
from collect.types import CancelKind, Op, ScopeId, Verdict, VerdictKind, epoch_number, op_name

MEMBERS_DETAIL = "members: "  # how the core begins the detail of an op meant for other members


def cancel_of(event: EngineEvent, scope: ScopeId = 0) -> OpCancelled:
    """Why the core gave up an operation: the user did, or its call does not fit the members."""
    if event.detail.startswith(MEMBERS_DETAIL):
        detail = event.detail.removeprefix(MEMBERS_DETAIL)
        return OpCancelled(event.op, CancelKind.MEMBERS, detail, scope)
    return OpCancelled(event.op, CancelKind.ABORT, "called abort", scope)


class LateOperations:
    """Which they are, and since when, by scope: a verdict settles them. The control thread's."""

    def __init__(self) -> None:
        self._since_s: dict[tuple[ScopeId, Op], float] = {}

    def note(self, scope: ScopeId, op: Op) -> OpCancelled:
        self._since_s[scope, op] = now_s()
        return OpCancelled(op, CancelKind.TIMEOUT, "waited until its deadline", scope)

    def settle(self, verdicts: Iterable[tuple[ScopeId, Verdict]]) -> None:
        for scope, verdict in verdicts:
            if verdict.kind is not VerdictKind.RERUN:
                self._since_s.pop((scope, verdict.op), None)

    def take_unsettled(self, patience_s: float) -> list[tuple[ScopeId, Op]]:
        """Those that have waited for a verdict for so long."""
        due = [each for each, at_s in self._since_s.items() if now_s() - at_s > patience_s]
        for each in due:
            del self._since_s[each]
        return due


def unsettled(op: Op, links: dict[str, str], address: str, epoch: int) -> PeerLost:
    """Why an operation is ended by its own peer: the coordinator is not there to do it.

    links: those that are lost, by peer, with the reason.
    """
    lost = [f"{name} ({why})" for name, why in links.items()]
    told = f"links lost: {', '.join(lost)}" if lost else "all links are up"
    return PeerLost(
        f"no result in time, {told}, and the coordinator at {address} does not answer",
        peer=next(iter(links), None),
        epoch=epoch_number(epoch) if epoch else None,
        op=op_name(op),
    )
