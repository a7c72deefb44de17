"""Every collective against NumPy, in real processes: types, reductions, algorithms, odd sizes.

One world of processes serves many examples: a test says a list of calls, each peer makes them with
contributions that follow from its rank, and tells a digest of each result.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import collect
from collect import native
from collect.native.codes import ALGORITHM_CODES, DTYPE_CODES, OPS_OF_DTYPE, Collective
from tests.e2e.world import Peer, Stage, world

Spec = dict[str, Any]

DTYPES = [str(dtype) for dtype in DTYPE_CODES]
ROWS = (0, 1, 2, 3, 7, 64, 1000, 20_011)
RANK_ORDERED = ("direct", "star", "exchange")
OUT_OF_PLACE = ("new", "out", "strided")


# ---- what a call takes and gives -----------------------------------------------------------------


def values(spec: Spec, rank: int, rows: int) -> np.ndarray:
    """A contribution; sums and products of these are exact in every type but at `random`."""
    rng = np.random.default_rng([spec["seed"], rank])
    shape = (rows, *spec["tail"])
    dtype = np.dtype(spec["dtype"])
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu":
        return rng.integers(0, 256, shape).astype(np.uint8).astype(dtype)
    if spec["random"]:
        return (rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 3, shape)).astype(dtype)
    small = rng.choice([-2.0, -1.0, 0.5, 1.0, 2.0], shape)
    if dtype.kind == "c":
        small = small + 1j * rng.choice([-1.0, 1.0, 2.0], shape)
    return small.astype(dtype)


def factor_of(spec: Spec, rank: int) -> float | None:
    return 0.5 * (rank + 1) if spec["op"] == "premul_sum" else None


def reduced(spec: Spec, contributions: list[np.ndarray]) -> np.ndarray:
    """Left to right in rank order; 16-bit floats in float32, rounded once."""
    dtype = contributions[0].dtype
    op = spec["op"]
    wide = np.float32 if dtype == np.float16 else dtype
    terms = [each.astype(wide) for each in contributions]
    if op == "premul_sum":
        terms = [each * np.dtype(wide).type(factor_of(spec, r)) for r, each in enumerate(terms)]
    if dtype.kind == "b":
        names = {"sum": "or", "max": "or", "prod": "and", "min": "and"}
        op = names.get(op, op)
    function = {
        "sum": np.add,
        "avg": np.add,
        "premul_sum": np.add,
        "prod": np.multiply,
        "min": np.minimum,
        "max": np.maximum,
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
    }[op]
    total = terms[0]
    for term in terms[1:]:
        total = function(total, term)
    if op == "avg":
        total = divided(total, len(terms))
    return total.astype(dtype)


def divided(total: np.ndarray, size: int) -> np.ndarray:
    if total.dtype.kind == "c":
        parts = total.view(total.real.dtype)
        return (parts / parts.dtype.type(size)).view(total.dtype)
    if total.dtype.kind == "f":
        return total / total.dtype.type(size)
    quotient = np.abs(total.astype(object)) // size
    return (np.sign(total.astype(object)) * quotient).astype(total.dtype)


def rows_of(spec: Spec, size: int) -> list[int]:
    """Of each rank's block."""
    if spec["counts"]:
        return [(spec["rows"] + 3 * rank) % 11 for rank in range(size)]
    return [spec["rows"]] * size


def sent_rows(spec: Spec, size: int) -> list[list[int]]:
    """Of an all-to-all: by sender, to each."""
    if spec["counts"]:
        return [[(spec["rows"] + r + 2 * to) % 5 for to in range(size)] for r in range(size)]
    return [[spec["rows"]] * size for _ in range(size)]


def given(spec: Spec, rank: int, size: int) -> np.ndarray:
    """What a rank passes."""
    name = spec["collective"]
    if name in ("reduce_scatter", "scatter"):
        return values(spec, rank, sum(rows_of(spec, size)))
    if name in ("all_gather", "gather"):
        return values(spec, rank, rows_of(spec, size)[rank])
    if name == "all_to_all":
        return values(spec, rank, sum(sent_rows(spec, size)[rank]))
    return values(spec, rank, spec["rows"])


def wanted(spec: Spec, rank: int, size: int) -> np.ndarray | None:
    """What a rank gets."""
    all_given = [given(spec, r, size) for r in range(size)]
    name, root = spec["collective"], spec["root"] % size
    is_root = rank == root
    ends = np.cumsum([0, *rows_of(spec, size)])
    if name in ("all_reduce", "reduce", "reduce_scatter"):
        total = reduced(spec, all_given)
        if name == "reduce_scatter":
            return total[ends[rank] : ends[rank + 1]]
        return total if name == "all_reduce" or is_root else None
    if name in ("all_gather", "gather"):
        if name == "gather" and not is_root:
            return None
        return np.concatenate(all_given) if spec["counts"] else np.stack(all_given)
    if name == "broadcast":
        return all_given[root]
    if name == "scatter":
        return all_given[root][ends[rank] : ends[rank + 1]]
    begins = [np.cumsum([0, *rows]) for rows in sent_rows(spec, size)]
    return np.concatenate(
        [each[begins[r][rank] : begins[r][rank + 1]] for r, each in enumerate(all_given)]
    )


def digest(array: np.ndarray | None) -> str:
    if array is None:
        return "none"
    text = f"{array.dtype} {array.shape} ".encode()
    return hashlib.sha256(text + np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


# ---- a peer --------------------------------------------------------------------------------------


def room(spec: Spec, shape: tuple[int, ...]) -> np.ndarray | None:
    """Memory for a result, if the call is to be given some."""
    if spec["place"] == "out":
        return np.full(shape, 7, spec["dtype"])
    if spec["place"] == "strided":
        return np.full((*shape, 2), 7, spec["dtype"])[..., 1]
    if spec["place"] == "shared":
        return collect.empty(shape, spec["dtype"])
    return None


def make(group: collect.Group, spec: Spec, rank: int, size: int) -> np.ndarray | None:
    """Makes a call as it is specified; checks what only this side can see."""
    array = given(spec, rank, size)
    if spec["place"] == "shared":
        shared = collect.empty(array.shape, array.dtype)
        shared[:] = array
        array = shared
    elif spec["place"] == "strided":
        wide = np.zeros((*array.shape, 2), array.dtype)
        wide[..., 0] = array
        array = wide[..., 0]
    before = array.copy()
    result = wanted(spec, rank, size)
    name, root = spec["collective"], spec["root"] % size
    out = None if result is None else room(spec, result.shape)
    options: dict[str, Any] = {"algorithm": spec["algorithm"]}
    if name in ("all_reduce", "reduce", "reduce_scatter"):
        options |= {"op": spec["op"], "factor": factor_of(spec, rank)}
    if name in ("reduce", "broadcast", "gather", "scatter"):
        options["root"] = root
    if spec["counts"] and name == "all_to_all":
        rows = sent_rows(spec, size)
        options["send_counts"] = rows[rank]
        if spec["seed"] % 2:
            options["receive_counts"] = [row[rank] for row in rows]
    elif spec["counts"] and name in ("reduce_scatter", "all_gather", "gather", "scatter"):
        options["counts"] = rows_of(spec, size)
    argument: Any = array
    if name == "scatter" and rank != root:
        argument = None
        assert result is not None
        out = np.empty(result.shape, result.dtype) if out is None else np.ascontiguousarray(out)
    done = getattr(group, name)(argument, out=out, **options)
    assert len(done.participants) == size
    got = done.array
    is_in_place = out is None and name in ("all_reduce", "broadcast", "reduce")
    if not is_in_place:
        assert array.tobytes() == before.tobytes(), "the input was written to"
    if got is not None and out is not None:
        assert got is out
    elif got is not None and is_in_place:
        assert got is argument
    return got


def serve(stage: Stage) -> None:
    with stage.join() as group:
        rank, size = group.rank, group.size
        stage.tell("ready", rank=rank)
        while line := stage.hear():
            digests = [digest(make(group, spec, rank, size)) for spec in json.loads(line)]
            stage.tell("done", digests=digests)


# ---- the tests -----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[1, 2, 3, 4])
def peers(request: pytest.FixtureRequest) -> Iterator[list[Peer]]:
    """In rank order."""
    with world() as here:
        team = here.team(serve, request.param)
        ranks = [peer.told("ready")["rank"] for peer in team]
        yield [team[ranks.index(rank)] for rank in range(request.param)]
        for peer in team:
            peer.say("")
        assert [peer.wait() for peer in team] == [0] * len(team)


def check(peers: list[Peer], specs: list[Spec]) -> None:
    for peer in peers:
        peer.say(json.dumps(specs))
    told = [peer.told("done")["digests"] for peer in peers]
    for index, spec in enumerate(specs):
        got = [digests[index] for digests in told]
        want = [digest(wanted(spec, rank, len(peers))) for rank in range(len(peers))]
        assert got == want, spec


def spec_of(collective: str, dtype: str, op: str = "sum", **more: Any) -> Spec:
    defaults = {"rows": 5, "tail": [], "counts": False, "root": 0, "place": "new", "seed": 1}
    spec = {"collective": collective, "dtype": dtype, "op": op, "algorithm": "auto", **defaults}
    return {**spec, "random": False, **more}


def algorithms_of(collective: str, counts: bool = False) -> list[str]:
    kind = Collective[collective.upper()]
    found = [
        name
        for name, code in ALGORITHM_CODES.items()
        if code < 0 or native.lib.collect_algorithm_has(code, int(kind))
    ]
    if counts and collective == "all_to_all":  # these pass on what only others know the size of
        found = [name for name in found if name not in ("bruck", "hierarchical")]
    return found


NAMES = [kind.name.lower() for kind in Collective if kind is not Collective.BARRIER]


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    collective = draw(st.sampled_from(NAMES))
    dtype = draw(st.sampled_from(DTYPES))
    ops = OPS_OF_DTYPE[DTYPE_CODES[np.dtype(dtype)]] if "reduce" in collective else ("sum",)
    has_counts = collective not in ("all_reduce", "reduce", "broadcast")
    counts = draw(st.booleans()) if has_counts else False
    places = ["new", "out", "strided", "shared"]
    return spec_of(
        collective,
        dtype,
        draw(st.sampled_from(ops)),
        algorithm=draw(st.sampled_from(algorithms_of(collective, counts))),
        rows=draw(st.sampled_from(ROWS)),
        tail=draw(st.sampled_from([[], [3], [2, 1]])),
        counts=counts,
        root=draw(st.integers(0, 3)),
        place=draw(st.sampled_from(places)),
        seed=draw(st.integers(0, 99)),
    )


@pytest.mark.time_limit(240)
@hypothesis.settings(
    max_examples=40,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
)
@hypothesis.given(calls=st.lists(specs(), min_size=1, max_size=12))
def test_calls_of_every_kind_equal_numpy(peers: list[Peer], calls: list[Spec]) -> None:
    check(peers, calls)


@pytest.mark.parametrize("collective", ["all_reduce", "reduce_scatter", "reduce"])
def test_every_reduction_of_every_type_equals_numpy(peers: list[Peer], collective: str) -> None:
    calls = [
        spec_of(collective, dtype, op, rows=rows)
        for dtype in DTYPES
        for op in OPS_OF_DTYPE[DTYPE_CODES[np.dtype(dtype)]]
        for rows in (1, 333)
    ]
    check(peers, calls)


@pytest.mark.parametrize("collective", NAMES)
def test_every_algorithm_of_every_collective_equals_numpy(
    peers: list[Peer], collective: str
) -> None:
    calls = [
        spec_of(collective, "float32", algorithm=algorithm, rows=rows, counts=counts, root=2)
        for counts in (False, True)
        for algorithm in algorithms_of(collective, counts)
        for rows in (0, 1, 5, 100_003)
        if not counts or collective not in ("all_reduce", "reduce", "broadcast")
    ]
    check(peers, calls)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("op", ["sum", "avg"])
def test_bits_are_those_of_the_rank_order(peers: list[Peer], dtype: str, op: str) -> None:
    calls = [
        spec_of("all_reduce", dtype, op, algorithm=algorithm, rows=rows, random=True)
        for algorithm in RANK_ORDERED
        for rows in (1, 1000, 100_003)
    ]
    check(peers, calls)
