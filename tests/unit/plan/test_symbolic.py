"""Plans, run by an executor that shares nothing with the one that is shipped.

Plans are read through the C ABI and run on expressions in place of numbers, so that the order of
additions is checked, not only which contributions are in. What goes on next is chosen by a policy:
in order, in reverse, at random, or with some lanes and links starved. Larger worlds are left to the
checker of the core, which is checked here against the same plans.
"""

import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect import native
from collect.config import Algorithm
from collect.native.plan import BLOCKS, COLLECTIVES, ROOTED, Recipe, check, has

ffi, lib = native.ffi, native.lib
BYTES_MAX = 1 << 62
QUANTUM_BYTES = 64
WINDOW = 2  # iterations under way, of lanes that begin by themselves
NONE = 0xFFFFFFFF
REDUCING = ("all_reduce", "reduce", "reduce_scatter", "barrier")
CASES = [
    (algorithm, collective)
    for algorithm in Algorithm
    if algorithm is not Algorithm.AUTO
    for collective in COLLECTIVES
    if has(algorithm, collective)
]
RANK_ORDERED = (Algorithm.DIRECT, Algorithm.STAR, Algorithm.EXCHANGE)
WORLDS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16, 17)

Lane = tuple[int, int]  # rank, lane
Place = tuple[int, int, int]  # rank, lane, step


@dataclass(frozen=True, slots=True)
class Step:
    opcode: str
    is_final: bool
    is_scaled: bool
    slice: int
    peer: int
    next: int
    peer_lane: int
    peer_step: int

    @property
    def receives(self) -> bool:
        return "recv" in self.opcode or self.opcode in ("in_reduce_send", "out_reduce_send")


# ---- reading -------------------------------------------------------------------------------------


@dataclass
class World:
    collective: str
    size: int
    root: int
    slice_count: int
    parts: int
    plans: list[list[list[Step]]]

    def contributors(self, slice_index: int) -> list[int]:
        """As the table of csrc/plan/plan.h says."""
        if self.collective in ("broadcast", "scatter"):
            return [self.root]
        if self.collective in ("all_gather", "gather"):
            return [slice_index // self.parts]
        if self.collective == "all_to_all":
            return [slice_index // self.size]
        return list(range(self.size))

    def needers(self, slice_index: int) -> list[int]:
        if self.collective in ("reduce", "gather"):
            return [self.root]
        if self.collective in ("reduce_scatter", "scatter"):
            return [slice_index // self.parts]
        if self.collective == "all_to_all":
            return [slice_index % self.size]
        return list(range(self.size))


def read_plan(recipe: object, collective: str, size: int, root: int, rank: int) -> list[list[Step]]:
    box = ffi.new("collect_plan **")
    code = COLLECTIVES.index(collective)
    assert lib.collect_plan_create(recipe, code, size, root, rank, box) == 0
    step = ffi.new("struct collect_step *")
    lanes = []
    for lane in range(lib.collect_plan_lane_count(box[0])):
        steps = []
        for index in range(lib.collect_plan_step_count(box[0], lane)):
            assert lib.collect_plan_step(box[0], lane, index, step) == 0
            steps.append(
                Step(
                    ffi.string(lib.collect_opcode_name(step.opcode)).decode(),
                    bool(step.is_final),
                    bool(step.is_scaled),
                    lib.collect_plan_lane_slice(box[0], lane),
                    step.peer,
                    step.next,
                    step.peer_lane,
                    step.peer_step,
                )
            )
        lanes.append(steps)
    lib.collect_plan_destroy(box)
    assert box[0] == ffi.NULL
    return lanes


def read_world(algorithm: Algorithm, collective: str, size: int, root: int = 0) -> World:
    recipe = ffi.new("struct collect_recipe *")
    recipe.algorithm = getattr(lib, f"COLLECT_{algorithm.name}")
    hosts = ffi.new("uint32_t[]", [rank // 3 for rank in range(size)])
    recipe.hosts = hosts
    plans = [read_plan(recipe, collective, size, root, rank) for rank in range(size)]
    slice_count = 1 + max(step.slice for plan in plans for lane in plan for step in lane)
    parts = slice_count // size if collective in BLOCKS - {"all_to_all"} else 1
    return World(collective, size, root, slice_count, parts, plans)


# ---- expressions ---------------------------------------------------------------------------------


class Wrong(AssertionError):
    """The plans are not a correct collective."""


class Expressions:
    """Each different expression has one number, so that equality is cheap."""

    def __init__(self, world: int) -> None:
        self.world = world
        self._numbers: dict[tuple[str, int, int], int] = {}
        self._operands: dict[int, frozenset[int]] = {}
        self._scaled: set[int] = set()

    def add(self, left: int, right: int) -> int:
        if self.operands(left) & self.operands(right):
            raise Wrong("a contribution is added a second time")
        return self._number("+", left, right)

    def operands(self, number: int) -> frozenset[int]:
        """The ranks that are in."""
        return self._operands.get(number, frozenset({number}))

    def scale(self, operand: int) -> int:
        if operand in self._scaled:
            raise Wrong("what is scaled is scaled again")
        number = self._number("/", operand, operand)
        self._scaled.add(number)
        return number

    def is_scaled(self, number: int) -> bool:
        return number in self._scaled

    def fold(self, ranks: list[int]) -> int:
        """Scaled sum in the order given, from the left."""
        total = ranks[0]
        for rank in ranks[1:]:
            total = self.add(total, rank)
        return self.scale(total)

    def _number(self, operator: str, left: int, right: int) -> int:
        key = (operator, left, right)
        number = self._numbers.setdefault(key, self.world + len(self._numbers))
        self._operands[number] = self.operands(left) | self.operands(right)
        return number


# ---- execution -----------------------------------------------------------------------------------


Agent = tuple[str, int, int, int]  # a lane's iteration: rank, lane, chunk; a link: from, to, 0
Policy = Callable[[list[Agent], random.Random], int]


def oldest(_ready: list[Agent], _rng: random.Random) -> int:
    return 0


def newest(ready: list[Agent], _rng: random.Random) -> int:
    return len(ready) - 1


def at_random(ready: list[Agent], rng: random.Random) -> int:
    return rng.randrange(len(ready))


def starving(ready: list[Agent], rng: random.Random) -> int:
    """Half of the lanes and links, always the same, move only when hardly anything else can."""
    for _ in range(8):
        index = rng.randrange(len(ready))
        _, first, second, _ = ready[index]
        if (first * 0x9E3779B1 ^ second * 0x85EBCA77) >> 9 & 1:
            break
    return index


POLICIES: tuple[Policy, ...] = (oldest, newest, at_random, starving)


@dataclass
class Frame:
    slice: int
    chunk: int
    place: Place
    value: int
    hop: int


@dataclass
class Link:
    queue: deque[Frame] = field(default_factory=deque)
    unconsumed: int = 0
    is_ready: bool = False


@dataclass
class Iteration:
    lane: Lane
    chunk: int
    at: int = 0
    hops: int = 0
    is_waiting: bool = False
    is_starting: bool = True


class Executor:
    """Runs the plans of a whole world, `chunks[s]` chunks of slice s, at most `credit` per link."""

    def __init__(
        self, world: World, chunks: list[int], credit: int, policy: Policy, rng: random.Random
    ) -> None:
        self.world = world
        self.chunks = chunks
        self.credit = credit
        self.policy = policy
        self.rng = rng
        self.expressions = Expressions(world.size)
        self.outs: dict[Place, int] = {}  # (rank, slice, chunk)
        self.finals: set[Place] = set()
        self.fixed: set[Place] = set()  # frames point into them
        self.sent: dict[int, int] = defaultdict(int)  # frames per rank
        self.hops = 0
        self._links: dict[tuple[int, int], Link] = defaultdict(Link)
        self._mail: dict[tuple[Place, int], Frame] = {}
        self._iterations: dict[tuple[Lane, int], Iteration] = {}
        self._begun: dict[Lane, int] = defaultdict(int)
        self._completed: dict[Lane, int] = defaultdict(int)
        self._ready: list[Agent] = []

    def run(self) -> None:
        for rank, plan in enumerate(self.world.plans):
            for lane in range(len(plan)):
                self._begin_iterations((rank, lane))
        while self._ready:
            index = self.policy(self._ready, self.rng)
            if self.policy in (at_random, starving):
                last = self._ready[-1]
                self._ready[index], self._ready[-1] = last, self._ready[index]
                index = -1
            kind, first, second, chunk = self._ready.pop(index)
            if kind == "lane":
                self._run_iteration(self._iterations[(first, second), chunk])
            else:
                self._run_link(first, second)
        if self._iterations:
            raise Wrong(f"deadlock: {next(iter(self._iterations.values()))}")
        if self._mail or any(link.unconsumed for link in self._links.values()):
            raise Wrong("frames that nobody takes")

    def _begin_iterations(self, lane: Lane) -> None:
        """The next one, when the last has done what it can; frames begin the rest unlimited."""
        first = self.world.plans[lane[0]][lane[1]][0]
        last = self._iterations.get((lane, self._begun[lane] - 1))
        under_way = self._begun[lane] - self._completed[lane]
        if (
            self._begun[lane] < self.chunks[first.slice]
            and (first.receives or under_way < WINDOW)
            and (last is None or not last.is_starting)
        ):
            chunk = self._begun[lane]
            self._begun[lane] += 1
            self._iterations[lane, chunk] = Iteration(lane, chunk)
            self._ready.append(("lane", *lane, chunk))

    def _run_iteration(self, iteration: Iteration) -> None:
        rank, lane = iteration.lane
        steps = self.world.plans[rank][lane]
        while iteration.at < len(steps):
            step = steps[iteration.at]
            frame = None
            if step.receives:
                key = ((rank, lane, iteration.at), iteration.chunk)
                frame = self._mail.pop(key, None)
                if frame is None:
                    iteration.is_waiting = True
                    break
                iteration.hops = max(iteration.hops, frame.hop)
                self._links[step.peer, rank].unconsumed -= 1
                self._wake_link(step.peer, rank)
            self._execute(iteration, step, frame)
            iteration.at += 1
        iteration.is_starting = False
        if not iteration.is_waiting:
            self.hops = max(self.hops, iteration.hops)
            del self._iterations[iteration.lane, iteration.chunk]
            while (
                self._completed[iteration.lane] < self._begun[iteration.lane]
                and (iteration.lane, self._completed[iteration.lane]) not in self._iterations
            ):
                self._completed[iteration.lane] += 1
        self._begin_iterations(iteration.lane)

    def _execute(self, iteration: Iteration, step: Step, frame: Frame | None) -> None:
        rank = iteration.lane[0]
        key = (rank, step.slice, iteration.chunk)
        words = step.opcode.split("_")
        reads_in = "in" in words or step.opcode == "recv_reduce_send"
        if reads_in and rank not in self.world.contributors(step.slice):
            raise Wrong(f"{key} reads IN: {step}")
        reads_out = "out" in words or step.opcode in ("send_copy", "recv_reduce", "reduce_in")
        if reads_out and key not in self.outs:
            raise Wrong(f"{key} reads OUT before it is written: {step}")
        made = self._made(step, rank, -1 if frame is None else frame.value, self.outs.get(key, -1))
        sends = "send" in step.opcode
        if not sends or step.opcode == "recv_send":
            if key in self.finals or key in self.fixed:
                raise Wrong(f"{key} is changed after it is final or sent: {step}")
            self.outs[key] = self.expressions.scale(made) if step.is_scaled else made
            if step.is_final:
                self.finals.add(key)
        if step.opcode in ("send_out", "recv_send"):
            self.fixed.add(key)
        if sends:
            self._send(iteration, step, step.next if step.receives else step.peer, made)

    def _made(self, step: Step, own: int, wire: int, out: int) -> int:
        """What the step stores or sends."""
        add = self.expressions.add
        match step.opcode:
            case "send_in" | "copy_in":
                return own
            case "send_out" | "send_copy":
                return out
            case "recv" | "recv_send":
                return wire
            case "recv_reduce" | "out_reduce_send":
                return add(out, wire)
            case "recv_reduce_out":
                return add(wire, out)
            case "recv_reduce_in" | "recv_reduce_send":
                return add(wire, own)
            case "in_reduce_recv" | "in_reduce_send":
                return add(own, wire)
            case "reduce_in":
                return add(out, own)
        raise Wrong(f"unknown opcode: {step}")

    def _send(self, iteration: Iteration, step: Step, target: int, value: int) -> None:
        rank = iteration.lane[0]
        place = (target, step.peer_lane, step.peer_step)
        self._links[rank, target].queue.append(
            Frame(step.slice, iteration.chunk, place, value, iteration.hops + 1)
        )
        self.sent[rank] += 1
        self._wake_link(rank, target)

    def _wake_link(self, source: int, target: int) -> None:
        link = self._links[source, target]
        if link.queue and not link.is_ready and link.unconsumed < self.credit:
            link.is_ready = True
            self._ready.append(("link", source, target, 0))

    def _run_link(self, source: int, target: int) -> None:
        link = self._links[source, target]
        link.is_ready = False
        link.unconsumed += 1
        frame = link.queue.popleft()
        rank, lane, index = frame.place
        receive = self.world.plans[rank][lane][index]
        if not receive.receives or (receive.peer, receive.slice) != (source, frame.slice):
            raise Wrong(f"rank {source} sends to {frame.place}, which is {receive}")
        if (frame.place, frame.chunk) in self._mail:
            raise Wrong(f"two frames for {frame.place}")
        self._mail[frame.place, frame.chunk] = frame
        iteration = self._iterations.get(((rank, lane), frame.chunk))
        if iteration is not None and iteration.is_waiting and iteration.at == index:
            iteration.is_waiting = False
            self._ready.append(("lane", rank, lane, frame.chunk))
        self._wake_link(source, target)


def execute(
    algorithm: Algorithm,
    world: World,
    policy: Policy,
    rng: random.Random,
    *,
    credit: int = 1,
    chunks: list[int] | None = None,
) -> Executor:
    """Runs, and checks that who needs a slice has all contributions, in the same order as all."""
    executor = Executor(world, chunks or [1] * world.slice_count, credit, policy, rng)
    executor.run()
    expressions = executor.expressions
    for slice_index, chunk_count in enumerate(executor.chunks):
        ranks = frozenset(world.contributors(slice_index))
        fold = expressions.fold(sorted(ranks))
        for chunk in range(chunk_count):
            keys = [(rank, slice_index, chunk) for rank in world.needers(slice_index)]
            if not executor.finals.issuperset(keys):
                raise Wrong(f"slice {slice_index} is not final everywhere")
            values = {executor.outs[key] for key in keys}
            value = values.pop()
            if values or expressions.operands(value) != ranks:
                raise Wrong(f"slice {slice_index} is not all contributions, alike everywhere")
            reduces = world.collective in REDUCING
            if reduces and not expressions.is_scaled(value):
                raise Wrong(f"slice {slice_index} was not scaled once")
            if reduces and algorithm in RANK_ORDERED and value != fold:
                raise Wrong(f"slice {slice_index} was not added in rank order")
    return executor


# ---- what plans must be --------------------------------------------------------------------------


@pytest.mark.parametrize(("algorithm", "collective"), CASES, ids=str)
def test_every_world_gets_all_contributions(
    algorithm: Algorithm, collective: str, rng: random.Random
) -> None:
    for size in WORLDS:
        root = rng.randrange(size)
        execute(algorithm, read_world(algorithm, collective, size, root), at_random, rng)


HOPS: dict[Algorithm, Callable[[int], int]] = {
    Algorithm.DIRECT: lambda p: 2,
    Algorithm.STAR: lambda p: 2,
    Algorithm.EXCHANGE: lambda p: 1,
    Algorithm.RING: lambda p: 2 * (p - 1),
    Algorithm.CIRCULANT: lambda p: 2 * (p - 1).bit_length(),
    Algorithm.TREE: lambda p: 2 * p.bit_length(),
    Algorithm.HIERARCHICAL: lambda p: 4,
    Algorithm.RECURSIVE_DOUBLING: lambda p: p.bit_length() - 1 + 2 * bool(p & (p - 1)),
}


@pytest.mark.parametrize("algorithm", HOPS, ids=lambda each: each.value)
def test_an_all_reduce_takes_the_hops_that_are_documented(
    algorithm: Algorithm, rng: random.Random
) -> None:
    exact = (Algorithm.DIRECT, Algorithm.STAR, Algorithm.EXCHANGE, Algorithm.RING)
    for size in WORLDS[1:]:
        executor = execute(algorithm, read_world(algorithm, "all_reduce", size), at_random, rng)

        promised = HOPS[algorithm](size)
        assert executor.hops == promised if algorithm in exact else executor.hops <= promised


@pytest.mark.parametrize(
    "algorithm", [Algorithm.DIRECT, Algorithm.RING, Algorithm.CIRCULANT, Algorithm.HIERARCHICAL]
)
def test_the_volume_of_an_all_reduce_is_the_least_possible(
    algorithm: Algorithm, rng: random.Random
) -> None:
    for size in (2, 3, 6, 9, 12):
        world = read_world(algorithm, "all_reduce", size)
        executor = execute(algorithm, world, at_random, rng)

        frames = 2 * (size - 1) * world.slice_count // size
        assert dict(executor.sent) == dict.fromkeys(range(size), frames)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
@pytest.mark.parametrize(("algorithm", "collective"), CASES, ids=str)
def test_no_order_of_events_deadlocks_or_changes_the_result(
    algorithm: Algorithm, collective: str, policy: Policy, rng: random.Random
) -> None:
    for size in (2, 3, 5, 8):
        world = read_world(algorithm, collective, size, rng.randrange(size))
        for credit in (1, 3):
            chunks = [rng.choice((0, 1, 2, 9)) for _ in range(world.slice_count)]
            execute(algorithm, world, policy, rng, credit=credit, chunks=chunks)


@pytest.mark.parametrize(("algorithm", "collective"), CASES, ids=str)
def test_the_compiled_check_agrees(algorithm: Algorithm, collective: str) -> None:
    for size in WORLDS:
        recipe = Recipe(algorithm, hosts=[rank // 3 for rank in range(size)])
        assert check(recipe, size, collective=collective, root=size // 2, credit=2) is None


@pytest.mark.parametrize(("algorithm", "collective"), CASES, ids=str)
def test_the_compiled_check_passes_for_1000_ranks(algorithm: Algorithm, collective: str) -> None:
    recipe = Recipe(algorithm, hosts=[rank // 32 for rank in range(1000)])
    root = 999 if collective in ROOTED else 0

    assert check(recipe, 1000, collective=collective, root=root) is None


# ---- this executor finds mistakes ----------------------------------------------------------------


def mutants(algorithm: Algorithm, collective: str, size: int) -> Iterator[tuple[str, World]]:
    """Each world with one mistake, and what it is."""
    whole = read_world(algorithm, collective, size)
    for rank, lanes in enumerate(whole.plans):
        for lane, steps in enumerate(lanes):
            for index, step in enumerate(steps):
                wrong: dict[str, list[Step]] = {"dropped": [], "repeated": [step, step]}
                if step.is_final:
                    wrong["not final"] = [replace(step, is_final=False)]
                if step.is_scaled:
                    wrong["unscaled"] = [replace(step, is_scaled=False)]
                if step.peer != NONE:
                    wrong["to another rank"] = [replace(step, peer=(step.peer + 1) % size)]
                if "send" in step.opcode:
                    wrong["to another step"] = [replace(step, peer_step=step.peer_step + 1)]
                for what, replacement in wrong.items():
                    plans = [[list(each) for each in plan] for plan in whole.plans]
                    plans[rank][lane][index : index + 1] = replacement
                    if plans[rank][lane]:
                        yield f"{what}: rank {rank} lane {lane} {step}", replace(whole, plans=plans)


@pytest.mark.parametrize(
    "algorithm", [each for each, collective in CASES if collective == "all_reduce"]
)
def test_a_single_mistake_is_found(algorithm: Algorithm, rng: random.Random) -> None:
    passed = []
    for what, world in mutants(algorithm, "all_reduce", 4):
        try:
            execute(algorithm, world, at_random, rng)
        except (Wrong, KeyError, IndexError):
            continue
        passed.append(what)

    assert passed == []


# ---- slices --------------------------------------------------------------------------------------


@given(
    payload=st.integers(0, BYTES_MAX) | st.integers(0, 100_000) | st.just(BYTES_MAX),
    size=st.integers(2, 300),
)
def test_slices_are_equal_shares_of_whole_quanta(payload: int, size: int) -> None:
    box = ffi.new("collect_plan **")
    bounds = ffi.new("uint64_t[2]")
    quanta = -(-payload // QUANTUM_BYTES)
    recipe = ffi.new("struct collect_recipe *")
    recipe.algorithm = lib.COLLECT_DIRECT
    assert lib.collect_plan_create(recipe, lib.COLLECT_ALL_REDUCE, size, 0, 0, box) == 0
    try:
        cuts = [min(quanta * index // size * QUANTUM_BYTES, payload) for index in range(size + 1)]
        for index in range(size):
            assert lib.collect_plan_slice(box[0], index, payload, bounds, bounds + 1) == 0
            assert (bounds[0], bounds[1]) == (cuts[index], cuts[index + 1])
    finally:
        lib.collect_plan_destroy(box)
