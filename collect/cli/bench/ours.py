"""This library, measured through the interface that its users have."""

from __future__ import annotations

from typing import Any

import numpy as np

import collect
from collect import native
from collect.cli.bench import installed
from collect.cli.bench.cases import COLLECTIVES, ROOT, Variant
from collect.cli.bench.libraries import Call, Membership, Unavailable, private_array
from collect.cli.bench.operands import Array, Operands

TIMEOUT_S = 30.0  # of the group: another library may keep every core busy meanwhile
TAKES_ROOT = ("broadcast", "reduce", "gather", "scatter")


class Collect:
    """A member of a group of its own."""

    def __init__(self, membership: Membership) -> None:
        choices: dict[str, Any] = {}
        if installed.transports() != [installed.TCP]:
            # Members on one host share memory unless they are told not to.
            is_tcp = membership.transport == installed.TCP
            choices["transport"] = installed.TCP if is_tcp else installed.AUTO
        if membership.algorithm:
            choices["algorithm"] = membership.algorithm
        # collect.join is typed by each release; what this one takes was asked of it.
        join: Any = collect.join
        self._group: Any = join(
            membership.meeting,
            group="bench",
            name=f"process-{membership.rank}",
            min_peers=membership.world,
            timeout=TIMEOUT_S,
            streams=membership.streams,
            **choices,
        )
        self._world = membership.world
        self._transport = membership.transport
        self.rank: int = self._group.rank
        if self._transport == installed.SHM and self._group.barrier().transport != installed.SHM:
            raise Unavailable("these processes could not share memory")
        self.version = native.ffi.string(native.lib.collect_version()).decode()

    def make(self, count: int, dtype: np.dtype[Any], arrays: str) -> Array:
        if arrays == installed.PRIVATE:
            return private_array(count, dtype)
        package: Any = collect  # typed by each release, as join is
        array: Array = package.empty((count,), dtype)
        return array

    def prepare(self, operands: Operands, variant: Variant) -> Call:
        collective = operands.case.collective
        method = COLLECTIVES[collective].method
        if collective == "send-recv":
            return self._shift(operands, variant)
        arguments, options = self._arguments(operands, variant)
        if variant.mode not in installed.modes(collective):
            raise Unavailable("it has no persistent form")
        if variant.mode == installed.PERSISTENT:
            prepared: Call = getattr(self._group, f"{method}_init")(*arguments, **options)
            return prepared
        call = getattr(self._group, method)
        return lambda: call(*arguments, **options)

    def _shift(self, operands: Operands, variant: Variant) -> Call:
        """To the next rank, from the one before."""
        if self._transport == installed.SHM:
            raise Unavailable("messages go over TCP")
        if variant.mode == installed.PERSISTENT:
            raise Unavailable("it has no persistent form")
        names = [peer.name for peer in self._group.peers]
        to, source = names[(self.rank + 1) % self._world], names[(self.rank - 1) % self._world]
        sendrecv = self._group.sendrecv
        return lambda: sendrecv(operands.source, to, operands.target, source)

    def barrier(self) -> None:
        self._group.barrier()

    def release(self) -> None:
        """Prepared operations go with their last reference."""

    def close(self) -> None:
        self._group.leave()

    def _arguments(
        self, operands: Operands, variant: Variant
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        collective = operands.case.collective
        if collective == "barrier":
            return (), {}
        arguments = (operands.source,) + ((operands.case.op,) if operands.case.op else ())
        options: dict[str, Any] = {}
        is_usual = collective in ("all-reduce", "reduce", "broadcast")  # in place without a word
        if not (is_usual and operands.target is operands.source):
            options["out"] = operands.target
            if collective in ("all-gather", "gather") and operands.target is not None:
                # Blocks are stacked, each in its own shape.
                options["out"] = operands.target.reshape(self._world, -1)
        if collective in TAKES_ROOT:
            options["root"] = ROOT
        if variant.algorithm and installed.takes_algorithm(collective):
            options["algorithm"] = variant.algorithm
        return arguments, options
