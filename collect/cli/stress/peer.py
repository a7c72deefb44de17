"""One peer process: does as its standard input says, tells everything on standard output.

It starts before it is needed: the launcher keeps a few ready, so that a join is no start-up.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import random
import select
import signal
import sys
import time
from typing import Any

import numpy as np

import collect
from collect.cli.stress import workload
from collect.cli.stress.workload import Array, Case, State

OP_TIMEOUT_S = 60.0
PAUSE_S_MAX = 0.004  # between steps: a training loop computes something, too
CHUNK_BYTES = 256 * 1024


class Commands:
    """What standard input says, one JSON object a line."""

    def __init__(self) -> None:
        self._text = b""

    def next(self, *, is_waiting: bool = False) -> dict[str, Any] | None:
        """The next command; None when there is none yet. Ends the process when nobody is there."""
        while b"\n" not in self._text:
            if not is_waiting and not select.select([0], [], [], 0)[0]:
                return None
            data = os.read(0, 1 << 16)
            if not data:
                sys.exit(0)
            self._text += data
        line, _, self._text = self._text.partition(b"\n")
        return dict(json.loads(line))


def tell(what: str, **fields: Any) -> None:
    data = json.dumps({"what": what, **fields}).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


def frame_count(size: int, what: Case) -> int:
    """About how many frames a member sends of an operation."""
    slice_bytes = what.bytes / max(size, 1)
    return 2 * (size - 1) * max(1, int(-(-slice_bytes // CHUNK_BYTES)))


class Worker:
    """One membership: joins, and works until it is told to leave or finds itself fenced."""

    def __init__(self, commands: Commands, setting: dict[str, Any]) -> None:
        self._commands = commands
        self._setting = setting
        self._name: str = setting["name"]
        self._seed: int = setting["seed"]
        self._state = State()
        self._death_at: float | None = None  # in which part of the operations to die
        self._rng = random.Random(self._name)

    def run(self) -> bool:
        """Returns True when it left as it was told, False when it was fenced."""
        setting = self._setting
        group = collect.join(
            setting["address"],
            name=self._name,
            min_peers=setting["min_peers"],
            timeout=setting["timeout"],
            transport=setting["transport"],
            advertise=setting["advertise"],
            port=setting["port"],
            admit="manual",
        )
        tell("joined", name=self._name, epoch=group.epoch)
        try:
            with group:
                while not self._is_told_to_leave():
                    self._step(group)
        except collect.Fenced as error:
            tell("fenced", name=self._name, detail=str(error))
            return False
        tell("left", name=self._name)
        return True

    def _is_told_to_leave(self) -> bool:
        command = self._commands.next()
        if command is None:
            return False
        if command["do"] == "die":
            self._death_at = command["at"]
        return bool(command["do"] == "leave")

    def _step(self, group: collect.Group) -> None:
        state = self._state
        admission = group.admit(state.arrays())
        step = int(state.step[0])
        if admission.joined:
            tell(
                "admitted",
                name=self._name,
                step=step,
                chain=int(state.chain[0]),
                joined=admission.joined,
                received=admission.received,
            )
        for index in range(workload.op_count(self._seed, step)):
            self._operate(group, step, index)
        state.step += 1
        time.sleep(self._rng.uniform(0, PAUSE_S_MAX))

    def _operate(self, group: collect.Group, step: int, index: int) -> None:
        what = workload.case(self._seed, step, index)
        if self._death_at is not None:
            frame = 1 + int(self._death_at * frame_count(group.size, what))
            group._kill_at(frame)
        peers = group.peers
        root = peers[what.root % len(peers)].name if what.collective == workload.BROADCAST else ""
        fields = {"name": self._name, "step": step, "index": index, "root": root}
        try:
            array, result = self._call(group, step, index, what, root)
        except collect.MembersChanged as error:
            kind = type(error).__name__
            self._state.take(kind, [])
            tell(
                "op",
                **fields,
                op=error.op,
                epoch=0,
                participants=[],
                attempts=1,
                digest="",
                failed=kind,
                chain=int(self._state.chain[0]),
                duration_s=0.0,
                completed_ns=time.monotonic_ns(),
            )
            return
        found = workload.digest(array)
        self._state.take(found, list(result.participants))
        tell(
            "op",
            **fields,
            op=result.op,
            epoch=result.epoch,
            participants=result.participants,
            attempts=result.attempts,
            digest=found,
            failed="",
            chain=int(self._state.chain[0]),
            duration_s=result.duration_s,
            completed_ns=result.completed_ns,
        )

    def _call(
        self, group: collect.Group, step: int, index: int, what: Case, root: str
    ) -> tuple[Array, collect.Result]:
        """Does the operation; the result as one array."""
        array = workload.contribution(self._name, step, index, what).copy()
        if what.collective == workload.ALL_GATHER:
            result = group.all_gather(array, timeout=OP_TIMEOUT_S)
            return np.asarray(result.array).ravel(), result
        if what.collective == workload.BROADCAST:
            return array, group.broadcast(array, root, timeout=OP_TIMEOUT_S)
        algorithm = what.algorithm
        return array, group.all_reduce(array, what.op, algorithm=algorithm, timeout=OP_TIMEOUT_S)


def main() -> None:
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    faulthandler.enable()
    logging.basicConfig(level=logging.DEBUG, format="%(asctime)s.%(msecs)03d %(message)s")
    logging.getLogger("asyncio").setLevel(logging.INFO)
    for dtype in workload.DTYPES:
        workload.pool(dtype)
        workload.pool(dtype, dtype.startswith("float"))
    commands = Commands()
    tell("ready")
    while command := commands.next(is_waiting=True):
        if command["do"] == "join" and Worker(commands, command).run():
            break


if __name__ == "__main__":
    main()
