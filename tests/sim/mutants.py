"""Broken variants of the machines and the data plane, each of which the fuzz must catch.

They are how the simulator is tested: an oracle that passes a broken protocol is worth nothing.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

from collect.membership import flushing
from collect.membership.coordinator import Coordinator
from collect.membership.events import CommReport, InstallComm
from collect.membership.verdict import Decision, decide
from collect.types import Ballot, Incarnation, ScopeId, Verdict, View
from collect.wire.messages import Prepared, Report
from tests.sim.comm import Frame, SimComm, SimOp
from tests.sim.scopes import Scopes
from tests.sim.world import Kinds, Process, World


class UnfencedComm(SimComm):
    """Goes on in the old epoch after it has reported."""

    def freeze(self) -> CommReport:
        report = super().freeze()
        self.is_frozen = False
        return report

    def install(self, install: InstallComm) -> None:
        self.is_frozen = self.epoch != 0 and not install.op_base
        super().install(install)


class ForgetfulComm(SimComm):
    """Does not keep the result of the op it delivered last."""

    def serve_repairs(self, install: InstallComm) -> None:
        self.retained = None
        super().serve_repairs(install)


class CredulousComm(SimComm):
    """Takes frames of old attempts for those of its own."""

    def accepts(self, frame: Frame) -> bool:
        return not self.is_frozen


class ImpatientComm(SimComm):
    """Delivers before everybody's word has come."""

    def may_deliver(self, op: SimOp) -> bool:
        return True


class BoastfulComm(SimComm):
    """Reports that it is whole as soon as it has begun."""

    def is_whole(self, op: SimOp) -> bool:
        return op.commits and op.is_started


class ShapelessComm(SimComm):
    """Runs blocks that were meant for others."""

    def freeze(self) -> CommReport:
        report = super().freeze()
        flight = report.in_flight
        return replace(report, in_flight=flight and replace(flight, is_shaped=False))

    def fits(self, op: SimOp) -> bool:
        return True


class RootlessComm(SimComm):
    """Runs whatever names a root, though others may name another one after a loss."""

    def freeze(self) -> CommReport:
        report = super().freeze()
        flight = report.in_flight
        return replace(report, in_flight=flight and replace(flight, is_rooted=False))

    def uproot(self, install: InstallComm, before: tuple[Incarnation, ...]) -> None:
        pass


class StubbornComm(SimComm):
    """Runs what waited behind the operation in flight, whatever root it names."""

    def uproot(self, install: InstallComm, before: tuple[Incarnation, ...]) -> None:
        pass


class CarelessScopes(Scopes):
    """Frees a sub-group as soon as it is closed here, though others may need its last result."""

    def close(self, scope: ScopeId) -> None:
        super().close(scope)
        self.free_settled(self.closed[scope] + 1)


class CarelessComm(SimComm):
    """With such sub-groups."""

    def __init__(self, world: World, process: Process, scope: ScopeId = 0) -> None:
        super().__init__(world, process, scope)
        self.scopes = CarelessScopes(self)


class HastyCoordinator(Coordinator):
    """Commits a switch when the first has promised, not the last."""

    def _on_prepared(self, message: Prepared) -> None:
        if self._switch and not self._switch.is_committed:
            self._switch.prepared |= set(self._switch.view.incarnations)
        super()._on_prepared(message)


def always_rerun(
    reports: Mapping[Incarnation, Report],
    views: Mapping[Ballot, View],
    leaving: Collection[Incarnation] = (),
    silent: Mapping[Incarnation, str] | None = None,
) -> Decision:
    """A verdict that ignores who has delivered."""
    decision = decide(reports, views, leaving, silent)
    return replace(decision, verdict=Verdict(), repairs=())


def forget_scopes(
    reports: Mapping[Incarnation, Report],
    views: Mapping[Ballot, View],
    leaving: Collection[Incarnation] = (),
    silent: Mapping[Incarnation, str] | None = None,
) -> Decision:
    """A decision that judges the group's operations only."""
    return replace(decide(reports, views, leaving, silent), scopes={})


@contextmanager
def scopeless_verdict() -> Iterator[Kinds]:
    with patch.object(flushing, "decide", forget_scopes):
        yield Kinds()


@contextmanager
def deaf_verdict() -> Iterator[Kinds]:
    with patch.object(flushing, "decide", always_rerun):
        yield Kinds()


@contextmanager
def just(kinds: Kinds) -> Iterator[Kinds]:
    yield kinds


MUTANTS = {
    "no fence after REPORT": lambda: just(Kinds(comm=UnfencedComm)),
    "the verdict ignores deliveries": deaf_verdict,
    "the last result is not retained": lambda: just(Kinds(comm=ForgetfulComm)),
    "frames of old attempts are accepted": lambda: just(Kinds(comm=CredulousComm)),
    "delivers before all DONE came": lambda: just(Kinds(comm=ImpatientComm)),
    "reports whole before it is": lambda: just(Kinds(comm=BoastfulComm)),
    "re-runs a shaped op among fewer": lambda: just(Kinds(comm=ShapelessComm)),
    "a root of other ranks is taken": lambda: just(Kinds(comm=RootlessComm)),
    "… of what waited in a queue": lambda: just(Kinds(comm=StubbornComm)),
    "COMMIT before all are PREPARED": lambda: just(Kinds(coordinator=HastyCoordinator)),
}

# In worlds with sub-groups.
SCOPE_MUTANTS = {
    "verdicts on sub-groups are left out": scopeless_verdict,
    "a sub-group is freed when it is closed": lambda: just(Kinds(comm=CarelessComm)),
    "the last result is not retained": lambda: just(Kinds(comm=ForgetfulComm)),
}
