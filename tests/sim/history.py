"""The oracle: what every peer has consumed, and the invariants of docs/protocol.md section 6."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from collect.types import Ballot, Incarnation, Op, ScopeId, View, op_name

FAILED: Ballot = -1


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclass
class Record:
    """One process's past. `attempts` maps a consumed op to its attempt, or FAILED, in order."""

    name: str
    group_key: int = 0
    epoch: Ballot = 0
    members: tuple[Incarnation, ...] = ()
    attempts: dict[Op, Ballot] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    foretold: Op = 0  # failed by a verdict, not submitted yet: as good as consumed
    is_alive: bool = True
    is_out: bool = False  # fenced or left


class History:
    def __init__(self) -> None:
        self.records: dict[Incarnation, Record] = {}
        self.results: dict[tuple[int, Op, Ballot, Incarnation], Any] = {}
        self.loose: set[tuple[int, Op]] = set()  # ops that may fail on some and complete on others
        self.states: dict[tuple[int, Op, Ballot], Any] = {}
        self.views: dict[tuple[int, Ballot], View] = {}
        self.stable: dict[tuple[int, Op], Ballot] = {}

    def consumed(
        self,
        peer: Incarnation,
        op: Op,
        attempt: Ballot,
        result: Any,
        *,
        is_own: bool,
        is_loose: bool,
    ) -> None:
        """`peer` delivered `op`, or failed it (attempt FAILED).

        is_own: the result is another one on each member. is_loose: so may be the outcome.
        """
        me = self.records[peer]
        require(op not in me.attempts, f"{me.name} completed op {op_name(op)} twice")
        require(not me.ops or op > me.ops[-1], f"{me.name} went back to op {op_name(op)}")
        if is_loose:
            self.loose.add((me.group_key, op))
        if attempt != FAILED:
            key = (me.group_key, op, attempt, peer if is_own else 0)
            same = self.results.setdefault(key, result) == result
            require(same, f"{me.name} got another result of op {op_name(op)}")
            self._learn_stable(me)
        me.attempts[op] = attempt
        me.ops.append(op)
        self.check(peer)

    def _learn_stable(self, me: Record) -> None:
        """S3: delivering an op proves that every member has consumed the one before."""
        if me.ops:
            before = me.ops[-1]
            known = self.stable.setdefault((me.group_key, before), me.attempts[before])
            same = self._agree(me.group_key, before, known, me.attempts[before])
            require(same, f"S3: op {op_name(before)} is stable in two attempts ({me.name})")

    def _agree(self, key: int, op: Op, one: Ballot, other: Ballot) -> bool:
        return one == other or (FAILED in (one, other) and (key, op) in self.loose)

    def installed(self, peer: Incarnation, view: View) -> None:
        me = self.records[peer]
        require(view.epoch > me.epoch, f"{me.name} installed an older epoch")
        same = self.views.setdefault((view.group_key, view.epoch), view) == view
        require(same, f"S7: {me.name} has another view of epoch {view.epoch >> 24}")
        me.group_key, me.epoch, me.members = view.group_key, view.epoch, view.incarnations
        self.check(peer)

    def decided_against(self, peer: Incarnation, op: Op, what: str) -> None:
        """S4: `op`, in flight at `peer`, runs again or fails in the epoch just installed."""
        epoch, name = self.records[peer].epoch, self.records[peer].name
        if what == "fails" and (self.records[peer].group_key, op) in self.loose:
            return
        for other in self._fellows(peer, is_same_epoch=False):
            done = FAILED < other.attempts.get(op, FAILED) < epoch
            require(not done, f"S4: {name} {what} op {op_name(op)}, {other.name} delivered it")

    def state_after(self, peer: Incarnation, op: Op, state: Any) -> None:
        me = self.records[peer]
        key = (me.group_key, op, me.attempts[op])
        known = self.states.setdefault(key, state)
        require(known == state, f"{me.name} differs after op {op_name(op)}: {state} not {known}")

    def check(self, peer: Incarnation) -> None:
        me = self.records[peer]
        for other in self._fellows(peer, is_same_epoch=True):
            for op in me.ops[-3:]:
                theirs = other.attempts.get(op, me.attempts[op])
                both_done = FAILED not in (theirs, me.attempts[op])
                if not self._agree(me.group_key, op, theirs, me.attempts[op]):
                    kind = "attempts" if both_done else "outcomes"
                    raise Violation(
                        f"S1: op {op_name(op)} has two {kind}, at {me.name} and {other.name}"
                    )
            self._check_lag(me, other)
            self._check_lag(other, me)

    def _check_lag(self, ahead: Record, behind: Record) -> None:
        """S2: what one consumed and the other did not is at most the last op."""
        if len(ahead.ops) >= 2 and behind.ops:
            bounded = ahead.ops[-2] <= max(behind.ops[-1], behind.foretold)
            require(bounded, f"S2: {behind.name} lags by more than one op behind {ahead.name}")

    def _fellows(self, peer: Incarnation, is_same_epoch: bool) -> Iterable[Record]:
        me = self.records[peer]
        for member in me.members:
            other = self.records.get(member)
            if other is None or member == peer or not other.is_alive or other.is_out:
                continue
            if other.epoch == me.epoch or not is_same_epoch:
                yield other


class Histories:
    """That of the group, and that of each of its sub-groups."""

    def __init__(self) -> None:
        self.group = History()
        self._all: dict[ScopeId, History] = {0: self.group}

    def of(self, scope: ScopeId) -> History:
        return self._all.setdefault(scope, History())

    def died(self, peer: Incarnation) -> None:
        for history in self._all.values():
            if peer in history.records:
                history.records[peer].is_alive = False

    def went(self, peer: Incarnation) -> None:
        """Fenced, or left."""
        for history in self._all.values():
            if peer in history.records:
                history.records[peer].is_out = True


def require(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)
