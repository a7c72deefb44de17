"""What the peers of the network tests do."""

import os
import select
import sys
import time
from typing import Any

import numpy as np

import collect
from tests.e2e.world import Stage

TIMEOUT_S = 1.0
COUNT = 50_000
LEARN_S = 60.0


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


def timing(stage: Stage) -> None:
    """Times calls, each [label, algorithm, bytes, repeats]: seconds of each label, per call."""
    for name, value in stage.settings.get("environment", {}).items():
        os.environ[name] = value
    with collect.join(
        stage.address,
        name=stage.name,
        min_peers=stage.settings["min_peers"],
        streams=stage.settings.get("streams", 1),
        interface=stage.settings.get("interface"),
    ) as group:
        stage.tell("joined")
        for label, algorithm, payload_bytes, repeats in stage.settings["calls"]:
            if label == "learn":
                took_s = learn(group, algorithm, payload_bytes)
                stage.tell("timed", label=label, seconds=took_s)
                continue
            array = np.ones(payload_bytes // 4, np.float32)
            for _ in range(2):
                group.all_reduce(array, op="avg", algorithm=algorithm, timeout=120)
            group.barrier()
            begin_s = time.monotonic()
            for _ in range(repeats):
                result = group.all_reduce(array, op="avg", algorithm=algorithm, timeout=120)
            took_s = (time.monotonic() - begin_s) / repeats
            assert (result.array == 1).all()
            stage.tell("timed", label=label, seconds=took_s, algorithm=result.algorithm)
        stage.tell("over", epoch=group.epoch)


def learn(group: collect.Group, algorithm: str, payload_bytes: int) -> float:
    """Traffic until the group has another recipe, by a switch without newcomers. Returns when."""
    before, begin_s = group.epoch, time.monotonic()
    while group.epoch == before:
        assert time.monotonic() < begin_s + LEARN_S, "the recipe stays"
        ones = np.ones(payload_bytes // 4, np.float32)
        group.all_reduce(ones, algorithm=algorithm, timeout=120)
    return time.monotonic() - begin_s
