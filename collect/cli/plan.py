"""`collect plan`: what each rank does in an all-reduce, and the proof that it is right."""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from collect.cli.usage import UsageError, byte_count, positive_int
from collect.config import Algorithm
from collect.native.plan import Plan, Step, check
from collect.types import MEMBERS_MAX

# Above this a proof of direct exchange (about 4 world^2 steps) takes many seconds.
PROOF_WORLD_MAX = 256

# What the algorithms' files promise, as text and as a function: dependent hops of p ranks, and the
# bytes that the busiest of them sends with a payload of S.
HOPS: dict[Algorithm, tuple[str, Callable[[int], int]]] = {
    Algorithm.DIRECT: ("2", lambda p: 2),
    Algorithm.RING: ("2(p-1)", lambda p: 2 * (p - 1)),
    Algorithm.STAR: ("2", lambda p: 2),
}
VOLUMES: dict[Algorithm, tuple[str, Callable[[int, int], float]]] = {
    Algorithm.DIRECT: ("2(p-1)/p S", lambda p, payload: 2 * (p - 1) * payload / p),
    Algorithm.RING: ("2(p-1)/p S", lambda p, payload: 2 * (p - 1) * payload / p),
    Algorithm.STAR: ("(p-1) S", lambda p, payload: (p - 1) * payload),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--algorithm", choices=[each.value for each in Algorithm], default="direct")
    add("--world", type=positive_int, required=True, metavar="P", help="number of ranks")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--rank", type=int, default=0, help="whose plan (default %(default)s)")
    which.add_argument("--all", action="store_true", help="the plans of all ranks")
    add(
        "--bytes",
        type=byte_count,
        default="1Mi",
        metavar="S",
        help="payload that is cut into slices (default %(default)s)",
    )
    add("--credit", type=positive_int, default=1, help="frames per link for the deadlock search")


def run(arguments: argparse.Namespace) -> int:
    algorithm, world = Algorithm(arguments.algorithm), arguments.world
    if world > MEMBERS_MAX:
        raise UsageError(f"collect plan: --world {world}: a world has at most {MEMBERS_MAX} ranks")
    if not 0 <= arguments.rank < world:
        raise UsageError(
            f"collect plan: --rank {arguments.rank}: "
            f"a world of {world} has {'rank 0 only' if world == 1 else f'ranks 0 to {world - 1}'}"
        )
    for rank in range(world) if arguments.all else [arguments.rank]:
        print("\n".join(_plan_lines(Plan(algorithm, world, rank), arguments.bytes)), end="\n\n")
    if world > PROOF_WORLD_MAX:
        print(f"proof: left out, worlds of more than {PROOF_WORLD_MAX} ranks take long")
        return 0

    reason = check(algorithm, world, credit=arguments.credit)
    if reason is not None:
        print(f"proof: FAILED: {reason}")
        return 1
    plans = [Plan(algorithm, world, rank) for rank in range(world)]
    print("proof")
    for line in _proof_lines(plans, arguments.bytes, arguments.credit):
        print(f"  {line}")
    return 0


# ---- the plan ------------------------------------------------------------------------------------


def _plan_lines(plan: Plan, payload_bytes: int) -> Iterator[str]:
    width = max(len(str(payload_bytes)), len("below"))
    yield f"{plan.algorithm.value}, rank {plan.rank} of {plan.world}, {payload_bytes} bytes"
    yield f"lane  step  {'does':<16}  slice  {'from':>{width}} …  {'below':<{width}}  frames"
    for lane, steps in enumerate(plan.lanes):
        for index, step in enumerate(steps):
            begin, end = plan.slice_range(step.slice, payload_bytes)
            place = f"{lane:>4}" if index == 0 else "    "
            line = (
                f"{place}  {index:>4}  {step.opcode:<16}  {step.slice:>5}"
                f"  {begin:>{width}} …  {end:<{width}}  {_frames(step)}"
            )
            yield line.rstrip()


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
    """What an all-reduce takes, counted step by step."""

    frames: int  # per chunk
    hops: int  # frames of the longest chain in which each waits for the one before
    sent_bytes: tuple[int, ...]  # per rank
    links: frozenset[tuple[int, int]]  # pairs of ranks, the lower first


def count_cost(plans: Sequence[Plan], payload_bytes: int) -> Cost:
    """Runs the plans of a whole world with hops in place of values."""
    sizes = [_length(plans[0].slice_range(each, payload_bytes)) for each in _slices(plans[0])]
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
                sent[rank] += sizes[step.slice]
                frame_count += 1
            index += 1
        position[rank, lane] = (index, hops)
    longest = max(hops for _, hops in position.values())
    return Cost(frame_count, longest, tuple(sent), frozenset(links))


def _slices(plan: Plan) -> range:
    return range(plan.slice_count)


def _length(bounds: tuple[int, int]) -> int:
    return bounds[1] - bounds[0]


def _proof_lines(plans: Sequence[Plan], payload_bytes: int, credit: int) -> Iterator[str]:
    algorithm, world = plans[0].algorithm, plans[0].world
    if world == 1:
        yield "result    the contribution of the only rank; nothing is exchanged"
        return
    cost = count_cost(plans, payload_bytes)
    hops_formula, hops = HOPS[algorithm]
    volume_formula, volume = VOLUMES[algorithm]
    degree = max(sum(rank in link for link in cost.links) for rank in range(world))
    yield f"frames    {cost.frames} per chunk, each sent once and expected by one step"
    yield (
        f"result    on every rank, each slice is the sum of all {world} contributions, each once, "
        "completed and scaled by one owner"
    )
    yield "order     results are read after they are written, and sent and left alone when final"
    yield f"deadlock  none found with {_plural(credit, 'frame')} of credit per link"
    yield f"hops      {cost.hops} one after the other{_promised(hops_formula, f'{hops(world)}')}"
    yield (
        f"volume    {max(cost.sent_bytes)} bytes sent by the busiest rank"
        f"{_promised(volume_formula, f'{volume(world, payload_bytes):.0f}')}"
    )
    yield f"links     {len(cost.links)}, at most {degree} at one rank"


def _promised(formula: str, value: str) -> str:
    return f" (formula: {value})" if formula == value else f" (formula: {formula} = {value})"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
