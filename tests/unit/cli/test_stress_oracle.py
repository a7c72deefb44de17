"""The stress test's oracle accepts what is promised, and nothing else."""

from collections.abc import Callable
from typing import Any

import pytest

from collect.cli.stress import workload
from collect.cli.stress.oracle import Inexplicable, Oracle, Told

SEED = 7


class Play:
    """Tells an oracle a flawless history of two peers, until told otherwise."""

    def __init__(self) -> None:
        self.oracle = Oracle(SEED)
        self.names = ["a", "b"]
        self.epoch = 1
        self.number = 0
        self.chain = 0
        for name in self.names:
            self.enter(name, 0)

    def enter(self, name: str, step: int, **changes: Any) -> None:
        told = {"what": "admitted", "name": name, "step": step, "chain": self.chain}
        self.oracle.take({**told, "received": True, "joined": [name], **changes})

    def record(self, step: int, index: int) -> Told:
        """The next operation as everybody should tell it."""
        what = workload.case(SEED, step, index)
        is_rooted = what.collective == workload.BROADCAST
        root = self.names[what.root % len(self.names)] if is_rooted else ""
        found = workload.digest(workload.expected(self.names, step, index, what, root))
        self.number += 1
        self.chain = workload.chained(self.chain, found, self.names)
        return {
            "what": "op",
            "step": step,
            "index": index,
            "op": f"1.{self.number}",
            "epoch": self.epoch,
            "participants": list(self.names),
            "attempts": 1,
            "root": root,
            "failed": "",
            "digest": found,
            "chain": self.chain,
        }

    def tell(self, told: Told, names: list[str] | None = None, **changes: Any) -> None:
        for name in names or self.names:
            self.oracle.take({**told, **changes, "name": name})
        self.oracle.settle()

    def steps(self, first: int, count: int) -> None:
        for step in range(first, first + count):
            for index in range(workload.op_count(SEED, step)):
                self.tell(self.record(step, index))


def test_a_flawless_history_with_a_death_and_a_newcomer_is_accepted() -> None:
    play = Play()
    play.steps(0, 2)
    play.oracle.expelled("b")
    play.oracle.is_over("b")
    play.names, play.epoch = ["a"], 2
    play.steps(2, 1)
    play.names, play.epoch = ["a", "c"], 3
    play.enter("c", 3)
    play.steps(3, 2)

    assert play.oracle.op_count == sum(workload.op_count(SEED, step) for step in range(5))


def test_an_expelled_peer_may_be_one_operation_ahead() -> None:
    play = Play()
    play.steps(0, 1)
    with_both = play.record(1, 0)
    play.oracle.take({**with_both, "name": "b"})
    play.oracle.expelled("b")
    play.oracle.is_over("b")
    play.names, play.epoch, play.number = ["a"], 2, play.number - 1
    play.chain = play.oracle._chain
    play.steps(1, 1)

    assert play.oracle.op_count > workload.op_count(SEED, 0)


BREAKS: dict[str, Callable[[Play], None]] = {
    "wrong bytes on all": lambda p: p.tell(p.record(0, 0), digest="0" * 16),
    "another state on all": lambda p: p.tell(p.record(0, 0), chain=1),
    "a step is lost": lambda p: p.tell(p.record(1, 0)),
    "an operation is lost": lambda p: p.tell(p.record(0, 1)),
    "a participant is left out": lambda p: p.tell(p.record(0, 0), participants=["a"]),
    "a participant is counted twice": lambda p: p.tell(
        p.record(0, 0), participants=["a", "b", "b"]
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_refused_from_all(name: str) -> None:
    with pytest.raises(Inexplicable):
        BREAKS[name](Play())


@pytest.mark.parametrize(
    "change",
    [{"digest": "0" * 16}, {"epoch": 2}, {"op": "1.9"}, {"chain": 5}, {"participants": ["b", "a"]}],
    ids=lambda change: next(iter(change)),
)
def test_two_members_that_tell_different_things_are_refused(change: Told) -> None:
    play = Play()
    told = play.record(0, 0)
    play.tell(told, ["a"])

    with pytest.raises(Inexplicable, match="two histories"):
        play.tell(told, ["b"], **change)


def test_an_operation_told_twice_is_refused() -> None:
    play = Play()
    told = play.record(0, 0)
    play.tell(told)

    with pytest.raises(Inexplicable, match="must tell"):
        play.tell(told)


def test_a_newcomer_with_another_state_is_refused() -> None:
    play = Play()
    play.steps(0, 2)

    play.enter("c", 2, chain=1)
    with pytest.raises(Inexplicable, match="another state"):
        play.oracle.settle()


def test_an_epoch_that_goes_back_and_a_number_that_skips_are_refused() -> None:
    play = Play()
    play.epoch = 2
    play.tell(play.record(0, 0))
    with pytest.raises(Inexplicable, match="older epoch"):
        play.tell(play.record(0, 1), epoch=1)

    play = Play()
    play.tell(play.record(0, 0))
    with pytest.raises(Inexplicable, match="between two"):
        play.tell(play.record(0, 1), op="1.9")


def first_broadcast() -> tuple[int, int]:
    """An operation with a root, and others before it, as (step, index)."""
    for step in range(1, 1000):
        for index in range(workload.op_count(SEED, step)):
            if workload.case(SEED, step, index).collective == workload.BROADCAST:
                return step, index
    raise AssertionError("no broadcast")


def play_until(key: tuple[int, int]) -> Play:
    play = Play()
    step, index = key
    play.steps(0, step)
    for earlier in range(index):
        play.tell(play.record(step, earlier))
    return play


def tell_failed(play: Play, step: int, index: int, **changes: Any) -> None:
    chain = workload.chained(play.chain, "MembersChanged", [])
    told = play.record(step, index)
    play.chain = chain
    told |= {"epoch": 0, "participants": [], "digest": "", "failed": "MembersChanged"}
    play.tell({**told, "chain": chain, **changes})


def test_a_rooted_operation_may_fail_on_all_when_somebody_was_lost() -> None:
    step, index = first_broadcast()
    play = play_until((step, index))
    tell_failed(play, step, index)
    play.oracle.expelled("b")
    play.oracle.is_over("b")
    play.names, play.epoch = ["a"], 2
    for later in range(index + 1, workload.op_count(SEED, step)):
        play.tell(play.record(step, later))
    play.steps(step + 1, 1)

    assert play.oracle.failed_count == 1


def test_a_rooted_operation_that_fails_though_nobody_was_lost_is_refused() -> None:
    step, index = first_broadcast()
    play = play_until((step, index))
    tell_failed(play, step, index)

    is_last = index + 1 == workload.op_count(SEED, step)
    after = (step + 1, 0) if is_last else (step, index + 1)
    with pytest.raises(Inexplicable, match="nobody was lost"):
        play.tell(play.record(*after))


def test_another_operation_that_fails_is_refused() -> None:
    play = Play()
    key = next(
        (step, index)
        for step in range(1000)
        for index in range(workload.op_count(SEED, step))
        if workload.case(SEED, step, index).collective != workload.BROADCAST
    )
    play = play_until(key)

    with pytest.raises(Inexplicable, match="failed"):
        tell_failed(play, *key)


def test_a_broadcast_from_somebody_who_took_no_part_is_refused() -> None:
    key = first_broadcast()
    play = play_until(key)

    with pytest.raises(Inexplicable, match="root"):
        play.tell(play.record(*key), root="c")
