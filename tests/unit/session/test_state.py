"""Bringing newcomers in step, over a maximum that is taken among threads instead of processes."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from collect.errors import CollectError, InvalidArgument, StateMismatch
from collect.session import state as state_module
from collect.session.state import Role, State, synchronise

Arrays = dict[str, Any]


class Dead(Exception):
    """Ends a peer in the middle."""


class Bench:
    """A group of threads. `die_at[peer]`: the peer dies instead of its n-th maximum."""

    def __init__(self, peers: list[int], die_at: dict[int, int] | None = None) -> None:
        self._alive = list(peers)
        self._die_at = die_at or {}
        self._calls = dict.fromkeys(peers, 0)
        self._arrived: dict[int, np.ndarray] = {}
        self._results: dict[int, tuple[np.ndarray, tuple[int, ...]]] = {}
        self._changed = threading.Condition()

    def maximise(self, peer: int) -> Callable[[np.ndarray], tuple[int, ...]]:
        def run(array: np.ndarray) -> tuple[int, ...]:
            with self._changed:
                if self._calls[peer] == self._die_at.get(peer):
                    self._alive.remove(peer)
                    self._complete()
                    raise Dead
                self._calls[peer] += 1
                self._arrived[peer] = array
                self._complete()
                assert self._changed.wait_for(lambda: peer in self._results, 20)
                result, participants = self._results.pop(peer)
                array[:] = result
                return participants

        return run

    def leave(self, peer: int) -> None:
        with self._changed:
            if peer in self._alive:
                self._alive.remove(peer)
                self._complete()

    def _complete(self) -> None:
        if self._alive and set(self._alive) <= set(self._arrived):
            arrays = [self._arrived[peer].copy() for peer in self._alive]
            assert len({array.shape for array in arrays}) == 1
            result = np.maximum.reduce(arrays)
            participants = tuple(self._alive)
            self._arrived.clear()
            self._results |= dict.fromkeys(participants, (result, participants))
        self._changed.notify_all()


def run(
    states: dict[int, Arrays],
    newcomers: set[int],
    *,
    founding: set[int] | None = None,
    die_at: dict[int, int] | None = None,
) -> dict[int, bool | CollectError | None]:
    """What `synchronise` gives each peer: received or not, its error, or None for the dead."""
    bench = Bench(list(states), die_at)
    outcomes: dict[int, bool | CollectError | None] = {}

    def peer_body(peer: int) -> None:
        role = Role(peer, peer in newcomers, peer in (founding or set()))
        try:
            outcomes[peer] = synchronise(State(states[peer]), role, bench.maximise(peer))
        except Dead:
            outcomes[peer] = None
        except CollectError as error:
            outcomes[peer] = error
        bench.leave(peer)

    threads = [threading.Thread(target=peer_body, args=(peer,)) for peer in states]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def arrays(value: float) -> Arrays:
    return {
        "w": np.full((7, 3), value, np.float32),
        "strided": np.full((4, 4), value)[:, 1],
        "step": np.array(int(value)),
        "flag": np.array([value > 0] * 3),
        "empty": np.zeros((0, 5)),
    }


def is_all(states: Arrays, value: float) -> bool:
    return all(bool((states[name] == expected).all()) for name, expected in arrays(value).items())


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "PIECE_BYTES_MAX", 32)


def test_a_newcomer_gets_the_bytes_of_the_incumbents() -> None:
    states = {1: arrays(5.0), 2: arrays(5.0), 3: arrays(0.0)}

    assert run(states, {3}) == {1: False, 2: False, 3: True}

    assert all(is_all(each, 5.0) for each in states.values())


def test_equal_states_are_not_sent() -> None:
    states = {1: arrays(5.0), 2: arrays(5.0)}

    assert run(states, {2}) == {1: False, 2: False}


def test_no_state_at_all_is_a_state() -> None:
    assert run({1: {}, 2: {}, 3: {}}, {2, 3}) == {1: False, 2: False, 3: False}


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_founders_get_the_state_of_the_lowest_rank(order: tuple[int, ...]) -> None:
    states = {peer: arrays(float(peer)) for peer in order}

    outcomes = run(states, {1, 2, 3}, founding={1, 2, 3})

    assert outcomes == {peer: peer != order[0] for peer in order}
    assert all(is_all(each, float(order[0])) for each in states.values())


@pytest.mark.parametrize("call", range(5))
def test_an_incumbent_may_die_at_any_time(call: int) -> None:
    states = {1: arrays(5.0), 2: arrays(5.0), 3: arrays(0.0)}

    outcomes = run(states, {3}, die_at={1: call})

    assert outcomes[2] is False
    assert outcomes[3] is True
    assert is_all(states[3], 5.0)


@pytest.mark.parametrize("call", range(5))
def test_when_every_incumbent_is_gone_the_newcomers_keep_what_they_had(call: int) -> None:
    states = {1: arrays(5.0), 2: arrays(0.0), 3: arrays(0.0)}

    outcomes = run(states, {2, 3}, die_at={1: call})

    assert outcomes[1] is None
    assert isinstance(outcomes[2], StateMismatch)
    assert isinstance(outcomes[3], StateMismatch)
    assert "only newcomers are left" in str(outcomes[2])
    assert is_all(states[2], 0.0)
    assert is_all(states[3], 0.0)


@pytest.mark.parametrize("call", range(6))
def test_the_next_founder_takes_over_when_one_dies(call: int) -> None:
    states = {peer: arrays(float(peer)) for peer in (1, 2, 3)}

    outcomes = run(states, {1, 2, 3}, founding={1, 2, 3}, die_at={1: call})

    assert outcomes[1] is None
    assert is_all(states[3], 2.0)
    assert is_all(states[2], 2.0)


def test_one_that_knows_of_members_before_keeps_newcomers_from_founding() -> None:
    outcomes = run({1: arrays(1.0), 2: arrays(2.0)}, {1, 2}, founding={2})

    assert {type(each) for each in outcomes.values()} == {StateMismatch}


@pytest.mark.parametrize(
    "other",
    [
        {"w": np.zeros(3)},
        {"v": np.zeros(4)},
        {"w": np.zeros(4, np.float32)},
        {"w": np.zeros((2, 2))},
        {},
        None,
    ],
)
def test_layouts_that_differ_are_refused_by_all(other: Arrays | None) -> None:
    states = {1: {"w": np.zeros(4)}, 2: {"w": np.zeros(4)}, 3: other}

    outcomes = run(states, {3})  # type: ignore[arg-type]

    assert {type(each) for each in outcomes.values()} == {StateMismatch}
    assert "layouts" in str(outcomes[1])


def test_incumbents_that_differ_are_refused_by_all_and_nothing_is_written() -> None:
    states = {1: arrays(1.0), 2: arrays(2.0), 3: arrays(3.0)}

    outcomes = run(states, {3})

    assert {type(each) for each in outcomes.values()} == {StateMismatch}
    assert is_all(states[3], 3.0)


def test_the_order_of_names_does_not_matter() -> None:
    first = {"a": np.ones(3), "b": np.full(2, 2.0)}
    second = {"b": np.zeros(2), "a": np.zeros(3)}

    assert run({1: first, 2: second}, {2}) == {1: False, 2: True}

    assert second["a"].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("seed_step", range(10))
def test_any_bytes_arrive_as_they_are(seed_step: int) -> None:
    rng = np.random.default_rng(seed_step)
    blob = rng.integers(0, 256, int(rng.integers(1, 200)), np.uint8)
    states = {1: {"x": blob}, 2: {"x": np.zeros_like(blob)}}

    run(states, {2})

    assert states[2]["x"].tobytes() == blob.tobytes()


def test_what_is_no_array_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(InvalidArgument, match=r"state\['w'\] must be a NumPy array"):
        State({"w": [1.0]})
    with pytest.raises(InvalidArgument, match="Python objects"):
        State({"w": np.array([None])})
    read_only = np.zeros(3)
    read_only.flags.writeable = False
    with pytest.raises(InvalidArgument, match="writable"):
        State({"w": read_only}).require_writable()
