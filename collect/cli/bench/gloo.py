"""torch.distributed with the gloo back end: loopback TCP. Needs torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import distributed

from collect.cli.bench.cases import IN_PLACE, ROOT, Variant
from collect.cli.bench.libraries import Call, Membership, Unavailable, private_array
from collect.cli.bench.operands import Array, Operands

OPS = {"sum": "SUM", "prod": "PRODUCT", "min": "MIN", "max": "MAX"}
OPS |= {"and": "BAND", "or": "BOR", "xor": "BXOR"}


class Gloo:
    """A process group."""

    def __init__(self, membership: Membership) -> None:
        torch.set_num_threads(1)  # as many as the others have
        distributed.init_process_group(
            "gloo",
            init_method=f"file://{membership.meeting}",
            rank=membership.rank,
            world_size=membership.world,
        )
        self.rank = membership.rank
        self._world = membership.world
        self.version = f"gloo of torch {torch.__version__}"

    def make(self, count: int, dtype: np.dtype[Any], arrays: str) -> Array:
        return private_array(count, dtype)

    def prepare(self, operands: Operands, variant: Variant) -> Call:
        collective, op = operands.case.collective, operands.case.op
        if op and op not in OPS:
            raise Unavailable(f"no {op}")
        source, target = _tensor(operands.source), _tensor(operands.target)
        kind = getattr(distributed.ReduceOp, OPS[op]) if op else None
        is_in_place = operands.case.placement == IN_PLACE
        if collective == "all-reduce" and is_in_place:
            return lambda: distributed.all_reduce(source, kind)
        if collective == "reduce" and is_in_place:
            return lambda: distributed.reduce(source, ROOT, kind)
        if collective in ("all-reduce", "reduce"):
            raise Unavailable("in place only")
        if collective == "reduce-scatter":
            return lambda: distributed.reduce_scatter_tensor(target, source, kind)
        if collective == "all-gather":
            return lambda: distributed.all_gather_into_tensor(target, source)
        if collective == "all-to-all":
            if is_in_place:
                raise Unavailable("out of place only")
            return lambda: distributed.all_to_all_single(target, source)
        if collective == "broadcast":
            return lambda: distributed.broadcast(source, ROOT)
        if collective == "gather":
            parts = None if target is None else list(target.chunk(self._world))
            return lambda: distributed.gather(source, parts, ROOT)
        if collective == "scatter":
            blocks = None if source is None else list(source.chunk(self._world))
            return lambda: distributed.scatter(target, blocks, ROOT)
        if collective == "barrier":
            return lambda: distributed.barrier()  # noqa: PLW0108 - untyped without torch
        return lambda: self._shift(source, target)

    def _shift(self, source: Any, target: Any) -> None:
        sending = distributed.isend(source, (self.rank + 1) % self._world)
        distributed.recv(target, (self.rank - 1) % self._world)
        sending.wait()

    def barrier(self) -> None:
        distributed.barrier()

    def release(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        distributed.destroy_process_group()


def _tensor(array: Array | None) -> Any:
    """A tensor of the same memory."""
    if array is None:
        return None
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise Unavailable(str(error)) from None
