"""What the peers of the network tests do."""

import select
import sys
from typing import Any

import numpy as np

import collect
from tests.e2e.world import Stage

TIMEOUT_S = 1.0
COUNT = 50_000


def join(stage: Stage) -> collect.Group:
    names = ("interface", "advertise", "min_peers")
    arguments: dict[str, Any] = {n: stage.settings[n] for n in names if n in stage.settings}
    return collect.join(stage.address, name=stage.name, timeout=TIMEOUT_S, **arguments)


def power(name: str) -> float:
    """A power of two for each of "a", "b", …, so that a sum tells who is in it."""
    return 2.0 ** (ord(name[0]) - ord("a"))


def heard() -> str:
    """What the test has said and was not heard yet; never blocks."""
    if select.select([sys.stdin], [], [], 0)[0]:
        return sys.stdin.readline().strip()
    return ""


def work(stage: Stage, group: collect.Group) -> None:
    """Reduces until somebody is told to stop; tells when the participants change."""
    seen: tuple[str, ...] = ()
    while True:
        is_last = heard() == "stop"
        array = np.full(COUNT, power(stage.name))
        array[-1] = 1000.0 if is_last else 0.0
        result = group.all_reduce(array, timeout=30)
        want = sum(power(name) for name in result.participants)
        assert (array[:-1] == want).all(), (array[0], want, result.participants)
        if result.participants != seen:
            seen = result.participants
            stage.tell("view", names=sorted(seen), attempts=result.attempts)
        if array[-1] >= 1000:
            break


def working(stage: Stage) -> None:
    """Joins; works; when it is fenced, joins again."""
    while True:
        try:
            with join(stage) as group:
                me = group.peers[group.rank]
                stage.tell("joined", addresses=me.addresses)
                work(stage, group)
                events = [(event.kind.name, event.peer) for event in group.events()]
                stage.tell("over", events=events, size=group.size)
                return
        except collect.Fenced as error:
            stage.tell("fenced", text=str(error))
            stage.settings["min_peers"] = 1
            stage.hear()
