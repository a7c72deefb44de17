"""`collect plan`: what each rank does in a collective, the proof that it is right, and why an
algorithm is chosen."""

from __future__ import annotations

import argparse
import re
import runpy
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from collect.cli.usage import UsageError, byte_count, positive_int
from collect.config import Algorithm
from collect.native.definition import Definition, RankPlans
from collect.native.plan import BLOCKS, COLLECTIVES, Plan, Recipe, Step, check, choose, has
from collect.types import MEMBERS_MAX

ALGORITHMS = [each.value for each in Algorithm if each is not Algorithm.AUTO]

# Above this the cost of direct exchange (about 4 world^2 steps) takes long to count in Python.
PROOF_WORLD_MAX = 256

# What some algorithms' files promise of an all-reduce, as text and as a function: dependent hops of
# p ranks, and the bytes that the busiest of them sends with a payload of S.
HOPS: dict[Algorithm, tuple[str, Callable[[int], int]]] = {
    Algorithm.DIRECT: ("2", lambda p: 2),
    Algorithm.RING: ("2(p-1)", lambda p: 2 * (p - 1)),
    Algorithm.STAR: ("2", lambda p: 2),
    Algorithm.EXCHANGE: ("1", lambda p: 1),
}
VOLUMES: dict[Algorithm, tuple[str, Callable[[int, int], float]]] = {
    Algorithm.DIRECT: ("2(p-1)/p S", lambda p, payload: 2 * (p - 1) * payload / p),
    Algorithm.RING: ("2(p-1)/p S", lambda p, payload: 2 * (p - 1) * payload / p),
    Algorithm.STAR: ("(p-1) S", lambda p, payload: (p - 1) * payload),
    Algorithm.EXCHANGE: ("(p-1) S", lambda p, payload: (p - 1) * payload),
    Algorithm.CIRCULANT: ("2(p-1)/p S", lambda p, payload: 2 * (p - 1) * payload / p),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("name", nargs="?", metavar="ALGORITHM", help=", ".join(ALGORITHMS))
    add("--algorithm", choices=ALGORITHMS, default="direct", help="the same, as an option")
    add("--file", type=Path, metavar="F", help="a plan of your own, which this Python file makes")
    add(
        "--collective",
        type=lambda text: text.replace("-", "_"),
        choices=COLLECTIVES,
        default="all_reduce",
        help="default: all-reduce",
    )
    add("--world", type=positive_int, required=True, metavar="P", help="number of ranks")
    add("--root", type=int, default=0, help="of a rooted collective (default %(default)s)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--rank", type=int, default=0, help="whose plan (default %(default)s)")
    which.add_argument("--all", action="store_true", help="the plans of all ranks")
    which.add_argument(
        "--explain", action="store_true", help="what the model says of all algorithms, and chooses"
    )
    add("--radices", type=_numbers, default=(), help="levels, innermost first: 2,3,4")
    add("--hosts", type=_numbers, default=(), help="ranks of each host: 2,2,3")
    add(
        "--bytes",
        type=byte_count,
        default="1Mi",
        metavar="S",
        help="payload, of all blocks together where there are blocks (default %(default)s)",
    )
    add("--credit", type=positive_int, default=1, help="frames per link for the deadlock search")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(positive_int(each) for each in text.split(","))


def run(arguments: argparse.Namespace) -> int:
    if arguments.file is not None:
        return _run_file(arguments)
    name = arguments.name or arguments.algorithm
    if name not in ALGORITHMS:
        raise UsageError(f"collect plan: no algorithm {name}, only: {', '.join(ALGORITHMS)}")
    algorithm = Algorithm(name)
    recipe = _recipe(algorithm, arguments)
    if arguments.explain:
        return _explain(recipe, arguments)
    world, collective, root = arguments.world, arguments.collective, arguments.root
    if not has(algorithm, collective):
        can = ", ".join(each for each in COLLECTIVES if has(algorithm, each))
        raise UsageError(f"collect plan: {algorithm.value} has no {collective}, only: {can}")
    reason = check(recipe, world, collective=collective, root=root, credit=arguments.credit)

    def plan(rank: int) -> Plan:
        return Plan(recipe, world, rank, collective=collective, root=root)

    return _show(plan, reason, arguments)


def _run_file(arguments: argparse.Namespace) -> int:
    """Of a plan of the user's own: what is wrong with it shows before there is any plan."""
    definition = _load(arguments.file, arguments.name)
    _check_numbers(arguments)
    if arguments.world < 2:
        raise UsageError("collect plan: --file: plans of your own begin with --world 2")
    reason = definition.check(arguments.world)
    if reason is not None:
        print(f"proof: FAILED: {reason}")
        return 1
    arguments.credit = 1  # that is what it was proven with
    plans = RankPlans(definition, arguments.world, arguments.root)
    return _show(plans.of_rank, None, arguments)


def _load(path: Path, name: str | None) -> Definition:
    """Runs the file, and finds the plan that it makes."""
    if not path.is_file():
        raise UsageError(f"collect plan: --file {path}: there is no such file")
    values = runpy.run_path(str(path)).values()
    found = {each.name: each for each in values if isinstance(each, Definition)}
    if not found:
        raise UsageError(f"collect plan: --file {path}: it makes no plan with collect.plan(name)")
    names = ", ".join(found)
    if name is None and len(found) > 1:
        raise UsageError(f"collect plan: --file {path}: say which of its plans: {names}")
    if name is not None and name not in found:
        raise UsageError(f"collect plan: --file {path}: it makes no {name}, only: {names}")
    return found[name] if name is not None else next(iter(found.values()))


def _show(plan: Callable[[int], Plan], reason: str | None, arguments: argparse.Namespace) -> int:
    """Plans, and their proof. `plan` makes a rank's; reason: why they are wrong."""
    world = arguments.world
    for rank in range(world) if arguments.all else [arguments.rank]:
        print("\n".join(_plan_lines(plan(rank), arguments.bytes)), end="\n\n")
    if reason is not None:
        print(f"proof: FAILED: {reason}")
        return 1
    print("proof")
    if world > PROOF_WORLD_MAX:
        print(f"  right; the cost of worlds above {PROOF_WORLD_MAX} ranks is not counted")
        return 0
    plans = [plan(rank) for rank in range(world)]
    for line in _proof_lines(plans, arguments.bytes, arguments.credit):
        print(f"  {line}")
    return 0


def _check_numbers(arguments: argparse.Namespace) -> None:
    world = arguments.world
    if world > MEMBERS_MAX:
        raise UsageError(f"collect plan: --world {world}: a world has at most {MEMBERS_MAX} ranks")
    for option in ("rank", "root"):
        if not 0 <= (number := getattr(arguments, option)) < world:
            raise UsageError(
                f"collect plan: --{option} {number}: a world of {world} has "
                f"{'rank 0 only' if world == 1 else f'ranks 0 to {world - 1}'}"
            )


def _recipe(algorithm: Algorithm, arguments: argparse.Namespace) -> Recipe:
    _check_numbers(arguments)
    world = arguments.world
    product = 1
    for radix in arguments.radices:
        product *= radix
    if arguments.radices and (product != world or len(arguments.radices) > 4):
        raise UsageError(f"collect plan: --radices: not at most 4 with a product of {world}")
    if arguments.hosts and sum(arguments.hosts) != world:
        raise UsageError(f"collect plan: --hosts: not {world} ranks in all")
    hosts = [host for host, size in enumerate(arguments.hosts) for _ in range(size)]
    return Recipe(algorithm, hosts=hosts or None, radices=arguments.radices)


# ---- the choice ----------------------------------------------------------------------------------


def _explain(recipe: Recipe, arguments: argparse.Namespace) -> int:
    recipe = Recipe(Algorithm.AUTO, hosts=recipe.hosts)
    chosen, text = choose(recipe, arguments.world, arguments.bytes, collective=arguments.collective)
    collective = arguments.collective
    table = Table(title=f"{collective} of {arguments.bytes} bytes, {arguments.world} ranks")
    table.add_column("algorithm")
    for column in ("hops", "messages", "bytes", "reduced", "time"):
        table.add_column(column, justify="right")
    for line in text.splitlines():
        name, rest = line.split(": ")
        values = dict(re.findall(r"(\w+) ([\d+]+)", rest))
        time = f"{int(values.pop('ns')) / 1000:.1f} us"
        cells = [values[column] for column in ("hops", "messages", "bytes", "reduced")]
        style = "bold" if name == chosen.value else None
        table.add_row(name, *(cell.removesuffix("+0") for cell in cells), time, style=style)
    Console().print(table)
    print(f"choice: {chosen.value} (of a+b, a is within hosts and b between them)")
    return 0


# ---- the plan ------------------------------------------------------------------------------------


def _plan_lines(plan: Plan, payload_bytes: int) -> Iterator[str]:
    width = max(len(str(payload_bytes)), len("below"))
    collective = "" if plan.collective == "all_reduce" else f" {plan.collective}"
    root = "" if plan.root is None else f", root {plan.root}"
    yield (
        f"{plan.label}{collective}, rank {plan.rank} of {plan.world}{root}, {payload_bytes} bytes"
    )
    yield f"lane  step  {'does':<16}  slice  {'from':>{width}} …  {'below':<{width}}  frames"
    for lane, steps in enumerate(plan.lanes):
        begin, end = _bounds(plan, plan.slices[lane], payload_bytes)
        for index, step in enumerate(steps):
            place = f"{lane:>4}" if index == 0 else "    "
            line = (
                f"{place}  {index:>4}  {step.opcode:<16}  {plan.slices[lane]:>5}"
                f"  {begin:>{width}} …  {end:<{width}}  {_frames(step)}"
            )
            yield line.rstrip()


def _bounds(plan: Plan, slice_index: int, payload_bytes: int) -> tuple[int, int]:
    """Of a slice in the payload, or in its block."""
    blocked = plan.collective in BLOCKS
    return plan.slice_range(slice_index, payload_bytes // plan.world if blocked else payload_bytes)


def _frames(step: Step) -> str:
    parts = []
    if step.source is not None:
        parts.append(f"<- rank {step.source}")
    if step.target is not None:
        parts.append(f"-> rank {step.target} (lane {step.target_lane} step {step.target_step})")
    if step.is_scaled:
        parts.append("scale")
    if step.is_final:
        parts.append("final")
    return "  ".join(parts)


# ---- the proof -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cost:
    """What a collective takes, counted step by step."""

    frames: int  # per chunk
    hops: int  # frames of the longest chain in which each waits for the one before
    sent_bytes: tuple[int, ...]  # per rank
    links: frozenset[tuple[int, int]]  # pairs of ranks, the lower first


def count_cost(plans: Sequence[Plan], payload_bytes: int) -> Cost:
    """Runs the plans of a whole world with hops in place of values."""
    sent = [0] * len(plans)
    links: set[tuple[int, int]] = set()
    frames: dict[tuple[int, int, int], int] = {}  # (rank, lane, step) of the receiver: its hop
    frame_count = 0
    position = {
        (plan.rank, lane): (0, 0) for plan in plans for lane in range(len(plan.lanes))
    }  # next step, hops so far
    queue = deque(position)
    while queue:
        rank, lane = queue.popleft()
        steps = plans[rank].lanes[lane]
        index, hops = position[rank, lane]
        while index < len(steps):
            step = steps[index]
            if step.source is not None:
                hop = frames.pop((rank, lane, index), None)
                if hop is None:
                    break
                hops = max(hops, hop)
            if step.target is not None:
                frames[step.target, step.target_lane, step.target_step] = hops + 1
                queue.append((step.target, step.target_lane))
                links.add((min(rank, step.target), max(rank, step.target)))
                sent[rank] += _length(_bounds(plans[rank], plans[rank].slices[lane], payload_bytes))
                frame_count += 1
            index += 1
        position[rank, lane] = (index, hops)
    longest = max(hops for _, hops in position.values())
    return Cost(frame_count, longest, tuple(sent), frozenset(links))


def _length(bounds: tuple[int, int]) -> int:
    return bounds[1] - bounds[0]


def _proof_lines(plans: Sequence[Plan], payload_bytes: int, credit: int) -> Iterator[str]:
    algorithm, world = plans[0].algorithm, plans[0].world
    if world == 1:
        yield "result    the contribution of the only rank; nothing is exchanged"
        return
    cost = count_cost(plans, payload_bytes)
    degree = max(sum(rank in link for link in cost.links) for rank in range(world))
    yield f"frames    {cost.frames} per chunk, each sent once and expected by one step"
    yield (
        "result    on every rank that needs it, each slice holds all contributions, each once; who "
        "completes a sum evaluates the same expression"
    )
    yield "order     results are read after they are written, and sent and left alone when final"
    yield f"deadlock  none found with {_plural(credit, 'frame')} of credit per link"
    known = algorithm if plans[0].collective == "all_reduce" else None
    hops = HOPS.get(known) if known else None
    promised = _promised(hops[0], f"{hops[1](world)}") if hops else ""
    yield f"hops      {cost.hops} one after the other{promised}"
    volume = VOLUMES.get(known) if known else None
    promised = _promised(volume[0], f"{volume[1](world, payload_bytes):.0f}") if volume else ""
    yield f"volume    {max(cost.sent_bytes)} bytes sent by the busiest rank{promised}"
    yield f"links     {len(cost.links)}, at most {degree} at one rank"


def _promised(formula: str, value: str) -> str:
    return f" (formula: {value})" if formula == value else f" (formula: {formula} = {value})"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
