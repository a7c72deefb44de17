"""One peer of the demo: a process that joins, trains, and tells its launcher about it.

Start to finish, this is what a training script with `collect` looks like; only the reports and the
fail-point are there for show.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

import collect
from collect.cli.demo.data import Digits, Floats
from collect.cli.demo.messages import (
    Armed,
    Failed,
    Fenced,
    Finished,
    Joined,
    Membership,
    Message,
    Operation,
    Stepped,
    encode,
)
from collect.cli.demo.train import Trainer

EXIT_OK, EXIT_FAILED = 0, 1


class Orders:
    """What the launcher writes to this process's input: at which step to be killed.

    When the launcher is gone the input ends, and so does this process.
    """

    def __init__(self) -> None:
        self._kill: tuple[int, int] | None = None
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            order = json.loads(line)
            self._kill = (int(order["step"]), int(order["frame"]))
        os._exit(EXIT_FAILED)

    def frame_to_die_at(self, step: int) -> int | None:
        """The data frame of this step's all-reduce after which to be killed; usually None."""
        kill = self._kill
        return kill[1] if kill is not None and step >= kill[0] else None


class GroupMembers:
    """A group as the trainer wants to see it. Keeps a record of a step's all-reduces."""

    def __init__(self, group: collect.Group) -> None:
        self._group = group
        self.operations: list[Operation] = []

    @property
    def rank(self) -> int:
        return self._group.rank

    @property
    def size(self) -> int:
        return self._group.size

    def all_reduce(self, buffer: Floats) -> Floats:
        result = self._group.all_reduce(buffer)
        self.operations.append(
            Operation(
                op=result.op,
                attempts=result.attempts,
                participants=list(result.participants),
                submitted_ns=result.submitted_ns,
                completed_ns=result.completed_ns,
            )
        )
        return buffer


def main() -> int:
    """Train until all steps are done, whatever happens to this peer or to others."""
    arguments = _parse_arguments()
    orders = Orders()
    digits = Digits.load(arguments.data)
    trainer = Trainer(digits, seed=arguments.seed, batch_size=arguments.batch_size)
    min_peers = arguments.min_peers
    try:
        with threadpool_limits(1):  # peers share the machine's cores
            while not _train_as_member(trainer, arguments, orders, min_peers):
                min_peers = 1
    except collect.CollectError as error:
        _tell(Failed(f"{type(error).__name__}: {error}"))
        return EXIT_FAILED
    difference = float(np.abs(trainer.state["parameters"] - np.load(arguments.reference)).max())
    _tell(Finished(trainer.step, trainer.accuracy(), trainer.digest(), difference))
    return EXIT_OK


def _train_as_member(
    trainer: Trainer, arguments: argparse.Namespace, orders: Orders, min_peers: int
) -> bool:
    """One membership, from joining to the last step. False: the others went on without us."""
    group = collect.join(
        arguments.address,
        group="demo",
        name=arguments.name,
        min_peers=min_peers,
        timeout=arguments.timeout,
        admit="manual",
    )
    try:
        with group:
            _train(group, trainer, arguments, orders)
    except collect.Fenced as error:
        _tell(Fenced(time.monotonic_ns(), error.message))
        return False
    return True


def _train(
    group: collect.Group, trainer: Trainer, arguments: argparse.Namespace, orders: Orders
) -> None:
    is_new = True
    while True:
        began_ns = time.monotonic_ns()
        admission = group.admit(trainer.state)
        admit_ns = time.monotonic_ns() - began_ns
        if is_new:
            is_new = False
            now_ns = time.monotonic_ns()
            _tell(Joined(now_ns, group.rank, group.size, group.epoch, trainer.step))
        if trainer.step >= arguments.steps:
            break
        frame = orders.frame_to_die_at(trainer.step)
        if frame is not None:
            _tell(Armed(time.monotonic_ns(), trainer.step))
            group._kill_at(frame)
        members = GroupMembers(group)
        result = trainer.advance(members)
        _tell(
            Stepped(
                step=result.step,
                loss=result.loss,
                rank=group.rank,
                size=group.size,
                epoch=group.epoch,
                admitted=list(admission.joined),
                admit_ns=admit_ns,
                operations=members.operations,
            )
        )
        _tell_events(group)
        time.sleep(arguments.pace)  # so that a viewer can follow


def _tell_events(group: collect.Group) -> None:
    for event in group.events():
        _tell(
            Membership(
                event=event.kind.name,
                peer=event.peer,
                epoch=event.epoch,
                detail=event.detail,
                duration_s=event.duration_s,
            )
        )


def _tell(message: Message) -> None:
    print(encode(message), flush=True)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m collect.cli.demo.peer")
    parser.add_argument("--address", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--timeout", type=float, required=True)
    parser.add_argument("--pace", type=float, required=True)
    parser.add_argument("--min-peers", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
