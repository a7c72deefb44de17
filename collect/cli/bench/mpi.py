"""MPI through mpi4py: upper-case calls on buffers that stay the same. Needs mpi4py and an MPI."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from mpi4py import MPI

from collect.cli.bench.cases import IN_PLACE, ROOT, Variant
from collect.cli.bench.libraries import Call, Membership, Unavailable, private_array
from collect.cli.bench.operands import Array, Operands

METHODS = {
    "all-reduce": "Allreduce",
    "reduce-scatter": "Reduce_scatter_block",
    "all-gather": "Allgather",
    "all-to-all": "Alltoall",
    "broadcast": "Bcast",
    "reduce": "Reduce",
    "gather": "Gather",
    "scatter": "Scatter",
    "barrier": "Barrier",
    "send-recv": "Sendrecv",
}
OPS = {"sum": MPI.SUM, "prod": MPI.PROD, "min": MPI.MIN, "max": MPI.MAX}
OPS |= {"and": MPI.BAND, "or": MPI.BOR, "xor": MPI.BXOR}
# What a library's own name for itself begins with, and what it is called here.
FLAVOURS = {"Open MPI": "openmpi", "Intel": "intelmpi", "MPICH": "mpich"}
# Of others, in release 2021.18, the persistent form ends the process or gives wrong results.
INTEL_PERSISTENT = ("all-reduce", "reduce-scatter", "reduce", "broadcast", "send-recv")


class Mpi:
    """MPI_COMM_WORLD."""

    def __init__(self, membership: Membership) -> None:
        self._world = MPI.COMM_WORLD
        self.rank = self._world.rank
        name = MPI.Get_library_version().splitlines()[0].split(", package")[0]
        self.version = " ".join(name.replace("\0", "").split())
        self._flavour = next(
            (flavour for word, flavour in FLAVOURS.items() if self.version.startswith(word)), ""
        )
        wanted = membership.library.removesuffix("-ofi")
        if wanted not in ("mpi", self._flavour):
            raise RuntimeError(f"mpi4py has loaded {self.version!r} instead")
        if self._world.size != membership.world:
            raise RuntimeError(f"the launcher made a world of {self._world.size}: another MPI's?")
        self._requests: list[MPI.Prequest] = []

    def make(self, count: int, dtype: np.dtype[Any], arrays: str) -> Array:
        return private_array(count, dtype)

    def prepare(self, operands: Operands, variant: Variant) -> Call:
        collective = operands.case.collective
        method, arguments = METHODS[collective], self._arguments(operands)
        if variant.mode == "call":
            call = getattr(self._world, method)
            return lambda: call(*arguments)
        if self._flavour == "intelmpi" and collective not in INTEL_PERSISTENT:
            raise Unavailable("its persistent form does not work")
        if collective == "send-recv":
            return self._persistent_shift(operands)
        try:
            request = getattr(self._world, f"{method}_init")(*arguments)
        except (AttributeError, NotImplementedError, MPI.Exception) as error:
            raise Unavailable(f"no {method}_init: {error}") from None
        self._requests.append(request)

        def run() -> None:
            request.Start()
            request.Wait()

        return run

    def _arguments(self, operands: Operands) -> tuple[Any, ...]:
        collective, op = operands.case.collective, operands.case.op
        if op and op not in OPS:
            raise Unavailable(f"no {op}")
        source: Any = operands.source
        target: Any = operands.target
        if collective == "barrier":
            return ()
        if collective == "broadcast":
            return (source, ROOT)
        if collective == "send-recv":
            to, origin = (self.rank + 1) % self._world.size, (self.rank - 1) % self._world.size
            return (source, to, 0, target, origin, 0)
        if operands.case.placement == IN_PLACE:
            if collective == "scatter":
                target = MPI.IN_PLACE if self.rank == ROOT else target
            elif collective == "reduce-scatter":
                # The result lies at the beginning of the buffer there, and not at the own block.
                raise Unavailable("its in-place result lies elsewhere")
            elif collective in ("reduce", "gather"):
                source = MPI.IN_PLACE if self.rank == ROOT else source
            else:
                source = MPI.IN_PLACE
        if collective in ("gather", "scatter"):
            return (source, target, ROOT)
        if collective == "reduce":
            return (source, target, OPS[op], ROOT)
        return (source, target, OPS[op]) if op else (source, target)

    def _persistent_shift(self, operands: Operands) -> Call:
        source, to, _, target, origin, _ = self._arguments(operands)
        requests = [self._world.Send_init(source, to), self._world.Recv_init(target, origin)]
        self._requests += requests

        def run() -> None:
            MPI.Prequest.Startall(requests)
            MPI.Request.Waitall(requests)

        return run

    def barrier(self) -> None:
        self._world.Barrier()

    def release(self) -> None:
        if self._flavour == "intelmpi":
            return  # in release 2021.18 one that is freed may take the communicator with it
        for request in self._requests:
            with contextlib.suppress(MPI.Exception):
                request.Free()
        self._requests.clear()

    def close(self) -> None:
        MPI.Finalize()
