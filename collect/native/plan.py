"""Plans of the C core: what each rank does in an all-reduce, and whether that is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from collect import native
from collect.config import Algorithm
from collect.errors import InvalidArgument
from collect.native import status
from collect.types import MEMBERS_MAX

BYTES_MAX = 1 << 62
E_MEMORY = -2
RANK_NONE = 0xFFFFFFFF
REASON_BYTES = 512


@dataclass(frozen=True, slots=True)
class Step:
    """struct collect_step of collect.h.

    Attributes:
        opcode: its name, such as "recv_reduce"; csrc/plan/plan.h says what each does.
        source: rank that it receives from, or None.
        target: rank that it sends to, or None.
        target_lane: where the target expects the frame.
        target_step: likewise; index in that lane.
        slice: which part of the payload it works on.
        is_final: the slice is the result after this step.
        is_scaled: an average is divided by the participants in this step.
    """

    opcode: str
    source: int | None
    target: int | None
    target_lane: int
    target_step: int
    slice: int
    is_final: bool
    is_scaled: bool


class Plan:
    """What `rank` does in an all-reduce over `world` ranks.

    Attributes:
        lanes: each an ordered list of steps; lanes run at the same time.
        slice_count: into how many parts the payload is cut.
    """

    def __init__(self, algorithm: Algorithm, world: int, rank: int) -> None:
        """Raises InvalidArgument, a ValueError, for a world or rank that cannot be."""
        _check_world(world)
        if not 0 <= rank < world:
            raise InvalidArgument(f"no rank {rank}: a world of {world} has ranks 0 to {world - 1}")
        self.algorithm = algorithm
        self.world = world
        self.rank = rank
        self._plan = _create(algorithm, world, rank)
        self.slice_count: int = native.lib.collect_plan_slice_count(self._plan)
        lane_count = native.lib.collect_plan_lane_count(self._plan)
        self.lanes = tuple(self._lane(lane) for lane in range(lane_count))

    def slice_range(self, slice_index: int, payload_bytes: int) -> tuple[int, int]:
        """First byte of a slice and the byte after its last, when `payload_bytes` are cut."""
        if not 0 <= slice_index < self.slice_count:
            raise InvalidArgument(f"no slice {slice_index}: the plan has {self.slice_count}")
        if not 0 <= payload_bytes <= BYTES_MAX:
            raise InvalidArgument(f"a payload of {payload_bytes} bytes is not in 0 to 2^62")
        bounds = native.ffi.new("uint64_t[2]")
        result = native.lib.collect_plan_slice(
            self._plan, slice_index, payload_bytes, bounds, bounds + 1
        )
        status.check(result, f"cut {payload_bytes} bytes")
        return bounds[0], bounds[1]

    def __str__(self) -> str:
        """One step per line, as the core prints it."""
        length = native.lib.collect_plan_print(self._plan, native.ffi.NULL, 0)
        text = native.ffi.new("char[]", length + 1)
        native.lib.collect_plan_print(self._plan, text, length + 1)
        return str(native.ffi.string(text).decode())

    def _lane(self, lane: int) -> tuple[Step, ...]:
        step = native.ffi.new("struct collect_step *")
        steps = []
        for index in range(native.lib.collect_plan_step_count(self._plan, lane)):
            status.check(native.lib.collect_plan_step(self._plan, lane, index, step), "read a step")
            steps.append(_step(step))
        return tuple(steps)


def check(algorithm: Algorithm, world: int, *, credit: int = 1) -> str | None:
    """Why the plans of a whole world are wrong, naming rank, lane and step; None: they are right.

    Args:
        credit: frames that a link may carry and nobody has taken yet, at least 1.
    """
    _check_world(world)
    if not 1 <= credit < RANK_NONE:
        raise InvalidArgument(f"a credit of {credit} frames is not at least 1")
    reason = native.ffi.new("char[]", REASON_BYTES)
    result = native.lib.collect_plan_check(
        algorithm_code(algorithm), world, credit, reason, REASON_BYTES
    )
    if result == status.E_INVALID:
        return str(native.ffi.string(reason).decode())
    _check_memory(result)
    status.check(result, "check the plans")
    return None


def _create(algorithm: Algorithm, world: int, rank: int) -> Any:
    box = native.ffi.new("collect_plan **")
    result = native.lib.collect_plan_create(algorithm_code(algorithm), world, rank, box)
    _check_memory(result)
    status.check(result, f"build the {algorithm.value} plan of rank {rank} of {world}")
    return native.ffi.gc(box[0], _destroy)


def _destroy(plan: Any) -> None:
    native.lib.collect_plan_destroy(native.ffi.new("collect_plan **", plan))


def _step(step: Any) -> Step:
    opcode = native.ffi.string(native.lib.collect_opcode_name(step.opcode)).decode()
    receives = "recv" in opcode
    target = step.next if receives else step.peer
    return Step(
        opcode=opcode,
        source=step.peer if receives else None,
        target=None if target == RANK_NONE else target,
        target_lane=step.peer_lane,
        target_step=step.peer_step,
        slice=step.slice,
        is_final=bool(step.is_final),
        is_scaled=bool(step.is_scaled),
    )


def algorithm_code(algorithm: Algorithm) -> int:
    """Its number in the C ABI."""
    code: int = getattr(native.lib, f"COLLECT_{algorithm.name}")
    return code


def _check_world(world: int) -> None:
    if not 1 <= world <= MEMBERS_MAX:
        raise InvalidArgument(f"a world of {world} ranks is not in 1 to {MEMBERS_MAX}")


def _check_memory(result: int) -> None:
    if result == E_MEMORY:
        raise MemoryError
