"""The order of the ring: no slower than its slowest link, so that one is to be as fast as can be.

The smallest threshold under which a cycle through all ranks exists, and among those cycles one of
little latency: exactly for few peers, by local search for more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

EXACT_PEERS_MAX = 12
SEARCH_PEERS_MAX = 64
ROUNDS_MAX = 50


@dataclass(frozen=True, slots=True)
class Edge:
    """A directed link; 0 stands for unknown."""

    rtt_ns: int
    bytes_per_s: int


Edges = Sequence[Sequence[Edge]]
Cost = tuple[int, int]  # slowness of the slowest link, latency of all


def ring_order(edges: Edges, hosts: Sequence[str]) -> tuple[int, ...]:
    """Ranks in the order of the ring, from rank 0 on; () for the default order.

    Above SEARCH_PEERS_MAX only those of one host are brought together.
    """
    count = len(edges)
    default = tuple(range(count))
    if count <= 2:
        return ()
    if count > SEARCH_PEERS_MAX:
        found = by_host(hosts)
    elif not any(edge.bytes_per_s or edge.rtt_ns for row in edges for edge in row):
        return ()
    else:
        costs = Costs(edges)
        found = costs.exact() if count <= EXACT_PEERS_MAX else costs.searched(by_host(hosts))
        if costs.of(found) >= costs.of(default):
            return ()
    return () if found == default else found


def by_host(hosts: Sequence[str]) -> tuple[int, ...]:
    first: dict[str, int] = {}
    number = [first.setdefault(host, rank) for rank, host in enumerate(hosts)]
    return tuple(sorted(range(len(hosts)), key=lambda rank: (number[rank], rank)))


def bottleneck(edges: Edges, order: Sequence[int]) -> tuple[int, int]:
    """Bytes/s of the slowest link, and the latency of all together; 0: nothing is known."""
    if len(order) < 2:
        return 0, 0
    rates, trips = filled(edges)
    ring = list(pairwise([*order, order[0]]))
    latency_ns = sum(trips[one][other] for one, other in ring) // 2
    return min(rates[one][other] for one, other in ring), latency_ns


def filled(edges: Edges) -> tuple[list[list[int]], list[list[int]]]:
    """Rates and round trips; one that is unknown counts as the usual one."""
    rates = [[edge.bytes_per_s for edge in row] for row in edges]
    trips = [[edge.rtt_ns for edge in row] for row in edges]
    tables = []
    for table in (rates, trips):
        known = sorted(each for row in table for each in row if each)
        usual = known[(len(known) - 1) // 2] if known else 0
        tables.append([[each or usual for each in row] for row in table])
    return tables[0], tables[1]


class Costs:
    """A link's slowness is its place among the rates that occur, the fastest first."""

    def __init__(self, edges: Edges) -> None:
        self.count = len(edges)
        rates, self.latency = filled(edges)
        places = sorted({rate for row in rates for rate in row}, reverse=True)
        place = {rate: index for index, rate in enumerate(places)}
        self.slowness = [[place[rate] for rate in row] for row in rates]
        self.slowest = len(places) - 1

    def of(self, order: Sequence[int]) -> Cost:
        ring = list(pairwise([*order, order[0]]))
        slowness = max(self.slowness[one][other] for one, other in ring)
        return slowness, sum(self.latency[one][other] for one, other in ring)

    # ---- few peers -------------------------------------------------------------------------

    def exact(self) -> tuple[int, ...]:
        """Held and Karp 1962, twice: whether there is a cycle, then the shortest one."""
        low, high = 0, self.slowest
        while low < high:
            middle = (low + high) // 2
            if self.has_cycle(middle):
                high = middle
            else:
                low = middle + 1
        return self.shortest(low)

    def has_cycle(self, threshold: int) -> bool:
        last = self.count - 1  # it begins and ends the cycle
        fits = [
            [self.slowness[a][b] <= threshold for b in range(last + 1)] for a in range(last + 1)
        ]
        into = [sum(1 << a for a in range(last) if fits[a][b]) for b in range(last)]
        ends = [0] * (1 << last)  # by set of ranks: those at which a path through them may end
        for rank in range(last):
            if fits[last][rank]:
                ends[1 << rank] = 1 << rank
        for ranks in range(1, 1 << last):
            for rank in range(last):
                bit = 1 << rank
                if ranks & bit and ends[ranks ^ bit] & into[rank]:
                    ends[ranks] |= bit
        closing = sum(1 << a for a in range(last) if fits[a][last])
        return bool(ends[-1] & closing)

    def shortest(self, threshold: int) -> tuple[int, ...]:
        """There is a cycle."""
        last = self.count - 1
        best: list[dict[int, tuple[int, int]]] = [{} for _ in range(1 << last)]
        for rank in range(last):
            if self.slowness[last][rank] <= threshold:
                best[1 << rank][rank] = (self.latency[last][rank], -1)
        for ranks in range(1, 1 << last):
            for end, (length, _) in best[ranks].items():
                slowness, latency = self.slowness[end], self.latency[end]
                for rank in range(last):
                    bit = 1 << rank
                    if ranks & bit or slowness[rank] > threshold:
                        continue
                    there = best[ranks | bit]
                    found = (length + latency[rank], end)
                    if rank not in there or found < there[rank]:
                        there[rank] = found
        ranks = (1 << last) - 1
        closed = {
            end: length + self.latency[end][last]
            for end, (length, _) in best[ranks].items()
            if self.slowness[end][last] <= threshold
        }
        rank = min(closed, key=lambda end: (closed[end], end))
        path = []
        while rank >= 0:
            path.append(rank)
            ranks, rank = ranks ^ 1 << rank, best[ranks][rank][1]
        return from_zero([last, *reversed(path)])

    # ---- many peers ------------------------------------------------------------------------

    def searched(self, start: Sequence[int]) -> tuple[int, ...]:
        """From the better of two starts: moves a rank elsewhere (or-opt) or turns a stretch around
        (2-opt), while that helps. No best order is promised."""
        best = min((list(start), self.nearest()), key=self.penalty)
        cost = self.penalty(best)
        for _ in range(ROUNDS_MAX):
            found = self.improved(best, cost)
            if found is None:
                break
            best, cost = found
        return from_zero(best)

    def penalty(self, order: Sequence[int]) -> tuple[tuple[int, ...], int]:
        """The slowest links first, so that a search sees a step on the way to a better slowest."""
        ring = list(pairwise([*order, order[0]]))
        slowness = sorted((self.slowness[one][other] for one, other in ring), reverse=True)
        return tuple(slowness), sum(self.latency[one][other] for one, other in ring)

    def nearest(self) -> list[int]:
        """Always on to the best rank that is left."""
        order, left = [0], set(range(1, self.count))
        while left:
            here = order[-1]
            order.append(
                min(left, key=lambda r: (self.slowness[here][r], self.latency[here][r], r))
            )
            left.remove(order[-1])
        return order

    def improved(
        self, order: list[int], cost: tuple[tuple[int, ...], int]
    ) -> tuple[list[int], tuple[tuple[int, ...], int]] | None:
        """The first better order that lacks the slowest link; None: none was found."""
        worst = self.worst_place(order)
        rotated = order[worst + 1 :] + order[: worst + 1]  # the worst link closes the ring
        for place in range(1, self.count):
            head, tail = rotated[:place], rotated[place:]
            for found in (
                [*head[::-1], *tail],
                [*head, *tail[::-1]],
                [*head[1:], head[0], *tail],
                [*head, tail[-1], *tail[:-1]],
            ):
                penalty = self.penalty(found)
                if penalty < cost:
                    return found, penalty
        return None

    def worst_place(self, order: Sequence[int]) -> int:
        ring = list(pairwise([*order, order[0]]))
        cost = [(self.slowness[one][other], self.latency[one][other]) for one, other in ring]
        return cost.index(max(cost))


def from_zero(order: Sequence[int]) -> tuple[int, ...]:
    place = order.index(0)
    return tuple([*order[place:], *order[:place]])
