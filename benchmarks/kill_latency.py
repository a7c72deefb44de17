"""How long operations are held up by deaths, stalls, joins and a coordinator's restart.

    python benchmarks/kill_latency.py --runs 20 --json times.json

Every run starts four peers and a coordinator, all processes of their own on loopback, that reduce
float32 without a pause. Times are CLOCK_MONOTONIC, the same in all processes of a host.

  fail-point  a peer SIGKILLs itself half way through the frames that it sends of an operation. The
              clock starts at the earlier of: the parent's pidfd tells the death; a survivor's core
              tells that a link is lost. Both come after the kill itself, by the time that the
              kernel takes to end the process.
  signal      the parent SIGKILLs a peer at any moment; the clock starts before the call.
  stop        the parent SIGSTOPs a peer for good.

It ends when the operation that was under way has completed on the last survivor.
"""

import argparse
import itertools
import json
import os
import random
import select
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import collect
from collect.session.control import ControlPlane

MIB = 1 << 20
SIZE = 4
CHUNK_BYTES = 256 * 1024
FIRST_OPERATIONS = 5  # then a peer tells that it is there
STEADY_S = 0.25  # operations before something happens
PATIENCE_S = 30.0
LOST_WITHIN_S = 0.3  # of a death
NS_PER_MS = 1e6

Told = dict[str, Any]

# ---- a peer's side -------------------------------------------------------------------------------


def note_control_events(marks: list[tuple[int, str]]) -> None:
    """Has the control plane write down when it hears and does what."""
    original = {name: getattr(ControlPlane, name) for name in ("_on_engine_event", "_perform")}
    handle = ControlPlane._handle

    def on_engine_event(self: Any, event: Any, scope: int = 0) -> None:
        if event.kind.name == "LINK_LOST":
            marks.append((event.at_ns, "core: LINK_LOST"))
            marks.append((time.monotonic_ns(), "heard LINK_LOST"))
        original["_on_engine_event"](self, event, scope)

    def perform(self: Any, action: Any) -> Any:
        answers = original["_perform"](self, action)
        inner = getattr(action, "message", None)
        marks.append((time.monotonic_ns(), f"did {type(inner or action).__name__}"))
        return answers

    def heard(self: Any, event: Any) -> None:
        if hasattr(event, "message"):
            marks.append((time.monotonic_ns(), f"heard {type(event.message).__name__}"))
        handle(self, event)

    patches = {"_on_engine_event": on_engine_event, "_perform": perform, "_handle": heard}
    for name, function in patches.items():
        setattr(ControlPlane, name, function)


def peer_main(setting: Told) -> None:
    """Reduces until somebody has been told to stop, then tells when each operation completed."""
    marks: list[tuple[int, str]] = []
    note_control_events(marks)
    count = setting["bytes"] // 4
    array = np.zeros(count, np.float32)
    done: list[tuple[int, int, int]] = []
    with collect.join(
        setting["address"],
        name=setting["name"],
        min_peers=setting["min_peers"],
        timeout=setting["timeout"],
    ) as group:
        is_over = False
        while not is_over:
            array[:] = 1
            if select.select([0], [], [], 0)[0]:
                command = sys.stdin.readline().strip()
                if command == "die":
                    slice_bytes = setting["bytes"] // group.size
                    frames = 2 * (group.size - 1) * max(1, -(-slice_bytes // CHUNK_BYTES))
                    group._kill_at(max(1, frames // 2))
                else:
                    array[-1] = 1000
            result = group.all_reduce(array)
            done.append((result.completed_ns, result.attempts, len(result.participants)))
            if len(done) == FIRST_OPERATIONS:
                print(json.dumps({"what": "joined"}), flush=True)
            is_over = array[-1] >= 1000
        print(json.dumps({"what": "over", "done": done, "marks": marks}), flush=True)


# ---- the parent's side ---------------------------------------------------------------------------


class Child:
    def __init__(self, arguments: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def line(self) -> str:
        ready, _, _ = select.select([self.stdout], [], [], PATIENCE_S)
        line = self.stdout.readline() if ready else ""
        if not line:
            raise RuntimeError(f"process {self.process.pid} tells nothing")
        return line

    def told(self) -> Told:
        return dict(json.loads(self.line()))

    def say(self, line: str) -> None:
        self.stdin.write(line + "\n")
        self.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.stdin.close()
        self.stdout.close()


class World:
    """A coordinator and peers that reduce `payload_bytes` again and again."""

    def __init__(self, payload_bytes: int, timeout_s: float) -> None:
        self.payload_bytes = payload_bytes
        self.timeout_s = timeout_s
        self.address = "127.0.0.1:0"
        self.peers: list[Child] = []
        self.coordinator = self.start_coordinator()

    def start_coordinator(self) -> Child:
        command = ["-m", "collect", "coordinator", "--bind", self.address]
        child = Child([*command, "--timeout", str(self.timeout_s), "--until-eof"])
        self.address = child.line().split()[-1]
        return child

    def add(self, count: int, min_peers: int) -> list[Child]:
        added = []
        for _ in range(count):
            setting = {
                "address": self.address,
                "name": f"p{len(self.peers) + len(added)}",
                "min_peers": min_peers,
                "timeout": self.timeout_s,
                "bytes": self.payload_bytes,
            }
            added.append(Child([__file__, "--peer", json.dumps(setting)]))
        self.peers += added
        for child in added:
            child.told()
        return added

    def finish(self, survivors: list[Child]) -> list[Told]:
        """Ends the loop; what each survivor tells."""
        survivors[0].say("stop")
        told = [child.told() for child in survivors]
        for child in survivors:
            child.process.wait(PATIENCE_S)
        return told

    def close(self) -> None:
        for child in [*self.peers, self.coordinator]:
            child.process.send_signal(signal.SIGCONT)
            child.end()


@contextmanager
def world(payload_bytes: int, timeout_s: float, count: int = SIZE) -> Iterator[World]:
    made = World(payload_bytes, timeout_s)
    try:
        made.add(count, count)
        time.sleep(STEADY_S)
        yield made
    finally:
        made.close()


def wait_for_death(child: Child) -> int:
    """When the process is gone, in nanoseconds; it stays to be waited for."""
    descriptor = os.pidfd_open(child.process.pid)
    try:
        ready, _, _ = select.select([descriptor], [], [], PATIENCE_S)
        now_ns = time.monotonic_ns()
    finally:
        os.close(descriptor)
    if not ready:
        raise RuntimeError("the fail-point did not kill the peer")
    return now_ns


def gaps_ns(told: Told) -> list[tuple[int, int]]:
    """When each operation completed, and how long after the one before."""
    times = [each[0] for each in told["done"]]
    return [(b, b - a) for a, b in itertools.pairwise(times)]


def first_without(told: Told, lost: int) -> int:
    """When the first operation completed that lacks the lost peer, or was re-run."""
    for completed_ns, attempts, participants in told["done"]:
        if completed_ns > lost and (attempts > 1 or participants < SIZE):
            return int(completed_ns)
    raise RuntimeError("no operation was re-run")


def timeline(told: list[Told], since_ns: int) -> Told:
    """The last survivor's first mark of each kind, in ms since the death."""
    latest: Told = {}
    for each in told:
        first: dict[str, float] = {}
        for at_ns, label in each["marks"]:
            if at_ns >= since_ns - 5 * NS_PER_MS:
                first.setdefault(label, (at_ns - since_ns) / NS_PER_MS)
        for label, at_ms in first.items():
            latest[label] = max(at_ms, latest.get(label, at_ms))
    return latest


def kill(payload_bytes: int, how: str, rng: random.Random, timeout_s: float) -> Told:
    """One run: how long the survivors were held up."""
    with world(payload_bytes, timeout_s) as here:
        victim = rng.choice(here.peers)
        survivors = [child for child in here.peers if child is not victim]
        time.sleep(rng.uniform(0, 0.05))
        begin_ns = time.monotonic_ns()
        if how == "fail-point":
            victim.say("die")
            begin_ns = wait_for_death(victim)
        else:
            victim.process.send_signal(signal.SIGKILL if how == "signal" else signal.SIGSTOP)
        time.sleep(LOST_WITHIN_S + (1.5 * timeout_s if how == "stop" else 0))
        told = here.finish(survivors)
        lost_ns = [at for t in told for at, label in t["marks"] if label == "core: LINK_LOST"]
        seen_ns = begin_ns
        if how == "fail-point":
            begin_ns = min([begin_ns, *[at for at in lost_ns if at > begin_ns - 50 * NS_PER_MS]])
        ends_ns = [first_without(each, begin_ns) for each in told]
        usual = [gap for each in told for at, gap in gaps_ns(each) if at < begin_ns]
        return {
            "held_ms": (max(ends_ns) - begin_ns) / NS_PER_MS,
            "link_lost_ms": (min(lost_ns) - seen_ns) / NS_PER_MS,
            "usual_ms": statistics.median(usual) / NS_PER_MS,
            "timeline_ms": timeline(told, begin_ns),
        }


def longest_ms(told: list[Told], since_ns: float, until_ns: float) -> float:
    gaps = [gap for each in told for at, gap in gaps_ns(each) if since_ns <= at < until_ns]
    return max(gaps, default=0) / NS_PER_MS


def marks_during_longest(told: list[Told], since_ns: int, until_ns: int) -> list[Any]:
    """What the control planes did in the longest gap: peer, ms since its beginning, what."""
    gaps = [each for t in told for each in gaps_ns(t) if since_ns <= each[0] < until_ns]
    end_ns, gap_ns = max(gaps, key=lambda each: each[1], default=(0, 0))
    begin_ns = end_ns - gap_ns
    return [
        [index, (at_ns - begin_ns) / NS_PER_MS, label]
        for index, each in enumerate(told)
        for at_ns, label in each["marks"]
        if begin_ns - 20 * NS_PER_MS <= at_ns <= end_ns
    ]


def compare(told: list[Told], since_ns: int, until_ns: int) -> Told:
    before = [gap for each in told for at, gap in gaps_ns(each) if at < since_ns]
    return {
        "usual_ms": statistics.median(before) / NS_PER_MS,
        "longest_before_ms": longest_ms(told, since_ns - (until_ns - since_ns), since_ns),
        "held_ms": longest_ms(told, since_ns, until_ns),
        "during": marks_during_longest(told, since_ns, until_ns),
    }


def join(payload_bytes: int, timeout_s: float) -> Told:
    """The longest gap between operations of three peers while a fourth joins."""
    with world(payload_bytes, timeout_s, SIZE - 1) as here:
        incumbents = list(here.peers)
        time.sleep(0.5)
        since_ns = time.monotonic_ns()
        here.add(1, 1)
        time.sleep(0.05)
        until_ns = time.monotonic_ns()
        told = here.finish(here.peers)[: len(incumbents)]
        return compare(told, since_ns, until_ns)


def restart(payload_bytes: int, timeout_s: float) -> Told:
    """The longest gap while the coordinator is killed, away, and started again."""
    with world(payload_bytes, timeout_s) as here:
        time.sleep(1.0)
        since_ns = time.monotonic_ns()
        here.coordinator.end()
        time.sleep(0.3)
        here.coordinator = here.start_coordinator()
        time.sleep(0.5)
        until_ns = time.monotonic_ns()
        return compare(here.finish(here.peers), since_ns, until_ns)


# ---- the report ----------------------------------------------------------------------------------


def summary(values: list[float]) -> Told:
    ordered = sorted(values)
    return {
        "median": statistics.median(ordered),
        "p95": ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))],
        "max": ordered[-1],
    }


def measure(label: str, runs: int, once: Callable[[], Told]) -> Told:
    found = []
    for _ in range(runs):
        found.append(once())
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    held = summary([each["held_ms"] for each in found])
    usual = statistics.median(each["usual_ms"] for each in found)
    print(
        f"{label:34} {usual:9.2f} {held['median']:9.2f} {held['p95']:9.2f} {held['max']:9.2f}",
        flush=True,
    )
    marks: dict[str, list[float]] = {}
    for each in found:
        for name, at_ms in each.get("timeline_ms", {}).items():
            marks.setdefault(name, []).append(at_ms)
    often = {name: statistics.median(at) for name, at in marks.items() if len(at) > runs // 2}
    return {
        "what": label,
        "held_ms": held,
        "usual_ms": usual,
        "timeline_ms": dict(sorted(often.items(), key=lambda item: item[1])),
        "runs": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", help="a file that gets everything")
    parser.add_argument("--only", help="measure only what has this in its name")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        peer_main(json.loads(arguments.peer))
        return
    rng = random.Random(arguments.seed)
    plans: list[tuple[str, Callable[[], Told]]] = []
    for mib in (1, 16):
        for how in ("fail-point", "signal"):
            once = lambda mib=mib, how=how: kill(mib * MIB, how, rng, 5.0)  # noqa: E731
            plans.append((f"kill, {how}, {mib} MiB", once))
    plans.append(("stop, timeout 1 s, 1 MiB", lambda: kill(MIB, "stop", rng, 1.0)))
    plans.append(("join, 1 MiB", lambda: join(MIB, 1.0)))
    plans.append(("coordinator restart, 1 MiB", lambda: restart(MIB, 1.0)))
    print(f"{'ms':34} {'usual':>9} {'median':>9} {'p95':>9} {'max':>9}   {arguments.runs} runs")
    results = [
        measure(label, arguments.runs, once)
        for label, once in plans
        if not arguments.only or arguments.only in label
    ]
    for result in results:
        if result["timeline_ms"]:
            print(f"\n{result['what']}: median of the last survivor's first, ms after the death")
            for name, at_ms in result["timeline_ms"].items():
                print(f"  {at_ms:8.2f}  {name}")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
