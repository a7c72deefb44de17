"""A training loop: boundaries, operations, and a state that every member must have alike.

The state is a running hash of results and participants, so one wrong byte or one wrong
participant anywhere shows at once and for good. Newcomers get the state by the first operation
after the switch that let them in.
"""

from typing import TYPE_CHECKING, Any
from zlib import crc32

from collect.types import Admit, Incarnation
from tests.sim.comm import ALL_REDUCE, BROADCAST, REDUCE, REDUCE_SCATTER, Collective, SimOp

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


class SimApp:
    """state = (hash, position): `position` counts operations, so it says what comes next."""

    def __init__(self, process: "Process", admit: Admit) -> None:
        self.process = process
        self.admit = admit
        self.state: tuple[int, int] = (process.incarnation & 0xFFFF, 0)
        self.ops_done = 0
        self.is_stopped = False
        self.is_newcomer = False
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
        for index in range(self.outstanding):
            self.process.comm.submit(self.make_op(position + index, (hash_, index)))

    def make_op(self, position: int, contribution: Any) -> SimOp:
        collective, is_large = CALLS[position % len(CALLS)]
        members = self.process.comm.members
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
        self.advance(op, "anything" if op.is_loose else repr(same))

    def on_failed(self, op: SimOp) -> None:
        self.advance(op, "anything" if op.is_loose else "failed")

    def advance(self, op: SimOp, what: str) -> None:
        hash_, position = self.state
        self.state = (crc32(what.encode(), hash_), position + 1)
        self.process.world.history.state_after(self.process.incarnation, op.op, self.state)
        self.ops_done += 1
        self.outstanding -= 1
        if self.outstanding == 0:
            self.process.compute(self.go_on)
