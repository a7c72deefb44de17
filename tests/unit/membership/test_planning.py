"""From figures to a recipe: shares are optimal, rings are, and noise changes nothing."""

from fractions import Fraction
from itertools import pairwise, permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from collect.membership import planning
from collect.membership.planning import GAIN_MIN, direct_time, gain, owner_shares, planned
from collect.membership.ring_order import SEARCH_PEERS_MAX, Costs, Edge, ring_order
from collect.types import SHARED_MEMORY, LinkFigures, LinkModel, Member, Recipe
from collect.wire.codec import WEIGHT_SUM_MAX

GBIT = 125_000_000
NOTHING = Edge(0, 0)
Figures = dict[int, dict[int, LinkFigures]]


def members(*bandwidths: int, hosts: str = "abcdefghijklmnopqrstuvwxyz") -> tuple[Member, ...]:
    return tuple(
        Member(rank + 1, f"p{rank}", hosts[rank], (), bandwidth)
        for rank, bandwidth in enumerate(bandwidths)
    )


def measured(rates: list[int], rtt_ns: int = 1_000_000) -> Figures:
    """What members see whose own links are the only bottlenecks."""
    ids = range(1, len(rates) + 1)
    return {
        one: {
            other: LinkFigures(other, rtt_ns, min(rates[one - 1], rates[other - 1]))
            for other in ids
            if other != one
        }
        for one in ids
    }


# ---- shares --------------------------------------------------------------------------------


def test_one_slow_rank_among_many_owns_nothing_and_sets_the_time() -> None:
    rates = [GBIT] * 15 + [GBIT // 10]

    weights = owner_shares(rates)

    assert weights[15] == 0
    assert len(set(weights[:15])) == 1
    # The figures of the literature: 15.0 s for an even split of 100 MB, 8.0 s for this one.
    scale = Fraction(100_000_000, planning.PAYLOAD_BYTES)
    assert round(float(direct_time(rates, weights) * scale), 2) == 8.0
    assert round(float(direct_time(rates, ()) * scale), 2) == 15.0


def test_two_fast_ranks_carry_what_others_cannot() -> None:
    rates = [10 * GBIT] * 2 + [GBIT] * 14
    scale = Fraction(100_000_000, planning.PAYLOAD_BYTES)

    assert round(float(direct_time(rates, owner_shares(rates)) * scale), 2) == 0.8


def test_equal_ranks_and_pairs_need_no_weights() -> None:
    assert owner_shares([GBIT] * 5) == ()
    assert owner_shares([GBIT, GBIT // 10]) == ()
    assert owner_shares([]) == ()


def compositions(total: int, parts: int) -> list[tuple[int, ...]]:
    if parts == 1:
        return [(total,)]
    return [
        (first, *rest)
        for first in range(total + 1)
        for rest in compositions(total - first, parts - 1)
    ]


@given(st.lists(st.integers(1, 40), min_size=3, max_size=5))
@settings(max_examples=60)
def test_no_split_in_twelfths_beats_the_shares(rates: list[int]) -> None:
    best = direct_time(rates, owner_shares(rates))
    brute = min(direct_time(rates, split) for split in compositions(12, len(rates)))

    assert best <= brute * Fraction(1001, 1000)
    assert best * min(rates) >= planning.PAYLOAD_BYTES


@given(st.lists(st.integers(1, 10**12), min_size=3, max_size=60))
def test_shares_are_weights_that_a_recipe_takes(rates: list[int]) -> None:
    weights = owner_shares(rates)

    assert weights == () or len(weights) == len(rates)
    assert weights == () or 1 <= sum(weights) <= WEIGHT_SUM_MAX
    assert all(weight >= 0 for weight in weights)
    ordered = [weight for _, weight in sorted(zip(rates, weights, strict=False))]
    assert ordered == sorted(ordered), "a faster rank owns less"


# ---- the ring ------------------------------------------------------------------------------


def grid(size: int) -> st.SearchStrategy[list[list[Edge]]]:
    edge = st.builds(Edge, st.integers(1, 6), st.integers(1, 6))
    return st.lists(st.lists(edge, min_size=size, max_size=size), min_size=size, max_size=size)


def best_cost(edges: list[list[Edge]]) -> tuple[int, int]:
    costs = Costs(edges)
    return min(costs.of((0, *rest)) for rest in permutations(range(1, len(edges))))


@given(st.integers(3, 7).flatmap(grid))
@settings(max_examples=80, deadline=None)
def test_few_peers_get_the_best_ring_there_is(edges: list[list[Edge]]) -> None:
    order = ring_order(edges, [""] * len(edges)) or tuple(range(len(edges)))

    assert sorted(order) == list(range(len(edges)))
    assert Costs(edges).of(order) == best_cost(edges)


@given(st.integers(3, 7).flatmap(grid))
@settings(max_examples=80, deadline=None)
def test_a_search_is_no_worse_than_where_it_starts(edges: list[list[Edge]]) -> None:
    costs, default = Costs(edges), tuple(range(len(edges)))

    found = costs.searched(default)

    assert sorted(found) == list(default)
    assert costs.of(found)[0] <= costs.of(default)[0]


def islands(size: int, count: int) -> list[list[Edge]]:
    """Fast within an island, slow between them; ranks are dealt out to islands in turn."""
    near, far = Edge(1000, 100), Edge(9000, 1)
    return [[near if a % count == b % count else far for b in range(size)] for a in range(size)]


def test_islands_are_visited_one_after_the_other() -> None:
    for size, hosts in ((12, 3), (20, 4), (32, 2), (64, 4)):
        edges = islands(size, hosts)
        order = ring_order(edges, [str(rank % hosts) for rank in range(size)])
        changes = sum(a % hosts != b % hosts for a, b in pairwise([*order, order[0]]))
        assert changes == hosts


def test_one_slow_link_of_many_is_left_out() -> None:
    for size in (5, 12, 30, 64):
        edges = [[Edge(1000, 100)] * size for _ in range(size)]
        edges[1][2] = Edge(1000, 1)
        order = ring_order(edges, [str(rank) for rank in range(size)])
        assert (1, 2) not in pairwise([*order, order[0]])


def test_a_crowd_is_sorted_by_host_only() -> None:
    size = SEARCH_PEERS_MAX + 6
    order = ring_order([[NOTHING] * size] * size, [str(rank % 2) for rank in range(size)])

    assert order == tuple(range(0, size, 2)) + tuple(range(1, size, 2))


def test_without_figures_or_choice_the_order_stays() -> None:
    assert ring_order([[NOTHING] * 4] * 4, ["a", "b", "a", "b"]) == ()
    assert ring_order([[Edge(5, 5)] * 2] * 2, ["a", "b"]) == ()
    assert ring_order([[Edge(5, 5)] * 5] * 5, list("abcde")) == ()


# ---- the recipe ----------------------------------------------------------------------------


def test_without_figures_the_recipe_stays() -> None:
    assert planned(members(0, 0, 0), {}, Recipe()) == Recipe()
    assert planned((), {}, Recipe()) == Recipe()
    assert planned(members(0), {}, Recipe()) == Recipe()


def test_what_members_say_of_themselves_weighs_without_any_figures() -> None:
    recipe = planned(members(GBIT, GBIT, GBIT // 10, GBIT, 0), {}, Recipe())

    assert recipe.weights[2] == 0
    assert recipe.weights[4] == recipe.weights[0] > 0
    assert recipe.remote.bytes_per_s == GBIT


def test_a_slow_link_that_was_measured_weighs_too() -> None:
    rates = [GBIT, GBIT, GBIT // 10, GBIT, GBIT]

    recipe = planned(members(0, 0, 0, 0, 0), measured(rates), Recipe())

    assert recipe.weights[2] == 0
    assert recipe.remote == LinkModel(500_000, Recipe().remote.overhead_ns, GBIT)


def test_the_least_of_what_is_stated_and_measured_holds() -> None:
    figures = measured([GBIT // 4] * 5)

    rates = planning.rank_rates(planning.network_of(members(GBIT, 0, GBIT // 10, 0, 0), figures))

    assert rates == (GBIT // 4, GBIT // 4, GBIT // 10, GBIT // 4, GBIT // 4)


def test_rates_that_vary_by_themselves_weigh_nothing() -> None:
    recipe = planned(members(0, 0, 0, 0, 0), measured([100, 140, 70, 120, 100]), Recipe())

    assert recipe.weights == ()


def test_what_is_measured_within_one_host_is_no_network() -> None:
    recipe = planned(members(0, 0, 0, 0, hosts="aaaa"), measured([100, 9, 100, 100]), Recipe())

    assert recipe.weights == ()
    assert recipe.remote == Recipe().remote
    assert recipe.local.latency_ns == 500_000


def test_sockets_beside_shared_memory_tell_nothing_of_a_host() -> None:
    view = members(0, 0, 0, 0, hosts="aabb")

    unused = planned(view, measured([0] * 4), Recipe())
    used = planned(view, measured([GBIT] * 4), Recipe())

    assert unused.local == SHARED_MEMORY
    assert unused.remote.latency_ns == 500_000
    assert used.local == LinkModel(500_000, SHARED_MEMORY.overhead_ns, GBIT)


def test_a_small_gain_changes_nothing() -> None:
    rates = [1000, 1000, 1000, 1000, 920]
    recipe = planned(members(*rates), {}, Recipe())

    assert recipe.weights == ()
    assert direct_time(rates, ()) <= GAIN_MIN * direct_time(rates, owner_shares(rates))


def test_weights_go_when_ranks_are_alike_again() -> None:
    uneven = planned(members(GBIT, GBIT, GBIT // 10), {}, Recipe())

    assert uneven.weights[2] == 0
    assert planned(members(*[GBIT] * 3), {}, uneven).weights == ()


def test_link_models_follow_only_a_marked_change() -> None:
    old = Recipe(remote=LinkModel(500_000, 5_000, GBIT))

    same = planned(members(0, 0, 0), measured([GBIT * 9 // 10] * 3, 1_100_000), old)
    other = planned(members(0, 0, 0), measured([GBIT // 2] * 3, 3_000_000), old)

    assert same.remote == old.remote
    assert other.remote == LinkModel(1_500_000, 5_000, GBIT // 2)


def test_the_gain_is_that_of_the_algorithm_in_use() -> None:
    slow_rank = members(GBIT, GBIT, GBIT // 10, GBIT, GBIT)

    assert gain(slow_rank, {}, Recipe()) == Fraction(8, 5)
    assert gain(slow_rank, {}, planned(slow_rank, {}, Recipe())) == 1
    assert gain(slow_rank, {}, Recipe(algorithm=planning.RING)) == 1


def test_a_ring_around_a_slow_pair_gains() -> None:
    figures = measured([GBIT] * 5)
    figures[1][2] = LinkFigures(2, 1_000_000, GBIT // 10)

    recipe = planned(members(0, 0, 0, 0, 0), figures, Recipe(algorithm=planning.RING))

    assert (0, 1) not in pairwise([*recipe.order, recipe.order[0]])
    assert gain(members(0, 0, 0, 0, 0), figures, Recipe(algorithm=planning.RING)) > 5


RATES = st.sampled_from([0, 1, 7, 10**6, 10**9, 10**15])
LINK = st.builds(LinkFigures, st.integers(1, 6), RATES, RATES)


@given(
    st.lists(RATES, max_size=5),
    st.dictionaries(st.integers(1, 6), st.lists(LINK, max_size=6)),
    st.sampled_from([-1, 0, 1]),
)
@settings(max_examples=300, deadline=None)
def test_any_figures_give_a_recipe_that_fits(
    stated: list[int], told: dict[int, list[LinkFigures]], algorithm: int
) -> None:
    figures = {peer: {link.incarnation: link for link in links} for peer, links in told.items()}
    view = members(*stated, hosts="aabbc")

    recipe = planned(view, figures, Recipe(algorithm=algorithm))

    assert len(recipe.weights) in (0, len(view))
    assert sorted(recipe.order) in ([], list(range(len(view))))
    assert recipe.local.bytes_per_s > 0
    assert recipe.remote.latency_ns > 0
    assert gain(view, figures, Recipe(algorithm=algorithm)) >= 1
    assert planned(view, figures, recipe) == recipe
