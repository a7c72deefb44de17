"""A training loop: boundaries, operations, and a state that every member must have alike.

The state is a running hash of results and participants, so one wrong byte or one wrong
participant anywhere shows at once and for good. Newcomers get the state by the first operation
after the switch that let them in.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from zlib import crc32

from collect.types import Admit, Incarnation, Op, ScopeId
from tests.sim.comm import (
    ALL_REDUCE,
    BROADCAST,
    REDUCE,
    REDUCE_SCATTER,
    Collective,
    SimComm,
    SimOp,
)

if TYPE_CHECKING:
    from tests.sim.world import Process

OPS_PER_STEP = 3
# What is called in turn: each collective, and whether its payload is large.
CALLS: tuple[tuple[Collective, bool], ...] = (
    (ALL_REDUCE, False),
    (ALL_REDUCE, True),
    (REDUCE_SCATTER, False),
    (BROADCAST, False),
    (ALL_REDUCE, False),
    (REDUCE_SCATTER, True),
    (REDUCE, True),
)
RESPLIT_OPS = 2
# The sub-groups that participants make of themselves: none, halves, rows and columns of two, all.
SPLITS: tuple[Callable[[tuple[Incarnation, ...]], list[tuple[Incarnation, ...]]], ...] = (
    lambda members: [members[::2], members[1::2]],
    lambda members: [members[i : i + 2] for i in range(0, len(members), 2)] + [members[::2]],
    lambda members: [],
    lambda members: [members[::-1], members[1:]],
)


class SimApp:
    """state = (hash, position): `position` counts operations, so it says what comes next."""

    def __init__(self, process: "Process", admit: Admit) -> None:
        self.process = process
        self.admit = admit
        self.state: tuple[int, int] = (process.incarnation & 0xFFFF, 0)
        self.ops_done = 0
        self.is_stopped = False
        self.is_newcomer = False
        self.scopes: list[SimComm] = []  # that are in use
        self.retired: list[ScopeId] = []  # to be closed when nothing is in flight
        self.outstanding = 0
        self.is_calling = False  # some operations of this turn may be over already
        self.wrong_digest = 0  # the next operation is called with other arguments

    def go_on(self) -> None:
        """The loop's next action, after some computing."""
        if self.is_stopped:
            return
        is_boundary = self.admit is Admit.AUTO or self.state[1] % OPS_PER_STEP == 0
        if is_boundary:
            self.process.ask_boundary()
        else:
            self.run_op()

    def on_boundary(self, admitted: tuple[Incarnation, ...], is_newcomer: bool) -> None:
        if admitted:
            self.is_newcomer = is_newcomer
            self.bring_in_step()
        else:
            self.run_op()

    def bring_in_step(self) -> None:
        contribution = (not self.is_newcomer, self.state)
        op = SimOp("bring_in_step", 7, contribution, self.on_in_step, self.on_step_failed)
        op.is_large = self.process.world.is_state_large
        self.process.comm.submit(op)

    def on_in_step(self, op: SimOp, parts: tuple[Any, ...], _: tuple[Incarnation, ...]) -> None:
        holders = [state for is_holder, state in parts[0] if is_holder]
        states = holders or [state for _, state in parts[0]]
        assert len(set(holders)) <= 1, f"members differ when newcomers come: {holders}"
        self.state = states[0]
        self.is_newcomer = False
        self.process.world.history.state_after(self.process.incarnation, op.op, self.state)
        self.process.compute(self.run_op)

    def on_step_failed(self, op: SimOp) -> None:
        self.process.world.history.state_after(self.process.incarnation, op.op, None)
        self.process.compute(self.bring_in_step)

    def run_op(self) -> None:
        """In manual mode the operations of a step are sometimes all submitted at once."""
        if self.is_stopped:
            return
        hash_, position = self.state
        rest = OPS_PER_STEP - position % OPS_PER_STEP
        is_batch = self.admit is Admit.MANUAL and hash_ % 3 == 0
        self.outstanding = rest if is_batch else 1
        group, calls = self.process.comm, range(self.outstanding)
        theirs = [
            (comm, index) for comm in self.scopes for index in range((comm.scope + position) % 3)
        ]
        self.outstanding += len(theirs)
        self.is_calling = True
        for index in calls:
            group.submit(self.make_op(group, position + index, (hash_, index)))
        for comm, index in theirs:
            at = position + comm.scope + index
            op = self.make_op(comm, at, (comm.self_id, index))
            op.on_done, op.on_failed = self.on_scope_done, self.on_scope_failed
            comm.submit(op)
        self.is_calling = False
        self.close_idle()

    def make_op(self, comm: SimComm, position: int, contribution: Any) -> SimOp:
        collective, is_large = CALLS[position % len(CALLS)]
        members = comm.members
        root = members[position % len(members)] if collective.is_rooted else 0
        world = len(members) if collective.is_shaped else 0
        digest = crc32(repr((position % 5, collective.name, root, world)).encode())
        digest += self.wrong_digest
        self.wrong_digest = 0
        descriptor = f"{collective.name} {position}"
        op = SimOp(descriptor, digest, contribution, self.on_done, self.on_failed)
        op.collective, op.is_large, op.root, op.called_for = collective, is_large, root, members
        return op

    def on_done(
        self, op: SimOp, parts: tuple[Any, ...], participants: tuple[Incarnation, ...]
    ) -> None:
        same = participants if op.collective.is_own else (parts, participants)
        if self.process.world.has_scopes and op.op % RESPLIT_OPS == 0 and not op.is_loose:
            self.resplit(op.op, participants)
        self.advance(op, "anything" if op.is_loose else repr(same))

    def on_failed(self, op: SimOp) -> None:
        self.advance(op, "anything" if op.is_loose else "failed")

    def advance(self, op: SimOp, what: str) -> None:
        hash_, position = self.state
        self.state = (crc32(what.encode(), hash_), position + 1)
        self.process.world.history.state_after(self.process.incarnation, op.op, self.state)
        self.ops_done += 1
        self.finish_one()

    def finish_one(self) -> None:
        self.outstanding -= 1
        self.close_idle()
        if self.outstanding == 0:
            self.process.compute(self.go_on)

    def close_idle(self) -> None:
        """What was called of them is called, and done."""
        scopes = self.process.comm.scopes
        for scope in self.retired.copy():
            if not self.is_calling and not scopes.comms[scope].queue:
                self.retired.remove(scope)
                scopes.close(scope)

    # ---- sub-groups --------------------------------------------------------------------------

    def resplit(self, op: Op, participants: tuple[Incarnation, ...]) -> None:
        """New sub-groups instead of those there are, in a way that all participants find alike.
        Some of them are created here when others use them already, or have lost a member."""
        comm = self.process.comm
        self.retired += [each.scope for each in self.scopes]
        self.scopes = []
        split = SPLITS[op // RESPLIT_OPS % len(SPLITS)](participants)
        for index, members in enumerate(split):
            if comm.self_id in members and comm.view is not None:
                scope = crc32(repr((op, index, members)).encode()) >> 1 or 1
                comm.scopes.create(scope, members, comm.view)
                self.scopes.append(comm.scopes.comms[scope])

    def on_scope_done(self, op: SimOp, parts: Any, participants: tuple[Incarnation, ...]) -> None:
        del op, parts, participants  # the oracle has seen them
        self.finish_one()

    def on_scope_failed(self, op: SimOp) -> None:
        del op
        self.finish_one()
