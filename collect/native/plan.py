"""Plans of the C core: what each rank does in a collective, and whether that is right."""

from __future__ import annotations

from collections.abc import Sequence
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
EXPLANATION_BYTES = 4096
LEVELS_MAX = 4
COLLECTIVES = (
    "all_reduce",
    "reduce_scatter",
    "all_gather",
    "all_to_all",
    "broadcast",
    "reduce",
    "gather",
    "scatter",
    "barrier",
)
ROOTED = frozenset({"broadcast", "reduce", "gather", "scatter"})
BLOCKS = frozenset({"reduce_scatter", "all_gather", "all_to_all", "gather", "scatter"})


@dataclass(frozen=True, slots=True)
class LinkModel:
    """What the model of an algorithm's time knows of links; struct collect_link_model."""

    latency_ns: int
    overhead_ns: int
    bytes_per_s: int


LOCAL_LINK = LinkModel(5_000, 1_000, 5_000_000_000)
REMOTE_LINK = LinkModel(50_000, 5_000, 1_250_000_000)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What plans follow from; struct collect_recipe.

    Attributes:
        hosts: by rank, the number of its host; None: all on their own.
        weights: by rank, owner shares of direct exchange; None: equal.
        order: ranks in the order of the ring; None: 0, 1, 2, ...
        radices: of the levels of the hierarchical algorithm, innermost first; (): by hosts.
    """

    algorithm: Algorithm = Algorithm.DIRECT
    hosts: Sequence[int] | None = None
    weights: Sequence[int] | None = None
    order: Sequence[int] | None = None
    radices: Sequence[int] = ()
    local: LinkModel = LOCAL_LINK
    remote: LinkModel = REMOTE_LINK
    reduce_bytes_per_s: int = 10_000_000_000


@dataclass(frozen=True, slots=True)
class Step:
    """struct collect_step of collect.h.

    Attributes:
        opcode: its name, such as "recv_reduce"; csrc/plan/plan.h says what each does.
        source: rank that it receives from, or None.
        target: rank that it sends to, or None.
        target_lane: where the target expects the frame.
        target_step: likewise; index in that lane.
        is_final: the slice is the result after this step.
        is_scaled: an average is divided by the participants in this step.
    """

    opcode: str
    source: int | None
    target: int | None
    target_lane: int
    target_step: int
    is_final: bool
    is_scaled: bool


class Plan:
    """What `rank` does in a collective over `world` ranks.

    Attributes:
        label: the algorithm's name; `algorithm` is None of a definition's plan.
        lanes: each an ordered list of steps; lanes run at the same time.
        slices: by lane, the slice that it works on.
        slice_count: into how many parts the payload is cut; of each block, where there are blocks.
    """

    def __init__(
        self,
        recipe: Recipe | Algorithm,
        world: int,
        rank: int,
        *,
        collective: str = "all_reduce",
        root: int = 0,
    ) -> None:
        """Raises InvalidArgument, a ValueError, for what cannot be: a world or rank out of range,
        an algorithm that cannot do the collective, a recipe that does not fit the world."""
        self.recipe = recipe if isinstance(recipe, Recipe) else Recipe(recipe)
        _check_request(self.recipe, collective, world, root)
        if not 0 <= rank < world:
            raise InvalidArgument(f"no rank {rank}: a world of {world} has ranks 0 to {world - 1}")
        self.algorithm: Algorithm | None = self.recipe.algorithm
        self.label = self.recipe.algorithm.value
        self.collective = collective
        self.world = world
        self.rank = rank
        self.root = root if collective in ROOTED else None
        self._read(_create(self.recipe, collective, world, root, rank))

    def _read(self, plan: Any) -> None:
        """Takes the C object over."""
        self._plan = native.ffi.gc(plan, _destroy)
        self.slice_count: int = native.lib.collect_plan_slice_count(self._plan)
        lane_count = native.lib.collect_plan_lane_count(self._plan)
        self.lanes = tuple(self._lane(lane) for lane in range(lane_count))
        self.slices = tuple(
            native.lib.collect_plan_lane_slice(self._plan, lane) for lane in range(lane_count)
        )

    def slice_range(self, slice_index: int, payload_bytes: int) -> tuple[int, int]:
        """First byte of a slice and the byte after its last, when `payload_bytes` are cut: of the
        payload, or of the slice's block where there are blocks."""
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


def has(algorithm: Algorithm, collective: str) -> bool:
    """Whether the algorithm can do the collective."""
    code = native.lib.collect_algorithm_has(algorithm_code(algorithm), _collective_code(collective))
    return bool(code)


def check(
    recipe: Recipe | Algorithm,
    world: int,
    *,
    collective: str = "all_reduce",
    root: int = 0,
    credit: int = 1,
) -> str | None:
    """Why the plans of a whole world are wrong, naming rank, lane and step; None: they are right.

    Args:
        credit: frames that a link may carry and nobody has taken yet, at least 1.

    Raises:
        InvalidArgument: as for Plan.
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe(recipe)
    _check_request(recipe, collective, world, root)
    if not 1 <= credit < RANK_NONE:
        raise InvalidArgument(f"a credit of {credit} frames is not at least 1")
    reason = native.ffi.new("char[]", REASON_BYTES)
    pointer, _kept = _recipe(recipe)
    result = native.lib.collect_plan_check(
        pointer, _collective_code(collective), world, root, credit, reason, REASON_BYTES
    )
    if result == status.E_INVALID:
        return str(native.ffi.string(reason).decode())
    _check_memory(result)
    status.check(result, "check the plans")
    return None


def choose(
    recipe: Recipe, world: int, payload_bytes: int, *, collective: str = "all_reduce"
) -> tuple[Algorithm, str]:
    """Which algorithm a call of `payload_bytes` (of all blocks together) gets, and the model's
    table: a line for each candidate. Raises InvalidArgument as for Plan."""
    _check_world(world)
    _check_lengths(recipe, world)
    if not 0 <= payload_bytes <= BYTES_MAX:
        raise InvalidArgument(f"a payload of {payload_bytes} bytes is not in 0 to 2^62")
    text = native.ffi.new("char[]", EXPLANATION_BYTES)
    pointer, _kept = _recipe(recipe)
    code = native.lib.collect_choose(
        pointer, _collective_code(collective), world, payload_bytes, text, EXPLANATION_BYTES
    )
    status.check(min(code, 0), "choose an algorithm")
    chosen = next(each for each in Algorithm if algorithm_code(each) == code)
    return chosen, str(native.ffi.string(text).decode())


def _recipe(recipe: Recipe) -> tuple[Any, list[Any]]:
    """The C structure, and what it points to."""
    pointer = native.ffi.new("struct collect_recipe *")
    kept = []
    pointer.algorithm = algorithm_code(recipe.algorithm)
    for name in ("local", "remote"):
        model: LinkModel = getattr(recipe, name)
        target = getattr(pointer, name)
        target.latency_ns = model.latency_ns
        target.overhead_ns = model.overhead_ns
        target.bytes_per_s = model.bytes_per_s
    pointer.reduce_bytes_per_s = recipe.reduce_bytes_per_s
    for name in ("hosts", "weights", "order"):
        values = getattr(recipe, name)
        if values is not None:
            kept.append(native.ffi.new("uint32_t[]", list(values)))
            setattr(pointer, name, kept[-1])
    pointer.level_count = len(recipe.radices)
    for level, radix in enumerate(recipe.radices):
        pointer.radices[level] = radix
    return pointer, kept


def _create(recipe: Recipe, collective: str, world: int, root: int, rank: int) -> Any:
    box = native.ffi.new("collect_plan **")
    pointer, _kept = _recipe(recipe)
    result = native.lib.collect_plan_create(
        pointer, _collective_code(collective), world, root, rank, box
    )
    _check_memory(result)
    if result == status.E_INVALID:
        raise InvalidArgument(
            f"the recipe does not fit {recipe.algorithm.value} {collective} of {world} ranks"
        )
    status.check(result, f"build the {recipe.algorithm.value} plan of rank {rank} of {world}")
    return box[0]


def _destroy(plan: Any) -> None:
    native.lib.collect_plan_destroy(native.ffi.new("collect_plan **", plan))


def _step(step: Any) -> Step:
    opcode = native.ffi.string(native.lib.collect_opcode_name(step.opcode)).decode()
    receives = "recv" in opcode or opcode in ("in_reduce_send", "out_reduce_send")
    target = step.next if receives else step.peer
    return Step(
        opcode=opcode,
        source=step.peer if receives else None,
        target=None if target == RANK_NONE else target,
        target_lane=step.peer_lane,
        target_step=step.peer_step,
        is_final=bool(step.is_final),
        is_scaled=bool(step.is_scaled),
    )


def algorithm_code(algorithm: Algorithm) -> int:
    """Its number in the C ABI."""
    code: int = getattr(native.lib, f"COLLECT_{algorithm.name}")
    return code


def _collective_code(collective: str) -> int:
    if collective not in COLLECTIVES:
        raise InvalidArgument(f"no collective {collective!r}: one of {', '.join(COLLECTIVES)}")
    code: int = getattr(native.lib, f"COLLECT_{collective.upper()}")
    return code


def _check_request(recipe: Recipe, collective: str, world: int, root: int) -> None:
    _check_world(world)
    _check_lengths(recipe, world)
    if not has(recipe.algorithm, collective):
        raise InvalidArgument(f"{recipe.algorithm.value} cannot do {collective}")
    if collective in ROOTED and not 0 <= root < world:
        raise InvalidArgument(f"no root {root}: a world of {world} has ranks 0 to {world - 1}")


def _check_lengths(recipe: Recipe, world: int) -> None:
    for name in ("hosts", "weights", "order"):
        values = getattr(recipe, name)
        if values is not None and len(values) != world:
            raise InvalidArgument(f"{name} of {len(values)} ranks for a world of {world}")
        if values is not None and not all(0 <= value < RANK_NONE for value in values):
            raise InvalidArgument(f"{name} are not all in 0 to 2^32 - 2")
    if len(recipe.radices) > LEVELS_MAX:
        raise InvalidArgument(f"{len(recipe.radices)} levels are more than {LEVELS_MAX}")
    if not all(1 <= radix <= MEMBERS_MAX for radix in recipe.radices):
        raise InvalidArgument(f"radices are not all in 1 to {MEMBERS_MAX}")


def _check_world(world: int) -> None:
    if not 1 <= world <= MEMBERS_MAX:
        raise InvalidArgument(f"a world of {world} ranks is not in 1 to {MEMBERS_MAX}")


def _check_memory(result: int) -> None:
    if result == E_MEMORY:
        raise MemoryError
