"""Plans, run by an executor that shares nothing with the one that is shipped.

Plans are read through the C ABI and run on expressions in place of numbers, so that the order of
additions is checked, not only which contributions are in. What goes on next is chosen by a policy:
in order, in reverse, at random, or with some lanes and links starved.
"""

import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect import native

ffi, lib = native.ffi, native.lib
DIRECT, RING, STAR = lib.COLLECT_DIRECT, lib.COLLECT_RING, lib.COLLECT_STAR
ALGORITHMS = {"direct": DIRECT, "ring": RING, "star": STAR}
WORLDS = (*range(1, 65), 100, 127, 129)
BYTES_MAX = 1 << 62
QUANTUM_BYTES = 64
WINDOW = 8  # iterations of a lane under way

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


# ---- reading -------------------------------------------------------------------------------------


def read_plan(algorithm: int, world: int, rank: int) -> list[list[Step]]:
    box = ffi.new("collect_plan **")
    assert lib.collect_plan_create(algorithm, world, rank, box) == 0
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
                    step.slice,
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


@dataclass
class World:
    size: int
    slice_count: int
    plans: list[list[list[Step]]]


def read_world(algorithm: int, size: int) -> World:
    plans = [read_plan(algorithm, size, rank) for rank in range(size)]
    return World(size, 1 if algorithm == STAR or size == 1 else size, plans)


# ---- expressions ---------------------------------------------------------------------------------


class Expressions:
    """Each different expression has one number, so that equality is cheap."""

    def __init__(self, world: int) -> None:
        self.world = world
        self._numbers: dict[tuple[str, int, int], int] = {}

    def add(self, left: int, right: int) -> int:
        return self._number("+", left, right)

    def scale(self, operand: int) -> int:
        return self._number("/", operand, operand)

    def fold(self, ranks: list[int]) -> int:
        """Scaled sum in the order given, from the left."""
        total = ranks[0]
        for rank in ranks[1:]:
            total = self.add(total, rank)
        return self.scale(total)

    def _number(self, operator: str, left: int, right: int) -> int:
        key = (operator, left, right)
        return self._numbers.setdefault(key, self.world + len(self._numbers))


def expected(algorithm: int, world: int, slice_index: int, expressions: Expressions) -> int:
    """What the algorithm's documentation promises a slice to be, bit for bit."""
    if algorithm == RING:
        return expressions.fold([(slice_index + 1 + hop) % world for hop in range(world)])
    return expressions.fold(list(range(world)))


# ---- execution -----------------------------------------------------------------------------------


class Wrong(AssertionError):
    """The plans are not a correct all-reduce."""


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
        self.sent: dict[int, int] = defaultdict(int)  # frames per rank
        self.received: dict[int, int] = defaultdict(int)
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
        while self._begun[lane] < max(self.chunks) and (
            self._begun[lane] - self._completed[lane] < WINDOW
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
            if iteration.chunk < self.chunks[step.slice]:
                frame = None
                if "recv" in step.opcode:
                    key = ((rank, lane, iteration.at), iteration.chunk)
                    frame = self._mail.pop(key, None)
                    if frame is None:
                        iteration.is_waiting = True
                        return
                    iteration.hops = max(iteration.hops, frame.hop)
                    self.received[rank] += 1
                    self._links[step.peer, rank].unconsumed -= 1
                    self._wake_link(step.peer, rank)
                self._execute(iteration, step, frame)
            iteration.at += 1
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
        wire = -1 if frame is None else frame.value
        add = self.expressions.add
        if step.opcode == "send_in":
            return self._send(iteration, step, step.peer, rank)
        if step.opcode == "send_out":
            if key not in self.finals:
                raise Wrong(f"{key} is sent before it is final: {step}")
            return self._send(iteration, step, step.peer, self.outs[key])
        if step.opcode == "recv_reduce_send":
            return self._send(iteration, step, step.next, add(wire, rank))

        if key in self.finals:
            raise Wrong(f"{key} is changed after it is final: {step}")
        if step.opcode in ("recv", "recv_send"):
            result = wire
        elif step.opcode == "recv_reduce":
            result = add(self.outs[key], wire)
        elif step.opcode == "recv_reduce_in":
            result = add(wire, rank)
        elif step.opcode == "in_reduce_recv":
            result = add(rank, wire)
        elif step.opcode == "reduce_in":
            result = add(self.outs[key], rank)
        elif step.opcode == "copy_in":
            result = rank
        else:
            raise Wrong(f"unknown opcode: {step}")
        self.outs[key] = self.expressions.scale(result) if step.is_scaled else result
        if step.is_final:
            self.finals.add(key)
        if step.opcode == "recv_send":
            self._send(iteration, step, step.next, wire)
        return None

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
        if "recv" not in receive.opcode or (receive.peer, receive.slice) != (
            source,
            frame.slice,
        ):
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
    algorithm: int,
    world: World,
    policy: Policy,
    rng: random.Random,
    *,
    credit: int = 1,
    chunks: list[int] | None = None,
) -> Executor:
    """Runs, and checks every rank's result against the documented order of additions."""
    executor = Executor(world, chunks or [1] * world.slice_count, credit, policy, rng)
    executor.run()
    for slice_index, chunk_count in enumerate(executor.chunks):
        value = expected(algorithm, world.size, slice_index, executor.expressions)
        for rank in range(world.size):
            for chunk in range(chunk_count):
                key = (rank, slice_index, chunk)
                if key not in executor.finals:
                    raise Wrong(f"{key} (rank, slice, chunk) is never final")
                if executor.outs[key] != value:
                    raise Wrong(f"{key} (rank, slice, chunk) is not the sum that is documented")
    return executor


# ---- what plans must be --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_world_gets_the_documented_sum_at_the_documented_cost(
    name: str, rng: random.Random
) -> None:
    algorithm = ALGORITHMS[name]
    for size in WORLDS:
        world = read_world(algorithm, size)

        executor = execute(algorithm, world, at_random, rng)

        check_cost(algorithm, world, executor)


def check_cost(algorithm: int, world: World, executor: Executor) -> None:
    p = world.size
    volumes = {rank: Fraction(executor.sent[rank], world.slice_count) for rank in range(p)}
    arrivals = {rank: Fraction(executor.received[rank], world.slice_count) for rank in range(p)}
    if p == 1:
        assert (executor.hops, volumes) == (0, {0: 0})
    elif algorithm == STAR:
        assert executor.hops == 2
        assert volumes == arrivals == {rank: p - 1 if rank == 0 else 1 for rank in range(p)}
    else:
        assert executor.hops == (2 if algorithm == DIRECT else 2 * (p - 1))
        assert volumes == arrivals == dict.fromkeys(range(p), Fraction(2 * (p - 1), p))


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_no_order_of_events_deadlocks_or_changes_the_sum(
    name: str, policy: Policy, rng: random.Random
) -> None:
    algorithm = ALGORITHMS[name]
    for size in (2, 3, 4, 5, 8, 13):
        world = read_world(algorithm, size)
        for credit in (1, 2, 5):
            for _ in range(3):
                chunks = [rng.choice((0, 1, 2, 11)) for _ in range(world.slice_count)]
                execute(algorithm, world, policy, rng, credit=credit, chunks=chunks)


def test_the_compiled_check_agrees() -> None:
    reason = ffi.new("char[]", 256)
    for algorithm in ALGORITHMS.values():
        for size in WORLDS:
            assert lib.collect_plan_check(algorithm, size, 2, reason, 256) == 0


# ---- this executor finds mistakes ----------------------------------------------------------------


def mutants(algorithm: int, size: int) -> Iterator[tuple[str, World]]:
    """Each world with one mistake, and what it is."""
    for rank in range(size):
        lanes = read_plan(algorithm, size, rank)
        for lane, steps in enumerate(lanes):
            for index, step in enumerate(steps):
                wrong: dict[str, list[Step]] = {
                    "dropped": [],
                    "repeated": [step, step],
                    "not final": [replace(step, is_final=False)] if step.is_final else [step] * 2,
                    "final": [step] * 2 if step.is_final else [replace(step, is_final=True)],
                    "unscaled": [replace(step, is_scaled=False)] if step.is_scaled else [],
                    "to another rank": [replace(step, peer=(step.peer + 1) % size)],
                    "to another step": [replace(step, peer_step=step.peer_step + 1)],
                    "of another slice": [replace(step, slice=(step.slice + 1) % size)],
                }
                if "send" in step.opcode:
                    wrong.pop("final")  # it says nothing there
                else:
                    wrong.pop("to another step")
                    if "recv" not in step.opcode:
                        wrong.pop("to another rank")
                for what, replacement in wrong.items():
                    world = read_world(algorithm, size)
                    world.plans[rank][lane][index : index + 1] = replacement
                    yield f"{what}: rank {rank} lane {lane} {step}", world


@pytest.mark.parametrize("name", ["direct", "ring"])
def test_a_single_mistake_is_found(name: str, rng: random.Random) -> None:
    algorithm = ALGORITHMS[name]
    passed = []
    for what, world in mutants(algorithm, 4):
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
    assert lib.collect_plan_create(RING, size, 0, box) == 0
    try:
        cuts = [min(quanta * index // size * QUANTUM_BYTES, payload) for index in range(size + 1)]
        for index in range(size):
            assert lib.collect_plan_slice(box[0], index, payload, bounds, bounds + 1) == 0
            assert (bounds[0], bounds[1]) == (cuts[index], cuts[index + 1])
    finally:
        lib.collect_plan_destroy(box)
