"""Algorithms of the user's own: described in Python, as trees, proven and run by the core.

A definition is a function that describes the algorithm for any number of ranks. What it says is
data: two trees for each slice. So the core can prove it before it runs, and members can tell
whether they mean the same by one name.
"""

from __future__ import annotations

import operator
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from collect import native
from collect.errors import InvalidArgument
from collect.native import plan as native_plan
from collect.native import status
from collect.native.codes import ALGORITHM_CODES, Collective
from collect.native.plan import BLOCKS, E_MEMORY, REASON_BYTES, ROOTED
from collect.types import MEMBERS_MAX

COLLECTIVES = (
    "all_reduce",
    "reduce_scatter",
    "all_gather",
    "broadcast",
    "reduce",
    "gather",
    "scatter",
)
REDUCTIONS = frozenset({"all_reduce", "reduce_scatter", "reduce"})
NUMBER_FIRST = 64  # COLLECT_ALGORITHM_DEFINED
NUMBER_MASK = 0x3FFFFFFF
# A definition is told apart by what it says of these worlds, whatever world it is used in.
IDENTITY_WORLDS = range(2, 9)
NAME = re.compile(r"[!-~]{1,31}")

Edges = tuple[tuple[int, int], ...]
Tree = Mapping[int, int] | Iterable[tuple[int, int]]


class Slice(NamedTuple):
    """What was said of a slice: (rank, parent) of each edge."""

    block: int
    weight: int
    reduce: Edges
    spread: Edges


class Plan:
    """A description of an algorithm for `world` ranks; a function under `collect.plan` fills it.

    Attributes:
        collective: what it is to do, such as "all_reduce".
        world: the number of ranks, 2 or more.
    """

    def __init__(self, collective: str, world: int) -> None:
        self.collective = collective
        self.world = world
        self._slices: list[Slice] = []

    def slice(
        self,
        *,
        reduce: Tree | None = None,
        spread: Tree | None = None,
        weight: int = 1,
        block: int | None = None,
    ) -> None:
        """Adds a slice of the payload, and the two trees that it goes along.

        A tree is a dict {rank: parent}, or pairs of them. Everybody sends its sum to its parent
        (`reduce`), and gets the result from its parent (`spread`). The order counts: a parent takes
        its children in the order in which they stand, and so it sends to them. Its own part comes
        after the first of its children that have lower ranks. Take children in the same order in
        all slices: else little credit may end in a deadlock, which the proof finds.

        Args:
            reduce: of reductions: every rank but one, which owns the slice and completes the sum.
            spread: from the owner, or else from the rank that contributes the slice, to all that
                need the result; ranks on the way may be any. None: the way back of `reduce` in an
                all-reduce, nothing in any other collective.
            weight: the slice's share of the payload, relative to the others'. 1 or more.
            block: of collectives with blocks (reduce_scatter, all_gather, gather, scatter): the
                rank whose block it is a part of. As many slices, of equal size, for each rank.

        Of rooted collectives the root is rank 0: with another root, ranks are counted from it on.

        Raises:
            InvalidArgument: it is no tree of numbers, or does not belong to this collective. What
                else can be wrong, the proof finds when the plan is checked or registered.
        """
        is_reduction = self.collective in REDUCTIONS
        if is_reduction != (reduce is not None):
            raise InvalidArgument(
                f"{self.collective} needs `reduce` for each slice"
                if is_reduction
                else f"{self.collective} reduces nothing: give `spread` only"
            )
        has_blocks = self.collective in BLOCKS
        if has_blocks != (block is not None):
            raise InvalidArgument(
                f"{self.collective} needs the `block` that each slice is of"
                if has_blocks
                else f"{self.collective} has no blocks"
            )
        up = _edges(reduce, "reduce")
        is_way_back = spread is None and self.collective == "all_reduce"
        down = up if is_way_back else _edges(spread, "spread")
        made = Slice(_number(block or 0, "block"), _number(weight, "weight"), up, down)
        self._slices.append(made)

    @property
    def slices(self) -> tuple[Slice, ...]:
        """What was said, with the slices of each block together."""
        return tuple(sorted(self._slices, key=lambda each: each.block))


@dataclass(frozen=True)
class Definition:
    """An algorithm of the user's own; made by `collect.plan`.

    Attributes:
        name: what calls say as `algorithm`.
        collective: what it can do.
        function: describes it for the world of the plan that it gets. It must say the same on every
            member. Where it adds no slice there is no plan, and calls are done as by "auto".
    """

    name: str
    collective: str
    function: Callable[[Plan], None]

    def __call__(self, plan: Plan) -> None:
        self.function(plan)

    def describe(self, world: int) -> Plan | None:
        """The description for a world of 2 or more; None where there is none."""
        plan = Plan(self.collective, world)
        self.function(plan)
        return plan if plan.slices else None

    @cached_property
    def number(self) -> int:
        """Its number in calls, which follows from what it says: different definitions have
        different numbers, also under one name."""
        said = [self.name, self.collective]
        for world in IDENTITY_WORLDS:
            try:
                plan = self.describe(world)
            except Exception as error:  # of a world that may never be: told when it is
                said.append(type(error).__name__)
            else:
                said.append(repr(plan and plan.slices))
        return NUMBER_FIRST + (zlib.crc32("\n".join(said).encode()) & NUMBER_MASK)

    def check(self, world: int) -> str | None:
        """Why it is wrong for a world, naming slice and rank, or rank, lane and step; None: it is
        right, or there is none. Raises what the function raises."""
        native.require()
        if not 2 <= world <= MEMBERS_MAX:
            raise InvalidArgument(f"a world of {world} ranks is not in 2 to {MEMBERS_MAX}")
        plan = self.describe(world)
        if plan is None:
            return None
        struct = Struct(self, plan)
        return _ask(native.lib.collect_definition_check, struct.pointer)

    def add_to(self, comm: Any, world: int) -> str | None:
        """Has a comm of the core know it for a world; why it is refused, as `check` says it."""
        plan = self.describe(world)
        if plan is None:
            return None
        struct = Struct(self, plan)
        return _ask(native.lib.collect_comm_define, comm, struct.pointer)


def plan(
    name: str, *, collective: str = "all_reduce"
) -> Callable[[Callable[[Plan], None]], Definition]:
    """Makes an algorithm of your own of a function that describes it.

        @collect.plan("chain")
        def chain(plan: collect.Plan) -> None:
            plan.slice(reduce={rank: rank - 1 for rank in range(plan.world - 1, 0, -1)})

    The function is called for each number of ranks that is needed, in any thread. `Group.register`
    proves what it says and lets calls use it; `collect plan --file` prints it with its proof.

    Args:
        name: 1 to 31 printable characters, and no built-in algorithm's.
        collective: one of all_reduce, reduce_scatter, all_gather, broadcast, reduce, gather,
            scatter.

    Raises:
        InvalidArgument: the name or the collective is not one of these.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or name in ALGORITHM_CODES:
        raise InvalidArgument(
            f"a plan's name is {name!r}; it must be 1 to 31 printable characters without spaces, "
            f"and none of {', '.join(ALGORITHM_CODES)}"
        )
    if collective not in COLLECTIVES:
        raise InvalidArgument(
            f"no plans of {collective!r} can be made; only of {', '.join(COLLECTIVES)}"
        )
    return lambda function: Definition(name, collective, function)


class Struct:
    """struct collect_definition at `pointer`, for as long as this lives."""

    def __init__(self, definition: Definition, plan: Plan) -> None:
        ffi = native.ffi
        said = plan.slices
        slices = ffi.new("struct collect_slice[]", len(said))
        kept = [slices]
        for target, each in zip(slices, said, strict=True):
            target.block, target.weight = each.block, each.weight
            for name, edges in (("reduce", each.reduce), ("spread", each.spread)):
                array = ffi.new("struct collect_edge[]", edges or 1)
                kept.append(array)
                setattr(target, name, array)
                setattr(target, f"{name}_count", len(edges))
        name = ffi.new("char[]", definition.name.encode())
        self.pointer = ffi.new("struct collect_definition *")
        self.pointer.name = name
        self.pointer.algorithm = definition.number
        self.pointer.collective = int(Collective[plan.collective.upper()])
        self.pointer.world = plan.world
        self.pointer.slices = slices
        self.pointer.slice_count = len(said)
        self._kept = [*kept, name]


class RankPlan(native_plan.Plan):
    """What `rank` does by a definition; made by RankPlans."""

    def __init__(self, definition: Definition, world: int, rank: int, root: int, made: Any) -> None:
        self.label = definition.name
        self.algorithm = None
        self.collective = definition.collective
        self.world = world
        self.rank = rank
        self.root = root if definition.collective in ROOTED else None
        self._read(made)


class RankPlans:
    """The plans of a world by a definition. Raises InvalidArgument where there are none."""

    def __init__(self, definition: Definition, world: int, root: int = 0) -> None:
        described = definition.describe(world)
        if described is None:
            raise InvalidArgument(f"{definition.name} has no plan for {world} ranks")
        self._definition = definition
        self._world = world
        self._root = root
        self._struct = Struct(definition, described)

    def of_rank(self, rank: int) -> RankPlan:
        """Raises InvalidArgument: it is no rank, or the definition is wrong, as its `check` says;
        MemoryError."""
        name, world = self._definition.name, self._world
        box = native.ffi.new("collect_plan **")
        result = native.lib.collect_definition_plan(self._struct.pointer, self._root, rank, box)
        if result == E_MEMORY:
            raise MemoryError
        if result == status.E_INVALID:
            raise InvalidArgument(f"{name} has no plan of rank {rank} of {world}")
        status.check(result, f"build the {name} plan of rank {rank} of {world}")
        return RankPlan(self._definition, world, rank, self._root, box[0])


def _ask(function: Any, *arguments: Any) -> str | None:
    """A function of the core's that proves: its reason; None: right."""
    reason = native.ffi.new("char[]", REASON_BYTES)
    result = function(*arguments, reason, REASON_BYTES)
    if result == status.E_INVALID:
        return str(native.ffi.string(reason).decode())
    if result == E_MEMORY:
        raise MemoryError
    status.check(result, "prove a definition")
    return None


def _edges(tree: Tree | None, role: str) -> Edges:
    if tree is None:
        return ()
    try:
        pairs = tree.items() if isinstance(tree, Mapping) else tree
        found = [(rank, parent) for rank, parent in pairs]
    except (TypeError, ValueError):
        raise InvalidArgument(f"{role} is no tree {{rank: parent}}, nor pairs of these") from None
    return tuple((_number(rank, role), _number(parent, role)) for rank, parent in found)


def _number(value: Any, role: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number < native_plan.RANK_NONE or isinstance(value, bool):
        raise InvalidArgument(f"{role} has {value!r}; it must be a number of 0 to 2^32 - 2")
    return number
