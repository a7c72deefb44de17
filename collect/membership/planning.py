"""From measured links to a recipe: owner shares, the order of the ring, and link models.

Pure functions of figures. A rank's rate is what its own link to the network carries: what it states
at most, and at most the fastest of its links that was measured. That is more than it has when the
network behind it is wider, and never makes an even network look uneven, whatever the traffic was.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from statistics import median_low

from collect.membership.ring_order import Edge, bottleneck, ring_order
from collect.types import Incarnation, LinkFigures, LinkModel, Member, Recipe

GAIN_MIN = Fraction(11, 10)  # a recipe is replaced only if it is so many times slower
UNEVEN_MIN = 2  # a rank that was measured counts as slow when others are so many times faster
MODEL_CHANGE_MIN = Fraction(5, 4)  # a link model is replaced when a figure is off by so much
SHARES_TOTAL = 1 << 20  # weights add up to about this
PAYLOAD_BYTES = 16 << 20  # the call for which gains are predicted
RING = 1  # enum collect_algorithm

Links = Mapping[Incarnation, LinkFigures]
Figures = Mapping[Incarnation, Links]


@dataclass(frozen=True, slots=True)
class Network:
    """What is known of the members of a view, by rank; 0 stands for unknown.

    edges: for each ordered pair what a frame from the first to the second meets.
    stated: bytes/s that a member says its own link carries.
    """

    hosts: tuple[str, ...]
    edges: tuple[tuple[Edge, ...], ...]
    stated: tuple[int, ...]

    @property
    def size(self) -> int:
        return len(self.hosts)

    def pairs(self, *, is_local: bool) -> Iterable[Edge]:
        for one in range(self.size):
            for other in range(self.size):
                if one != other and (self.hosts[one] == self.hosts[other]) == is_local:
                    yield self.edges[one][other]


def network_of(members: Sequence[Member], figures: Figures) -> Network:
    """The figures of these members' links; both ends may have measured a round trip."""
    nothing: Links = {}

    def edge(one: Member, other: Member) -> Edge:
        there = figures.get(one.incarnation, nothing).get(other.incarnation)
        back = figures.get(other.incarnation, nothing).get(one.incarnation)
        trips = [each.rtt_min_ns for each in (there, back) if each and each.rtt_min_ns]
        rate = there.delivery_bytes_per_s if there else 0
        return Edge(min(trips, default=0), rate)

    return Network(
        hosts=tuple(member.host for member in members),
        edges=tuple(tuple(edge(one, other) for other in members) for one in members),
        stated=tuple(member.bandwidth for member in members),
    )


def planned(members: Sequence[Member], figures: Figures, current: Recipe) -> Recipe:
    """The recipe for a view of these members.

    Args:
        figures: what each peer measured of its links, of whoever has told any.
        current: the recipe so far. Its weights and order are of these very members, or empty.

    Nothing is changed for a predicted gain of up to 10 %.
    """
    network = network_of(members, figures)
    rates = rank_rates(network)
    recipe = replace(
        current,
        local=model_of(network, current.local, is_local=True, rates=()),
        remote=model_of(network, current.remote, is_local=False, rates=rates),
    )
    return with_order(with_weights(recipe, rates), network)


def gain(members: Sequence[Member], figures: Figures, current: Recipe) -> Fraction:
    """How many times faster `planned` is than the recipe so far; 1: it changes nothing that the
    prediction knows of."""
    network = network_of(members, figures)
    rates = rank_rates(network)
    new = planned(members, figures, current)
    if current.algorithm == RING:
        return ring_time(network, current.order) / ring_time(network, new.order)
    return direct_time(rates, current.weights) / direct_time(rates, new.weights)


# ---- rates and models ----------------------------------------------------------------------


def rank_rates(network: Network) -> tuple[int, ...]:
    """By rank, bytes/s each way; () when nothing is known that tells them apart.

    Within one host there is no network: what is measured there is who got the processor.
    """
    is_one_host = len(set(network.hosts)) <= 1
    measured = [0 if is_one_host else measured_rate(network, r) for r in range(network.size)]
    known = [rate for rate in measured if rate]
    if not known and not any(network.stated):
        return ()
    usual = median_low(known) if known else 0
    rates = []
    for stated, rate in zip(network.stated, measured, strict=True):
        # A delivery rate varies by itself.
        steady = usual if rate == 0 or usual < UNEVEN_MIN * rate < UNEVEN_MIN**2 * usual else rate
        candidates = [each for each in (stated, steady) if each]
        rates.append(min(candidates, default=0))
    fill = median_low([rate for rate in rates if rate])
    return tuple(rate or fill for rate in rates)


def measured_rate(network: Network, rank: int) -> int:
    """The slower direction of a rank's fastest link; 0 while one direction is unknown."""
    others = [other for other in range(network.size) if other != rank]
    sent = max((network.edges[rank][other].bytes_per_s for other in others), default=0)
    received = max((network.edges[other][rank].bytes_per_s for other in others), default=0)
    return min(sent, received)


def model_of(
    network: Network, current: LinkModel, *, is_local: bool, rates: Sequence[int]
) -> LinkModel:
    """The usual link within or between hosts; between them as fast as the usual rank.

    Within a host sockets tell something only where they carried something: beside shared memory
    they do not, and what was assumed of it holds.
    """
    edges = [edge for edge in network.pairs(is_local=is_local) if edge.bytes_per_s or not is_local]
    trips = [edge.rtt_ns for edge in edges if edge.rtt_ns]
    speeds = [edge.bytes_per_s for edge in edges if edge.bytes_per_s] if is_local else rates
    latency_ns = max(1, median_low(trips) // 2) if trips else current.latency_ns
    bytes_per_s = median_low(speeds) if edges and speeds else current.bytes_per_s
    return replace(
        current,
        latency_ns=settled(current.latency_ns, latency_ns),
        bytes_per_s=settled(current.bytes_per_s, bytes_per_s),
    )


def settled(old: int, new: int) -> int:
    """The new figure, unless it is about the old one."""
    return new if max(old, new) > MODEL_CHANGE_MIN * min(old, new) else old


# ---- owner shares --------------------------------------------------------------------------


def with_weights(recipe: Recipe, rates: Sequence[int]) -> Recipe:
    best = owner_shares(rates)
    if direct_time(rates, recipe.weights) > GAIN_MIN * direct_time(rates, best):
        return replace(recipe, weights=best)
    return recipe


def owner_shares(rates: Sequence[int]) -> tuple[int, ...]:
    """Weights for direct exchange that minimise the time of the slowest rank, by water-filling.

    With share f a rank moves S (1 + f (p - 2)) each way. All ranks with a share finish together, at
    T = S (p - 2 + a) / (sum of their rates), where a is how many they are; whoever needs longer
    than T for its own S gets none. (): any split is as good.
    """
    count = len(rates)
    if count <= 2 or len(set(rates)) == 1:
        return ()
    fastest = sorted(rates, reverse=True)
    owners, total = 0, 0
    # A further owner is of use while its own payload takes less than what all need without it.
    while owners < count and fastest[owners] * (count - 2 + owners) >= total:
        total += fastest[owners]
        owners += 1
    time = Fraction(count - 2 + owners, total)
    return tuple(
        int(max(Fraction(0), (time * rate - 1) / (count - 2)) * SHARES_TOTAL) for rate in rates
    )


def direct_time(rates: Sequence[int], weights: Sequence[int]) -> Fraction:
    """Seconds of a direct exchange of PAYLOAD_BYTES; 1 when nothing is known of the ranks."""
    count = len(rates)
    if count < 2:
        return Fraction(1)
    total = sum(weights)
    shares = [Fraction(each, total) for each in weights] or [Fraction(1, count)] * count
    loads = (
        PAYLOAD_BYTES * (1 + share * (count - 2)) / rate
        for share, rate in zip(shares, rates, strict=True)
    )
    return max(loads)


# ---- the ring ------------------------------------------------------------------------------


def with_order(recipe: Recipe, network: Network) -> Recipe:
    best = ring_order(network.edges, network.hosts)
    if ring_time(network, recipe.order) > GAIN_MIN * ring_time(network, best):
        return replace(recipe, order=best)
    return recipe


def ring_time(network: Network, order: Sequence[int]) -> Fraction:
    """Seconds of an all-reduce of PAYLOAD_BYTES around the ring; 1 while nothing is known."""
    count = network.size
    slowest, latency_ns = bottleneck(network.edges, order or range(count))
    if count < 2 or (slowest == 0 and latency_ns == 0):
        return Fraction(1)
    moved = Fraction(2 * (count - 1) * PAYLOAD_BYTES, count)
    waited = Fraction(2 * (count - 1) * latency_ns, count * 10**9)
    return waited + (moved / slowest if slowest else 0)
