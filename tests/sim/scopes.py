"""Sub-groups in the model: communicators of some members, each with an oracle of its own.

A sub-group that is closed still answers for its last operation, until an operation of the group
that was submitted later is delivered: by then all its members have consumed all of its operations.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from collect.membership.events import InstallComm
from collect.membership.verdict import among
from collect.types import (
    Incarnation,
    Op,
    ScopeId,
    ScopeReport,
    ScopeVerdict,
    Verdict,
    VerdictKind,
    View,
)
from tests.sim.history import require

if TYPE_CHECKING:
    from tests.sim.comm import Frame, SimComm

SEEDS_FROM = 1_000_000  # in the worlds of these seeds there are sub-groups


class Scopes:
    """The sub-groups of one communicator."""

    def __init__(self, parent: "SimComm") -> None:
        self.parent = parent
        self.comms: dict[ScopeId, SimComm] = {}
        self.closed: dict[ScopeId, Op] = {}  # → the group's last operation at that time
        self.freed: set[ScopeId] = set()
        self.early: list[Frame] = []  # of sub-groups that are yet to be created here
        self.foretold: dict[ScopeId, set[Op]] = {}  # what verdicts failed of these

    def create(self, scope: ScopeId, members: tuple[Incarnation, ...], view: View) -> None:
        """`members` as all who create it name them, also those who are gone already."""
        parent = self.parent
        if scope in self.comms or scope in self.freed:
            return
        comm = type(parent)(parent.world, parent.process, scope)
        self.comms[scope] = comm
        comm.epoch, comm.view = parent.epoch, among(members, view)
        comm.members = comm.view.incarnations
        comm.is_frozen = parent.is_frozen
        comm.failed_early = self.foretold.pop(scope, set())
        comm.record.foretold = max(comm.failed_early, default=0)
        comm.history.installed(comm.self_id, comm.view)
        early, self.early = self.early, []
        for frame in early:
            self.on_frame(frame)

    def close(self, scope: ScopeId) -> None:
        require(not self.comms[scope].queue, "closed with an operation in flight")
        self.closed.setdefault(scope, self.parent.next_op)

    def free_settled(self, delivered: Op) -> None:
        """The group has delivered an operation."""
        for scope in [scope for scope, mark in self.closed.items() if delivered > mark]:
            del self.comms[scope], self.closed[scope]
            self.freed.add(scope)

    def freeze(self) -> tuple[ScopeReport, ...]:
        reports = []
        for scope, comm in list(self.comms.items()):
            report = comm.freeze()
            reports.append(ScopeReport(scope, comm.members, report.consumed, report.in_flight))
        return tuple(reports)

    def install(self, install: InstallComm) -> None:
        verdicts = {each.scope: each for each in install.scopes}
        for scope, comm in list(self.comms.items()):
            told = verdicts.pop(scope, ScopeVerdict(scope, Verdict()))
            comm.view = among(comm.members, install.view)
            comm.install(
                replace(
                    install,
                    view=comm.view,
                    op_base=0,
                    verdict=told.verdict,
                    repairs=told.repairs,
                    has_repair=any(each.needer == comm.self_id for each in told.repairs),
                    scopes=(),
                )
            )
        for scope, told in verdicts.items():
            if told.verdict.kind is VerdictKind.FAIL and scope not in self.freed:
                self.foretold.setdefault(scope, set()).add(told.verdict.op)

    def on_frame(self, frame: "Frame") -> None:
        comm = self.comms.get(frame.scope)
        if comm is not None:
            comm.on_frame(frame)
        elif frame.scope not in self.freed:
            self.early.append(frame)
